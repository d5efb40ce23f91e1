//! What several plugins want of one container, made one: pure.
//!
//! Plugins are asked in the order of their indices, and each is shown what those before it
//! have made of the container. What two of them set is an error, unless the second takes it
//! away first.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::api::{
    Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, Field, Hooks,
    LinuxContainerAdjustment, LinuxContainerUpdate, LinuxRdt, LinuxResources,
    OptionalRepeatedString,
};
use super::owners::Owners;
use super::resources::Asking;
use super::shown;

/// Marks what is to be taken away.
const MARKER: char = '-';

/// The name behind a mark; `None`: unmarked.
pub(super) fn marked(name: &str) -> Option<&str> {
    name.strip_prefix(MARKER)
}

/// What has been asked for so far.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// The container's id; empty where the event is not about making one.
    making: String,
    pub(super) adjust: ContainerAdjustment,
    updates: BTreeMap<String, ContainerUpdate>,
    pub(super) evict: Vec<ContainerEviction>,
    pub(super) owners: Owners,
}

impl Wishes {
    /// For a container that is being made.
    pub(super) fn making(container: &str) -> Self {
        Self { making: container.to_owned(), ..Self::default() }
    }

    /// For an update that a client asks for: plugins may change it.
    pub(super) fn updating(container: &str, resources: LinuxResources) -> Self {
        let mut wishes = Self::default();
        let linux = Some(LinuxContainerUpdate { resources: Some(resources) });
        let update =
            ContainerUpdate { container_id: container.to_owned(), linux, ignore_failure: false };
        wishes.updates.insert(container.to_owned(), update);
        wishes
    }

    /// Other containers' new limits.
    pub(super) fn updates(&self) -> Vec<ContainerUpdate> {
        self.updates.values().cloned().collect()
    }

    /// The limits asked for of one container.
    pub(super) fn take_update(&mut self, container: &str) -> Option<LinuxResources> {
        self.updates.remove(container)?.linux?.resources
    }

    /// The same, to look at.
    pub(super) fn update_of(&self, container: &str) -> Option<&LinuxResources> {
        self.updates.get(container)?.linux.as_ref()?.resources.as_ref()
    }

    /// The container as the next plugin sees it.
    pub(super) fn show(&self, container: &Container) -> Container {
        let mut shown = container.clone();
        shown::adjust(&mut shown, &self.adjust);
        shown
    }

    /// A plugin's changes to other containers.
    pub(super) fn add_updates(
        &mut self,
        updates: Vec<ContainerUpdate>,
        plugin: &str,
    ) -> Result<(), Error> {
        for update in updates {
            let id = &update.container_id;
            if *id == self.making && !id.is_empty() {
                let why = format!("it asks for an update of container {id}, which is being made");
                return Err(Error::Nonsense { plugin: plugin.to_owned(), why });
            }
            let Some(from) = update.linux.and_then(|linux| linux.resources) else { continue };
            let fresh = || ContainerUpdate {
                container_id: id.clone(),
                linux: Some(LinuxContainerUpdate::default()),
                ignore_failure: update.ignore_failure,
            };
            let mut merged = self.updates.get(id).cloned().unwrap_or_else(fresh);
            merged.ignore_failure &= update.ignore_failure;
            let linux = merged.linux.get_or_insert_default();
            let to = linux.resources.get_or_insert_default();
            let mut owners = self.owners.clone();
            let mut asking = Asking { owners: &mut owners, container: id, plugin };
            match asking.resources(&from, to) {
                // Whole or not at all.
                Ok(()) => {
                    self.owners = owners;
                    self.updates.insert(id.clone(), merged);
                }
                Err(error) if update.ignore_failure => {
                    tracing::warn!(plugin, %error, "a plugin's update is left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A plugin's changes to the container that is being made.
    pub(super) fn add_adjustment(
        &mut self,
        asked: ContainerAdjustment,
        plugin: &str,
    ) -> Result<(), Error> {
        let container = self.making.clone();
        let all = &mut self.adjust;
        let mut asking = Asking { owners: &mut self.owners, container: &container, plugin };
        asking.map(Field::Annotations, asked.annotations, &mut all.annotations)?;
        asking.list(Field::Mounts, asked.mounts, |m| &m.destination, &mut all.mounts)?;
        asking.list(Field::Env, asked.env, |variable| &variable.key, &mut all.env)?;
        if let Some((first, rest)) = asked.args.split_first() {
            let args = if first.is_empty() {
                asking.owners.release(&container, Field::Args, "");
                rest
            } else {
                &asked.args
            };
            asking.claim(Field::Args, "")?;
            all.args = args.to_vec();
        }
        if let Some(hooks) = asked.hooks {
            add_hooks(all.hooks.get_or_insert_default(), hooks);
        }
        for limit in asked.rlimits {
            asking.claim(Field::Rlimits, &limit.r#type)?;
            all.rlimits.retain(|there| there.r#type != limit.r#type);
            all.rlimits.push(limit);
        }
        for device in asked.cdi_devices {
            asking.claim(Field::CdiDevices, &device.name)?;
            all.cdi_devices.push(device);
        }
        if let Some(linux) = asked.linux {
            asking.linux(linux, all.linux.get_or_insert_default())?;
        }
        Ok(())
    }
}

/// Hooks are nobody's: each plugin's come after those before it.
fn add_hooks(all: &mut Hooks, asked: Hooks) {
    all.prestart.extend(asked.prestart);
    all.create_runtime.extend(asked.create_runtime);
    all.create_container.extend(asked.create_container);
    all.start_container.extend(asked.start_container);
    all.poststart.extend(asked.poststart);
    all.poststop.extend(asked.poststop);
}

impl Asking<'_> {
    /// Entries by name, with marked ones first: what they name is gone before anything is
    /// added. Marks stay in the list, for what the container had before any plugin came.
    fn list<T>(
        &mut self,
        field: Field,
        asked: Vec<T>,
        name: impl Fn(&T) -> &str,
        all: &mut Vec<T>,
    ) -> Result<(), Error> {
        let (marks, added): (Vec<T>, Vec<T>) =
            asked.into_iter().partition(|entry| marked(name(entry)).is_some());
        for mark in marks {
            let gone = marked(name(&mark)).unwrap_or_default().to_owned();
            self.owners.release(self.container, field, &gone);
            all.retain(|there| {
                let there = name(there);
                there != gone && marked(there) != Some(&gone)
            });
            all.push(mark);
        }
        let mut own = BTreeSet::new();
        for entry in added {
            let key = name(&entry).to_owned();
            self.claim(field, &key)?;
            // What one plugin says twice counts as it said last.
            all.retain(|there| name(there) != key);
            own.insert(key);
            all.push(entry);
        }
        // What is set again needs no mark: it is replaced.
        all.retain(|there| marked(name(there)).is_none_or(|gone| !own.contains(gone)));
        Ok(())
    }

    /// The same of a map.
    fn map<V: Clone>(
        &mut self,
        field: Field,
        asked: BTreeMap<String, V>,
        all: &mut BTreeMap<String, V>,
    ) -> Result<(), Error> {
        let mut list: Vec<(String, V)> = std::mem::take(all).into_iter().collect();
        let merged = self.list(field, asked.into_iter().collect(), |(key, _)| key, &mut list);
        all.extend(list);
        merged
    }

    /// A value that one plugin may set.
    fn one<T>(&mut self, field: Field, from: Option<T>, to: &mut Option<T>) -> Result<(), Error> {
        if from.is_some() {
            self.claim(field, "")?;
            *to = from;
        }
        Ok(())
    }

    fn linux(
        &mut self,
        from: LinuxContainerAdjustment,
        to: &mut LinuxContainerAdjustment,
    ) -> Result<(), Error> {
        self.list(Field::Devices, from.devices, |device| &device.path, &mut to.devices)?;
        if let Some(resources) = from.resources {
            self.resources(&resources, to.resources.get_or_insert_default())?;
        }
        if !from.cgroups_path.is_empty() {
            self.claim(Field::CgroupsPath, "")?;
            to.cgroups_path = from.cgroups_path;
        }
        self.one(Field::OomScoreAdj, from.oom_score_adj, &mut to.oom_score_adj)?;
        self.one(Field::IoPriority, from.io_priority, &mut to.io_priority)?;
        self.one(Field::SeccompPolicy, from.seccomp_policy, &mut to.seccomp_policy)?;
        for namespace in from.namespaces {
            // Taking one away is a choice as much as giving one.
            let kind = marked(&namespace.r#type).unwrap_or(&namespace.r#type).to_owned();
            self.claim(Field::Namespace, &kind)?;
            to.namespaces.retain(|there| marked(&there.r#type).unwrap_or(&there.r#type) != kind);
            to.namespaces.push(namespace);
        }
        self.map(Field::Sysctl, from.sysctl, &mut to.sysctl)?;
        self.map(Field::LinuxNetDevices, from.net_devices, &mut to.net_devices)?;
        self.one(Field::LinuxSched, from.scheduler, &mut to.scheduler)?;
        self.one(Field::MemoryPolicy, from.memory_policy, &mut to.memory_policy)?;
        if let Some(rdt) = from.rdt {
            self.rdt(rdt, to.rdt.get_or_insert_default())?;
        }
        Ok(())
    }

    fn rdt(&mut self, from: LinuxRdt, to: &mut LinuxRdt) -> Result<(), Error> {
        if from.remove {
            for field in [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring] {
                self.owners.release(self.container, field, "");
            }
            *to = LinuxRdt { remove: true, ..LinuxRdt::default() };
        }
        self.one(Field::RdtClosId, from.clos_id, &mut to.clos_id)?;
        let schemata: Option<OptionalRepeatedString> = from.schemata;
        self.one(Field::RdtSchemata, schemata, &mut to.schemata)?;
        self.one(Field::RdtEnableMonitoring, from.enable_monitoring, &mut to.enable_monitoring)
    }
}

#[cfg(test)]
mod tests;
