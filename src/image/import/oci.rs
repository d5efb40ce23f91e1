//! OCI layouts.

use std::collections::{BTreeMap, BTreeSet};

use super::super::archive::Source;
use super::super::catalog::Lease;
use super::super::digest::Digest;
use super::super::manifest::{
    self, Choice, Descriptor, Document, MAX_MANIFEST, Manifest, Platform,
};
use super::super::pull::Assembly;
use super::super::reference::{Reference, Version};
use super::super::{Error, checkpoint};
use super::{Import, Ready, merged};

/// Indexes within indexes.
const MAX_NESTING: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Import {
    pub(super) fn oci(&self, source: &Source) -> Result<Vec<Ready>, Error> {
        let index = self.small(source, "index.json", MAX_MANIFEST)?;
        let Document::Index(manifests) =
            Document::parse(&index).map_err(|why| self.wrong(why.to_string()))?
        else {
            return Err(self.wrong("its index.json is no index"));
        };
        let images = grouped(manifests);
        if images.is_empty() {
            return Err(self.wrong("it holds no image"));
        }
        if images.len() > 1 && self.name.is_some() {
            return Err(self.wrong(format!(
                "it holds {} images, which one name can't stand for: leave the name out",
                images.len()
            )));
        }
        images.iter().map(|(names, group)| self.oci_image(source, names, group)).collect()
    }

    /// Of several images for one platform and under one name none is the right one.
    fn check_unambiguous(&self, group: &[Descriptor]) -> Result<(), Error> {
        let Choice::This(chosen) = manifest::choose(&Platform::host(), group) else {
            return Ok(());
        };
        let rivals: BTreeSet<String> = group
            .iter()
            .filter(|entry| entry.platform == chosen.platform)
            .map(|entry| entry.digest.to_string())
            .collect();
        if rivals.len() == 1 {
            return Ok(());
        }
        Err(self.wrong(format!(
            "nothing tells its {} images apart ({}): save them with a name each",
            rivals.len(),
            Vec::from_iter(rivals).join(", ")
        )))
    }

    fn oci_image(
        &self,
        source: &Source,
        names: &[String],
        group: &[Descriptor],
    ) -> Result<Ready, Error> {
        self.check_unambiguous(group)?;
        let given: Vec<Reference> = match &self.name {
            Some(name) => vec![name.clone()],
            None => names.iter().map(|name| Reference::parse(name)).collect::<Result<_, _>>()?,
        };
        let shown =
            given.first().map_or_else(|| self.path.display().to_string(), ToString::to_string);
        let mut blobs = BTreeSet::new();
        let mut leases = Vec::new();
        let (top, manifest) = self.oci_manifest(source, group, &shown, &mut blobs, &mut leases)?;
        let mut names = Vec::new();
        for name in given {
            match &name.version {
                Version::Digest(digest) if *digest != top => {
                    return Err(self.wrong(format!("what it calls {name} is {top}")));
                }
                Version::Digest(_) => {}
                Version::Tag(_) => names.push(name.with_digest(&top)),
            }
            names.push(name);
        }
        let mut size_bytes = manifest.config.size;
        let (config_digest, _, lease) = self.store_descriptor(source, &manifest.config)?;
        leases.push(lease);
        blobs.insert(config_digest.clone());
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let (digest, size, lease) = self.store_descriptor(source, layer)?;
            size_bytes += size;
            leases.push(lease);
            blobs.insert(digest.clone());
            layers.push(digest);
        }
        let config = self.config(&config_digest, &shown)?;
        let checkpoint = checkpoint::annotated(&manifest.annotations).map(str::to_owned);
        let assembly =
            Assembly { name: shown, config_digest, config, blobs, layers, size_bytes, checkpoint };
        Ok(Ready { assembly, names, _lease: merged(leases) })
    }

    /// Down to the manifest for this machine. Gives the digest of the first document.
    fn oci_manifest(
        &self,
        source: &Source,
        group: &[Descriptor],
        shown: &str,
        blobs: &mut BTreeSet<Digest>,
        leases: &mut Vec<Lease>,
    ) -> Result<(Digest, Manifest), Error> {
        let host = Platform::host();
        let mut group = group.to_vec();
        let mut top = None;
        for _ in 0..MAX_NESTING {
            let chosen = match manifest::choose(&host, &group) {
                Choice::This(chosen) => chosen.clone(),
                Choice::None(offered) => {
                    return Err(Error::NoPlatform {
                        image: shown.to_owned(),
                        wanted: host.to_string(),
                        offered,
                    });
                }
            };
            let bytes = self.small(source, &blob_name(&chosen.digest), MAX_MANIFEST)?;
            let (digest, _, lease) = self.store_descriptor(source, &chosen)?;
            leases.push(lease);
            blobs.insert(digest.clone());
            top.get_or_insert(digest);
            match Document::parse(&bytes).map_err(|why| self.wrong(why.to_string()))? {
                Document::Image(manifest) => return Ok((top.expect("set above"), manifest)),
                Document::Index(inside) => group = inside,
            }
        }
        Err(self.wrong(format!("more than {MAX_NESTING} indexes within each other")))
    }

    fn store_descriptor(
        &self,
        source: &Source,
        wanted: &Descriptor,
    ) -> Result<(Digest, u64, Lease), Error> {
        let name = blob_name(&wanted.digest);
        let (digest, size, lease) = self.store(source, &name, Some(&wanted.digest))?;
        if size != wanted.size {
            return Err(
                self.wrong(format!("{name} should have {} bytes, but has {size}", wanted.size))
            );
        }
        Ok((digest, size, lease))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The image's name by containerd's annotation or OCI's. A bare word in the latter is a tag
/// of no known repository, so it is no name.
fn oci_name(descriptor: &Descriptor) -> Option<String> {
    let annotation =
        |key: &str| descriptor.annotations.get(key).filter(|name| !name.is_empty()).cloned();
    annotation("io.containerd.image.name")
        .or_else(|| annotation(REF_NAME).filter(|name| name.contains(['/', ':'])))
}

/// An index's images: entries of one name are one image for several platforms, and the same
/// entries under several names are one image too.
fn grouped(manifests: Vec<Descriptor>) -> Vec<(Vec<String>, Vec<Descriptor>)> {
    let mut by_name: BTreeMap<(Option<String>, Option<String>), Vec<Descriptor>> = BTreeMap::new();
    for descriptor in manifests {
        let name = oci_name(&descriptor);
        let bare = descriptor.annotations.get(REF_NAME).filter(|_| name.is_none()).cloned();
        by_name.entry((name, bare)).or_default().push(descriptor);
    }
    let mut images: Vec<(Vec<String>, Vec<Descriptor>)> = Vec::new();
    for ((name, _), group) in by_name {
        let digests = |group: &[Descriptor]| -> BTreeSet<String> {
            group.iter().map(|entry| entry.digest.to_string()).collect()
        };
        match images.iter_mut().find(|(_, known)| digests(known) == digests(&group)) {
            Some((names, _)) => names.extend(name),
            None => images.push((Vec::from_iter(name), group)),
        }
    }
    images
}
