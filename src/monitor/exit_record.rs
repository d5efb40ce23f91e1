//! How a container ended, on disk: written whole before anyone is told.

use std::io;
use std::path::Path;

use super::run_dir::{RunDir, remove_file};
use super::wire::Exit;

/// The largest record that is read, in bytes; one is about 120 long.
#[cfg(feature = "daemon")]
const MAX_RECORD: u64 = 16 * 1024;

/// The most that is read of a cgroup's event file, in bytes; one is about 100 long.
const MAX_EVENTS: u64 = 16 * 1024;

/// Writes a container's record: to another name first, so that a reader finds all or none.
pub(super) fn write(dir: &RunDir, container: &str, exit: &Exit) -> io::Result<()> {
    let path = dir.exit_record(container);
    let temporary = path.with_extension("exit-new");
    let written = serde_json::to_vec(exit)
        .map_err(io::Error::from)
        .and_then(|text| std::fs::write(&temporary, text))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        remove_file(&temporary)?;
    }
    written
}

/// Removes a container's record; gone already is no error.
pub(super) fn remove(dir: &RunDir, container: &str) -> io::Result<()> {
    remove_file(&dir.exit_record(container))
}

/// Every record in a directory that can be read.
#[cfg(feature = "daemon")]
pub(super) fn all(dir: &Path) -> Vec<(String, Exit)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let record = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let container = name.strip_suffix(super::run_dir::EXIT)?;
        super::run_dir::check_id(container).ok()?;
        let text = read_bounded(&entry.path(), MAX_RECORD).ok()?;
        Some((container.to_owned(), serde_json::from_slice(&text).ok()?))
    };
    let mut records: Vec<_> = entries.flatten().filter_map(record).collect();
    records.sort_by(|a, b| a.0.cmp(&b.0));
    records
}

/// Whether the OOM killer took a process of the cgroup whose event file this is
/// (memory.oom_control of v1, memory.events of v2).
pub(super) fn oom_killed(events: &Path) -> io::Result<bool> {
    let text = read_bounded(events, MAX_EVENTS)?;
    Ok(oom_kills(&String::from_utf8_lossy(&text)) > 0)
}

fn oom_kills(events: &str) -> u64 {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    events.lines().find_map(count).unwrap_or(0)
}

fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path)?, max), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_both_versions_files() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 9\noom 3\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 0\noom_group_kill 5\n"), 0);
        assert_eq!(oom_kills("oom_kill_disable 1\nunder_oom 1\n"), 0);
        assert_eq!(oom_kills("oom_kill many\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }

    #[cfg(feature = "daemon")]
    #[test]
    fn records_come_back_and_rubbish_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let dir = RunDir::open(place.path()).unwrap();
        let exit = Exit { code: 137, signal: 9, oom_killed: true, started_at: 1, finished_at: 2 };
        write(&dir, "b", &exit).unwrap();
        write(&dir, "a", &Exit::default()).unwrap();
        std::fs::write(place.path().join("c.exit"), "{").unwrap();
        std::fs::write(place.path().join(".exit"), "{}").unwrap();
        std::fs::create_dir(place.path().join("d.exit")).unwrap();
        std::fs::write(place.path().join("e.pid"), "{}").unwrap();
        let expected = vec![("a".to_owned(), Exit::default()), ("b".to_owned(), exit)];
        assert_eq!(all(place.path()), expected);
        remove(&dir, "b").unwrap();
        remove(&dir, "b").unwrap();
        assert_eq!(all(place.path()).len(), 1);
        assert!(all(&place.path().join("nowhere")).is_empty());
    }
}
