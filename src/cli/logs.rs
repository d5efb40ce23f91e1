//! Containers' logs, of one or of many.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use futures_util::{StreamExt as _, stream};

use crate::proto::haled::{LogLine, LogsRequest, Pod};

use super::age::{now, rfc3339_nano};
use super::client::{self, Address};
use super::options::LogsArgs;
use super::output::{complain, print};
use super::pods::{self, Chosen};
use super::{Failure, Outcome, names, output};

/// Lines of each, where many pods are chosen by their labels: kubectl's.
const TAIL_OF_MANY: u32 = 10;
/// What is chosen among for prefixes: neither black nor white, one of which is the paper.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// One container's log.
struct Log {
    request: LogsRequest,
    /// Before each line; empty where there is only one log.
    prefix: String,
    timestamps: bool,
    /// Bytes that may still be printed.
    left: Option<u64>,
}

/// A log that is being read.
struct Reading {
    log: Log,
    lines: tonic::Streaming<LogLine>,
}

impl Reading {
    /// A connection for each: they are read at once, and none may wait for another.
    async fn open(address: &Address, log: Log) -> Result<Self, Failure> {
        let mut haled = client::haled(address).await?;
        let lines = haled.logs(log.request.clone()).await?.into_inner();
        Ok(Self { log, lines })
    }

    /// The next line as it is printed.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.log.left == Some(0) {
            return Ok(None);
        }
        let Some(line) = self.lines.message().await? else { return Ok(None) };
        let mut bytes = written(&line, self.log.timestamps);
        if let Some(left) = &mut self.log.left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        Ok(Some([self.log.prefix.as_bytes(), &bytes].concat()))
    }
}

/// `halectl logs`: stdout and stderr of the containers, both to stdout, as `kubectl logs` does.
pub(super) async fn logs(address: &Address, namespace: &str, args: LogsArgs) -> Outcome {
    let chosen = pods::chosen(pods::list(address).await?, namespace, &args.names, &args.among);
    refuse_container(&chosen, &args)?;
    let logs = wanted(&chosen.pods, &args)?;
    if logs.is_empty() && chosen.missing.is_empty() {
        complain(&format!("there are no pods{}", pods::place(namespace, &args.among)));
    }
    // Before what may never end.
    let mut failed = !chosen.missing.is_empty();
    chosen.end();
    let several = logs.len() > 1;
    if args.follow && several {
        let mut streams = Vec::new();
        for log in logs {
            let reading = Reading::open(address, log).await?;
            let lines = stream::try_unfold(reading, async |mut reading| {
                Ok::<_, Failure>(reading.next().await?.map(|line| (line, reading)))
            });
            streams.push(Box::pin(lines));
        }
        let mut lines = stream::select_all(streams);
        while let Some(line) = lines.next().await {
            print(line?)?;
        }
    } else {
        for log in logs {
            let mut reading = match Reading::open(address, log).await {
                // One that has no log yet keeps nobody from reading the others.
                Err(Failure::Message(why)) if several => {
                    complain(&why);
                    failed = true;
                    continue;
                }
                opened => opened?,
            };
            while let Some(line) = reading.next().await? {
                print(line)?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// kubectl's `logs POD CONTAINER`: here every name is a pod's.
fn refuse_container(chosen: &Chosen, args: &LogsArgs) -> Result<(), Failure> {
    let ([pod, name], [found], [why]) = (&args.names[..], &chosen.pods[..], &chosen.missing[..])
    else {
        return Ok(());
    };
    if names::containers(found).any(|container| container.name == *name) {
        return Err(Failure::Message(format!("{why}; of {pod}'s container: -c {name}")));
    }
    Ok(())
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
            let (name, all) = (&container.name, all.join(", "));
            complain(&format!("defaulted to container \"{name}\" out of: {all}"));
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
        timestamps: args.timestamps,
        left: args.limit_bytes,
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

fn written(line: &LogLine, timestamps: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(line.line.len() + 32);
    if timestamps {
        bytes.extend_from_slice(rfc3339_nano(line.at).as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(&line.line);
    bytes.push(b'\n');
    bytes
}
