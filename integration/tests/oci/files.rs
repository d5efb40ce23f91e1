//! Command, environment, mounts and devices, seen from inside.

use std::fs;

use haled::oci::SandboxFile;
use haled::oci::model::{Device, EnvVar, Mount, Propagation};

use super::rig::{Rig, Wanted, bind};

/// The options of a mount, and its optional fields, in a mountinfo text.
fn mount_line<'a>(mountinfo: &'a str, point: &str) -> &'a str {
    let at = |line: &&str| line.split(' ').nth(4) == Some(point);
    mountinfo.lines().rfind(at).unwrap_or_else(|| panic!("no {point} in {mountinfo}"))
}

#[test]
fn command_environment_and_directory_are_as_asked() {
    let mut wanted = Wanted::shell("echo $0 $1; pwd; echo $A $B $HOSTNAME; echo $PATH");
    wanted.args = ["zero", "one"].map(str::to_owned).to_vec();
    wanted.image_env = ["A=image", "B=image"].map(str::to_owned).to_vec();
    wanted.env = vec![EnvVar { name: "B".to_owned(), value: "own = x".to_owned() }];
    wanted.working_dir = "/made/by/runc".to_owned();
    wanted.hostname = "pod-0".to_owned();
    let out = Rig::new().run(&wanted).good();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(out, format!("zero one\n/made/by/runc\nimage own = x pod-0\n{path}\n"));
}

#[test]
fn the_sandboxs_files_are_there_unless_mounted_over() {
    let rig = Rig::new();
    let file = |name: &str, text: &str| {
        fs::write(rig.path(name), text).unwrap();
        rig.path(name)
    };
    let sandbox = |host_path, container_path: &str, readonly| SandboxFile {
        host_path,
        container_path: container_path.into(),
        readonly,
    };
    fs::create_dir(rig.path("shm")).unwrap();
    fs::write(rig.path("shm/shared"), "memory\n").unwrap();
    let mut wanted = Wanted::shell(
        "cat /etc/hosts /etc/resolv.conf /dev/shm/shared; ! touch /etc/resolv.conf 2>/dev/null",
    );
    wanted.sandbox_files = vec![
        sandbox(file("hosts", "the pod's\n"), "/etc/hosts", false),
        sandbox(file("resolv", "nameserver\n"), "/etc/resolv.conf", true),
        sandbox(rig.path("shm"), "/dev/shm", false),
    ];
    wanted.mounts = vec![bind(&file("own-hosts", "its own\n"), "/etc/hosts")];
    assert_eq!(rig.run(&wanted).good(), "its own\nnameserver\nmemory\n");
}

/// Mounts and their guard: a shared tmpfs on a test's directory, with a mount below it.
struct Shared<'a>(&'a std::path::Path);

impl<'a> Shared<'a> {
    fn new(path: &'a std::path::Path) -> Self {
        use nix::mount::{MsFlags, mount};
        fs::create_dir_all(path).unwrap();
        let none = None::<&str>;
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let guard = Self(path);
        mount(none, path, none, MsFlags::MS_SHARED, none).unwrap();
        fs::create_dir(path.join("below")).unwrap();
        mount(Some("tmpfs"), &path.join("below"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        guard
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        haled::sys::mount::detach(self.0).unwrap();
    }
}

#[test]
fn volumes_are_mounted_as_asked() {
    let rig = Rig::new();
    let host = rig.path("shared");
    let _shared = Shared::new(&host);
    let mount = |inside: &str, readonly, recursive_readonly, propagation| Mount {
        readonly,
        recursive_readonly,
        propagation,
        ..bind(&host, inside)
    };
    let mut wanted = Wanted::shell(
        "cat /proc/self/mountinfo; touch /data/rw/below/f && ! touch /data/ro/f 2>/dev/null &&
         touch /data/ro/below/f && ! touch /data/rro/below/f 2>/dev/null && echo as asked",
    );
    wanted.mounts = vec![
        mount("/data/rw/below/deeper", false, false, Propagation::Private),
        mount("/data/rw", false, false, Propagation::Private),
        mount("/data/ro", true, false, Propagation::Private),
        mount("/data/rro", true, true, Propagation::Private),
        mount("/data/slave", false, false, Propagation::HostToContainer),
        mount("/data/both", false, false, Propagation::Bidirectional),
    ];
    let out = rig.run(&wanted).good();
    assert!(out.ends_with("as asked\n"), "{out}");
    for (point, shared, slave) in [
        ("/data/rw", false, false),
        ("/data/rw/below/deeper", false, false),
        ("/data/slave", false, true),
        ("/data/both", true, false),
    ] {
        let line = mount_line(&out, point);
        assert_eq!(line.contains("shared:"), shared, "{line}");
        assert_eq!(line.contains("master:"), slave, "{line}");
    }
}

#[test]
fn what_a_container_mounts_in_a_shared_volume_is_seen_outside() {
    let rig = Rig::new();
    let host = rig.path("shared");
    let _shared = Shared::new(&host);
    let mut wanted = Wanted::shell(
        "mkdir /both/new && mount -t tmpfs none /both/new && touch /both/new/from-inside",
    );
    wanted.security.privileged = true;
    wanted.mounts = vec![Mount { propagation: Propagation::Bidirectional, ..bind(&host, "/both") }];
    rig.run(&wanted).good();
    assert!(host.join("new/from-inside").exists());
}

#[test]
fn a_private_host_mount_cant_be_shared_and_says_how_it_could() {
    use nix::mount::{MsFlags, mount};
    let rig = Rig::new();
    let host = rig.path("private");
    let _shared = Shared::new(&host);
    mount(None::<&str>, &host, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let mut wanted = Wanted::shell("true");
    wanted.mounts = vec![Mount { propagation: Propagation::Bidirectional, ..bind(&host, "/both") }];
    let error = rig.spec(&wanted).unwrap_err();
    let text = error.to_string();
    assert!(error.is_bad_request(), "{text}");
    assert!(text.starts_with("mounts[0]: ") && text.contains("mount --make-rshared"), "{text}");
}

#[test]
fn a_link_of_the_image_doesnt_lead_a_mount_out() {
    let rig = Rig::new();
    let outside = rig.path("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, rig.rootfs().join("link")).unwrap();
    let volume = rig.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    let mut wanted = Wanted::shell("cat /link/sub/file");
    wanted.mounts = vec![bind(&volume, "/link/sub")];
    assert_eq!(rig.run(&wanted).good(), "volume\n");
    assert!(!outside.join("sub").exists());
}

#[test]
fn a_device_can_be_used_as_permitted() {
    use std::os::unix::fs::MetadataExt as _;
    let rig = Rig::new();
    // One that no container has by default, and that nobody minds being opened.
    let host = ["/dev/fuse", "/dev/loop-control", "/dev/kmsg"];
    let host = host.into_iter().find(|path| fs::metadata(path).is_ok()).unwrap();
    let number = fs::metadata(host).unwrap().rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let open = format!(
        "(: < /dev/given) 2>/dev/null && echo given
         mknod /tmp/made c {major} {minor} && ! (: < /tmp/made) 2>/dev/null && echo denied"
    );
    let mut wanted = Wanted::shell(&open);
    wanted.devices = vec![Device {
        host_path: host.into(),
        container_path: "/dev/given".into(),
        permissions: "r".to_owned(),
    }];
    // The same device by another node, for writing: that was not permitted.
    wanted.command[2] = open.replace("(: < /tmp", "(: > /tmp");
    assert_eq!(rig.run(&wanted).good(), "given\ndenied\n");
    // What was never given can't be opened, even where mknod can make it.
    let ended = Rig::new().run(&Wanted::shell(&open));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "denied\n"), "{}", ended.err);
}
