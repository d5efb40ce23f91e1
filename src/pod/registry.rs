//! Every pod by id and by name, and the way to each pod's driver.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::cgroup::Cgroups;
use super::config::{SandboxConfig, SandboxResources};
use super::driver::{Driver, Handle, Parts};
use super::inbox::{Call, Event, Reply};
use super::record::{Origin, Phase, SandboxRecord};
use super::update::Limits;
use super::view::{ContainerView, PodView};
use super::{Error, Result, Services};
use crate::container::checkpoint::Wanted;
use crate::container::config::ContainerConfig;
use crate::container::exec::Output;
use crate::container::state::{State, nanos};
use crate::health::Policy;
use crate::id::{ContainerId, SandboxId};
use crate::monitor::sysctl::{self, Own};
use crate::network;
use crate::nri::api::LinuxResources;
use crate::oci::model::{Resources, Sharing};
use crate::oci::{self, Runtime};
use crate::sys::selinux;

/// Notices of a monitor that may wait for the driver.
pub(super) const NOTICES: usize = 256;

/// Ids that are looked at for one whose SELinux level is free: there are half a million.
const MAX_ID_TRIES: usize = 64;

/// The pods of this node. Cheap to clone.
#[derive(Clone)]
pub struct Pods {
    inner: Arc<Inner>,
}

struct Inner {
    services: Arc<Services>,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    pods: HashMap<SandboxId, Handle>,
    containers: HashMap<ContainerId, SandboxId>,
    names: HashMap<Name, SandboxId>,
}

impl Table {
    /// An id that, where SELinux is active, stands for another level than those of the pods
    /// that are there.
    fn new_sandbox_id(&self) -> SandboxId {
        if !selinux::is_active() {
            return random_id(SandboxId::from_random);
        }
        let level = |id: &SandboxId| oci::level_of(id.as_str());
        let taken: HashSet<String> = self.pods.keys().map(level).collect();
        let mut id = random_id(SandboxId::from_random);
        for _ in 0..MAX_ID_TRIES {
            if !taken.contains(&level(&id)) {
                break;
            }
            id = random_id(SandboxId::from_random);
        }
        id
    }
}

/// What makes a sandbox the same as another: what the CRI calls its metadata.
type Name = (String, String, String, u32);

fn name_of(config: &SandboxConfig) -> Name {
    (config.namespace.clone(), config.name.clone(), config.uid.clone(), config.attempt)
}

impl Pods {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self { inner: Arc::new(Inner { services, table: RwLock::default() }) }
    }

    /// What every pod works with.
    pub fn services(&self) -> &Arc<Services> {
        &self.inner.services
    }

    /// Makes a sandbox and waits until it is ready. The same name again joins the one that
    /// is being made, or finds the one that is ready.
    pub async fn run(
        &self,
        mut config: SandboxConfig,
        origin: Origin,
        policy: Option<Policy>,
    ) -> Result<SandboxId> {
        let runtime = self.runtime(&config.runtime_handler)?;
        check(&config)?;
        // Recorded: the settings may be others when a later daemon finds the pod.
        config.cgroup_parent = self.cgroup_parent(&config.cgroup_parent)?;
        let handle = {
            let mut table = self.write();
            let id = table.new_sandbox_id();
            match table.names.entry(name_of(&config)) {
                Entry::Occupied(there) => {
                    let id = there.get().clone();
                    table.pods.get(&id).cloned().ok_or_else(|| Error::TaskGone(id))?
                }
                Entry::Vacant(free) => {
                    let record = SandboxRecord {
                        config,
                        origin,
                        policy,
                        created_at: nanos(SystemTime::now()),
                        phase: Phase::Starting,
                        restarts: std::collections::BTreeMap::new(),
                    };
                    self.inner.services.store.put(id.as_str(), &record).map_err(Error::from)?;
                    free.insert(id.clone());
                    let notices = mpsc::channel(NOTICES);
                    let parts = Parts {
                        id: id.clone(),
                        record,
                        runtime,
                        containers: Vec::new(),
                        monitor: None,
                        notices,
                    };
                    let (driver, handle) =
                        Driver::new(self.inner.services.clone(), self.clone(), parts);
                    table.pods.insert(id, handle.clone());
                    tokio::spawn(driver.run(Span::current()));
                    handle
                }
            }
        };
        ask(&handle, Call::AwaitReady).await
    }

    /// A cgroup parent as it is recorded; empty: the default's.
    fn cgroup_parent(&self, given: &str) -> std::result::Result<String, Error> {
        let services = &self.inner.services;
        if given.is_empty() {
            return Ok(services.cgroup_parent.clone());
        }
        let parent = services.cgroup_driver.parent(given);
        parent.map_err(|why| Error::Invalid(format!("linux.cgroup_parent: {why}")))
    }

    /// The OCI runtime of a handler; empty: the default's.
    pub fn runtime(&self, handler: &str) -> std::result::Result<Runtime, Error> {
        let services = &self.inner.services;
        let name = if handler.is_empty() { &services.default_handler } else { handler };
        services.runtimes.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = services.runtimes.keys().map(String::as_str).collect();
            Error::Invalid(format!(
                "runtime handler \"{name}\" is not configured; there are: {}. Add [runtime.handlers.{name}] to haled's configuration",
                known.join(", ")
            ))
        })
    }

    /// Makes a container and waits until it is there.
    pub async fn create(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let handle = self.handle(sandbox)?;
        ask(&handle, |reply| Call::Create(Box::new(config), reply)).await
    }

    /// Starts a container.
    pub async fn start(&self, id: &ContainerId) -> Result<()> {
        let handle = self.handle_of(id)?;
        ask(&handle, |reply| Call::Start(id.clone(), reply)).await
    }

    /// Stops a container: its stop signal, and SIGKILL after `grace`.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let handle = self.handle_of(id)?;
        ask(&handle, |reply| Call::Stop { id: id.clone(), grace, reply }).await
    }

    /// Removes a container, killing it where it runs.
    pub async fn remove(&self, id: &ContainerId) -> Result<()> {
        let handle = self.handle_of(id)?;
        ask(&handle, |reply| Call::Remove(id.clone(), reply)).await
    }

    /// Ends a running container that haled heals, and has it run again at once.
    pub async fn restart(&self, id: &ContainerId) -> Result<()> {
        let handle = self.handle_of(id)?;
        ask(&handle, |reply| Call::Restart(id.clone(), reply)).await
    }

    /// Reopens a container's log.
    pub async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        let handle = self.handle_of(id)?;
        ask(&handle, |reply| Call::ReopenLog(id.clone(), reply)).await
    }

    /// Changes the limits of a container that runs or is yet to start: those that `change` sets.
    pub async fn update(&self, id: &ContainerId, change: Resources) -> Result<()> {
        let handle = self.handle_of(id)?;
        let limits = Limits::Asked(change);
        ask(&handle, |reply| Call::Update(id.clone(), Box::new(limits), reply)).await
    }

    /// The same for a plugin.
    pub(super) async fn update_for_plugin(
        &self,
        id: &ContainerId,
        change: LinuxResources,
    ) -> Result<()> {
        let handle = self.handle_of(id)?;
        let limits = Limits::OfPlugin(change);
        ask(&handle, |reply| Call::Update(id.clone(), Box::new(limits), reply)).await
    }

    /// Writes a running container to an archive; it runs on.
    pub async fn checkpoint(&self, id: &ContainerId, wanted: Wanted) -> Result<()> {
        let handle = self.handle_of(id)?;
        ask(&handle, |reply| Call::Checkpoint(id.clone(), Box::new(wanted), reply)).await
    }

    /// Records what a pod as a whole may take. The pod's cgroup is not haled's to write: who
    /// made it limits it (docs/decisions/0009).
    pub async fn update_sandbox(&self, id: &SandboxId, change: SandboxResources) -> Result<()> {
        let handle = self.handle(id)?;
        ask(&handle, |reply| Call::UpdateSandbox(Box::new(change), reply)).await
    }

    /// Stops a sandbox and its containers, at once.
    pub async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        let handle = self.handle(id)?;
        ask(&handle, Call::StopSandbox).await
    }

    /// Stops and removes a sandbox and its containers.
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        let handle = self.handle(id)?;
        ask(&handle, Call::RemoveSandbox).await
    }

    /// Runs a command in a running container. `limit`: `None` is none.
    pub async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        limit: Option<Duration>,
    ) -> Result<Output> {
        let (_, container) = self.container(id.as_str())?;
        if !matches!(container.state, State::Running(_)) {
            let why = format!("container {id} does not run, so no command can be run in it");
            return Err(Arc::new(Error::WrongState(why)));
        }
        container.executor.run(command, limit).await.map_err(|error| Arc::new(error.into()))
    }

    /// Every pod.
    pub fn views(&self) -> Vec<Arc<PodView>> {
        self.read().pods.values().map(|handle| handle.view.load_full()).collect()
    }

    /// A pod by its id, or by the beginning of it where that fits only one.
    pub fn pod(&self, id: &str) -> Result<Arc<PodView>> {
        let table = self.read();
        let found = find(&table.pods, id, "pod sandbox", SandboxId::as_str)?;
        Ok(found.view.load_full())
    }

    /// A container and its pod, by the container's id or the beginning of it.
    pub fn container(&self, id: &str) -> Result<(Arc<PodView>, Arc<ContainerView>)> {
        let missing = || Error::NotFound { what: "container", id: id.to_owned() };
        let (pod, full) = {
            let table = self.read();
            let sandbox = find(&table.containers, id, "container", ContainerId::as_str)?;
            let handle = table.pods.get(sandbox).ok_or_else(missing)?;
            let full = table.containers.keys().find(|full| full.as_str().starts_with(id)).cloned();
            (handle.view.load_full(), full)
        };
        let full = full.ok_or_else(missing)?;
        let container = pod.container(&full).cloned().ok_or_else(missing)?;
        Ok((pod, container))
    }

    /// Where a pod's cgroups are.
    pub fn cgroups(&self, pod: &PodView) -> Cgroups {
        Cgroups::of(&self.inner.services, &pod.id, &pod.config)
    }

    fn handle(&self, id: &SandboxId) -> std::result::Result<Handle, Error> {
        let missing = || Error::NotFound { what: "pod sandbox", id: id.to_string() };
        self.read().pods.get(id).cloned().ok_or_else(missing)
    }

    fn handle_of(&self, id: &ContainerId) -> std::result::Result<Handle, Error> {
        let missing = || Error::NotFound { what: "container", id: id.to_string() };
        let table = self.read();
        let sandbox = table.containers.get(id).ok_or_else(missing)?;
        table.pods.get(sandbox).cloned().ok_or_else(missing)
    }

    /// Takes in a pod that recovery has put together, and sets it going.
    pub(super) fn adopt(&self, driver: Driver, handle: Handle) {
        let mut table = self.write();
        table.names.insert(name_of(&driver.config), handle.id.clone());
        for container in &driver.containers {
            table.containers.insert(container.id.clone(), handle.id.clone());
        }
        table.pods.insert(handle.id.clone(), handle);
        tokio::spawn(driver.run(Span::current()));
    }

    /// A new container's id, known from now on.
    pub(super) fn new_container(&self, sandbox: &SandboxId) -> ContainerId {
        let id = random_id(ContainerId::from_random);
        self.write().containers.insert(id.clone(), sandbox.clone());
        id
    }

    pub(super) fn forget_container(&self, id: &ContainerId) {
        self.write().containers.remove(id);
    }

    /// Another sandbox may have this one's name from now on.
    pub(super) fn release_name(&self, config: &SandboxConfig, id: &SandboxId) {
        let mut table = self.write();
        let name = name_of(config);
        if table.names.get(&name) == Some(id) {
            table.names.remove(&name);
        }
    }

    pub(super) fn forget_pod(&self, config: &SandboxConfig, id: &SandboxId) {
        self.release_name(config, id);
        let mut table = self.write();
        table.pods.remove(id);
        table.containers.retain(|_, sandbox| sandbox != id);
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.inner.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.inner.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random_id<T>(make: impl FnOnce([u8; 32]) -> T) -> T {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    make(bytes)
}

/// Refuses what can't be made, before anything of it is.
fn check(config: &SandboxConfig) -> std::result::Result<(), Error> {
    network::check_annotations(&config.annotations)
        .map_err(|error| Error::Invalid(error.to_string()))?;
    let own = Own { network: config.network == Sharing::Pod, ipc: config.ipc == Sharing::Pod };
    for name in config.sysctls.keys() {
        sysctl::file(name, own).map_err(Error::Invalid)?;
    }
    Ok(())
}

/// The value of the only key that begins with `id`.
fn find<'a, K, V>(
    all: &'a HashMap<K, V>,
    id: &str,
    what: &'static str,
    text: impl Fn(&K) -> &str,
) -> std::result::Result<&'a V, Error> {
    let missing = || Error::NotFound { what, id: id.to_owned() };
    if id.is_empty() {
        return Err(missing());
    }
    let mut fits = all.iter().filter(|(key, _)| text(key).starts_with(id)).map(|(_, value)| value);
    let first = fits.next().ok_or_else(missing)?;
    match fits.count() {
        0 => Ok(first),
        more => Err(Error::Ambiguous { what, id: id.to_owned(), count: more + 1 }),
    }
}

/// Asks a driver and waits. The deed goes on if the caller goes away.
async fn ask<T>(handle: &Handle, call: impl FnOnce(Reply<T>) -> Call) -> Result<T> {
    let gone = || Error::NotFound { what: "pod sandbox", id: handle.id.to_string() };
    let (reply, answer) = oneshot::channel();
    handle.sender.send(Event::Call(call(reply), Span::current())).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_must_fit_only_one() {
        let id = |digit: &str, last: &str| -> ContainerId {
            format!("{}{last}", digit.repeat(63)).parse().unwrap()
        };
        let all: HashMap<ContainerId, u8> =
            [(id("a", "1"), 1), (id("a", "2"), 2), (id("b", "3"), 3)].into();
        let find = |text: &str| find(&all, text, "container", ContainerId::as_str).copied();
        assert_eq!(find("b").unwrap(), 3);
        assert_eq!(find(id("a", "1").as_str()).unwrap(), 1);
        assert!(matches!(find("aa"), Err(Error::Ambiguous { count: 2, .. })));
        assert!(matches!(find("c"), Err(Error::NotFound { .. })));
        assert!(matches!(find(""), Err(Error::NotFound { .. })));
    }
}
