//! Unix sockets of packets, and descriptors passed over them (unix(7)).
//!
//! A socket's path is at most 107 bytes long, a directory's isn't: sockets are named through
//! a descriptor of their directory, `/proc/self/fd/N/name`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, unlinkat};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect as connect_to, listen, recv, recvmsg, send, sendmsg, socket_with,
};

pub use rustix::net::SocketType as Kind;

/// A listening socket at `name` in a directory, for its owner alone; what was there is
/// replaced. Doesn't block. Only for a process of one thread: it changes the umask meanwhile.
pub fn listen_at(
    dir: BorrowedFd<'_>,
    name: &str,
    kind: SocketType,
    backlog: i32,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    match unlinkat(dir, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = bind(&socket, &address(dir, name)?);
    rustix::process::umask(before);
    bound?;
    listen(&socket, backlog)?;
    Ok(socket)
}

/// A connection to the packet socket at `name` in a directory. Doesn't block, then or later:
/// a full backlog is `WouldBlock`.
pub fn connect_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect_to(&socket, &address(dir, name)?)?;
    Ok(socket)
}

/// The next waiting connection; `None`: there is none. It doesn't block.
pub fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => Ok(Some(socket)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends one packet whole, or not at all: `WouldBlock` when the other side is behind.
pub fn send_packet(socket: impl AsFd, packet: &[u8]) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match send(socket, packet, flags)? {
        sent if sent == packet.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The next packet. `None`: the other side has closed. `InvalidData`: it was longer than
/// `max` bytes and has been dropped. `WouldBlock`: nothing is there.
pub fn receive_packet(socket: impl AsFd, max: usize) -> io::Result<Option<Vec<u8>>> {
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let (_, length) = recv(&socket, &mut [0u8; 1], peek)?;
    let mut packet = vec![0; length.clamp(1, max)];
    let (_, received) = recv(&socket, &mut packet[..], RecvFlags::TRUNC | RecvFlags::DONTWAIT)?;
    if received > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a packet of {received} bytes, where {max} are the most"),
        ));
    }
    packet.truncate(received);
    Ok(if packet.is_empty() { None } else { Some(packet) })
}

/// Two ends of a connection of packets. They block.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Ends a connection for both sides, whoever else holds either end.
pub fn shut_down(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Both)?)
}

/// Whoever waits for a packet at this end waits no longer than that: then there is none.
pub fn set_receive_limit(socket: impl AsFd, limit: Duration) -> io::Result<()> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    Ok(set_socket_timeout(socket, Timeout::Recv, Some(limit))?)
}

/// Sends one packet whole with copies of descriptors, or not at all, as [`send_packet`].
pub fn send_packet_with(
    socket: impl AsFd,
    packet: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match sendmsg(socket, &[IoSlice::new(packet)], &mut control, flags)? {
        sent if sent == packet.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Has the kernel say who sends what comes from now on, for [`receive_from_sender`].
pub fn identify_senders(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_passcred(socket, true)?)
}

/// At most `max` bytes of the next packet, and the number of the process that has sent it, as it
/// is here. Descriptors that come along are closed. The other side has closed: no bytes.
/// `WouldBlock`: nothing is there.
pub fn receive_from_sender(socket: impl AsFd, max: usize) -> io::Result<(Vec<u8>, Option<i32>)> {
    let mut packet = vec![0; max];
    // No room for anything else.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)?;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_pid()),
        _ => None,
    });
    packet.truncate(received.bytes);
    Ok((packet, sender))
}

/// The process that made the other end: the listener of a connection.
pub fn peer_pid(socket: impl AsFd) -> io::Result<i32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.pid.as_raw_pid())
}

/// The first descriptor that comes with the next message; `None`: a message without one, or
/// the other side has closed.
pub fn receive_fd(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut data = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(socket, &mut [IoSliceMut::new(&mut data)], &mut control, flags)?;
    let mut first = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            // Those after the first are closed by being dropped.
            first = descriptors.fold(first, |found, fd| found.or(Some(fd)));
        }
    }
    Ok(first)
}

/// Small messages go at once, and a peer that has vanished is noticed within some minutes.
pub fn prepare_tcp(socket: impl AsFd) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, Duration::from_mins(1))?;
    Ok(())
}

fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_their_borders_and_their_limit() {
        let (here, there) = pair().unwrap();
        send_packet(&here, b"one").unwrap();
        send_packet(&here, b"three").unwrap();
        send_packet(&here, b"longer").unwrap();
        send_packet(&here, b"last").unwrap();
        assert_eq!(receive_packet(&there, 5).unwrap().unwrap(), b"one");
        assert_eq!(receive_packet(&there, 5).unwrap().unwrap(), b"three");
        let error = receive_packet(&there, 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(receive_packet(&there, 5).unwrap().unwrap(), b"last");
        let error = receive_packet(&there, 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(here);
        assert!(receive_packet(&there, 5).unwrap().is_none());
    }

    #[test]
    fn a_full_socket_is_an_error_and_no_wait() {
        let (here, _there) = pair().unwrap();
        let error = (0..10_000).find_map(|_| send_packet(&here, &[0; 4096]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_packet_comes_with_its_sender_and_no_descriptor_stays() {
        let (here, there) = pair().unwrap();
        identify_senders(&here).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send_packet_with(&there, b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(receive_from_sender(&here, 4).unwrap(), (b"hell".to_vec(), Some(own)));
        // Nobody holds the other end: else this would wait for ever.
        assert_eq!(io::read_to_string(reader).unwrap(), "");
        drop(there);
        assert_eq!(receive_from_sender(&here, 4).unwrap().0, b"");
    }

    #[test]
    fn who_waits_for_a_packet_waits_no_longer_than_was_set() {
        let (here, _there) = pair().unwrap();
        set_receive_limit(&here, Duration::from_millis(10)).unwrap();
        let error = recv(&here, &mut [0u8; 1], RecvFlags::empty()).unwrap_err();
        assert_eq!(error, rustix::io::Errno::AGAIN);
    }
}
