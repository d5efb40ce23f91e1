//! Why a configuration can't be made, or the OCI runtime didn't do what it was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a configuration or a call failed. The text names the object, the cause and, where
/// there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the container nor its image says what to run.
    #[error("no command to run: the image has neither Entrypoint nor Cmd, give a command or args")]
    NoCommand,
    /// A value that can't be used.
    #[error("{field}: {value} {why}")]
    Invalid {
        /// Which, in the words of the container's configuration.
        field: String,
        /// The value, quoted and shortened.
        value: String,
        /// What is wrong and what is allowed.
        why: String,
    },
    /// A user or group that the image doesn't know.
    #[error("{kind} {name:?} is not in the image's {file}: add it there or give a number")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
    },
    /// A file of the image can't be read.
    #[error("cannot read {path} of the image at {}: {why}", rootfs.display())]
    Image {
        /// Where the image is mounted.
        rootfs: PathBuf,
        /// The path in it.
        path: &'static str,
        /// Why.
        why: String,
    },
    /// This machine can't give what was asked.
    #[error("{field}: {why}")]
    Unsupported {
        /// Which, in the words of the container's configuration.
        field: String,
        /// Why, and what to do about it.
        why: String,
    },
    /// A file or the kernel's answer on the host.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was being done, with its object.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The runtime's executable isn't there.
    #[error(
        "OCI runtime \"{name}\" not found at {}: install {name} or set runtime.handlers.{name}.path",
        path.display()
    )]
    NoRuntime {
        /// The handler's name.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// The runtime said no.
    #[error("{runtime} {command} {container}: {message}")]
    Runtime {
        /// The handler's name.
        runtime: String,
        /// `delete`, `list` and so on.
        command: &'static str,
        /// The container's id; empty where there is none.
        container: String,
        /// Its own last words.
        message: String,
    },
    /// The runtime didn't end in time, and was killed.
    #[error("{runtime} {command} {container}: no answer in {limit:?}, killed")]
    TimedOut {
        /// The handler's name.
        runtime: String,
        /// `delete`, `list` and so on.
        command: &'static str,
        /// The container's id; empty where there is none.
        container: String,
        /// The limit.
        limit: Duration,
    },
}

/// Characters of a hostile value that an error repeats.
const SHOWN: usize = 80;

impl Error {
    /// Whether the request is at fault, not the machine: the same again can't succeed.
    pub fn is_bad_request(&self) -> bool {
        matches!(
            self,
            Self::NoCommand
                | Self::Invalid { .. }
                | Self::Unknown { .. }
                | Self::Unsupported { .. }
        )
    }

    pub(super) fn invalid(
        field: impl Into<String>,
        value: impl std::fmt::Debug,
        why: impl Into<String>,
    ) -> Self {
        let text = format!("{value:?}");
        let mut value: String = text.chars().take(SHOWN).collect();
        if value.len() < text.len() {
            value.push('…');
        }
        Self::Invalid { field: field.into(), value, why: why.into() }
    }

    pub(super) fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), why: why.into() }
    }

    pub(super) fn host(what: impl Into<String>, source: io::Error) -> Self {
        Self::Host { what: what.into(), source }
    }
}
