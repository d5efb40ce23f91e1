//! The mounts of a container, parents before children: the kernel's file systems, the
//! sandbox's files, and what the container asks for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::command::MAX_PATH_BYTES;
use super::host::Host;
use super::model::{self, Propagation};
use super::{Error, Input};

/// Mounts of one container.
const MAX_MOUNTS: usize = 4096;

/// What becomes of the mounts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounts {
    pub(super) list: Vec<Mount>,
    /// linux.rootfsPropagation, where a mount needs one.
    pub(super) rootfs_propagation: Option<&'static str>,
}

pub(super) fn mounts(input: &Input<'_>, host: &Host) -> Result<Mounts, Error> {
    if input.mounts.len() + input.sandbox_files.len() > MAX_MOUNTS {
        let why = format!("mounts are too many: at most {MAX_MOUNTS}");
        return Err(Error::invalid("mounts", input.mounts.len(), why));
    }
    let mut own = Vec::new();
    for (index, mount) in input.mounts.iter().enumerate() {
        own.push(bound(&format!("mounts[{index}]"), mount, host)?);
    }
    let taken: BTreeSet<PathBuf> = own.iter().map(|mount| mount.destination().clone()).collect();

    let mut files = Vec::new();
    for (index, file) in input.sandbox_files.iter().enumerate() {
        let field = format!("sandbox_files[{index}]");
        let destination = destination(&field, &file.container_path)?;
        if taken.contains(&destination) {
            continue;
        }
        absolute(&field, &file.host_path)?;
        let access = if file.readonly { "ro" } else { "rw" };
        files.push(mount(&destination, "bind", &file.host_path, &["rbind", "rprivate", access]));
    }
    let filed: BTreeSet<PathBuf> = files.iter().map(|mount| mount.destination().clone()).collect();

    // A /dev of the container's own comes with all that is in it.
    let own_dev = taken.contains(Path::new("/dev"));
    let is_free = |mount: &Mount| {
        let path = mount.destination();
        let of_own_dev = own_dev && path.starts_with("/dev");
        !taken.contains(path) && !filed.contains(path) && !of_own_dev
    };
    let mut list: Vec<Mount> =
        kernel_mounts(input.security.privileged).into_iter().filter(is_free).collect();
    list.extend(files);
    list.extend(own);
    // Stable: of two mounts at one place the container's is on top.
    list.sort_by_key(|mount| mount.destination().components().count());
    Ok(Mounts { list, rootfs_propagation: rootfs_propagation(input.mounts) })
}

/// /proc, /dev, /sys and what belongs in them.
fn kernel_mounts(privileged: bool) -> Vec<Mount> {
    // What describes the machine is writable to privileged containers alone.
    let machine = if privileged { "rw" } else { "ro" };
    let of = |path: &str, kind: &str, source: &str, options: &[&str]| {
        mount(Path::new(path), kind, Path::new(source), options)
    };
    let closed = ["nosuid", "noexec", "nodev"];
    let [a, b, c] = closed;
    vec![
        of("/proc", "proc", "proc", &closed),
        of("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        of(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        of("/dev/shm", "tmpfs", "shm", &[a, b, c, "mode=1777", "size=65536k"]),
        of("/dev/mqueue", "mqueue", "mqueue", &closed),
        of("/sys", "sysfs", "sysfs", &[a, b, c, machine]),
        of("/sys/fs/cgroup", "cgroup", "cgroup", &[a, b, c, "relatime", machine]),
    ]
}

fn mount(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(|&each| each.to_owned()).collect()));
    mount
}

/// One of the container's own.
fn bound(field: &str, wanted: &model::Mount, host: &Host) -> Result<Mount, Error> {
    let destination = destination(field, &wanted.container_path)?;
    absolute(field, &wanted.host_path)?;
    if wanted.recursive_readonly && !wanted.readonly {
        let why = "asks for recursive_readonly without readonly";
        return Err(Error::invalid(field, &wanted.container_path, why));
    }
    if wanted.recursive_readonly && wanted.propagation != Propagation::Private {
        let why = "asks for recursive_readonly with propagation: only a private mount can be";
        return Err(Error::invalid(field, &wanted.container_path, why));
    }
    check_propagation(field, wanted, &host.mountinfo)?;
    let propagation = match wanted.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = match (wanted.readonly, wanted.recursive_readonly) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    Ok(mount(&destination, "bind", &wanted.host_path, &["rbind", propagation, access]))
}

/// Makes sure that a mount can travel as asked: it can't from a private mount of the host.
fn check_propagation(field: &str, wanted: &model::Mount, mountinfo: &str) -> Result<(), Error> {
    if wanted.propagation == Propagation::Private {
        return Ok(());
    }
    let path = fs::canonicalize(&wanted.host_path).map_err(|error| {
        Error::host(format!("resolve {field}: {}", wanted.host_path.display()), error)
    })?;
    let Some((point, peers)) = holder(mountinfo, &path) else {
        return Err(Error::unsupported(field, format!("no mount holds {}", path.display())));
    };
    let (word, fits) = match wanted.propagation {
        Propagation::Bidirectional => ("shared", peers.shared),
        _ => ("shared or slave", peers.shared || peers.slave),
    };
    if fits {
        return Ok(());
    }
    let why = format!(
        "{} is on the mount {}, which is not {word}, so {:?} propagation can't work: run \
         \"mount --make-rshared {}\" on the host",
        path.display(),
        point.display(),
        wanted.propagation,
        point.display()
    );
    Err(Error::unsupported(field, why))
}

/// How mounts travel to and from a mount of the host.
#[derive(Debug, PartialEq, Eq)]
struct Peers {
    shared: bool,
    slave: bool,
}

/// The mount that holds a path, the last of those stacked at one place
/// (proc_pid_mountinfo(5)).
fn holder(mountinfo: &str, path: &Path) -> Option<(PathBuf, Peers)> {
    let mut best: Option<(PathBuf, Peers)> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4) else { continue };
        let point = PathBuf::from(unescape(point));
        let depth = |path: &Path| path.components().count();
        let deeper = best.as_ref().is_none_or(|(held, _)| depth(&point) >= depth(held));
        if !path.starts_with(&point) || !deeper {
            continue;
        }
        let optional: Vec<&str> = fields.skip(1).take_while(|&each| each != "-").collect();
        let has = |tag: &str| optional.iter().any(|each| each.starts_with(tag));
        best = Some((point, Peers { shared: has("shared:"), slave: has("master:") }));
    }
    best
}

fn unescape(text: &str) -> String {
    let mut path = text.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(escaped, plain);
    }
    path
}

/// A slave mount needs a root that isn't private, and a shared one a shared root.
fn rootfs_propagation(mounts: &[model::Mount]) -> Option<&'static str> {
    let has = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    match (has(Propagation::Bidirectional), has(Propagation::HostToContainer)) {
        (true, _) => Some("rshared"),
        (false, true) => Some("rslave"),
        (false, false) => None,
    }
}

/// A path in the container, cleaned as the runtime will (`/a/../b` is `/b`): links in it are
/// the runtime's to resolve inside the root.
pub(super) fn destination(field: &str, path: &Path) -> Result<PathBuf, Error> {
    absolute(field, path)?;
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err(Error::invalid(field, path, "is the root itself: mount over a path below /"));
    }
    Ok(clean)
}

pub(super) fn absolute(field: &str, path: &Path) -> Result<(), Error> {
    let text = path.as_os_str().as_encoded_bytes();
    if !path.is_absolute() {
        return Err(Error::invalid(field, path, "is not absolute: start it with /"));
    }
    if text.contains(&0) || text.len() > MAX_PATH_BYTES {
        return Err(Error::invalid(field, path, "is no path: it holds NUL or is too long"));
    }
    if path.to_str().is_none() {
        return Err(Error::invalid(field, path, "is not UTF-8, which config.json must be"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:30 / /srv rw shared:5 - tmpfs t rw
41 40 0:31 / /srv/slave rw master:5 - tmpfs t rw
42 40 0:32 / /srv/both\\040ways rw shared:6 master:5 - tmpfs t rw
43 27 0:33 / /stacked rw - tmpfs t rw
44 43 0:34 / /stacked rw shared:9 - tmpfs t rw
";

    #[test]
    fn the_innermost_topmost_mount_holds_a_path() {
        for (path, point, shared, slave) in [
            ("/etc", "/", false, false),
            ("/srv", "/srv", true, false),
            ("/srvother", "/", false, false),
            ("/srv/slave/x", "/srv/slave", false, true),
            ("/srv/both ways", "/srv/both ways", true, true),
            ("/stacked/x", "/stacked", true, false),
        ] {
            let expected = (PathBuf::from(point), Peers { shared, slave });
            assert_eq!(holder(MOUNTINFO, Path::new(path)), Some(expected), "{path}");
        }
        assert_eq!(holder("", Path::new("/")), None);
    }

    #[test]
    fn a_private_mount_of_the_host_cant_propagate() {
        for propagation in [Propagation::Bidirectional, Propagation::HostToContainer] {
            let wanted = model::Mount {
                container_path: "/x".into(),
                host_path: "/etc".into(),
                propagation,
                ..model::Mount::default()
            };
            let error = check_propagation("mounts[0]", &wanted, MOUNTINFO).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("mount --make-rshared /\""), "{text}");
            let shared = MOUNTINFO.replace("/ / rw,relatime -", "/ / rw shared:1 -");
            check_propagation("mounts[0]", &wanted, &shared).unwrap();
        }
    }

    #[test]
    fn a_destination_is_cleaned_and_never_the_root() {
        for (path, clean) in [("/a/../b/", "/b"), ("/a/./b//c", "/a/b/c"), ("/../../a", "/a")] {
            assert_eq!(destination("m", Path::new(path)).unwrap(), Path::new(clean));
        }
        for bad in ["", "a", "./a", "/", "/a/..", "/..", "/a\0b"] {
            assert!(destination("m", Path::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_root_propagates_as_its_freest_mount_needs() {
        let mount = |propagation| model::Mount {
            container_path: "/x".into(),
            host_path: "/x".into(),
            propagation,
            ..model::Mount::default()
        };
        let slave = mount(Propagation::HostToContainer);
        let shared = mount(Propagation::Bidirectional);
        assert_eq!(rootfs_propagation(&[mount(Propagation::Private)]), None);
        assert_eq!(rootfs_propagation(std::slice::from_ref(&slave)), Some("rslave"));
        assert_eq!(rootfs_propagation(&[slave, shared]), Some("rshared"));
    }

    proptest::proptest! {
        #[test]
        fn a_destination_never_climbs(path in "/([a./]|\\PC){0,30}") {
            if let Ok(clean) = destination("m", Path::new(&path)) {
                let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
                proptest::prop_assert!(clean.is_absolute() && clean.components().all(plain));
            }
        }

        #[test]
        fn any_mountinfo_is_read_without_a_panic(text in "([ -:/a\n\\\\]|\\PC){0,200}") {
            drop(holder(&text, Path::new("/a")));
        }
    }
}
