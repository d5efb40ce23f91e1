//! Making a sandbox and taking it down: directories, cgroup, monitor, pause, network.
//!
//! Every step of taking down is idempotent, so that it serves a failed start, a stop that is
//! tried again, and what a crash left.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use tokio::sync::mpsc;

use super::cgroup::Cgroups;
use super::config::SandboxConfig;
use super::{Error, Services, files};
use crate::id::SandboxId;
use crate::meter::{self, System};
use crate::monitor::client::{Monitor, Notice};
use crate::monitor::wire::{Process, SandboxSpec};
use crate::network::{Attached, Attachment};
use crate::oci::model::{PidMode, Sharing};
use crate::sys::birthplace::Birthplace;
use crate::sys::mount;
use crate::sys::userns::IdMaps;

/// Size of a pod's /dev/shm, as other runtimes have it.
const SHM_BYTES: u64 = 64 * 1024 * 1024;

/// oom_score_adj of pause: the last to go, as kubelets expect of sandboxes.
const PAUSE_OOM_SCORE_ADJ: i32 = -998;

/// A sandbox that is up.
pub(super) struct Up {
    pub(super) monitor: Monitor,
    pub(super) pause: Process,
    pub(super) network: Option<Attached>,
}

/// Makes everything. On failure the caller takes down what there is.
pub(super) async fn start(
    services: &Services,
    id: &SandboxId,
    config: &SandboxConfig,
    notices: mpsc::Sender<Notice>,
) -> Result<Up, Error> {
    let dir = services.pods_dir.join(id);
    let cgroup = {
        let (dir, config) = (dir.clone(), config.clone());
        let cgroups = Cgroups::of(services, id, &config);
        blocking(move || {
            directories(&dir, &config)?;
            cgroups.make()
        })
        .await?
    };
    let of_monitor = |source| Error::Monitor { id: id.clone(), source };
    let spawned = Monitor::spawn(services.monitor.clone(), dir.clone(), notices);
    let spawned = meter::timed(System::Monitor, "haled-monitor", "spawn", spawned).await;
    let monitor = spawned.map_err(of_monitor)?;
    match furnish(services, id, config, cgroup, &monitor).await {
        Ok((pause, network)) => Ok(Up { monitor, pause, network }),
        Err(error) => {
            // The namespaces stay pinned, for CNI DEL.
            if let Err(error) = monitor.shutdown().await {
                tracing::warn!(sandbox = %id, %error, "the monitor did not shut down by itself");
            }
            Err(error)
        }
    }
}

/// Pause in its cgroup and the network, beside a monitor that is there.
async fn furnish(
    services: &Services,
    id: &SandboxId,
    config: &SandboxConfig,
    cgroup: Option<Birthplace>,
    monitor: &Monitor,
) -> Result<(Process, Option<Attached>), Error> {
    let dir = services.pods_dir.join(id);
    let label = config.selinux_label(id).map_err(|error| Error::Invalid(error.to_string()))?;
    let pause = monitor
        .sandbox(SandboxSpec {
            pause: services.pause.clone(),
            network: config.network == Sharing::Pod,
            ipc: config.ipc == Sharing::Pod,
            uts: config.network == Sharing::Pod,
            // Also where containers have their own: one may still ask for the pod's.
            pid: config.pid != PidMode::Node,
            hostname: config.hostname.clone(),
            sysctls: config.sysctls.clone().into_iter().collect(),
            oom_score_adj: PAUSE_OOM_SCORE_ADJ,
            userns: config.userns.clone(),
            cgroup,
            label,
            pins: dir.join("pins"),
        })
        .await
        .map_err(|source| Error::Monitor { id: id.clone(), source })?;
    let (cgroups, pid) = (Cgroups::of(services, id, config), pause.pid);
    blocking(move || cgroups.take_in(pid)).await?;
    if config.network == Sharing::Node {
        return Ok((pause, None));
    }
    let attached = services.network.add(&attachment(id, &dir, config)).await;
    let attached = attached.map_err(|source| Error::Network { id: id.clone(), source })?;
    let (config, ips) = (config.clone(), attached.ips.clone());
    blocking(move || write_hosts(&dir, &config, &ips)).await?;
    Ok((pause, Some(attached)))
}

/// Takes everything down but the directory, which still has what the exited containers
/// left. `network`: `None` where ADD's result isn't known.
pub(super) async fn take_down(
    services: &Services,
    id: &SandboxId,
    config: &SandboxConfig,
    monitor: Option<&Monitor>,
    network: Option<&Attached>,
) -> Result<(), Error> {
    let dir = services.pods_dir.join(id);
    let detached = if config.network == Sharing::Pod {
        services.network.del(&attachment(id, &dir, config), network).await
    } else {
        Ok(())
    };
    // Whatever the network says, no process stays.
    if let Some(monitor) = monitor {
        // A monitor that is gone, or refuses, is no reason to keep the rest: its pause is
        // in a cgroup that is emptied next.
        if let Err(error) = monitor.shutdown().await {
            tracing::warn!(sandbox = %id, %error, "the monitor did not shut down by itself");
        }
    }
    let (cgroups, of_dir) = (Cgroups::of(services, id, config), dir.clone());
    blocking(move || {
        cgroups.end()?;
        unpin(&of_dir, &["pins/ipc", "pins/uts", "pins/pid", "pins/user", "shm"])?;
        cgroups.remove()
    })
    .await?;
    detached.map_err(|source| Error::Network { id: id.clone(), source })?;
    // Only now: DEL, tried again, needs it.
    blocking(move || unpin(&dir, &["pins/net"])).await
}

/// Takes down what is left of a pod that nobody remembers, as far as its id tells.
pub(super) async fn take_down_stray(services: &Services, id: &SandboxId) -> Result<(), Error> {
    let config = SandboxConfig::default();
    take_down(services, id, &config, None, None).await?;
    delete_directory(services.pods_dir.join(id)).await
}

/// Deletes the run directory of a pod that is down.
pub(super) async fn delete_directory(dir: PathBuf) -> Result<(), Error> {
    blocking(move || {
        // Volumes that are still mounted in a bundle would be deleted along.
        mount::detach_below(&dir).map_err(Error::io("cannot unmount what is below", &dir))?;
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("cannot delete", &dir)(error))
            }
            _ => Ok(()),
        }
    })
    .await
}

/// Unmounts, and deletes what was mounted on: a file that is left would pass for a namespace.
fn unpin(dir: &Path, names: &[&str]) -> Result<(), Error> {
    for path in names.iter().map(|name| dir.join(name)) {
        mount::detach(&path).map_err(Error::io("cannot unmount", &path))?;
        // /dev/shm is a directory, and goes with the rest.
        if path.is_file() {
            std::fs::remove_file(&path).map_err(Error::io("cannot delete", &path))?;
        }
    }
    Ok(())
}

/// The pod as its network sees it.
fn attachment(id: &SandboxId, dir: &Path, config: &SandboxConfig) -> Attachment {
    Attachment {
        sandbox_id: id.to_string(),
        netns: dir.join("pins/net"),
        namespace: config.namespace.clone(),
        name: config.name.clone(),
        uid: config.uid.clone(),
        port_mappings: config.port_mappings.clone(),
        dns: config.dns.clone().unwrap_or_default(),
        annotations: config.annotations.clone(),
    }
}

fn directories(dir: &Path, config: &SandboxConfig) -> Result<(), Error> {
    for part in ["pins", "containers", "shm"] {
        let path = dir.join(part);
        std::fs::create_dir_all(&path).map_err(Error::io("cannot make", &path))?;
    }
    if config.ipc == Sharing::Pod {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let shm = dir.join("shm");
        let (user, group) = root_ids(config);
        let data = format!("mode=1777,size={SHM_BYTES},uid={user},gid={group}");
        meter::timed_blocking(System::Mount, "tmpfs", "mount", || {
            mount::mount("tmpfs", &shm, flags, &data)
        })
        .map_err(Error::io("cannot mount the pod's /dev/shm at", &shm))?;
    }
    if !config.log_directory.as_os_str().is_empty() {
        std::fs::create_dir_all(&config.log_directory)
            .map_err(Error::io("cannot make log directory", &config.log_directory))?;
    }
    let hostname = if config.hostname.is_empty() { host_name() } else { config.hostname.clone() };
    write(dir, "hostname", &format!("{hostname}\n"))?;
    let resolv = match &config.dns {
        Some(dns) => files::resolv_conf(dns).map_err(|bad| Error::Invalid(bad.to_string()))?,
        None => files::host_resolv_conf()
            .map_err(Error::io("cannot read", "/etc/resolv.conf".as_ref()))?,
    };
    write(dir, "resolv.conf", &resolv)?;
    if config.network == Sharing::Node {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        write(dir, "hosts", &(hosts + &files::host_aliases(&config.host_aliases)))?;
    } else {
        write_hosts(dir, config, &[])?;
    }
    let (user, group) = root_ids(config);
    for path in ["hostname", "resolv.conf", "hosts"].map(|name| dir.join(name)) {
        std::os::unix::fs::chown(&path, Some(user), Some(group))
            .map_err(Error::io("cannot set the owner of", &path))?;
    }
    Ok(())
}

/// The user and group on the host that are the pod's root.
fn root_ids(config: &SandboxConfig) -> (u32, u32) {
    config.userns.as_ref().and_then(IdMaps::root).unwrap_or((0, 0))
}

fn write_hosts(dir: &Path, config: &SandboxConfig, ips: &[IpAddr]) -> Result<(), Error> {
    write(dir, "hosts", &files::hosts(&config.hostname, ips, &config.host_aliases))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = dir.join(name);
    std::fs::write(&path, text).map_err(Error::io("cannot write", &path))
}

fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.unwrap_or_else(|panic| {
        Err(Error::Invalid(format!("a step on the sandbox failed: {panic}")))
    })
}
