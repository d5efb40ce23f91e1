//! `halectl health`: every probe.

use std::process::ExitCode;

use crate::proto::haled::Pod;

use super::age::since;
use super::client::Address;
use super::options::HealthArgs;
use super::output::{complain, print};
use super::{Outcome, age, names, pods, table};

const RUNNING: &str = "Running";
/// A probe fails, or hasn't passed yet.
const UNHEALTHY: u8 = 3;

/// `halectl health`.
pub(super) async fn health(address: &Address, namespace: &str, args: HealthArgs) -> Outcome {
    let pods = pods::chosen(address, namespace, &args.names, &args.among).await?;
    // What has done its work is asked nothing any more.
    let pods: Vec<Pod> = pods.into_iter().filter(|pod| pod.phase != "Succeeded").collect();
    let rows = rows(&pods, age::now());
    if rows.is_empty() {
        complain("there are no probes");
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["POD", "CONTAINER", "PROBE", "RESULT", "IN A ROW", "LAST RUN", "OUTPUT"];
    print(table::table(&heading, &rows))?;
    Ok(if pods.iter().all(is_well) { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) })
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
                let limit = if probe.result == "Success" {
                    probe.failure_threshold
                } else {
                    probe.success_threshold
                };
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
                    format!("{} (turns at {limit})", probe.run),
                    last,
                    output,
                ]);
            }
        }
    }
    rows
}
