//! Reads a container's log file: the CRI's format, its pieces joined.
//!
//! What is no entry of that format is passed through as it stands, so a damaged log is still
//! readable. Following survives rotation: what was written to the old file is read to its
//! end first, then the new one from its beginning.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A line of more bytes is given in parts of about this size.
pub const MAX_LINE: usize = 1024 * 1024;

/// How often a followed log is looked at for more.
const POLL: Duration = Duration::from_millis(200);

/// Lines read ahead of whoever takes them.
const AHEAD: usize = 64;

/// What is read at once, forwards and backwards, in bytes.
const BLOCK: usize = 64 * 1024;

/// The longest entry read as one: 16 KiB of content and its header fit many times over; of a
/// longer one, which no runtime writes, the parts are passed through.
const MAX_ENTRY: u64 = 128 * 1024;

/// A line a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its end was written, in nanoseconds since the epoch; 0: it had no header.
    pub at: i64,
    /// To standard error.
    pub stderr: bool,
    /// Without its newline.
    pub text: Vec<u8>,
}

/// Reads a log: all of it or its last `tail` lines, then, if `follow`, what comes, until
/// `ended` says that the container has ended and the file gives no more.
///
/// With `follow` a file that is not there yet is waited for; without, it is an error. The
/// stream ends after an error, and reading ends when the stream is dropped.
pub fn read(
    path: PathBuf,
    tail: Option<usize>,
    follow: bool,
    ended: impl Fn() -> bool + Send + 'static,
) -> ReceiverStream<io::Result<Line>> {
    let (lines, receiver) = mpsc::channel(AHEAD);
    // A thread of the blocking pool: file systems can hang.
    tokio::task::spawn_blocking(move || {
        let reader = Reader { path, lines, held: [Vec::new(), Vec::new()], last_at: [0; 2] };
        reader.run(tail, follow, &ended);
    });
    ReceiverStream::new(receiver)
}

/// Why reading stops early.
enum Stop {
    Failed(io::Error),
    /// Nobody takes the lines any more.
    Unwanted,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

struct Reader {
    path: PathBuf,
    lines: mpsc::Sender<io::Result<Line>>,
    /// Pieces whose line goes on, of standard output and standard error.
    held: [Vec<u8>; 2],
    last_at: [i64; 2],
}

impl Reader {
    fn run(mut self, tail: Option<usize>, follow: bool, ended: &dyn Fn() -> bool) {
        let result = if follow { self.follow(tail, ended) } else { self.once(tail) };
        if let Err(Stop::Failed(error)) = result.and_then(|()| self.flush()) {
            let error = io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
            // Whoever would be told may have gone.
            self.lines.blocking_send(Err(error)).unwrap_or_default();
        }
    }

    fn once(&mut self, tail: Option<usize>) -> Result<(), Stop> {
        let mut file = File::open(&self.path)?;
        // What is written from now on is not this reading's.
        let length = file.metadata()?.len();
        let start = seek_tail(&mut file, tail)?;
        let mut reader = BufReader::with_capacity(BLOCK, file.take(length.saturating_sub(start)));
        let mut entry = Vec::new();
        while next_entry(&mut reader, &mut entry)? {
            self.take(&entry)?;
            entry.clear();
        }
        if entry.is_empty() { Ok(()) } else { self.take(&entry) }
    }

    fn follow(&mut self, mut tail: Option<usize>, ended: &dyn Fn() -> bool) -> Result<(), Stop> {
        loop {
            let file = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if ended() {
                        return Ok(());
                    }
                    self.wait()?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            // Only of the first file is less than all wanted.
            if self.follow_file(file, tail.take(), ended)? {
                return Ok(());
            }
        }
    }

    /// Follows one file until there's another at its path, or the container has ended (true).
    fn follow_file(
        &mut self,
        mut file: File,
        tail: Option<usize>,
        ended: &dyn Fn() -> bool,
    ) -> Result<bool, Stop> {
        seek_tail(&mut file, tail)?;
        let mut reader = BufReader::with_capacity(BLOCK, file);
        let mut entry = Vec::new();
        loop {
            // Asked before reading: what was written before the answer is then read.
            let (over, moved) = (ended(), self.moved(&reader)?);
            while next_entry(&mut reader, &mut entry)? {
                self.take(&entry)?;
                entry.clear();
            }
            if over || moved {
                if !entry.is_empty() {
                    self.take(&entry)?;
                }
                return Ok(over && !moved);
            }
            self.wait()?;
            let position = reader.stream_position()?;
            if reader.get_ref().metadata()?.len() < position {
                // Truncated: it begins anew.
                reader.seek(SeekFrom::Start(0))?;
                entry.clear();
            }
        }
    }

    /// Whether the path leads to another file now. While it leads nowhere, a rotation is
    /// under way and the old file goes on.
    fn moved(&self, reader: &BufReader<File>) -> io::Result<bool> {
        let open = reader.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) != (open.dev(), open.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits a little.
    fn wait(&self) -> Result<(), Stop> {
        if self.lines.is_closed() {
            return Err(Stop::Unwanted);
        }
        std::thread::sleep(POLL);
        Ok(())
    }

    fn take(&mut self, entry: &[u8]) -> Result<(), Stop> {
        let Some(parsed) = Entry::parse(entry) else {
            let text = entry.strip_suffix(b"\n").unwrap_or(entry).to_vec();
            return self.give(Line { at: 0, stderr: false, text });
        };
        let side = usize::from(parsed.stderr);
        self.held[side].extend_from_slice(parsed.content);
        self.last_at[side] = parsed.at;
        if parsed.full || self.held[side].len() >= MAX_LINE {
            return self.give_held(side);
        }
        Ok(())
    }

    /// The log is over: pieces whose line was to go on are lines of their own.
    fn flush(&mut self) -> Result<(), Stop> {
        for side in [0, 1] {
            if !self.held[side].is_empty() {
                self.give_held(side)?;
            }
        }
        Ok(())
    }

    fn give_held(&mut self, side: usize) -> Result<(), Stop> {
        let text = std::mem::take(&mut self.held[side]);
        self.give(Line { at: self.last_at[side], stderr: side == 1, text })
    }

    fn give(&self, line: Line) -> Result<(), Stop> {
        self.lines.blocking_send(Ok(line)).map_err(|_| Stop::Unwanted)
    }
}

/// One entry of the format.
struct Entry<'e> {
    at: i64,
    stderr: bool,
    full: bool,
    content: &'e [u8],
}

impl<'e> Entry<'e> {
    fn parse(entry: &'e [u8]) -> Option<Self> {
        let entry = entry.strip_suffix(b"\n").unwrap_or(entry);
        let mut parts = entry.splitn(4, |&byte| byte == b' ');
        let time: jiff::Timestamp = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stderr = match parts.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        // Tags are separated by colons; the first says whether the line is complete.
        let full = match parts.next()?.split(|&byte| byte == b':').next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        let content = parts.next()?;
        let at = i64::try_from(time.as_nanosecond()).ok()?;
        Some(Self { at, stderr, full, content })
    }
}

/// Reads on until an entry is whole, newline included. False: it isn't yet, and what is
/// there of it is kept in `entry`.
fn next_entry(reader: &mut impl io::BufRead, entry: &mut Vec<u8>) -> io::Result<bool> {
    let left = MAX_ENTRY.saturating_sub(entry.len() as u64);
    reader.take(left).read_until(b'\n', entry)?;
    Ok(entry.ends_with(b"\n") || entry.len() as u64 >= MAX_ENTRY)
}

/// Sets the file to the beginning of its last `tail` lines, and gives that position.
fn seek_tail(file: &mut File, tail: Option<usize>) -> io::Result<u64> {
    let Some(tail) = tail else { return Ok(0) };
    let start = tail_start(file, tail)?;
    file.seek(SeekFrom::Start(start))
}

/// Where the last `tail` lines begin, found backwards block by block. A line is what ends
/// with a full entry or is no entry; pieces belong to the line they go on in.
fn tail_start(file: &mut File, tail: usize) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if tail == 0 {
        return Ok(length);
    }
    let mut counted = 0;
    // The border between what has been looked at and what hasn't: an entry's beginning.
    let mut border = length;
    let mut kept_start = length;
    for entry in Backwards::new(file, length) {
        let (start, header) = entry?;
        let ends_line = is_full(&header) || border == length;
        if ends_line {
            if counted == tail {
                return Ok(kept_start);
            }
            counted += 1;
        }
        (border, kept_start) = (start, start);
    }
    Ok(0)
}

/// Whether an entry ends its line, by its beginning.
fn is_full(header: &[u8]) -> bool {
    Entry::parse(header).is_none_or(|entry| entry.full)
}

/// The entries of a file from its end: where each begins, and the first bytes of it.
struct Backwards<'f> {
    file: &'f mut File,
    /// Where the entry that was given last begins.
    end: u64,
    block: Vec<u8>,
    block_start: u64,
}

impl<'f> Backwards<'f> {
    fn new(file: &'f mut File, end: u64) -> Self {
        Self { file, end, block: Vec::new(), block_start: end }
    }

    /// Where the entry that ends at `self.end` begins.
    fn begin(&mut self) -> io::Result<u64> {
        // Its own newline, if it has one, is not the one before it.
        let mut position = self.end.saturating_sub(1);
        loop {
            if position == 0 {
                return Ok(0);
            }
            if position <= self.block_start {
                self.load(position)?;
            }
            let inside = (position - self.block_start) as usize;
            match self.block[..inside].iter().rposition(|&byte| byte == b'\n') {
                Some(index) => return Ok(self.block_start + index as u64 + 1),
                None => position = self.block_start,
            }
        }
    }

    /// Loads the block that ends at a position.
    fn load(&mut self, end: u64) -> io::Result<()> {
        self.block_start = end.saturating_sub(BLOCK as u64);
        self.block.resize((end - self.block_start) as usize, 0);
        self.file.seek(SeekFrom::Start(self.block_start))?;
        self.file.read_exact(&mut self.block)
    }

    /// The header of an entry, and the first of its content.
    fn header(&mut self, start: u64) -> io::Result<Vec<u8>> {
        /// `2016-10-06T00:17:09.669794202Z stdout F ` and tags to come.
        const HEADER: u64 = 128;
        let length = (self.end - start).min(HEADER);
        let mut header = vec![0; length as usize];
        if start >= self.block_start && start - self.block_start + length <= self.block.len() as u64
        {
            let from = (start - self.block_start) as usize;
            header.copy_from_slice(&self.block[from..from + length as usize]);
        } else {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.read_exact(&mut header)?;
        }
        Ok(header)
    }
}

impl Iterator for Backwards<'_> {
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end == 0 {
            return None;
        }
        let found = self.begin().and_then(|start| Ok((start, self.header(start)?)));
        self.end = found.as_ref().map_or(0, |(start, _)| *start);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio_stream::StreamExt as _;

    use super::*;

    const TIME: &str = "2016-10-06T00:17:09.669794202Z";
    const AT: i64 = 1_475_713_029_669_794_202;

    fn log(entries: &[(&str, &str, &str)]) -> String {
        let entry =
            |(stream, tag, text): &(&str, &str, &str)| format!("{TIME} {stream} {tag} {text}\n");
        entries.iter().map(entry).collect()
    }

    fn out(text: impl Into<Vec<u8>>) -> Line {
        Line { at: AT, stderr: false, text: text.into() }
    }

    async fn all(path: &Path, tail: Option<usize>) -> Vec<Line> {
        read(path.into(), tail, false, || true).map(Result::unwrap).collect().await
    }

    async fn lines_of(text: &str, tail: Option<usize>) -> Vec<Line> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        all(file.path(), tail).await
    }

    #[tokio::test]
    async fn pieces_are_joined_by_stream_and_rubbish_is_passed_through() {
        let mut text = log(&[
            ("stdout", "F", "one"),
            ("stdout", "P", "two "),
            ("stderr", "F", "err with  spaces "),
            ("stdout", "F", "halves"),
            ("stdout", "F:later", ""),
        ]);
        text.push_str("rubbish\n");
        text.push_str(&log(&[("stdin", "F", "no such stream"), ("stdout", "P", "no end")]));
        let lines = lines_of(&text, None).await;
        let raw = |text: &str| Line { at: 0, stderr: false, text: text.into() };
        let expected = [
            out("one"),
            Line { at: AT, stderr: true, text: "err with  spaces ".into() },
            out("two halves"),
            out(""),
            raw("rubbish"),
            raw(&format!("{TIME} stdin F no such stream")),
            out("no end"),
        ];
        assert_eq!(lines, expected);
        assert!(lines_of("", None).await.is_empty());
        assert_eq!(lines_of("cut of", None).await, [raw("cut of")]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_in_bounded_parts() {
        let piece = "x".repeat(16 * 1024);
        let text = log(&vec![("stdout", "P", piece.as_str()); 70]);
        let lines = lines_of(&text, None).await;
        assert_eq!(
            lines.iter().map(|line| line.text.len()).collect::<Vec<_>>(),
            [MAX_LINE, 6 * 16 * 1024]
        );
        let lines = lines_of(&"y".repeat(300 * 1024), None).await;
        assert_eq!(lines.len(), 3);
    }

    #[tokio::test]
    async fn the_tail_is_the_end_of_the_whole() {
        let long = "x".repeat(16 * 1024);
        let mut text = String::new();
        for n in 0..40 {
            let number = n.to_string();
            text.push_str(&log(&[("stdout", "F", &number)]));
            if n % 7 == 0 {
                text.push_str(&log(&[
                    ("stdout", "P", &long),
                    ("stdout", "P", &long),
                    ("stdout", "F", "e"),
                ]));
            }
            if n % 11 == 0 {
                text.push_str("rubbish\n");
            }
        }
        for end in ["", "no newline"] {
            let text = format!("{text}{end}");
            let whole = lines_of(&text, None).await;
            for tail in [0, 1, 2, 3, 10, 40, whole.len(), whole.len() + 5, usize::MAX] {
                let expected = &whole[whole.len().saturating_sub(tail)..];
                assert_eq!(lines_of(&text, Some(tail)).await, expected, "{tail}");
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_an_error_with_its_path() {
        let mut lines = read("/nowhere/0.log".into(), None, false, || true);
        let error = lines.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("/nowhere/0.log"));
        assert!(lines.next().await.is_none());
        assert!(read("/nowhere/0.log".into(), None, true, || true).next().await.is_none());
    }

    #[tokio::test]
    async fn following_goes_on_through_rotation_and_truncation_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let mut lines = read(path.clone(), Some(1), true, move || flag.load(Ordering::SeqCst));
        std::fs::write(&path, "").unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        let mut next = async |expected: &str| {
            let line = tokio::time::timeout(Duration::from_mins(1), lines.next()).await;
            assert_eq!(line.unwrap().unwrap().unwrap(), out(expected));
        };
        let entry = log(&[("stdout", "F", "one")]);
        file.write_all(&entry.as_bytes()[..20]).unwrap();
        tokio::time::sleep(POLL * 2).await;
        file.write_all(&entry.as_bytes()[20..]).unwrap();
        next("one").await;
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        file.write_all(log(&[("stdout", "F", "two")]).as_bytes()).unwrap();
        std::fs::write(&path, log(&[("stdout", "F", "three"), ("stdout", "F", "four")])).unwrap();
        next("two").await;
        next("three").await;
        next("four").await;
        std::fs::write(&path, log(&[("stdout", "F", "5")])).unwrap();
        next("5").await;
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(log(&[("stdout", "F", "last"), ("stdout", "P", "end")]).as_bytes()).unwrap();
        ended.store(true, Ordering::SeqCst);
        next("last").await;
        next("end").await;
        assert!(lines.next().await.is_none());
    }

    #[tokio::test]
    async fn a_dropped_stream_ends_the_reading() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kept = Arc::new(());
        let inside = kept.clone();
        let lines = read(file.path().into(), None, true, move || Arc::strong_count(&inside) == 0);
        drop(lines);
        let end = std::time::Instant::now() + Duration::from_mins(1);
        while Arc::strong_count(&kept) > 1 {
            assert!(std::time::Instant::now() < end, "it still reads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
