//! The monitor's side of its socket: daemons come and go, and none can make it wait.

use std::io;
use std::os::fd::OwnedFd;

use super::complaint::complain;
use super::wire::{Event, MAX_PACKET, Reply, Request, Say};
use crate::sys::socket;

/// The most connections at once. One is a daemon's; the others leave room for tools.
const MAX_CONNECTIONS: usize = 16;

/// Who asked: where a later answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) connection: u64,
    pub(super) request: u64,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    key: u64,
    socket: OwnedFd,
    /// Has said hello, so it is told what happens.
    greeted: bool,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Vec<Connection>,
    next_key: u64,
}

impl Connections {
    /// Takes in whoever waits at the listener. False: it can't, for want of descriptors.
    pub(super) fn accept(&mut self, listener: &OwnedFd) -> bool {
        loop {
            match socket::accept(listener) {
                Ok(Some(_)) if self.open.len() == MAX_CONNECTIONS => {
                    complain(format_args!("a connection over {MAX_CONNECTIONS} was refused"));
                }
                Ok(Some(socket)) => {
                    self.open.push(Connection { key: self.next_key, socket, greeted: false });
                    self.next_key += 1;
                }
                Ok(None) => return true,
                Err(error) => {
                    complain(format_args!("cannot accept a connection: {error}"));
                    return false;
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &OwnedFd)> {
        self.open.iter().map(|connection| (connection.key, &connection.socket))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The next request of a connection that has something to say. What can't be understood
    /// is answered with an error or, where it has no id to answer to, by closing.
    pub(super) fn next_request(&mut self, key: u64) -> Option<Request> {
        let connection = self.open.iter().find(|connection| connection.key == key)?;
        let packet = match socket::receive_packet(&connection.socket, MAX_PACKET) {
            Ok(Some(packet)) => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(None) => {
                self.close(key);
                return None;
            }
            Err(error) => {
                complain(format_args!("a connection was closed: {error}"));
                self.close(key);
                return None;
            }
        };
        match serde_json::from_slice(&packet) {
            Ok(request) => Some(request),
            Err(error) => {
                self.complain(key, &packet, &error);
                None
            }
        }
    }

    /// Marks a connection as one that is told what happens.
    pub(super) fn greet(&mut self, key: u64) {
        if let Some(connection) = self.open.iter_mut().find(|open| open.key == key) {
            connection.greeted = true;
        }
    }

    /// Hands a connection over: it carries no more requests.
    pub(super) fn take(&mut self, key: u64) -> Option<OwnedFd> {
        let at = self.open.iter().position(|connection| connection.key == key)?;
        Some(self.open.swap_remove(at).socket)
    }

    pub(super) fn reply(&mut self, to: Asker, body: Reply) {
        let mut packet = encode(&Say::Reply { id: to.request, body });
        if packet.len() > MAX_PACKET {
            let message = format!("the answer is longer than {MAX_PACKET} bytes");
            packet = encode(&Say::Reply { id: to.request, body: Reply::Error { message } });
        }
        self.send(to.connection, &packet);
    }

    pub(super) fn refuse(&mut self, to: Asker, message: String) {
        self.reply(to, Reply::Error { message });
    }

    /// Tells everyone who has said hello.
    pub(super) fn tell(&mut self, event: &Event) {
        let packet = encode(&Say::Event(event.clone()));
        let greeted = self.open.iter().filter(|open| open.greeted).map(|open| open.key);
        for key in greeted.collect::<Vec<_>>() {
            self.send(key, &packet);
        }
    }

    /// Whoever can't take a packet at once is let go: it comes back and asks for the
    /// inventory, and nothing here waits for it.
    fn send(&mut self, key: u64, packet: &[u8]) {
        let Some(connection) = self.open.iter().find(|open| open.key == key) else { return };
        if let Err(error) = socket::send_packet(&connection.socket, packet) {
            complain(format_args!("a connection was closed, it took no packet: {error}"));
            self.close(key);
        }
    }

    fn close(&mut self, key: u64) {
        self.open.retain(|connection| connection.key != key);
    }

    fn complain(&mut self, key: u64, packet: &[u8], error: &serde_json::Error) {
        #[derive(serde::Deserialize)]
        struct Id {
            id: u64,
        }
        if let Ok(Id { id }) = serde_json::from_slice(packet) {
            let asker = Asker { connection: key, request: id };
            self.refuse(asker, format!("this monitor doesn't understand the request: {error}"));
        } else {
            complain(format_args!("a connection was closed, it sent no request: {error}"));
            self.close(key);
        }
    }
}

fn encode(say: &Say) -> Vec<u8> {
    serde_json::to_vec(say).expect("maps have text keys and nothing else can fail")
}
