//! overlayfs mounts with any number of lower directories.
//!
//! The kernel's mount API takes each lower directory by itself since Linux 6.7. Older
//! kernels want them in one page of options; there each is named by a descriptor of ours
//! (`/proc/self/fd/7`), so that about 200 fit, whatever their paths are.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::mount::MsFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

/// Longest string that fsconfig(2) takes.
const MAX_STRING: usize = 255;
/// mount(2) takes one page of options, its end included.
const MAX_OPTIONS: usize = 4095;
/// Messages read from the kernel after a failure.
const MAX_MESSAGES: usize = 8;

/// What to lay over what.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// The lower directories, the topmost first. At least one.
    pub lower: &'a [&'a Path],
    /// Where changes go; `None`: it is read-only, and needs two lower directories.
    pub changes: Option<Changes<'a>>,
    /// The SELinux label that every file has; `None`: as on disk. Only where SELinux is active.
    pub label: Option<&'a str>,
}

/// Whether this kernel has overlayfs, loading its module where there is one. Mounts nothing.
pub fn is_supported() -> io::Result<()> {
    match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The directories of an overlay that can be written to.
#[derive(Debug)]
pub struct Changes<'a> {
    /// Takes the changes.
    pub upper: &'a Path,
    /// An empty directory on the same file system as `upper`.
    pub work: &'a Path,
}

impl Overlay<'_> {
    /// Mounts it on a directory.
    pub fn attach(&self, target: &Path) -> io::Result<()> {
        match self.build() {
            Ok(mount) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                Ok(rustix::mount::move_mount(&mount, "", CWD, target, flags)?)
            }
            Err(refusal) => refusal.unless(|| self.attach_by_options(target)),
        }
    }

    /// The mounted tree's root, visible nowhere: it is gone when the descriptor is closed.
    /// `scratch` is an empty directory, used on older kernels.
    pub fn detached(&self, scratch: &Path) -> io::Result<OwnedFd> {
        match self.build() {
            Ok(mount) => Ok(mount),
            Err(refusal) => refusal.unless(|| self.detached_by_options(scratch)),
        }
    }

    fn detached_by_options(&self, scratch: &Path) -> io::Result<OwnedFd> {
        self.attach_by_options(scratch)?;
        let root = open_path(scratch);
        super::mount::detach(scratch)?;
        root
    }

    fn build(&self) -> Result<OwnedFd, Refusal> {
        let fs = match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fs) => fs,
            Err(rustix::io::Errno::NOSYS) => return Err(Refusal::Unable),
            Err(error) => return Err(Refusal::Failed(error.into())),
        };
        let explained = |error: rustix::io::Errno| Refusal::Failed(explain(&fs, error));
        // Held until the mount is made: a long path is given through its descriptor.
        let mut held = Vec::new();
        let mut named = |path: &Path| -> Result<String, Refusal> {
            match path.to_str() {
                Some(text) if text.len() <= MAX_STRING => Ok(text.to_owned()),
                _ => {
                    let fd = open_path(path).map_err(Refusal::Failed)?;
                    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
                    held.push(fd);
                    Ok(name)
                }
            }
        };
        for (place, lower) in self.lower.iter().enumerate() {
            match rustix::mount::fsconfig_set_string(&fs, "lowerdir+", named(lower)?) {
                Err(rustix::io::Errno::INVAL) if place == 0 => return Err(Refusal::Unable),
                other => other.map_err(explained)?,
            }
        }
        if let Some(Changes { upper, work }) = &self.changes {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                rustix::mount::fsconfig_set_string(&fs, key, named(path)?).map_err(explained)?;
            }
        }
        for key in ["index", "metacopy"] {
            rustix::mount::fsconfig_set_string(&fs, key, "off").map_err(explained)?;
        }
        if let Some(label) = self.label {
            rustix::mount::fsconfig_set_string(&fs, "context", label).map_err(explained)?;
        }
        rustix::mount::fsconfig_set_string(&fs, "source", "overlay").map_err(explained)?;
        rustix::mount::fsconfig_create(&fs).map_err(explained)?;
        rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .map_err(explained)
    }

    fn attach_by_options(&self, target: &Path) -> io::Result<()> {
        let mut held = Vec::new();
        let mut named = |path: &Path| -> io::Result<String> {
            let fd = open_path(path)?;
            let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
            held.push(fd);
            Ok(name)
        };
        let lower =
            self.lower.iter().map(|path| named(path)).collect::<io::Result<Vec<_>>>()?.join(":");
        let mut options = format!("lowerdir={lower},index=off,metacopy=off");
        if let Some(Changes { upper, work }) = &self.changes {
            let (upper, work) = (named(upper)?, named(work)?);
            options.push_str(&[",upperdir=", &upper, ",workdir=", &work].concat());
        }
        if let Some(label) = self.label {
            // Quoted: a level has commas.
            options.push_str(&[",context=\"", label, "\""].concat());
        }
        if options.len() > MAX_OPTIONS {
            return Err(io::Error::other(format!(
                "{} layers are more than this kernel can mount: Linux 6.7 and later take 500",
                self.lower.len()
            )));
        }
        super::mount::mount("overlay", target, MsFlags::empty(), &options)
    }
}

/// Why the new mount API gave nothing.
enum Refusal {
    /// This kernel can't: the old one may.
    Unable,
    /// Before Linux 6.6 an option that overlayfs doesn't know is taken, and refused with
    /// EINVAL only when the mount is made; so after EINVAL, too, the old one may.
    Failed(io::Error),
}

impl Refusal {
    /// What the old API gave, or the reason the new one had, which says more.
    fn unless<T>(self, by_options: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Unable => by_options(),
            Self::Failed(error) if error.kind() == io::ErrorKind::InvalidInput => {
                by_options().map_err(|_| error)
            }
            Self::Failed(error) => Err(error),
        }
    }
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The error with what the kernel says about it (it is read from the context).
fn explain(fs: &OwnedFd, error: rustix::io::Errno) -> io::Error {
    let mut text = String::new();
    let mut buffer = [0; 512];
    for _ in 0..MAX_MESSAGES {
        let Ok(length) = rustix::io::read(fs, &mut buffer) else { break };
        text.push_str(": ");
        text.push_str(String::from_utf8_lossy(&buffer[..length]).trim());
    }
    let plain = io::Error::from(error);
    io::Error::new(plain.kind(), format!("{plain}{text}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Both ways must give the same tree, with more layers than a page of long paths has.
    #[test]
    fn a_hundred_and_fifty_layers_by_either_way() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("l".repeat(200));
        let lower: Vec<PathBuf> = (0..150).map(|n| long.join(format!("layer-{n:0100}"))).collect();
        for (n, path) in lower.iter().enumerate() {
            std::fs::create_dir_all(path).unwrap();
            std::fs::write(path.join(format!("file-{n}")), n.to_string()).unwrap();
            std::fs::write(path.join("same"), n.to_string()).unwrap();
        }
        let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
        for name in ["new", "old"] {
            let [upper, work, target] = ["upper", "work", "target"].map(|part| {
                let path = dir.path().join(name).join(part);
                std::fs::create_dir_all(&path).unwrap();
                path
            });
            let changes = Some(Changes { upper: &upper, work: &work });
            let overlay = Overlay { lower: &lower, changes, label: None };
            let root = match name {
                "new" => overlay.detached(&target).unwrap(),
                _ => overlay.detached_by_options(&target).unwrap(),
            };
            let read = |name: &str| {
                let fd = rustix::fs::openat(
                    &root,
                    name,
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .unwrap();
                std::io::read_to_string(std::fs::File::from(fd)).unwrap()
            };
            assert_eq!((read("same"), read("file-149")), ("0".to_owned(), "149".to_owned()));
            // Detached: nothing is to be seen at the target.
            assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
        }
    }
}
