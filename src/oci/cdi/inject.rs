//! What devices change, put into a configuration.

use std::path::Path;

use oci_spec::runtime::{self, Hooks, LinuxDevice, LinuxDeviceType, Spec};

use super::{Edits, FIELD, Hook, Mount, Node};
use crate::oci::Error;
use crate::oci::devices::{access, node, rule};
use crate::oci::mounts::{absolute, destination};

/// Changes a configuration as the edits say, in order.
pub(in crate::oci) fn inject(spec: &mut Spec, all: Vec<Edits>) -> Result<(), Error> {
    for edits in all {
        variables(spec, edits.env)?;
        groups(spec, edits.groups);
        for node in edits.device_nodes {
            device(spec, &node)?;
        }
        for mount in edits.mounts {
            bind(spec, mount)?;
        }
        for each in edits.hooks {
            hook(spec, each)?;
        }
    }
    Ok(())
}

fn variables(spec: &mut Spec, added: Vec<String>) -> Result<(), Error> {
    let Some(process) = spec.process_mut() else { return Ok(()) };
    let mut env = process.env().clone().unwrap_or_default();
    for variable in added {
        let name = variable.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        let Some(name) = name.filter(|_| !variable.contains('\0')) else {
            return Err(Error::invalid(FIELD, &variable, "is no variable: NAME=value is one"));
        };
        env.retain(|there| there.split_once('=').is_none_or(|(other, _)| other != name));
        env.push(variable);
    }
    process.set_env(Some(env));
    Ok(())
}

fn groups(spec: &mut Spec, added: Vec<u32>) {
    let Some(process) = spec.process_mut() else { return };
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    // Root's group is no group of a device.
    for group in added.into_iter().filter(|group| *group != 0) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    process.user_mut().set_additional_gids(Some(groups));
}

fn device(spec: &mut Spec, wanted: &Node) -> Result<(), Error> {
    let inside = destination(FIELD, &wanted.path)?;
    let host = wanted.host_path.as_deref().unwrap_or(&wanted.path);
    absolute(FIELD, host)?;
    let access = access(FIELD, &wanted.permissions)?;
    let mut made = match (&wanted.kind, wanted.major, wanted.minor) {
        (Some(kind), Some(major), Some(minor)) => {
            let mut made = LinuxDevice::default();
            made.set_path(inside).set_typ(self::kind(kind)?).set_major(major).set_minor(minor);
            made
        }
        _ => node(host, &inside)?.ok_or_else(|| {
            Error::unsupported(FIELD, format!("there is no device {} on the node", host.display()))
        })?,
    };
    if wanted.file_mode.is_some() {
        made.set_file_mode(wanted.file_mode);
    }
    if wanted.uid.is_some() {
        made.set_uid(wanted.uid);
    }
    if wanted.gid.is_some() {
        made.set_gid(wanted.gid);
    }
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    if made.typ() != LinuxDeviceType::P {
        let mut resources = linux.resources().clone().unwrap_or_default();
        let mut rules = resources.devices().clone().unwrap_or_default();
        rules.push(rule(true, Some(&made), access));
        resources.set_devices(Some(rules));
        linux.set_resources(Some(resources));
    }
    let mut nodes = linux.devices().clone().unwrap_or_default();
    nodes.retain(|each| each.path() != made.path());
    nodes.push(made);
    linux.set_devices(Some(nodes));
    Ok(())
}

fn kind(kind: &str) -> Result<LinuxDeviceType, Error> {
    match kind {
        "b" => Ok(LinuxDeviceType::B),
        "c" | "u" => Ok(LinuxDeviceType::C),
        "p" => Ok(LinuxDeviceType::P),
        _ => Err(Error::invalid(FIELD, kind, "is no type of a device: b, c, u and p are")),
    }
}

fn bind(spec: &mut Spec, wanted: Mount) -> Result<(), Error> {
    let inside = destination(FIELD, &wanted.container_path)?;
    let is_bind = wanted.kind.as_deref().is_none_or(|kind| kind.is_empty() || kind == "bind");
    let mut options = wanted.options;
    if is_bind {
        absolute(FIELD, &wanted.host_path)?;
        if !Path::new(&wanted.host_path).exists() {
            let why = format!("there is no {} on the node to mount", wanted.host_path.display());
            return Err(Error::unsupported(FIELD, why));
        }
        if !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("rbind".to_owned());
        }
    }
    let mut made = runtime::Mount::default();
    made.set_destination(inside)
        .set_source(Some(wanted.host_path))
        .set_typ(Some(wanted.kind.filter(|kind| !kind.is_empty()).unwrap_or("bind".to_owned())))
        .set_options(Some(options));
    let mut list = spec.mounts().clone().unwrap_or_default();
    list.retain(|each| each.destination() != made.destination());
    list.push(made);
    list.sort_by_key(|each| each.destination().components().count());
    spec.set_mounts(Some(list));
    Ok(())
}

fn hook(spec: &mut Spec, wanted: Hook) -> Result<(), Error> {
    absolute(FIELD, &wanted.path)?;
    let mut made = runtime::Hook::default();
    made.set_path(wanted.path)
        .set_args(Some(wanted.args).filter(|args| !args.is_empty()))
        .set_env(Some(wanted.env).filter(|env| !env.is_empty()))
        .set_timeout(wanted.timeout);
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    push(&mut hooks, &wanted.name, made)?;
    spec.set_hooks(Some(hooks));
    Ok(())
}

/// By the name that the OCI runtime specification has for its time.
fn push(hooks: &mut Hooks, name: &str, made: runtime::Hook) -> Result<(), Error> {
    let with = |list: &Option<Vec<runtime::Hook>>| {
        let mut list = list.clone().unwrap_or_default();
        list.push(made.clone());
        Some(list)
    };
    #[allow(deprecated)]
    match name {
        "prestart" => hooks.set_prestart(with(hooks.prestart())),
        "createRuntime" => hooks.set_create_runtime(with(hooks.create_runtime())),
        "createContainer" => hooks.set_create_container(with(hooks.create_container())),
        "startContainer" => hooks.set_start_container(with(hooks.start_container())),
        "poststart" => hooks.set_poststart(with(hooks.poststart())),
        "poststop" => hooks.set_poststop(with(hooks.poststop())),
        _ => return Err(Error::invalid(FIELD, name, "is no name of a hook")),
    };
    Ok(())
}
