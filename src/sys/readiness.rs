//! A descriptor's readiness, by tokio's reactor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor registered with the reactor of a tokio runtime.
#[derive(Debug)]
pub struct Registered(AsyncFd<OwnedFd>);

impl Registered {
    /// Registers it with the runtime this is called in.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd gives the same descriptor every time, nothing here lets it be
        // exchanged, and it stays open until the AsyncFd that owns it drops it.
        unsafe { AsyncFd::register(fd) }.map(Self).map_err(io::Error::from)
    }

    /// Does what reads, as soon as it doesn't fail with `WouldBlock`.
    pub async fn reading<T>(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.async_io(Interest::READABLE, |fd| read(fd.as_fd())).await
    }

    /// Does what writes, as soon as it doesn't fail with `WouldBlock`.
    pub async fn writing<T>(
        &self,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.async_io(Interest::WRITABLE, |fd| write(fd.as_fd())).await
    }
}

impl AsFd for Registered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
