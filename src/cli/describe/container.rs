//! One container of a pod in full.

use serde_json::Value;

use crate::proto::haled::{Container, ProbeStatus};

use super::{Text, moment, spec};
use crate::cli::age::span;
use crate::cli::health::in_a_row;
use crate::cli::output::line;

type Tell = fn(&Value) -> String;

/// What is told of its spec before its state.
const BEFORE: [(&str, Tell); 4] = [
    ("Ports", |spec| spec::ports(&spec["ports"])),
    ("Command", |spec| spec::lines(&spec["command"])),
    ("Args", |spec| spec::lines(&spec["args"])),
    ("Working dir", |spec| spec::word(&spec["workingDir"])),
];
/// And after it.
const AFTER: [(&str, Tell); 4] = [
    ("Limits", |spec| spec::pairs(&spec["resources"]["limits"])),
    ("Requests", |spec| spec::pairs(&spec["resources"]["requests"])),
    ("Environment", spec::environment),
    ("Mounts", |spec| spec::mounts(&spec["volumeMounts"])),
];

pub(super) fn describe(text: &mut Text, container: &Container, spec: &Value, now: i64) {
    text.heading(2, &line(&container.name));
    text.field(4, "Container ID", &container.id);
    text.field(4, "Image", &container.image);
    text.known(4, "Image ID", &container.image_id);
    for (name, tell) in BEFORE {
        text.known(4, name, &tell(spec));
    }
    state(text, container, now);
    for (name, tell) in AFTER {
        text.known(4, name, &tell(spec));
    }
    for status in &container.probes {
        probe(text, status, now);
    }
}

fn state(text: &mut Text, container: &Container, now: i64) {
    text.field(4, "State", &container.state);
    match container.state.as_str() {
        "Running" => {
            text.known(4, "Health", &container.reason);
            text.field(4, "Started", &moment(container.started_at, now));
        }
        "Terminated" => {
            text.field(4, "Reason", &container.reason);
            text.field(4, "Exit code", &container.exit_code.to_string());
            text.field(4, "Started", &moment(container.started_at, now));
            text.field(4, "Finished", &moment(container.finished_at, now));
        }
        _ => text.known(4, "Reason", &container.reason),
    }
    text.known(4, "Message", &container.message);
    if let Some(last) = &container.last {
        let words = [last.reason.clone(), moment(last.finished_at, now)];
        let known: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let told = format!("ended with {}: {}", last.exit_code, known.join(", "));
        text.field(4, "Last state", &told);
    }
    if let Some(left) = container.backoff_left_ms {
        text.field(4, "Next start", &format!("in {}", span(i128::from(left) * 1_000_000)));
    }
    text.field(4, "Ready", if container.ready { "yes" } else { "no" });
    text.field(4, "Restarts", &container.restart_count.to_string());
}

fn probe(text: &mut Text, probe: &ProbeStatus, now: i64) {
    let mut name = probe.kind.clone();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    // kubectl's words and signs.
    let told = format!(
        "{} delay={} timeout={} period={} #success={} #failure={}",
        probe.handler,
        seconds(probe.initial_delay_ms),
        seconds(probe.timeout_ms),
        seconds(probe.period_ms),
        probe.success_threshold,
        probe.failure_threshold
    );
    text.field(4, &name, &told);
    text.field(6, "Result", &format!("{} ({})", probe.result, in_a_row(probe)));
    text.known(6, "Since", &moment(probe.last_change_at, now));
    text.known(6, "Last run", &moment(probe.last_run_at, now));
    text.known(6, "Last output", &probe.last_output);
    if probe.next_run_at != 0 {
        let left = i128::from(probe.next_run_at) - i128::from(now);
        text.field(6, "Next run", &format!("in {}", span(left.max(0))));
    }
}

/// `1s`, `0.1s`.
fn seconds(milliseconds: u64) -> String {
    crate::cli::age::length(std::time::Duration::from_millis(milliseconds))
}
