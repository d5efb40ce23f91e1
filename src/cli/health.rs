//! `halectl health`: every probe.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::proto::haled::{Container, Pod, ProbeStatus};

use super::age::since;
use super::client::Address;
use super::options::HealthArgs;
use super::output::{complain, print};
use super::{Outcome, age, json, names, pods, table};

const RUNNING: &str = "Running";
/// A probe fails, or hasn't passed yet.
const UNHEALTHY: u8 = 3;

/// `halectl health`.
pub(super) async fn health(address: &Address, namespace: &str, args: HealthArgs) -> Outcome {
    let mut chosen = pods::chosen(pods::list(address).await?, namespace, &args.names, &args.among);
    // What has done its work is asked nothing any more.
    chosen.pods.retain(|pod| pod.phase != "Succeeded");
    let rows = rows(&chosen.pods, age::now());
    if let Some(format) = args.output {
        print(json::written(&objects(&chosen.pods), format)?)?;
    } else if !rows.is_empty() {
        let heading = ["POD", "CONTAINER", "PROBE", "RESULT", "IN A ROW", "LAST RUN", "OUTPUT"];
        print(table::table(&heading, &rows))?;
    } else if chosen.missing.is_empty() {
        complain("there are no probes");
    }
    let well = chosen.pods.iter().all(is_well);
    let code = chosen.end();
    Ok(if well { code } else { ExitCode::from(UNHEALTHY) })
}

/// Every probe, as an object.
fn objects(pods: &[Pod]) -> Value {
    let mut objects = Vec::new();
    for pod in pods {
        for container in names::containers(pod) {
            objects.extend(container.probes.iter().map(|probe| object(pod, container, probe)));
        }
    }
    objects.into()
}

fn object(pod: &Pod, container: &Container, probe: &ProbeStatus) -> Value {
    json!({
        "namespace": pod.namespace,
        "pod": pod.name,
        "container": container.name,
        "containerState": container.state,
        "probe": probe.kind,
        "handler": probe.handler,
        "result": probe.result,
        "inARow": probe.run,
        "successThreshold": probe.success_threshold,
        "failureThreshold": probe.failure_threshold,
        "lastRunTime": json::time(probe.last_run_at),
        "lastOutput": probe.last_output,
    })
}

/// Every container with probes runs, and all of them pass.
pub(super) fn is_well(pod: &Pod) -> bool {
    let mut probed = names::containers(pod).filter(|container| !container.probes.is_empty());
    probed.all(|container| {
        let pass = container.probes.iter().all(|probe| probe.result == "Success");
        container.state == RUNNING && pass
    })
}

/// A row for each probe.
pub(super) fn rows(pods: &[Pod], now: i64) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for pod in pods {
        for container in names::containers(pod) {
            for probe in &container.probes {
                let last = match probe.last_run_at {
                    0 => "never".to_owned(),
                    at => format!("{} ago", since(at, now)),
                };
                let said = super::output::line(&probe.last_output);
                let output = match (container.state.as_str(), probe.last_run_at) {
                    (RUNNING, _) => said,
                    (_, 0) => "not running yet".to_owned(),
                    _ => format!("not running; {said}"),
                };
                rows.push(vec![
                    pod.name.clone(),
                    container.name.clone(),
                    probe.kind.clone(),
                    probe.result.clone(),
                    in_a_row(probe),
                    last,
                    output,
                ]);
            }
        }
    }
    rows
}

/// `18 ok, fails at 2`: the last runs alike, and how many of the others would change the result.
pub(super) fn in_a_row(probe: &ProbeStatus) -> String {
    if probe.run == 0 {
        return "none yet".to_owned();
    }
    let alike = if probe.last_success { "ok" } else { "failed" };
    let turns = match (probe.result.as_str(), probe.last_success) {
        ("Success", _) | ("Unknown", false) => format!("fails at {}", probe.failure_threshold),
        _ => format!("passes at {}", probe.success_threshold),
    };
    format!("{} {alike}, {turns}", probe.run)
}
