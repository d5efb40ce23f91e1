//! What comes from haled, and what it is told.

// There is no crate here to count with.
#![allow(clippy::naive_bytecount)]

use core::ptr::{from_mut, from_ref, null_mut};

use crate::kernel::{EINTR, close_all, number, syscall};

pub(crate) const SOCKET: usize = 4;
/// Frames. The first one's value is the version of what is said here.
pub(crate) const HELLO: i32 = 1;
pub(crate) const GO: i32 = 2;
pub(crate) const REFUSED: i32 = 3;
pub(crate) const ENDED: i32 = 4;
pub(crate) const VERSION: i32 = 1;
pub(crate) const MAX_WORDS: usize = 1024;
pub(crate) const EAGAIN: isize = -11;
pub(crate) const MSG_CTRUNC: u32 = 0x8;
pub(crate) const MSG_TRUNC: u32 = 0x20;
pub(crate) const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
/// The largest packet, in bytes, and the most words in one.
pub(crate) const MAX_PACKET: usize = 32 * 1024;

/// A command as it came.
pub(crate) struct Order {
    pub(crate) words: *const u8,
    pub(crate) length: usize,
    pub(crate) stdout: usize,
    pub(crate) stderr: usize,
    pub(crate) report: usize,
}

/// What the socket gave.
pub(crate) enum Received {
    Order(Order),
    /// Nothing for as long as whoever started this has set.
    Nothing,
    /// What makes no sense. Its descriptors are closed.
    Nonsense,
    /// Nobody asks any more.
    End,
}

/// struct iovec, struct msghdr and a control message of descriptors (recvmsg(2), cmsg(3)).
#[repr(C)]
struct Part {
    base: *mut u8,
    length: usize,
}
#[repr(C)]
struct Message {
    name: *mut u8,
    name_length: usize,
    parts: *mut Part,
    count: usize,
    control: *mut Control,
    control_length: usize,
    flags: u32,
}
#[repr(C)]
struct Control {
    length: usize,
    level: u32,
    kind: u32,
    descriptors: [u32; 4],
}

pub(crate) fn receive(packet: *mut u8) -> Received {
    let mut part = Part { base: packet, length: MAX_PACKET };
    let mut control = Control { length: 0, level: 0, kind: 0, descriptors: [0; 4] };
    let mut message = Message {
        name: null_mut(),
        name_length: 0,
        parts: &raw mut part,
        count: 1,
        control: &raw mut control,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    let into = from_mut(&mut message) as usize;
    let received = syscall(number::RECVMSG, [SOCKET, into, MSG_CMSG_CLOEXEC, 0, 0, 0]);
    match received {
        1.. => {}
        EINTR => return Received::Nonsense,
        EAGAIN => return Received::Nothing,
        _ => return Received::End,
    }
    // Nothing but descriptors can come along here, for nothing else was asked for.
    let given = control.length.saturating_sub(16) / 4;
    let words = {
        // SAFETY: so many bytes has the kernel written.
        let text = unsafe { core::slice::from_raw_parts(packet, received.cast_unsigned()) };
        let whole = message.flags & (MSG_TRUNC | MSG_CTRUNC) == 0 && text.last() == Some(&0);
        if whole { text.iter().filter(|&&byte| byte == 0).count() } else { 0 }
    };
    let [stdout, stderr, report, _] = control.descriptors.map(|descriptor| descriptor as usize);
    if given == 3 && (1..=MAX_WORDS).contains(&words) {
        let length = received.cast_unsigned();
        return Received::Order(Order { words: packet, length, stdout, stderr, report });
    }
    for descriptor in control.descriptors.iter().take(given) {
        close_all(&[*descriptor as usize]);
    }
    Received::Nonsense
}

/// A frame. If nobody hears it, nobody is to.
pub(crate) fn tell(report: usize, kind: i32, value: i32) {
    let frame = [kind, value];
    syscall(number::WRITE, [report, from_ref(&frame) as usize, size_of_val(&frame), 0, 0, 0]);
}

/// The kind of the next frame; `None`: there will be none.
pub(crate) fn heard(report: usize) -> Option<i32> {
    let mut frame = [0_i32; 2];
    loop {
        let into = from_mut(&mut frame) as usize;
        match syscall(number::READ, [report, into, size_of_val(&frame), 0, 0, 0]) {
            8 => return Some(frame[0]),
            EINTR => {}
            _ => return None,
        }
    }
}
