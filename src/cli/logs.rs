//! Containers' logs, of one or of many.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use futures_util::StreamExt as _;
use futures_util::stream::select_all;

use crate::proto::haled::{LogLine, LogsRequest, Pod};

use super::age::{now, rfc3339_nano};
use super::client::{self, Address};
use super::options::LogsArgs;
use super::output::{complain, print};
use super::{Failure, Outcome, names, output, pods};

/// Lines of each, where many pods are chosen by their labels: kubectl's.
const TAIL_OF_MANY: u32 = 10;
/// What is chosen among for prefixes: neither black nor white, one of which is the paper.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// One container's log.
struct Log {
    request: LogsRequest,
    /// Before each line; empty where there is only one log.
    prefix: String,
}

/// `halectl logs`: stdout and stderr of the containers, both to stdout, as `kubectl logs` does.
pub(super) async fn logs(address: &Address, namespace: &str, args: LogsArgs) -> Outcome {
    let pods = pods::chosen(address, namespace, &args.names, &args.among).await?;
    let logs = wanted(&pods, &args)?;
    if logs.is_empty() {
        complain("there are no such pods");
        return Ok(ExitCode::SUCCESS);
    }
    // A connection for each: they are read at once, and none may wait for another.
    let open = async |log: &Log| -> Result<_, Failure> {
        let mut haled = client::haled(address).await?;
        Ok(haled.logs(log.request.clone()).await?.into_inner())
    };
    if args.follow && logs.len() > 1 {
        let mut streams = Vec::new();
        for log in logs {
            let stream = open(&log).await?;
            streams.push(stream.map(move |line| (line, log.prefix.clone())));
        }
        let mut lines = select_all(streams);
        while let Some((line, prefix)) = lines.next().await {
            print(written(&line?, &prefix, args.timestamps))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = false;
    let several = logs.len() > 1;
    for log in logs {
        let mut lines = match open(&log).await {
            // One that has no log yet keeps nobody from reading the others.
            Err(Failure::Message(why)) if several => {
                complain(&why);
                failed = true;
                continue;
            }
            opened => opened?,
        };
        while let Some(line) = lines.message().await? {
            print(written(&line, &log.prefix, args.timestamps))?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The logs that are asked for.
fn wanted(pods: &[Pod], args: &LogsArgs) -> Result<Vec<Log>, Failure> {
    let mut names = Vec::new();
    for pod in pods {
        if args.all_containers {
            names.extend(names::containers(pod).map(|container| (pod, container.name.clone())));
            continue;
        }
        let container = names::container(pod, args.container.as_deref());
        let container = container.map_err(Failure::Message)?;
        if args.container.is_none() && pod.containers.len() > 1 {
            let all: Vec<_> = names::containers(pod).map(|c| c.name.as_str()).collect();
            complain(&format!("of container \"{}\" of: {}", container.name, all.join(", ")));
        }
        names.push((pod, container.name.clone()));
    }
    let prefixed = args.prefix || names.len() > 1;
    let coloured = output::colours(std::io::stdout().is_terminal());
    let tail = match args.tail {
        None if args.among.selector.is_some() => Some(TAIL_OF_MANY),
        None | Some(..0) => None,
        Some(lines) => Some(u32::try_from(lines).unwrap_or(u32::MAX)),
    };
    let since = match (args.since, args.since_time) {
        (Some(span), _) => {
            now().saturating_sub(i64::try_from(span.0.as_nanos()).unwrap_or(i64::MAX)).max(1)
        }
        (_, Some(time)) => i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX).max(1),
        (None, None) => 0,
    };
    let log = |(at, (pod, container)): (usize, (&Pod, String))| Log {
        prefix: if prefixed {
            prefix(pod, &container, args.among.all_namespaces, coloured.then_some(at))
        } else {
            String::new()
        },
        request: LogsRequest {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            container,
            follow: args.follow,
            tail,
            previous: args.previous,
            since,
        },
    };
    Ok(names.into_iter().enumerate().map(log).collect())
}

/// `[web/app] `, in the colour of its number.
pub(super) fn prefix(pod: &Pod, container: &str, full: bool, number: Option<usize>) -> String {
    let namespace = if full { format!("{}/", pod.namespace) } else { String::new() };
    let text = format!("[{namespace}{}/{container}]", pod.name);
    match number {
        Some(number) => format!("\u{1b}[{}m{text}\u{1b}[0m ", COLOURS[number % COLOURS.len()]),
        None => format!("{text} "),
    }
}

fn written(line: &LogLine, prefix: &str, timestamps: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(prefix.len() + line.line.len() + 32);
    bytes.extend_from_slice(prefix.as_bytes());
    if timestamps {
        bytes.extend_from_slice(rfc3339_nano(line.at).as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(&line.line);
    bytes.push(b'\n');
    bytes
}
