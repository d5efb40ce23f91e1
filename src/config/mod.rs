//! The daemon's TOML file: schema, defaults, validation, documentation.
//!
//! Parsed at start and at a reload; no other room reads it: each is handed its own settings.
//!
//! `file` turns TOML into values and knows where each stood, `schema` says which keys there
//! are, `check` what each may be. Never here: the environment, the command line, or a look at
//! whether a path exists.

mod check;
mod file;
mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that can be set. `Default` is what an empty file means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Images, records, logs: survives a reboot. `/var/lib/haled`.
    pub root: PathBuf,
    /// Sockets, namespaces, bundles: gone after a reboot. `/run/haled`.
    pub state: PathBuf,
    /// The CRI socket. `/run/haled/haled.sock`.
    pub listen: PathBuf,
    /// Where haled-monitor, haled-pause and haled-agent are; `None`: beside haled, then ../libexec/haled.
    pub helper_dir: Option<PathBuf>,
    /// `[runtime]`.
    pub runtime: RuntimeConfig,
    /// `[network]`.
    pub network: NetworkConfig,
    /// `[image]`.
    pub image: ImageConfig,
    /// `[stream]`.
    pub stream: StreamConfig,
    /// `[healing]`.
    pub healing: HealingConfig,
    /// `[manifest]`.
    pub manifest: ManifestConfig,
    /// `[status]`.
    pub status: StatusConfig,
    /// `[tracing]`.
    pub tracing: TracingConfig,
    /// `[nri]`.
    pub nri: NriConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The handler of pods that name none. `runc`.
    pub default_handler: String,
    /// `[runtime.handlers.NAME]`. `runc` and `crun` by default.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Who makes pods' cgroups. By what runs the machine.
    pub cgroup_driver: CgroupDriver,
    /// Parent of pods that come without one. None: `/haled`, with systemd `haled.slice`.
    pub cgroup_parent: Option<String>,
    /// Where Localhost seccomp profiles with a relative path are. `/var/lib/kubelet/seccomp`.
    pub seccomp_dir: PathBuf,
    /// Whether a container may go on from a checkpoint. false.
    pub restore_checkpoints: bool,
    /// The file of block I/O classes. None.
    pub blockio_config_file: Option<PathBuf>,
}

/// `cgroup_driver` of `[runtime]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupDriver {
    /// systemd where it runs a machine of cgroup v2, else cgroupfs.
    #[default]
    Auto,
    /// haled and the OCI runtime.
    Cgroupfs,
    /// systemd.
    Systemd,
}

/// `[runtime.handlers.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandlerConfig {
    /// Absolute, or a bare name for PATH. The handler's name.
    pub path: PathBuf,
    /// Given to it before any command. None.
    pub args: Vec<String>,
    /// Where it keeps its state. `<state>/runtimes/<handler>`.
    pub root: Option<PathBuf>,
    /// Privileged containers have only the devices they ask for. `false`.
    pub privileged_without_host_devices: bool,
    /// And may make and use others all the same. `false`.
    pub privileged_without_host_devices_all_devices_allowed: bool,
    /// Patterns of pod annotations that the OCI runtime is told. None.
    pub pod_annotations: Vec<String>,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// `/opt/cni/bin`, `/usr/lib/cni`, `/usr/libexec/cni`.
    pub plugin_dirs: Vec<PathBuf>,
    /// false.
    pub default_bridge: bool,
    /// `haled0`.
    pub bridge_name: String,
    /// `10.88.0.0/16`.
    pub bridge_subnet: String,
}

/// `[image]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// `/etc/haled/certs.d`, `/etc/containerd/certs.d`.
    pub certs_dirs: Vec<PathBuf>,
    /// Layers fetched at once for one image. 3.
    pub parallel_layers: usize,
}

/// `[stream]`: exec, attach and port-forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// `127.0.0.1`.
    pub address: String,
    /// 0: any that is free.
    pub port: usize,
    /// 4 h.
    pub idle_limit: Duration,
    /// 30 s.
    pub creation_limit: Duration,
    /// PEM; set together with `tls_key`. None: without TLS.
    pub tls_cert: Option<PathBuf>,
    /// PEM.
    pub tls_key: Option<PathBuf>,
}

/// `[healing]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealingConfig {
    /// 10 s.
    pub backoff_initial: Duration,
    /// 300 s.
    pub backoff_max: Duration,
    /// 10 min.
    pub backoff_reset: Duration,
    /// A CRI connection open for this long is an orchestrator's. 10 s.
    pub orchestrator_open: Duration,
    /// While it is used within this time. 20 s.
    pub orchestrator_used: Duration,
}

/// `[manifest]`: pods without a kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestConfig {
    /// Pods of the manifests in it run. `/etc/haled/manifests`.
    pub dir: PathBuf,
}

/// `[status]`: the page and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusConfig {
    /// An address with a port; empty: nothing is served.
    pub listen: String,
}

/// `[tracing]`: traces of calls, for a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracingConfig {
    /// `http://HOST:PORT`, OTLP by gRPC; empty: no traces.
    pub otlp_endpoint: String,
    /// Of a hundred calls whose client says nothing, as many are traced. 100.
    pub sample_percent: usize,
}

/// `[nri]`: plugins of the Node Resource Interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NriConfig {
    /// false.
    pub enable: bool,
    /// Where plugins connect. `/var/run/nri/nri.sock`.
    pub socket_path: PathBuf,
    /// Programs that are started as plugins. `/opt/nri/plugins`.
    pub plugin_path: PathBuf,
    /// Their configurations. `/etc/nri/conf.d`.
    pub plugin_config_path: PathBuf,
    /// Until a plugin that has connected registers. 5 s.
    pub plugin_registration_timeout: Duration,
    /// For each answer of a plugin. 2 s.
    pub plugin_request_timeout: Duration,
    /// Only plugins that haled starts. false.
    pub disable_connections: bool,
}

/// `[log]`: the daemon's own, and those of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `info`; a tracing filter.
    pub level: String,
    /// JSON lines in place of text.
    pub json: bool,
    /// A container's log with more bytes is rotated, where no kubelet does. 10 MiB.
    pub max_size: Bytes,
    /// Files kept of a container's log, the current one included. 5.
    pub max_files: usize,
}

/// A number of bytes: `"10MiB"` in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Why a file was refused: file, line, key, what was found, what is allowed. One line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Where the file is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/haled/config.toml";
/// The directory of further files, beside the file.
pub const DROP_INS: &str = "config.d";
/// Files in it: more is a slip.
const DROP_INS_LIMIT: usize = 256;
/// The longest file that is read, in bytes.
const LENGTH_LIMIT: u64 = 1 << 20;

impl Config {
    /// Reads the file that was named, or the one at [`DEFAULT_PATH`], which may be missing; and
    /// over it every `*.toml` in the directory [`DROP_INS`] beside it, in the order of their
    /// names: key by key, so that a table that a file has keeps what it doesn't say. An unknown
    /// key is refused with the nearest one.
    pub fn find(named: Option<&Path>) -> Result<Self, Error> {
        let main = named.unwrap_or(Path::new(DEFAULT_PATH));
        let mut paths = Vec::new();
        if named.is_some() || main.exists() {
            paths.push(main.to_owned());
        }
        let dir = main.with_file_name(DROP_INS);
        let drop_ins = drop_ins(&dir)
            .map_err(|error| Error(format!("cannot read {}: {error}", dir.display())))?;
        paths.extend(drop_ins);
        let load = |path: PathBuf| match read(&path) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(Error(format!("cannot read {}: {error}", path.display()))),
        };
        let files: Vec<_> = paths.into_iter().map(load).collect::<Result<_, _>>()?;
        Self::parse(&files)
    }

    /// Reads files' texts, each over those before it; their paths are only named in errors.
    pub fn parse(files: &[(PathBuf, String)]) -> Result<Self, Error> {
        let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
        schema::read(&texts).map_err(|mistakes| {
            let line = |(at, mistake): &(usize, file::Mistake)| {
                let path = files[*at].0.display();
                match mistake.line {
                    Some(line) => format!("{path}:{line}: {}", mistake.what),
                    None => format!("{path}: {}", mistake.what),
                }
            };
            Error(mistakes.iter().map(line).collect::<Vec<_>>().join("\n"))
        })
    }

    /// What a daemon that runs with these settings can take of `new`, and the tables and keys
    /// that it can't: they need a restart.
    pub fn reloaded(&self, new: &Self) -> (Self, Vec<&'static str>) {
        let mut taken = self.clone();
        taken.healing.clone_from(&new.healing);
        taken.log.level.clone_from(&new.log.level);
        let left = [
            ("root", taken.root != new.root),
            ("state", taken.state != new.state),
            ("listen", taken.listen != new.listen),
            ("helper_dir", taken.helper_dir != new.helper_dir),
            ("runtime", taken.runtime != new.runtime),
            ("network", taken.network != new.network),
            ("image", taken.image != new.image),
            ("stream", taken.stream != new.stream),
            ("manifest", taken.manifest != new.manifest),
            ("status", taken.status != new.status),
            ("tracing", taken.tracing != new.tracing),
            ("nri", taken.nri != new.nri),
            ("log.json", taken.log.json != new.log.json),
        ];
        (taken, left.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect())
    }

    /// Whether every value is one that may be: for after the command line has changed some.
    pub fn check(&self) -> Result<(), Error> {
        let mistakes = check::mistakes(self);
        if mistakes.is_empty() {
            return Ok(());
        }
        let lines = mistakes.iter().map(|(key, what)| format!("{key}: {what}"));
        Err(Error(lines.collect::<Vec<_>>().join("\n")))
    }

    /// The settings as a file that means the same; what is not the default is marked.
    pub fn text(&self) -> String {
        schema::write(self)
    }

    /// The documented default file, as `haled config default` prints it.
    pub fn default_text() -> &'static str {
        include_str!("default.toml")
    }
}

/// None there: none.
fn drop_ins(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
        if paths.len() > DROP_INS_LIMIT {
            let why = format!("more than {DROP_INS_LIMIT} files are there");
            return Err(std::io::Error::other(why));
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(LENGTH_LIMIT + 1).read_to_string(&mut text)?;
    if read as u64 > LENGTH_LIMIT {
        return Err(std::io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
