//! Frames: ttrpc messages, cut to pieces for the two connections that share one socket.
//!
//! ```text
//!  the socket    connection u32 · length u32 · piece        big-endian
//!  a connection  length u32 · stream u32 · type u8 · flags u8 · payload
//! ```
//!
//! Pure: bytes in, messages out. What comes from a plugin is taken for hostile: every length
//! has a limit before anything is kept.

use thiserror::Error;

/// Bytes of the longest payload, as ttrpc has it.
pub(super) const PAYLOAD_LIMIT: usize = 4 << 20;
/// Bytes before each piece.
const PIECE_HEADER: usize = 8;
/// Bytes before each payload.
const HEADER: usize = 10;
/// Bytes of the first piece of a message. The plugins' readers take a piece into a buffer of
/// this size, and what follows the first right to where it belongs, whatever its length.
const FIRST_PIECE: usize = 4096;

/// Who is called on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Callee {
    /// Connection 1: the plugin.
    Plugin,
    /// Connection 2: the runtime.
    Runtime,
}

impl Callee {
    fn number(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Plugin, Self::Runtime].into_iter().find(|callee| callee.number() == number)
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Response,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) callee: Callee,
    /// A call's number: odd, and higher with each.
    pub(super) stream: u32,
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

/// The other side can't be understood any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum BadFrame {
    #[error("a message of {0} bytes, at most {PAYLOAD_LIMIT} are allowed")]
    TooLong(usize),
    #[error("a message of type {0}: only requests (1) and responses (2) are known")]
    Kind(u8),
}

impl Message {
    /// Its bytes on the socket.
    pub(super) fn encode(&self) -> Result<Vec<u8>, BadFrame> {
        let length = self.payload.len();
        if length > PAYLOAD_LIMIT {
            return Err(BadFrame::TooLong(length));
        }
        let first = length.min(FIRST_PIECE - HEADER);
        let (begin, rest) = self.payload.split_at(first);
        let mut bytes = Vec::with_capacity(length + HEADER + 2 * PIECE_HEADER);
        let piece = |bytes: &mut Vec<u8>, length: usize| {
            bytes.extend(self.callee.number().to_be_bytes());
            bytes.extend((length as u32).to_be_bytes());
        };
        piece(&mut bytes, HEADER + first);
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend([self.kind.number(), 0]);
        bytes.extend(begin);
        if !rest.is_empty() {
            piece(&mut bytes, rest.len());
            bytes.extend(rest);
        }
        Ok(bytes)
    }
}

/// Takes bytes as they come and gives whole messages.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Not yet understood: less than a piece's header.
    header: Vec<u8>,
    /// The piece that is coming, and how much of it is to come. No callee: nobody's.
    piece: Option<(Option<Callee>, usize)>,
    /// What has come of each callee's message.
    plugin: Vec<u8>,
    runtime: Vec<u8>,
}

impl Decoder {
    /// Takes bytes. After an error nothing more can be understood.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<Message>, BadFrame> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            match self.piece {
                None => {
                    let wanted = (PIECE_HEADER - self.header.len()).min(bytes.len());
                    self.header.extend(&bytes[..wanted]);
                    bytes = &bytes[wanted..];
                    if self.header.len() == PIECE_HEADER {
                        let (callee, length) = (number(&self.header), number(&self.header[4..]));
                        let length = length as usize;
                        if length > PAYLOAD_LIMIT + HEADER {
                            return Err(BadFrame::TooLong(length));
                        }
                        self.piece = Some((Callee::from_number(callee), length));
                        self.header.clear();
                    }
                }
                Some((callee, left)) => {
                    let here = left.min(bytes.len());
                    if let Some(callee) = callee {
                        self.continue_message(callee, &bytes[..here], &mut messages)?;
                    }
                    bytes = &bytes[here..];
                    self.piece = Some((callee, left - here));
                }
            }
            if matches!(self.piece, Some((_, 0))) {
                self.piece = None;
            }
        }
        Ok(messages)
    }

    fn continue_message(
        &mut self,
        callee: Callee,
        bytes: &[u8],
        messages: &mut Vec<Message>,
    ) -> Result<(), BadFrame> {
        let come = match callee {
            Callee::Plugin => &mut self.plugin,
            Callee::Runtime => &mut self.runtime,
        };
        come.extend(bytes);
        let mut at = 0;
        while come.len() - at >= HEADER {
            let header = &come[at..at + HEADER];
            let (length, stream) = (number(header) as usize, number(&header[4..]));
            if length > PAYLOAD_LIMIT {
                return Err(BadFrame::TooLong(length));
            }
            let kind = match header[8] {
                1 => Kind::Request,
                2 => Kind::Response,
                other => return Err(BadFrame::Kind(other)),
            };
            let Some(payload) = come.get(at + HEADER..at + HEADER + length) else { break };
            messages.push(Message { callee, stream, kind, payload: payload.to_vec() });
            at += HEADER + length;
        }
        come.drain(..at);
        Ok(())
    }
}

/// The first four bytes.
fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            (4000usize..9000).prop_map(|length| vec![7; length]),
        ];
        (any::<bool>(), any::<u32>(), any::<bool>(), payload).prop_map(
            |(plugin, stream, request, payload)| Message {
                callee: if plugin { Callee::Plugin } else { Callee::Runtime },
                stream,
                kind: if request { Kind::Request } else { Kind::Response },
                payload,
            },
        )
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_wherever_they_are_cut(
            messages in proptest::collection::vec(message(), 0..6),
            cuts in proptest::collection::vec(1usize..5000, 1..64),
        ) {
            let bytes: Vec<u8> =
                messages.iter().flat_map(|message| message.encode().unwrap()).collect();
            let (mut decoder, mut found, mut rest) = (Decoder::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                found.extend(decoder.take(now).unwrap());
                rest = later;
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn what_is_kept_has_a_limit_whatever_comes(
            bytes in proptest::collection::vec(any::<u8>(), 0..4096)
        ) {
            let mut decoder = Decoder::default();
            // An error is an answer, too.
            drop(decoder.take(&bytes));
            prop_assert!(decoder.plugin.len() + decoder.runtime.len() <= bytes.len());
        }
    }

    #[test]
    fn pieces_of_two_connections_may_alternate_and_others_are_nobodys() {
        let payload = vec![1; 10_000];
        let one = Message { callee: Callee::Plugin, stream: 1, kind: Kind::Response, payload };
        let other = Message {
            callee: Callee::Runtime,
            stream: 3,
            kind: Kind::Request,
            payload: vec![2; 3],
        };
        let cut = PIECE_HEADER + FIRST_PIECE;
        let (bytes, between) = (one.encode().unwrap(), other.encode().unwrap());
        let stray = [&9u32.to_be_bytes()[..], &2u32.to_be_bytes(), b"ab"].concat();
        let all = [&bytes[..cut], &between, &stray, &bytes[cut..]].concat();
        assert_eq!(Decoder::default().take(&all).unwrap(), [other, one]);
    }

    #[test]
    fn too_much_and_nonsense_are_refused_before_anything_is_kept() {
        let piece = |length: u32| [1u32.to_be_bytes(), length.to_be_bytes()].concat();
        let huge = Decoder::default().take(&piece(u32::MAX));
        assert_eq!(huge, Err(BadFrame::TooLong(u32::MAX as usize)));
        let header = |length: u32, kind: u8| {
            [&piece(10)[..], &length.to_be_bytes(), &1u32.to_be_bytes(), &[kind, 0]].concat()
        };
        let long = Decoder::default().take(&header(PAYLOAD_LIMIT as u32 + 1, 2));
        assert_eq!(long, Err(BadFrame::TooLong(PAYLOAD_LIMIT + 1)));
        assert_eq!(Decoder::default().take(&header(0, 3)), Err(BadFrame::Kind(3)));
        let callee = Callee::Plugin;
        let payload = vec![0; PAYLOAD_LIMIT + 1];
        let message = Message { callee, stream: 1, kind: Kind::Request, payload };
        assert_eq!(message.encode(), Err(BadFrame::TooLong(PAYLOAD_LIMIT + 1)));
    }
}
