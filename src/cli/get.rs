//! `halectl get`: pods as a table or as objects, once or as they change.

use std::collections::HashMap;
use std::process::ExitCode;

use crate::proto::haled::{ListPodsRequest, Pod};

use super::age::{now, since};
use super::client::Address;
use super::options::{Format, GetArgs};
use super::output::{complain, print};
use super::pods;
use super::selector::FieldSelector;
use super::table::Widths;
use super::{Failure, Outcome, json, status};

/// `halectl get pods`.
pub(super) async fn get(address: &Address, namespace: &str, args: GetArgs) -> Outcome {
    let GetArgs { kind, names, among, output, .. } = args;
    let names = kind.with(names);
    let columns = Columns {
        namespaces: among.all_namespaces,
        wide: matches!(output, Some(Format::Wide)),
        labels: args.show_labels,
    };
    let view = View { output, one: names.len() == 1, columns, heading: !args.no_headers };
    let fields = args.field_selector;
    // A table has no use for specs, which haled would make anew for each look at the pods.
    let specs = view.is_of_objects() || fields.is_some() || args.sort_by.is_some();
    let request = ListPodsRequest { specs, ..ListPodsRequest::default() };
    let pods = pods::asked(address, request.clone()).await?;
    let mut chosen = pods::chosen(pods, namespace, &names, &among);
    chosen.pods.retain(|pod| fits(pod, fields.as_ref()));
    if args.ignore_not_found {
        chosen.missing.clear();
    }
    if let Some(path) = args.sort_by {
        chosen.pods.sort_by(|one, other| path.order(&json::object(one), &json::object(other)));
    }
    if args.watch {
        if !chosen.missing.is_empty() {
            return Ok(chosen.end());
        }
        // Those that are named are followed also by whom they are replaced.
        let keys: Vec<_> = chosen.pods.iter().map(pods::key).collect();
        let is_meant = |pod: &Pod| {
            let named = keys.contains(&pods::key(pod));
            let meant = if names.is_empty() { pods::fits(pod, namespace, &among) } else { named };
            meant && fits(pod, fields.as_ref())
        };
        return watch(address, request, &view, is_meant).await;
    }
    let there_are_none = chosen.pods.is_empty();
    // A script that counts lines counts none; one that reads JSON gets a list.
    let says_so = there_are_none && view.heading().is_some();
    if says_so && names.is_empty() && !args.ignore_not_found {
        complain(&format!("there are no pods{}", pods::place(namespace, &among)));
    } else if !says_so && (names.is_empty() || !there_are_none) {
        print(view.whole(&chosen.pods, now())?)?;
    }
    Ok(chosen.end())
}

fn fits(pod: &Pod, fields: Option<&FieldSelector>) -> bool {
    fields.is_none_or(|fields| fields.matches(&json::object(pod)))
}

/// Prints each pod, and again whenever what is printed of it has changed.
async fn watch(
    address: &Address,
    request: ListPodsRequest,
    view: &View,
    is_meant: impl Fn(&Pod) -> bool,
) -> Outcome {
    let mut lists = pods::watching(address, request).await?;
    let mut shown: HashMap<(String, String), Vec<String>> = HashMap::new();
    let (mut widths, mut headed) = (Widths::default(), !view.heading);
    while let Some(list) = lists.message().await? {
        let (pods, now): (Vec<_>, _) =
            (list.pods.iter().filter(|pod| is_meant(pod)).collect(), now());
        let mut rows = Vec::new();
        for &pod in &pods {
            // Ages, which always change, are all the same at the beginning of time.
            let still = view.cells(pod, 0)?;
            if shown.insert(pods::key(pod), still.clone()).as_ref() != Some(&still) {
                rows.push(view.cells(pod, now)?);
            }
        }
        if let Some(heading) = view.heading().filter(|_| !headed && !rows.is_empty()) {
            rows.insert(0, heading);
            headed = true;
        }
        print(view.lines(&rows, &mut widths))?;
        let is_there = |key: &(String, String)| pods.iter().any(|pod| pods::key(pod) == *key);
        for (key, _) in shown.extract_if(|key, _| !is_there(key)) {
            complain(&format!("pod {}/{} is gone", key.0, key.1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How pods are printed.
pub(super) struct View {
    pub(super) output: Option<Format>,
    /// As one object, not as a list.
    pub(super) one: bool,
    pub(super) columns: Columns,
    /// The table has a first line with what its columns are.
    pub(super) heading: bool,
}

impl View {
    /// All of them.
    pub(super) fn whole(&self, pods: &[Pod], now: i64) -> Result<String, Failure> {
        match &self.output {
            Some(Format::Json) => return Ok(json::pods(pods, self.one)),
            Some(Format::Yaml) => return json::yaml(pods, self.one),
            Some(Format::JsonPath(template)) => {
                return Ok(template.text(&json::object_of(pods, self.one)));
            }
            _ => {}
        }
        let heading = self.heading().filter(|_| self.heading).map(Ok);
        let rows = pods.iter().map(|pod| self.cells(pod, now));
        let rows: Vec<_> = heading.into_iter().chain(rows).collect::<Result<_, _>>()?;
        Ok(self.lines(&rows, &mut Widths::default()))
    }

    /// Whether what is printed is made of the pods' objects.
    fn is_of_objects(&self) -> bool {
        !matches!(self.output, None | Some(Format::Wide | Format::Name))
    }

    /// The columns; `None`: it is no table.
    fn heading(&self) -> Option<Vec<String>> {
        match &self.output {
            None | Some(Format::Wide) => Some(self.columns.heading()),
            Some(Format::CustomColumns(columns)) => Some(columns.heading()),
            Some(_) => None,
        }
    }

    /// One pod: a row of the table, else the whole text.
    fn cells(&self, pod: &Pod, now: i64) -> Result<Vec<String>, Failure> {
        let one = std::slice::from_ref(pod);
        Ok(match &self.output {
            None | Some(Format::Wide) => self.columns.cells(pod, now),
            Some(Format::CustomColumns(columns)) => columns.cells(&json::object(pod)),
            Some(Format::Json) => vec![json::pods(one, true)],
            Some(Format::Yaml) => vec![format!("---\n{}", json::yaml(one, true)?)],
            Some(Format::Name) => vec![format!("pod/{}\n", pod.name)],
            Some(Format::JsonPath(template)) => {
                let text = template.text(&json::object(pod));
                let end = if text.ends_with('\n') { "" } else { "\n" };
                vec![format!("{text}{end}")]
            }
        })
    }

    fn lines(&self, rows: &[Vec<String>], widths: &mut Widths) -> String {
        if self.heading().is_some() { widths.lines(rows) } else { rows.concat().concat() }
    }
}

/// Columns of a table of pods, beside the usual ones.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Columns {
    pub(super) namespaces: bool,
    pub(super) wide: bool,
    pub(super) labels: bool,
}

impl Columns {
    fn heading(self) -> Vec<String> {
        let mut heading = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
        if self.namespaces {
            heading.insert(0, "NAMESPACE");
        }
        if self.wide {
            heading.extend(["IP", "ORIGIN", "SANDBOX"]);
        }
        if self.labels {
            heading.push("LABELS");
        }
        heading.into_iter().map(str::to_owned).collect()
    }

    /// `now` is nanoseconds since the epoch.
    fn cells(self, pod: &Pod, now: i64) -> Vec<String> {
        let restarts = match (status::restarts(pod), status::last_restart(pod)) {
            (count, Some(at)) if count > 0 => format!("{count} ({} ago)", since(at, now)),
            (count, _) => count.to_string(),
        };
        let age = since(pod.created_at, now);
        let mut row = vec![pod.name.clone(), status::ready(pod), pod.status.clone(), restarts, age];
        if self.namespaces {
            row.insert(0, pod.namespace.clone());
        }
        let or_none = |text: String| if text.is_empty() { "<none>".into() } else { text };
        if self.wide {
            let sandbox = pod.sandbox_id.get(..13).unwrap_or(&pod.sandbox_id);
            row.push(or_none(pod.ips.join(",")));
            row.push(or_none(pod.origin.clone()));
            row.push(or_none(sandbox.to_owned()));
        }
        if self.labels {
            row.push(or_none(status::labels(pod).join(",")));
        }
        row
    }
}
