//! The two identities of the CRI: a sandbox's and a container's.
//!
//! Both are 64 lower-case hex digits by construction, so an id is always one safe path
//! segment, cgroup name and OCI container id. Names and other labels don't belong here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Digits in an id: 256 bits in hex, as clients of other runtimes expect.
pub const DIGITS: usize = 64;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an id: 64 lower-case hex digits are")]
pub struct NotAnId(pub String);

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The id of a ", $what, ".")]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// A new id from 32 random bytes.
            pub fn from_random(bytes: [u8; DIGITS / 2]) -> Self {
                use fmt::Write as _;
                let mut text = String::with_capacity(DIGITS);
                for byte in bytes {
                    write!(text, "{byte:02x}").expect("a String takes every write");
                }
                Self(text.into())
            }

            /// The 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 13 digits, as crictl prints them.
            pub fn short(&self) -> &str {
                &self.0[..13]
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() == DIGITS && text.bytes().all(hex) {
                    Ok(Self(text.into()))
                } else {
                    Err(NotAnId(text))
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                std::path::Path::new(&*self.0)
            }
        }
    };
}

id!(SandboxId, "pod sandbox");
id!(ContainerId, "container");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lower_case_hex_digits_are_an_id() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        for bad in ["", "abc", &good.to_uppercase(), &format!("{good}0"), &"../".repeat(21)] {
            assert_eq!(bad.parse::<SandboxId>(), Err(NotAnId(bad.to_owned())));
        }
    }

    #[test]
    fn random_bytes_give_an_id_that_parses() {
        let id = SandboxId::from_random([0xa5; 32]);
        assert_eq!(id.as_str().parse::<SandboxId>().unwrap(), id);
        assert_eq!(id.short().len(), 13);
    }
}
