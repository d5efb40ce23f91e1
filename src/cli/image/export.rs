//! `halectl image export`: an archive that `halectl image import`, `docker load`, `podman load`
//! and `ctr image import` read.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::pull::bar;
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

/// Where an archive goes: a file has its name only when it is whole.
enum Target {
    Stdout,
    File { file: File, partial: PathBuf, path: PathBuf },
}

impl Target {
    fn open(output: Option<&Path>) -> Result<Self, Failure> {
        match output.filter(|path| *path != Path::new("-")) {
            None if io::stdout().is_terminal() => Err(Failure::Message(
                "an archive is nothing for a terminal: give a file with -o".to_owned(),
            )),
            None => Ok(Self::Stdout),
            Some(path) => {
                let mut partial = path.as_os_str().to_owned();
                partial.push(".partial");
                let partial = PathBuf::from(partial);
                let file = File::create(&partial).map_err(|error| failed(&partial, &error))?;
                Ok(Self::File { file, partial, path: path.to_owned() })
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => crate::cli::output::print(bytes),
            Self::File { file, partial, .. } => {
                file.write_all(bytes).map_err(|error| failed(partial, &error))
            }
        }
    }

    fn finish(self) -> Result<(), Failure> {
        if let Self::File { file, partial, path } = &self {
            file.sync_all()
                .and_then(|()| std::fs::rename(partial, path))
                .map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::File { partial, .. } = self {
            // Gone already where it is whole.
            std::fs::remove_file(partial).ok();
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::Message(format!("cannot write {}: {error}", path.display()))
}
