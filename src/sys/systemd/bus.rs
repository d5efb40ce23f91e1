//! A connection to systemd: its own socket, or the system bus.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::NO_SUCH_UNIT;
use super::wire::{Body, Call, ERROR, FIXED, Message, RETURN};

/// systemd listens there itself, for root, from early on and whether or not there is a bus.
const PRIVATE: &str = "/run/systemd/private";
/// Where dbus-daemon or dbus-broker does.
const SYSTEM: &str = "/run/dbus/system_bus_socket";
/// How long an answer may take, as D-Bus's own libraries have it.
const LIMIT: Duration = Duration::from_secs(25);
/// The longest line of the authentication, in bytes.
const MAX_LINE: usize = 1024;
/// On the bus: itself.
const BUS: Call<'_> = Call {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

/// One connection, for a call or two.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    end: Instant,
}

impl Bus {
    /// Connects, and says who it is.
    pub(super) fn connect() -> io::Result<Self> {
        let private = Self::open(PRIVATE);
        if private.is_ok() {
            return private;
        }
        let unreachable = |error: io::Error| {
            let why = private.as_ref().err().map(ToString::to_string).unwrap_or_default();
            let text = format!(
                "cannot reach systemd: {PRIVATE}: {why}; {SYSTEM}: {error}. haled must run as root \
                 on a machine that systemd runs, with /run as it is there"
            );
            io::Error::new(error.kind(), text)
        };
        let mut bus = Self::open(SYSTEM).map_err(unreachable)?;
        bus.send(&BUS, &Body::new())?;
        Ok(bus)
    }

    fn open(path: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        let mut bus = Self { stream, serial: 0, end: Instant::now() + LIMIT };
        // The uid in decimal digits, those as their codes in hexadecimal: 0x30 is 0.
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.chars().flat_map(|digit| ['3', digit]).collect();
        bus.stream.set_write_timeout(Some(LIMIT))?;
        bus.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let answer = bus.line()?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("it does not let us in: {}", answer.trim_end())));
        }
        bus.stream.write_all(b"BEGIN\r\n")?;
        Ok(bus)
    }

    /// Calls systemd's object and waits for the answer. Of a refusal, kind `NotFound` is that
    /// there is no such unit.
    pub(super) fn call(
        &mut self,
        interface: &str,
        member: &str,
        body: &Body,
    ) -> io::Result<Message> {
        let call = Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface,
            member,
        };
        self.send(&call, body)
    }

    fn send(&mut self, call: &Call<'_>, body: &Body) -> io::Result<Message> {
        self.serial += 1;
        self.stream.write_all(&call.message(self.serial, body))?;
        loop {
            // Signals may come between.
            let message = self.receive()?;
            match message.kind {
                RETURN if message.answers == Some(self.serial) => return Ok(message),
                ERROR if message.answers == Some(self.serial) => {
                    let kind = if message.error_name == NO_SUCH_UNIT {
                        io::ErrorKind::NotFound
                    } else {
                        io::ErrorKind::Other
                    };
                    let text = format!("{} ({})", message.words(), message.error_name);
                    return Err(io::Error::new(kind, text));
                }
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut fixed = [0; FIXED];
        self.fill(&mut fixed)?;
        let mut whole = vec![0; Message::length(&fixed)?];
        whole[..FIXED].copy_from_slice(&fixed);
        self.fill(&mut whole[FIXED..])?;
        Message::read(&whole)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < MAX_LINE {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads so many bytes, before the connection's end.
    fn fill(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        let late = || {
            let why = format!("it has not answered within {} s", LIMIT.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, why)
        };
        while !bytes.is_empty() {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::Error::other("it has closed the connection")),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
