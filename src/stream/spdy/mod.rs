//! SPDY/3.1, as much of it as Kubernetes' clients speak.
//!
//! `frame` and `headers` are the codec: pure, bounded, and indifferent to where frames are cut.
//! `connection` has the streams. There are no flow-control windows: Kubernetes' clients
//! (moby/spdystream) neither keep to them nor send WINDOW_UPDATE, and would be waited for
//! in vain; what holds a fast sender back is TCP.

pub(super) mod connection;
pub mod frame;
pub mod headers;

pub use headers::Headers;

/// What a peer sent that is no SPDY/3.1, or is over a limit. The connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A control frame of another version of SPDY.
    #[error("a frame of SPDY version {0}, where 3 is spoken")]
    Version(u16),
    /// A control frame longer than [`frame::MAX_CONTROL`].
    #[error("a control frame of {0} bytes, where {max} are the most", max = frame::MAX_CONTROL)]
    TooLong(usize),
    /// A frame whose length or fields contradict its type.
    #[error("a malformed {0} frame")]
    Malformed(&'static str),
    /// A header block that can't be decompressed, or that is over a limit.
    #[error("a malformed or oversized header block")]
    Headers,
}
