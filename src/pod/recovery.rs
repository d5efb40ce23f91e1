//! After a daemon's start: every recorded pod is found again, and what has no record goes.
//!
//! Three things are compared: the records, the monitors that still run, and the exit records
//! that monitors have left. What was begun is finished or undone.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::cgroup::Cgroups;
use super::changes::Told;
use super::driver::{Driver, Parts};
use super::record::{Phase, SandboxRecord};
use super::registry::{NOTICES, Pods};
use super::{Error, Services, sandbox};
use crate::container::record::ContainerRecord;
use crate::container::state::{Ended, Init, State};
use crate::container::{Place, exec, remove};
use crate::id::{ContainerId, SandboxId};
use crate::monitor::client::{Error as MonitorError, Monitor, Notice};
use crate::monitor::wire::{Entry, Exit, Inventory};
use crate::store::SetAside;
use crate::sys::cgroup;

/// How long a monitor that lives may take until it can be talked to.
const REACH_LIMIT: Duration = Duration::from_secs(30);

/// Between two attempts to talk to it.
const REACH_PAUSE: Duration = Duration::from_millis(500);

/// Finds every pod again.
pub async fn recover(services: Arc<Services>) -> Result<Pods, Error> {
    make_private(&services.pods_dir).map_err(Error::io("cannot make", &services.pods_dir))?;
    let (sandboxes, unreadable) = services.store.all::<SandboxRecord>()?;
    report(&unreadable);
    let (containers, aside) = services.store.all::<ContainerRecord>()?;
    report(&aside);

    let mut by_pod: HashMap<SandboxId, Vec<(ContainerId, ContainerRecord)>> = HashMap::new();
    for (id, record) in containers {
        match id.parse::<ContainerId>() {
            Ok(id) => by_pod.entry(record.sandbox.clone()).or_default().push((id, record)),
            Err(error) => tracing::error!(%error, "a container's record has no usable key"),
        }
    }
    let pods = Pods::new(services.clone());
    let mut found = Vec::new();
    for (id, record) in sandboxes {
        match id.parse::<SandboxId>() {
            Ok(id) => {
                let mut containers = by_pod.remove(&id).unwrap_or_default();
                containers.sort_by_key(|(_, record)| record.created_at);
                found.push((id, record, containers));
            }
            Err(error) => tracing::error!(%error, "a pod's record has no usable key"),
        }
    }
    // What belongs to a pod whose record can't be read is left as it is: it may be a newer
    // haled's, and it may run.
    let mut live: Vec<ContainerId> = Vec::new();
    by_pod.retain(|sandbox, containers| {
        let unreadable = unreadable.iter().any(|record| record.key == sandbox.as_str());
        if unreadable {
            live.extend(containers.iter().map(|(id, _)| id.clone()));
        }
        !unreadable
    });
    for (id, record) in by_pod.into_values().flatten() {
        tracing::error!(container = %id, sandbox = %record.sandbox, "a container without a pod is removed");
        services.store.delete::<ContainerRecord>(id.as_str())?;
    }
    let mut known: Vec<String> = found.iter().map(|(id, ..)| id.to_string()).collect();
    known.extend(unreadable.into_iter().map(|record| record.key));
    clear_strays(&services, &known).await;

    let back = found
        .into_iter()
        .map(|(id, record, containers)| find_again(&services, &pods, id, record, containers));
    let drivers = join_all(back).await;
    live.extend(drivers.iter().flat_map(|(driver, _)| &driver.containers).map(|c| c.id.clone()));
    match services.images.release_all_but(&live).await {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => {
            tracing::info!(count = gone.len(), "removed root file systems without a container");
        }
        Err(error) => {
            tracing::error!(%error, "cannot remove root file systems without a container");
        }
    }
    for runtime in services.runtimes.values() {
        remove_unknown(runtime, &live).await;
    }
    super::plugins::adopt(&services, drivers.iter().map(|(driver, _)| driver)).await;
    // Only now: a driver that goes makes containers that are not in `live`.
    for (driver, handle) in drivers {
        pods.adopt(driver, handle);
    }
    Ok(pods)
}

/// Below it are the environments of containers.
fn make_private(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

fn report(aside: &[SetAside]) {
    for record in aside {
        tracing::error!(
            kind = record.kind,
            key = record.key,
            why = record.why,
            "a record can't be read and was set aside"
        );
    }
}

/// Puts one pod's driver together from its record and what is there.
async fn find_again(
    services: &Arc<Services>,
    pods: &Pods,
    id: SandboxId,
    mut record: SandboxRecord,
    mut containers: Vec<(ContainerId, ContainerRecord)>,
) -> (Driver, super::driver::Handle) {
    let dir = services.pods_dir.join(&id);
    let notices = mpsc::channel(NOTICES);
    let (monitor, inventory) = if record.phase == Phase::Stopped {
        (None, Inventory::default())
    } else {
        match reach(&dir, &notices.0).await {
            Ok((monitor, inventory)) => (Some(monitor), inventory),
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "the pod's monitor can't be reached");
                (None, Inventory::default())
            }
        }
    };
    let phase_before = record.phase.clone();
    match &record.phase {
        Phase::Starting => {
            record.phase = Phase::Stopping { network: None, then_remove: true };
        }
        Phase::Ready { network, .. } if monitor.is_none() || inventory.pause.is_none() => {
            let why = "its processes went away while haled did not run".to_owned();
            record.phase = Phase::Lost { network: network.clone(), why };
        }
        _ => {}
    }
    let runtime = pods.runtime(&record.config.runtime_handler).or_else(|error| {
        tracing::error!(sandbox = %id, %error, "using the default handler");
        pods.runtime("")
    });
    let runtime = runtime.unwrap_or_else(|_| crate::oci::Runtime {
        name: record.config.runtime_handler.clone(),
        path: record.config.runtime_handler.clone().into(),
        root: services.pods_dir.clone(),
        keeper: services.monitor.clone(),
        settings: crate::oci::RuntimeSettings::default(),
    });

    let cgroups = Cgroups::of(services, &id, &record.config);
    let (mut whole, mut lost) = (Vec::new(), Vec::new());
    for (container, record) in containers.drain(..) {
        let place = Place::new(&container, &dir, &cgroups.within);
        // One that healing made and never started is made anew by healing.
        let unfinished = record.state == State::Created
            && (record.made_by_healing || !place.config_file().exists());
        if unfinished {
            tracing::info!(container = %container, "removing a container whose creation was cut off");
            if place.config_file().exists() {
                lost.push(container.clone());
            }
            let removed = remove::files(&services.images, &place).await;
            let deleted = services.store.delete::<ContainerRecord>(container.as_str());
            if let (Err(error), _) | (Ok(()), Err(error)) =
                (removed.map_err(Error::from), deleted.map_err(Error::from))
            {
                tracing::error!(container = %container, %error, "cannot remove it");
            }
        } else {
            let ended = tokio::task::spawn_blocking(move || {
                // A checkpoint was cut off; nothing else freezes a container.
                match cgroup::thaw(&place.cgroup) {
                    Ok(false) => {}
                    Ok(true) => tracing::warn!(container = %place.id, "it stood still: it goes on"),
                    Err(error) => tracing::error!(container = %place.id, %error, "cannot thaw it"),
                }
                exec::end_leftovers(&place);
            });
            if let Err(error) = ended.await {
                tracing::error!(%container, %error, "cannot end what was executed in it");
            }
            whole.push((container, record));
        }
    }
    // One that holds its lock is alive, though nobody can talk to it.
    if monitor.is_none() && !Monitor::lives(&dir) {
        end_what_runs(&whole, &dir, &cgroups.within).await;
    }
    let states: Vec<State> = whole.iter().map(|(_, record)| record.state.clone()).collect();
    let swept = monitor.is_none();
    let parts = Parts { id, record, runtime, containers: whole, monitor, notices };
    let (mut driver, handle) = Driver::new(services.clone(), pods.clone(), parts);
    // What changed while no daemon was there is told to those who come to listen.
    let mut told = Told::until(&handle.view.load(), &phase_before);
    for container in lost {
        told.lost(container);
    }
    driver.told = Some(told);
    let exits = if swept { Monitor::exits_on_disk(&dir) } else { Vec::new() };
    for (at, state) in states.into_iter().enumerate() {
        let id = driver.containers[at].id.to_string();
        let entry = inventory.containers.iter().find(|entry| entry.container == id);
        reconcile(&mut driver, at, &state, entry, exits.iter().find(|(of, _)| *of == id));
    }
    driver.save();
    driver.publish();
    (driver, handle)
}

/// Connects to a pod's monitor; one that lives and is busy is given time.
async fn reach(
    dir: &Path,
    notices: &mpsc::Sender<Notice>,
) -> Result<(Monitor, Inventory), MonitorError> {
    let end = Instant::now() + REACH_LIMIT;
    loop {
        match Monitor::connect(dir.to_owned(), notices.clone()).await {
            Err(error) if Monitor::lives(dir) && Instant::now() < end => {
                tracing::debug!(dir = %dir.display(), %error, "asking the pod's monitor again");
                tokio::time::sleep(REACH_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Containers outlive their monitor's death, but nobody would ever learn how they end.
async fn end_what_runs(containers: &[(ContainerId, ContainerRecord)], dir: &Path, within: &str) {
    let may_run = |(_, record): &&(ContainerId, ContainerRecord)| {
        matches!(record.state, State::Starting | State::Running(_))
    };
    let cgroups: Vec<String> = containers
        .iter()
        .filter(may_run)
        .map(|(id, _)| Place::new(id, dir, within).cgroup)
        .collect();
    let kill = move || {
        for cgroup in cgroups {
            if let Err(error) = cgroup::kill(&cgroup) {
                tracing::error!(cgroup, %error, "cannot end what a lost monitor left");
            }
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(kill).await {
        tracing::error!(%error, "cannot end what a lost monitor left");
    }
}

/// Brings one container's state up to what its monitor, or what that left, says.
fn reconcile(
    driver: &mut Driver,
    at: usize,
    state: &State,
    entry: Option<&Entry>,
    exit: Option<&(String, Exit)>,
) {
    if !matches!(state, State::Starting | State::Running(_)) {
        return;
    }
    match (entry, exit) {
        (Some(Entry { started, exit, .. }), _) => {
            let init = Init {
                pid: started.init.pid,
                start_ticks: started.init.start_ticks,
                started_at: started.at,
            };
            driver.running(at, init, Some(spread()));
            if let Some(exit) = exit {
                driver.exited(at, exit.clone());
            } else if driver.containers[at].record.killed.is_some() {
                // Its stop was cut off; without a new one it would run on, judged and unprobed.
                driver.begin_stop(at, driver.pod_grace(at));
            }
        }
        (None, Some((_, exit))) => driver.exited(at, exit.clone()),
        (None, None) => match state {
            // The monitor may be at it still; asked again it joins what goes on.
            State::Starting if driver.monitor.is_some() => driver.begin_start(at),
            State::Running(init) => {
                let message = "it ended while haled and the pod's monitor did not run";
                let now = SystemTime::now();
                driver.ended(at, Ended::unseen(init.started_at, now, "Unknown", message));
            }
            _ => {
                let message = "it was being started when haled and the pod's monitor ended";
                driver.ended(at, Ended::start_failed(SystemTime::now(), message.to_owned()));
            }
        },
    }
}

/// Anywhere in 0.0..1.0: how far into its period each probe first runs.
fn spread() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

/// Run directories without a record: their processes, addresses, mounts and files go.
async fn clear_strays(services: &Services, known: &[String]) {
    let Ok(entries) = std::fs::read_dir(&services.pods_dir) else { return };
    let strays = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| !known.iter().any(|id| id == name))?;
        // What isn't named by an id isn't haled's.
        name.parse::<SandboxId>().ok()
    });
    join_all(strays.map(|id| async move {
        tracing::warn!(sandbox = %id, "removing what is left of a pod without a record");
        end_stray(&services.pods_dir.join(&id)).await;
        if let Err(error) = sandbox::take_down_stray(services, &id).await {
            tracing::error!(sandbox = %id, %error, "cannot remove it");
        }
    }))
    .await;
}

/// Its containers, by its monitor if that still lives.
async fn end_stray(dir: &Path) {
    let (sender, _notices) = mpsc::channel(NOTICES);
    let Ok((monitor, inventory)) = Monitor::connect(dir.to_owned(), sender).await else { return };
    for entry in inventory.containers.iter().filter(|entry| entry.exit.is_none()) {
        if let Err(error) = monitor.signal(&entry.container, libc::SIGKILL).await {
            tracing::warn!(container = entry.container, %error, "cannot kill it");
        }
    }
    for _ in 0..50 {
        if monitor.shutdown().await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Containers that the OCI runtime knows and haled doesn't.
async fn remove_unknown(runtime: &crate::oci::Runtime, live: &[ContainerId]) {
    if !runtime.root.exists() {
        return;
    }
    match runtime.list().await {
        Ok(ids) => {
            for id in ids.iter().filter(|id| !live.iter().any(|live| live.as_str() == id.as_str()))
            {
                tracing::warn!(
                    container = id,
                    runtime = runtime.name,
                    "removing a container without a record"
                );
                if let Err(error) = runtime.delete(id).await {
                    tracing::error!(container = id, %error, "cannot remove it");
                }
            }
        }
        Err(error) => tracing::warn!(runtime = runtime.name, %error, "cannot list its containers"),
    }
}
