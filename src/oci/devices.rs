//! Devices given to a container, and the rules that let it use them.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::Error;
use super::model::Device;
use super::mounts::{absolute, destination};

/// Device nodes of one container.
const MAX_DEVICES: usize = 4096;
/// How deep a directory of devices may be.
const MAX_DEPTH: usize = 8;
/// In /dev, but the container's own mounts.
const NOT_OF_THE_HOST: [&str; 4] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"];

/// Nodes to make and rules to set. Everything is denied first; what every container may use
/// (null, zero, full, random, urandom, tty, ptmx, pts) is added by the runtime.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Devices {
    pub(super) nodes: Vec<LinuxDevice>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

/// What a privileged container has of the host's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrivilegedDevices {
    /// All of them.
    #[default]
    All,
    /// Those it asks for, but it may make and use the others.
    Asked,
    /// Those it asks for, and no others.
    AskedAlone,
}

/// `privileged`: `None` for a container that isn't.
pub(super) fn devices(
    asked: &[Device],
    privileged: Option<PrivilegedDevices>,
) -> Result<Devices, Error> {
    let mut result = Devices::default();
    let every = privileged.is_some_and(|devices| devices != PrivilegedDevices::AskedAlone);
    result.rules.push(rule(every, None, "rwm"));
    if privileged == Some(PrivilegedDevices::All) {
        let found = below(Path::new("/dev")).map_err(|error| Error::host("list /dev", error))?;
        for path in found {
            if let Some(node) = node(&path, &path)? {
                result.add(node, None)?;
            }
        }
    }
    for (index, device) in asked.iter().enumerate() {
        result.ask(&format!("devices[{index}]"), device, every)?;
    }
    Ok(result)
}

impl Devices {
    /// `every`: all devices are allowed as they are.
    fn ask(&mut self, field: &str, device: &Device, every: bool) -> Result<(), Error> {
        absolute(field, &device.host_path)?;
        let inside = destination(field, &device.container_path)?;
        let access = access(field, &device.permissions)?;
        let access = (!every).then_some(access);
        let failed =
            |error| Error::host(format!("look at {field}: {}", device.host_path.display()), error);
        let meta = fs::metadata(&device.host_path).map_err(failed)?;
        if !meta.is_dir() {
            let Some(node) = node(&device.host_path, &inside)? else {
                let why = "is neither a device nor a directory of devices";
                return Err(Error::invalid(field, &device.host_path, why));
            };
            return self.add(node, access);
        }
        let found = below(&device.host_path).map_err(failed)?;
        let mut any = false;
        for path in found {
            let rest = path.strip_prefix(&device.host_path).unwrap_or(&path);
            if let Some(node) = node(&path, &inside.join(rest))? {
                any = true;
                self.add(node, access)?;
            }
        }
        if any {
            return Ok(());
        }
        Err(Error::invalid(field, &device.host_path, "is a directory without a device"))
    }

    /// Adds a node, in place of one at the same path.
    fn add(&mut self, node: LinuxDevice, access: Option<&str>) -> Result<(), Error> {
        if let Some(access) = access {
            self.rules.push(rule(true, Some(&node), access));
        }
        self.nodes.retain(|each| each.path() != node.path());
        self.nodes.push(node);
        if self.nodes.len() > MAX_DEVICES {
            let why = format!("devices are too many: at most {MAX_DEVICES}");
            return Err(Error::invalid("devices", self.nodes.len(), why));
        }
        Ok(())
    }
}

/// Any of `r`, `w` and `m`, each once; empty: all.
pub(super) fn access<'a>(field: &str, permissions: &'a str) -> Result<&'a str, Error> {
    if permissions.is_empty() {
        return Ok("rwm");
    }
    let known = permissions.bytes().all(|each| b"rwm".contains(&each));
    if !known || permissions.len() > 3 {
        let why = "is no permission: give any of r, w and m";
        return Err(Error::invalid(field, permissions, why));
    }
    Ok(permissions)
}

pub(super) fn rule(allow: bool, node: Option<&LinuxDevice>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_access(Some(access.to_owned()));
    if let Some(node) = node {
        rule.set_typ(Some(node.typ())).set_major(Some(node.major())).set_minor(Some(node.minor()));
    }
    rule
}

/// The device at a host path (links followed) as one at a path of the container; `None`: it
/// is none, or it is gone.
pub(super) fn node(host: &Path, inside: &Path) -> Result<Option<LinuxDevice>, Error> {
    let meta = match fs::metadata(host) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::host(format!("look at {}", host.display()), error)),
    };
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return Ok(None),
    };
    let mut node = LinuxDevice::default();
    node.set_path(inside.to_owned())
        .set_typ(kind)
        .set_major(i64::from(rustix::fs::major(meta.rdev())))
        .set_minor(i64::from(rustix::fs::minor(meta.rdev())))
        .set_file_mode(Some(meta.mode() & 0o7777))
        .set_uid(Some(meta.uid()))
        .set_gid(Some(meta.gid()));
    Ok(Some(node))
}

/// The devices in a directory and below it, in order. Links are left out: what they lead to
/// is there itself, or isn't the directory's to give.
fn below(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                let own = NOT_OF_THE_HOST.iter().any(|each| path == Path::new(each));
                if !own && depth < MAX_DEPTH {
                    directories.push((path, depth + 1));
                }
            // The console of a container is its own terminal.
            } else if (kind.is_char_device() || kind.is_block_device())
                && path != Path::new("/dev/console")
            {
                found.push(path);
            }
            if found.len() > MAX_DEVICES {
                let message = format!("{} has over {MAX_DEVICES} devices", root.display());
                return Err(std::io::Error::other(message));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, inside: &str, permissions: &str) -> Device {
        Device {
            host_path: host.into(),
            container_path: inside.into(),
            permissions: permissions.to_owned(),
        }
    }

    #[test]
    fn a_device_comes_with_its_numbers_and_rule() {
        let result = devices(&[device("/dev/null", "/dev/nothing", "rw")], None).unwrap();
        let node = &result.nodes[0];
        assert_eq!(node.path(), Path::new("/dev/nothing"));
        assert_eq!((node.typ(), node.major(), node.minor()), (LinuxDeviceType::C, 1, 3));
        assert!(!result.rules[0].allow());
        assert_eq!(result.rules[1].access().as_deref(), Some("rw"));
        assert_eq!(result.rules[1].minor(), Some(3));
    }

    #[test]
    fn a_directory_gives_every_device_in_it_but_no_link() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("sub")).unwrap();
        let numbers = nix::sys::stat::makedev(1, 5);
        let mode = nix::sys::stat::Mode::S_IRWXU;
        let kind = nix::sys::stat::SFlag::S_IFCHR;
        for name in ["b", "sub/a"] {
            nix::sys::stat::mknod(&home.path().join(name), kind, mode, numbers).unwrap();
        }
        fs::write(home.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/dev/kmsg", home.path().join("link")).unwrap();
        let asked = device(home.path().to_str().unwrap(), "/dev/dir", "");
        let result = devices(&[asked], None).unwrap();
        let paths: Vec<_> = result.nodes.iter().map(|node| node.path().as_path()).collect();
        assert_eq!(paths, [Path::new("/dev/dir/b"), Path::new("/dev/dir/sub/a")]);
        assert_eq!(result.rules.len(), 3);
    }

    #[test]
    fn privileged_has_the_hosts_devices_and_one_rule() {
        let result = devices(&[], Some(PrivilegedDevices::All)).unwrap();
        assert!(result.nodes.iter().any(|node| node.path() == Path::new("/dev/null")));
        assert!(!result.nodes.iter().any(|node| node.path().starts_with("/dev/pts")));
        assert_eq!(result.rules, [rule(true, None, "rwm")]);
    }

    #[test]
    fn privileged_without_the_hosts_devices_has_what_it_asks_for() {
        let asked = [device("/dev/null", "/dev/nothing", "r")];
        for (wanted, rules) in [(PrivilegedDevices::Asked, 1), (PrivilegedDevices::AskedAlone, 2)] {
            let result = devices(&asked, Some(wanted)).unwrap();
            let paths: Vec<_> = result.nodes.iter().map(|node| node.path().as_path()).collect();
            assert_eq!(paths, [Path::new("/dev/nothing")], "{wanted:?}");
            assert_eq!(result.rules.len(), rules, "{wanted:?}");
            assert_eq!(result.rules[0].allow(), wanted == PrivilegedDevices::Asked);
        }
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let empty = home.path().to_str().unwrap();
        for (bad, why) in [
            (device("/etc/passwd", "/dev/x", "r"), "neither a device"),
            (device("/no/such", "/dev/x", "r"), "cannot look at devices[0]: /no/such"),
            (device("dev/null", "/dev/x", "r"), "not absolute"),
            (device("/dev/null", "dev/x", "r"), "not absolute"),
            (device("/dev/null", "/dev/x", "rx"), "is no permission"),
            (device("/dev/null", "/dev/x", "rrrr"), "is no permission"),
            (device(empty, "/dev/x", ""), "without a device"),
        ] {
            let text = devices(&[bad], None).unwrap_err().to_string();
            assert!(text.contains(why), "{text}");
        }
    }
}
