//! volumes of a pod, and volumeMounts of a container.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::container::{Scope, pull_policy};
use super::env;
use super::files::Data;
use super::resources::amount;
use super::schema::{
    CONFIG_FILES, EMPTY_DIR, FIELD_ITEM, HOST_PATH, IMAGE, ITEM, OWN_FILES, PROJECTED,
    SECRET_FILES, SOURCE, SOURCE_FIELDS, SOURCE_KEYS, VOLUME, VOLUME_FIELD_REF, VOLUME_MOUNT,
};
use super::{absolute, exactly_one, label, objects};
use crate::health::fields::{Mistakes, Object, allowed, default_number};
use crate::manifest::quantity::bytes;
use crate::manifest::volumes::is_relative;
use crate::manifest::{
    Content, HostPathKind, Limit, Value as Fact, Volume, VolumeFile, VolumeMount, VolumeSource,
};
use crate::oci::model::Propagation;

/// Kinds of volume that are refused.
const VOLUME_LATER: &[&str] = &["csi", "ephemeral", "fc", "iscsi", "nfs", "persistentVolumeClaim"];
/// Kinds of source of a projected volume that are.
const SOURCE_LATER: &[&str] = &["clusterTrustBundle", "podCertificate", "serviceAccountToken"];

/// Every volume of a pod.
pub(super) fn volumes(
    spec: &Object<'_>,
    scope: &Scope<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for object in objects(spec, "volumes", mistakes) {
        if object.get("name").and_then(Value::as_str).is_some_and(|n| scope.tokens.contains(n)) {
            continue;
        }
        object.known(VOLUME, VOLUME_LATER, mistakes);
        let name = label(&object, "name", mistakes);
        if name.as_ref().is_some_and(|name| volumes.iter().any(|volume| volume.name == *name)) {
            mistakes.add(
                object.at("name"),
                format!("\"{}\" is there twice", name.as_ref().unwrap_or(&String::new())),
            );
        }
        let source = exactly_one(&object, VOLUME, VOLUME_LATER, mistakes);
        let Some((source, inner)) = source else { continue };
        let source = match source {
            "emptyDir" => Some(empty_dir(&inner, mistakes)),
            "hostPath" => host_path(&inner, mistakes),
            "image" => image(&inner, mistakes),
            kind => Some(of_files(&inner, kind, scope, mistakes)),
        };
        volumes.extend(name.zip(source).map(|(name, source)| Volume { name, source }));
    }
    volumes
}

fn empty_dir(object: &Object<'_>, mistakes: &mut Mistakes) -> VolumeSource {
    object.known(EMPTY_DIR, &[], mistakes);
    let bytes = amount(object, EMPTY_DIR, "sizeLimit", bytes, mistakes);
    let text = object.get("sizeLimit").map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    // 0 is no limit, as in Kubernetes.
    let limit = bytes.filter(|bytes| *bytes > 0).zip(text);
    VolumeSource::EmptyDir {
        memory: object.word(EMPTY_DIR, "medium", mistakes) == Some("Memory"),
        limit: limit.map(|(bytes, text)| Limit { bytes, text }),
    }
}

fn host_path(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<VolumeSource> {
    object.known(HOST_PATH, &[], mistakes);
    let kind = match object.word(HOST_PATH, "type", mistakes) {
        Some("DirectoryOrCreate") => HostPathKind::DirectoryOrCreate,
        Some("Directory") => HostPathKind::Directory,
        Some("FileOrCreate") => HostPathKind::FileOrCreate,
        Some("File") => HostPathKind::File,
        Some("Socket") => HostPathKind::Socket,
        Some("CharDevice") => HostPathKind::CharDevice,
        Some("BlockDevice") => HostPathKind::BlockDevice,
        _ => HostPathKind::Unchecked,
    };
    let path = absolute(object, "path", mistakes)?.into();
    Some(VolumeSource::HostPath { path, kind })
}

fn image(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<VolumeSource> {
    object.known(IMAGE, &[], mistakes);
    let pull = pull_policy(object, IMAGE, "pullPolicy", mistakes);
    let reference = object.required("reference", mistakes)?;
    Some(VolumeSource::Image { reference, pull })
}

/// A volume of files: a ConfigMap's, a Secret's, the pod's own fields, or several of them.
fn of_files(
    object: &Object<'_>,
    kind: &str,
    scope: &Scope<'_>,
    mistakes: &mut Mistakes,
) -> VolumeSource {
    let (table, name) = match kind {
        "projected" => (PROJECTED, ""),
        "downwardAPI" => (OWN_FILES, ""),
        "secret" => (SECRET_FILES, "secretName"),
        _ => (CONFIG_FILES, "name"),
    };
    object.known(table, &[], mistakes);
    let default = mode(object, "defaultMode", mistakes)
        .unwrap_or_else(|| default_number(table, "defaultMode") as u32);
    let secret = kind == "secret";
    let files = match kind {
        "projected" => return projected(object, default, scope, mistakes),
        "downwardAPI" => fields(object, default, scope, mistakes),
        _ => keys(object, (secret, name), default, scope, mistakes),
    };
    twice(object, &files, mistakes);
    VolumeSource::Files { files, secret }
}

/// Files of several sources in one directory.
fn projected(
    object: &Object<'_>,
    default: u32,
    scope: &Scope<'_>,
    mistakes: &mut Mistakes,
) -> VolumeSource {
    let (mut all, mut secret) = (Vec::new(), false);
    for source in objects(object, "sources", mistakes) {
        source.known(SOURCE, SOURCE_LATER, mistakes);
        let kind = exactly_one(&source, SOURCE, SOURCE_LATER, mistakes);
        let Some((kind, inner)) = kind else { continue };
        if kind == "downwardAPI" {
            inner.known(SOURCE_FIELDS, &[], mistakes);
            all.extend(fields(&inner, default, scope, mistakes));
        } else {
            inner.known(SOURCE_KEYS, &[], mistakes);
            secret |= kind == "secret";
            all.extend(keys(&inner, (kind == "secret", "name"), default, scope, mistakes));
        }
    }
    twice(object, &all, mistakes);
    VolumeSource::Files { files: all, secret }
}

/// Two files of the same path.
fn twice(object: &Object<'_>, files: &[VolumeFile], mistakes: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for file in files.iter().filter(|file| !seen.insert(&file.path)) {
        let path = file.path.display();
        mistakes.add(object.path.clone(), format!("the file {path} is there twice"));
    }
}

/// Keys of a ConfigMap or, where it says so, a Secret, whose name is in the field given.
fn keys(
    object: &Object<'_>,
    (secret, name): (bool, &str),
    default: u32,
    scope: &Scope<'_>,
    mistakes: &mut Mistakes,
) -> Vec<VolumeFile> {
    let optional = object.boolean("optional", mistakes).unwrap_or(false);
    let data = scope.sources.find(secret, scope.namespace, (object, name), optional, mistakes);
    let nothing = Data::new();
    let data = match data {
        Some(data) => data,
        None if optional => &nothing,
        None => return Vec::new(),
    };
    let file = |path: String, mode: u32, data: &Vec<u8>| VolumeFile {
        path: path.into(),
        mode,
        content: Content::Bytes(data.clone()),
    };
    if object.get("items").is_none() {
        return data.iter().map(|(key, data)| file(key.clone(), default, data)).collect();
    }
    let mut files = Vec::new();
    for item in objects(object, "items", mistakes) {
        item.known(ITEM, &[], mistakes);
        let key = item.required("key", mistakes);
        let path = relative(&item, "path", true, mistakes);
        let mode = mode(&item, "mode", mistakes).unwrap_or(default);
        let Some((key, path)) = key.zip(path) else { continue };
        match data.get(&key) {
            Some(data) => files.push(file(path, mode, data)),
            None if optional => {}
            None => {
                let keys: Vec<&str> = data.keys().map(String::as_str).collect();
                let what = format!("{key:?} isn't in it; its keys are: {}", keys.join(", "));
                mistakes.add(item.at("key"), what);
            }
        }
    }
    files
}

/// Files with the pod's own fields and its containers' amounts.
fn fields(
    object: &Object<'_>,
    default: u32,
    scope: &Scope<'_>,
    mistakes: &mut Mistakes,
) -> Vec<VolumeFile> {
    let mut files = Vec::new();
    for item in objects(object, "items", mistakes) {
        item.known(FIELD_ITEM, &[], mistakes);
        let path = relative(&item, "path", true, mistakes);
        let mode = mode(&item, "mode", mistakes).unwrap_or(default);
        let value = match exactly_one(&item, FIELD_ITEM, &[], mistakes) {
            Some(("fieldRef", field)) => self::field(&field, scope, mistakes),
            Some((_, resource)) => env::resource(&resource, scope.amounts, None, mistakes),
            None => None,
        };
        files.extend(path.zip(value).map(|(path, value)| VolumeFile {
            path: path.into(),
            mode,
            content: Content::Value(value),
        }));
    }
    files
}

/// What a fieldRef of a volume names: no addresses, as its files are there before they are.
fn field(object: &Object<'_>, scope: &Scope<'_>, mistakes: &mut Mistakes) -> Option<Fact> {
    object.known(VOLUME_FIELD_REF, &[], mistakes);
    let path = object.required("fieldPath", mistakes)?;
    let value = match path.as_str() {
        "metadata.labels" => Some(Fact::Plain(lines(scope.labels))),
        "metadata.annotations" => Some(Fact::Plain(lines(scope.annotations))),
        path if path.starts_with("metadata.") => env::field(path, scope),
        _ => None,
    };
    if value.is_none() {
        let fields = allowed(VOLUME_FIELD_REF, "fieldPath");
        mistakes.add(object.at("fieldPath"), format!("is \"{path}\": {fields} are allowed"));
    }
    value
}

/// `key="value"`, a line each, as a kubelet writes labels and annotations.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
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
) -> Option<String> {
    let path =
        if required { object.required(field, mistakes) } else { object.string(field, mistakes) }?;
    let good = is_relative(&path);
    if !good {
        mistakes.add(object.at(field), format!("{path:?}: a relative path without .. is wanted"));
    }
    good.then_some(path)
}

/// The volumes of a container.
pub(super) fn mounts(
    object: &Object<'_>,
    scope: &Scope<'_>,
    privileged: bool,
    mistakes: &mut Mistakes,
) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for mount in objects(object, "volumeMounts", mistakes) {
        mount.known(VOLUME_MOUNT, &[], mistakes);
        let volume = mount.required("name", mistakes);
        if volume.as_ref().is_some_and(|name| scope.tokens.contains(name)) {
            continue;
        }
        if let Some(name) = volume.as_ref().filter(|name| !scope.volumes.contains(*name)) {
            let known: Vec<&str> = scope.volumes.iter().map(String::as_str).collect();
            let there = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            mistakes.add(mount.at("name"), format!("\"{name}\" is no volume of the pod; {there}"));
        }
        let readonly = mount.boolean("readOnly", mistakes).unwrap_or(false);
        let recursive = mount.word(VOLUME_MOUNT, "recursiveReadOnly", mistakes);
        let recursive = recursive.is_some_and(|word| word != "Disabled");
        let propagation = match mount.word(VOLUME_MOUNT, "mountPropagation", mistakes) {
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
        let sub_path_expr = relative(&mount, "subPathExpr", false, mistakes).unwrap_or_default();
        if mount.get("subPath").is_some() && mount.get("subPathExpr").is_some() {
            mistakes.add(mount.path.clone(), "subPath and subPathExpr can't both be there");
        }
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
            sub_path: sub_path.into(),
            sub_path_expr,
            readonly,
            recursive_readonly: recursive,
            propagation,
        });
    }
    mounts
}
