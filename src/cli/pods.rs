//! Pods: get, describe.

use std::process::ExitCode;

use crate::proto::haled::{ListPodsRequest, ListPodsResponse, Pod};

use super::age::{now, since};
use super::client::{self, Address};
use super::options::{Among, DEFAULT_NAMESPACE, DescribeArgs, Format, GetArgs};
use super::output::{complain, print};
use super::table::table;
use super::{Failure, Outcome, describe, events, json, names, status};

/// `halectl get pods`.
pub(super) async fn get(address: &Address, namespace: &str, args: GetArgs) -> Outcome {
    let GetArgs { kind, names, among, output, no_headers, show_labels, watch } = args;
    let names = kind.with(names);
    let pods = chosen(address, namespace, &names, &among).await?;
    let columns = Columns {
        namespaces: among.all_namespaces,
        wide: output == Some(Format::Wide),
        labels: show_labels,
    };
    let view = View { output, one: names.len() == 1, columns, heading: !no_headers };
    if !watch {
        view.show(&pods, &place(namespace, &among))?;
        return Ok(ExitCode::SUCCESS);
    }
    let keys: Vec<_> = pods.iter().map(key).collect();
    let mut lists = watching(address).await?;
    let mut last = None;
    while let Some(list) = lists.message().await? {
        let mut pods = list.pods;
        if names.is_empty() {
            pods.retain(|pod| fits(pod, namespace, &among));
        } else {
            pods.retain(|pod| keys.contains(&key(pod)));
        }
        // Something else may be what has changed.
        if last.as_ref() != Some(&pods) {
            view.show(&pods, &place(namespace, &among))?;
            last = Some(pods);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every pod now, and again whenever anything has changed.
pub(super) async fn watching(
    address: &Address,
) -> Result<tonic::Streaming<ListPodsResponse>, Failure> {
    let request = ListPodsRequest::default();
    Ok(client::haled(address).await?.watch_pods(request).await?.into_inner())
}

/// How pods are printed.
struct View {
    output: Option<Format>,
    /// As one object, not as a list.
    one: bool,
    columns: Columns,
    /// The table has a first line with what its columns are.
    heading: bool,
}

/// Columns of a table of pods, beside the usual ones.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Columns {
    pub(super) namespaces: bool,
    pub(super) wide: bool,
    pub(super) labels: bool,
}

impl View {
    fn show(&self, pods: &[Pod], place: &str) -> Result<(), Failure> {
        match self.output {
            Some(Format::Json) => return print(json::pods(pods, self.one)),
            Some(Format::Yaml) => return print(json::yaml(pods, self.one)?),
            Some(Format::Name) => {
                let name = |pod: &Pod| format!("pod/{}\n", pod.name);
                return print(pods.iter().map(name).collect::<Vec<_>>().concat());
            }
            None | Some(Format::Wide) => {}
        }
        if pods.is_empty() {
            // To stderr, as kubectl has it: a script that counts lines counts none.
            complain(&format!("there are no pods{place}"));
            return Ok(());
        }
        let table = pod_table(pods, self.columns, now());
        let rows = table.split_once('\n').map_or("", |(_, rows)| rows);
        print(if self.heading { &table } else { rows })
    }
}

/// Where pods were looked for, for a sentence that ends with it.
pub(super) fn place(namespace: &str, among: &Among) -> String {
    let with = if among.selector.is_some() { " with these labels" } else { "" };
    if among.all_namespaces {
        with.to_owned()
    } else {
        format!("{with} in namespace \"{namespace}\"")
    }
}

/// `halectl describe pods`.
pub(super) async fn describe(address: &Address, namespace: &str, args: DescribeArgs) -> Outcome {
    let names = args.kind.with(args.names);
    let pods = chosen(address, namespace, &names, &args.among).await?;
    if pods.is_empty() {
        complain(&format!("there are no pods{}", place(namespace, &args.among)));
    }
    for (at, pod) in pods.iter().enumerate() {
        let events = events::of_pod(address, &pod.namespace, &pod.name).await?;
        let gap = if at == 0 { "" } else { "\n\n" };
        print(format!("{gap}{}", describe::describe(pod, &events, now())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pod that is meant, which must be there.
pub(super) async fn one(address: &Address, namespace: &str, name: &str) -> Result<Pod, Failure> {
    let pods = list(address).await?;
    names::pod(&pods, namespace, name).cloned().map_err(Failure::Message)
}

/// The pods that are named, all of which must be there; else those that fit.
pub(super) async fn chosen(
    address: &Address,
    namespace: &str,
    names: &[String],
    among: &Among,
) -> Result<Vec<Pod>, Failure> {
    let mut pods = list(address).await?;
    if names.is_empty() {
        pods.retain(|pod| fits(pod, namespace, among));
        return Ok(pods);
    }
    let mut found: Vec<Pod> = Vec::new();
    for name in names {
        let pod = names::pod(&pods, namespace, name).map_err(Failure::Message)?;
        // A pod that is named twice is one.
        if !found.iter().any(|there| key(there) == key(pod)) {
            found.push(pod.clone());
        }
    }
    Ok(found)
}

/// Whether a pod is one of those meant where none is named.
pub(super) fn fits(pod: &Pod, namespace: &str, among: &Among) -> bool {
    (among.all_namespaces || pod.namespace == namespace)
        && among.selector.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
}

/// What a pod goes by.
pub(super) fn key(pod: &Pod) -> (String, String) {
    (pod.namespace.clone(), pod.name.clone())
}

/// Every pod, sorted.
pub(super) async fn list(address: &Address) -> Result<Vec<Pod>, Failure> {
    let request = ListPodsRequest::default();
    let mut pods = client::haled(address).await?.list_pods(request).await?.into_inner().pods;
    pods.sort_by_cached_key(key);
    Ok(pods)
}

/// The table of `get pods`. `now` is nanoseconds since the epoch.
pub(super) fn pod_table(pods: &[Pod], columns: Columns, now: i64) -> String {
    let Columns { namespaces, wide, labels } = columns;
    let mut heading = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
    if namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if wide {
        heading.extend(["IP", "ORIGIN", "SANDBOX"]);
    }
    if labels {
        heading.push("LABELS");
    }
    let row = |pod: &Pod| {
        let restarts = match (status::restarts(pod), status::last_restart(pod)) {
            (count, Some(at)) if count > 0 => format!("{count} ({} ago)", since(at, now)),
            (count, _) => count.to_string(),
        };
        let age = since(pod.created_at, now);
        let mut row = vec![pod.name.clone(), status::ready(pod), pod.status.clone(), restarts, age];
        if namespaces {
            row.insert(0, pod.namespace.clone());
        }
        let or_none = |text: String| if text.is_empty() { "<none>".into() } else { text };
        if wide {
            let sandbox = pod.sandbox_id.get(..13).unwrap_or(&pod.sandbox_id);
            row.push(or_none(pod.ips.join(",")));
            row.push(or_none(pod.origin.clone()));
            row.push(or_none(sandbox.to_owned()));
        }
        if labels {
            row.push(or_none(status::labels(pod).join(",")));
        }
        row
    };
    table(&heading, &pods.iter().map(row).collect::<Vec<_>>())
}

/// A pod as messages name it: its namespace only where it isn't the usual one.
pub(super) fn object(namespace: &str, name: &str) -> String {
    match namespace {
        "" | DEFAULT_NAMESPACE => format!("pod/{name}"),
        _ => format!("pod/{name} in namespace {namespace}"),
    }
}
