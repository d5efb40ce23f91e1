//! Pods as haled v1 tells of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::Face;
use super::super::container::health_word;
use super::{spec, status_word};
use crate::container::state::{Ended, State, nanos};
use crate::health::{Policy, Probes, Report, is_kill};
use crate::manifest::Planned;
use crate::manifest::controller::{Managed, node};
use crate::manifest::status::{Condition, initialized, phase_of};
use crate::oci::model::Sharing;
use crate::pod::history::{Restart, Run};
use crate::pod::record::{Origin, Phase};
use crate::pod::view::{ContainerView, PodView};
use crate::proto::haled as wire;

impl Face {
    /// The pods that a request asks for, by namespace and name.
    pub(super) fn pods_of(&self, request: &wire::ListPodsRequest) -> wire::ListPodsResponse {
        let wanted = |pod: &wire::Pod| {
            (request.namespace.is_empty() || pod.namespace == request.namespace)
                && (request.name.is_empty() || pod.name == request.name)
        };
        let mut views = self.pods.views();
        views.sort_by_key(|view| std::cmp::Reverse(view.config.attempt));
        let managed = self.manifests.list(&views);
        let own = managed.iter().map(|managed| {
            let uid = &managed.plan.sandbox.uid;
            let sandboxes = views.iter().filter(|view| view.config.uid == *uid).cloned().collect();
            of_managed(managed, &Sandboxes(sandboxes))
        });
        let others = views.iter().filter(|view| view.origin == Origin::Cri);
        let others = others.map(|view| of_cri(view, request.specs));
        let mut pods: Vec<wire::Pod> = own.chain(others).filter(wanted).collect();
        for pod in &mut pods {
            pod.status = status_word::of(pod);
        }
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        wire::ListPodsResponse { pods }
    }
}

/// A pod's sandboxes, the newest first.
struct Sandboxes(Vec<Arc<PodView>>);

impl Sandboxes {
    fn newest(&self) -> Option<&PodView> {
        self.0.first().map(|view| &**view)
    }

    /// The last attempt of a container before the given one that has ended.
    fn ended_before(&self, name: &str, attempt: u32) -> Option<(&ContainerView, &Ended)> {
        let of_name = |container: &&Arc<ContainerView>| {
            container.config.name == name && container.config.attempt < attempt
        };
        let all = self.0.iter().flat_map(|view| &view.containers).filter(of_name);
        let last = all.max_by_key(|container| container.config.attempt)?;
        match &last.state {
            State::Exited(ended) => Some((last, ended)),
            _ => None,
        }
    }
}

/// A pod of a manifest.
fn of_managed(managed: &Managed, sandboxes: &Sandboxes) -> wire::Pod {
    let plan = &managed.plan;
    let view = sandboxes.newest();
    let tell = |planned: &Planned| {
        let (name, image) = (&planned.config.name, &planned.config.image);
        let mut container =
            container_of(sandboxes, name, image, Some(&plan.health), &managed.problem);
        container.sidecar = planned.sidecar;
        container
    };
    let mut init_containers: Vec<_> = plan.init.iter().map(tell).collect();
    for init in init_containers.iter_mut().filter(|init| !init.sidecar) {
        // One that has passed is as ready as it gets, in Kubernetes' status too.
        init.ready = init.state == "Terminated" && init.exit_code == 0;
    }
    let mut containers: Vec<_> = plan.containers.iter().map(tell).collect();
    let initialized = view.is_some_and(|view| initialized(plan, view));
    if !initialized && !init_containers.is_empty() {
        for waiting in init_containers.iter_mut().chain(&mut containers) {
            if waiting.id.is_empty() && waiting.reason == "ContainerCreating" {
                "PodInitializing".clone_into(&mut waiting.reason);
            }
        }
    }
    // What ended the pod, else what is in the way.
    let reason = match &managed.ended {
        Some(ended) if !ended.reason.is_empty() => format!("{}: {}", ended.reason, ended.message),
        Some(ended) => ended.message.clone(),
        None => managed.problem.clone(),
    };
    let host_ip = node::address().map(|ip| ip.to_string()).unwrap_or_default();
    let mut ips = view.map(ips).unwrap_or_default();
    if plan.sandbox.network == Sharing::Node && !host_ip.is_empty() {
        // On the node's network the node's address is the pod's.
        ips.push(host_ip.clone());
    }
    wire::Pod {
        namespace: plan.sandbox.namespace.clone(),
        name: plan.sandbox.name.clone(),
        uid: plan.sandbox.uid.clone(),
        sandbox_id: view.map(|view| view.id.to_string()).unwrap_or_default(),
        phase: managed.phase.to_owned(),
        reason,
        created_at: managed.created_at,
        ips,
        containers,
        origin: "manifest".to_owned(),
        labels: plan.sandbox.labels.clone().into_iter().collect(),
        annotations: plan.sandbox.annotations.clone().into_iter().collect(),
        init_containers,
        host_ip,
        started_at: managed.started_at,
        qos_class: plan.qos.clone(),
        conditions: managed.conditions.iter().map(condition_of).collect(),
        manifest: plan.document.to_string(),
        deletion_at: managed.delete_at,
        deletion_grace_seconds: managed.delete_grace_seconds,
        node_name: node::name(),
        ..wire::Pod::default()
    }
}

fn condition_of(condition: &Condition) -> wire::Condition {
    wire::Condition {
        r#type: condition.kind.to_owned(),
        status: condition.met,
        reason: condition.reason.to_owned(),
        message: condition.message.clone(),
        last_transition_at: condition.since,
    }
}

/// A pod that came through the CRI: its containers are those it has.
fn of_cri(view: &Arc<PodView>, with_spec: bool) -> wire::Pod {
    let mut names: Vec<&str> = Vec::new();
    for container in &view.containers {
        if !names.contains(&container.config.name.as_str()) {
            names.push(&container.config.name);
        }
    }
    let policy = view.policy.as_deref();
    let alone = Sandboxes(vec![view.clone()]);
    let containers = names.iter().map(|name| {
        let image = view.newest(name).map(|newest| newest.config.user_image.clone());
        container_of(&alone, name, &image.unwrap_or_default(), policy, "")
    });
    wire::Pod {
        namespace: view.config.namespace.clone(),
        name: view.config.name.clone(),
        uid: view.config.uid.clone(),
        sandbox_id: view.id.to_string(),
        phase: match &view.phase {
            Phase::Ready { .. } => phase_of(view, names.iter().copied(), policy),
            Phase::Starting => "Pending",
            Phase::Stopping { .. } => "Terminating",
            Phase::Lost { .. } | Phase::Stopped => "NotReady",
        }
        .to_owned(),
        reason: match &view.phase {
            Phase::Lost { why, .. } => why.clone(),
            _ => String::new(),
        },
        created_at: view.created_at,
        ips: ips(view),
        containers: containers.collect(),
        origin: "cri".to_owned(),
        labels: view.config.labels.clone().into_iter().collect(),
        annotations: view.config.annotations.clone().into_iter().collect(),
        node_name: node::name(),
        spec: if with_spec { spec::of(view, &names).to_string() } else { String::new() },
        ..wire::Pod::default()
    }
}

fn ips(view: &PodView) -> Vec<String> {
    view.ips().iter().map(ToString::to_string).collect()
}

/// The newest attempt of a container name, or what keeps it from being there.
fn container_of(
    sandboxes: &Sandboxes,
    name: &str,
    image: &str,
    policy: Option<&Policy>,
    problem: &str,
) -> wire::Container {
    let mut container = wire::Container {
        name: name.to_owned(),
        image: image.to_owned(),
        state: "Waiting".to_owned(),
        ..Default::default()
    };
    if let Some(history) = sandboxes.newest().and_then(|view| view.histories.get(name)) {
        container.probe_runs = history.runs.iter().map(run_of).collect();
        container.restarts = history.restarts.iter().map(restart_of).collect();
    }
    let newest = sandboxes.newest().and_then(|view| Some((view, view.newest(name)?)));
    let attempt = newest.map_or(u32::MAX, |(_, newest)| newest.config.attempt);
    if let Some((last, ended)) = sandboxes.ended_before(name, attempt) {
        container.restart_count = last.config.attempt;
        container.last = Some(attempt_of(last, ended));
    }
    let probes = policy.and_then(|policy| policy.probes.get(name));
    container.probes = probes.map(Probes::unknown).iter().flatten().map(probe_of).collect();
    let Some((view, newest)) = newest else {
        // `ErrImagePull: why` gives the one word that lists show.
        let (reason, message) = problem.split_once(": ").unwrap_or(("", problem));
        let one_word = !reason.is_empty() && !reason.contains(' ');
        container.reason = if one_word { reason } else { "ContainerCreating" }.to_owned();
        container.message = if one_word { message } else { problem }.to_owned();
        return container;
    };
    container.id = newest.id.to_string();
    container.image_id.clone_from(&newest.image_id);
    container.restart_count = newest.config.attempt;
    container.ready = newest.ready;
    if !newest.probes.is_empty() {
        container.probes = newest.probes.iter().map(probe_of).collect();
    }
    state_of(&mut container, view, newest, policy);
    container
}

fn state_of(
    container: &mut wire::Container,
    view: &PodView,
    newest: &ContainerView,
    policy: Option<&Policy>,
) {
    let name = &newest.config.name;
    match &newest.state {
        State::Created | State::Starting => "ContainerCreating".clone_into(&mut container.reason),
        State::Running(init) => {
            "Running".clone_into(&mut container.state);
            container.started_at = init.started_at;
            let startup = newest.probes.iter().find(|report| report.kind.as_str() == "startup");
            container.started = startup.is_none_or(|report| report.result == "Success");
            if let Some(health) = newest.health {
                container.reason = health_word(health).to_owned();
                container.message.clone_from(&newest.health_message);
            }
        }
        State::Exited(ended) => {
            container.started_at = ended.started_at;
            container.finished_at = ended.finished_at;
            container.exit_code = ended.code;
            container.message.clone_from(&ended.message);
            let killed = is_kill(&ended.reason);
            let restarts = policy.is_some_and(|policy| policy.restarts(name, ended.code, killed));
            let waits = view.waiting.iter().find(|(waiting, _)| waiting == name);
            if let Some((_, at)) = waits.filter(|_| restarts) {
                "CrashLoopBackOff".clone_into(&mut container.reason);
                // It waits for the next, so this one is the last.
                container.last = Some(attempt_of(newest, ended));
                let left = (at - nanos(SystemTime::now())).max(0) / 1_000_000;
                container.next_start_at = *at;
                container.backoff_left_ms = Some(u64::try_from(left).unwrap_or(0));
            } else {
                "Terminated".clone_into(&mut container.state);
                container.reason.clone_from(&ended.reason);
            }
        }
    }
}

fn attempt_of(attempt: &ContainerView, ended: &Ended) -> wire::Attempt {
    wire::Attempt {
        id: attempt.id.to_string(),
        exit_code: ended.code,
        reason: ended.reason.clone(),
        message: ended.message.clone(),
        started_at: ended.started_at,
        finished_at: ended.finished_at,
    }
}

fn run_of(run: &Run) -> wire::ProbeRun {
    wire::ProbeRun { kind: run.kind.as_str().to_owned(), success: run.success, at: run.at }
}

fn restart_of(restart: &Restart) -> wire::Restart {
    wire::Restart { at: restart.at, reason: restart.reason.clone(), took_ms: millis(restart.took) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn probe_of(report: &Report) -> wire::ProbeStatus {
    let time = |time: Option<SystemTime>| time.map(nanos).unwrap_or_default();
    wire::ProbeStatus {
        kind: report.kind.as_str().to_owned(),
        handler: report.handler.clone(),
        result: report.result.clone(),
        run: report.run,
        success_threshold: report.success_threshold,
        failure_threshold: report.failure_threshold,
        last_output: report.last.as_ref().map(|last| last.output.clone()).unwrap_or_default(),
        last_run_at: time(report.last_run_at),
        last_change_at: time(report.last_change_at),
        next_run_at: time(report.next_run_at),
        initial_delay_ms: millis(report.initial_delay),
        timeout_ms: millis(report.timeout),
        period_ms: millis(report.period),
        last_success: report.last.as_ref().is_some_and(|last| last.success),
    }
}
