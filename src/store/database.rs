//! The SQLite file: opening, writing, reading, setting aside.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::changes::Change;
use super::{All, Changes, Error, Record, SetAside};

/// "HALE": marks the file as ours (PRAGMA application_id).
const APPLICATION: i64 = 0x4841_4c45;
/// The layout of the tables below (PRAGMA user_version).
const SCHEMA: i64 = 1;
/// How long a call waits for another process (an operator's `sqlite3`) to let go.
const BUSY: Duration = Duration::from_secs(5);
/// The records set aside that are kept, the newest.
const SET_ASIDE_LIMIT: u32 = 1000;
/// The pages of write-ahead log after which it is folded in; SQLite's own default.
const CHECKPOINT_PAGES: i64 = 1000;

/// The file is root's alone.
const MODE: u32 = 0o600;

const TABLES: &str = "
    CREATE TABLE record (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (kind, key)
    ) STRICT;
    CREATE TABLE set_aside (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        body TEXT NOT NULL,
        why TEXT NOT NULL,
        at_seconds INTEGER NOT NULL
    ) STRICT;
";

/// The store. Cheap to clone; calls take well under a millisecond and may be made on a
/// tokio worker.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Mutex<Connection>,
    path: PathBuf,
    replaced: Option<PathBuf>,
}

/// One row as it was found, not yet trusted.
struct Row {
    rowid: i64,
    key: String,
    version: i64,
    /// `Err`: not even text.
    body: Result<String, String>,
}

impl Store {
    /// Opens or makes the file. A file that is no database, or a damaged one, is moved aside
    /// (`<name>.damaged-<seconds since the epoch>`) and reported: see [`Store::replaced`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (connection, replaced) = match prepare(path) {
            Ok(connection) => (connection, None),
            Err(Error::Database { source, .. }) if is_damage(&source) => {
                let aside = move_aside(path)?;
                tracing::error!(
                    database = %path.display(),
                    moved_to = %aside.display(),
                    "the database is damaged ({source}): it was moved aside, an empty one takes its place"
                );
                (prepare(path)?, Some(aside))
            }
            Err(other) => return Err(other),
        };
        let shared = Shared { connection: Mutex::new(connection), path: path.to_owned(), replaced };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the damaged file that [`Store::open`] found is now, if it found one.
    pub fn replaced(&self) -> Option<&Path> {
        self.shared.replaced.as_deref()
    }

    /// Writes one record, whole or not at all.
    pub fn put<R: Record>(&self, key: &str, record: &R) -> Result<(), Error> {
        self.make(&Change::put(key, record)?).map(drop)
    }

    /// Removes one; false: there was none.
    pub fn delete<R: Record>(&self, key: &str) -> Result<bool, Error> {
        let rows = self.make(&Change::Delete { kind: R::KIND, key: key.to_owned() })?;
        Ok(rows > 0)
    }

    fn make(&self, change: &Change) -> Result<usize, Error> {
        change.make(&self.connection()).map_err(self.failed(|| change.told()))
    }

    /// Makes all these changes or, whatever comes between, none of them.
    pub fn apply(&self, changes: &Changes) -> Result<(), Error> {
        changes.make(&mut self.connection()).map_err(self.failed(|| changes.told()))
    }

    /// Every readable record of a kind, by key; unreadable ones are set aside.
    pub fn all<R: Record>(&self) -> Result<All<R>, Error> {
        let failed = || self.failed(|| format!("read every {}", R::KIND));
        let mut connection = self.connection();
        let rows = rows(&connection, R::KIND).map_err(failed())?;
        let mut good = Vec::with_capacity(rows.len());
        let mut bad = Vec::new();
        for row in rows {
            match read::<R>(&row) {
                Ok(record) => good.push((row.key, record)),
                Err(why) => bad.push((row, why)),
            }
        }
        if !bad.is_empty() {
            set_aside(&mut connection, R::KIND, &bad).map_err(failed())?;
        }
        let told = |(row, why): (Row, String)| SetAside { kind: R::KIND.into(), key: row.key, why };
        Ok((good, bad.into_iter().map(told).collect()))
    }

    /// What was ever set aside and not lost since, the newest first.
    pub fn set_aside(&self) -> Result<Vec<SetAside>, Error> {
        let read = |connection: &Connection| {
            connection
                .prepare("SELECT kind, key, why FROM set_aside ORDER BY rowid DESC")?
                .query_map([], |row| {
                    Ok(SetAside { kind: row.get(0)?, key: row.get(1)?, why: row.get(2)? })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        read(&self.connection()).map_err(self.failed(|| "read what was set aside".to_owned()))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held rolled its transaction back: the connection is sound.
        self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: impl FnOnce() -> String) -> impl FnOnce(rusqlite::Error) -> Error {
        let path = self.shared.path.clone();
        move |source| Error::Database { doing: doing(), path, source }
    }
}

/// Opens, checks and lays out the file.
fn prepare(path: &Path) -> Result<Connection, Error> {
    let failed =
        |source| Error::Database { doing: "open the records".into(), path: path.into(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|source| Error::File {
            doing: "make the directory",
            path: parent.to_owned(),
            source,
        })?;
    }
    make_private(path).map_err(|source| Error::File {
        doing: "make private",
        path: path.to_owned(),
        source,
    })?;
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let (application, schema, tables) = identity(&connection).map_err(failed)?;
    if tables > 0 && application != APPLICATION {
        return Err(Error::Foreign { path: path.to_owned() });
    }
    if schema > SCHEMA {
        return Err(Error::Newer { path: path.to_owned(), found: schema, known: SCHEMA });
    }
    configure(&connection).map_err(failed)?;
    if tables == 0 {
        lay_out(&mut connection).map_err(failed)?;
    } else {
        check(&connection).map_err(failed)?;
    }
    Ok(connection)
}

/// Records hold the environments of containers. SQLite gives what it keeps beside the file the
/// file's own mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))
}

/// application_id, user_version and the number of tables. The first read of the file.
fn identity(connection: &Connection) -> rusqlite::Result<(i64, i64, i64)> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let schema = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok((application, schema, tables))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // NORMAL is safe from corruption only with a write-ahead log; a file system without
    // shared memory (some network ones) gets none, and pays for FULL.
    let synchronous = if mode.eq_ignore_ascii_case("wal") { "NORMAL" } else { "FULL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

/// All or nothing: a crash half-way leaves a file with no table, laid out the next time.
fn lay_out(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

/// Looks at every page, so that damage shows now and not in the middle of the work. The file
/// is small: some kilobytes a pod.
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(damage, Some(verdict)))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Renames the file and what SQLite keeps beside it; gives the file's new path.
fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let suffixed = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let seconds = now_seconds();
    // Two in one second: the next free number.
    let aside =
        (seconds..i64::MAX).map(|n| suffixed(&format!(".damaged-{n}"))).find(|p| !p.exists());
    let aside = aside.expect("a free name below i64::MAX");
    // The log first: were the database moved and the log left, the new database would take it
    // for its own.
    for part in ["-wal", "-shm"] {
        let mut to = aside.as_os_str().to_owned();
        to.push(part);
        rename_if_there(&suffixed(part), Path::new(&to))?;
    }
    rename_if_there(path, &aside)?;
    Ok(aside)
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), Error> {
    match std::fs::rename(from, to) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { doing: "move aside", path: from.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The rows of a kind by key, whatever is in them.
fn rows(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(
        "SELECT rowid, key, version, body FROM record WHERE kind = ?1 ORDER BY key",
    )?;
    let rows = statement.query_map([kind], |row| {
        let text = |index| -> rusqlite::Result<Result<String, String>> {
            let bytes = row.get_ref(index)?.as_bytes().unwrap_or_default();
            Ok(String::from_utf8(bytes.to_vec())
                .map_err(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
        };
        Ok(Row {
            rowid: row.get(0)?,
            key: text(1)?.unwrap_or_else(|lossy| lossy),
            version: row.get(2)?,
            body: text(3)?,
        })
    })?;
    rows.collect()
}

fn read<R: Record>(row: &Row) -> Result<R, String> {
    let text = row.body.as_ref().map_err(|_| "its body is not UTF-8".to_owned())?;
    let version = u32::try_from(row.version)
        .map_err(|_| format!("its version {} is out of range", row.version))?;
    let body =
        serde_json::from_str(text).map_err(|error| format!("its body is no JSON: {error}"))?;
    R::upgrade(version, body)
}

/// Moves rows from one table to the other, in one transaction.
fn set_aside(
    connection: &mut Connection,
    kind: &str,
    rows: &[(Row, String)],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (row, why) in rows {
        let body = row.body.as_ref().unwrap_or_else(|lossy| lossy);
        transaction.execute(
            "INSERT INTO set_aside (kind, key, version, body, why, at_seconds)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![kind, row.key, row.version, body, why, now_seconds()],
        )?;
        transaction.execute("DELETE FROM record WHERE rowid = ?1", [row.rowid])?;
    }
    let newest_to_go: Option<i64> = transaction
        .query_row(
            "SELECT rowid FROM set_aside ORDER BY rowid DESC LIMIT 1 OFFSET ?1",
            [SET_ASIDE_LIMIT],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(rowid) = newest_to_go {
        transaction.execute("DELETE FROM set_aside WHERE rowid <= ?1", [rowid])?;
    }
    transaction.commit()
}

/// Names files and dates rows; no decision hangs on it.
fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests;
