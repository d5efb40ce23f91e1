//! A real terminal for a program: a pty whose other end the test types at and reads.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::daemon::PATIENCE;

pub(super) struct Terminal {
    keys: File,
    pieces: Receiver<Vec<u8>>,
    /// Everything that was shown and not yet waited for.
    seen: String,
    child: Child,
    /// Held so that the terminal can be looked at when the program is gone.
    side: OwnedFd,
}

impl Terminal {
    /// Runs `words` in a terminal of 30 rows and 100 columns. `command` is what they are
    /// appended to: nothing, or a way into other namespaces.
    pub(super) fn run(words: &[&str], on: Option<u32>) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let path = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let side: OwnedFd = File::options().read(true).write(true).open(path).unwrap().into();
        let keys = File::from(keys);
        let mut command = match on {
            Some(pid) => {
                let mut nsenter = Command::new("nsenter");
                nsenter.args(["--net", "--target", &pid.to_string(), "setsid"]);
                nsenter
            }
            None => Command::new("setsid"),
        };
        command.args(["--ctty", "--wait"]).args(words).env("TERM", "xterm");
        let stdio = || side.try_clone().unwrap();
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let (sender, pieces) = channel();
        let mut shown = keys.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut piece = vec![0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut piece) {
                if sender.send(piece[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self { keys, pieces, seen: String::new(), child, side };
        terminal.resize(100, 30);
        terminal
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keys, size).unwrap();
    }

    pub(super) fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown, and gives what was shown up to it.
    pub(super) fn until(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = PATIENCE.saturating_sub(began.elapsed());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.seen += &String::from_utf8_lossy(&piece),
                Err(error) => panic!("{text:?} is never shown ({error}): {:?}", self.seen),
            }
        }
    }

    /// Waits for the program's end, which must come by itself.
    pub(super) fn end(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {:?}", self.seen);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Whether keys are passed on as they are: no echo, no lines, no signals.
    pub(super) fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.side).unwrap().local_modes;
        !modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Whether it is as a new terminal is.
    pub(super) fn is_plain(&self) -> bool {
        let attributes = tcgetattr(&self.side).unwrap();
        let local = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        attributes.local_modes.contains(local)
            && attributes.output_modes.contains(rustix::termios::OutputModes::OPOST)
    }

    pub(super) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
