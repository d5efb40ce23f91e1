//! `halectl image export`: an archive that `halectl image import`, `docker load`, `podman load`
//! and `ctr image import` read.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::pull::{bar, counts};
use crate::cli::client::{self, Address};
use crate::cli::options::ExportArgs;
use crate::cli::{Failure, Outcome};
use crate::proto::haled::ExportImagesRequest;

pub(in crate::cli) async fn export(address: &Address, args: ExportArgs) -> Outcome {
    let ExportArgs { images, output, quiet } = args;
    let mut client = client::own_images(address).await?;
    let mut chunks = client.export(ExportImagesRequest { images }).await?.into_inner();
    let mut target = Target::open(output.as_deref())?;
    let bar = bar(quiet || !io::stderr().is_terminal());
    counts(&bar);
    bar.set_message("exporting");
    loop {
        match chunks.message().await {
            Ok(Some(message)) => {
                if message.size > 0 {
                    bar.set_length(message.size);
                }
                bar.inc(message.chunk.len() as u64);
                target.write(&message.chunk)?;
            }
            Ok(None) => break,
            Err(status) => {
                bar.finish_and_clear();
                return Err(status.into());
            }
        }
    }
    bar.finish_and_clear();
    target.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Where an archive goes. A file has its name only when it is whole, and none before where the
/// file system can do that, so that nothing is left whichever way halectl ends.
enum Target {
    /// Standard output, or what is written to as it is: a pipe, a device.
    Open(Box<dyn Write + Send>, PathBuf),
    File {
        file: File,
        partial: Partial,
        path: PathBuf,
    },
}

/// What a file is that isn't whole.
enum Partial {
    Nameless,
    Named(PathBuf),
}

impl Target {
    fn open(output: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = output.filter(|path| *path != Path::new("-")) else {
            if io::stdout().is_terminal() {
                let why = "an archive is nothing for a terminal: give a file with -o";
                return Err(Failure::Message(why.to_owned()));
            }
            return Ok(Self::Open(Box::new(io::stdout()), "standard output".into()));
        };
        if path.metadata().is_ok_and(|meta| !meta.is_file()) {
            let file = File::options().write(true).open(path);
            let file = file.map_err(|error| failed(path, &error))?;
            return Ok(Self::Open(Box::new(file), path.to_owned()));
        }
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let nameless = rustix::fs::open(directory(path), flags, Mode::from(0o666));
        let (file, partial) = if let Ok(file) = nameless {
            (File::from(file), Partial::Nameless)
        } else {
            let partial = beside(path);
            let file = File::create(&partial).map_err(|error| failed(&partial, &error))?;
            (file, Partial::Named(partial))
        };
        Ok(Self::File { file, partial, path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let (written, path) = match self {
            Self::Open(out, path) => (out.write_all(bytes), path),
            Self::File { file, path, .. } => (file.write_all(bytes), path),
        };
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => failed(path, &error),
        })
    }

    fn finish(mut self) -> Result<(), Failure> {
        match &mut self {
            Self::Open(out, path) => out.flush().map_err(|error| failed(path, &error)),
            Self::File { file, partial, path } => file
                .sync_all()
                .and_then(|()| partial.named(file, path))
                .and_then(|named| std::fs::rename(named, &*path))
                .map_err(|error| failed(path, &error)),
        }
    }
}

impl Partial {
    /// A name for the file, to be renamed from.
    fn named(&mut self, file: &File, path: &Path) -> io::Result<PathBuf> {
        if let Self::Named(partial) = self {
            return Ok(partial.clone());
        }
        let partial = beside(path);
        let link = || {
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, own, CWD, &partial, AtFlags::SYMLINK_FOLLOW)
        };
        match link() {
            // Of a halectl that was killed between these two steps.
            Err(rustix::io::Errno::EXIST) => {
                std::fs::remove_file(&partial)?;
                link()?;
            }
            other => other?,
        }
        *self = Self::Named(partial.clone());
        Ok(partial)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Self::Named(partial) = self {
            // Gone already where it is whole.
            std::fs::remove_file(partial).ok();
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::Message(format!("cannot write {}: {error}", path.display()))
}
