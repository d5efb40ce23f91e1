//! Who the process runs as: a request and the image's User, looked up in the image's
//! /etc/passwd and /etc/group, which are as hostile as the rest of an image.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use oci_spec::runtime::User;
use pathrs::Root;
use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;

use super::Error;
use super::model::UserRequest;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const NOT_FOUND: ErrorKind = ErrorKind::OsError(Some(libc::ENOENT));
/// Bytes read of /etc/passwd or /etc/group.
const MAX_DATABASE_BYTES: u64 = 4 << 20;
/// The largest uid or gid that OCI runtimes take.
const MAX_ID: u32 = i32::MAX as u32;
/// Groups of one process (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// A user as asked for, before any look-up.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Id(u32),
    Name(String),
}

/// Resolves the user of a container (the CRI's run_as_user, run_as_username, run_as_group,
/// supplemental_groups and SupplementalGroupsPolicy; else the image's `user[:group]`).
pub(super) fn resolve(
    request: &UserRequest,
    image_user: &str,
    rootfs: &Path,
) -> Result<User, Error> {
    let (user, group) = asked(request, image_user)?;
    let image = Image { rootfs };
    let passwd = image.read(PASSWD)?;

    let entry = passwd_entries(&passwd).find(|entry| match &user {
        Asked::Id(uid) => entry.uid == *uid,
        Asked::Name(name) => entry.name == name,
    });
    let (uid, own_gid) = match (&user, &entry) {
        (_, Some(entry)) => (entry.uid, entry.gid),
        // A number needs no entry; its group is then root's, as in other runtimes.
        (Asked::Id(uid), None) => (*uid, 0),
        (Asked::Name(name), None) => {
            return Err(Error::Unknown { kind: "user", name: name.clone(), file: PASSWD });
        }
    };
    let groups = image.read(GROUP)?;
    let gid = match group {
        None => own_gid,
        Some(Asked::Id(gid)) => gid,
        Some(Asked::Name(name)) => group_entries(&groups)
            .find(|entry| entry.name == name)
            .map(|entry| entry.gid)
            .ok_or(Error::Unknown { kind: "group", name, file: GROUP })?,
    };
    limited("user", uid)?;
    limited("group", gid)?;

    // The primary group is listed too: a file that denies a group must deny it to a process
    // that has it by either way.
    let mut further = vec![gid];
    if !request.strict_groups
        && let Some(entry) = &entry
    {
        let member = |group: &GroupEntry<'_>| group.members.split(',').any(|m| m == entry.name);
        further.extend(group_entries(&groups).filter(member).map(|group| group.gid));
    }
    for &gid in &request.supplemental_groups {
        limited("supplemental_groups", gid)?;
        further.push(gid);
    }
    let mut seen = BTreeSet::new();
    further.retain(|&gid| seen.insert(gid));
    if further.len() > MAX_GROUPS {
        let why = format!("groups are too many: at most {MAX_GROUPS}");
        return Err(Error::invalid("supplemental_groups", further.len(), why));
    }
    let mut result = User::default();
    result.set_uid(uid).set_gid(gid).set_additional_gids(Some(further));
    Ok(result)
}

fn asked(request: &UserRequest, image_user: &str) -> Result<(Asked, Option<Asked>), Error> {
    let group = request.gid.map(Asked::Id);
    let name = request.name.as_deref().filter(|name| !name.is_empty());
    match (request.uid, name) {
        (Some(uid), _) => Ok((Asked::Id(uid), group)),
        (None, Some(name)) => Ok((parse("user.name", name)?, group)),
        (None, None) if group.is_some() => {
            let why = "is a group without a user: give run_as_user or run_as_username too";
            Err(Error::invalid("run_as_group", request.gid, why))
        }
        (None, None) => match image_user.split_once(':') {
            None if image_user.is_empty() => Ok((Asked::Id(0), None)),
            None => Ok((parse("image user", image_user)?, None)),
            Some((user, group)) => {
                let user = if user.is_empty() { "0" } else { user };
                let group = Some(group).filter(|group| !group.is_empty());
                let group = group.map(|group| parse("image user", group)).transpose()?;
                Ok((parse("image user", user)?, group))
            }
        },
    }
}

/// A number, or else a name.
fn parse(field: &str, text: &str) -> Result<Asked, Error> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let why = format!("is no id: at most {MAX_ID}");
        return text.parse().map(Asked::Id).map_err(|_| Error::invalid(field, text, why));
    }
    if text.contains([':', '\n', '\0']) {
        return Err(Error::invalid(field, text, "is no name of a user or group"));
    }
    Ok(Asked::Name(text.to_owned()))
}

fn limited(field: &str, id: u32) -> Result<(), Error> {
    if id > MAX_ID {
        return Err(Error::invalid(field, id, format!("is no id: at most {MAX_ID}")));
    }
    Ok(())
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// The lines of passwd(5) that make sense.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(PasswdEntry { name, uid, gid })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// The lines of group(5) that make sense.
fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default().trim_end() })
    })
}

/// The image's file system: every path is resolved inside it, whatever its links say.
struct Image<'a> {
    rootfs: &'a Path,
}

impl Image<'_> {
    /// A file as text, lossily; not there: empty.
    fn read(&self, path: &'static str) -> Result<String, Error> {
        let failed = |why: String| Error::Image { rootfs: self.rootfs.to_owned(), path, why };
        let root = Root::open(self.rootfs).map_err(|error| failed(error.to_string()))?;
        let handle = match root.resolve(path) {
            Ok(handle) => handle,
            Err(error) if error.kind() == NOT_FOUND => return Ok(String::new()),
            Err(error) => return Err(failed(error.to_string())),
        };
        // The kind is known before it is opened: opening a device or a FIFO can hang.
        let kind = rustix::fs::fstat(&handle).map_err(|error| failed(error.to_string()))?;
        if rustix::fs::FileType::from_raw_mode(kind.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(failed("it is not a regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        handle
            .reopen(OpenFlags::O_RDONLY)
            .map_err(|error| failed(error.to_string()))?
            .take(MAX_DATABASE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > MAX_DATABASE_BYTES {
            return Err(failed(format!("it is over {MAX_DATABASE_BYTES} bytes long")));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww-data:x:33:33:w:/var/www:/x\n\
                         app:x:1000:1000::/home/app:/bin/sh\n:x:7:7::/:\n";
    const GROUPS: &str = "root:x:0:\nwww-data:x:33:\nstaff:x:50:root,app\nnonsense:x:y:app\n\
                          extra:x:50000:app\napp:x:1000:\n";

    fn image() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), USERS).unwrap();
        fs::write(root.path().join("etc/group"), GROUPS).unwrap();
        root
    }

    fn ids(request: &UserRequest, image_user: &str) -> Result<(u32, u32, Vec<u32>), Error> {
        let image = image();
        let user = resolve(request, image_user, image.path())?;
        Ok((user.uid(), user.gid(), user.additional_gids().clone().unwrap_or_default()))
    }

    #[test]
    fn every_form_of_the_images_user() {
        let none = UserRequest::default();
        for (image_user, expected) in [
            ("", (0, 0, vec![0, 50])),
            ("0", (0, 0, vec![0, 50])),
            ("www-data", (33, 33, vec![33])),
            ("1000", (1000, 1000, vec![1000, 50, 50000])),
            ("app", (1000, 1000, vec![1000, 50, 50000])),
            ("1002", (1002, 0, vec![0])),
            ("1003:1004", (1003, 1004, vec![1004])),
            ("www-data:1004", (33, 1004, vec![1004])),
            ("app:staff", (1000, 50, vec![50, 50000])),
            ("1000:", (1000, 1000, vec![1000, 50, 50000])),
            (":staff", (0, 50, vec![50])),
        ] {
            assert_eq!(ids(&none, image_user).unwrap(), expected, "{image_user}");
        }
    }

    #[test]
    fn a_request_goes_before_the_image() {
        let uid = |uid, gid| UserRequest { uid, gid, ..Default::default() };
        assert_eq!(ids(&uid(Some(1000), None), "www-data").unwrap().0, 1000);
        assert_eq!(ids(&uid(Some(1000), Some(9)), "0").unwrap(), (1000, 9, vec![9, 50, 50000]));
        let name = UserRequest { name: Some("www-data".into()), ..Default::default() };
        assert_eq!(ids(&name, "app").unwrap(), (33, 33, vec![33]));
        let both = UserRequest { uid: Some(1), ..name };
        assert_eq!(ids(&both, "app").unwrap(), (1, 0, vec![0]));
        let alone = ids(&uid(None, Some(5)), "app").unwrap_err().to_string();
        assert!(alone.contains("a group without a user"), "{alone}");
    }

    #[test]
    fn strict_groups_leave_the_images_groups_out() {
        let mut request = UserRequest {
            uid: Some(1000),
            supplemental_groups: vec![1234, 50],
            ..Default::default()
        };
        assert_eq!(ids(&request, "").unwrap().2, [1000, 50, 50000, 1234]);
        request.strict_groups = true;
        assert_eq!(ids(&request, "").unwrap().2, [1000, 1234, 50]);
    }

    #[test]
    fn who_isnt_there_is_named() {
        let none = UserRequest::default();
        let text = ids(&none, "nobody").unwrap_err().to_string();
        assert_eq!(
            text,
            "user \"nobody\" is not in the image's /etc/passwd: add it there or give a number"
        );
        let text = ids(&none, "app:wheel").unwrap_err().to_string();
        assert!(text.starts_with("group \"wheel\" is not in the image's /etc/group"), "{text}");
    }

    #[test]
    fn absurd_ids_are_refused() {
        for bad in ["4294967295", "2147483648", "99999999999999999999", "1:4294967295", "a\nb"] {
            assert!(ids(&UserRequest::default(), bad).unwrap_err().is_bad_request(), "{bad}");
        }
        let request = UserRequest { uid: Some(u32::MAX), ..Default::default() };
        assert!(ids(&request, "").is_err());
        let supplemental_groups = vec![u32::MAX];
        assert!(ids(&UserRequest { supplemental_groups, ..Default::default() }, "").is_err());
    }

    #[test]
    fn links_stay_inside_the_image() {
        let root = image();
        let etc = root.path().join("etc");
        fs::write(root.path().join("users"), "inside:x:7:8::/:/x\n").unwrap();
        let resolve = |name: &str| {
            let request = UserRequest { name: Some(name.into()), ..Default::default() };
            resolve(&request, "", root.path())
        };
        // An absolute link means a file of the image, and so does one that climbs too high.
        for target in ["/users", "../../../../../users"] {
            fs::remove_file(etc.join("passwd")).unwrap();
            symlink(target, etc.join("passwd")).unwrap();
            assert_eq!(resolve("inside").unwrap().uid(), 7);
        }
        // The host's own file isn't reached.
        fs::remove_file(etc.join("passwd")).unwrap();
        symlink("/../../etc/passwd-of-the-host", etc.join("passwd")).unwrap();
        assert!(matches!(resolve("root"), Err(Error::Unknown { .. })));
        fs::remove_file(etc.join("passwd")).unwrap();
        symlink("passwd", etc.join("passwd")).unwrap();
        assert!(matches!(resolve("root"), Err(Error::Image { .. })));
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused_without_hanging() {
        let root = image();
        let passwd = root.path().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let request = UserRequest::default();
        let text = resolve(&request, "", root.path()).unwrap_err().to_string();
        assert!(text.contains("not a regular file"), "{text}");

        fs::remove_file(&passwd).unwrap();
        fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
        let text = resolve(&request, "", root.path()).unwrap_err().to_string();
        assert!(text.contains("is over"), "{text}");
    }

    #[test]
    fn an_image_without_passwd_has_numbers_only() {
        let root = tempfile::tempdir().unwrap();
        let user = resolve(&UserRequest::default(), "12:34", root.path()).unwrap();
        assert_eq!((user.uid(), user.gid()), (12, 34));
        assert!(resolve(&UserRequest::default(), "root", root.path()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_file_and_any_user_give_an_answer_without_a_panic(
            passwd in "([a-c0-9x:,\n]|\\PC){0,80}",
            group in "([a-c0-9x:,\n]|\\PC){0,80}",
            user in "([a-c0-9:]|\\PC){0,12}",
            supplemental_groups: Vec<u32>,
        ) {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("etc")).unwrap();
            fs::write(root.path().join("etc/passwd"), passwd).unwrap();
            fs::write(root.path().join("etc/group"), group).unwrap();
            let request = UserRequest { supplemental_groups, ..Default::default() };
            if let Ok(user) = resolve(&request, &user, root.path()) {
                proptest::prop_assert!(user.uid() <= MAX_ID && user.gid() <= MAX_ID);
                let groups = user.additional_gids().clone().unwrap();
                proptest::prop_assert_eq!(groups[0], user.gid());
                proptest::prop_assert!(groups.iter().all(|&gid| gid <= MAX_ID));
            }
        }
    }
}
