//! A container's standard streams: pipes or a terminal on one side, its log on the other.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use rustix::io::{Errno, ioctl_fionbio, read};
use rustix::pipe::{PipeFlags, pipe_with};

use super::complaint::complain;
use super::log::{Log, Side};
use super::reaper::now;
use super::wire::StartSpec;

/// What one read takes at most, in bytes. A pipe usually holds half of it; but memory of this
/// size comes from the kernel by itself, so that pages no output has filled cost nothing.
const READ: usize = 128 * 1024;

/// What is still read of a stream after its container's end, in bytes: the largest capacity
/// a pipe can be given without privilege. More can only come from a process that outlives
/// the container's init, and that must not keep its exit from being told.
const DRAIN: usize = 1024 * 1024;

/// What is read of a failed runtime's standard error, in bytes.
const MAX_COMPLAINT: usize = 8 * 1024;

/// The buffers all streams of a monitor share.
#[derive(Debug)]
pub(super) struct Scratch {
    data: Vec<u8>,
    batch: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { data: vec![0; READ], batch: Vec::with_capacity(READ) }
    }
}

/// The monitor's ends of a container's streams.
#[derive(Debug)]
pub(super) struct Streams {
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    /// Held open so that the container doesn't read an end of file.
    stdin: Option<OwnedFd>,
    log: Log,
}

/// The container's ends, for the runtime to inherit.
pub(super) struct Ends {
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

impl Streams {
    /// Opens the log and makes the streams. With a terminal, only the runtime's own standard
    /// error is a pipe; the terminal comes later.
    pub(super) fn open(spec: &StartSpec) -> io::Result<(Self, Ends)> {
        let log = Log::open(spec.log.clone()).map_err(|error| {
            io::Error::new(error.kind(), format!("the log {}: {error}", spec.log.display()))
        })?;
        let (err, stderr) = output()?;
        let mut streams = Self { out: None, err: Some(err), stdin: None, log };
        let mut ends = Ends { stdin: Stdio::null(), stdout: Stdio::null(), stderr: stderr.into() };
        if spec.tty {
            return Ok((streams, ends));
        }
        let (out, stdout) = output()?;
        (streams.out, ends.stdout) = (Some(out), stdout.into());
        if spec.stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            (streams.stdin, ends.stdin) = (Some(writer), reader.into());
        }
        Ok((streams, ends))
    }

    /// The terminal's master has come: it is output and input from now on.
    pub(super) fn attach_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        ioctl_fionbio(&master, true)?;
        self.err = None;
        self.out = Some(master);
        Ok(())
    }

    /// The streams that may still give output.
    pub(super) fn open_sides(&self) -> impl Iterator<Item = (Side, BorrowedFd<'_>)> {
        let side = |side, fd: &'_ Option<OwnedFd>| fd.is_some().then_some(side);
        [side(Side::Out, &self.out), side(Side::Err, &self.err)]
            .into_iter()
            .flatten()
            .filter_map(|side| Some((side, self.fd(side)?.as_fd())))
    }

    /// Carries what one read gives into the log. Gives the bytes read; 0: nothing was there,
    /// or the stream has ended and is closed.
    pub(super) fn pump(&mut self, side: Side, scratch: &mut Scratch) -> usize {
        let Some(fd) = self.fd(side) else { return 0 };
        match read(fd, &mut scratch.data[..]) {
            Ok(length) if length > 0 => {
                self.log.take(side, now(), &scratch.data[..length], &mut scratch.batch);
                length
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // End of file; for a terminal EIO says the same.
            Ok(_) | Err(_) => {
                self.close(side, scratch);
                0
            }
        }
    }

    /// Carries what is readable now into the log, up to a bound.
    pub(super) fn drain(&mut self, scratch: &mut Scratch) {
        for side in [Side::Out, Side::Err] {
            let mut drained = 0;
            while drained < DRAIN {
                match self.pump(side, scratch) {
                    0 => break,
                    length => drained += length,
                }
            }
        }
    }

    /// Closes everything; what is readable has been drained.
    pub(super) fn end(mut self, scratch: &mut Scratch) {
        self.close(Side::Out, scratch);
        self.close(Side::Err, scratch);
    }

    /// What a failed runtime said on its standard error; nothing of it goes to the log.
    pub(super) fn complaint(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(err) = self.err.take() {
            // A read that fails (WouldBlock, when a process still holds the pipe) leaves
            // what came before it, which is all there is.
            let mut stderr = File::from(err).take(MAX_COMPLAINT as u64);
            if let Err(error) = stderr.read_to_end(&mut text)
                && error.kind() != io::ErrorKind::WouldBlock
            {
                complain(format_args!("cannot read the runtime's standard error: {error}"));
            }
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    pub(super) fn reopen_log(&mut self) -> io::Result<()> {
        self.log.reopen()
    }

    fn fd(&self, side: Side) -> Option<&OwnedFd> {
        match side {
            Side::Out => self.out.as_ref(),
            Side::Err => self.err.as_ref(),
        }
    }

    fn close(&mut self, side: Side, scratch: &mut Scratch) {
        match side {
            Side::Out => self.out = None,
            Side::Err => self.err = None,
        }
        self.log.finish(side, now(), &mut scratch.batch);
    }
}

/// A pipe whose reading end, ours, doesn't block; the container's end is an ordinary one.
fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}
