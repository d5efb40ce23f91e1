//! The keys that leave a session and let the process run on, as podman and docker have them.

use std::str::FromStr;

/// A sequence of keys. Empty: nothing detaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Keys(Vec<u8>);

impl Keys {
    pub(in crate::cli) const DEFAULT: &'static str = "ctrl-p,ctrl-q";
}

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = |name: &str| match (name.strip_prefix("ctrl-"), name.as_bytes()) {
            (Some(control), _) => match control.as_bytes() {
                [key @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(key & 0x1f),
                _ => Err(format!("\"{name}\" is no key: ctrl-a to ctrl-z are")),
            },
            (None, [letter]) if letter.is_ascii_graphic() => Ok(*letter),
            _ => Err(format!("\"{name}\" is no key: one character, or ctrl- and a letter")),
        };
        text.split(',').filter(|name| !name.is_empty()).map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Looks for the sequence in what is typed.
pub(in crate::cli) struct Watch {
    keys: Keys,
    /// How many of them have been typed.
    held: usize,
}

impl Watch {
    pub(in crate::cli) fn new(keys: Keys) -> Self {
        Self { keys, held: 0 }
    }

    /// What is to be passed on of a piece; `true`: the sequence is complete. The beginning of
    /// a sequence is held back until it is seen to be none.
    pub(in crate::cli) fn feed(&mut self, piece: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        if keys.is_empty() {
            return (piece.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(piece.len());
        for &byte in piece {
            if byte == keys[self.held] {
                self.held += 1;
                if self.held == keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&keys[..self.held]);
            self.held = usize::from(byte == keys[0]);
            if self.held == 0 {
                passed.push(byte);
            } else if keys.len() == 1 {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_however_it_is_cut() {
        let mut watch = Watch::new(Keys::DEFAULT.parse().unwrap());
        assert_eq!(watch.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watch.feed(b"c\x10\x10d"), (b"\x10c\x10\x10d".to_vec(), false));
        assert_eq!(watch.feed(b"x\x10"), (b"x".to_vec(), false));
        assert_eq!(watch.feed(b"\x11rest"), (vec![], true));
        let mut none = Watch::new("".parse().unwrap());
        assert_eq!(none.feed(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        let mut one = Watch::new("q".parse().unwrap());
        assert_eq!(one.feed(b"aq"), (b"a".to_vec(), true));
    }

    #[test]
    fn keys_are_named_as_podman_names_them() {
        let keys = |text: &str| text.parse::<Keys>().map(|keys| keys.0);
        assert_eq!(keys("ctrl-a,b,ctrl-["), Ok(vec![1, b'b', 27]));
        for bad in ["ctrl-", "ctrl-A1", "ab", "é"] {
            keys(bad).unwrap_err();
        }
    }
}
