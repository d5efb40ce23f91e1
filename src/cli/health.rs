//! `halectl health`: every probe.

use std::process::ExitCode;

use crate::proto::haled::Pod;

use super::age::since;
use super::client::Address;
use super::options::HealthArgs;
use super::output::{complain, print};
use super::{Outcome, age, names, pods, table};

/// A probe fails, or hasn't passed yet.
const UNHEALTHY: u8 = 3;

/// `halectl health`.
pub(super) async fn health(address: &Address, namespace: &str, args: HealthArgs) -> Outcome {
    let pods = pods::chosen(address, namespace, &args.names, &args.among).await?;
    let rows = rows(&pods, age::now());
    if rows.is_empty() {
        complain("there are no probes");
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["POD", "CONTAINER", "PROBE", "RESULT", "IN A ROW", "LAST RUN", "OUTPUT"];
    print(table::table(&heading, &rows))?;
    let well = pods.iter().flat_map(names::containers).flat_map(|container| &container.probes);
    let well = well.into_iter().all(|probe| probe.result == "Success");
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) })
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
                rows.push(vec![
                    pod.name.clone(),
                    container.name.clone(),
                    probe.kind.clone(),
                    probe.result.clone(),
                    format!("{} (turns at {limit})", probe.run),
                    last,
                    super::output::line(&probe.last_output),
                ]);
            }
        }
    }
    rows
}
