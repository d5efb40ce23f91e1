//! What haled must remember: versioned records in one SQLite file.
//!
//! Records are JSON with a kind, a key and a version, apart from every wire type. The store
//! knows no room's types; each room brings its own [`Record`]. `database` is the file and
//! what is read from it, `changes` what is written together, `lock` keeps a second daemon off the same root directory.
//!
//! One unreadable record never stops a start: it is set aside, in a table of its own, and
//! told to the caller, who logs it. Never here: a decision on what a record means.

mod changes;
mod database;
mod lock;

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use changes::Changes;
pub use database::Store;
pub use lock::{RootInUse, RootLock};

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

/// The readable records of a kind by key, and those just set aside.
pub type All<R> = (Vec<(String, R)>, Vec<SetAside>);

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite could not do it: a full disk, an I/O error, a lock held too long.
    #[error("cannot {doing} in {}: {source}", path.display())]
    Database {
        /// "write sandbox \"ab12\"".
        doing: String,
        /// The database file.
        path: PathBuf,
        /// SQLite's own words.
        source: rusqlite::Error,
    },
    /// The file or its directory can't be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// "make the directory".
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A later haled wrote the file.
    #[error(
        "{} was written by a newer haled (schema {found}, this one knows up to {known}): \
         run that version, or give --root another directory",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An SQLite file of some other program.
    #[error("{} is a database of another program: give --root another directory", path.display())]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// A record can't be put as JSON (a map whose keys are no text, say).
    #[error("{kind} \"{key}\" cannot be stored: {source}")]
    Unstorable {
        /// Its kind.
        kind: &'static str,
        /// Its key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Another daemon runs on this root directory.
    #[error(transparent)]
    InUse(#[from] RootInUse),
}
