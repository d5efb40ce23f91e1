//! config.json, put together.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Process,
    Root, Spec,
};

use super::host::Host;
use super::model::Security;
use super::mounts::absolute;
use super::{
    Error, Input, PidNamespace, apparmor, blockio, capability, cdi, command, devices, limits,
    mounts, seccomp, user,
};
use crate::sys::userns::Range;

/// The version of the runtime specification that every supported runtime reads.
const SPEC_VERSION: &str = "1.0.2";
/// Bytes of a host name (HOST_NAME_MAX).
const MAX_HOSTNAME: usize = 64;
/// Masked, or made read-only, paths of one container.
const MAX_PATHS: usize = 4096;

/// What in /proc and /sys tells of the machine or reaches its firmware.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What in /proc sets the machine.
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Builds config.json for this machine, users and groups looked up in the root file system.
/// Loads haled's AppArmor profile where it will be needed. Blocks for that, and for reads of the
/// root file system, /proc, /sys and /dev.
pub fn build(input: &Input<'_>) -> Result<Spec, Error> {
    let mut host = Host::read()?;
    apparmor::prepare(input.security, &mut host)?;
    let mut spec = build_on(input, &host)?;
    cdi::inject(&mut spec, cdi::resolve(input.cdi_devices)?)?;
    Ok(spec)
}

/// Puts CDI devices into a configuration that is there, by their full names. Blocks for reads
/// of their descriptions.
pub fn inject_cdi(spec: &mut Spec, devices: &[String]) -> Result<(), Error> {
    cdi::inject(spec, cdi::resolve(devices)?)
}

/// [`build`] for a machine with these facts, without CDI devices.
pub fn build_on(input: &Input<'_>, host: &Host) -> Result<Spec, Error> {
    absolute("rootfs", input.rootfs)?;
    let mut root = Root::default();
    root.set_path(input.rootfs.to_owned()).set_readonly(Some(input.security.readonly_rootfs));

    let mounts = mounts::mounts(input, host)?;
    let capabilities = capability::resolve(
        &input.security.capabilities,
        input.security.privileged,
        &host.capabilities,
    )?;
    let process = process(input, &capabilities, host)?;
    let linux = linux(input, &capabilities, &mounts, host)?;

    if let Some(key) = input.annotations.keys().find(|key| key.is_empty() || key.contains('\0')) {
        return Err(Error::invalid("annotations", key, "is no key: it is empty or holds NUL"));
    }
    let mut spec = Spec::default();
    spec.set_version(SPEC_VERSION.to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts.list))
        .set_process(Some(process))
        .set_hostname(hostname(input)?)
        .set_annotations(Some(
            input.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        ))
        .set_linux(Some(linux));
    Ok(spec)
}

fn process(
    input: &Input<'_>,
    capabilities: &capability::Sets,
    host: &Host,
) -> Result<Process, Error> {
    let security = input.security;
    let mut process = Process::default();
    process
        .set_args(Some(command::args(input)?))
        .set_env(Some(command::env(input)?))
        .set_cwd(command::cwd(input)?.into())
        .set_terminal(Some(input.tty))
        .set_user(user::resolve(&security.user, input.image.user, input.rootfs)?)
        .set_capabilities(Some(capability::to_spec(capabilities)))
        .set_no_new_privileges(Some(security.no_new_privs))
        .set_oom_score_adj(Some(limits::oom_score_adj(input.resources.oom_score_adj, host)?))
        .set_apparmor_profile(apparmor::profile(security, host)?)
        .set_selinux_label(input.selinux.and_then(|labels| labels.process.clone()))
        // Those of the pod's monitor, which are the daemon's.
        .set_rlimits(None);
    Ok(process)
}

fn linux(
    input: &Input<'_>,
    capabilities: &capability::Sets,
    mounts: &mounts::Mounts,
    host: &Host,
) -> Result<Linux, Error> {
    let security = input.security;
    let devices =
        devices::devices(input.devices, security.privileged.then_some(input.privileged_devices))?;
    let class = input.resources.blockio_class.as_deref();
    let mut resources = limits::resources(input.resources, devices.rules, host)?;
    resources.set_block_io(blockio::limits(class, input.blockio_config)?);
    let mut linux = Linux::default();
    linux
        .set_resources(Some(resources))
        .set_intel_rdt(limits::rdt(input.resources, host)?)
        .set_devices(Some(devices.nodes))
        .set_cgroups_path(Some(cgroup_path(input.cgroup_path)?))
        .set_namespaces(Some(namespaces(input, host)?))
        .set_seccomp(seccomp::filter(&security.seccomp, security.privileged, &capabilities.held)?)
        .set_mount_label(input.selinux.map(|labels| labels.mount.clone()))
        .set_rootfs_propagation(mounts.rootfs_propagation.map(str::to_owned))
        .set_masked_paths(Some(masked(security, host)?))
        .set_readonly_paths(Some(readonly(security)?));
    if let Some(user) = &input.namespaces.user {
        linux
            .set_uid_mappings(Some(id_mappings(&user.maps.uids)?))
            .set_gid_mappings(Some(id_mappings(&user.maps.gids)?));
    }
    Ok(linux)
}

/// Told even though the namespace is there already: runc before 1.2 doesn't look.
fn id_mappings(ranges: &[Range]) -> Result<Vec<LinuxIdMapping>, Error> {
    let mapping = |range: &Range| {
        LinuxIdMappingBuilder::default()
            .container_id(range.inside)
            .host_id(range.outside)
            .size(range.count)
            .build()
            .map_err(|error| Error::unsupported("namespaces.user", error.to_string()))
    };
    ranges.iter().map(mapping).collect()
}

fn namespaces(input: &Input<'_>, host: &Host) -> Result<Vec<LinuxNamespace>, Error> {
    let wanted = input.namespaces;
    let mut list = Vec::new();
    let mut add = |kind, field: &str, path: Option<&Path>| {
        if let Some(path) = path {
            absolute(field, path)?;
        }
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path.map(Path::to_owned));
        list.push(namespace);
        Ok::<(), Error>(())
    };
    if let Some(user) = &wanted.user {
        add(LinuxNamespaceType::User, "namespaces.user", Some(&user.path))?;
    }
    add(LinuxNamespaceType::Mount, "", None)?;
    match &wanted.pid {
        PidNamespace::New => add(LinuxNamespaceType::Pid, "", None)?,
        PidNamespace::Host => {}
        PidNamespace::Path(path) => add(LinuxNamespaceType::Pid, "namespaces.pid", Some(path))?,
    }
    for (kind, field, path) in [
        (LinuxNamespaceType::Network, "namespaces.network", &wanted.network),
        (LinuxNamespaceType::Ipc, "namespaces.ipc", &wanted.ipc),
        (LinuxNamespaceType::Uts, "namespaces.uts", &wanted.uts),
    ] {
        if let Some(path) = path {
            add(kind, field, Some(path))?;
        }
    }
    // On v1 the runtime binds the container's own cgroups in place of the whole hierarchy.
    if host.cgroup_v2 && !input.security.privileged {
        add(LinuxNamespaceType::Cgroup, "", None)?;
    }
    Ok(list)
}

/// Set only in a UTS namespace of the pod: the host's name is the host's.
fn hostname(input: &Input<'_>) -> Result<Option<String>, Error> {
    let name = input.hostname;
    if name.len() > MAX_HOSTNAME || name.contains(['\0', '\n']) {
        let why = format!("is no host name: at most {MAX_HOSTNAME} bytes, no NUL or line break");
        return Err(Error::invalid("hostname", name, why));
    }
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty() && input.namespaces.uts.is_some()))
}

fn cgroup_path(path: &str) -> Result<PathBuf, Error> {
    absolute("cgroup_path", Path::new(path))?;
    if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        let why = "is no cgroup path: a segment is empty, . or ..";
        return Err(Error::invalid("cgroup_path", path, why));
    }
    Ok(path.into())
}

fn masked(security: &Security, host: &Host) -> Result<Vec<String>, Error> {
    if security.privileged {
        return Ok(Vec::new());
    }
    if let Some(paths) = &security.masked_paths {
        return checked("masked_paths", paths);
    }
    let fixed = MASKED.iter().map(|&path| path.to_owned());
    Ok(fixed.chain(host.thermal_throttle.iter().cloned()).collect())
}

fn readonly(security: &Security) -> Result<Vec<String>, Error> {
    if security.privileged {
        return Ok(Vec::new());
    }
    match &security.readonly_paths {
        Some(paths) => checked("readonly_paths", paths),
        None => Ok(READONLY.iter().map(|&path| path.to_owned()).collect()),
    }
}

fn checked(field: &str, paths: &[String]) -> Result<Vec<String>, Error> {
    if paths.len() > MAX_PATHS {
        let why = format!("paths are too many: at most {MAX_PATHS}");
        return Err(Error::invalid(field, paths.len(), why));
    }
    for (index, path) in paths.iter().enumerate() {
        absolute(&format!("{field}[{index}]"), Path::new(path))?;
    }
    Ok(paths.to_vec())
}

#[cfg(test)]
mod tests;
