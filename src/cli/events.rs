//! What happened to pods.

use std::process::ExitCode;

use crate::proto::haled::{Event, EventsRequest};

use super::age::{clock, now, since};
use super::client::{self, Address};
use super::options::{EventType, EventsArgs, ObjectFormat, TimeFormat};
use super::output::{complain, line, print};
use super::selector::Selector;
use super::table::{lined_up, table as columns};
use super::{Failure, Outcome, json, names, pods};

const HEADING: [&str; 5] = ["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"];
/// Columns of a stream, whose widest cell nobody knows yet.
const WIDTHS: [usize; 5] = [15, 9, 18, 26, 0];

/// `halectl events`.
pub(super) async fn events(address: &Address, namespace: &str, mut args: EventsArgs) -> Outcome {
    args.names.extend(args.of.take());
    let mut which = Which::new(address, namespace, &args).await?;
    let everywhere = args.among.all_namespaces || !args.names.is_empty();
    let namespace = if everywhere { String::new() } else { namespace.to_owned() };
    let mut stream = stream(address, namespace, String::new(), args.watch).await?;
    if args.watch {
        return follow(&mut stream, which, &args).await;
    }
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        if which.has(&event).await? {
            events.push(event);
        }
    }
    if let Some(format) = args.output {
        let list = json::list(events.iter().map(json::event).collect());
        print(json::written(&list, format)?)?;
    } else if !events.is_empty() {
        let now = now();
        print(match args.time {
            None | Some(TimeFormat::Age) => table(&events, now),
            Some(format) => {
                let first = events.first().map_or(0, |event| event.at);
                columns(&HEADING, &rows(&events, |at| time(format, at, first, now)))
            }
        })?;
    } else if which.missing.is_empty() {
        complain("there are no events");
    }
    which.missing.iter().for_each(|(_, why)| complain(why));
    Ok(if which.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Events as they come, to the end of the stream.
async fn follow(
    stream: &mut tonic::Streaming<Event>,
    mut which: Which<'_>,
    args: &EventsArgs,
) -> Outcome {
    for (_, why) in &which.missing {
        complain(&format!("{why}\nwaiting for events of that name"));
    }
    let format = args.time.unwrap_or(TimeFormat::Clock);
    if args.output.is_none() {
        print(lined_up(&HEADING.map(str::to_owned), &WIDTHS))?;
    }
    let mut first = None;
    while let Some(event) = stream.message().await? {
        if !which.has(&event).await? {
            continue;
        }
        let first = *first.get_or_insert(event.at);
        print(match args.output {
            None => streamed(&event, format, first, now()),
            Some(ObjectFormat::Json) => json::written(&json::event(&event), ObjectFormat::Json)?,
            Some(ObjectFormat::Yaml) => {
                format!("---\n{}", json::written(&json::event(&event), ObjectFormat::Yaml)?)
            }
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Which events are shown.
struct Which<'a> {
    address: &'a Address,
    /// `None`: everyone's.
    keys: Option<Vec<(String, String)>>,
    /// Of pods that come later.
    selector: Option<&'a Selector>,
    /// Empty: all.
    types: &'a [EventType],
    /// Of those that are named, what is said of each that is no pod and has left no events.
    missing: Vec<((String, String), String)>,
}

impl<'a> Which<'a> {
    async fn new(
        address: &'a Address,
        namespace: &str,
        args: &'a EventsArgs,
    ) -> Result<Self, Failure> {
        let selector = args.among.selector.as_ref();
        let types = &args.types;
        let mut which = Self { address, keys: None, selector, types, missing: Vec::new() };
        if args.names.is_empty() && selector.is_none() {
            return Ok(which);
        }
        let pods = pods::list(address).await?;
        if args.names.is_empty() {
            let fit = pods.iter().filter(|pod| pods::fits(pod, namespace, &args.among));
            which.keys = Some(fit.map(pods::key).collect());
            return Ok(which);
        }
        let mut keys = Vec::new();
        for name in &args.names {
            keys.push(match names::pod(&pods, namespace, name) {
                Ok(pod) => pods::key(pod),
                Err(why) => {
                    let key = names::key(namespace, name);
                    which.missing.push((key.clone(), why));
                    key
                }
            });
        }
        which.keys = Some(keys);
        Ok(which)
    }

    async fn has(&mut self, event: &Event) -> Result<bool, Failure> {
        let of_type = if event.warning { EventType::Warning } else { EventType::Normal };
        let is_of_type = self.types.is_empty() || self.types.contains(&of_type);
        let Some(keys) = &mut self.keys else { return Ok(is_of_type) };
        let key = (event.namespace.clone(), event.pod.clone());
        self.missing.retain(|(missing, _)| *missing != key);
        let mut has = keys.contains(&key);
        if let Some(selector) = self.selector.filter(|_| !has) {
            let pods = pods::list(self.address).await?;
            let pod = pods.iter().find(|pod| pods::key(pod) == key);
            has = pod.is_some_and(|pod| selector.matches(&pod.labels));
            if has {
                keys.push(key);
            }
        }
        Ok(has && is_of_type)
    }
}

/// The events of a pod so far, oldest first.
pub(super) async fn of_pod(
    address: &Address,
    namespace: &str,
    name: &str,
) -> Result<Vec<Event>, Failure> {
    collect(&mut stream(address, namespace.into(), name.into(), false).await?).await
}

/// A table of events with their ages.
pub(super) fn table(events: &[Event], now: i64) -> String {
    columns(
        &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
        &rows(events, |at| since(at, now)),
    )
}

/// One event of a stream, as a line.
pub(super) fn streamed(event: &Event, format: TimeFormat, first: i64, now: i64) -> String {
    let cells = row(event, time(format, event.at, first, now)).map(|cell| line(&cell));
    lined_up(&cells, &WIDTHS)
}

fn rows(events: &[Event], time: impl Fn(i64) -> String) -> Vec<Vec<String>> {
    events.iter().map(|event| row(event, time(event.at)).into()).collect()
}

fn row(event: &Event, time: String) -> [String; 5] {
    let kind = if event.warning { "Warning" } else { "Normal" };
    let object = match event.container.as_str() {
        "" => format!("pod/{}", event.pod),
        container => format!("pod/{}:{container}", event.pod),
    };
    let times = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
    let message = format!("{}{times}", event.message.trim_end());
    [time, kind.into(), event.reason.clone(), object, message]
}

fn time(format: TimeFormat, at: i64, first: i64, now: i64) -> String {
    match format {
        TimeFormat::Age => since(at, now),
        TimeFormat::Clock => clock(at),
        TimeFormat::Offset => {
            format!("{:+.1}s", (i128::from(at) - i128::from(first)) as f64 / 1e9)
        }
    }
}

async fn stream(
    address: &Address,
    namespace: String,
    name: String,
    follow: bool,
) -> Result<tonic::Streaming<Event>, Failure> {
    let request = EventsRequest { namespace, name, follow };
    Ok(client::haled(address).await?.events(request).await?.into_inner())
}

async fn collect(stream: &mut tonic::Streaming<Event>) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        events.push(event);
    }
    Ok(events)
}
