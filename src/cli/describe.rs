//! A pod in full, as text: what is wanted of it, beside what it is.

mod container;
mod spec;

use serde_json::{Map, Value};

use crate::proto::haled::{Condition, Container, Event, Pod};

use super::age::{now, rfc3339, since, span};
use super::client::Address;
use super::options::DescribeArgs;
use super::output::{complain, plain, print};
use super::table::table;
use super::{Outcome, events, json, pods, status};

/// The column of the values.
const INDENT: usize = 20;

/// `halectl describe pods`.
pub(super) async fn command(address: &Address, namespace: &str, args: DescribeArgs) -> Outcome {
    let names = args.kind.with(args.names);
    let all = pods::list_with_specs(address).await?;
    let chosen = pods::chosen(all, namespace, &names, &args.among);
    if chosen.pods.is_empty() && names.is_empty() {
        complain(&format!("there are no pods{}", pods::place(namespace, &args.among)));
    }
    for (at, pod) in chosen.pods.iter().enumerate() {
        let events = events::of_pod(address, &pod.namespace, &pod.name).await?;
        let gap = if at == 0 { "" } else { "\n\n" };
        print(format!("{gap}{}", describe(pod, &events, now())))?;
    }
    Ok(chosen.end())
}

/// The pod and its events. `now` is nanoseconds since the epoch.
pub(super) fn describe(pod: &Pod, events: &[Event], now: i64) -> String {
    let spec = json::spec(pod);
    let mut text = Text::default();
    head(&mut text, pod, now);
    if !pod.init_containers.is_empty() {
        text.heading(0, "Init Containers");
        of_each(&mut text, &pod.init_containers, spec.get("initContainers"), now);
    }
    text.heading(0, "Containers");
    of_each(&mut text, &pod.containers, spec.get("containers"), now);
    conditions(&mut text, &pod.conditions, now);
    foot(&mut text, pod, &spec);
    if events.is_empty() {
        text.field(0, "Events", "");
    } else {
        text.heading(0, "Events");
        text.table(&events::table(events, now));
    }
    text.0
}

/// What the pod is.
fn head(text: &mut Text, pod: &Pod, now: i64) {
    let node = if pod.host_ip.is_empty() {
        pod.node_name.clone()
    } else {
        format!("{}/{}", pod.node_name, pod.host_ip)
    };
    let (reason, message) = status::reason(pod);
    // Most often it is a container's trouble, and told there.
    let told = pod.init_containers.iter().chain(&pod.containers).any(|c| c.message == message);
    for (name, value) in [
        ("Name", pod.name.clone()),
        ("Namespace", pod.namespace.clone()),
        ("UID", pod.uid.clone()),
        ("Node", node),
        ("Sandbox", pod.sandbox_id.clone()),
        ("Origin", pod.origin.clone()),
        ("Created", moment(pod.created_at, now)),
        ("Labels", status::labels(pod).join("\n")),
        ("Annotations", status::pairs(&pod.annotations).join("\n")),
        ("Status", pod.status.clone()),
    ] {
        text.field(0, name, &value);
    }
    if pod.deletion_at != 0 {
        let left = (i128::from(pod.deletion_at) - i128::from(now)).max(0);
        text.field(0, "Grace ends", &format!("in {}", span(left)));
    }
    text.known(0, "Reason", reason);
    text.known(0, "Message", if told { "" } else { message });
    text.field(0, "IPs", &pod.ips.join(", "));
}

fn of_each(text: &mut Text, all: &[Container], specs: Option<&Value>, now: i64) {
    let specs = specs.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for container in all {
        let spec = specs.iter().find(|spec| spec["name"] == container.name.as_str());
        container::describe(text, container, spec.unwrap_or(&Value::Null), now);
    }
}

fn conditions(text: &mut Text, conditions: &[Condition], now: i64) {
    if conditions.is_empty() {
        return;
    }
    let row = |condition: &Condition| {
        let status = if condition.status { "True" } else { "False" };
        let since = match condition.last_transition_at {
            0 => String::new(),
            at => format!("{} ago", since(at, now)),
        };
        let why = [condition.reason.as_str(), condition.message.as_str()];
        let why = why.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(": ");
        vec![condition.r#type.clone(), status.to_owned(), since, why]
    };
    let rows: Vec<_> = conditions.iter().map(row).collect();
    text.heading(0, "Conditions");
    text.table(&table(&["TYPE", "STATUS", "SINCE", "REASON"], &rows));
}

/// What is wanted of the pod.
fn foot(text: &mut Text, pod: &Pod, spec: &Map<String, Value>) {
    let volumes = spec::volumes(spec.get("volumes"));
    if !volumes.is_empty() {
        text.heading(0, "Volumes");
        for (name, what) in volumes {
            text.field(2, &name, &what);
        }
    }
    let word = |name: &str| spec.get(name).map(spec::word).unwrap_or_default();
    text.known(0, "QoS Class", &pod.qos_class);
    text.known(0, "Restart Policy", &word("restartPolicy"));
    text.known(0, "Host Network", &word("hostNetwork"));
    text.known(0, "Runtime Class", &word("runtimeClassName"));
}

/// Text of `Name:      value` lines.
#[derive(Default)]
struct Text(String);

impl Text {
    /// A value of several lines is set in below the first.
    fn field(&mut self, indent: usize, name: &str, value: &str) {
        let value = plain(value.trim_end());
        let value = if value.is_empty() { "<none>".to_owned() } else { value };
        let head = format!("{:indent$}{}:", "", plain(name));
        let value = value.replace('\n', &format!("\n{:INDENT$}", ""));
        let line = if head.len() < INDENT {
            format!("{head:INDENT$}{value}")
        } else {
            format!("{head} {value}")
        };
        self.0.push_str(&line);
        self.0.push('\n');
    }

    /// The same, where there is something to say.
    fn known(&mut self, indent: usize, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(indent, name, value);
        }
    }

    fn heading(&mut self, indent: usize, title: &str) {
        self.0.extend([" ".repeat(indent).as_str(), title, ":\n"]);
    }

    fn table(&mut self, table: &str) {
        for row in table.lines() {
            self.0.extend(["  ", row, "\n"]);
        }
    }
}

/// `2026-01-02T03:04:05Z (5m ago)`.
fn moment(at: i64, now: i64) -> String {
    rfc3339(at).map(|stamp| format!("{stamp} ({} ago)", since(at, now))).unwrap_or_default()
}
