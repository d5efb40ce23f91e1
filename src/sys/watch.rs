//! Directories whose entries are followed (inotify(7)), and files that somebody is still
//! writing.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use super::readiness::Registered;

/// fcntl(2)'s command, which the libc crate lacks; the same number on every architecture.
const F_SETSIG: libc::c_int = 10;

/// Tells that entries of directories have come, gone, or been written and closed.
#[derive(Debug)]
pub struct Watch(Registered);

impl Watch {
    /// In a tokio runtime. Fails with EMFILE where this user has fs.inotify.max_user_instances
    /// of them.
    pub fn new() -> io::Result<Self> {
        Registered::new(init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?).map(Self)
    }

    /// Watches what is a directory at this path now. One that is watched already stays so.
    pub fn add(&self, dir: &Path) -> io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        add_watch(&self.0, dir, flags)?;
        Ok(())
    }

    /// Waits until something has happened since the last time.
    pub async fn happened(&self) -> io::Result<()> {
        // Room for many events; what is left of them makes the next call return at once.
        let mut events = [0; 4096];
        self.0.reading(|fd| Ok(rustix::io::read(fd, &mut events)?)).await?;
        Ok(())
    }
}

/// Whether some process has this file, here open for reading, open for writing.
///
/// The kernel grants a read lease only where there is no writer (fcntl(2), F_SETLEASE).
/// Where the file system has no leases nobody can tell: no.
pub fn is_being_written(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // A writer that comes while the lease is held is told us by this signal, which is ignored
    // unless somebody asked for it; the default one would end the process.
    // SAFETY: these fcntl commands take an int and touch no memory of ours.
    let leased = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK)
    };
    if leased == 0 {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        return false;
    }
    io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_being_written_until_its_last_writer_closes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writers = (File::create(&path).unwrap(), File::options().append(true).open(&path));
        let reader = File::open(&path).unwrap();
        assert!(is_being_written(&reader));
        drop(writers.0);
        assert!(is_being_written(&reader));
        drop(writers.1.unwrap());
        assert!(!is_being_written(&reader));
        assert!(!is_being_written(&reader));
    }

    #[tokio::test]
    async fn a_watch_tells_of_what_happens_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.add(dir.path()).unwrap();
        watch.add(dir.path()).unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "a").unwrap();
        watch.happened().await.unwrap();
        std::fs::rename(&file, dir.path().join("b")).unwrap();
        watch.happened().await.unwrap();
        let nothing = std::future::poll_fn(|context| {
            let mut happened = std::pin::pin!(watch.happened());
            std::task::Poll::Ready(happened.as_mut().poll(context).is_pending())
        });
        assert!(nothing.await);
        assert!(watch.add(&dir.path().join("b")).is_err());
    }
}
