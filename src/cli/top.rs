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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::client::{self, Address};
use super::options::{TopArgs, TopKind};
use super::{Failure, Outcome, age, output, status, table};
use crate::proto::haled::{ListPodsRequest, Pod, UsageRequest};
use follow::{Feed, News};
use model::{Action, Model};

/// How often times are worded anew.
const TICK: Duration = Duration::from_secs(1);
/// News and keys that may wait.
const INBOX: usize = 64;

/// What a container uses: billionths of a core, and bytes.
type Usage = (Option<u64>, Option<u64>);

pub(super) async fn top(address: &Address, namespace: Option<&str>, args: TopArgs) -> Outcome {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    match args.what {
        None if terminal => screen(address, namespace).await,
        what => print(address, namespace, what.unwrap_or(TopKind::Pods)).await,
    }
}

async fn print(address: &Address, namespace: Option<&str>, what: TopKind) -> Outcome {
    let mut haled = client::haled(address).await?;
    let request = ListPodsRequest {
        namespace: namespace.unwrap_or_default().to_owned(),
        ..ListPodsRequest::default()
    };
    let pods = haled.list_pods(request).await?.into_inner().pods;
    let usage = haled.usage(UsageRequest {}).await?.into_inner().containers;
    let usage = usage.into_iter().map(|u| (u.container_id, (u.cpu_nanocores, u.memory_bytes)));
    let usage = usage.collect();
    output::print(tables(&pods, &usage, what, age::now()))?;
    Ok(ExitCode::SUCCESS)
}

/// The table that a script reads.
fn tables(pods: &[Pod], usage: &HashMap<String, Usage>, what: TopKind, now: i64) -> String {
    let mut rows = Vec::new();
    for pod in pods {
        if what == TopKind::Pods {
            let (cpu, memory) = model::usage_of(pod, usage);
            let restarts = status::restarts(pod).to_string();
            let age = age::since(pod.created_at, now);
            let name = [pod.namespace.clone(), pod.name.clone()];
            let rest = [view::cores(cpu), view::bytes(memory), restarts, age];
            rows.push(name.into_iter().chain(rest).collect());
            continue;
        }
        for container in model::containers(pod) {
            let (cpu, memory) = usage.get(&container.id).copied().unwrap_or_default();
            let restarts = container.restart_count.to_string();
            let age = match container.started_at {
                0 => "-".to_owned(),
                at => age::since(at, now),
            };
            let name = [pod.namespace.clone(), pod.name.clone(), container.name.clone()];
            let rest = [view::cores(cpu), view::bytes(memory), restarts, age];
            rows.push(name.into_iter().chain(rest).collect());
        }
    }
    let last = ["CPU", "MEMORY", "RESTARTS", "AGE"];
    let names: &[&str] = match what {
        TopKind::Pods => &["NAMESPACE", "POD"],
        TopKind::Containers => &["NAMESPACE", "POD", "CONTAINER"],
    };
    table::table(&[names, &last].concat(), &rows)
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

async fn screen(address: &Address, namespace: Option<&str>) -> Outcome {
    let (sender, mut news) = mpsc::channel(INBOX);
    // Before the screen: that haled can't be reached is told on the plain terminal.
    let mut feed = Feed::begin(address, namespace, sender).await?;
    let colours = output::colours(true);
    let mut model = Model::new(namespace.map(str::to_owned));
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
