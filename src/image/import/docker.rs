//! docker-archives, as `docker save` writes them.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::super::Error;
use super::super::archive::Source;
use super::super::manifest::{MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST};
use super::super::pull::Assembly;
use super::{Import, Ready, merged, name};

/// An entry of docker-archive's manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Import {
    pub(super) fn docker(&self, source: &Source) -> Result<Vec<Ready>, Error> {
        let bytes = self.small(source, "manifest.json", MAX_MANIFEST)?;
        let saved: Vec<Saved> = serde_json::from_slice(&bytes)
            .map_err(|error| self.wrong(format!("its manifest.json can't be read: {error}")))?;
        match saved.len() {
            0 => Err(self.wrong("it holds no image")),
            count if count > 1 && self.name.is_some() => Err(self.wrong(format!(
                "it holds {count} images, which one name can't stand for: leave the name out"
            ))),
            _ => saved.iter().map(|image| self.docker_image(source, image)).collect(),
        }
    }

    fn docker_image(&self, source: &Source, saved: &Saved) -> Result<Ready, Error> {
        let names = match &self.name {
            Some(name) => vec![name.clone()],
            None => saved
                .repo_tags
                .iter()
                .flatten()
                // The manifest that a digest would be of isn't in such an archive.
                .map(|tag| name(tag))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let shown =
            names.first().map_or_else(|| self.path.display().to_string(), ToString::to_string);
        let parts = saved.layers.as_deref().unwrap_or_default();
        if parts.len() > MAX_LAYERS {
            return Err(
                self.wrong(format!("it has {} layers, {MAX_LAYERS} are allowed", parts.len()))
            );
        }
        // Bounded before it is stored.
        self.small(source, &saved.config, MAX_CONFIG)?;
        let (config_digest, mut size_bytes, lease) = self.store(source, &saved.config, None)?;
        let (mut blobs, mut leases, mut layers) =
            (BTreeSet::from([config_digest.clone()]), vec![lease], Vec::new());
        for part in parts {
            let (digest, size, lease) = self.store(source, part, None)?;
            size_bytes += size;
            leases.push(lease);
            blobs.insert(digest.clone());
            layers.push(digest);
        }
        let config = self.config(&config_digest, &shown)?;
        let checkpoint = None;
        let assembly =
            Assembly { name: shown, config_digest, config, blobs, layers, size_bytes, checkpoint };
        Ok(Ready { assembly, names, _lease: merged(leases) })
    }
}
