//! Images: list, pull, import, remove.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::proto::cri::{
    Image, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest,
};
use crate::proto::haled::{ImportImageRequest, ImportedImage};

use super::client::{self, Address};
use super::credentials::{self, Sources};
use super::options::PullArgs;
use super::output::{complain, line, print};
use super::table::table;
use super::{Failure, Outcome, archive};

/// The bytes of an archive sent in one message.
const CHUNK: usize = 1 << 20;
/// The chunks read ahead of the connection.
const QUEUE: usize = 4;
/// The digits of an image's id that are shown.
const SHORT_ID: usize = 12;

/// `halectl image ls`.
pub(super) async fn list(address: &Address) -> Outcome {
    let mut client = client::images(address).await?;
    let images = client.list_images(ListImagesRequest::default()).await?.into_inner().images;
    print(image_table(&images))?;
    Ok(ExitCode::SUCCESS)
}

/// A row for each reference; an image without one has a row all the same.
pub(super) fn image_table(images: &[Image]) -> String {
    let row = |name: &str, image: &Image| {
        let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        vec![name.to_owned(), id.get(..SHORT_ID).unwrap_or(id).to_owned(), size(image.size)]
    };
    let names = |image: &Image| match (image.repo_tags.as_slice(), image.repo_digests.first()) {
        ([], Some(digest)) => vec![digest.clone()],
        ([], None) => vec!["<none>".to_owned()],
        (tags, _) => tags.to_vec(),
    };
    let mut rows: Vec<_> = images
        .iter()
        .flat_map(|image| names(image).into_iter().map(move |name| row(&name, image)))
        .collect();
    rows.sort_unstable();
    table(&["REFERENCE", "IMAGE ID", "SIZE"], &rows)
}

/// Bytes to three figures, in powers of 1000 as registries count: `4.27MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    match value {
        _ if unit == 0 => format!("{bytes}B"),
        value if value < 9.995 => format!("{value:.2}{}", UNITS[unit]),
        value if value < 99.95 => format!("{value:.1}{}", UNITS[unit]),
        value => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// `halectl image pull`: prints the id.
pub(super) async fn pull(address: &Address, args: PullArgs) -> Outcome {
    let PullArgs { reference, creds, authfile } = args;
    let auth = credentials::find(&reference, &Sources { given: creds, authfile });
    let auth = auth.map_err(Failure::Message)?;
    let mut client = client::images(address).await?;
    let request = PullImageRequest { image: Some(spec(reference)), auth, ..Default::default() };
    let id = client.pull_image(request).await?.into_inner().image_ref;
    print(format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// `halectl image rm`. Every image is tried; one that isn't there doesn't save the others.
pub(super) async fn remove(address: &Address, images: Vec<String>) -> Outcome {
    let mut client = client::images(address).await?;
    let mut code = ExitCode::SUCCESS;
    for name in images {
        // The CRI removes what isn't there without a word; a person has mistyped it.
        let image = Some(spec(name.clone()));
        let status = ImageStatusRequest { image: image.clone(), verbose: false };
        let failure = match client.image_status(status).await {
            Ok(answer) if answer.get_ref().image.is_none() => {
                Failure::Message(format!("image \"{name}\" is not on this machine"))
            }
            Ok(_) => match client.remove_image(RemoveImageRequest { image }).await {
                Ok(_) => {
                    print(format!("{} removed\n", line(&name)))?;
                    continue;
                }
                Err(status) => status.into(),
            },
            Err(status) => status.into(),
        };
        let Failure::Message(message) = failure else { return Err(failure) };
        complain(&message);
        code = ExitCode::FAILURE;
    }
    Ok(code)
}

fn spec(image: String) -> ImageSpec {
    ImageSpec { image, ..Default::default() }
}

/// `halectl image import`: streams an archive, or a directory as a tar.
pub(super) async fn import(address: &Address, name: Option<String>, source: PathBuf) -> Outcome {
    let told = source.display().to_string();
    let source = Source::open(&source)
        .map_err(|error| Failure::Message(format!("cannot read {told}: {error}")))?;
    let mut client = client::haled(address).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    // As long as this one lives the stream has no end: an archive that could not be read to its
    // own end must never look whole to haled.
    let unfinished = sender.clone();
    let reading = tokio::task::spawn_blocking(move || source.send(Chunks::new(sender)));
    let first = ImportImageRequest { reference: name.unwrap_or_default(), chunk: Bytes::new() };
    let chunks = ReceiverStream::new(receiver)
        .map(|chunk| ImportImageRequest { reference: String::new(), chunk });
    let call = client.import_image(tokio_stream::once(first).chain(chunks));
    tokio::pin!(call);
    let answer = tokio::select! {
        answer = &mut call => answer?,
        read = reading => match read.expect("reading doesn't panic") {
            Ok(left_out) => {
                drop(unfinished);
                if !left_out.is_empty() {
                    complain(&format!("left out, being sockets: {}", paths(&left_out)));
                }
                call.await?
            }
            // haled has stopped listening, and says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => call.await?,
            Err(error) => {
                return Err(Failure::Message(format!("cannot read {told}: {error}")));
            }
        },
    };
    print(imported(&answer.into_inner().images))?;
    Ok(ExitCode::SUCCESS)
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

    #[test]
    fn sizes_have_three_figures() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (4_267_000, "4.27MB"),
            (99_940_000, "99.9MB"),
            (99_960_000, "100MB"),
            (999_600_000, "1.00GB"),
            (u64::MAX, "18447PB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
    }

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
