//! ContainerConfig → the container's own configuration.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use tonic::Status;

use super::sandbox_config::{id_maps, user_namespace};
use super::status::invalid;
use crate::container::config::ContainerConfig;
use crate::oci::model::{
    CapabilityRequest, Device, EnvVar, ImageVolume, Mount, PidMode, Profile, Propagation,
    Resources, Security, SelinuxOptions, UserRequest,
};
use crate::proto::cri;

/// Annotations whose values are names of CDI devices.
const CDI_ANNOTATIONS: &str = "cdi.k8s.io/";

/// Parses a container's configuration. `seccomp_dir`: of relative Localhost profiles.
pub(super) fn parse(
    config: cri::ContainerConfig,
    seccomp_dir: &Path,
) -> Result<ContainerConfig, Status> {
    let stop_signal = stop_signal(config.stop_signal)?;
    let metadata = config.metadata.ok_or_else(|| invalid("config.metadata is missing"))?;
    if metadata.name.is_empty() {
        return Err(invalid("config.metadata.name is empty"));
    }
    let image = config.image.unwrap_or_default();
    if image.image.is_empty() {
        return Err(invalid("config.image.image is empty"));
    }
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    user_namespace(&namespaces)?;
    Ok(ContainerConfig {
        name: metadata.name,
        attempt: metadata.attempt,
        image: image.image,
        user_image: image.user_specified_image,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        env: config
            .envs
            .into_iter()
            .map(|env| EnvVar { name: env.key, value: env.value })
            .collect(),
        mounts: config
            .mounts
            .into_iter()
            .enumerate()
            .map(|(at, mount)| parse_mount(at, mount))
            .collect::<Result<_, _>>()?,
        devices: config.devices.into_iter().map(device).collect(),
        cdi_devices: cdi_devices(config.cdi_devices, &config.annotations),
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        log_path: log_path(&config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        pid_mode: match namespaces.pid() {
            cri::NamespaceMode::Pod => PidMode::Pod,
            cri::NamespaceMode::Container => PidMode::Container,
            cri::NamespaceMode::Node => PidMode::Node,
            cri::NamespaceMode::Target => PidMode::Target(
                namespaces
                    .target_id
                    .parse()
                    .map_err(|error| invalid(format!("namespace_options.target_id: {error}")))?,
            ),
        },
        security: parse_security(security, seccomp_dir)?,
        resources: linux.resources.map(resources).transpose()?.unwrap_or_default(),
        checkpoint: None,
        stop_signal,
    })
}

/// Relative to the sandbox's log directory, and inside it.
fn log_path(path: &str) -> Result<PathBuf, Status> {
    let parsed = PathBuf::from(path);
    if parsed.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(parsed);
    }
    Err(invalid(format!(
        "config.log_path \"{path}\" must be relative to the sandbox's log directory, without .."
    )))
}

fn stop_signal(number: i32) -> Result<Option<String>, Status> {
    match cri::Signal::try_from(number) {
        Ok(cri::Signal::RuntimeDefault) => Ok(None),
        Ok(signal) => Ok(Some(signal.as_str_name().to_owned())),
        Err(_) => Err(invalid(format!("config.stop_signal {number} is not one of the CRI's"))),
    }
}

fn parse_mount(at: usize, mount: cri::Mount) -> Result<Mount, Status> {
    let bad = |what: String| invalid(format!("config.mounts[{at}]: {what}"));
    let image = mount.image.as_ref().filter(|image| !image.image.is_empty());
    let image = image.map(|image| ImageVolume {
        name: image.image.clone(),
        sub_path: PathBuf::from(&mount.image_sub_path),
        ..ImageVolume::default()
    });
    match &image {
        Some(image) => {
            if !mount.host_path.is_empty() {
                return Err(bad("either host_path or image is to be given, not both".to_owned()));
            }
            // The kubelet always says so; what is written would be lost with the container.
            if !mount.readonly {
                return Err(bad("an image can only be mounted with readonly".to_owned()));
            }
            let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
            if !image.sub_path.components().all(inside) {
                let path = image.sub_path.display();
                return Err(bad(format!("image_sub_path {path} must be relative, without ..")));
            }
        }
        None if !mount.image_sub_path.is_empty() => {
            return Err(bad("image_sub_path needs an image".to_owned()));
        }
        None => {}
    }
    let id_maps = if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        None
    } else {
        Some(id_maps(&mount.uid_mappings, &mount.gid_mappings).map_err(bad)?)
    };
    for (path, name) in [(&mount.container_path, "container_path"), (&mount.host_path, "host_path")]
    {
        let of_image = name == "host_path" && image.is_some();
        if !path.starts_with('/') && !of_image {
            return Err(bad(format!("{name} \"{path}\" must be an absolute path")));
        }
    }
    let propagation = match mount.propagation() {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        cri::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    if mount.recursive_read_only && (!mount.readonly || propagation != Propagation::Private) {
        let why = "recursive_read_only needs readonly, and private propagation";
        return Err(bad(why.to_owned()));
    }
    Ok(Mount {
        container_path: mount.container_path.into(),
        host_path: mount.host_path.into(),
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        id_maps,
        image,
    })
}

fn device(device: cri::Device) -> Device {
    Device {
        host_path: device.host_path.into(),
        container_path: device.container_path.into(),
        permissions: device.permissions,
    }
}

/// By the field, and as older device plugins ask for them: by annotations.
fn cdi_devices(devices: Vec<cri::CdiDevice>, annotations: &HashMap<String, String>) -> Vec<String> {
    let mut annotated: Vec<_> =
        annotations.iter().filter(|(key, _)| key.starts_with(CDI_ANNOTATIONS)).collect();
    annotated.sort();
    let annotated = annotated.into_iter().flat_map(|(_, value)| value.split(','));
    let mut names: Vec<String> = devices.into_iter().map(|device| device.name).collect();
    names.extend(annotated.map(|name| name.trim().to_owned()));
    names
}

fn parse_security(
    security: cri::LinuxContainerSecurityContext,
    seccomp_dir: &Path,
) -> Result<Security, Status> {
    let id = |value: i64, name: &str| {
        u32::try_from(value).map_err(|_| {
            invalid(format!("security_context.{name} is {value}: 0 to 4294967295 are allowed"))
        })
    };
    let uid = security.run_as_user.map(|user| id(user.value, "run_as_user")).transpose()?;
    let gid = security.run_as_group.map(|group| id(group.value, "run_as_group")).transpose()?;
    let name = Some(security.run_as_username.clone()).filter(|name| !name.is_empty());
    if gid.is_some() && uid.is_none() && name.is_none() {
        let why = "security_context.run_as_group needs run_as_user or run_as_username";
        return Err(invalid(why));
    }
    let groups = security.supplemental_groups.iter();
    let capabilities = security.capabilities.clone().unwrap_or_default();
    Ok(Security {
        privileged: security.privileged,
        capabilities: CapabilityRequest {
            add: capabilities.add_capabilities,
            drop: capabilities.drop_capabilities,
            ambient: capabilities.add_ambient_capabilities,
        },
        user: UserRequest {
            uid,
            gid,
            name,
            supplemental_groups: groups
                .map(|group| id(*group, "supplemental_groups"))
                .collect::<Result<_, _>>()?,
            strict_groups: security.supplemental_groups_policy()
                == cri::SupplementalGroupsPolicy::Strict,
        },
        readonly_rootfs: security.readonly_rootfs,
        no_new_privs: security.no_new_privs,
        masked_paths: Some(security.masked_paths.clone()),
        readonly_paths: Some(security.readonly_paths.clone()),
        seccomp: seccomp(&security, seccomp_dir)?,
        apparmor: apparmor(&security)?,
        selinux: selinux(security.selinux_options),
    })
}

/// The field, else the path that older clients send.
fn seccomp(
    security: &cri::LinuxContainerSecurityContext,
    seccomp_dir: &Path,
) -> Result<Profile, Status> {
    let localhost = |path: &str| {
        if path.is_empty() {
            return Err(invalid("security_context.seccomp: Localhost needs a localhost_ref"));
        }
        // An absolute path stays as it is.
        Ok(Profile::Localhost(seccomp_dir.join(path).to_string_lossy().into_owned()))
    };
    if let Some(profile) = &security.seccomp {
        return match profile.profile_type() {
            cri::security_profile::ProfileType::RuntimeDefault => Ok(Profile::RuntimeDefault),
            cri::security_profile::ProfileType::Unconfined => Ok(Profile::Unconfined),
            cri::security_profile::ProfileType::Localhost => localhost(&profile.localhost_ref),
        };
    }
    #[allow(deprecated)]
    match security.seccomp_profile_path.as_str() {
        "" | "unconfined" => Ok(Profile::Unconfined),
        "runtime/default" | "docker/default" => Ok(Profile::RuntimeDefault),
        path => match path.strip_prefix("localhost/") {
            Some(path) => localhost(path),
            None => Err(invalid(format!(
                "security_context.seccomp_profile_path \"{path}\" is none of unconfined, runtime/default, localhost/PATH"
            ))),
        },
    }
}

pub(super) fn selinux(options: Option<cri::SeLinuxOption>) -> SelinuxOptions {
    let options = options.unwrap_or_default();
    let cri::SeLinuxOption { user, role, r#type: kind, level } = options;
    SelinuxOptions { user, role, kind, level }
}

fn apparmor(security: &cri::LinuxContainerSecurityContext) -> Result<Option<Profile>, Status> {
    if let Some(profile) = &security.apparmor {
        return Ok(Some(match profile.profile_type() {
            cri::security_profile::ProfileType::RuntimeDefault => Profile::RuntimeDefault,
            cri::security_profile::ProfileType::Unconfined => Profile::Unconfined,
            cri::security_profile::ProfileType::Localhost => {
                // The field needs no prefix, but some clients write one as in the older field.
                let name = &profile.localhost_ref;
                Profile::Localhost(name.strip_prefix("localhost/").unwrap_or(name).to_owned())
            }
        }));
    }
    #[allow(deprecated)]
    match security.apparmor_profile.as_str() {
        "" => Ok(None),
        "unconfined" => Ok(Some(Profile::Unconfined)),
        "runtime/default" => Ok(Some(Profile::RuntimeDefault)),
        profile => match profile.strip_prefix("localhost/") {
            Some(name) => Ok(Some(Profile::Localhost(name.to_owned()))),
            None => Err(invalid(format!(
                "security_context.apparmor_profile \"{profile}\" is none of unconfined, runtime/default, localhost/NAME"
            ))),
        },
    }
}

/// Limits; zero is "not set" on the wire.
pub(super) fn resources(resources: cri::LinuxContainerResources) -> Result<Resources, Status> {
    let positive = |value: i64, name: &str| match value {
        0 => Ok(None),
        value => u64::try_from(value)
            .map(Some)
            .map_err(|_| invalid(format!("resources.{name} is {value}: it can't be negative"))),
    };
    let oom_score_adj = i32::try_from(resources.oom_score_adj)
        .ok()
        .filter(|adj| (-1000..=1000).contains(adj))
        .ok_or_else(|| {
            invalid(format!(
                "resources.oom_score_adj is {}: -1000 to 1000 are allowed",
                resources.oom_score_adj
            ))
        })?;
    Ok(Resources {
        cpu_shares: positive(resources.cpu_shares, "cpu_shares")?,
        cpu_quota_us: Some(resources.cpu_quota).filter(|quota| *quota != 0),
        cpu_period_us: positive(resources.cpu_period, "cpu_period")?,
        cpuset_cpus: resources.cpuset_cpus,
        cpuset_mems: resources.cpuset_mems,
        memory_limit_bytes: Some(resources.memory_limit_in_bytes).filter(|limit| *limit != 0),
        memory_swap_bytes: Some(resources.memory_swap_limit_in_bytes).filter(|limit| *limit != 0),
        pids_limit: None,
        oom_score_adj,
        hugepage_limits: resources
            .hugepage_limits
            .into_iter()
            .map(|limit| (limit.page_size, limit.limit))
            .collect(),
        unified: resources.unified.into_iter().collect(),
        rdt_class: None,
        blockio_class: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: "busybox".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |change: fn(&mut cri::ContainerConfig), needle: &str| {
            let mut config = config();
            change(&mut config);
            let status = parse(config, Path::new("/seccomp")).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(needle), "{status}");
        };
        refused(|c| c.image = None, "image");
        refused(|c| c.log_path = "../../etc/passwd".into(), "log_path");
        refused(|c| c.log_path = "/var/log/x".into(), "log_path");
        refused(|c| c.mounts = vec![cri::Mount::default()], "mounts[0]");
        refused(|c| c.stop_signal = 999, "stop_signal");
        refused(
            |c| {
                let mut linux = cri::LinuxContainerConfig::default();
                let security = linux.security_context.get_or_insert_default();
                security.run_as_group = Some(cri::Int64Value { value: 7 });
                c.linux = Some(linux);
            },
            "run_as_group",
        );
    }

    #[test]
    fn an_apparmor_profile_is_the_same_with_a_prefix() {
        for name in ["profile", "localhost/profile"] {
            let profile = cri::SecurityProfile {
                profile_type: cri::security_profile::ProfileType::Localhost.into(),
                localhost_ref: name.to_owned(),
            };
            let security = cri::LinuxContainerSecurityContext {
                apparmor: Some(profile),
                ..Default::default()
            };
            let parsed = apparmor(&security).unwrap();
            assert_eq!(parsed, Some(Profile::Localhost("profile".to_owned())));
        }
    }

    #[test]
    fn a_relative_seccomp_profile_is_below_its_directory() {
        let mut security = cri::LinuxContainerSecurityContext::default();
        #[allow(deprecated)]
        security.seccomp_profile_path.push_str("localhost/a/b.json");
        let profile = seccomp(&security, Path::new("/seccomp")).unwrap();
        assert_eq!(profile, Profile::Localhost("/seccomp/a/b.json".into()));
    }
}
