//! Rotates a container's log file, by the names and rules the kubelet has for it
//! (containerLogMaxSize and containerLogMaxFiles of KubeletConfiguration), so that each goes on
//! with what the other left: `0.log` becomes `0.log.20260102-150405`, and all but the newest of
//! those are compressed, `0.log.20260102-150405.gz`.
//!
//! Files only: who writes the log, and tells its writer to open it again, is for the caller.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// What a log that is being compressed ends in; one that was cut off is deleted.
const UNFINISHED: &str = "tmp";
/// What a compressed log ends in.
const COMPRESSED: &str = "gz";

/// How much of a container's log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; a file that has more is rotated.
    pub max_size: u64,
    /// Files, the one written to included; at least 2.
    pub max_files: usize,
}

/// Whether the log is to be rotated. One that isn't there is not.
pub fn is_due(log: &Path, limits: Limits) -> io::Result<bool> {
    match fs::symlink_metadata(log) {
        Ok(metadata) => Ok(metadata.is_file() && metadata.len() > limits.max_size),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Renames the log, so that its writer makes a new one when it opens it again; gives the new
/// name. A second rotation within a second is refused with `AlreadyExists`.
pub fn set_aside(log: &Path, now: jiff::Timestamp) -> io::Result<PathBuf> {
    let aside = with_suffix(log, &now.strftime("%Y%m%d-%H%M%S").to_string());
    if aside.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(log, &aside)?;
    Ok(aside)
}

/// Undoes [`set_aside`] where the writer could not open the log again and goes on with the old
/// file. A log that is there by now is left as it is.
pub fn put_back(log: &Path, aside: &Path) -> io::Result<()> {
    match fs::hard_link(aside, log) {
        Ok(()) => fs::remove_file(aside),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes the oldest files beyond the limit, and compresses all but the newest, which a reader
/// may still have open.
pub fn tidy(log: &Path, limits: Limits) -> io::Result<()> {
    let mut rotated = rotated(log)?;
    for unfinished in rotated.extract_if(.., |path| has_extension(path, UNFINISHED)) {
        fs::remove_file(unfinished)?;
    }
    let surplus = rotated.len().saturating_sub(limits.max_files.saturating_sub(1));
    for old in rotated.drain(..surplus) {
        fs::remove_file(old)?;
    }
    rotated.pop();
    for plain in rotated.iter().filter(|path| !has_extension(path, COMPRESSED)) {
        compress(plain)?;
    }
    Ok(())
}

/// Deletes the log and all that was rotated. What isn't there is no error.
pub fn delete(log: &Path) -> io::Result<()> {
    for path in rotated(log)?.into_iter().chain([log.to_owned()]) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The files that were rotated, oldest first: their names sort by time.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut prefix = name.as_encoded_bytes().to_vec();
    prefix.push(b'.');
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(&prefix) && entry.file_type()?.is_file()
        {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn compress(plain: &Path) -> io::Result<()> {
    let unfinished = with_suffix(plain, UNFINISHED);
    let mut from = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(plain)?;
    let to = File::options().write(true).create_new(true).mode(0o640).open(&unfinished)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&unfinished, with_suffix(plain, COMPRESSED))?;
    fs::remove_file(plain)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const LIMITS: Limits = Limits { max_size: 3, max_files: 3 };

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::new(1_767_366_245 + second, 0).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_log_is_due_when_it_is_larger_than_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        assert!(!is_due(&log, LIMITS).unwrap());
        fs::write(&log, "abc").unwrap();
        assert!(!is_due(&log, LIMITS).unwrap());
        fs::write(&log, "abcd").unwrap();
        assert!(is_due(&log, LIMITS).unwrap());
    }

    #[test]
    fn the_newest_stays_plain_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(dir.path().join("1.log.20260102-150405"), "another's").unwrap();
        fs::write(dir.path().join("0.log.20260102-000000.tmp"), "cut off").unwrap();
        for second in 0..4 {
            fs::write(&log, format!("text {second}")).unwrap();
            set_aside(&log, at(second)).unwrap();
            tidy(&log, LIMITS).unwrap();
        }
        let left = ["0.log.20260102-150407.gz", "0.log.20260102-150408", "1.log.20260102-150405"];
        assert_eq!(names(dir.path()), left);
        let mut text = String::new();
        let compressed = File::open(dir.path().join(left[0])).unwrap();
        flate2::read::GzDecoder::new(compressed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "text 2");

        fs::write(&log, "now").unwrap();
        delete(&log).unwrap();
        assert_eq!(names(dir.path()), left[2..]);
    }

    #[test]
    fn two_in_a_second_overwrite_nothing_and_what_failed_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "first").unwrap();
        let aside = set_aside(&log, at(0)).unwrap();
        fs::write(&log, "second").unwrap();
        assert_eq!(set_aside(&log, at(0)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        put_back(&log, &aside).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "second");
        fs::remove_file(&log).unwrap();
        put_back(&log, &aside).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "first");
        assert_eq!(names(dir.path()), ["0.log"]);
    }
}
