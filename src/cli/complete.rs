//! What a shell is offered: the names of pods, containers and namespaces, asked over the
//! socket while someone waits for the Tab key.
//!
//! Whatever goes wrong, nothing is offered and nothing said: it would land in the middle of a
//! command line.

use std::ffi::OsStr;
use std::time::Duration;

use clap::{ArgMatches, CommandFactory as _};
use clap_complete::CompletionCandidate as Candidate;
use clap_complete::engine::{PathCompleter, ValueCompleter as _};

use crate::proto::haled::{Field, Pod};

use super::client::Address;
use super::copy::Place;
use super::options::{DEFAULT_NAMESPACE, Options};
use super::{Failure, explain, names, pods, wait};

/// How long someone who presses Tab waits at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// `pods`, for commands that say what they are about.
pub(super) fn kinds(current: &OsStr) -> Vec<Candidate> {
    starting(["pods", "pod"].map(Candidate::new).into(), current)
}

/// What `get` prints.
pub(super) fn formats(current: &OsStr) -> Vec<Candidate> {
    let formats = ["wide", "json", "yaml", "name", "jsonpath=", "custom-columns="];
    starting(formats.map(Candidate::new).into(), current)
}

/// What can be waited for.
pub(super) fn wanted(current: &OsStr) -> Vec<Candidate> {
    let conditions = wait::CONDITIONS.map(|name| Candidate::new(format!("condition={name}")));
    let phases = wait::PHASES.map(|name| Candidate::new(format!("phase={name}")));
    let others = ["jsonpath=", "create", "delete"].map(Candidate::new);
    starting(conditions.into_iter().chain(phases).chain(others).collect(), current)
}

/// Pods of the namespace by name, and once there is a slash those of all by their full names.
pub(super) fn pods(current: &OsStr) -> Vec<Candidate> {
    let line = Line::read();
    let full = current.to_string_lossy().contains('/');
    let pods = line.pods().into_iter();
    let named = pods.filter(|pod| full || line.everywhere || pod.namespace == line.namespace);
    let candidate = |pod: Pod| {
        let name = if full || line.everywhere {
            format!("{}/{}", pod.namespace, pod.name)
        } else {
            pod.name.clone()
        };
        Candidate::new(name).help(Some(pod.status.clone().into()))
    };
    starting(named.map(candidate).collect(), current)
}

/// The containers of the pod that the line names, or of every pod.
pub(super) fn containers(current: &OsStr) -> Vec<Candidate> {
    let line = Line::read();
    let all = line.pods();
    let named: Vec<&Pod> = match &line.pod {
        Some(name) => names::pod(&all, &line.namespace, name).ok().into_iter().collect(),
        None => all.iter().filter(|pod| pod.namespace == line.namespace).collect(),
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    for container in named.into_iter().flat_map(names::containers) {
        let candidate = Candidate::new(&container.name).help(Some(container.state.clone().into()));
        if !candidates.iter().any(|known| known.get_value() == candidate.get_value()) {
            candidates.push(candidate);
        }
    }
    starting(candidates, current)
}

/// Namespaces that have pods.
pub(super) fn namespaces(current: &OsStr) -> Vec<Candidate> {
    let mut all: Vec<String> = Line::read().pods().into_iter().map(|pod| pod.namespace).collect();
    all.sort_unstable();
    all.dedup();
    starting(all.into_iter().map(Candidate::new).collect(), current)
}

/// Paths of fields that can be explained.
pub(super) fn fields(current: &OsStr) -> Vec<Candidate> {
    let typed = current.to_string_lossy();
    let above = typed.rsplit_once('.').map_or("", |(above, _)| above);
    let found = Line::read().ask(async |address| explain::field(address, above).await);
    let below = found.map(|field| field.fields).unwrap_or_default().into_iter();
    let candidate = |field: Field| {
        let dot = if above.is_empty() { "" } else { "." };
        Candidate::new(format!("{above}{dot}{}", field.name)).help(Some(field.about.into()))
    };
    starting(below.map(candidate).collect(), current)
}

/// Files here, and pods with the colon that a path in them comes after.
pub(super) fn places(current: &OsStr) -> Vec<Candidate> {
    let mut places = PathCompleter::any().complete(current);
    if !current.to_string_lossy().starts_with(['/', '.', '~']) {
        let with_colon = |pod: Candidate| {
            let mut name = pod.get_value().to_owned();
            name.push(":");
            Candidate::new(name).help(pod.get_help().cloned())
        };
        places.extend(pods(current).into_iter().map(with_colon));
    }
    places
}

fn starting(mut candidates: Vec<Candidate>, current: &OsStr) -> Vec<Candidate> {
    let current = current.as_encoded_bytes();
    candidates.retain(|candidate| candidate.get_value().as_encoded_bytes().starts_with(current));
    candidates
}

/// What the line that is being completed says so far.
struct Line {
    address: Option<Address>,
    namespace: String,
    everywhere: bool,
    pod: Option<String>,
}

impl Line {
    /// The shell hands it over after `--`.
    fn read() -> Self {
        let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
        let matches = Options::command().ignore_errors(true).try_get_matches_from(words);
        matches.map_or_else(|_| Self::of(&ArgMatches::default()), |matches| Self::of(&matches))
    }

    fn of(matches: &ArgMatches) -> Self {
        let sub = matches.subcommand().map(|(_, sub)| sub);
        let text = |name: &str| {
            let own = sub.and_then(|sub| sub.try_get_one::<String>(name).ok().flatten());
            own.or_else(|| matches.try_get_one::<String>(name).ok().flatten()).cloned()
        };
        let named = || sub?.try_get_many::<String>("names").ok()??.next().cloned();
        let place = |name: &str| match sub?.try_get_one::<Place>(name).ok()?? {
            Place::Pod(pod, _) => Some(pod.clone()),
            Place::Here(_) => None,
        };
        let pod = text("pod").or_else(named).or_else(|| place("from")).or_else(|| place("to"));
        let socket = |name: &str| {
            let own = sub.and_then(|sub| sub.try_get_one::<Address>(name).ok().flatten());
            own.or_else(|| matches.try_get_one::<Address>(name).ok().flatten()).cloned()
        };
        let everywhere =
            sub.and_then(|sub| sub.try_get_one::<bool>("all_namespaces").ok().flatten());
        Self {
            address: Address::settled(socket("address").or_else(|| socket("socket"))).ok(),
            namespace: text("namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            everywhere: everywhere.copied().unwrap_or(false),
            pod: pod.filter(|pod| !pod.is_empty()),
        }
    }

    fn pods(&self) -> Vec<Pod> {
        self.ask(async |address| pods::list(address).await).unwrap_or_default()
    }

    fn ask<T>(&self, what: impl AsyncFnOnce(&Address) -> Result<T, Failure>) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let address = self.address.as_ref()?;
        let asked = async { tokio::time::timeout(PATIENCE, what(address)).await.ok() };
        runtime.block_on(asked)?.ok()
    }
}
