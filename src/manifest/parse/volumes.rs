//! volumes of a pod, and volumeMounts of a container.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::container::{Scope, pull_policy};
use super::env;
use super::files::Data;
use super::resources::amount;
use super::{absolute, label, objects, one_of};
use crate::health::fields::{Mistakes, Object};
use crate::manifest::quantity::bytes;
use crate::manifest::volumes::is_relative;
use crate::manifest::{
    Content, HostPathKind, Limit, Value as Fact, Volume, VolumeFile, VolumeMount, VolumeSource,
};
use crate::oci::model::Propagation;

/// Kinds of volume.
const SOURCES: &[&str] =
    &["emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected", "image"];
const SOURCES_LATER: &[&str] = &["csi", "ephemeral", "fc", "iscsi", "nfs", "persistentVolumeClaim"];
/// Kinds of source of a projected volume.
const PROJECTED: &[&str] = &["configMap", "secret", "downwardAPI"];
const PROJECTED_LATER: &[&str] = &["clusterTrustBundle", "podCertificate", "serviceAccountToken"];
/// What a fieldRef of a volume may name.
const FIELDS: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels, \
    metadata.labels['KEY'], metadata.annotations, metadata.annotations['KEY']";
const MOUNT: &[&str] = &[
    "name",
    "mountPath",
    "subPath",
    "subPathExpr",
    "readOnly",
    "recursiveReadOnly",
    "mountPropagation",
];
/// A ConfigMap's or Secret's file that says nothing else.
const DEFAULT_MODE: u32 = 0o644;

/// Every volume of a pod.
pub(super) fn volumes(
    spec: &Object<'_>,
    scope: &Scope<'_>,
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
        let source = exactly_one(&object, SOURCES, SOURCES_LATER, mistakes);
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

/// The one of `kinds` that an object has, and what is in it. `later`: those that haled doesn't
/// know yet.
fn exactly_one<'o>(
    object: &'o Object<'_>,
    kinds: &[&'static str],
    later: &[&str],
    mistakes: &mut Mistakes,
) -> Option<(&'static str, Object<'o>)> {
    let there: Vec<&'static str> =
        kinds.iter().copied().filter(|kind| object.get(kind).is_some()).collect();
    if let [kind] = there[..] {
        return Some((kind, object.object(kind, mistakes)?));
    }
    // One of another kind has been told already.
    if !there.is_empty() || !later.iter().any(|kind| object.get(kind).is_some()) {
        let what = format!("exactly one of {} is wanted", kinds.join(", "));
        mistakes.add(object.path.clone(), what);
    }
    None
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

fn image(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<VolumeSource> {
    object.only(&["reference", "pullPolicy"], &[], mistakes);
    let pull = pull_policy(object, "pullPolicy", mistakes);
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
    let default = mode(object, "defaultMode", mistakes).unwrap_or(DEFAULT_MODE);
    let secret_name = if kind == "secret" { "secretName" } else { "name" };
    let (files, secret) = match kind {
        "projected" => return projected(object, default, scope, mistakes),
        "downwardAPI" => {
            object.only(&["items", "defaultMode"], &[], mistakes);
            (fields(object, default, scope, mistakes), false)
        }
        _ => {
            object.only(&[secret_name, "items", "defaultMode", "optional"], &[], mistakes);
            let secret = kind == "secret";
            (keys(object, (secret, secret_name), default, scope, mistakes), secret)
        }
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
    object.only(&["sources", "defaultMode"], &[], mistakes);
    let (mut all, mut secret) = (Vec::new(), false);
    for source in objects(object, "sources", mistakes) {
        source.only(PROJECTED, PROJECTED_LATER, mistakes);
        let kind = exactly_one(&source, PROJECTED, PROJECTED_LATER, mistakes);
        let Some((kind, inner)) = kind else { continue };
        if kind == "downwardAPI" {
            inner.only(&["items"], &[], mistakes);
            all.extend(fields(&inner, default, scope, mistakes));
        } else {
            inner.only(&["name", "items", "optional"], &[], mistakes);
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
        item.only(&["key", "path", "mode"], &[], mistakes);
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
        item.only(&["path", "mode", "fieldRef", "resourceFieldRef"], &[], mistakes);
        let path = relative(&item, "path", true, mistakes);
        let mode = mode(&item, "mode", mistakes).unwrap_or(default);
        let field = item.object("fieldRef", mistakes);
        let resource = item.object("resourceFieldRef", mistakes);
        let value = match (field, resource) {
            (Some(field), None) => self::field(&field, scope, mistakes),
            (None, Some(resource)) => env::resource(&resource, scope.amounts, None, mistakes),
            _ => {
                let what = "exactly one of fieldRef and resourceFieldRef is wanted";
                mistakes.add(item.path.clone(), what);
                None
            }
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
    object.only(&["fieldPath", "apiVersion"], &[], mistakes);
    let path = object.required("fieldPath", mistakes)?;
    let value = match path.as_str() {
        "metadata.labels" => Some(Fact::Plain(lines(scope.labels))),
        "metadata.annotations" => Some(Fact::Plain(lines(scope.annotations))),
        path if path.starts_with("metadata.") => env::field(path, scope),
        _ => None,
    };
    if value.is_none() {
        mistakes.add(object.at("fieldPath"), format!("is \"{path}\": {FIELDS} are allowed"));
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
    volumes: &BTreeSet<String>,
    privileged: bool,
    mistakes: &mut Mistakes,
) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for mount in objects(object, "volumeMounts", mistakes) {
        mount.only(MOUNT, &[], mistakes);
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
