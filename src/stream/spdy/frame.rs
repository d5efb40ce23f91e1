//! Frames ↔ bytes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::Error;
use super::headers::{Deflater, Headers, Inflater};

/// Bytes of a control frame after its first eight; header blocks are compressed in it.
pub const MAX_CONTROL: usize = 64 * 1024;
/// Bytes of data that are encoded as one frame: the length has 24 bits.
const MAX_DATA: usize = (1 << 24) - 1;
/// Of every frame: type or stream, flags and length.
const HEAD: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// A stream's number: odd ones are the client's. The top bit is never set.
pub type StreamId = u32;

/// A frame. Fields are named as in the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Frame {
    SynStream {
        id: StreamId,
        associated: StreamId,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        id: StreamId,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        id: StreamId,
        status: u32,
    },
    /// Flags, id and value of each.
    Settings(Vec<(u8, u32, u32)>),
    Ping(u32),
    GoAway {
        last: StreamId,
        status: u32,
    },
    Headers {
        id: StreamId,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        id: StreamId,
        delta: u32,
    },
    /// What has come of a stream's data: a frame's payload is given in pieces, as it
    /// arrives, and `fin` with the last of them.
    Data {
        id: StreamId,
        fin: bool,
        data: Bytes,
    },
}

/// RST_STREAM's statuses that are used here.
pub mod status {
    /// The stream broke the protocol.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// The stream is not wanted; nothing was done with it.
    pub const REFUSED_STREAM: u32 = 3;
}

/// Bytes → frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come and has not been decoded: at most one control frame and one read.
    pub buffer: BytesMut,
    inflater: Inflater,
    /// The data frame whose payload is coming.
    data: Option<Payload>,
}

#[derive(Debug)]
struct Payload {
    id: StreamId,
    fin: bool,
    left: usize,
}

impl Decoder {
    /// The next frame of what is in `buffer`; `None`: more bytes are needed first.
    pub fn decode(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(payload) = &mut self.data {
                if self.buffer.is_empty() && payload.left > 0 {
                    return Ok(None);
                }
                let data = self.buffer.split_to(payload.left.min(self.buffer.len())).freeze();
                payload.left -= data.len();
                let (id, last) = (payload.id, payload.left == 0);
                let fin = last && payload.fin;
                if last {
                    self.data = None;
                }
                return Ok(Some(Frame::Data { id, fin, data }));
            }
            let Some(mut head) = self.buffer.get(..HEAD) else { return Ok(None) };
            let word = head.get_u32();
            let flags = head.get_u8();
            let length = head.get_uint(3) as usize;
            if word >> 31 == 0 {
                if word == 0 {
                    return Err(Error::Malformed("DATA"));
                }
                self.buffer.advance(HEAD);
                self.data = Some(Payload { id: word, fin: flags & FIN != 0, left: length });
                continue;
            }
            let version = (word >> 16) as u16 & 0x7fff;
            if version != VERSION {
                return Err(Error::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(Error::TooLong(length));
            }
            if self.buffer.len() < HEAD + length {
                return Ok(None);
            }
            self.buffer.advance(HEAD);
            let payload = self.buffer.split_to(length);
            // An unknown type is ignored, as the specification says.
            if let Some(frame) = self.control(word as u16, flags, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Frame>, Error> {
        let Some(name) = name(kind) else { return Ok(None) };
        let malformed = || Error::Malformed(name);
        let mut rest = payload;
        let mut word = || rest.try_get_u32().map_err(|_| malformed());
        let fin = flags & FIN != 0;
        let frame = match name {
            "SYN_STREAM" => {
                let (id, associated) = (stream(word()?), stream(word()?));
                // Priority and slot: of no use here.
                let block = rest.get(2..).ok_or_else(malformed)?;
                let headers = self.inflater.read(block)?;
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Frame::SynStream { id, associated, fin, unidirectional, headers }
            }
            "SYN_REPLY" => {
                let id = stream(word()?);
                Frame::SynReply { id, fin, headers: self.inflater.read(rest)? }
            }
            "HEADERS" => {
                let id = stream(word()?);
                Frame::Headers { id, fin, headers: self.inflater.read(rest)? }
            }
            "SETTINGS" => {
                let count = word()? as usize;
                if rest.len() / 8 != count || !rest.len().is_multiple_of(8) {
                    return Err(malformed());
                }
                let entry = |entry: &[u8]| {
                    let mut entry = entry;
                    (entry.get_u8(), entry.get_uint(3) as u32, entry.get_u32())
                };
                Frame::Settings(rest.chunks_exact(8).map(entry).collect())
            }
            "PING" => Frame::Ping(word()?),
            "RST_STREAM" => Frame::RstStream { id: stream(word()?), status: word()? },
            "GOAWAY" => Frame::GoAway { last: stream(word()?), status: word()? },
            _ => Frame::WindowUpdate { id: stream(word()?), delta: stream(word()?) },
        };
        match frame {
            Frame::SynStream { id: 0, .. }
            | Frame::SynReply { id: 0, .. }
            | Frame::RstStream { id: 0, .. }
            | Frame::Headers { id: 0, .. } => Err(malformed()),
            frame => Ok(Some(frame)),
        }
    }
}

const TYPES: [(u16, &str); 8] = [
    (1, "SYN_STREAM"),
    (2, "SYN_REPLY"),
    (3, "RST_STREAM"),
    (4, "SETTINGS"),
    (6, "PING"),
    (7, "GOAWAY"),
    (8, "HEADERS"),
    (9, "WINDOW_UPDATE"),
];

fn name(kind: u16) -> Option<&'static str> {
    TYPES.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

/// The top bit is reserved.
fn stream(word: u32) -> StreamId {
    word & 0x7fff_ffff
}

/// Frames → bytes.
#[derive(Debug, Default)]
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// Appends the frame to `out`.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let fin = |fin: bool| if fin { FIN } else { 0 };
        match frame {
            Frame::Data { id, fin, data } => encode_data(*id, *fin, data, out),
            Frame::SynStream { id, associated, fin: last, unidirectional, headers } => {
                let flags = fin(*last) | if *unidirectional { UNIDIRECTIONAL } else { 0 };
                control(1, flags, out, |out| {
                    out.put_u32(*id);
                    out.put_u32(*associated);
                    out.put_u16(0);
                    self.deflater.write(headers, out);
                });
            }
            Frame::SynReply { id, fin: last, headers } => control(2, fin(*last), out, |out| {
                out.put_u32(*id);
                self.deflater.write(headers, out);
            }),
            Frame::Headers { id, fin: last, headers } => control(8, fin(*last), out, |out| {
                out.put_u32(*id);
                self.deflater.write(headers, out);
            }),
            Frame::Settings(entries) => control(4, 0, out, |out| {
                out.put_u32(entries.len() as u32);
                for (flags, id, value) in entries {
                    out.put_u8(*flags);
                    out.put_uint(u64::from(*id), 3);
                    out.put_u32(*value);
                }
            }),
            Frame::Ping(id) => control(6, 0, out, |out| out.put_u32(*id)),
            Frame::RstStream { id, status } => pair(3, *id, *status, out),
            Frame::GoAway { last, status } => pair(7, *last, *status, out),
            Frame::WindowUpdate { id, delta } => pair(9, *id, *delta, out),
        }
    }
}

fn pair(kind: u16, one: u32, two: u32, out: &mut Vec<u8>) {
    control(kind, 0, out, |out| {
        out.put_u32(one);
        out.put_u32(two);
    });
}

fn control(kind: u16, flags: u8, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    let at = out.len();
    out.put_u32(0);
    payload(out);
    let length = (out.len() - at - 4) as u32;
    let word = u32::from(flags) << 24 | length;
    out[at..at + 4].copy_from_slice(&word.to_be_bytes());
}

fn encode_data(id: StreamId, fin: bool, data: &[u8], out: &mut Vec<u8>) {
    let mut rest = data;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(MAX_DATA));
        rest = after;
        out.put_u32(id);
        out.put_u8(if fin && rest.is_empty() { FIN } else { 0 });
        out.put_uint(piece.len() as u64, 3);
        out.put_slice(piece);
        if rest.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
