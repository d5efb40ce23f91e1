//! Tests of `store` with the real parts: a process that writes is killed in the middle of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use haled::store::{Error, Record, RootLock, Store};
use serde::{Deserialize, Serialize};

/// Records that were answered for before the writer is killed.
const ENOUGH: u32 = 200;
/// Where the writer, which is this program again, finds its root.
const ROOT: &str = "HALED_TEST_STORE_ROOT";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    number: u32,
    padding: String,
}

impl Record for Entry {
    const KIND: &'static str = "entry";
    const VERSION: u32 = 1;
}

fn entry(number: u32) -> Entry {
    // Of many sizes, some larger than a page.
    Entry { number, padding: "x".repeat((number as usize * 37) % 9000) }
}

fn database(root: &Path) -> PathBuf {
    root.join("records.db")
}

/// Not a test but the program that the test below starts and kills.
#[test]
#[ignore = "started by the test below"]
fn writer() {
    let root = PathBuf::from(std::env::var_os(ROOT).expect("started by the test below"));
    let _lock = RootLock::take(&root).unwrap();
    let store = Store::open(&database(&root)).unwrap();
    let start = store.all::<Entry>().unwrap().0.len() as u32;
    for number in start.. {
        store.put(&format!("{number:08}"), &entry(number)).unwrap();
        // libtest keeps what println! writes from anyone who isn't a terminal.
        writeln!(std::io::stdout(), "put {number}").unwrap();
    }
}

struct Writer(Child);

impl Writer {
    fn start(root: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::writer", "--ignored", "--nocapture"])
            .env(ROOT, root)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Lets it write this many records, then kills it; the last one it answered for.
    fn kill_after(mut self, records: u32) -> u32 {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut numbers = lines.filter_map(|line| line.strip_prefix("put ")?.parse().ok());
        let last = numbers.by_ref().take(records as usize).last().expect("it writes");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        numbers.last().unwrap_or(last)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone already where the test went well.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn what_was_answered_for_outlives_a_killed_writer() {
    let root = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let last = Writer::start(root.path()).kill_after(ENOUGH);
        let store = Store::open(&database(root.path())).unwrap();
        assert_eq!(store.replaced(), None);
        let (entries, bad) = store.all::<Entry>().unwrap();
        assert_eq!(bad, []);
        // All that was answered for, and at most the one that was under way.
        let found = entries.len() as u32;
        assert!((last + 1..=last + 2).contains(&found), "{last} was answered for, {found} found");
        for (number, (key, entry)) in entries.iter().enumerate() {
            assert_eq!(key, &format!("{number:08}"));
            assert_eq!(entry, &self::entry(number as u32));
        }
    }
}

#[test]
fn the_lock_is_another_processs_until_it_ends() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(root.path());
    let pid = writer.0.id();
    let mut first = String::new();
    let mut lines = BufReader::new(writer.0.stdout.as_mut().unwrap());
    while !first.contains("put ") {
        assert!(lines.read_line(&mut first).unwrap() > 0, "the writer ended: {first}");
    }
    match RootLock::take(root.path()) {
        Err(Error::InUse(other)) => assert_eq!(other.pid, pid),
        other => panic!("{other:?}"),
    }
    writer.0.kill().unwrap();
    writer.0.wait().unwrap();
    RootLock::take(root.path()).unwrap();
}
