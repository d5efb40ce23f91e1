//! PodSandboxConfig → the pod's own configuration.

use std::net::IpAddr;
use std::path::PathBuf;

use tonic::Status;

use super::container_config::{resources, selinux};
use super::status::invalid;
use crate::network::{Dns, PortMapping};
use crate::oci::model::{PidMode, Sharing};
use crate::pod::config::SandboxConfig;
use crate::proto::cri;
use crate::sys::userns::{IdMaps, Range};

/// The longest hostname Linux takes, in bytes (sethostname(2)).
const MAX_HOSTNAME: usize = 64;

/// Parses a sandbox's configuration.
pub(super) fn parse(
    config: cri::PodSandboxConfig,
    runtime_handler: String,
) -> Result<SandboxConfig, Status> {
    let metadata = config.metadata.ok_or_else(|| invalid("config.metadata is missing"))?;
    if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
        return Err(invalid("config.metadata needs a name, a namespace and a uid"));
    }
    if config.hostname.len() > MAX_HOSTNAME || config.hostname.contains(['\0', '\n', '/']) {
        return Err(invalid(format!(
            "config.hostname {:?} is not one: at most {MAX_HOSTNAME} bytes in one line",
            config.hostname
        )));
    }
    let log_directory = PathBuf::from(config.log_directory);
    if !log_directory.as_os_str().is_empty() && !log_directory.is_absolute() {
        return Err(invalid("config.log_directory must be an absolute path"));
    }
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let namespaces = security.namespace_options.unwrap_or_default();
    let userns = user_namespace(&namespaces)?;
    Ok(SandboxConfig {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        hostname: config.hostname,
        log_directory,
        dns: config.dns_config.map(|dns| Dns {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        host_aliases: Vec::new(),
        port_mappings: port_mappings(config.port_mappings)?,
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        cgroup_parent: linux.cgroup_parent,
        sysctls: linux.sysctls.into_iter().collect(),
        network: sharing(namespaces.network(), "network")?,
        ipc: sharing(namespaces.ipc(), "ipc")?,
        pid: match namespaces.pid() {
            cri::NamespaceMode::Pod => PidMode::Pod,
            cri::NamespaceMode::Container => PidMode::Container,
            cri::NamespaceMode::Node => PidMode::Node,
            cri::NamespaceMode::Target => {
                return Err(invalid("a sandbox's PID namespace can't be another container's"));
            }
        },
        userns,
        privileged: security.privileged,
        selinux: selinux(security.selinux_options),
        resources: linux.resources.map(resources).transpose()?,
        overhead: linux.overhead.map(resources).transpose()?,
        runtime_handler,
    })
}

/// POD or NODE.
fn sharing(mode: cri::NamespaceMode, which: &str) -> Result<Sharing, Status> {
    match mode {
        cri::NamespaceMode::Pod => Ok(Sharing::Pod),
        cri::NamespaceMode::Node => Ok(Sharing::Node),
        mode => Err(invalid(format!(
            "namespace_options.{which} is {}: POD and NODE are allowed",
            mode.as_str_name()
        ))),
    }
}

/// The ids of the pod's user namespace; `None`: the host's.
pub(super) fn user_namespace(namespaces: &cri::NamespaceOption) -> Result<Option<IdMaps>, Status> {
    let Some(user) = &namespaces.userns_options else { return Ok(None) };
    let bad = |why: &str| invalid(format!("namespace_options.userns_options: {why}"));
    match user.mode() {
        cri::NamespaceMode::Node if user.uids.is_empty() && user.gids.is_empty() => {
            return Ok(None);
        }
        cri::NamespaceMode::Node => return Err(bad("mode NODE takes no mappings")),
        cri::NamespaceMode::Pod => {}
        mode => {
            return Err(bad(&format!("mode is {}: POD and NODE are allowed", mode.as_str_name())));
        }
    }
    let all =
        [("network", namespaces.network()), ("pid", namespaces.pid()), ("ipc", namespaces.ipc())];
    if let Some((name, _)) = all.iter().find(|(_, mode)| *mode == cri::NamespaceMode::Node) {
        // Files such as /sys and /dev/mqueue can't be mounted for namespaces of another owner.
        return Err(bad(&format!("can't be a pod's own together with the host's {name}")));
    }
    id_maps(&user.uids, &user.gids).map(Some).map_err(|why| bad(&why))
}

/// Both maps, checked.
pub(super) fn id_maps(uids: &[cri::IdMapping], gids: &[cri::IdMapping]) -> Result<IdMaps, String> {
    let ranges = |mappings: &[cri::IdMapping]| {
        let range = |mapping: &cri::IdMapping| Range {
            inside: mapping.container_id,
            outside: mapping.host_id,
            count: mapping.length,
        };
        mappings.iter().map(range).collect()
    };
    let maps = IdMaps { uids: ranges(uids), gids: ranges(gids) };
    maps.check()?;
    Ok(maps)
}

/// Ports that are to be published; those without a host port only inform.
fn port_mappings(mappings: Vec<cri::PortMapping>) -> Result<Vec<PortMapping>, Status> {
    let mut published = Vec::new();
    for (at, mapping) in mappings.into_iter().enumerate() {
        if mapping.host_port == 0 {
            continue;
        }
        let bad = |what: &str| invalid(format!("config.port_mappings[{at}].{what}"));
        let port = |port: i32, name: &str| {
            u16::try_from(port)
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| bad(&format!("{name} is {port}: 1 to 65535 are allowed")))
        };
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            ip => Some(
                ip.parse::<IpAddr>()
                    .map_err(|_| bad(&format!("host_ip \"{ip}\" is not an IP address")))?,
            ),
        };
        published.push(PortMapping {
            protocol: match mapping.protocol() {
                cri::Protocol::Tcp => "tcp",
                cri::Protocol::Udp => "udp",
                cri::Protocol::Sctp => "sctp",
            }
            .to_owned(),
            container_port: port(mapping.container_port, "container_port")?,
            host_port: port(mapping.host_port, "host_port")?,
            host_ip,
        });
    }
    Ok(published)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "web".into(),
                uid: "u".into(),
                namespace: "default".into(),
                attempt: 1,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |change: fn(&mut cri::PodSandboxConfig), needle: &str| {
            let mut config = config();
            change(&mut config);
            let status = parse(config, String::new()).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(needle), "{status}");
        };
        refused(|c| c.metadata = None, "metadata");
        refused(|c| c.metadata.as_mut().unwrap().uid.clear(), "uid");
        refused(|c| c.hostname = "a".repeat(65), "hostname");
        refused(|c| c.log_directory = "logs".into(), "log_directory");
        refused(
            |c| {
                c.port_mappings = vec![cri::PortMapping { host_port: 70000, ..Default::default() }];
            },
            "port_mappings[0]",
        );
    }

    #[test]
    fn a_port_without_a_host_port_is_not_published() {
        let mut config = config();
        config.port_mappings = vec![cri::PortMapping { container_port: 80, ..Default::default() }];
        assert_eq!(parse(config, String::new()).unwrap().port_mappings, []);
    }
}
