//! A container's standard streams: pipes or a terminal on one side, its log on the other.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{Winsize, tcsetwinsize};

use super::attach::{Attached, Said};
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
    /// Held open so that the container doesn't read an end of file. Not a terminal's.
    stdin: Option<OwnedFd>,
    /// `out` is a terminal.
    terminal: bool,
    /// A terminal's end of the container, never used: while anyone holds it open, the
    /// container may close all of its own and open them again.
    held: Option<OwnedFd>,
    /// Closed by the end of the first attached client's input.
    stdin_once: bool,
    /// Input that the container hasn't room for yet; no more is taken meanwhile.
    input: Vec<u8>,
    attached: Vec<Attached>,
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
        let mut streams = Self {
            out: None,
            err: Some(err),
            stdin: None,
            terminal: false,
            held: None,
            stdin_once: spec.stdin_once && !spec.tty,
            input: Vec::new(),
            attached: Vec::new(),
            log,
        };
        let mut ends = Ends { stdin: Stdio::null(), stdout: Stdio::null(), stderr: stderr.into() };
        if spec.tty {
            return Ok((streams, ends));
        }
        let (out, stdout) = output()?;
        if let Some((user, group)) = spec.stdio_owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            // One owner a pipe, whichever end is asked.
            for end in [&stdout, streams.err.as_ref().unwrap_or(&stdout)] {
                fchown(end, Some(user), Some(group))?;
            }
        }
        (streams.out, ends.stdout) = (Some(out), stdout.into());
        if spec.stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            ioctl_fionbio(&writer, true)?;
            if let Some((user, group)) = spec.stdio_owner {
                fchown(&reader, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
            }
            (streams.stdin, ends.stdin) = (Some(writer), reader.into());
        }
        Ok((streams, ends))
    }

    /// The terminal's master has come: it is output and input from now on.
    pub(super) fn attach_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        ioctl_fionbio(&master, true)?;
        self.err = None;
        self.out = Some(master);
        self.terminal = true;
        self.hold_terminal();
        Ok(())
    }

    /// Holds a terminal's other end open, whatever the container does with its own. Gives
    /// whether it is held now.
    fn hold_terminal(&mut self) -> bool {
        let Some(master) = self.out.as_ref().filter(|_| self.terminal) else { return false };
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        match ioctl_tiocgptpeer(master, flags) {
            Ok(held) => self.held = Some(held),
            Err(error) => {
                complain(format_args!("cannot hold a terminal open: {error}"));
                self.held = None;
            }
        }
        self.held.is_some()
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
        // The first byte is for those attached: it says what a packet is.
        match read(fd, &mut scratch.data[1..]) {
            Ok(length) if length > 0 => {
                let packet = &mut scratch.data[..=length];
                self.log.take(side, now(), &packet[1..], &mut scratch.batch);
                self.attached.retain(|attached| attached.takes(side, packet));
                length
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // Hung up (vhangup(2)), and all that were open with it, the one held here too. What
            // the container opens from now on is a terminal again.
            Err(Errno::IO) if side == Side::Out && self.hold_terminal() => 0,
            // End of file.
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
        self.attached.drain(..).for_each(Attached::end);
    }

    pub(super) fn attach(&mut self, attached: Attached) {
        self.attached.push(attached);
    }

    /// Everyone attached.
    pub(super) fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.attached.iter()
    }

    /// Where input waits to be written to; `None`: none waits.
    pub(super) fn full_input(&self) -> Option<BorrowedFd<'_>> {
        (!self.input.is_empty()).then(|| self.input_fd()).flatten()
    }

    /// Takes what an attached connection says.
    pub(super) fn hear(&mut self, key: u64) {
        let Some(at) = self.attached.iter().position(|attached| attached.key == key) else {
            return;
        };
        match self.attached[at].said() {
            Said::Input(input) => {
                self.input = input;
                self.feed();
            }
            Said::NoMoreInput { gone } => {
                if self.stdin_once && self.attached[at].wants.stdin {
                    self.stdin = None;
                }
                if gone {
                    self.attached.swap_remove(at);
                }
            }
            Said::Size(columns, rows) => self.resize(columns, rows),
            Said::Nothing => {}
        }
    }

    /// Writes waiting input, as far as there's room.
    pub(super) fn feed(&mut self) {
        let Some(fd) = self.input_fd() else { return self.input.clear() };
        match write(fd, &self.input) {
            Ok(written) => drop(self.input.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody reads it.
            Err(_) => {
                self.input.clear();
                self.stdin = None;
            }
        }
    }

    /// A terminal takes input where it gives output.
    fn input_fd(&self) -> Option<BorrowedFd<'_>> {
        let fd = if self.terminal { &self.out } else { &self.stdin };
        fd.as_ref().map(AsFd::as_fd)
    }

    fn resize(&self, columns: u16, rows: u16) {
        let Some(terminal) = self.out.as_ref().filter(|_| self.terminal) else { return };
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = tcsetwinsize(terminal, size) {
            complain(format_args!("cannot set a terminal's size: {error}"));
        }
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
