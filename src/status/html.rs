//! The page's markup. Pure: pods in, text out. Every word that comes from a pod goes through
//! [`text`]; classes and ids are of closed sets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::proto::haled as wire;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// As the protocol's `kind`, with a capital.
pub(super) const PROBE_KINDS: [&str; 3] = ["Startup", "Liveness", "Readiness"];
/// Results shown of each probe.
const STRIP: usize = 60;
/// Characters shown of one text of a pod's.
const TEXT_LIMIT: usize = 2000;

/// Only this very style and script, and nothing from anywhere else.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// The parts of the page that change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View {
    /// How many there are of what.
    pub(super) summary: String,
    /// By key, in the page's order.
    pub(super) pods: Vec<(String, String)>,
}

impl View {
    pub(super) fn of(pods: &[wire::Pod]) -> Self {
        let pods_of = pods.iter().map(|pod| (key(pod), article(pod)));
        Self { summary: summary(pods), pods: pods_of.collect() }
    }

    /// The server-sent event that makes a page of `old` one of this view. Empty: nothing has
    /// changed.
    pub(super) fn event_after(&self, old: &Self) -> String {
        if self == old {
            return String::new();
        }
        let known: BTreeMap<_, _> = old.pods.iter().map(|(key, html)| (key, html)).collect();
        let changed = self.pods.iter().filter(|(key, html)| known.get(key) != Some(&html));
        let changed: BTreeMap<_, _> = changed.map(|(key, html)| (key, html)).collect();
        let order: Vec<_> = self.pods.iter().map(|(key, _)| key).collect();
        let data = serde_json::json!({
            "summary": self.summary,
            "order": order,
            "changed": changed,
        });
        // JSON has no newline of its own.
        format!("event: pods\ndata: {data}\n\n")
    }

    /// The whole document.
    pub(super) fn document(&self, node: &str) -> String {
        let articles: String = self.pods.iter().map(|(_, html)| html.as_str()).collect();
        let node = text(node);
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <title>haled on {node}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#pods\">To the pods</a>\n\
             <header>\n<h1>haled <span class=\"node\">on {node}</span></h1>\n\
             <p id=\"summary\">{}</p>\n\
             <p id=\"live\" class=\"still\" role=\"status\">As of loading; reload for changes.</p>\n\
             <label id=\"search\" hidden>Show <input id=\"filter\" type=\"search\" \
             placeholder=\"name, namespace or state\" autocomplete=\"off\" spellcheck=\"false\"></label>\n\
             </header>\n\
             <main id=\"pods\" tabindex=\"-1\">{articles}</main>\n\
             <p id=\"none\">No pods. <code>halectl apply -f pod.yaml</code> runs one.</p>\n\
             <footer>haled {} · <a href=\"metrics\">metrics</a></footer>\n\
             <script>{SCRIPT}</script>\n</body>\n</html>\n",
            self.summary,
            env!("CARGO_PKG_VERSION"),
        )
    }
}

/// Text of a pod's as markup: nothing in it is markup.
pub(super) fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for (at, c) in raw.chars().enumerate() {
        if at == TEXT_LIMIT {
            safe.push('…');
            break;
        }
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            // Control characters, and those that turn the direction of text around.
            c if c.is_control() => safe.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.push('\u{fffd}');
            }
            c => safe.push(c),
        }
    }
    safe
}

/// What the page knows a pod by.
fn key(pod: &wire::Pod) -> String {
    if pod.origin == "manifest" {
        format!("{}/{}", pod.namespace, pod.name)
    } else {
        pod.sandbox_id.clone()
    }
}

fn summary(pods: &[wire::Pod]) -> String {
    let containers: Vec<_> = pods.iter().flat_map(containers).collect();
    let running = containers.iter().filter(|c| c.state == "Running").count();
    let ill = containers.iter().filter(|c| mood(c) == "bad").count();
    let restarts: u32 = containers.iter().map(|c| c.restart_count).sum();
    let mut words = vec![
        many(pods.len(), "pod"),
        format!("{running} of {} running", many(containers.len(), "container")),
        many(usize::try_from(restarts).unwrap_or(usize::MAX), "restart"),
    ];
    if ill > 0 {
        words.push(format!("<strong class=\"bad\">{ill} not well</strong>"));
    }
    words.join(" · ")
}

/// `3 pods`.
fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn containers(pod: &wire::Pod) -> impl Iterator<Item = &wire::Container> {
    pod.init_containers.iter().chain(&pod.containers)
}

/// A class: how it is with a container.
fn mood(container: &wire::Container) -> &'static str {
    match (container.state.as_str(), container.reason.as_str()) {
        ("Running", "Unhealthy") | ("Waiting", "CrashLoopBackOff") => "bad",
        ("Waiting", reason) if reason.starts_with("Err") || reason.starts_with("Create") => "bad",
        ("Running", "NotReady" | "Starting") | ("Waiting", _) => "wait",
        ("Running", _) => "good",
        ("Terminated", _) if container.exit_code == 0 => "done",
        _ => "bad",
    }
}

fn phase_class(phase: &str) -> &'static str {
    match phase {
        "Running" => "good",
        "Succeeded" => "done",
        "Failed" | "NotReady" => "bad",
        _ => "wait",
    }
}

fn article(pod: &wire::Pod) -> String {
    let mut html = String::new();
    let has = |wanted: &&&str| containers(pod).any(|container| mood(container) == **wanted);
    let class = ["bad", "wait"].iter().find(has).copied();
    let class = class.unwrap_or_else(|| phase_class(&pod.phase));
    put(
        &mut html,
        format_args!("<article class=\"pod {class}\" data-key=\"{}\">\n", text(&key(pod))),
    );
    put(
        &mut html,
        format_args!(
            "<h2><span class=\"namespace\">{}/</span>{} <span class=\"badge {}\">{}</span></h2>\n",
            text(&pod.namespace),
            text(&pod.name),
            class,
            text(&pod.status)
        ),
    );
    let from = if pod.origin == "manifest" { "from a manifest" } else { "through the CRI" };
    put(
        &mut html,
        format_args!("<p class=\"facts\">{from} · created {}", time(pod.created_at, "ago")),
    );
    for ip in &pod.ips {
        put(&mut html, format_args!(" · <span class=\"ip\">{}</span>", text(ip)));
    }
    html.push_str("</p>\n");
    // A container that is in the way says so itself.
    let told = containers(pod).any(|c| !c.message.is_empty() && pod.reason.ends_with(&c.message));
    if !pod.reason.is_empty() && !told {
        put(&mut html, format_args!("<p class=\"message\">{}</p>\n", text(&pod.reason)));
    }
    for container in containers(pod) {
        section(&mut html, container);
    }
    html.push_str("</article>\n");
    html
}

fn section(html: &mut String, container: &wire::Container) {
    let mood = mood(container);
    put(html, format_args!("<section class=\"container {mood}\">\n<h3>{}", text(&container.name)));
    let word = if container.reason.is_empty() { &container.state } else { &container.reason };
    put(html, format_args!(" <span class=\"badge {mood}\">{}</span></h3>\n", text(word)));
    put(
        html,
        format_args!("<p class=\"facts\"><span class=\"image\">{}</span>", text(&container.image)),
    );
    if container.state == "Running" {
        put(html, format_args!(" · started {}", time(container.started_at, "ago")));
    } else if container.finished_at != 0 {
        let (at, code) = (time(container.finished_at, "ago"), container.exit_code);
        put(html, format_args!(" · ended {at} with {code}"));
    }
    if container.next_start_at != 0 {
        put(html, format_args!(" · next start {}", time(container.next_start_at, "ago")));
    }
    html.push_str("</p>\n");
    // Of a running one it is a probe's, whose own words are below.
    if !container.message.is_empty() && container.state != "Running" {
        put(html, format_args!("<p class=\"message\">{}</p>\n", text(&container.message)));
    }
    for title in PROBE_KINDS {
        strip(html, container, title);
    }
    heals(html, container);
    html.push_str("</section>\n");
}

/// The last results of one probe, with the restarts between them.
fn strip(html: &mut String, container: &wire::Container, title: &str) {
    let kind = title.to_ascii_lowercase();
    let runs: Vec<_> = container.probe_runs.iter().filter(|run| run.kind == kind).collect();
    let probe = container.probes.iter().find(|probe| probe.kind == kind);
    if runs.is_empty() && probe.is_none() {
        return;
    }
    let runs = &runs[runs.len().saturating_sub(STRIP)..];
    let failed = runs.iter().filter(|run| !run.success).count();
    let first = runs.first().map_or(i64::MAX, |run| run.at);
    let restarts: Vec<_> = container.restarts.iter().filter(|r| r.at >= first).collect();
    let last = runs.last().map_or("none yet", |run| if run.success { "passed" } else { "failed" });
    let words = format!(
        "{title} probe: {failed} of the last {} failed, {} between them, the last {last}",
        runs.len(),
        many(restarts.len(), "restart")
    );
    put(html, format_args!("<div class=\"probe\"><span class=\"kind\">{title}</span>"));
    put(
        html,
        format_args!(
            "<svg class=\"strip\" role=\"img\" viewBox=\"0 0 {} 20\" preserveAspectRatio=\"none\" \
             aria-label=\"{words}\"><title>{words}</title>",
            STRIP * 10
        ),
    );
    // The newest at the right end.
    let mut x = (STRIP - runs.len()) * 10;
    let mut told = 0;
    for run in runs {
        while restarts.get(told).is_some_and(|restart| restart.at <= run.at) {
            put(
                html,
                format_args!(
                    "<rect class=\"restart\" x=\"{}\" y=\"0\" width=\"3\" height=\"20\"/>",
                    x.saturating_sub(2)
                ),
            );
            told += 1;
        }
        let (class, y, height) = if run.success { ("pass", 6, 10) } else { ("fail", 3, 16) };
        put(
            html,
            format_args!(
                "<rect class=\"{class}\" x=\"{}\" y=\"{y}\" width=\"8\" height=\"{height}\"/>",
                x + 1
            ),
        );
        x += 10;
    }
    if told < restarts.len() {
        put(
            html,
            format_args!(
                "<rect class=\"restart\" x=\"{}\" y=\"0\" width=\"3\" height=\"20\"/>",
                STRIP * 10 - 3
            ),
        );
    }
    html.push_str("</svg>");
    let (state, class) = match probe.map(|probe| probe.result.as_str()) {
        Some("Success") => ("passes", "good"),
        Some("Failure") => ("fails", "bad"),
        Some(_) => ("not known yet", "wait"),
        None => ("stopped", "wait"),
    };
    put(html, format_args!("<span class=\"verdict {class}\">{state}</span></div>\n"));
    if let Some(probe) = probe.filter(|probe| {
        probe.result == "Failure" || probe.run > 0 && !runs.last().is_none_or(|run| run.success)
    }) {
        put(
            html,
            format_args!(
                "<p class=\"message output\">{}: failed {} in a row ({} decide): {}</p>\n",
                text(&probe.handler),
                probe.run,
                probe.failure_threshold,
                text(&probe.last_output)
            ),
        );
    }
}

/// The restarts and how long each took.
fn heals(html: &mut String, container: &wire::Container) {
    if container.restart_count == 0 && container.restarts.is_empty() {
        return;
    }
    let count = container.restart_count;
    let Some(last) = container.restarts.last() else {
        put(html, format_args!("<p class=\"facts\">restarts: {count}</p>\n"));
        return;
    };
    put(
        html,
        format_args!(
            "<details data-key=\"{}\"><summary>restarts: {count} <span class=\"last\">· the last was back after {}</span></summary>\n<ol class=\"heals\">\n",
            text(&container.name),
            seconds(last.took_ms)
        ),
    );
    let longest = container.restarts.iter().map(|r| r.took_ms).max().unwrap_or(1).max(1);
    for restart in container.restarts.iter().rev() {
        let width = (restart.took_ms.saturating_mul(100) / longest).max(1);
        put(
            html,
            format_args!(
                "<li>{} <span class=\"why\">{}</span><svg class=\"bar\" viewBox=\"0 0 100 6\" \
                 preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"{width}\" height=\"6\"/></svg>\
                 <span class=\"took\">{}</span></li>\n",
                time(restart.at, "clock"),
                text(&restart.reason),
                seconds(restart.took_ms)
            ),
        );
    }
    html.push_str("</ol></details>\n");
}

fn seconds(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}

/// A moment, which the script words anew as it passes where `class` is `ago`, and in
/// the reader's own time of day where it is `clock`.
fn time(nanos: i64, class: &str) -> String {
    let Ok(at) = jiff::Timestamp::from_nanosecond(nanos.into()) else { return "-".to_owned() };
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let words = at.replace('T', " ").replace('Z', " UTC");
    format!("<time class=\"{class}\" datetime=\"{at}\">{words}</time>")
}

fn put(html: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    html.write_fmt(words).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> wire::Pod {
        let run = |at: i64| wire::ProbeRun { kind: "liveness".into(), success: at < 3, at };
        let container = wire::Container {
            name: "app".into(),
            image: "busybox".into(),
            state: "Running".into(),
            reason: "Healthy".into(),
            restart_count: 2,
            started_at: 1_700_000_000_000_000_000,
            probe_runs: (0..5).map(run).collect(),
            restarts: vec![wire::Restart {
                at: 4,
                reason: "LivenessProbeFailed".into(),
                took_ms: 1234,
            }],
            ..Default::default()
        };
        wire::Pod {
            namespace: "default".into(),
            name: "web".into(),
            phase: "Running".into(),
            status: "Running".into(),
            origin: "manifest".into(),
            created_at: 1_700_000_000_000_000_000,
            containers: vec![container],
            ..Default::default()
        }
    }

    #[test]
    fn a_pod_is_shown_with_its_strip_and_its_heals() {
        insta::assert_snapshot!(View::of(&[pod()]).pods[0].1);
    }

    #[test]
    fn text_of_a_pod_is_never_markup() {
        let evil = "</title><script>alert(1)</script>\"'&\u{202e}\u{1b}[31m";
        let mut pod = pod();
        pod.name = evil.into();
        pod.namespace = evil.into();
        pod.reason = evil.into();
        pod.phase = evil.into();
        pod.status = evil.into();
        pod.ips = vec![evil.into()];
        let container = &mut pod.containers[0];
        container.name = evil.into();
        container.image = evil.into();
        container.state = evil.into();
        container.reason = evil.into();
        container.message = evil.into();
        container.restarts[0].reason = evil.into();
        container.probes = vec![wire::ProbeStatus {
            kind: "liveness".into(),
            handler: evil.into(),
            result: "Failure".into(),
            last_output: evil.into(),
            ..Default::default()
        }];
        let view = View::of(&[pod]);
        let document = view.document(evil);
        let ours = View::default().document("node");
        for mark in ["<script", "</script", "</title", "<style"] {
            let count = |text: &str| text.matches(mark).count();
            // A strip has a title of its own, without a word of the pod's.
            let strips = usize::from(mark == "</title");
            assert_eq!(count(&document), count(&ours) + strips, "{mark}");
        }
        assert!(!document.contains('\u{202e}') && !document.contains('\u{1b}'));
        assert!(!document.contains("'&\u{fffd}"), "quotes are escaped");
        // One line, whatever is in it.
        let event = view.event_after(&View::default());
        assert_eq!(event.matches('\n').count(), 3, "{event}");
        let long = "x".repeat(3 * TEXT_LIMIT);
        assert_eq!(text(&long).chars().count(), TEXT_LIMIT + 1);
    }

    #[test]
    fn an_event_has_only_what_changed() {
        let (a, mut b) = (pod(), pod());
        b.name = "other".into();
        let old = View::of(&[a.clone(), b.clone()]);
        assert_eq!(View::of(&[a.clone(), b.clone()]).event_after(&old), "");
        b.status = "Error".into();
        let event = View::of(&[b, a]).event_after(&old);
        let data = event.strip_prefix("event: pods\ndata: ").unwrap();
        let data: serde_json::Value = serde_json::from_str(data.trim_end()).unwrap();
        assert_eq!(data["order"], serde_json::json!(["default/other", "default/web"]));
        let changed: Vec<_> = data["changed"].as_object().unwrap().keys().collect();
        assert_eq!(changed, ["default/other"]);
    }

    #[test]
    fn the_policy_allows_nothing_but_its_own() {
        assert!(POLICY.starts_with("default-src 'none'; style-src 'sha256-"));
        assert!(!POLICY.contains("unsafe"));
        // What the policy would forbid, the page doesn't have.
        let document = View::of(&[pod()]).document("node");
        assert!(!document.contains(" style=") && !document.contains(" onclick="));
    }
}
