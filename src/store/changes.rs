//! Writes that belong together: all of them are made, or none.

use rusqlite::{Connection, params};

use super::{Error, Record};

/// Writes to be made by [`super::Store::apply`], in their order.
#[derive(Debug, Default)]
#[must_use]
pub struct Changes(Vec<Change>);

#[derive(Debug)]
pub(super) enum Change {
    Put { kind: &'static str, key: String, version: u32, body: String },
    Delete { kind: &'static str, key: String },
}

impl Changes {
    /// Writes a record.
    pub fn put<R: Record>(&mut self, key: &str, record: &R) -> Result<(), Error> {
        self.0.push(Change::put(key, record)?);
        Ok(())
    }

    /// Removes a record; there may be none.
    pub fn delete<R: Record>(&mut self, key: &str) {
        self.0.push(Change::Delete { kind: R::KIND, key: key.to_owned() });
    }

    /// The first one, for messages.
    pub(super) fn told(&self) -> String {
        match (self.0.first(), self.0.len().saturating_sub(1)) {
            (None, _) => "write nothing".to_owned(),
            (Some(first), 0) => first.told(),
            (Some(first), more) => format!("{} and {more} more", first.told()),
        }
    }

    pub(super) fn make(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        for change in &self.0 {
            change.make(&transaction)?;
        }
        transaction.commit()
    }
}

impl Change {
    pub(super) fn put<R: Record>(key: &str, record: &R) -> Result<Self, Error> {
        let body = serde_json::to_string(record).map_err(|source| Error::Unstorable {
            kind: R::KIND,
            key: key.to_owned(),
            source,
        })?;
        Ok(Self::Put { kind: R::KIND, key: key.to_owned(), version: R::VERSION, body })
    }

    pub(super) fn told(&self) -> String {
        match self {
            Self::Put { kind, key, .. } => format!("write {kind} \"{key}\""),
            Self::Delete { kind, key } => format!("delete {kind} \"{key}\""),
        }
    }

    /// Gives the number of records that were there to be changed, or are new.
    pub(super) fn make(&self, connection: &Connection) -> rusqlite::Result<usize> {
        match self {
            Self::Put { kind, key, version, body } => connection
                .prepare_cached(
                    "INSERT INTO record (kind, key, version, body) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (kind, key)
                     DO UPDATE SET version = excluded.version, body = excluded.body",
                )?
                .execute(params![kind, key, version, body]),
            Self::Delete { kind, key } => connection
                .prepare_cached("DELETE FROM record WHERE kind = ?1 AND key = ?2")?
                .execute(params![kind, key]),
        }
    }
}
