//! Devices by name, as vendors describe them (Container Device Interface 1.0): files in
//! /etc/cdi and /var/run/cdi, and what they change of a configuration.

mod inject;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
pub(super) use inject::inject;

/// Where descriptions are; the later goes before the earlier.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// The field, in the words of the container's configuration.
pub(super) const FIELD: &str = "CDI_devices";
/// Bytes read of one description.
const MAX_FILE: u64 = 4 << 20;
/// Descriptions in one directory.
const MAX_FILES: usize = 1024;

/// What a device changes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    #[serde(rename = "additionalGids")]
    pub(super) groups: Vec<u32>,
}

/// A device node. What isn't given is as on the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// In the container.
    pub(super) path: PathBuf,
    /// On the host, where it is another.
    pub(super) host_path: Option<PathBuf>,
    /// `rwm`.
    #[serde(default)]
    pub(super) permissions: String,
    /// `b`, `c` or `u`, or `p`.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A mount of the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
    /// `bind` unless given.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// A hook of the OCI runtime.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    #[serde(rename = "hookName")]
    pub(super) name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    /// Seconds.
    pub(super) timeout: Option<i64>,
}

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    /// `vendor.com/class`.
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    /// For whichever of its devices is used.
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What these devices change, in order; a description's own part once. Blocks for reads.
pub(super) fn resolve(names: &[String]) -> Result<Vec<Edits>, Error> {
    resolve_in(&DIRECTORIES.map(Path::new), names)
}

fn resolve_in(directories: &[&Path], names: &[String]) -> Result<Vec<Edits>, Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let (found, broken) = descriptions(directories)?;
    let mut edits = Vec::new();
    let mut used = BTreeSet::new();
    let mut given = BTreeSet::new();
    for name in names {
        if !given.insert(name) {
            continue;
        }
        let parts = name.split_once('=').filter(|(kind, device)| {
            !device.is_empty() && kind.split('/').filter(|part| !part.is_empty()).count() == 2
        });
        let Some((kind, device)) = parts else {
            let why = "is no name of a CDI device: vendor.com/class=device is one";
            return Err(Error::invalid(FIELD, name, why));
        };
        let mut holders = Vec::new();
        // The last directory that knows it decides.
        for (path, description) in found.iter().rev().filter(|(_, d)| d.kind == kind) {
            if let Some(it) = description.devices.iter().find(|it| it.name == device) {
                holders.push((path, description, it));
            }
        }
        let Some((path, description, it)) = holders.first() else {
            return Err(unknown(name, directories, &broken));
        };
        let twin = holders.get(1).filter(|(other, ..)| other.parent() == path.parent());
        if let Some((other, ..)) = twin {
            let (path, other) = (path.display(), other.display());
            let why = format!("{name} is described twice, in {other} and in {path}");
            return Err(Error::unsupported(FIELD, why));
        }
        if used.insert(*path) {
            edits.push(description.container_edits.clone());
        }
        edits.push(it.container_edits.clone());
    }
    Ok(edits)
}

fn unknown(name: &str, directories: &[&Path], broken: &BTreeMap<PathBuf, String>) -> Error {
    let places: Vec<_> = directories.iter().map(|dir| dir.display().to_string()).collect();
    let mut why = format!("no description in {} has the device {name}", places.join(" or "));
    for (path, cause) in broken {
        why += &[" (", &path.to_string_lossy(), " can't be read: ", cause, ")"].concat();
    }
    Error::unsupported(FIELD, why)
}

type Found = (Vec<(PathBuf, Description)>, BTreeMap<PathBuf, String>);

/// Every description, and those that can't be used with their faults: one vendor's mistake
/// doesn't take another's devices away.
fn descriptions(directories: &[&Path]) -> Result<Found, Error> {
    let mut found = Vec::new();
    let mut broken = BTreeMap::new();
    for directory in directories {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries
                .map_err(|error| Error::host(format!("list {}", directory.display()), error))?,
        };
        let is_one = |path: &PathBuf| {
            path.extension().is_some_and(|end| ["json", "yaml", "yml"].iter().any(|e| end == *e))
        };
        let mut paths: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
        paths.sort();
        for path in paths.into_iter().take(MAX_FILES) {
            match read(&path) {
                Ok(description) => found.push((path, description)),
                Err(cause) => drop(broken.insert(path, cause)),
            }
        }
    }
    Ok((found, broken))
}

fn read(path: &Path) -> Result<Description, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| error.to_string())?;
    // JSON is YAML.
    serde_saphyr::from_str(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    fn device(kind: &str, name: &str, env: &str) -> String {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"{kind}","containerEdits":{{"env":["ALL=1"]}},
            "devices":[{{"name":"{name}","containerEdits":{{"env":["{env}"]}}}}]}}"#
        )
    }

    #[test]
    fn the_later_directory_decides_and_a_common_part_comes_once() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = [one.path(), two.path(), Path::new("/no/such")];
        fs::write(one.path().join("a.json"), device("v.com/gpu", "0", "A=old")).unwrap();
        fs::write(two.path().join("a.json"), device("v.com/gpu", "0", "A=new")).unwrap();
        fs::write(
            one.path().join("b.yaml"),
            "cdiVersion: 0.6.0\nkind: v.com/net\ndevices:\n- name: eth\n  containerEdits:\n    env: [N=1]\n- name: ib\n  containerEdits: {}\n",
        )
        .unwrap();
        fs::write(one.path().join("broken.json"), "{").unwrap();
        let env = |list: &[&str]| -> Result<Vec<String>, String> {
            let edits = resolve_in(&dirs, &names(list)).map_err(|error| error.to_string())?;
            Ok(edits.into_iter().flat_map(|edits| edits.env).collect())
        };
        assert_eq!(env(&[]).unwrap(), [""; 0]);
        assert_eq!(env(&["v.com/gpu=0", "v.com/gpu=0"]).unwrap(), ["ALL=1", "A=new"]);
        assert_eq!(env(&["v.com/net=eth", "v.com/net=ib"]).unwrap(), ["N=1"]);
        let error = env(&["v.com/gpu=1"]).unwrap_err();
        assert!(error.contains("v.com/gpu=1") && error.contains("broken.json"), "{error}");
        for bad in ["gpu=0", "v.com/gpu", "v.com/gpu=", "/gpu=0", ""] {
            assert!(env(&[bad]).unwrap_err().contains("vendor.com/class=device"), "{bad}");
        }
        fs::write(two.path().join("z.json"), device("v.com/gpu", "0", "A=x")).unwrap();
        assert!(env(&["v.com/gpu=0"]).unwrap_err().contains("twice"));
    }
}
