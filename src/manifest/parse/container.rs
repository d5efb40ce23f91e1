//! A container of a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::files::Sources;
use super::resources::{Amounts, amounts, ports};
use super::schema::CONTAINER;
use super::security::{self, PodSecurity};
use super::{env, hooks, label, volumes};
use crate::container::config::ContainerConfig;
use crate::health::fields::{Field, Mistakes, Object};
use crate::health::{ContainerPolicy, Kind, Probes, RestartPolicy, schema};
use crate::manifest::{Planned, PullPolicy};
use crate::network::PortMapping;
use crate::oci::model::PidMode;

const LATER: &[&str] = &["volumeDevices"];

/// What a container's fields may refer to.
pub(super) struct Scope<'a> {
    pub(super) pod: &'a str,
    pub(super) namespace: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) annotations: &'a BTreeMap<String, String>,
    pub(super) sources: &'a Sources,
    pub(super) volumes: &'a BTreeSet<String>,
    /// Of those, what is left out.
    pub(super) tokens: &'a BTreeSet<String>,
    /// Of every container, by name.
    pub(super) amounts: &'a BTreeMap<String, Amounts>,
    pub(super) security: &'a PodSecurity,
    pub(super) pid_mode: PidMode,
    pub(super) restart: RestartPolicy,
}

/// A container and what goes elsewhere.
pub(super) struct Parsed {
    pub(super) planned: Planned,
    pub(super) published: Vec<PortMapping>,
    pub(super) probes: Probes,
    pub(super) policy: ContainerPolicy,
    pub(super) amounts: Amounts,
}

/// When an image is pulled.
pub(super) fn pull_policy(
    object: &Object<'_>,
    fields: &'static [Field],
    field: &str,
    mistakes: &mut Mistakes,
) -> PullPolicy {
    match object.word(fields, field, mistakes) {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        // Also for :latest, unlike in Kubernetes: an image that was imported must be enough.
        _ => PullPolicy::IfNotPresent,
    }
}

/// Reads a container.
pub(super) fn container(
    object: &Object<'_>,
    init: bool,
    scope: &Scope<'_>,
    mistakes: &mut Mistakes,
) -> Option<Parsed> {
    object.known(CONTAINER, LATER, mistakes);
    for word in ["terminationMessagePath", "terminationMessagePolicy"] {
        object.word(CONTAINER, word, mistakes);
    }
    let name = label(object, "name", mistakes);
    let image = object.required("image", mistakes);
    let pull = pull_policy(object, CONTAINER, "imagePullPolicy", mistakes);
    let amounts = amounts(object, mistakes);
    let env = env::env(object, scope, &amounts, mistakes);
    let (named, published) = ports(object, mistakes);
    let mut policy = hooks::policy(object, Some(&named), mistakes);
    let sidecar = init && policy.restart == Some(RestartPolicy::Always);
    let mut probe = |kind: Kind, field: &str| {
        let value = object.get(field)?;
        if init && !sidecar {
            let what =
                format!("an init container has no {field}: only one with restartPolicy Always may");
            mistakes.add(object.at(field), what);
            return None;
        }
        schema::probe(&object.at(field), value, kind, Some(&named), mistakes)
    };
    let probes = Probes {
        startup: probe(Kind::Startup, "startupProbe"),
        liveness: probe(Kind::Liveness, "livenessProbe"),
        readiness: probe(Kind::Readiness, "readinessProbe"),
    };
    if init && !sidecar {
        if object.get("lifecycle").is_some() {
            let what = "an init container has no hooks: only one with restartPolicy Always may";
            mistakes.add(object.at("lifecycle"), what);
        }
        // Until it passes; a pod that never restarts anything has failed with it.
        let own = policy.restart.unwrap_or(scope.restart);
        policy.restart = Some(match own {
            RestartPolicy::Never => RestartPolicy::Never,
            _ => RestartPolicy::OnFailure,
        });
    }
    let (security, non_root) = security::security(object, scope.security, mistakes);
    let mounts = volumes::mounts(object, scope, security.privileged, mistakes);
    let mut flag = |field| object.boolean(field, mistakes).unwrap_or(false);
    let (stdin, stdin_once, tty) = (flag("stdin"), flag("stdinOnce"), flag("tty"));
    let (command, args) = (object.strings("command", mistakes), object.strings("args", mistakes));
    let working_dir = object.string("workingDir", mistakes).unwrap_or_default();
    let (name, image) = (name?, image?);
    let labels = BTreeMap::from([("io.kubernetes.container.name".to_owned(), name.clone())]);
    let config = ContainerConfig {
        name,
        attempt: 0,
        user_image: image.clone(),
        image,
        command,
        args,
        working_dir,
        env: Vec::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        cdi_devices: Vec::new(),
        labels,
        annotations: BTreeMap::new(),
        log_path: PathBuf::new(),
        stdin,
        stdin_once,
        tty,
        pid_mode: scope.pid_mode.clone(),
        security,
        resources: amounts.resources(),
        checkpoint: None,
        stop_signal: None,
    };
    let planned = Planned { config, sidecar, pull, env, mounts, non_root };
    Some(Parsed { planned, published, probes, policy, amounts })
}
