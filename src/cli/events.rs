//! What happened to pods.

use std::process::ExitCode;

use crate::proto::haled::{Event, EventsRequest};

use super::age::{clock, now, since};
use super::client::{self, Address};
use super::options::{EventsArgs, TimeFormat};
use super::output::{line, print};
use super::table::{lined_up, table as columns};
use super::{Failure, Outcome};

const HEADING: [&str; 5] = ["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"];
/// Columns of a stream, whose widest cell nobody knows yet.
const WIDTHS: [usize; 5] = [15, 9, 18, 26, 0];

/// `halectl events`.
pub(super) async fn events(address: &Address, namespace: &str, args: EventsArgs) -> Outcome {
    let namespace = if args.all_namespaces { String::new() } else { namespace.to_owned() };
    let name = args.pod.unwrap_or_default();
    let mut stream = stream(address, namespace, name, args.watch).await?;
    if !args.watch {
        let events = collect(&mut stream).await?;
        let now = now();
        print(match args.time {
            None | Some(TimeFormat::Age) => table(&events, now),
            Some(format) => {
                let first = events.first().map_or(0, |event| event.at);
                columns(&HEADING, &rows(&events, |at| time(format, at, first, now)))
            }
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let format = args.time.unwrap_or(TimeFormat::Clock);
    print(lined_up(&HEADING.map(str::to_owned), &WIDTHS))?;
    let mut first = None;
    while let Some(event) = stream.message().await? {
        let first = *first.get_or_insert(event.at);
        print(streamed(&event, format, first, now()))?;
    }
    Ok(ExitCode::SUCCESS)
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
