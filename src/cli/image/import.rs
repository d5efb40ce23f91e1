//! `halectl image import`: an archive, or a directory as a tar, sent to haled, which tells how far
//! it is.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::pull::{bar, counts, told};
use crate::cli::client::{self, Address};
use crate::cli::options::ImportArgs;
use crate::cli::output::{complain, line, print};
use crate::cli::{Failure, Outcome, archive};
use crate::proto::haled::images_client::ImagesClient;
use crate::proto::haled::{ImportImageRequest, ImportedImage};

/// The bytes of an archive sent in one message.
const CHUNK: usize = 1 << 20;
/// The chunks read ahead of the connection.
const QUEUE: usize = 4;

pub(in crate::cli) async fn import(address: &Address, args: ImportArgs) -> Outcome {
    let ImportArgs { name, source, quiet } = args;
    let is_stdin = source == Path::new("-");
    let shown = if is_stdin { "stdin".to_owned() } else { source.display().to_string() };
    let unreadable = |error: io::Error| Failure::Message(format!("cannot read {shown}: {error}"));
    let source = Source::open(&source).map_err(unreadable)?;
    let client = client::own_images(address).await?;
    let bar = bar(quiet || !io::stderr().is_terminal());
    counts(&bar);
    bar.set_message("sending");
    if let Some(size) = source.size() {
        bar.set_length(size);
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    // As long as this one lives the stream has no end: an archive that could not be read to its
    // own end must never look whole to haled.
    let unfinished = sender.clone();
    let reading = tokio::task::spawn_blocking(move || source.send(Chunks::new(sender)));
    let first = ImportImageRequest {
        reference: name.unwrap_or_default(),
        source: shown.clone(),
        ..ImportImageRequest::default()
    };
    let answer = answer(client, first, receiver, &bar);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        read = reading => match read.expect("reading doesn't panic") {
            Ok(left_out) => {
                drop(unfinished);
                if !left_out.is_empty() {
                    let left_out = paths(&left_out);
                    bar.suspend(|| complain(&format!("left out, being sockets: {left_out}")));
                }
                answer.await
            }
            // haled has stopped listening, and says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => answer.await,
            Err(error) => Err(unreadable(error)),
        },
    };
    bar.finish_and_clear();
    print(imported(&answer?))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends the chunks, and gives what haled has made of them.
async fn answer(
    mut client: ImagesClient<tonic::transport::Channel>,
    first: ImportImageRequest,
    chunks: mpsc::Receiver<Bytes>,
    bar: &ProgressBar,
) -> Result<Vec<ImportedImage>, Failure> {
    let sent = bar.clone();
    let chunks = ReceiverStream::new(chunks).map(move |chunk| {
        sent.inc(chunk.len() as u64);
        ImportImageRequest { chunk, ..ImportImageRequest::default() }
    });
    let mut answers = client.import(tokio_stream::once(first).chain(chunks)).await?.into_inner();
    let mut images = Vec::new();
    while let Some(answer) = answers.message().await? {
        bar.set_message(told(&answer.parts, "reading the archive").0);
        images = answer.images;
    }
    if images.is_empty() {
        return Err(Failure::Message("haled ended the import without an answer: try again".into()));
    }
    Ok(images)
}

/// A line for each reference an import has given.
fn imported(images: &[ImportedImage]) -> String {
    let lines = images.iter().flat_map(|image| {
        let names = if image.references.is_empty() {
            vec!["<none>".to_owned()]
        } else {
            image.references.clone()
        };
        names.into_iter().map(move |name| format!("{} {}\n", line(&name), line(&image.id)))
    });
    lines.collect()
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Where an archive comes from.
enum Source {
    Stdin,
    File(File),
    Directory(PathBuf),
}

impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdin);
        }
        if path.metadata()?.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        File::open(path).map(Self::File)
    }

    /// In bytes, where that is known.
    fn size(&self) -> Option<u64> {
        match self {
            Self::File(file) => {
                let meta = file.metadata().ok().filter(std::fs::Metadata::is_file);
                meta.map(|meta| meta.len())
            }
            Self::Stdin | Self::Directory(_) => None,
        }
    }

    /// Writes all of it; gives what was left out.
    fn send(self, mut chunks: Chunks) -> io::Result<Vec<PathBuf>> {
        let copied = match self {
            Self::Stdin => chunks.copy(&mut io::stdin().lock()),
            Self::File(mut file) => chunks.copy(&mut file),
            Self::Directory(path) => return archive::write(&path, chunks),
        };
        copied.map(|()| Vec::new())
    }
}

/// A writer that sends what is written, in chunks. `flush` sends the rest.
struct Chunks {
    buffer: BytesMut,
    sender: mpsc::Sender<Bytes>,
}

impl Chunks {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { buffer: BytesMut::with_capacity(CHUNK), sender }
    }

    fn copy(&mut self, from: &mut impl Read) -> io::Result<()> {
        io::copy(from, self)?;
        self.flush()
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.buffer.reserve(CHUNK);
        self.sender.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Whatever the sizes of the writes, the chunks are whole and in order.
        #[test]
        fn chunks_are_what_was_written(sizes in proptest::collection::vec(0usize..700_000, 0..8)) {
            let (sender, mut receiver) = mpsc::channel(64);
            let mut chunks = Chunks::new(sender);
            let mut written = Vec::new();
            for (n, size) in sizes.into_iter().enumerate() {
                let bytes = vec![n as u8; size];
                chunks.write_all(&bytes).unwrap();
                written.extend(bytes);
            }
            chunks.flush().unwrap();
            drop(chunks);
            let mut read = Vec::new();
            while let Some(chunk) = receiver.blocking_recv() {
                prop_assert!(!chunk.is_empty() && chunk.len() <= CHUNK);
                read.extend_from_slice(&chunk);
            }
            prop_assert!(read == written);
        }
    }
}
