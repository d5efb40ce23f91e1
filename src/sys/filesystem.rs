//! The file system below a path: how large it is, and on which device.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filesystem {
    /// What it was mounted from (`/dev/vda`, `tmpfs`); empty where no mount tells.
    pub source: String,
    /// Bytes it can hold.
    pub bytes: u64,
    /// Inodes it can hold; 0 where it makes them as it goes.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

/// Of a path (statvfs(3)). Blocks for as long as the disk does.
pub fn of(path: &Path) -> io::Result<Filesystem> {
    let space = rustix::fs::statvfs(path)?;
    let device = std::fs::metadata(path)?.dev();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(Filesystem {
        source: source(&mounts, device).unwrap_or_default(),
        bytes: space.f_blocks.saturating_mul(space.f_frsize),
        inodes: space.f_files,
        inodes_free: space.f_ffree,
    })
}

/// Its kind (`ext4`); `None`: no mount tells.
pub fn kind(path: &Path) -> io::Result<Option<String>> {
    let device = std::fs::metadata(path)?.dev();
    Ok(field(&std::fs::read_to_string("/proc/self/mountinfo")?, device, 0))
}

/// The last but one field of a line of proc_pid_mountinfo(5), found by its third.
fn source(mounts: &str, device: u64) -> Option<String> {
    field(mounts, device, 1)
}

/// The field at `place` after the dash: kind, source, options.
fn field(mounts: &str, device: u64, place: usize) -> Option<String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let number = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let same = left.split(' ').nth(2) == Some(number.as_str());
        same.then(|| right.split(' ').nth(place).map(str::to_owned)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_name_comes_from_its_mount() {
        let mounts = "25 30 0:22 / /sys rw shared:7 - sysfs sysfs rw\n\
                      27 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw\nbroken 254:2 - x\n";
        let number = rustix::fs::makedev(254, 1);
        assert_eq!(source(mounts, number).as_deref(), Some("/dev/vda1"));
        assert_eq!(field(mounts, number, 0).as_deref(), Some("ext4"));
        assert_eq!(source(mounts, rustix::fs::makedev(254, 2)), None);
        assert_eq!(source(mounts, rustix::fs::makedev(1, 1)), None);
    }

    #[test]
    fn this_machines_has_room() {
        let found = of(Path::new("/")).unwrap();
        assert!(found.bytes > 0 && found.inodes >= found.inodes_free, "{found:?}");
    }
}
