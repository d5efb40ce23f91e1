//! `halectl top`: a screen of pods, what they use and what their probes give; or a table.
//!
//! `model` holds what is known and takes keys, `view` turns it into lines: both pure. Here is
//! the terminal, and `follow` asks haled. All of it goes by haled v1: asking the CRI so often
//! would pass for an orchestrator's presence, and haled would leave healing to it.

mod follow;
mod model;
mod view;

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event;
use ratatui::text::{Line, Text};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::client::{self, Address};
use super::options::{TopArgs, TopKind};
use super::{Failure, Outcome, age, json, output, pods, status, table};
use crate::proto::haled::{Container, Pod, UsageRequest};
use follow::{Feed, News};
pub(super) use model::Sort;
use model::{Action, Model};

/// How often times are worded anew.
const TICK: Duration = Duration::from_secs(1);
/// News and keys that may wait.
const INBOX: usize = 64;

/// What a container uses: billionths of a core, and bytes.
type Usage = (Option<u64>, Option<u64>);

pub(super) async fn top(address: &Address, namespace: &str, args: TopArgs) -> Outcome {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let is_table = args.what.is_some() || args.containers || args.output.is_some();
    if terminal && !is_table && !output::is_dumb() {
        screen(address, namespace, args).await
    } else {
        print(address, namespace, args).await
    }
}

async fn print(address: &Address, namespace: &str, args: TopArgs) -> Outcome {
    let mut haled = client::haled(address).await?;
    let usage = haled.usage(UsageRequest {}).await?.into_inner().containers;
    let usage = usage.into_iter().map(|u| (u.container_id, (u.cpu_nanocores, u.memory_bytes)));
    let usage = usage.collect();
    let all = pods::list(address).await?;
    let chosen = pods::chosen(all, namespace, &args.names, &args.among);
    let kind =
        if args.containers { TopKind::Containers } else { args.what.unwrap_or(TopKind::Pods) };
    let rows = rows(&chosen.pods, &usage, kind, args.sort_by);
    if let Some(format) = args.output {
        output::print(json::written(&rows.iter().map(Row::object).collect(), format)?)?;
    } else if !rows.is_empty() {
        let shown =
            Shown { kind, namespaces: args.among.all_namespaces, heading: !args.no_headers };
        output::print(shown.table(&rows, age::now()))?;
    } else if args.names.is_empty() {
        output::complain(&format!("there are no pods{}", pods::place(namespace, &args.among)));
    }
    Ok(chosen.end())
}

/// A pod, or one of its containers.
struct Row<'p> {
    pod: &'p Pod,
    container: Option<&'p Container>,
    usage: Usage,
}

fn rows<'p>(
    pods: &'p [Pod],
    usage: &HashMap<String, Usage>,
    kind: TopKind,
    sort: Sort,
) -> Vec<Row<'p>> {
    let mut rows = Vec::new();
    for pod in pods {
        if kind == TopKind::Pods {
            rows.push(Row { pod, container: None, usage: model::usage_of(pod, usage) });
            continue;
        }
        rows.extend(model::containers(pod).map(|container| {
            let usage = usage.get(&container.id).copied().unwrap_or_default();
            Row { pod, container: Some(container), usage }
        }));
    }
    rows.sort_by_key(|row| sort.weight(row.usage, row.restarts(), row.began_at()));
    rows
}

impl Row<'_> {
    fn restarts(&self) -> u64 {
        self.container.map_or_else(|| status::restarts(self.pod), |c| c.restart_count.into())
    }

    /// 0: it has not.
    fn began_at(&self) -> i64 {
        self.container.map_or(self.pod.created_at, |container| container.started_at)
    }

    fn object(&self) -> Value {
        let mut object = json!({
            "namespace": self.pod.namespace,
            "pod": self.pod.name,
            "cpuNanocores": self.usage.0,
            "memoryBytes": self.usage.1,
            "restarts": self.restarts(),
            "since": json::time(self.began_at()),
        });
        if let Some(container) = self.container {
            object["container"] = container.name.clone().into();
        }
        object
    }
}

/// How rows are shown as a table.
struct Shown {
    kind: TopKind,
    namespaces: bool,
    heading: bool,
}

impl Shown {
    fn table(&self, rows: &[Row], now: i64) -> String {
        let names: &[&str] = match self.kind {
            TopKind::Pods => &["NAMESPACE", "POD"],
            TopKind::Containers => &["NAMESPACE", "POD", "CONTAINER"],
        };
        let names = &names[usize::from(!self.namespaces)..];
        let heading = [names, &["CPU", "MEMORY", "RESTARTS", "AGE"]].concat();
        let cells = |row: &Row| {
            let age = match row.began_at() {
                0 => "-".to_owned(),
                at => age::since(at, now),
            };
            let (cpu, memory) = row.usage;
            let names = [
                self.namespaces.then(|| row.pod.namespace.clone()),
                Some(row.pod.name.clone()),
                row.container.map(|container| container.name.clone()),
            ];
            let numbers = [view::cores(cpu), view::bytes(memory), row.restarts().to_string(), age];
            names.into_iter().flatten().chain(numbers).collect::<Vec<_>>()
        };
        let table = table::table(&heading, &rows.iter().map(cells).collect::<Vec<_>>());
        let without = table.split_once('\n').map_or("", |(_, rows)| rows);
        if self.heading { table } else { without.to_owned() }
    }
}

/// The terminal as it was, whatever ends this: also a panic.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What the screen waits for.
enum Happened {
    News(News),
    Terminal(event::Event),
    /// The terminal has hung up.
    NoTerminal,
    Tick,
    End,
}

async fn screen(address: &Address, namespace: &str, args: TopArgs) -> Outcome {
    let (sender, mut news) = mpsc::channel(INBOX);
    // Before the screen: that haled can't be reached is told on the plain terminal.
    let shown = (!args.among.all_namespaces).then(|| namespace.to_owned());
    let mut feed = Feed::begin(address, namespace, args.among, sender).await?;
    let colours = output::colours(true);
    let mut model = Model::new(shown, args.sort_by);
    let failed = |error| Failure::Message(format!("cannot use this terminal: {error}"));
    let mut screen = Screen(ratatui::try_init().map_err(failed)?);
    let mut keys = keys();
    let mut ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()]
        .map(signal)
        .into_iter()
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed)?;
    let mut shown: Option<(ratatui::layout::Size, Vec<Line<'static>>)> = None;
    loop {
        let size = screen.0.size().map_err(failed)?;
        let lines = view::lines(&model, size.width, size.height, age::now(), colours);
        // Nothing is written to a terminal that shows this already.
        if shown.as_ref() != Some(&(size, lines.clone())) {
            screen
                .0
                .draw(|frame| frame.render_widget(Text::from(lines.clone()), frame.area()))
                .map_err(failed)?;
            shown = Some((size, lines));
        }
        let [terminate, hangup, interrupt] = ends.as_mut_slice() else { break };
        let happened = tokio::select! {
            Some(news) = news.recv() => Happened::News(news),
            key = keys.recv() => key.map_or(Happened::NoTerminal, Happened::Terminal),
            () = tokio::time::sleep(TICK) => Happened::Tick,
            _ = terminate.recv() => Happened::End,
            _ = hangup.recv() => Happened::End,
            _ = interrupt.recv() => Happened::End,
        };
        let action = match happened {
            Happened::News(News::Broken(why)) => return Err(Failure::Message(why)),
            Happened::News(news) => {
                model.take(news);
                Action::None
            }
            Happened::Terminal(event::Event::Key(key)) => {
                model.key(key, usize::from(view::rows(size.height)))
            }
            Happened::Terminal(_) | Happened::Tick => Action::None,
            Happened::NoTerminal | Happened::End => Action::Quit,
        };
        match action {
            Action::None => {}
            Action::Quit => break,
            Action::Open { namespace, pod, container } => feed.open(namespace, pod, container),
            Action::Close => feed.close(),
            Action::Restart { id, what } => feed.restart(id, what),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Keys, read on a thread of its own: it may wait in the kernel until the process ends.
fn keys() -> mpsc::Receiver<event::Event> {
    let (sender, keys) = mpsc::channel(INBOX);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                break;
            }
        }
    });
    keys
}

#[cfg(test)]
mod tests;
