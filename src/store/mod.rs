//! What haled must remember: versioned records in one SQLite file.
//!
//! Records are JSON with a kind, a key and a version, apart from every wire type. The store
//! knows no room's types; each room brings its own [`Record`].

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something that is stored.
pub trait Record: Serialize + DeserializeOwned {
    /// The kind: a table of its own, in effect.
    const KIND: &'static str;
    /// The version this build writes.
    const VERSION: u32;

    /// Reads a body of an older version. The default refuses all but the current one.
    fn upgrade(version: u32, body: serde_json::Value) -> Result<Self, String> {
        if version == Self::VERSION {
            serde_json::from_value(body).map_err(|error| error.to_string())
        } else {
            Err(format!("its version is {version}, this haled reads {}", Self::VERSION))
        }
    }
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[error("not written yet")]
pub struct Error;

/// A record that could not be read; it was moved out of the way, not lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Why.
    pub why: String,
}

/// The store. Cheap to clone; calls take well under a millisecond and may be made on a
/// tokio worker.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Opens or makes the file. A file that is no database is moved aside and reported.
    pub fn open(_path: &Path) -> Result<Self, Error> {
        todo!()
    }

    /// Writes one record, whole or not at all.
    pub fn put<R: Record>(&self, _key: &str, _record: &R) -> Result<(), Error> {
        todo!()
    }

    /// Removes one; false: there was none.
    pub fn delete<R: Record>(&self, _key: &str) -> Result<bool, Error> {
        todo!()
    }

    /// Every readable record of a kind, by key; unreadable ones are set aside.
    pub fn all<R: Record>(&self) -> Result<(Vec<(String, R)>, Vec<SetAside>), Error> {
        todo!()
    }
}

/// Held while a daemon runs on a root directory (flock(2) on `<root>/lock`).
#[derive(Debug)]
pub struct RootLock {}

impl RootLock {
    /// Takes it, or says which process has it.
    pub fn take(_root: &Path) -> Result<Self, RootInUse> {
        todo!()
    }
}

/// Another daemon runs on this root directory.
#[derive(Debug, thiserror::Error)]
#[error("another haled (pid {pid}) runs on {}: stop it, or give --root another directory", root.display())]
pub struct RootInUse {
    /// The directory.
    pub root: PathBuf,
    /// The other's pid, 0 where it could not be read.
    pub pid: u32,
}
