//! A Pod document.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::container::{self, Scope};
use super::files::Sources;
use super::hooks::restart_policy;
use super::resources::Amounts;
use super::schema::{DNS_CONFIG, DNS_OPTION, HOST_ALIAS, METADATA, OS, POD, SPEC};
use super::security::{self, PodSecurity};
use super::{cluster, label, objects, subdomain, volumes};
use crate::health::fields::{Mistakes, Object, default_number};
use crate::health::{Heal, Policy};
use crate::manifest::PodPlan;
use crate::manifest::dns::{MAX_SEARCH_CHARS, MAX_SEARCHES, MAX_SERVERS};
use crate::network::{Dns, PortMapping};
use crate::oci::model::{PidMode, Sharing};
use crate::pod::config::{HostAlias, SandboxConfig};
use crate::sys::userns::IdMaps;

/// Containers in one pod.
const MAX_CONTAINERS: usize = 64;
/// The longest hostname Linux takes, in bytes (sethostname(2)).
const MAX_HOSTNAME: usize = 64;

const SPEC_LATER: &[&str] = &[
    "affinity",
    "ephemeralContainers",
    "hostnameOverride",
    "imagePullSecrets",
    "nodeSelector",
    "overhead",
    "readinessGates",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "schedulingGates",
    "setHostnameAsFQDN",
    "subdomain",
    "topologySpreadConstraints",
];

/// Reads a Pod. `None` where there were mistakes.
pub(super) fn pod(
    object: &Object<'_>,
    document: &Value,
    sources: &Sources,
    mistakes: &mut Mistakes,
) -> Option<PodPlan> {
    let before = mistakes.0.len();
    object.known(POD, &[], mistakes);
    let empty = Value::Object(serde_json::Map::new());
    let metadata = object.get("metadata").unwrap_or(&empty);
    let metadata = Object::new(object.at("metadata"), metadata, mistakes)?;
    metadata.known(METADATA, &[], mistakes);
    let name = subdomain(&metadata, "name", mistakes).unwrap_or_default();
    let namespace = match metadata.get("namespace") {
        Some(_) => label(&metadata, "namespace", mistakes).unwrap_or_default(),
        None => "default".to_owned(),
    };
    let labels = metadata.string_map("labels", mistakes);
    let annotations = metadata.string_map("annotations", mistakes);
    if object.get("spec").is_none() {
        mistakes.add(object.path.clone(), "field \"spec\" is missing");
    }
    let spec = object.object("spec", mistakes)?;
    spec.known(SPEC, SPEC_LATER, mistakes);
    idle(&spec, mistakes);
    let security = PodSecurity::read(&spec, mistakes);
    let (own_dns, added_dns) = dns(&spec, mistakes);
    let mut sandbox = sandbox(&spec, &name, &namespace, mistakes);
    sandbox.dns = own_dns;
    sandbox.sysctls.clone_from(&security.sysctls);
    sandbox.selinux = security.selinux();
    let names: BTreeSet<String> = volume_names(&spec);
    let tokens = cluster::token_volumes(document);
    let amounts = all_amounts(&spec);
    let restart = restart_policy(&spec, SPEC, mistakes).unwrap_or_default();
    let scope = Scope {
        pod: &name,
        namespace: &namespace,
        labels: &labels,
        annotations: &annotations,
        sources,
        volumes: &names,
        tokens: &tokens,
        amounts: &amounts,
        security: &security,
        pid_mode: sandbox.pid.clone(),
        restart,
    };
    let grace = "terminationGracePeriodSeconds";
    let grace = spec.number(SPEC, grace, mistakes).unwrap_or_else(|| default_number(SPEC, grace));
    let mut plan = PodPlan {
        sandbox,
        init: Vec::new(),
        containers: Vec::new(),
        health: Policy { heal: Heal::Restart, restart, ..Policy::default() },
        grace: Duration::from_secs(grace),
        deadline: spec.number(SPEC, "activeDeadlineSeconds", mistakes).map(Duration::from_secs),
        added_dns,
        volumes: volumes::volumes(&spec, &scope, mistakes),
        fs_group: security.fs_group,
        qos: String::new(),
        document: cluster::without_volumes(document, &tokens),
    };
    containers(&spec, &scope, &mut plan, mistakes);
    plan.sandbox.annotations = annotations.clone();
    own_labels(&labels, &mut plan);
    (mistakes.0.len() == before).then_some(plan)
}

/// What every pod of a cluster has, and means nothing here, or only what is so anyway.
fn idle(spec: &Object<'_>, mistakes: &mut Mistakes) {
    for flag in ["automountServiceAccountToken", "enableServiceLinks"] {
        spec.boolean(flag, mistakes);
    }
    for word in ["preemptionPolicy", "schedulerName", "serviceAccount", "serviceAccountName"] {
        spec.word(SPEC, word, mistakes);
    }
    if let Some(os) = spec.object("os", mistakes) {
        os.known(OS, &[], mistakes);
        if os.required("name", mistakes).is_some() {
            os.word(OS, "name", mistakes);
        }
    }
}

/// What each container asks for and may have. Mistakes are told where it is read.
fn all_amounts(spec: &Object<'_>) -> BTreeMap<String, Amounts> {
    let mut told_elsewhere = Mistakes::default();
    let mut all = BTreeMap::new();
    for field in ["initContainers", "containers"] {
        for object in objects(spec, field, &mut told_elsewhere) {
            if let Some(name) = object.string("name", &mut told_elsewhere) {
                all.insert(name, super::resources::amounts(&object, &mut told_elsewhere));
            }
        }
    }
    all
}

/// Also of those with a mistake, which has been told.
fn volume_names(spec: &Object<'_>) -> BTreeSet<String> {
    let mut told_elsewhere = Mistakes::default();
    let volumes = objects(spec, "volumes", &mut told_elsewhere);
    volumes.iter().filter_map(|volume| volume.string("name", &mut told_elsewhere)).collect()
}

/// The labels and annotations in which a kubelet notes what a pod and its containers are.
fn own_labels(labels: &BTreeMap<String, String>, plan: &mut PodPlan) {
    let own = BTreeMap::from([
        ("io.kubernetes.pod.name".to_owned(), plan.sandbox.name.clone()),
        ("io.kubernetes.pod.namespace".to_owned(), plan.sandbox.namespace.clone()),
    ]);
    plan.sandbox.labels = labels.clone();
    plan.sandbox.labels.extend(own.clone());
    let grace = plan.grace.as_secs().to_string();
    for planned in plan.init.iter_mut().chain(&mut plan.containers) {
        planned.config.labels.extend(own.clone());
        let annotations = &mut planned.config.annotations;
        annotations.insert("io.kubernetes.container.restartCount".to_owned(), "0".to_owned());
        annotations.insert("io.kubernetes.pod.terminationGracePeriod".to_owned(), grace.clone());
    }
}

fn sandbox(
    spec: &Object<'_>,
    name: &str,
    namespace: &str,
    mistakes: &mut Mistakes,
) -> SandboxConfig {
    let flag = |field, mistakes: &mut Mistakes| spec.boolean(field, mistakes).unwrap_or(false);
    flag("hostUsers", mistakes);
    let host_network = flag("hostNetwork", mistakes);
    let host_pid = flag("hostPID", mistakes);
    let host_ipc = flag("hostIPC", mistakes);
    let share = flag("shareProcessNamespace", mistakes);
    let own_users = security::own_users(spec);
    for (field, there) in
        [("hostNetwork", host_network), ("hostPID", host_pid), ("hostIPC", host_ipc)]
    {
        if own_users && there {
            mistakes.add(spec.at(field), "can't be true beside hostUsers: false");
        }
    }
    if host_pid && share {
        mistakes.add(spec.at("shareProcessNamespace"), "can't be true beside hostPID");
    }
    let hostname = match spec.get("hostname") {
        Some(_) => label(spec, "hostname", mistakes).unwrap_or_default(),
        None => name.chars().take(MAX_HOSTNAME - 1).collect::<String>(),
    };
    let sharing = |host| if host { Sharing::Node } else { Sharing::Pod };
    SandboxConfig {
        // The host's, on its network.
        hostname: if host_network {
            String::new()
        } else {
            hostname.trim_end_matches(['-', '.']).to_owned()
        },
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        host_aliases: host_aliases(spec, mistakes),
        network: sharing(host_network),
        ipc: sharing(host_ipc),
        pid: match (host_pid, share) {
            (true, _) => PidMode::Node,
            (_, true) => PidMode::Pod,
            _ => PidMode::Container,
        },
        // Which ids these are the controller says.
        userns: own_users.then(IdMaps::default),
        ..SandboxConfig::default()
    }
}

/// A pod's own settings, or what is added to the node's. Neither: the node's resolv.conf as
/// it is, which is also what ClusterFirst means without a cluster.
fn dns(spec: &Object<'_>, mistakes: &mut Mistakes) -> (Option<Dns>, Option<Dns>) {
    let policy = spec.word(SPEC, "dnsPolicy", mistakes);
    let Some(object) = spec.object("dnsConfig", mistakes) else {
        if policy == Some("None") {
            mistakes.add(spec.at("dnsPolicy"), "None needs a dnsConfig with nameservers");
        }
        return (None, None);
    };
    object.known(DNS_CONFIG, &[], mistakes);
    let servers = object.strings("nameservers", mistakes);
    for (at, server) in servers.iter().enumerate() {
        if server.parse::<std::net::IpAddr>().is_err() {
            let path = format!("{}[{at}]", object.at("nameservers"));
            mistakes.add(path, format!("\"{server}\" is no IP address"));
        }
    }
    let mut options = Vec::new();
    for option in objects(&object, "options", mistakes) {
        option.known(DNS_OPTION, &[], mistakes);
        let name = option.required("name", mistakes);
        let value = option.string("value", mistakes);
        options.extend(name.map(|name| match value {
            Some(value) => format!("{name}:{value}"),
            None => name,
        }));
    }
    let dns = Dns { servers, searches: object.strings("searches", mistakes), options };
    for (field, values, most) in
        [("nameservers", &dns.servers, MAX_SERVERS), ("searches", &dns.searches, MAX_SEARCHES)]
    {
        if values.len() > most {
            mistakes.add(object.at(field), format!("has {}: {most} are allowed", values.len()));
        }
    }
    if dns.searches.join(" ").chars().count() > MAX_SEARCH_CHARS {
        let what = format!("is too long: {MAX_SEARCH_CHARS} characters in all are allowed");
        mistakes.add(object.at("searches"), what);
    }
    if policy != Some("None") {
        return (None, Some(dns));
    }
    if dns.servers.is_empty() {
        mistakes.add(object.at("nameservers"), "is empty: dnsPolicy None needs at least one");
    }
    (Some(dns), None)
}

fn host_aliases(spec: &Object<'_>, mistakes: &mut Mistakes) -> Vec<HostAlias> {
    let mut aliases = Vec::new();
    for alias in objects(spec, "hostAliases", mistakes) {
        alias.known(HOST_ALIAS, &[], mistakes);
        let names = alias.strings("hostnames", mistakes);
        let good = |name: &String| name.split('.').all(super::is_label);
        if names.is_empty() || !names.iter().all(good) {
            mistakes.add(alias.at("hostnames"), "wants one or more host names in lower case");
        }
        let Some(ip) = alias.required("ip", mistakes) else { continue };
        match ip.parse() {
            Ok(ip) => aliases.push(HostAlias { ip, names }),
            Err(_) => mistakes.add(alias.at("ip"), format!("\"{ip}\" is no IP address")),
        }
    }
    aliases
}

fn containers(spec: &Object<'_>, scope: &Scope<'_>, plan: &mut PodPlan, mistakes: &mut Mistakes) {
    let mut names = BTreeSet::new();
    let mut amounts = Vec::new();
    for (field, init) in [("initContainers", true), ("containers", false)] {
        let all = spec.list(field, mistakes);
        let least = usize::from(!init);
        if all.len() < least || all.len() > MAX_CONTAINERS {
            let what =
                format!("has {} containers: {least} to {MAX_CONTAINERS} are allowed", all.len());
            mistakes.add(spec.at(field), what);
            continue;
        }
        for object in objects(spec, field, mistakes) {
            let Some(parsed) = container::container(&object, init, scope, mistakes) else {
                continue;
            };
            let name = parsed.planned.config.name.clone();
            if !names.insert(name.clone()) {
                mistakes.add(object.at("name"), format!("\"{name}\" is there twice"));
            }
            for mapping in parsed.published {
                if plan.sandbox.port_mappings.iter().any(|other| clashes(other, &mapping)) {
                    let what = format!("host port {} is there twice", mapping.host_port);
                    mistakes.add(object.at("ports"), what);
                }
                plan.sandbox.port_mappings.push(mapping);
            }
            plan.sandbox.privileged |= parsed.planned.config.security.privileged;
            amounts.push(parsed.amounts);
            plan.health.probes.insert(name.clone(), parsed.probes);
            plan.health.containers.insert(name, parsed.policy);
            if init { &mut plan.init } else { &mut plan.containers }.push(parsed.planned);
        }
    }
    qos(&amounts).clone_into(&mut plan.qos);
}

fn clashes(one: &PortMapping, other: &PortMapping) -> bool {
    one.host_port == other.host_port
        && one.protocol == other.protocol
        && (one.host_ip == other.host_ip || one.host_ip.is_none() || other.host_ip.is_none())
}

/// The class of a pod, by Kubernetes' rules.
fn qos(all: &[Amounts]) -> &'static str {
    let same = |limit: Option<u64>, request: Option<u64>| {
        limit.is_some_and(|limit| limit > 0 && request.unwrap_or(limit) == limit)
    };
    let guaranteed = |amounts: &Amounts| {
        same(amounts.cpu_limit, amounts.cpu_request)
            && same(amounts.memory_limit, amounts.memory_request)
    };
    let nothing = |amounts: &Amounts| {
        let all =
            [amounts.cpu_limit, amounts.cpu_request, amounts.memory_limit, amounts.memory_request];
        all.iter().all(|amount| amount.unwrap_or(0) == 0)
    };
    if all.iter().all(nothing) {
        "BestEffort"
    } else if all.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
