//! The screen's lines, of what the model knows. Pure: the same model at the same time gives
//! the same lines, so what hasn't changed isn't drawn. Colours only underline what the letters
//! say: a result is `|` or `x`, a restart `^`.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::model::{Mode, Model, Page, Sort, containers, usage_of};
use crate::cli::{age, output, status};
use crate::proto::haled::{Container, Pod};

/// Head and foot.
const FRAME: u16 = 3;
/// Results of a probe shown at most: all that haled keeps.
const STRIP: usize = 60;
/// Columns before a strip, and after it.
const STRIP_EDGES: usize = 14 + 18;

/// Rows of a list on a screen of this height.
pub(super) fn rows(height: u16) -> u16 {
    height.saturating_sub(FRAME)
}

/// Every line of the screen.
pub(super) fn lines(
    model: &Model,
    width: u16,
    height: u16,
    now: i64,
    colours: bool,
) -> Vec<Line<'static>> {
    let (width, height) = (usize::from(width), usize::from(height));
    if width < 40 || height < 6 {
        return vec![Line::from("larger, please")];
    }
    let view = View { model, width, now, colours };
    let mut lines = vec![view.head()];
    let page = match &model.mode {
        Mode::Page(page) | Mode::Confirm { before: Some(page), .. } => Some(page),
        _ => None,
    };
    match page {
        Some(page) => lines.extend(view.page(page, height - 2)),
        None => lines.extend(view.list(height - 2)),
    }
    lines.truncate(height - 1);
    lines.resize(height - 1, Line::default());
    lines.push(view.foot());
    lines
}

struct View<'a> {
    model: &'a Model,
    width: usize,
    now: i64,
    colours: bool,
}

impl View<'_> {
    fn style(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn head(&self) -> Line<'static> {
        let all = self.model.all();
        let running = all.iter().flat_map(containers).filter(|c| c.state == "Running").count();
        let of = all.iter().map(|pod| containers(pod).count() as u64).sum();
        let restarts = all.iter().map(status::restarts).sum();
        let place = match &self.model.namespace {
            Some(namespace) => format!(" in {}", output::line(namespace)),
            None => String::new(),
        };
        if self.model.is_loading() {
            return Line::styled(
                fit(&format!("haled: asking{place}"), self.width),
                Style::new().add_modifier(Modifier::BOLD),
            );
        }
        let mut text = format!(
            "haled: {}{place}, {running} of {} running, {}",
            status::many(all.len() as u64, "pod"),
            status::many(of, "container"),
            status::many(restarts, "restart")
        );
        if !self.model.filter.is_empty() {
            text = format!("{text}, shown: {}", self.model.filter);
        }
        Line::styled(fit(&text, self.width), Style::new().add_modifier(Modifier::BOLD))
    }

    fn foot(&self) -> Line<'static> {
        let model = self.model;
        let text = match &model.mode {
            _ if !model.told.is_empty() => model.told.clone(),
            Mode::Filter => format!("show: {}_  (Enter keeps it, Esc clears it)", model.filter),
            Mode::Confirm { what, .. } => {
                format!("restart {}? y restarts, any other key doesn't", output::line(what))
            }
            Mode::Page(_) => "Esc back  Tab next container  r restart  q quit".to_owned(),
            Mode::List => "Enter page  / filter  r restart  sort by n c m t a  q quit".to_owned(),
        };
        Line::styled(fit(&text, self.width), Style::new().add_modifier(Modifier::REVERSED))
    }

    /// The columns' heading and the rows around the selected one.
    fn list(&self, height: usize) -> Vec<Line<'static>> {
        let mut lines = vec![self.heading()];
        if self.model.is_loading() {
            lines.push(Line::from("asking haled ..."));
            return lines;
        }
        let mut rows = Vec::new();
        let mut at = 0;
        for pod in self.model.pods() {
            if self.is_selected(pod, "") {
                at = rows.len();
            }
            rows.push(self.pod_row(pod));
            for container in containers(pod) {
                if self.is_selected(pod, &container.name) {
                    at = rows.len();
                }
                rows.extend(self.container_rows(pod, container));
            }
        }
        if rows.is_empty() {
            let none = match (&self.model.namespace, self.model.filter.as_str()) {
                (Some(_), "") => "no pods here; halectl top -A shows every namespace's",
                (None, "") => "no pods",
                _ => "no pod fits",
            };
            rows.push(Line::from(fit(none, self.width)));
        }
        let room = height.saturating_sub(1).max(1);
        // The selected one with the probes below it stays in sight.
        let first = (at + 4).min(rows.len()).saturating_sub(room).min(at);
        lines.extend(rows.into_iter().skip(first).take(room));
        lines
    }

    fn heading(&self) -> Line<'static> {
        let mark = |sort: Sort, name: &str| {
            if self.model.sort == sort { format!("{name}*") } else { name.to_owned() }
        };
        let cells = [
            mark(Sort::Name, "NAME"),
            "STATE".to_owned(),
            mark(Sort::Cpu, "CPU"),
            mark(Sort::Memory, "MEMORY"),
            mark(Sort::Restarts, "RESTARTS"),
            mark(Sort::Age, "AGE"),
        ];
        Line::styled(self.cells(&cells).concat(), self.style(Color::DarkGray))
    }

    fn is_selected(&self, pod: &Pod, container: &str) -> bool {
        self.model.selected.as_ref().is_some_and(|selected| {
            selected.pod == pod.name
                && selected.namespace == pod.namespace
                && selected.container == container
        })
    }

    fn pod_row(&self, pod: &Pod) -> Line<'static> {
        let (cpu, memory) = usage_of(pod, &self.model.usage);
        let name = match &self.model.namespace {
            Some(_) => pod.name.clone(),
            None => format!("{}/{}", pod.namespace, pod.name),
        };
        // The word of `get pods`: of a container that has trouble, if there is one.
        let word = pod.status.as_str();
        let cells = [
            output::line(&name),
            output::line(word),
            cores(cpu),
            bytes(memory),
            status::restarts(pod).to_string(),
            age::since(pod.created_at, self.now),
        ];
        let state = match word {
            "Running" | "Succeeded" | "Completed" => Color::Green,
            "Pending" | "Terminating" | "ContainerCreating" | "PodInitializing" => Color::Yellow,
            word if word.starts_with("Init:") && word.contains('/') => Color::Yellow,
            _ => Color::Red,
        };
        self.row(&cells, state, self.is_selected(pod, ""), true)
    }

    fn container_rows(&self, pod: &Pod, container: &Container) -> Vec<Line<'static>> {
        let (cpu, memory) = self.model.usage.get(&container.id).copied().unwrap_or_default();
        let word = if container.reason.is_empty() { &container.state } else { &container.reason };
        let state = match (container.state.as_str(), container.reason.as_str()) {
            ("Running", "" | "Healthy") => Color::Green,
            ("Running", "NotReady" | "Starting") => Color::Yellow,
            ("Terminated", _) if container.exit_code == 0 => Color::Green,
            ("Waiting", "ContainerCreating" | "PodInitializing") => Color::Yellow,
            _ => Color::Red,
        };
        let age = match container.started_at {
            0 => "-".to_owned(),
            at => age::since(at, self.now),
        };
        let cells = [
            format!("  {}", output::line(&container.name)),
            output::line(word),
            cores(cpu),
            bytes(memory),
            container.restart_count.to_string(),
            age,
        ];
        let mut lines =
            vec![self.row(&cells, state, self.is_selected(pod, &container.name), false)];
        for kind in ["startup", "liveness", "readiness"] {
            lines.extend(self.strip(container, kind));
        }
        lines
    }

    /// A row of the list; the state in its colour.
    fn row(&self, cells: &[String; 6], state: Color, selected: bool, bold: bool) -> Line<'static> {
        let cells = self.cells(cells);
        let mut spans: Vec<Span<'static>> = Vec::new();
        for (at, cell) in cells.into_iter().enumerate() {
            let style = if at == 1 { self.style(state) } else { Style::new() };
            spans.push(Span::styled(cell, style));
        }
        let mut style = Style::new();
        if bold {
            style = style.add_modifier(Modifier::BOLD);
        }
        if selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        Line::from(spans).style(style)
    }

    /// Each as wide as its column: name and state to the left, numbers to the right. Numbers that
    /// find no room are left out whole, as one that is cut is another.
    fn cells(&self, cells: &[String; 6]) -> Vec<String> {
        let (least, state) = (10, 18);
        // CPU, MEMORY, RESTARTS, AGE; the first goes first.
        let mut numbers = &[7, 8, 10, 8][..];
        while numbers.len() > 1 && least + state + numbers.iter().sum::<usize>() > self.width {
            numbers = &numbers[1..];
        }
        let name = self.width.saturating_sub(state + numbers.iter().sum::<usize>()).max(least);
        let mut texts = vec![pad(&cells[0], name), pad(&cells[1], state)];
        for (cell, width) in cells[cells.len() - numbers.len()..].iter().zip(numbers) {
            texts.push(format!("{:>width$}", fit(cell, *width)));
        }
        texts
    }

    /// The last results of a probe, the newest at the right, and when the next comes.
    fn strip(&self, container: &Container, kind: &str) -> Option<Line<'static>> {
        let probe = container.probes.iter().find(|probe| probe.kind == kind);
        let runs: Vec<_> = container.probe_runs.iter().filter(|run| run.kind == kind).collect();
        if probe.is_none() && runs.is_empty() {
            return None;
        }
        let room = STRIP.min(self.width.saturating_sub(STRIP_EDGES));
        let first = runs.first().map_or(i64::MAX, |run| run.at);
        let mut marks: Vec<(i64, char)> =
            runs.iter().map(|run| (run.at, if run.success { '|' } else { 'x' })).collect();
        marks.extend(container.restarts.iter().filter(|r| r.at >= first).map(|r| (r.at, '^')));
        marks.sort_by_key(|(at, _)| *at);
        let marks = &marks[marks.len().saturating_sub(room)..];
        let mut spans = vec![Span::styled(format!("    {kind:<10}"), self.style(Color::DarkGray))];
        for (_, mark) in marks {
            let colour = match mark {
                '|' => Color::Green,
                'x' => Color::Red,
                _ => Color::Magenta,
            };
            spans.push(Span::styled(mark.to_string(), self.style(colour)));
        }
        let next = match probe {
            None => " stopped".to_owned(),
            Some(probe) if probe.next_run_at == 0 => format!(" {}", verdict(&probe.result)),
            Some(probe) => {
                let left = (probe.next_run_at - self.now).max(0);
                format!(
                    " {}, next {}s",
                    verdict(&probe.result),
                    (left + 999_999_999) / 1_000_000_000
                )
            }
        };
        spans.push(Span::raw(next));
        Some(Line::from(spans))
    }

    /// A pod's page: what it is, its containers, its events, and the tail of a log.
    fn page(&self, page: &Page, height: usize) -> Vec<Line<'static>> {
        let Some(pod) = self.model.pod_of(page) else {
            let gone = format!("{}/{} is gone", page.namespace, page.pod);
            return vec![Line::from(fit(&output::line(&gone), self.width))];
        };
        let mut lines = vec![self.heading(), self.pod_row(pod)];
        let origin = if pod.origin == "manifest" { "from a manifest" } else { "through the CRI" };
        let reason = Some(&pod.reason).filter(|reason| !reason.is_empty());
        let facts: Vec<&str> = std::iter::once(origin)
            .chain(pod.ips.iter().chain(reason).map(String::as_str))
            .collect();
        let facts = format!("  {}", facts.join(", "));
        lines.push(Line::from(fit(&output::line(&facts), self.width)));
        for container in containers(pod) {
            lines.extend(self.container_rows(pod, container));
        }
        let left = height.saturating_sub(lines.len() + 2);
        // A third for events, the rest for the log.
        let for_events = (left / 3).min(self.model.events.len());
        lines.push(self.rule("events"));
        let skipped = self.model.events.len() - for_events;
        for (at, text, warning) in self.model.events.iter().skip(skipped) {
            let style = if *warning { self.style(Color::Yellow) } else { Style::new() };
            let line = format!("{:>6} ago {text}", age::since(*at, self.now));
            lines.push(Line::styled(fit(&line, self.width), style));
        }
        lines.push(self.rule(&format!("log of {}", output::line(&page.container))));
        let for_log = height.saturating_sub(lines.len());
        let skipped = self.model.log.len().saturating_sub(for_log);
        lines.extend(
            self.model.log.iter().skip(skipped).map(|line| Line::from(fit(line, self.width))),
        );
        lines
    }

    fn rule(&self, title: &str) -> Line<'static> {
        Line::styled(
            pad(&format!("-- {title} "), self.width).trim_end().to_owned(),
            self.style(Color::DarkGray),
        )
    }
}

fn verdict(result: &str) -> &'static str {
    match result {
        "Success" => "passes",
        "Failure" => "fails",
        _ => "unknown",
    }
}

/// Cut to a width, with a mark where something is missing.
fn fit(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        let mut longer = cut.clone();
        longer.push(c);
        if Span::raw(longer.as_str()).width() >= width {
            break;
        }
        cut = longer;
    }
    cut.push('~');
    cut
}

fn pad(text: &str, width: usize) -> String {
    let mut cell = fit(text, width.saturating_sub(1));
    let used = Span::raw(cell.as_str()).width();
    cell.push_str(&" ".repeat(width.saturating_sub(used)));
    cell
}

/// `250m`: thousandths of a core, as kubectl has it.
pub(super) fn cores(nanocores: Option<u64>) -> String {
    nanocores.map_or_else(|| "-".to_owned(), |nano| format!("{}m", nano.div_ceil(1_000_000)))
}

/// `12Mi`.
pub(super) fn bytes(bytes: Option<u64>) -> String {
    match bytes {
        None => "-".to_owned(),
        Some(bytes) if bytes < 1 << 20 => format!("{}Ki", bytes >> 10),
        Some(bytes) => format!("{}Mi", bytes >> 20),
    }
}
