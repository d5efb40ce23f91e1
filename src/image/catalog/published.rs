//! The catalog as readers see it: images, found by name or id.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::digest::Digest;
use super::super::reference::Reference;
use super::super::{Error, Image};

/// What readers see: built anew at each change, so that they never wait.
#[derive(Debug, Default)]
pub(in crate::image) struct Published {
    pub(in crate::image) images: BTreeMap<Digest, Arc<Image>>,
    /// Removed, but in use: found by their full id only.
    pub(super) removed: BTreeMap<Digest, Arc<Image>>,
    pub(super) names: BTreeMap<String, Digest>,
}

impl Published {
    /// Whether an image has this name.
    pub(in crate::image) fn has(&self, name: &Reference) -> bool {
        self.names.contains_key(&name.to_string())
    }

    /// By tag, digest reference, id or short id.
    pub(in crate::image) fn find(&self, name: &str) -> Result<Arc<Image>, Error> {
        if let Some(image) = Digest::parse(name).ok().and_then(|id| self.removed.get(&id)) {
            return Ok(Arc::clone(image));
        }
        let (id, _) = self.resolve(name)?;
        self.images.get(&id).cloned().ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// The id, and the normalized name where it was found by one.
    pub(super) fn resolve(&self, name: &str) -> Result<(Digest, Option<String>), Error> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if let Some(id) = Digest::from_hex(hex) {
            return if self.images.contains_key(&id) {
                Ok((id, None))
            } else {
                Err(Error::NotFound(name.to_owned()))
            };
        }
        let reference = Reference::parse(name);
        if let Ok(reference) = &reference {
            let normal = reference.to_string();
            if let Some(id) = self.names.get(&normal) {
                return Ok((id.clone(), Some(normal)));
            }
        }
        let is_hex = !hex.is_empty()
            && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_hex {
            let mut fitting = self.images.keys().filter(|id| id.hex().starts_with(hex));
            match (fitting.next(), fitting.count()) {
                (Some(id), 0) => return Ok((id.clone(), None)),
                (Some(_), more) => {
                    return Err(Error::Ambiguous { id: name.to_owned(), count: more + 1 });
                }
                (None, _) => {}
            }
        } else {
            reference?;
        }
        Err(Error::NotFound(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::Defaults;
    use super::super::record::ImageRecord;
    use super::*;

    #[test]
    fn names_ids_and_short_ids() {
        let mut published = Published::default();
        for hex in ["aa11".repeat(16), "aa22".repeat(16)] {
            let id = Digest::from_hex(&hex).unwrap();
            let record = ImageRecord {
                blobs: BTreeSet::new(),
                chain: vec![],
                size_bytes: 0,
                pinned: false,
                defaults: Defaults::default(),
                checkpoint: None,
                removed: false,
            };
            published.images.insert(id.clone(), Arc::new(record.image(&id)));
        }
        published.names.insert(
            "docker.io/library/aa:latest".into(),
            Digest::from_hex(&"aa22".repeat(16)).unwrap(),
        );
        let id = |name: &str| published.find(name).map(|image| image.id[..11].to_owned());
        assert_eq!(id("aa11").unwrap(), "sha256:aa11");
        assert_eq!(id("sha256:aa2").unwrap(), "sha256:aa22");
        assert_eq!(id("aa").unwrap(), "sha256:aa22", "a name goes before a short id");
        assert_eq!(id("a"), Err(Error::Ambiguous { id: "a".into(), count: 2 }));
        assert!(matches!(id("ab"), Err(Error::NotFound(_))));
        assert!(matches!(id("UPPER"), Err(Error::BadReference { .. })));
    }
}
