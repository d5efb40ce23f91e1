//! One daemon a root directory: flock(2) on `<root>/lock`, with the holder's pid in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;

/// The lock's name in the root directory.
const NAME: &str = "lock";
/// The longest pid file worth reading, in bytes.
const PID_LIMIT: u64 = 32;

/// Held while a daemon runs on a root directory (flock(2) on `<root>/lock`).
///
/// The kernel lets go of it when the process ends, however it ends. The descriptor is
/// close-on-exec, so no child keeps it.
#[derive(Debug)]
pub struct RootLock {
    file: File,
}

/// Another daemon runs on this root directory.
#[derive(Debug, thiserror::Error)]
#[error("another haled (pid {pid}) runs on {}: stop it, or give --root and --state directories of their own", root.display())]
pub struct RootInUse {
    /// The directory.
    pub root: PathBuf,
    /// The other's pid, 0 where it could not be read.
    pub pid: u32,
}

impl RootLock {
    /// Takes it, or says which process has it. Makes the directory where it isn't there.
    pub fn take(root: &Path) -> Result<Self, Error> {
        // What is found keeps its mode: it may be a directory of more than haled's.
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|source| {
            Error::File { doing: "make the root directory", path: root.to_owned(), source }
        })?;
        let path = root.join(NAME);
        let failed = |doing| {
            let path = path.clone();
            move |source| Error::File { doing, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open the lock"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(RootInUse { root: root.to_owned(), pid: holder(&mut file) }.into());
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let wrote = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        wrote.map_err(failed("write the pid to"))?;
        Ok(Self { file })
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        // A pid that has ended must not be blamed in the moment before the next holder has
        // written its own; failing to clear it costs no more than that.
        self.file.set_len(0).ok();
    }
}

/// The pid in the file, 0 where there is none.
fn holder(file: &mut File) -> u32 {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(PID_LIMIT).read_to_string(&mut text));
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let root = tempfile::tempdir().unwrap();
        let held = RootLock::take(root.path()).unwrap();
        let error = RootLock::take(root.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "another haled (pid {}) runs on {}: stop it, or give --root and --state directories of their own",
                std::process::id(),
                root.path().display()
            )
        );
        drop(held);
        RootLock::take(root.path()).unwrap();
    }

    #[test]
    fn the_directory_is_made_and_a_file_in_its_place_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("a/b");
        drop(RootLock::take(&root).unwrap());
        assert!(root.join("lock").is_file());

        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = RootLock::take(&file).unwrap_err().to_string();
        assert!(error.starts_with("cannot make the root directory "), "{error}");
    }

    #[test]
    fn garbage_in_place_of_a_pid_is_pid_0() {
        let root = tempfile::tempdir().unwrap();
        let held = RootLock::take(root.path()).unwrap();
        std::fs::write(root.path().join("lock"), [0xff; 100]).unwrap();
        match RootLock::take(root.path()).unwrap_err() {
            Error::InUse(other) => assert_eq!(other.pid, 0),
            other => panic!("{other}"),
        }
        drop(held);
    }
}
