//! Why an image operation failed.

use std::path::{Path, PathBuf};

/// Why an image operation failed. Its text names the image and the remedy.
///
/// It can be cloned, because every caller that waits for one pull gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such image here.
    #[error("image \"{0}\" is not on this node: pull it first")]
    NotFound(String),
    /// A short id that fits several.
    #[error("image id \"{id}\" fits {count} images: give more digits")]
    Ambiguous {
        /// As given.
        id: String,
        /// How many.
        count: usize,
    },
    /// The reference can't be parsed.
    #[error("\"{reference}\" is not an image reference: {why}")]
    BadReference {
        /// As given.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// The registry refused the credentials, or wants some.
    #[error(
        "cannot pull \"{image}\": registry {registry} says unauthorized ({cause}): \
         check the pull secret and that it may read this repository"
    )]
    Unauthorized {
        /// Its normalized reference.
        image: String,
        /// The registry's host.
        registry: String,
        /// Its answer.
        cause: String,
    },
    /// The registry has no such repository, tag or digest.
    #[error(
        "cannot pull \"{image}\": registry {registry} does not have it: check its name, tag or digest"
    )]
    NotInRegistry {
        /// Its normalized reference.
        image: String,
        /// The registry's host.
        registry: String,
    },
    /// The image exists, but for other machines.
    #[error(
        "\"{image}\" has no image for {wanted}, only for {offered}: \
         use a tag or digest that is built for this node"
    )]
    NoPlatform {
        /// Its normalized reference.
        image: String,
        /// This machine's platform.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// No registry that could have it answered as it should.
    #[error(
        "cannot pull \"{image}\": {cause}: \
         check the registry, the network and this host's hosts.toml, then pull again"
    )]
    Registry {
        /// Its normalized reference.
        image: String,
        /// Each host tried and its error.
        cause: String,
    },
    /// Content that isn't what its digest, size or format says.
    #[error("\"{image}\" was refused: {cause}: push or save the image again")]
    Corrupt {
        /// Its reference, or the archive.
        image: String,
        /// What was found.
        cause: String,
    },
    /// Something else that registries hold.
    #[error("\"{image}\" is not a container image: {cause}: only images can be pulled")]
    NotAnImage {
        /// Its reference.
        image: String,
        /// What it is.
        cause: String,
    },
    /// A layer that must not or can't be unpacked.
    #[error("\"{image}\" was refused: layer {layer}: {cause}")]
    Layer {
        /// Its reference, or the archive.
        image: String,
        /// The layer's digest.
        layer: String,
        /// The path in it, and why.
        cause: String,
    },
    /// A registry configuration file that can't be used.
    #[error("{}: {cause}: correct the file", path.display())]
    Hosts {
        /// hosts.toml, or a file it names.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// An archive that can't be imported.
    #[error("cannot import {}: {cause}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong, and the remedy.
        cause: String,
    },
    /// A root file system that could not be made or released.
    #[error("root file system of container {container}: {cause}")]
    Rootfs {
        /// The container's id.
        container: String,
        /// What failed.
        cause: String,
    },
    /// The disk below the image directory failed.
    #[error("cannot {doing} {}: {cause}: check the disk's space and health", path.display())]
    Disk {
        /// "write", "remove".
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// The system's answer.
        cause: String,
    },
    /// The record could not be written.
    #[error(transparent)]
    Store(#[from] StoreFailed),
    /// The work ended without an answer: this haled is going down, or has a fault.
    #[error("{0} ended without an answer: try again")]
    Stopped(&'static str),
}

/// The store's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreFailed(pub String);

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Self {
        Self::Store(StoreFailed(error.to_string()))
    }
}

impl Error {
    /// For `map_err` of file system calls.
    pub(super) fn disk(
        doing: &'static str,
        path: &Path,
    ) -> impl Fn(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Disk { doing, path: path.clone(), cause: error.to_string() }
    }
}

/// An error and every cause below it, for libraries that tell half of it in `source()`.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

/// The cause at the bottom, which says what is wrong; what is above it says only where that was
/// noticed.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    // Who tells of it names the server.
    let bare = error.url().and_then(|url| text.strip_suffix(&format!(" for url ({url})")));
    bare.map_or_else(|| text.clone(), str::to_owned)
}
