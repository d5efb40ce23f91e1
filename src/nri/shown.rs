//! A container as a plugin sees it after the adjustments of those before it.

use std::collections::BTreeMap;

use super::api::{
    Container, ContainerAdjustment, LinuxContainer, LinuxContainerAdjustment, LinuxResources,
};
use super::owners::Owners;
use super::resources::Asking;
use super::wishes::marked;

/// Changes what is shown as the container itself will be changed.
pub(super) fn adjust(container: &mut Container, by: &ContainerAdjustment) {
    map(&mut container.annotations, &by.annotations);
    list(&mut container.mounts, &by.mounts, |mount| &mount.destination);
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in &by.env {
        let key = marked(&variable.key).unwrap_or(&variable.key);
        container.env.retain(|there| name(there) != key);
        if marked(&variable.key).is_none() {
            container.env.push(format!("{}={}", variable.key, variable.value));
        }
    }
    if !by.args.is_empty() {
        container.args.clone_from(&by.args);
    }
    if let Some(hooks) = &by.hooks {
        let all = container.hooks.get_or_insert_default();
        all.prestart.extend(hooks.prestart.iter().cloned());
        all.create_runtime.extend(hooks.create_runtime.iter().cloned());
        all.create_container.extend(hooks.create_container.iter().cloned());
        all.start_container.extend(hooks.start_container.iter().cloned());
        all.poststart.extend(hooks.poststart.iter().cloned());
        all.poststop.extend(hooks.poststop.iter().cloned());
    }
    for limit in &by.rlimits {
        container.rlimits.retain(|there| there.r#type != limit.r#type);
        container.rlimits.push(limit.clone());
    }
    container.cdi_devices.extend(by.cdi_devices.iter().cloned());
    if let Some(by) = &by.linux {
        linux(container.linux.get_or_insert_default(), by);
    }
}

fn linux(linux: &mut LinuxContainer, by: &LinuxContainerAdjustment) {
    list(&mut linux.devices, &by.devices, |device| &device.path);
    if let Some(by) = &by.resources {
        resources(linux.resources.get_or_insert_default(), by);
    }
    if !by.cgroups_path.is_empty() {
        linux.cgroups_path.clone_from(&by.cgroups_path);
    }
    list(&mut linux.namespaces, &by.namespaces, |namespace| &namespace.r#type);
    map(&mut linux.sysctl, &by.sysctl);
    map(&mut linux.net_devices, &by.net_devices);
    set(&mut linux.oom_score_adj, by.oom_score_adj.as_ref());
    set(&mut linux.io_priority, by.io_priority.as_ref());
    set(&mut linux.seccomp_policy, by.seccomp_policy.as_ref());
    set(&mut linux.scheduler, by.scheduler.as_ref());
    if let Some(by) = &by.rdt {
        linux.rdt = (!by.remove || by.clos_id.is_some()).then(|| by.clone());
    }
}

/// Puts the limits that `by` has over those that are there.
pub(super) fn resources(there: &mut LinuxResources, by: &LinuxResources) {
    // One that asks alone is in nobody's way.
    let mut asking = Asking { owners: &mut Owners::default(), container: "", plugin: "" };
    drop(asking.resources(by, there));
}

fn set<T: Clone>(there: &mut Option<T>, by: Option<&T>) {
    if by.is_some() {
        *there = by.cloned();
    }
}

fn list<T: Clone>(there: &mut Vec<T>, by: &[T], name: impl Fn(&T) -> &str) {
    for entry in by {
        let key = marked(name(entry)).unwrap_or(name(entry));
        there.retain(|old| name(old) != key);
        if marked(name(entry)).is_none() {
            there.push(entry.clone());
        }
    }
}

fn map<V: Clone>(there: &mut BTreeMap<String, V>, by: &BTreeMap<String, V>) {
    for (key, value) in by {
        match marked(key) {
            Some(gone) => drop(there.remove(gone)),
            None => drop(there.insert(key.clone(), value.clone())),
        }
    }
}
