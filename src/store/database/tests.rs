use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pod {
    name: String,
    attempt: u32,
}

impl Record for Pod {
    const KIND: &'static str = "pod";
    const VERSION: u32 = 2;

    fn upgrade(version: u32, mut body: serde_json::Value) -> Result<Self, String> {
        match version {
            1 => body["attempt"] = 0.into(),
            2 => {}
            other => return Err(format!("version {other}")),
        }
        serde_json::from_value(body).map_err(|error| error.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Image(u32);

impl Record for Image {
    const KIND: &'static str = "image";
    const VERSION: u32 = 1;
}

fn pod(name: &str, attempt: u32) -> Pod {
    Pod { name: name.into(), attempt }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    (dir, path)
}

fn insert_raw(path: &Path, key: &str, version: i64, body: &str) {
    let connection = Connection::open(path).unwrap();
    let insert = "INSERT INTO record (kind, key, version, body) VALUES ('pod', ?1, ?2, ?3)";
    connection.execute(insert, params![key, version, body]).unwrap();
}

#[test]
fn nobody_else_may_read_it() {
    let (_dir, path) = place();
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&path).unwrap();
    store.put("a", &pod("web", 1)).unwrap();
    for name in ["records.db", "records.db-wal", "records.db-shm"] {
        let mode = path.with_file_name(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn changes_are_made_together_or_not_at_all() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    store.put("a", &pod("web", 1)).unwrap();
    let mut changes = Changes::default();
    changes.put("b", &pod("db", 0)).unwrap();
    changes.put("a", &Image(7)).unwrap();
    changes.delete::<Pod>("a");
    changes.delete::<Pod>("nobody");
    store.apply(&changes).unwrap();
    let keys = |store: &Store| -> (Vec<String>, Vec<String>) {
        let of = |(key, _): (String, Pod)| key;
        let pods = store.all::<Pod>().unwrap().0.into_iter().map(of).collect();
        (pods, store.all::<Image>().unwrap().0.into_iter().map(|(key, _)| key).collect())
    };
    assert_eq!(keys(&store), (vec!["b".into()], vec!["a".into()]));

    // The third of these is refused by the file.
    let refusing = "CREATE TRIGGER no BEFORE INSERT ON record WHEN new.key = 'refused'
                    BEGIN SELECT RAISE(ABORT, 'no'); END";
    Connection::open(&path).unwrap().execute_batch(refusing).unwrap();
    let mut changes = Changes::default();
    changes.delete::<Pod>("b");
    changes.put("c", &Image(8)).unwrap();
    changes.put("refused", &Image(9)).unwrap();
    let error = store.apply(&changes).unwrap_err().to_string();
    assert!(error.contains("delete pod \"b\" and 2 more"), "{error}");
    assert_eq!(keys(&store), (vec!["b".into()], vec!["a".into()]));
}

#[test]
fn what_is_put_is_there_after_a_reopen_and_kinds_are_apart() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    store.put("b", &pod("web", 1)).unwrap();
    store.put("a", &pod("db", 0)).unwrap();
    store.put("b", &pod("web", 2)).unwrap();
    store.put("a", &Image(7)).unwrap();
    assert!(store.delete::<Image>("a").unwrap());
    assert!(!store.delete::<Image>("a").unwrap());
    drop(store);
    let (pods, bad) = Store::open(&path).unwrap().all::<Pod>().unwrap();
    assert_eq!(pods, [("a".into(), pod("db", 0)), ("b".into(), pod("web", 2))]);
    assert_eq!(bad, []);
}

#[test]
fn the_file_is_in_wal_mode_and_normal() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    let connection = store.connection();
    let mode: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    let synchronous: i64 =
        connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 1));
}

#[test]
fn an_older_version_is_upgraded() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    insert_raw(&path, "old", 1, r#"{"name":"web"}"#);
    assert_eq!(store.all::<Pod>().unwrap().0, [("old".into(), pod("web", 0))]);
}

#[test]
fn unreadable_records_are_set_aside_and_the_others_read() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    store.put("good", &pod("web", 1)).unwrap();
    insert_raw(&path, "future", 9, "{}");
    insert_raw(&path, "half", 2, r#"{"name":"#);
    insert_raw(&path, "negative", -1, "{}");
    insert_raw(&path, "shape", 2, r#"{"name":[]}"#);
    let connection = Connection::open(&path).unwrap();
    let bytes = "INSERT INTO record VALUES ('pod', 'bytes', 2, CAST(x'ff00fe' AS TEXT))";
    connection.execute(bytes, []).unwrap();

    let (pods, bad) = store.all::<Pod>().unwrap();
    assert_eq!(pods, [("good".into(), pod("web", 1))]);
    let keys: Vec<_> = bad.iter().map(|bad| bad.key.as_str()).collect();
    assert_eq!(keys, ["bytes", "future", "half", "negative", "shape"]);
    assert_eq!(bad[0].why, "its body is not UTF-8");
    assert_eq!(bad[1].why, "version 9");
    assert!(bad[2].why.starts_with("its body is no JSON: "), "{}", bad[2].why);

    // Out of the way, told once, and kept.
    assert_eq!(store.all::<Pod>().unwrap().1, []);
    let mut kept = store.set_aside().unwrap();
    kept.reverse();
    assert_eq!(kept, bad);
}

#[test]
fn the_newest_set_aside_records_are_kept_up_to_the_limit() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    let transaction = "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
        WHERE i < 1005) INSERT INTO record SELECT 'pod', printf('%05d', i), 9, '{}' FROM n; COMMIT";
    Connection::open(&path).unwrap().execute_batch(transaction).unwrap();
    assert_eq!(store.all::<Pod>().unwrap().1.len(), 1005);
    let kept = store.set_aside().unwrap();
    assert_eq!(kept.len(), SET_ASIDE_LIMIT as usize);
    assert_eq!((kept[0].key.as_str(), kept[999].key.as_str()), ("01005", "00006"));
}

#[test]
fn a_file_that_is_no_database_is_moved_aside() {
    let (_dir, path) = place();
    std::fs::write(&path, "these are no records, but a letter\n".repeat(100)).unwrap();
    let store = Store::open(&path).unwrap();
    let aside = store.replaced().unwrap().to_owned();
    assert!(std::fs::read(&aside).unwrap().starts_with(b"these are no records"));
    store.put("a", &pod("web", 1)).unwrap();
    drop(store);

    // A second time: another name, and the first is still there.
    std::fs::write(&path, "garbage ".repeat(1000)).unwrap();
    let store = Store::open(&path).unwrap();
    assert_ne!(store.replaced().unwrap(), aside);
    assert!(aside.exists());
    assert_eq!(store.all::<Pod>().unwrap(), (vec![], vec![]));
}

#[test]
fn a_truncated_database_is_moved_aside() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    for n in 0..500 {
        store.put(&format!("{n:04}"), &pod(&"x".repeat(200), n)).unwrap();
    }
    drop(store);
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length > 20_000, "the last connection folds the log in: {length}");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    let store = Store::open(&path).unwrap();
    assert!(store.replaced().is_some());
    assert_eq!(store.all::<Pod>().unwrap(), (vec![], vec![]));
}

#[test]
fn what_is_moved_aside_takes_its_log_along() {
    let (_dir, path) = place();
    let beside = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    std::fs::write(&path, "records").unwrap();
    std::fs::write(beside(&path, "-wal"), "log").unwrap();
    let aside = move_aside(&path).unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), b"records");
    assert_eq!(std::fs::read(beside(&aside, "-wal")).unwrap(), b"log");
    assert!(!path.exists() && !beside(&path, "-wal").exists());
}

#[test]
fn an_empty_file_is_a_new_database() {
    let (_dir, path) = place();
    std::fs::write(&path, "").unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.replaced(), None);
    store.put("a", &pod("web", 1)).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (_dir, path) = place();
    drop(Store::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} was written by a newer haled (schema 7, this one knows up to 1): \
             run that version, or give --root another directory",
            path.display()
        )
    );
    assert!(path.exists());
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let (_dir, path) = place();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(path.exists());
}

#[test]
fn a_directory_in_the_files_place_is_an_error_that_names_it() {
    let (_dir, path) = place();
    std::fs::create_dir(&path).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
}

#[test]
fn what_is_no_json_is_refused_and_nothing_is_written() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Odd(BTreeMap<(u8, u8), u8>);
    impl Record for Odd {
        const KIND: &'static str = "odd";
        const VERSION: u32 = 1;
    }
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    let error = store.put("a", &Odd(BTreeMap::from([((1, 2), 3)]))).unwrap_err();
    assert_eq!(error.to_string(), "odd \"a\" cannot be stored: key must be a string");
    assert_eq!(store.all::<Odd>().unwrap().0.len(), 0);
}

#[test]
fn clones_write_at_the_same_time() {
    let (_dir, path) = place();
    let store = Store::open(&path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..25 {
                    store.put(&format!("{thread}-{n}"), &pod("web", n)).unwrap();
                }
            });
        }
    });
    assert_eq!(store.all::<Pod>().unwrap().0.len(), 100);
}

#[derive(Debug, Clone)]
enum Step {
    Put(String, u32),
    Delete(String),
    Garbage(String),
    Read,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few keys, so that they meet; all that a key may be otherwise.
    let key = || prop_oneof![4 => "[a-d]", 1 => "\\PC{0,8}"];
    let step = prop_oneof![
        4 => (key(), any::<u32>()).prop_map(|(key, n)| Step::Put(key, n)),
        2 => key().prop_map(Step::Delete),
        1 => key().prop_map(Step::Garbage),
        2 => Just(Step::Read),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The store is a map, whatever the order of writes, damage and restarts.
    #[test]
    fn the_store_is_a_map_of_what_was_put(steps in steps()) {
        let (_dir, path) = place();
        let mut store = Store::open(&path).unwrap();
        // `None`: a row that can't be read.
        let mut model: BTreeMap<String, Option<Pod>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(key, n) => {
                    store.put(&key, &pod(&key, n)).unwrap();
                    model.insert(key.clone(), Some(pod(&key, n)));
                }
                Step::Delete(key) => {
                    let was = model.remove(&key).is_some();
                    prop_assert_eq!(store.delete::<Pod>(&key).unwrap(), was);
                }
                Step::Garbage(key) => {
                    store.delete::<Pod>(&key).unwrap();
                    insert_raw(&path, &key, 2, "][");
                    model.insert(key, None);
                }
                Step::Read => {
                    let (good, bad) = store.all::<Pod>().unwrap();
                    let bad: Vec<_> = bad.into_iter().map(|bad| bad.key).collect();
                    let unreadable: Vec<_> =
                        model.iter().filter(|(_, pod)| pod.is_none()).map(|(key, _)| key.clone()).collect();
                    prop_assert_eq!(bad, unreadable);
                    model.retain(|_, pod| pod.is_some());
                    let expected: Vec<_> =
                        model.iter().map(|(key, pod)| (key.clone(), pod.clone().unwrap())).collect();
                    prop_assert_eq!(good, expected);
                }
                Step::Reopen => {
                    drop(store);
                    store = Store::open(&path).unwrap();
                    prop_assert_eq!(store.replaced(), None);
                }
            }
        }
    }
}
