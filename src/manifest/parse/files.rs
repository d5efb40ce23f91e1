//! ConfigMap and Secret documents: what Pods of the same manifest take from them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::schema::{CONFIG_MAP, METADATA, SECRET};
use super::subdomain;
use crate::health::fields::{Mistakes, Object};

/// By namespace and name.
type ByName = BTreeMap<(String, String), Data>;
/// Keys and values.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// The ConfigMaps and Secrets of a manifest.
#[derive(Debug, Default)]
pub(super) struct Sources {
    config_maps: ByName,
    secrets: ByName,
}

impl Sources {
    /// Takes in a document.
    pub(super) fn read(&mut self, object: &Object<'_>, secret: bool, mistakes: &mut Mistakes) {
        object.known(if secret { SECRET } else { CONFIG_MAP }, &[], mistakes);
        object.boolean("immutable", mistakes);
        let Some(metadata) = object.object("metadata", mistakes) else {
            return mistakes.add(object.path.clone(), "field \"metadata\" is missing");
        };
        metadata.known(METADATA, &[], mistakes);
        let name = subdomain(&metadata, "name", mistakes);
        for unused in ["labels", "annotations"] {
            metadata.string_map(unused, mistakes);
        }
        let namespace = metadata.string("namespace", mistakes).unwrap_or_else(|| "default".into());
        let mut data = Data::new();
        let (plain, encoded) = if secret { ("stringData", "data") } else { ("data", "binaryData") };
        for (key, text) in object.string_map(encoded, mistakes) {
            // Line breaks stand in what `base64` writes.
            let text: String = text.split_ascii_whitespace().collect();
            match BASE64_STANDARD.decode(text) {
                Ok(bytes) => drop(data.insert(key, bytes)),
                Err(error) => {
                    let path = format!("{}.{key}", object.at(encoded));
                    mistakes.add(path, format!("is no base64: {error}"));
                }
            }
        }
        // stringData goes over data, as in Kubernetes.
        for (key, text) in object.string_map(plain, mistakes) {
            data.insert(key, text.into_bytes());
        }
        for key in data.keys() {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if key.is_empty() || !key.chars().all(good) || key == "." || key.starts_with("..") {
                let what = format!("{key:?} is no key: letters, digits, -, _ and . are allowed");
                mistakes.add(object.path.clone(), what);
            }
        }
        let Some(name) = name else { return };
        let all = if secret { &mut self.secrets } else { &mut self.config_maps };
        if all.insert((namespace, name.clone()), data).is_some() {
            mistakes.add(metadata.at("name"), format!("\"{name}\" is there twice"));
        }
    }

    /// One by name. A missing one is a mistake unless `optional`.
    pub(super) fn find(
        &self,
        secret: bool,
        namespace: &str,
        reference: (&Object<'_>, &str),
        optional: bool,
        mistakes: &mut Mistakes,
    ) -> Option<&Data> {
        let (object, field) = reference;
        let name = object.required(field, mistakes)?;
        let (all, kind) =
            if secret { (&self.secrets, "Secret") } else { (&self.config_maps, "ConfigMap") };
        let found = all.get(&(namespace.to_owned(), name.clone()));
        if found.is_none() && !optional {
            let there: Vec<&str> = all
                .keys()
                .filter(|(of, _)| of == namespace)
                .map(|(_, name)| name.as_str())
                .collect();
            let there = if there.is_empty() {
                "there is none".into()
            } else {
                format!("there are: {}", there.join(", "))
            };
            let what = format!(
                "\"{name}\": no {kind} of this name is in the same file and namespace ({there})"
            );
            mistakes.add(object.at(field), what);
        }
        found
    }
}
