//! A pod in full, as text.

use std::fmt::Write as _;

use crate::proto::haled::{Container, Event, Pod, ProbeStatus};

use super::age::{rfc3339, since, span};
use super::output::{line, plain};
use super::{events, status};

/// The column of the values.
const INDENT: usize = 20;

/// The pod and its events. `now` is nanoseconds since the epoch.
pub(super) fn describe(pod: &Pod, events: &[Event], now: i64) -> String {
    let mut text = String::new();
    field(&mut text, 0, "Name", &pod.name);
    field(&mut text, 0, "Namespace", &pod.namespace);
    field(&mut text, 0, "UID", &pod.uid);
    field(&mut text, 0, "Sandbox", &pod.sandbox_id);
    field(&mut text, 0, "Origin", &pod.origin);
    field(&mut text, 0, "Created", &moment(pod.created_at, now));
    field(&mut text, 0, "Labels", &status::labels(pod).join("\n"));
    field(&mut text, 0, "Annotations", &status::pairs(&pod.annotations).join("\n"));
    field(&mut text, 0, "Status", &pod.status);
    if !pod.reason.is_empty() {
        field(&mut text, 0, "Reason", &pod.reason);
    }
    field(&mut text, 0, "IPs", &pod.ips.join(", "));
    if !pod.init_containers.is_empty() {
        text.push_str("Init Containers:\n");
        for container in &pod.init_containers {
            describe_container(&mut text, container, now);
        }
    }
    text.push_str("Containers:\n");
    for container in &pod.containers {
        describe_container(&mut text, container, now);
    }
    if events.is_empty() {
        text.push_str("Events:             <none>\n");
    } else {
        text.push_str("Events:\n");
        for event in events::table(events, now).lines() {
            writeln!(text, "  {event}").expect("a String takes every write");
        }
    }
    text
}

fn describe_container(text: &mut String, container: &Container, now: i64) {
    writeln!(text, "  {}:", line(&container.name)).expect("a String takes every write");
    field(text, 4, "Container ID", &container.id);
    field(text, 4, "Image", &container.image);
    field(text, 4, "State", &container.state);
    match container.state.as_str() {
        "Running" => {
            if !container.reason.is_empty() {
                field(text, 4, "Health", &container.reason);
            }
            field(text, 4, "Started", &moment(container.started_at, now));
        }
        "Terminated" => {
            field(text, 4, "Reason", &container.reason);
            field(text, 4, "Exit code", &container.exit_code.to_string());
            field(text, 4, "Started", &moment(container.started_at, now));
            field(text, 4, "Finished", &moment(container.finished_at, now));
        }
        _ if !container.reason.is_empty() => field(text, 4, "Reason", &container.reason),
        _ => {}
    }
    if !container.message.is_empty() {
        field(text, 4, "Message", &container.message);
    }
    if let Some(last) = &container.last {
        let reason = &last.reason;
        let when = moment(last.finished_at, now);
        field(text, 4, "Last state", &format!("ended with {}: {reason}, {when}", last.exit_code));
    }
    if let Some(left) = container.backoff_left_ms {
        field(text, 4, "Next start", &format!("in {}", span(i128::from(left) * 1_000_000)));
    }
    field(text, 4, "Ready", if container.ready { "yes" } else { "no" });
    field(text, 4, "Restarts", &container.restart_count.to_string());
    for probe in &container.probes {
        describe_probe(text, probe, now);
    }
}

fn describe_probe(text: &mut String, probe: &ProbeStatus, now: i64) {
    let (fails, passes) = (probe.failure_threshold, probe.success_threshold);
    let run = match probe.run {
        0 => "not run yet".to_owned(),
        run => format!("last {run} equal; fails at {fails} in a row, passes at {passes}"),
    };
    let mut name = probe.kind.clone();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    field(text, 4, &name, &probe.handler);
    field(text, 6, "Result", &format!("{} ({run})", probe.result));
    if probe.last_change_at != 0 {
        field(text, 6, "Since", &moment(probe.last_change_at, now));
    }
    if probe.last_run_at != 0 {
        field(text, 6, "Last run", &moment(probe.last_run_at, now));
    }
    if !probe.last_output.is_empty() {
        field(text, 6, "Last output", &probe.last_output);
    }
    if probe.next_run_at != 0 {
        let left = i128::from(probe.next_run_at) - i128::from(now);
        field(text, 6, "Next run", &format!("in {}", span(left.max(0))));
    }
}

/// `Name:      value`; a value of several lines is set in below the first.
fn field(text: &mut String, indent: usize, name: &str, value: &str) {
    let value = plain(value.trim_end());
    let value = if value.is_empty() { "<none>".to_owned() } else { value };
    let head = format!("{:indent$}{name}:", "");
    let value = value.replace('\n', &format!("\n{:INDENT$}", ""));
    let line = if head.len() < INDENT {
        format!("{head:INDENT$}{value}")
    } else {
        format!("{head} {value}")
    };
    text.push_str(&line);
    text.push('\n');
}

/// `2026-01-02T03:04:05Z (5m ago)`.
fn moment(at: i64, now: i64) -> String {
    rfc3339(at).map(|stamp| format!("{stamp} ({} ago)", since(at, now))).unwrap_or_default()
}
