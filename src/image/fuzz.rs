//! Ways in for the fuzz targets: this room's parsers take what others wrote.

use std::path::Path;

use super::layer;
use super::manifest::{Config, Document, Platform, choose};

/// A registry's hosts.toml.
pub fn hosts(text: &str) {
    drop(super::hosts::parse(text, "registry.example:5000", Path::new("/certs.d/hosts.toml")));
}

/// What a registry gives for a manifest, and for an image's configuration.
pub fn manifest(data: &[u8]) {
    if let Ok(Document::Index(manifests)) = Document::parse(data) {
        choose(&Platform::host(), &manifests);
    }
    if let Ok(config) = Config::parse(data) {
        config.foreign(&Platform::host());
        config.defaults();
    }
}

/// A layer's archive, unpacked into an empty directory.
pub fn layer(data: &[u8], to: &Path) {
    drop(layer::fuzz(std::io::Cursor::new(data.to_vec()), to));
}
