//! Writes a container's output as the CRI's log format.
//!
//! `2016-10-06T00:17:09.669794202Z stdout F line`: UTC with nine digits, the stream, `F` for
//! a full line or `P` for a piece whose line goes on in the stream's next entry. A line of
//! more than 16 KiB is cut, and what a stream ends with when there's no newline is a `P` too,
//! so that a reader who joins the pieces gets the bytes that were written.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::complaint::complain;

/// The most content of one entry, in bytes: what the kubelet and other runtimes use.
pub(super) const MAX_ENTRY: usize = 16 * 1024;

/// Entries are gathered up to about this many bytes, then written with one call.
pub(super) const BATCH: usize = 64 * 1024;

/// A line that is held until its end comes keeps no more memory than this when it is empty.
const KEPT_CAPACITY: usize = 512;

/// Which of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Out,
    Err,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// A container's log. It never fails its writer: what can't be written is dropped, counted
/// and reported once.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    /// `None`: output is thrown away.
    file: Option<File>,
    /// The beginnings of lines whose end hasn't come yet.
    held: [Vec<u8>; 2],
    dropped_bytes: u64,
    /// The last write ended inside an entry.
    torn: bool,
}

impl Log {
    /// Opens the log at a path, making its directories; an empty path throws output away.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = if path.as_os_str().is_empty() { None } else { Some(append_to(&path)?) };
        Ok(Self { path, file, held: [Vec::new(), Vec::new()], dropped_bytes: 0, torn: false })
    }

    /// Opens the path again; on error the file that is open stays.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(old) = &self.file {
            let new = append_to(&self.path)?;
            let is_same = is_same(old, &new)?;
            self.torn &= is_same;
            self.file = Some(new);
        }
        Ok(())
    }

    /// Takes what a stream gave at `at` nanoseconds since the epoch. `batch` is scratch space.
    pub(super) fn take(&mut self, side: Side, at: i64, mut data: &[u8], batch: &mut Vec<u8>) {
        if self.file.is_none() {
            return;
        }
        let mut held = std::mem::take(&mut self.held[side as usize]);
        let header = Header::new(side, at);
        batch.clear();
        while let Some(end) = data.iter().position(|&byte| byte == b'\n') {
            let rest = self.cut(&mut held, &data[..end], &header, batch);
            self.entry(&header.full, &held, rest, batch);
            held.clear();
            data = &data[end + 1..];
        }
        let rest = self.cut(&mut held, data, &header, batch);
        held.extend_from_slice(rest);
        if held.is_empty() && held.capacity() > KEPT_CAPACITY {
            held = Vec::new();
        }
        self.held[side as usize] = held;
        self.flush(batch);
    }

    /// The stream has ended: what it left without a newline is written.
    pub(super) fn finish(&mut self, side: Side, at: i64, batch: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held[side as usize]);
        if !held.is_empty() {
            batch.clear();
            self.entry(&Header::new(side, at).piece, &held, &[], batch);
            self.flush(batch);
        }
    }

    /// Writes full pieces until what is held and what is left of `data` fit in one entry.
    fn cut<'d>(
        &mut self,
        held: &mut Vec<u8>,
        mut data: &'d [u8],
        header: &Header,
        batch: &mut Vec<u8>,
    ) -> &'d [u8] {
        while held.len() + data.len() > MAX_ENTRY {
            let (piece, rest) = data.split_at(MAX_ENTRY - held.len());
            self.entry(&header.piece, held, piece, batch);
            held.clear();
            data = rest;
        }
        data
    }

    fn entry(&mut self, header: &str, held: &[u8], rest: &[u8], batch: &mut Vec<u8>) {
        if batch.len() + header.len() + held.len() + rest.len() + 1 > BATCH {
            self.flush(batch);
        }
        batch.extend_from_slice(header.as_bytes());
        batch.extend_from_slice(held);
        batch.extend_from_slice(rest);
        batch.push(b'\n');
    }

    fn flush(&mut self, batch: &mut Vec<u8>) {
        let Some(file) = &mut self.file else { return };
        if self.torn && !batch.is_empty() {
            batch.insert(0, b'\n');
        }
        let mut left = &batch[..];
        while !left.is_empty() {
            match file.write(left) {
                Ok(written) if written > 0 => {
                    left = &left[written..];
                    self.torn = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    if self.dropped_bytes == 0 {
                        let why = failed.err().unwrap_or(io::ErrorKind::WriteZero.into());
                        complain(format_args!(
                            "cannot write the log {}: {why}; output is dropped \
                             until it can be",
                            self.path.display()
                        ));
                    }
                    self.dropped_bytes += left.len() as u64;
                    self.torn |= left.len() < batch.len();
                    break;
                }
            }
        }
        batch.clear();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.dropped_bytes > 0 {
            let (path, bytes) = (self.path.display(), self.dropped_bytes);
            complain(format_args!("{bytes} bytes of the log {path} were dropped in all"));
        }
    }
}

/// What stands before the content, for a full line and for a piece.
struct Header {
    full: String,
    piece: String,
}

impl Header {
    fn new(side: Side, at: i64) -> Self {
        let mut start = String::with_capacity(48);
        // Any i64 of nanoseconds is a time jiff can hold (years 1677 to 2262).
        let time = jiff::Timestamp::from_nanosecond(i128::from(at)).unwrap_or_default();
        write!(start, "{time:.9} {} ", side.name()).expect("a String takes every write");
        Self { full: format!("{start}F "), piece: format!("{start}P ") }
    }
}

/// Opens a file or a device to append to. A container may be able to write into its log's
/// directory: a pipe that nobody reads would hold the monitor up for good, and a link would
/// have root write where the link leads.
fn append_to(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_char_device() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
}

fn is_same(a: &File, b: &File) -> io::Result<bool> {
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_475_713_029_669_794_202;
    const TIME: &str = "2016-10-06T00:17:09.669794202Z";

    fn written(work: impl FnOnce(&mut Log, &mut Vec<u8>)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/app/0.log");
        let mut log = Log::open(path.clone()).unwrap();
        work(&mut log, &mut Vec::new());
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_line_is_as_the_cri_has_it() {
        let text = written(|log, batch| {
            log.take(Side::Out, AT, b"line\n", batch);
            log.take(Side::Err, AT, b"\nother", batch);
            log.take(Side::Out, 0, b"epoch\n", batch);
            log.take(Side::Err, AT, b" end\r\nno newline", batch);
            log.finish(Side::Out, AT, batch);
            log.finish(Side::Err, AT, batch);
            log.finish(Side::Err, AT, batch);
        });
        let expected = format!(
            "{TIME} stdout F line\n{TIME} stderr F \n\
             1970-01-01T00:00:00.000000000Z stdout F epoch\n\
             {TIME} stderr F other end\r\n{TIME} stderr P no newline\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_line_is_cut_only_when_it_is_longer_than_an_entry() {
        let exact = "x".repeat(MAX_ENTRY);
        let text = written(|log, batch| {
            log.take(Side::Out, AT, format!("{exact}\n{exact}y\n").as_bytes(), batch);
            log.take(Side::Out, AT, exact.as_bytes(), batch);
            log.take(Side::Out, AT, b"\n", batch);
        });
        let expected = format!(
            "{TIME} stdout F {exact}\n{TIME} stdout P {exact}\n{TIME} stdout F y\n\
             {TIME} stdout F {exact}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_reopened_log_goes_on_in_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("0.log"), dir.path().join("0.log.1"));
        let mut log = Log::open(path.clone()).unwrap();
        let mut batch = Vec::new();
        log.take(Side::Out, AT, b"one\ntw", &mut batch);
        std::fs::rename(&path, &moved).unwrap();
        log.take(Side::Out, AT, b"o\nthr", &mut batch);
        log.reopen().unwrap();
        log.take(Side::Out, AT, b"ee\n", &mut batch);
        let old = format!("{TIME} stdout F one\n{TIME} stdout F two\n");
        assert_eq!(std::fs::read_to_string(moved).unwrap(), old);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{TIME} stdout F three\n"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.reopen().unwrap_err();
        log.take(Side::Out, AT, b"still here\n", &mut batch);
    }

    #[test]
    fn a_pipe_or_a_link_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        log.reopen().unwrap_err();
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let error = log.reopen().unwrap_err();
        assert!(error.to_string().contains("no file"), "{error}");
        drop(reader.unwrap());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        log.reopen().unwrap_err();
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn an_entry_that_was_cut_short_ends_before_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        log.torn = true;
        log.reopen().unwrap();
        assert!(log.torn, "the same file still ends inside the entry");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        log.reopen().unwrap();
        assert!(!log.torn);
    }

    #[test]
    fn a_full_disk_costs_output_and_nothing_else() {
        let mut log = Log::open("/dev/full".into()).unwrap();
        let mut batch = Vec::new();
        for _ in 0..3 {
            log.take(Side::Out, AT, b"lost\n", &mut batch);
        }
        assert_eq!(log.dropped_bytes, 3 * format!("{TIME} stdout F lost\n").len() as u64);
        let mut none = Log::open(PathBuf::new()).unwrap();
        none.take(Side::Out, AT, b"thrown away\n", &mut batch);
        none.reopen().unwrap();
        assert_eq!(none.dropped_bytes, 0);
    }

    proptest::proptest! {
        #[test]
        fn joined_pieces_are_what_was_written(
            chunks in proptest::collection::vec(("[a\n]{0,40}", 0usize..3, 0usize..40_000), 0..8)
        ) {
            let mut expected = Vec::new();
            let text = written(|log, batch| {
                for (text, newlines, run) in &chunks {
                    let mut chunk = text.clone().into_bytes();
                    chunk.extend(std::iter::repeat_n(b'x', *run));
                    chunk.extend(std::iter::repeat_n(b'\n', *newlines));
                    expected.extend_from_slice(&chunk);
                    log.take(Side::Out, AT, &chunk, batch);
                }
                log.finish(Side::Out, AT, batch);
            });
            let mut joined = Vec::new();
            for line in text.lines() {
                let content = &line[TIME.len() + " stdout F ".len()..];
                proptest::prop_assert!(content.len() <= MAX_ENTRY);
                joined.extend_from_slice(content.as_bytes());
                if line[TIME.len()..].starts_with(" stdout F ") {
                    joined.push(b'\n');
                }
            }
            proptest::prop_assert_eq!(joined, expected);
        }
    }
}
