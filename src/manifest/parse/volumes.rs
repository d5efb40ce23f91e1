//! volumes of a pod, and volumeMounts of a container.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{Data, Sources};
use super::resources::amount;
use super::{absolute, label, objects, one_of};
use crate::health::fields::{Mistakes, Object};
use crate::manifest::quantity::bytes;
use crate::manifest::{HostPathKind, Limit, Volume, VolumeFile, VolumeMount, VolumeSource};
use crate::oci::model::Propagation;

/// Kinds of volume.
const SOURCES: &[&str] = &["emptyDir", "hostPath", "configMap", "secret"];
const SOURCES_LATER: &[&str] = &[
    "csi",
    "downwardAPI",
    "ephemeral",
    "fc",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "projected",
];
const MOUNT: &[&str] =
    &["name", "mountPath", "subPath", "readOnly", "recursiveReadOnly", "mountPropagation"];
/// A ConfigMap's or Secret's file that says nothing else.
const DEFAULT_MODE: u32 = 0o644;

/// Every volume of a pod.
pub(super) fn volumes(
    spec: &Object<'_>,
    namespace: &str,
    sources: &Sources,
    mistakes: &mut Mistakes,
) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for object in objects(spec, "volumes", mistakes) {
        object.only(&[&["name"], SOURCES].concat(), SOURCES_LATER, mistakes);
        let name = label(&object, "name", mistakes);
        if name.as_ref().is_some_and(|name| volumes.iter().any(|volume| volume.name == *name)) {
            mistakes.add(
                object.at("name"),
                format!("\"{}\" is there twice", name.as_ref().unwrap_or(&String::new())),
            );
        }
        let there: Vec<&str> =
            SOURCES.iter().copied().filter(|source| object.get(source).is_some()).collect();
        let [source] = there[..] else {
            // One of another kind has been told already.
            if !there.is_empty() || !SOURCES_LATER.iter().any(|kind| object.get(kind).is_some()) {
                let what = format!("exactly one of {} is wanted", SOURCES.join(", "));
                mistakes.add(object.path.clone(), what);
            }
            continue;
        };
        let Some(inner) = object.object(source, mistakes) else { continue };
        let source = match source {
            "emptyDir" => Some(empty_dir(&inner, mistakes)),
            "hostPath" => host_path(&inner, mistakes),
            kind => files(&inner, kind == "secret", namespace, sources, mistakes),
        };
        volumes.extend(name.zip(source).map(|(name, source)| Volume { name, source }));
    }
    volumes
}

fn empty_dir(object: &Object<'_>, mistakes: &mut Mistakes) -> VolumeSource {
    object.only(&["medium", "sizeLimit"], &[], mistakes);
    let bytes = amount(object, "sizeLimit", "64Mi and 1G", bytes, mistakes);
    let text = object.get("sizeLimit").map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    // 0 is no limit, as in Kubernetes.
    let limit = bytes.filter(|bytes| *bytes > 0).zip(text);
    VolumeSource::EmptyDir {
        memory: one_of(object, "medium", &["", "Memory"], mistakes) == Some("Memory"),
        limit: limit.map(|(bytes, text)| Limit { bytes, text }),
    }
}

fn host_path(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<VolumeSource> {
    object.only(&["path", "type"], &[], mistakes);
    let kinds = [
        ("", HostPathKind::Unchecked),
        ("DirectoryOrCreate", HostPathKind::DirectoryOrCreate),
        ("Directory", HostPathKind::Directory),
        ("FileOrCreate", HostPathKind::FileOrCreate),
        ("File", HostPathKind::File),
        ("Socket", HostPathKind::Socket),
        ("CharDevice", HostPathKind::CharDevice),
        ("BlockDevice", HostPathKind::BlockDevice),
    ];
    let name = one_of(object, "type", &kinds.map(|(name, _)| name), mistakes).unwrap_or("");
    let kind = kinds.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)?;
    let path = absolute(object, "path", mistakes)?.into();
    Some(VolumeSource::HostPath { path, kind })
}

fn files(
    object: &Object<'_>,
    secret: bool,
    namespace: &str,
    sources: &Sources,
    mistakes: &mut Mistakes,
) -> Option<VolumeSource> {
    let name = if secret { "secretName" } else { "name" };
    object.only(&[name, "items", "defaultMode", "optional"], &[], mistakes);
    let optional = object.boolean("optional", mistakes).unwrap_or(false);
    let default = mode(object, "defaultMode", mistakes).unwrap_or(DEFAULT_MODE);
    let data = sources.find(secret, namespace, (object, name), optional, mistakes);
    let nothing = Data::new();
    let data = match data {
        Some(data) => data,
        None if optional => &nothing,
        None => return None,
    };
    if object.get("items").is_none() {
        let file = |(key, data): (&String, &Vec<u8>)| VolumeFile {
            path: key.into(),
            mode: default,
            data: data.clone(),
        };
        return Some(VolumeSource::Files { files: data.iter().map(file).collect(), secret });
    }
    let mut files = Vec::new();
    for item in objects(object, "items", mistakes) {
        item.only(&["key", "path", "mode"], &[], mistakes);
        let key = item.required("key", mistakes);
        let path = relative(&item, "path", true, mistakes);
        let mode = mode(&item, "mode", mistakes).unwrap_or(default);
        let Some((key, path)) = key.zip(path) else { continue };
        match data.get(&key) {
            Some(data) => files.push(VolumeFile { path, mode, data: data.clone() }),
            None if optional => {}
            None => {
                let keys: Vec<&str> = data.keys().map(String::as_str).collect();
                let what = format!("{key:?} isn't in it; its keys are: {}", keys.join(", "));
                mistakes.add(item.at("key"), what);
            }
        }
    }
    Some(VolumeSource::Files { files, secret })
}

fn mode(object: &Object<'_>, field: &str, mistakes: &mut Mistakes) -> Option<u32> {
    object.integer(field, 0..=0o777, mistakes).map(|mode| mode as u32)
}

/// A relative path without `..`.
fn relative(
    object: &Object<'_>,
    field: &str,
    required: bool,
    mistakes: &mut Mistakes,
) -> Option<PathBuf> {
    let path =
        if required { object.required(field, mistakes) } else { object.string(field, mistakes) }?;
    let good =
        !path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0');
    if !good {
        mistakes.add(object.at(field), format!("{path:?}: a relative path without .. is wanted"));
    }
    good.then(|| PathBuf::from(path))
}

/// The volumes of a container.
pub(super) fn mounts(
    object: &Object<'_>,
    volumes: &BTreeSet<String>,
    privileged: bool,
    mistakes: &mut Mistakes,
) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for mount in objects(object, "volumeMounts", mistakes) {
        mount.only(MOUNT, &["subPathExpr"], mistakes);
        let volume = mount.required("name", mistakes);
        if let Some(name) = volume.as_ref().filter(|name| !volumes.contains(*name)) {
            let known: Vec<&str> = volumes.iter().map(String::as_str).collect();
            let there = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            mistakes.add(mount.at("name"), format!("\"{name}\" is no volume of the pod; {there}"));
        }
        let readonly = mount.boolean("readOnly", mistakes).unwrap_or(false);
        let recursive = ["Disabled", "IfPossible", "Enabled"];
        let recursive = one_of(&mount, "recursiveReadOnly", &recursive, mistakes);
        let recursive = recursive.is_some_and(|word| word != "Disabled");
        let ways = ["None", "HostToContainer", "Bidirectional"];
        let propagation = match one_of(&mount, "mountPropagation", &ways, mistakes) {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        };
        if recursive && !readonly {
            mistakes.add(mount.at("recursiveReadOnly"), "needs readOnly: true");
        }
        if recursive && propagation != Propagation::Private {
            mistakes.add(mount.at("recursiveReadOnly"), "needs mountPropagation: None");
        }
        if propagation == Propagation::Bidirectional && !privileged {
            mistakes
                .add(mount.at("mountPropagation"), "Bidirectional needs a privileged container");
        }
        let sub_path = relative(&mount, "subPath", false, mistakes).unwrap_or_default();
        let path = mount.required("mountPath", mistakes).map(PathBuf::from);
        // Relative to the root, as in Kubernetes.
        let container_path = path.map(|path| Path::new("/").join(path));
        if container_path
            .as_ref()
            .is_some_and(|path| mounts.iter().any(|other| other.container_path == *path))
        {
            mistakes.add(mount.at("mountPath"), "is there twice");
        }
        let Some((volume, container_path)) = volume.zip(container_path) else { continue };
        mounts.push(VolumeMount {
            volume,
            container_path,
            sub_path,
            readonly,
            recursive_readonly: recursive,
            propagation,
        });
    }
    mounts
}
