//! Pod networks: CNI configuration, plugins and results.
//!
//! Knows network namespaces by path and nothing of pods, monitors or the CRI. The protocol is
//! CNI's (containernetworking/cni, SPEC.md, versions 0.1.0 to 1.1.0), spoken natively:
//! `conflist` reads configurations, `capability` what a pod asks of them, `plugin` calls the
//! executables, `result` reads what they answer. The loopback interface of a sandbox is
//! brought up where its namespace is made.

mod capability;
mod conflist;
mod plugin;
mod result;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::Instrument as _;

use conflist::Conflist;

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// In the pod.
    pub container_port: u16,
    /// On the host; never 0.
    pub host_port: u16,
    /// The host's address; `None`: all.
    pub host_ip: Option<IpAddr>,
}

/// A pod's DNS settings (resolv.conf(5)); empty lists: the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses.
    pub servers: Vec<String>,
    /// Domains.
    pub searches: Vec<String>,
    /// `ndots:5`.
    pub options: Vec<String>,
}

/// What a sandbox asks of its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub sandbox_id: String,
    /// CNI_NETNS: where the namespace is pinned.
    pub netns: PathBuf,
    /// For CNI_ARGS' K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID.
    pub uid: String,
    /// Capability `portMappings`.
    pub port_mappings: Vec<PortMapping>,
    /// Capability `dns`.
    pub dns: Dns,
    /// The pod's annotations: `kubernetes.io/ingress-bandwidth` and `egress-bandwidth` become
    /// capability `bandwidth`.
    pub annotations: BTreeMap<String, String>,
}

/// What an ADD gave. Stored with the sandbox: DEL and CHECK need it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// The network's name.
    pub network: String,
    /// The pod's addresses, the first is the primary.
    pub ips: Vec<IpAddr>,
    /// The configuration list as it was used.
    pub conflist: serde_json::Value,
    /// The last plugin's result, for prevResult.
    pub result: serde_json::Value,
}

/// ` (one) (two)`.
fn in_brackets(reasons: &[String]) -> String {
    reasons.iter().flat_map(|why| [" (", why, ")"]).collect()
}

/// Why a network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable configuration.
    #[error("no CNI configuration in {}{}: install a network plugin or set network.default_bridge = true", dir.display(), in_brackets(broken))]
    NoConfiguration {
        /// Where it was looked for.
        dir: PathBuf,
        /// What is wrong with the files that are there.
        broken: Vec<String>,
    },
    /// The configuration can't be used.
    #[error("CNI configuration {what}: {why}")]
    BadConfiguration {
        /// The file, or the setting.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A plugin isn't installed.
    #[error("CNI plugin \"{plugin}\" is in none of {}: install it or set network.plugin_dirs", dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "))]
    MissingPlugin {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// A plugin refused, in its own words.
    #[error("CNI plugin \"{plugin}\" failed to {command} network \"{network}\": {why}")]
    Plugin {
        /// Its type.
        plugin: String,
        /// The network's name.
        network: String,
        /// `ADD`, `DEL` or `CHECK`.
        command: &'static str,
        /// The plugin's words, or what is wrong with its answer.
        why: String,
    },
    /// An annotation that the network takes its settings from.
    #[error("annotation \"{key}\": {why}")]
    Annotation {
        /// The key.
        key: &'static str,
        /// What was found, what is allowed.
        why: String,
    },
}

/// The settings of this room.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where *.conflist, *.conf and *.json are looked for; the first by name is used.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in order.
    pub plugin_dirs: Vec<PathBuf>,
    /// CNI's own cache and the bridge's address store go below it.
    pub data_dir: PathBuf,
    /// Use a built-in bridge configuration where `conf_dir` has none.
    pub default_bridge: bool,
    /// The built-in bridge's interface.
    pub bridge_name: String,
    /// The built-in bridge's subnet, in CIDR form.
    pub bridge_subnet: String,
}

/// What plugins say they speak, or why one says nothing.
pub type Spoken = BTreeMap<String, Result<Vec<String>, String>>;

/// The pod network of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    cache: Mutex<conflist::Cache>,
    pod_cidrs: Mutex<Vec<String>>,
}

impl Network {
    /// A network by these settings; touches nothing yet.
    pub fn new(settings: Settings) -> Self {
        let (cache, pod_cidrs) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { settings, cache, pod_cidrs }) }
    }

    /// The node's part of the pod network, one range or two with a comma between, from an
    /// orchestrator that hands it out: capability `ipRanges` of plugins that declare it.
    pub fn set_pod_cidrs(&self, cidrs: &str) -> Result<(), String> {
        let range = |text: &str| {
            let (address, bits) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            (bits <= if address.is_ipv4() { 32 } else { 128 }).then(|| text.to_owned())
        };
        let read = cidrs.split(',').map(|text| {
            range(text.trim()).ok_or_else(|| format!("\"{text}\" is no range such as 10.0.0.0/24"))
        });
        let read = read.collect::<Result<Vec<String>, String>>()?;
        *self.inner.pod_cidrs.lock().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// Whether pods can be attached; else why not, for NetworkReady. The configuration
    /// directory is read anew when it changed.
    pub fn ready(&self) -> Result<(), Error> {
        let conflist = self.inner.conflist()?;
        for plugin in conflist.plugin_types() {
            plugin::find(&plugin, &self.inner.settings.plugin_dirs)?;
        }
        Ok(())
    }

    /// The version of the configuration, and the versions that each plugin it needs speaks (CNI
    /// VERSION), or why one gives none.
    pub async fn versions(&self) -> Result<(String, Spoken), Error> {
        let conflist = self.inner.conflist()?;
        let mut spoken = Spoken::new();
        for plugin in conflist.plugin_types() {
            let dirs = &self.inner.settings.plugin_dirs;
            let versions = plugin::versions(&plugin, dirs, conflist.version()).await;
            spoken.insert(plugin, versions);
        }
        Ok((conflist.version().to_owned(), spoken))
    }

    /// CNI ADD by every plugin of the list. A failure has undone what was done (DEL), and a
    /// caller that goes away changes nothing: the work goes on.
    pub async fn add(&self, attachment: &Attachment) -> Result<Attached, Error> {
        let (inner, attachment) = (self.inner.clone(), attachment.clone());
        detached(async move { inner.add(&attachment).await }).await
    }

    /// CNI CHECK. Networks older than CNI 0.4.0 know none.
    pub async fn check(&self, attachment: &Attachment, attached: &Attached) -> Result<(), Error> {
        let conflist = Conflist::from_value("stored with the pod", attached.conflist.clone())?;
        if !conflist.has_check() {
            return Ok(());
        }
        for plugin in conflist.plugins() {
            let previous = Some(&attached.result);
            self.inner.call("CHECK", &conflist, plugin, attachment, previous).await?;
        }
        Ok(())
    }

    /// CNI DEL, in reverse order. Idempotent: what is gone already is no error.
    /// `None`: an ADD whose result is not known was tried with today's configuration.
    pub async fn del(
        &self,
        attachment: &Attachment,
        attached: Option<&Attached>,
    ) -> Result<(), Error> {
        let (inner, attachment) = (self.inner.clone(), attachment.clone());
        let attached = attached.cloned();
        detached(async move {
            let (conflist, previous) = match attached {
                Some(attached) => {
                    let conflist = Conflist::from_value("stored with the pod", attached.conflist)?;
                    (conflist, Some(attached.result))
                }
                None => match inner.conflist_for(&attachment) {
                    Ok(conflist) => (conflist, None),
                    // Without a configuration nothing can have been added.
                    Err(Error::NoConfiguration { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                },
            };
            inner.del(&conflist, conflist.plugins().len(), &attachment, previous.as_ref()).await
        })
        .await
    }
}

/// Reads what a network takes from a pod's annotations, so that a bad one is refused before
/// anything is made.
pub fn check_annotations(annotations: &BTreeMap<String, String>) -> Result<(), Error> {
    capability::bandwidth(annotations).map(drop)
}

/// Runs to its end, whatever becomes of the caller.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Inner {
    /// The configuration of this moment.
    fn conflist(&self) -> Result<Conflist, Error> {
        let settings = &self.settings;
        let found = {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.read(&settings.conf_dir)
        };
        match found {
            Err(Error::NoConfiguration { .. }) if settings.default_bridge => {
                conflist::default_bridge(settings, true, true)
            }
            found => found,
        }
    }

    /// The same; the built-in bridge only has the plugins that this pod needs.
    fn conflist_for(&self, attachment: &Attachment) -> Result<Conflist, Error> {
        let conflist = self.conflist()?;
        if !conflist.is_built_in() {
            return Ok(conflist);
        }
        let ports = !attachment.port_mappings.is_empty();
        // A bad annotation is the plugin call's to report.
        let bandwidth = attachment.annotations.keys().any(|key| capability::is_bandwidth(key));
        conflist::default_bridge(&self.settings, ports, bandwidth)
    }

    async fn add(&self, attachment: &Attachment) -> Result<Attached, Error> {
        let conflist = self.conflist_for(attachment)?;
        let mut previous: Option<Value> = None;
        for (at, plugin) in conflist.plugins().iter().enumerate() {
            let result = self.call("ADD", &conflist, plugin, attachment, previous.as_ref()).await;
            let result = result.and_then(|text| {
                serde_json::from_str::<Value>(&text).map_err(|error| {
                    conflist.failed(plugin, "ADD", format!("its result is no JSON: {error}"))
                })
            });
            match result {
                Ok(value) => previous = Some(value),
                Err(error) => {
                    // The one that failed may have done half of it.
                    let undone = self.del(&conflist, at + 1, attachment, previous.as_ref()).await;
                    if let Err(error) = undone {
                        tracing::warn!(sandbox = attachment.sandbox_id, %error, "cannot undo a failed attachment");
                    }
                    return Err(error);
                }
            }
        }
        let result = previous.unwrap_or(Value::Null);
        let ips = result::ips(&result);
        if ips.is_empty() {
            let undone =
                self.del(&conflist, conflist.plugins().len(), attachment, Some(&result)).await;
            if let Err(error) = undone {
                tracing::warn!(sandbox = attachment.sandbox_id, %error, "cannot undo an attachment without an address");
            }
            let last = conflist.plugins().last().unwrap_or(&Value::Null);
            return Err(conflist.failed(last, "ADD", "its result has no IP address".to_owned()));
        }
        Ok(Attached {
            network: conflist.name().to_owned(),
            ips,
            conflist: conflist.to_value(),
            result,
        })
    }

    /// DEL by the first `count` plugins, the last of them first. All are asked, whatever one
    /// says; the first error is given.
    async fn del(
        &self,
        conflist: &Conflist,
        count: usize,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Result<(), Error> {
        let mut failed = None;
        for plugin in conflist.plugins().iter().take(count).rev() {
            match self.call("DEL", conflist, plugin, attachment, previous).await {
                // Where no ADD is known to have succeeded, it failed for want of this plugin.
                Err(error @ Error::MissingPlugin { .. }) if previous.is_none() => {
                    tracing::debug!(sandbox = attachment.sandbox_id, %error, "not asked to undo");
                }
                Err(error) => drop(failed.get_or_insert(error)),
                Ok(_) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Calls one plugin and gives its standard output.
    async fn call(
        &self,
        command: &'static str,
        conflist: &Conflist,
        plugin: &Value,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Result<String, Error> {
        let pod_cidrs = self.pod_cidrs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let capabilities = capability::for_plugin(plugin, attachment, &pod_cidrs);
        // What no ADD has been given, no DEL needs.
        let capabilities =
            if command == "DEL" { capabilities.unwrap_or_default() } else { capabilities? };
        let input = conflist.plugin_input(plugin, capabilities, previous);
        let call = plugin::Call {
            plugin: conflist::type_of(plugin),
            network: conflist.name(),
            command,
            attachment,
            input: &input,
            dirs: &self.settings.plugin_dirs,
        };
        call.run().await
    }
}

/// Takes any text as what a plugin prints, and as a configuration.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    drop(result::error(text));
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        result::ips(&value);
        drop(conflist::Conflist::from_value("fuzz", value));
    }
}
