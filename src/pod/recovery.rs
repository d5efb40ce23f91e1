//! After a daemon's start: every recorded pod is found again, and what has no record goes.
//!
//! Three things are compared: the records, the monitors that still run, and the exit records
//! that monitors have left. What was begun is finished or undone.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::driver::{Driver, Parts};
use super::record::{Phase, SandboxRecord};
use super::registry::{NOTICES, Pods};
use super::{Error, Services, sandbox};
use crate::container::record::ContainerRecord;
use crate::container::state::{Ended, Init, State};
use crate::container::{Place, remove};
use crate::id::{ContainerId, SandboxId};
use crate::monitor::client::Monitor;
use crate::monitor::wire::{Entry, Exit, Inventory};
use crate::store::SetAside;
use crate::sys::mount;

/// Finds every pod again.
pub async fn recover(services: Arc<Services>) -> Result<Pods, Error> {
    std::fs::create_dir_all(&services.pods_dir)
        .map_err(Error::io("cannot make", &services.pods_dir))?;
    let (sandboxes, aside) = services.store.all::<SandboxRecord>()?;
    report(&aside);
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
    // Containers whose pod has no readable record can't be driven by anyone.
    for (id, record) in by_pod.into_values().flatten() {
        tracing::error!(container = %id, sandbox = %record.sandbox, "a container without a pod is removed");
        services.store.delete::<ContainerRecord>(id.as_str())?;
    }
    let known: Vec<SandboxId> = found.iter().map(|(id, ..)| id.clone()).collect();
    clear_strays(&services, &known).await;

    let back = found
        .into_iter()
        .map(|(id, record, containers)| find_again(&services, &pods, id, record, containers));
    let mut live = Vec::new();
    for (driver, handle) in join_all(back).await {
        let containers: Vec<ContainerId> = driver.containers.iter().map(|c| c.id.clone()).collect();
        live.extend(containers.iter().cloned());
        pods.adopt(driver, handle, containers);
    }
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
    Ok(pods)
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
        match Monitor::connect(dir.clone(), notices.0.clone()).await {
            Ok((monitor, inventory)) => (Some(monitor), inventory),
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "the pod's monitor can't be reached");
                (None, Inventory::default())
            }
        }
    };
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
    });

    let parent = sandbox::cgroup_parent(services, &record.config);
    let mut whole = Vec::new();
    for (container, record) in containers.drain(..) {
        let place = Place::new(&container, &dir, &parent);
        let unfinished =
            record.state == State::Created && !place.bundle.join("config.json").exists();
        if unfinished {
            tracing::info!(container = %container, "removing a container whose creation was cut off");
            let removed = remove::files(&services.images, &place).await;
            let deleted = services.store.delete::<ContainerRecord>(container.as_str());
            if let (Err(error), _) | (Ok(()), Err(error)) =
                (removed.map_err(Error::from), deleted.map_err(Error::from))
            {
                tracing::error!(container = %container, %error, "cannot remove it");
            }
        } else {
            whole.push((container, record));
        }
    }
    let states: Vec<State> = whole.iter().map(|(_, record)| record.state.clone()).collect();
    let swept = monitor.is_none();
    let parts = Parts { id, record, runtime, containers: whole, monitor, notices };
    let (mut driver, handle) = Driver::new(services.clone(), pods.clone(), parts);
    let exits = if swept { Monitor::exits_on_disk(&dir) } else { Vec::new() };
    for (at, state) in states.into_iter().enumerate() {
        let id = driver.containers[at].id.to_string();
        let entry = inventory.containers.iter().find(|entry| entry.container == id);
        reconcile(&mut driver, at, &state, entry, exits.iter().find(|(of, _)| *of == id));
    }
    if swept {
        driver.sweep();
    }
    driver.save();
    (driver, handle)
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
            }
        }
        (None, Some((_, exit))) => driver.ended(at, Ended::from_exit(exit, None)),
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

/// Run directories without a record: their monitors, mounts and files go.
async fn clear_strays(services: &Services, known: &[SandboxId]) {
    let Ok(entries) = std::fs::read_dir(&services.pods_dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if known.iter().any(|id| name == id.as_str()) {
            continue;
        }
        let dir = entry.path();
        tracing::warn!(dir = %dir.display(), "removing what is left of a pod without a record");
        if let Err(error) = clear_stray(&dir).await {
            tracing::error!(dir = %dir.display(), %error, "cannot remove it");
        }
    }
}

async fn clear_stray(dir: &Path) -> std::io::Result<()> {
    let (sender, _notices) = mpsc::channel(NOTICES);
    if let Ok((monitor, inventory)) = Monitor::connect(dir.to_owned(), sender).await {
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
    for name in ["pins/net", "pins/ipc", "pins/uts", "pins/pid", "shm"] {
        mount::detach(&dir.join(name))?;
    }
    std::fs::remove_dir_all(dir)
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
