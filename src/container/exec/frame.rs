//! What haled and the processes of its agent say to each other in a container.
//!
//! haled-agent, which has no library, has the same numbers. What comes from a container is not
//! to be trusted: a frame is one of these, whole, or it is none.

/// What this is the version of: both programs are of one installation.
const VERSION: i32 = 1;
const HELLO: i32 = 1;
const GO: i32 = 2;
const REFUSED: i32 = 3;
const ENDED: i32 = 4;

/// Bytes of one.
pub(super) const SIZE: usize = 8;
/// The largest packet that the agent takes, in bytes, and the most words in one.
const MAX_PACKET: usize = 32 * 1024;
const MAX_WORDS: usize = 1024;

/// To a waiter: the command may begin.
pub(super) fn go() -> [u8; SIZE] {
    frame(GO, 0)
}

/// From a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// It is there, and has not begun.
    Hello,
    /// The kernel has not executed the command, with this errno.
    Refused(i32),
    /// The command has ended with this status, in wait(2)'s form.
    Ended(i32),
}

impl Frame {
    /// `None`: it is no frame.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; SIZE] = bytes.try_into().ok()?;
        let [kind, value] = [0, 4]
            .map(|at| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        match (kind, value) {
            (HELLO, VERSION) => Some(Self::Hello),
            (REFUSED, 1..=4095) => Some(Self::Refused(value)),
            (ENDED, 0..=0xffff) => Some(Self::Ended(value)),
            _ => None,
        }
    }
}

fn frame(kind: i32, value: i32) -> [u8; SIZE] {
    let mut frame = [0; SIZE];
    frame[..4].copy_from_slice(&kind.to_ne_bytes());
    frame[4..].copy_from_slice(&value.to_ne_bytes());
    frame
}

/// A command as the agent takes it; `None`: it is too long for that.
pub(super) fn order(command: &[String]) -> Option<Vec<u8>> {
    if command.is_empty() || command.len() > MAX_WORDS {
        return None;
    }
    let mut packet = Vec::new();
    for word in command {
        if word.contains('\0') {
            return None;
        }
        packet.extend_from_slice(word.as_bytes());
        packet.push(0);
    }
    (packet.len() <= MAX_PACKET).then_some(packet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_order_is_words_that_end_with_zeros() {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(order(&words(&["ls", "", "-l"])).unwrap(), b"ls\0\0-l\0");
        assert_eq!(order(&[]), None);
        assert_eq!(order(&words(&["a\0b"])), None);
        assert!(order(&vec![String::new(); MAX_WORDS]).is_some());
        assert_eq!(order(&vec![String::new(); MAX_WORDS + 1]), None);
        assert!(order(&["x".repeat(MAX_PACKET - 1)]).is_some());
        assert_eq!(order(&["x".repeat(MAX_PACKET)]), None);
    }

    #[test]
    fn a_frame_is_whole_and_of_its_kind_or_none() {
        assert_eq!(Frame::parse(&frame(HELLO, VERSION)), Some(Frame::Hello));
        assert_eq!(Frame::parse(&frame(REFUSED, libc::ENOENT)), Some(Frame::Refused(libc::ENOENT)));
        assert_eq!(Frame::parse(&frame(ENDED, 3 << 8)), Some(Frame::Ended(3 << 8)));
        for wrong in [
            frame(HELLO, VERSION + 1),
            frame(GO, 0),
            frame(REFUSED, 0),
            frame(REFUSED, -2),
            frame(ENDED, -1),
            frame(ENDED, 0x1_0000),
            frame(5, 0),
        ] {
            assert_eq!(Frame::parse(&wrong), None, "{wrong:?}");
        }
        assert_eq!(Frame::parse(&frame(ENDED, 0)[..7]), None);
        assert_eq!(Frame::parse(&[&frame(ENDED, 0)[..], &[0]].concat()), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_frame_of_its_bytes_or_none(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let again = Frame::parse(&bytes).map(|parsed| match parsed {
                Frame::Hello => frame(HELLO, VERSION),
                Frame::Refused(errno) => frame(REFUSED, errno),
                Frame::Ended(status) => frame(ENDED, status),
            });
            prop_assert!(again.is_none_or(|again| again[..] == bytes[..]));
        }

        #[test]
        fn small_numbers_are_read_as_they_were_written(kind in -1..6_i32, value in -2..70_000_i32) {
            let expected = match (kind, value) {
                (HELLO, VERSION) => Some(Frame::Hello),
                (REFUSED, 1..=4095) => Some(Frame::Refused(value)),
                (ENDED, 0..=65_535) => Some(Frame::Ended(value)),
                _ => None,
            };
            prop_assert_eq!(Frame::parse(&frame(kind, value)), expected);
        }
    }
}
