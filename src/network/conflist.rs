//! Configuration lists: reading them, and the built-in one.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Error, Settings};

/// Versions of the specification that are spoken.
const VERSIONS: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Of configurations that name none.
const OLDEST: &str = "0.1.0";
/// The longest configuration that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The name of the built-in network.
const BUILT_IN: &str = "haled-bridge";
/// The longest name of an interface, in bytes (netdevice(7): 16 with its NUL).
const MAX_INTERFACE: usize = 15;

/// A configuration list that can be used: it has a name and plugins, all with a type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conflist {
    name: String,
    version: String,
    plugins: Vec<Value>,
    disable_check: bool,
}

/// The `type` of a plugin's configuration.
pub(super) fn type_of(plugin: &Value) -> &str {
    plugin["type"].as_str().unwrap_or_default()
}

impl Conflist {
    /// From a list, or from a single plugin's configuration.
    pub(super) fn from_value(what: &str, value: Value) -> Result<Self, Error> {
        let bad =
            |why: &str| Error::BadConfiguration { what: what.to_owned(), why: why.to_owned() };
        let name = value["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| bad("it has no name"))?.to_owned();
        let version = match &value["cniVersion"] {
            Value::Null => OLDEST,
            Value::String(version) => version.as_str(),
            _ => return Err(bad("cniVersion is no text")),
        };
        if !VERSIONS.contains(&version) {
            let why = format!("cniVersion {version} is not one of {}", VERSIONS.join(", "));
            return Err(bad(&why));
        }
        let version = version.to_owned();
        let disable_check = value["disableCheck"].as_bool() == Some(true);
        let plugins = match value.get("plugins") {
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err(bad("plugins is no list")),
            None => vec![value],
        };
        if plugins.is_empty() || plugins.iter().any(|plugin| type_of(plugin).is_empty()) {
            return Err(bad("it needs at least one plugin, and each a type"));
        }
        Ok(Self { name, version, plugins, disable_check })
    }

    pub(super) fn to_value(&self) -> Value {
        json!({
            "name": self.name,
            "cniVersion": self.version,
            "disableCheck": self.disable_check,
            "plugins": self.plugins,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn plugins(&self) -> &[Value] {
        &self.plugins
    }

    /// Every executable it needs, its IPAM plugins too.
    pub(super) fn plugin_types(&self) -> Vec<String> {
        let ipam = self.plugins.iter().map(|plugin| type_of(&plugin["ipam"]));
        let types = self.plugins.iter().map(type_of).chain(ipam);
        types.filter(|kind| !kind.is_empty()).map(ToOwned::to_owned).collect()
    }

    pub(super) fn is_built_in(&self) -> bool {
        self.name == BUILT_IN
    }

    /// CHECK came with 0.4.0.
    pub(super) fn has_check(&self) -> bool {
        let at = VERSIONS.iter().position(|version| *version == self.version);
        !self.disable_check && at >= VERSIONS.iter().position(|version| *version == "0.4.0")
    }

    /// What a plugin gets on its standard input.
    pub(super) fn plugin_input(
        &self,
        plugin: &Value,
        capabilities: Map<String, Value>,
        previous: Option<&Value>,
    ) -> Value {
        let mut input = plugin.clone();
        input["name"] = json!(self.name);
        input["cniVersion"] = json!(self.version);
        if let Some(object) = input.as_object_mut() {
            // It declares what a runtime may give; the plugin itself has no use for it.
            object.remove("capabilities");
        }
        if !capabilities.is_empty() {
            input["runtimeConfig"] = Value::Object(capabilities);
        }
        if let Some(previous) = previous {
            input["prevResult"] = previous.clone();
        }
        input
    }

    pub(super) fn failed(&self, plugin: &Value, command: &'static str, why: String) -> Error {
        let plugin = type_of(plugin).to_owned();
        Error::Plugin { plugin, network: self.name.clone(), command, why }
    }
}

/// What was read of a directory, and what it looked like then.
#[derive(Debug, Default)]
pub(super) struct Cache {
    looked: Vec<Looks>,
    found: Option<Conflist>,
    broken: Vec<String>,
}

/// A file as far as a change of it shows: path, inode, size, change time.
type Looks = (PathBuf, u64, u64, (i64, i64));

impl Cache {
    /// The first usable configuration by name. Files before it that can't be used are
    /// reported once, when they change.
    pub(super) fn read(&mut self, dir: &Path) -> Result<Conflist, Error> {
        let looks = look(dir);
        if looks != self.looked {
            self.found = None;
            self.broken.clear();
            for (path, ..) in &looks {
                match read(path) {
                    Ok(conflist) => {
                        self.found = Some(conflist);
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "passing over a network configuration");
                        self.broken.push(error.to_string());
                    }
                }
            }
            self.looked = looks;
        }
        self.found.clone().ok_or_else(|| Error::NoConfiguration {
            dir: dir.to_owned(),
            broken: self.broken.clone(),
        })
    }
}

/// The configuration files of a directory, by name. A directory that can't be read has none.
fn look(dir: &Path) -> Vec<Looks> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut looks: Vec<Looks> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("conflist" | "conf" | "json"))
        })
        .filter_map(|path| {
            let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
            Some((path, meta.ino(), meta.size(), (meta.ctime(), meta.ctime_nsec())))
        })
        .collect();
    looks.sort();
    looks
}

fn read(path: &Path) -> Result<Conflist, Error> {
    use std::io::Read as _;
    let what = path.display().to_string();
    let bad = |why: String| Error::BadConfiguration { what: what.clone(), why };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text);
    if length.map_err(|error| bad(error.to_string()))? as u64 > MAX_FILE {
        return Err(bad(format!("it is longer than {MAX_FILE} bytes")));
    }
    let value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    Conflist::from_value(&what, value)
}

/// The built-in network: a bridge with addresses of its own subnet, masqueraded. Port mapping
/// and bandwidth only where they are needed: each costs the run of an executable.
pub(super) fn default_bridge(
    settings: &Settings,
    ports: bool,
    bandwidth: bool,
) -> Result<Conflist, Error> {
    let bad = |what: &str, why: String| Error::BadConfiguration { what: what.to_owned(), why };
    let name = &settings.bridge_name;
    if name.is_empty() || name.len() > MAX_INTERFACE || name.contains(['/', ' ', ':']) {
        let why = format!("\"{name}\" is no interface name: 1 to {MAX_INTERFACE} bytes are");
        return Err(bad("network.bridge_name", why));
    }
    let subnet = &settings.bridge_subnet;
    let default_route = match subnet.split_once('/').map(|(ip, bits)| (ip.parse(), bits.parse())) {
        Some((Ok(IpAddr::V4(_)), Ok(0..=30u8))) => "0.0.0.0/0",
        Some((Ok(IpAddr::V6(_)), Ok(0..=126u8))) => "::/0",
        _ => {
            let why = format!("\"{subnet}\" is no subnet with room for pods, like 10.88.0.0/16");
            return Err(bad("network.bridge_subnet", why));
        }
    };
    let mut plugins = vec![json!({
        "type": "bridge",
        "bridge": name,
        "isGateway": true,
        "ipMasq": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "ranges": [[{ "subnet": subnet }]],
            "routes": [{ "dst": default_route }],
            "dataDir": settings.data_dir.join("addresses"),
        },
    })];
    if ports {
        let capabilities = json!({ "portMappings": true });
        plugins.push(json!({ "type": "portmap", "snat": true, "capabilities": capabilities }));
    }
    if bandwidth {
        plugins.push(json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }));
    }
    let list = json!({ "name": BUILT_IN, "cniVersion": "1.0.0", "plugins": plugins });
    Conflist::from_value("of the built-in bridge", list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, subnet: &str) -> Settings {
        Settings { bridge_name: name.into(), bridge_subnet: subnet.into(), ..Settings::default() }
    }

    #[test]
    fn a_single_configuration_is_a_list_of_one() {
        let plugin = json!({ "name": "net", "cniVersion": "0.3.1", "type": "bridge" });
        let list = Conflist::from_value("test", plugin).unwrap();
        assert_eq!(list.plugin_types(), ["bridge"]);
        assert!(!list.has_check());
        assert_eq!(Conflist::from_value("test", list.to_value()).unwrap(), list);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        for (value, why) in [
            (json!({}), "no name"),
            (json!({ "name": "n" }), "type"),
            (json!({ "name": "n", "plugins": [] }), "at least one"),
            (json!({ "name": "n", "plugins": {} }), "no list"),
            (json!({ "name": "n", "type": "t", "cniVersion": "9.9" }), "9.9"),
            (json!({ "name": "n", "plugins": [{ "type": 7 }] }), "type"),
            (json!([1]), "no name"),
        ] {
            let error = Conflist::from_value("file", value).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_first_usable_file_counts_and_changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::default();
        assert!(matches!(cache.read(dir.path()), Err(Error::NoConfiguration { .. })));
        std::fs::write(dir.path().join("10-broken.conflist"), "{").unwrap();
        let error = cache.read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("10-broken.conflist"), "{error}");
        let good = |name: &str| json!({ "name": name, "type": "bridge" }).to_string();
        std::fs::write(dir.path().join("30-b.conf"), good("b")).unwrap();
        assert_eq!(cache.read(dir.path()).unwrap().name(), "b");
        std::fs::write(dir.path().join("20-a.json"), good("a")).unwrap();
        assert_eq!(cache.read(dir.path()).unwrap().name(), "a");
        std::fs::write(dir.path().join("00-readme.txt"), "not one").unwrap();
        assert_eq!(cache.read(dir.path()).unwrap().name(), "a");
    }

    #[test]
    fn the_built_in_bridge_checks_its_settings() {
        assert!(default_bridge(&settings("haled0", "10.88.0.0/16"), true, true).is_ok());
        assert!(default_bridge(&settings("haled0", "fd00:1::/64"), false, false).is_ok());
        for (name, subnet) in [
            ("", "10.0.0.0/8"),
            ("a name of 16 by", "10.0.0.0/8"),
            ("br", "10.0.0.0"),
            ("br", "10.0.0.0/32"),
            ("br", "x/8"),
        ] {
            assert!(
                default_bridge(&settings(name, subnet), false, false).is_err(),
                "{name} {subnet}"
            );
        }
    }

    #[test]
    fn a_plugins_input_has_its_own_keys_and_the_lists() {
        let list = default_bridge(&settings("haled0", "10.88.0.0/16"), true, false).unwrap();
        let input = list.plugin_input(&list.plugins()[1], Map::new(), Some(&json!({ "ips": [] })));
        assert_eq!(input["name"], BUILT_IN);
        assert_eq!(input["prevResult"], json!({ "ips": [] }));
        assert!(input.get("capabilities").is_none() && input.get("runtimeConfig").is_none());
    }
}
