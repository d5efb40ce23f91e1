//! Connections that have been attached to a container: its output goes to them as well as to
//! the log, and its input may come from them.
//!
//! A packet begins with a byte that says what it is. Nothing waits for an attached reader:
//! one that is [`BEHIND`] late is let go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::complaint::complain;
use super::log::Side;
use super::wire::MAX_PACKET;
use crate::sys::socket;

/// To the monitor: input; without a byte of it, the end of the input.
pub(super) const INPUT: u8 = 0;
/// From the monitor: standard output.
pub(super) const OUT: u8 = 1;
/// From the monitor: standard error.
pub(super) const ERR: u8 = 2;
/// From the monitor, as the last: the container's output has ended.
pub(super) const ENDED: u8 = 3;
/// To the monitor: a terminal's columns and rows, two bytes each, the higher first.
pub(super) const SIZE: u8 = 4;

/// Bytes of output that may wait in the kernel for an attached reader, as far as the kernel
/// lets a socket have them.
const BEHIND: usize = 4 * 1024 * 1024;
/// Attached connections of a container.
pub(super) const MAX: usize = 16;

/// What an attached connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// What an attached connection says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Input for the container.
    Input(Vec<u8>),
    /// No more input comes; `gone`: nor anything else, it has been closed.
    NoMoreInput { gone: bool },
    /// The terminal's columns and rows.
    Size(u16, u16),
    /// Nothing that matters.
    Nothing,
}

/// An attached connection.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) key: u64,
    pub(super) wants: Wants,
    socket: OwnedFd,
}

impl Attached {
    pub(super) fn new(key: u64, socket: OwnedFd, wants: Wants) -> Self {
        // Without privilege it keeps its usual size.
        let sized = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, BEHIND);
        sized.unwrap_or_default();
        Self { key, wants, socket }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a piece of output, whose first byte is for the kind of packet. False: the
    /// reader is too slow, or gone.
    pub(super) fn takes(&self, side: Side, packet: &mut [u8]) -> bool {
        let (wanted, kind) = match side {
            Side::Out => (self.wants.stdout, OUT),
            Side::Err => (self.wants.stderr, ERR),
        };
        if !wanted {
            return true;
        }
        packet[0] = kind;
        match socket::send_packet(&self.socket, packet) {
            Ok(()) => true,
            Err(error) => {
                complain(format_args!("an attached client was let go: {error}"));
                false
            }
        }
    }

    /// The next thing it says, which is there.
    pub(super) fn said(&self) -> Said {
        match socket::receive_packet(&self.socket, MAX_PACKET) {
            Ok(Some(mut packet)) => match packet.split_first() {
                Some((&INPUT, [])) if self.wants.stdin => Said::NoMoreInput { gone: false },
                Some((&INPUT, _)) if self.wants.stdin => {
                    packet.remove(0);
                    Said::Input(packet)
                }
                Some((&SIZE, &[a, b, c, d])) => {
                    Said::Size(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
                }
                _ => Said::Nothing,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Said::Nothing,
            Ok(None) | Err(_) => Said::NoMoreInput { gone: true },
        }
    }

    /// Says that it is over. A reader that is too slow for that sees its connection closed.
    pub(super) fn end(self) {
        drop(socket::send_packet(&self.socket, &[ENDED]));
    }
}
