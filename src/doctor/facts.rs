//! What there is on this machine, seen without changing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};

use crate::config::Config;
use crate::daemon;
use crate::network::Network;
use crate::oci::{self, Runtime, RuntimeSettings};
use crate::sys::userns::{IdMaps, Range};
use crate::sys::{cgroup, clock, filesystem, idmap, overlay, selinux, socket, systemd};

/// Controllers that something of a pod depends on.
pub(super) const CONTROLLERS: [&str; 7] =
    ["cpu", "cpuset", "memory", "pids", "devices", "io", "hugetlb"];
/// Numbers below /proc/sys that pods depend on.
pub(super) const SYSCTLS: [&str; 6] = [
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/pid_max",
    "user/max_user_namespaces",
];

/// The facts.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// What is wrong with the settings.
    pub(super) mistake: Option<String>,
    /// Run by root, of the user namespace that this is.
    pub(super) root_user: bool,
    /// `ID` and `ID_LIKE` of os-release(5).
    pub(super) distribution: String,
    /// uname(2)'s release.
    pub(super) kernel: String,
    pub(super) cgroups: Cgroups,
    /// Who makes pods' cgroups, and where; or why nobody can.
    pub(super) driver: Result<(&'static str, String), String>,
    /// The version of the systemd that runs the machine, or why it doesn't answer. `None`: none does.
    pub(super) systemd: Option<Result<String, String>>,
    /// Of /proc/self/ns.
    pub(super) namespaces: BTreeSet<String>,
    /// What came of mounting with other owners.
    pub(super) idmapped_mounts: Result<(), String>,
    pub(super) overlay: Result<(), String>,
    pub(super) seccomp: bool,
    pub(super) apparmor: bool,
    pub(super) selinux: bool,
    /// The effective capabilities.
    pub(super) capabilities: BTreeSet<String>,
    pub(super) default_handler: String,
    pub(super) handlers: BTreeMap<String, Handler>,
    /// Programs that haled or its plugins start, where they are.
    pub(super) programs: BTreeMap<&'static str, PathBuf>,
    pub(super) helpers: Result<PathBuf, String>,
    pub(super) network: Result<Plugins, String>,
    /// `iptables --version`; `None`: it isn't there.
    pub(super) iptables: Option<Result<String, String>>,
    pub(super) default_bridge: bool,
    /// By their path below /proc/sys; those that there are.
    pub(super) sysctls: BTreeMap<&'static str, u64>,
    pub(super) root: Result<Disk, String>,
    pub(super) state: Result<Disk, String>,
    pub(super) clock: Result<bool, String>,
    pub(super) listen: PathBuf,
    /// Who answers there: the program's name and pid.
    pub(super) listener: Option<(String, i32)>,
}

/// Where the controllers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroups {
    pub(super) v2: bool,
    /// A unified hierarchy beside those of v1.
    pub(super) hybrid: bool,
    /// And controllers in both.
    pub(super) divided: bool,
    /// Of [`CONTROLLERS`]; in a machine of v1 `io` is `blkio`.
    pub(super) controllers: BTreeSet<String>,
    /// v2: those that the root hands down to the cgroups below it.
    pub(super) handed_down: BTreeSet<String>,
    /// The root of the hierarchies can be written to, as far as mount options go.
    pub(super) writable: bool,
}

/// An OCI runtime of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handler {
    pub(super) path: PathBuf,
    /// The first line of its `--version`; or why there is none.
    pub(super) version: Result<String, String>,
    /// It mounts recursively read-only, by its own account.
    pub(super) recursive_readonly: bool,
}

/// What the pod network is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plugins {
    /// Of CNI, by the configuration.
    pub(super) version: String,
    /// Those that each plugin speaks by its own account, or why it gives none.
    pub(super) speak: BTreeMap<String, Result<Vec<String>, String>>,
}

/// The file system of a directory, or of the nearest above it that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    /// `ext4`; empty where no mount tells.
    pub(super) kind: String,
    pub(super) bytes: u64,
    pub(super) bytes_free: u64,
    /// 0 where it makes them as it goes.
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

impl Facts {
    /// Looks at it all. Starts the OCI runtimes (`--version`, `features`), and the pause helper
    /// to try a mount in a user namespace. Blocks.
    pub(super) fn read(config: &Config, mistake: Option<String>) -> Result<Self, String> {
        let helpers = ["haled-monitor", "haled-agent"]
            .iter()
            .try_for_each(|name| daemon::helper(config, name).map(drop))
            .and_then(|()| daemon::helper(config, "haled-pause"));
        let capabilities = caps::read(None, CapSet::Effective)
            .map_err(|error| format!("cannot read this process's capabilities: {error}"))?;
        let programs = ["criu", "apparmor_parser"];
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start: {error}"))?;
        let programs = programs.map(|name| oci::resolve_path(name).map(|path| (name, path)));
        Ok(Self {
            mistake,
            root_user: rustix::process::geteuid().is_root(),
            distribution: distribution(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cgroups: cgroups(),
            driver: daemon::cgroups(&config.runtime)
                .map(|(driver, parent)| (driver.name(), parent)),
            systemd: systemd::is_here()
                .then(|| systemd::version().map_err(|error| error.to_string())),
            namespaces: names_in("/proc/self/ns"),
            idmapped_mounts: idmapped_mounts(config, &helpers),
            overlay: overlay::is_supported().map_err(|error| error.to_string()),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            apparmor: std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y')),
            selinux: selinux::is_active(),
            capabilities: capabilities.iter().map(Capability::to_string).collect(),
            default_handler: config.runtime.default_handler.clone(),
            handlers: executor.block_on(handlers(config)),
            programs: programs.into_iter().flatten().collect(),
            helpers,
            network: executor.block_on(plugins(config)),
            iptables: executor.block_on(iptables()),
            default_bridge: config.network.default_bridge,
            sysctls: SYSCTLS.iter().filter_map(|name| Some((*name, sysctl(name)?))).collect(),
            root: disk(&config.root),
            state: disk(&config.state),
            clock: clock::is_synchronised().map_err(|error| error.to_string()),
            listen: config.listen.clone(),
            listener: listener(&config.listen),
        })
    }
}

/// The names of a directory's entries; one that can't be read has none.
fn names_in(dir: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn distribution() -> String {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
    format!("{} {}", value("ID="), value("ID_LIKE=")).replace('"', "")
}

fn cgroups() -> Cgroups {
    let v2 = cgroup::version() == cgroup::Version::V2;
    let unified =
        cgroup::unified_directory("/x").and_then(|below| Some(below.parent()?.to_owned()));
    let known_as = |name: &'static str| if name == "io" && !v2 { "blkio" } else { name };
    // On v2 devices are a matter of BPF, without a controller.
    let there = |name: &&&'static str| {
        (v2 && **name == "devices") || cgroup::has_controller(known_as(name))
    };
    let of_unified = |file: &str| {
        let read = |root: &PathBuf| std::fs::read_to_string(root.join(file)).ok();
        unified.as_ref().and_then(read).unwrap_or_default()
    };
    let handed_down = of_unified("cgroup.subtree_control");
    let some = if v2 { unified.clone() } else { cgroup::directory("memory", "/x") };
    let writable = some
        .and_then(|path| rustix::fs::statvfs(if v2 { &path } else { path.parent()? }).ok())
        .is_some_and(|space| !space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    Cgroups {
        v2,
        hybrid: !v2 && unified.is_some(),
        divided: !v2 && !of_unified("cgroup.controllers").trim().is_empty(),
        controllers: CONTROLLERS.iter().filter(there).map(|&name| name.to_owned()).collect(),
        handed_down: handed_down.split_whitespace().map(str::to_owned).collect(),
        writable,
    }
}

/// Tries what a pod with a user namespace needs of the disk that images are on.
fn idmapped_mounts(config: &Config, helpers: &Result<PathBuf, String>) -> Result<(), String> {
    let pause = helpers.as_ref().map_err(|_| "it can't be tried without haled-pause".to_owned())?;
    let range = Range { inside: 0, outside: 1 << 16, count: 1 << 16 };
    let maps = IdMaps { uids: vec![range], gids: vec![range] };
    let dir = nearest(&config.root.join("images"));
    idmap::check(&dir, pause, &maps).map_err(|error| error.to_string())
}

async fn handlers(config: &Config) -> BTreeMap<String, Handler> {
    let mut handlers = BTreeMap::new();
    for (name, handler) in &config.runtime.handlers {
        handlers.insert(name.clone(), examine(name, &handler.path).await);
    }
    handlers
}

async fn examine(name: &str, path: &Path) -> Handler {
    let Some(found) = path.to_str().and_then(oci::resolve_path) else {
        let why = format!("not found at {}", path.display());
        return Handler { path: path.to_owned(), version: Err(why), recursive_readonly: false };
    };
    let runtime = program(name, found);
    let version = runtime.version().await.map_err(|error| error.to_string());
    let recursive_readonly = version.is_ok() && runtime.mounts_recursively_readonly().await;
    Handler { path: runtime.path, version, recursive_readonly }
}

/// A program that is only asked what it is.
fn program(name: &str, path: PathBuf) -> Runtime {
    Runtime {
        name: name.to_owned(),
        path,
        // None of these is used for that.
        root: PathBuf::new(),
        keeper: PathBuf::new(),
        settings: RuntimeSettings::default(),
    }
}

/// The first line of its `--version`, or why there is none; `None`: it isn't there.
async fn iptables() -> Option<Result<String, String>> {
    let path = oci::resolve_path("iptables")?;
    Some(program("iptables", path).version().await.map_err(|error| error.to_string()))
}

async fn plugins(config: &Config) -> Result<Plugins, String> {
    let network = Network::new(daemon::network_settings(config));
    network.ready().map_err(|error| error.to_string())?;
    let (version, speak) = network.versions().await.map_err(|error| error.to_string())?;
    Ok(Plugins { version, speak })
}

fn sysctl(name: &str) -> Option<u64> {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// The path itself, or the first above it that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|each| each.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn disk(path: &Path) -> Result<Disk, String> {
    let there = nearest(path);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", there.display());
    let space = rustix::fs::statvfs(&there).map_err(|error| failed(&error))?;
    Ok(Disk {
        path: path.to_owned(),
        kind: filesystem::kind(&there).map_err(|error| failed(&error))?.unwrap_or_default(),
        bytes: space.f_blocks.saturating_mul(space.f_frsize),
        bytes_free: space.f_bavail.saturating_mul(space.f_frsize),
        inodes: space.f_files,
        inodes_free: space.f_favail,
    })
}

/// A socket's file without anyone behind it refuses, and counts as none.
fn listener(path: &Path) -> Option<(String, i32)> {
    let stream = UnixStream::connect(path).ok()?;
    let pid = socket::peer_pid(&stream).unwrap_or(0);
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "a program".to_owned(), |name| name.trim_end().to_owned());
    Some((name, pid))
}
