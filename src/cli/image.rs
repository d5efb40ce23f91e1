//! Images: list, pull, import, export, remove, prune, inspect.

mod export;
mod pull;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::proto::haled::{
    ImageSummary, ImportImageRequest, ImportedImage, InspectImageRequest, ListImagesRequest,
    PruneImagesRequest, PruneImagesResponse, RemoveImageRequest,
};

use super::client::{self, Address};
use super::options::{InspectArgs, ListArgs, ObjectFormat, PruneArgs, RemoveArgs};
use super::output::{complain, line, print};
use super::table::table;
use super::{Failure, Outcome, age, archive};

pub(super) use export::export;
pub(super) use pull::pull;

/// The bytes of an archive sent in one message.
const CHUNK: usize = 1 << 20;
/// The chunks read ahead of the connection.
const QUEUE: usize = 4;
/// The digits of an image's id that are shown.
const SHORT_ID: usize = 12;

/// `halectl image ls`.
pub(super) async fn list(address: &Address, args: ListArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let images = client.list(ListImagesRequest {}).await?.into_inner().images;
    if args.quiet {
        for image in &images {
            print(format!("{}\n", line(&image.id)))?;
        }
    } else {
        print(image_table(&images, jiff::Timestamp::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each tag; an image without one has a row all the same.
pub(super) fn image_table(images: &[ImageSummary], now: jiff::Timestamp) -> String {
    let mut rows: Vec<_> = images.iter().flat_map(|image| image_rows(image, now)).collect();
    rows.sort_unstable();
    table(&["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE", "USED BY"], &rows)
}

fn image_rows(image: &ImageSummary, now: jiff::Timestamp) -> Vec<Vec<String>> {
    let none = || "<none>".to_owned();
    let by_digest = |repository: Option<&str>| {
        let mut digests = image.digests.iter().filter_map(|name| name.split_once('@'));
        digests.find(|(name, _)| repository.is_none_or(|wanted| wanted == *name))
    };
    let names: Vec<(String, String)> = if image.tags.is_empty() {
        vec![(by_digest(None).map_or_else(none, |(name, _)| name.to_owned()), none())]
    } else {
        let split = |tag: &String| {
            let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, ""));
            (repository.to_owned(), tag.to_owned())
        };
        image.tags.iter().map(split).collect()
    };
    let created = match image.created.parse::<jiff::Timestamp>() {
        // Builders that want the same image each time give it no real date.
        Ok(at) if at.as_second() > 0 => age::span(now.as_nanosecond() - at.as_nanosecond()),
        _ => "-".to_owned(),
    };
    let used = match (image.used_by.len(), image.pinned) {
        (0, true) => "pinned".to_owned(),
        (0, false) => "-".to_owned(),
        (1, _) => image.used_by[0].clone(),
        (more, _) => format!("{} and {} more", image.used_by[0], more - 1),
    };
    let row = |(repository, tag): (String, String)| {
        let digest = by_digest(Some(&repository)).map_or_else(none, |(_, digest)| short(digest));
        vec![
            repository,
            tag,
            digest,
            short(&image.id),
            created.clone(),
            size(image.size),
            used.clone(),
        ]
    };
    names.into_iter().map(row).collect()
}

/// The first digits of a digest.
fn short(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..SHORT_ID).unwrap_or(hex).to_owned()
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

/// `halectl image rm`. Every image is tried; one that isn't there doesn't save the others.
pub(super) async fn remove(address: &Address, args: RemoveArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let mut code = ExitCode::SUCCESS;
    for name in args.images {
        let request = RemoveImageRequest { image: name.clone(), force: args.force };
        let failure = match client.remove(request).await {
            Ok(_) => {
                print(format!("{} removed\n", line(&name)))?;
                continue;
            }
            Err(status) if status.code() == tonic::Code::NotFound => {
                Failure::Message(format!("image \"{name}\" is not on this machine"))
            }
            Err(status) => status.into(),
        };
        let Failure::Message(message) = failure else { return Err(failure) };
        complain(&message);
        code = ExitCode::FAILURE;
    }
    Ok(code)
}

/// `halectl image prune`: a line for each image, and what it came to.
pub(super) async fn prune(address: &Address, args: PruneArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let answer = client.prune(PruneImagesRequest { all: args.all }).await?.into_inner();
    if args.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    print(pruned(&answer))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pruned(answer: &PruneImagesResponse) -> String {
    let name = |image: &ImageSummary| {
        let name = image.tags.first().or(image.digests.first()).unwrap_or(&image.id);
        format!("{} removed\n", line(name))
    };
    let freed = format!("{} freed\n", size(answer.freed));
    answer.removed.iter().map(name).chain([freed]).collect()
}

/// `halectl image inspect`: an object, or a list of several.
pub(super) async fn inspect(address: &Address, args: InspectArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let mut found = Vec::new();
    for image in args.images {
        let json = client.inspect(InspectImageRequest { image }).await?.into_inner().json;
        let object: serde_json::Value = serde_json::from_str(&json)
            .map_err(|error| Failure::Message(format!("haled's answer can't be read: {error}")))?;
        found.push(object);
    }
    let whole = if found.len() == 1 { found.remove(0) } else { found.into() };
    print(match args.output {
        ObjectFormat::Json => format!("{whole:#}\n"),
        ObjectFormat::Yaml => serde_saphyr::to_string(&whole)
            .map_err(|error| Failure::Message(format!("cannot write it: {error}")))?,
    })?;
    Ok(ExitCode::SUCCESS)
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
