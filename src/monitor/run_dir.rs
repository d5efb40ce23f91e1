//! The pod's run directory: which file of the monitor's is called what.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};

/// The socket's name in the directory.
pub(super) const SOCKET: &str = "monitor.sock";

/// Holds the monitor's number, and by a lock tells whether one serves the directory.
pub(super) const PID_FILE: &str = "monitor.pid";

/// The monitor's standard error.
#[cfg(feature = "daemon")]
pub(super) const STDERR: &str = "monitor.log";

/// What an exit record's name ends with.
pub(super) const EXIT: &str = ".exit";

/// The longest id of a container, in bytes: an id is 64 digits, and a name is kept short
/// enough for every file system.
const MAX_ID: usize = 128;

/// A run directory, held open.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    fd: OwnedFd,
}

impl RunDir {
    /// Opens an existing directory.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = std::fs::canonicalize(path)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = open(&path, flags, Mode::empty())?;
        Ok(Self { path, fd })
    }

    /// Takes the directory for this process, until the returned lock is closed.
    /// `WouldBlock`: another monitor has it.
    pub(super) fn lock(&self) -> io::Result<std::fs::File> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join(PID_FILE))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        io::Write::write_all(&mut &file, format!("{}\n", std::process::id()).as_bytes())?;
        Ok(file)
    }

    pub(super) fn exit_record(&self, container: &str) -> PathBuf {
        self.path.join(format!("{container}{EXIT}"))
    }

    pub(super) fn pid_file(&self, container: &str) -> PathBuf {
        self.path.join(format!("{container}.pid"))
    }

    pub(super) fn runtime_log(&self, container: &str) -> PathBuf {
        self.path.join(format!("{container}.runtime.json"))
    }

    /// A path of at most 107 bytes to a socket in this directory, for another process: by
    /// this process's descriptor.
    pub(super) fn short_path(&self, name: &str) -> String {
        format!("/proc/{}/fd/{}/{name}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Removes a file; gone already is no error.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        remove_file(&self.path.join(name))
    }

    /// Whether the directory has been removed.
    pub(super) fn is_gone(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }
}

impl AsFd for RunDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a monitor serves the directory.
#[cfg(feature = "daemon")]
pub(super) fn is_locked(dir: &Path) -> bool {
    let Ok(file) = std::fs::File::open(dir.join(PID_FILE)) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Removes a file; gone already is no error.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a container's id can be part of a file's name, and an OCI runtime takes it.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let starts_well = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if starts_well && id.len() <= MAX_ID && id.bytes().all(plain) {
        return Ok(());
    }
    Err(format!(
        "{id:?} is no container id: letters, digits, \"_\", \"-\" and \".\", at most {MAX_ID}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_safe_segment() {
        for good in ["a", "0123abcdef", "a-b_c.d", &"f".repeat(64)] {
            check_id(good).unwrap();
        }
        for bad in ["", ".", "..", "../x", "a/b", "-rf", ".hidden", "a\0", "ü", &"f".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_directory_is_one_monitors() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::open(dir.path()).unwrap();
        let second = RunDir::open(dir.path()).unwrap();
        assert!(!is_locked(dir.path()));
        let lock = first.lock().unwrap();
        assert!(is_locked(dir.path()));
        assert_eq!(second.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        second.lock().unwrap();
        assert!(!first.is_gone());
        dir.close().unwrap();
        assert!(first.is_gone());
    }

    #[test]
    fn a_socket_path_is_short_however_deep_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        assert!(
            RunDir::open(&deep).unwrap().short_path("console.18446744073709551615").len() < 108
        );
    }
}
