//! Arguments of the commands about pods.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;

use super::ObjectFormat;
use crate::cli::complete;
use crate::cli::path::{CustomColumns, Path, Template};
use crate::cli::selector::{FieldSelector, Selector};
use crate::cli::wait::{Patience, Wanted};

/// What a command is about: `pods`, or `pod/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Kind {
    pub(in crate::cli) name: Option<String>,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        if !["pods", "pod", "po"].contains(&kind) {
            return Err(match kind {
                "image" | "images" => "images are listed by halectl image ls".to_owned(),
                "event" | "events" | "ev" => "events are listed by halectl events".to_owned(),
                _ => format!("pods are all there is here: pods, or pod {}", name.unwrap_or(kind)),
            });
        }
        if name == Some("") {
            return Err("the name is missing".to_owned());
        }
        Ok(Self { name: name.map(str::to_owned) })
    }
}

impl Kind {
    /// `pod/a b` means the same as `pod a b`.
    pub(in crate::cli) fn with(self, names: Vec<String>) -> Vec<String> {
        self.name.into_iter().chain(names).collect()
    }
}

/// Which pods, where none is named.
#[derive(Debug, Args)]
pub(in crate::cli) struct Among {
    /// Those with these labels: a=b, a!=b, 'a in (b,c)', 'a notin (b,c)', a, '!a'; by commas.
    #[arg(long, short = 'l', value_name = "LABELS", conflicts_with = "names")]
    pub(in crate::cli) selector: Option<Selector>,
    /// Those of every namespace.
    #[arg(long, short = 'A', conflicts_with = "names")]
    pub(in crate::cli) all_namespaces: bool,
}

/// A time: `90`, which is seconds, `90s`, `5m`, `1h30m`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Span(pub(in crate::cli) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a time is wanted: 90s, 5m, 1h30m".to_owned();
        if let Ok(seconds) = text.parse() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let (mut sum, mut rest) = (Duration::ZERO, text);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit: u64 = match &rest[..end] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            let millis = number.checked_mul(unit).ok_or_else(wrong)?;
            sum = sum.checked_add(Duration::from_millis(millis)).ok_or_else(wrong)?;
            rest = &rest[end..];
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self(sum)) }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AnnotateArgs {
    /// A file of YAML or JSON documents; "-" is standard input. May be given again.
    #[arg(long, short, required = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) filename: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyArgs {
    /// A file of YAML or JSON documents, a directory of such files, or "-" for standard input.
    /// May be given again.
    #[arg(long, short, required = true, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) filename: Vec<PathBuf>,
    /// Also the files of the directories below a directory.
    #[arg(long, short = 'R')]
    pub(in crate::cli) recursive: bool,
    /// Have haled look at everything and do nothing; it prints what would be done.
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true,
        default_missing_value = "server")]
    pub(in crate::cli) dry_run: Option<DryRun>,
}

/// kubectl's words. halectl knows nothing of pods that haled doesn't, so both are haled's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DryRun {
    None,
    Client,
    Server,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    /// What to list: pods.
    #[arg(value_name = "pods", add = ArgValueCompleter::new(complete::kinds))]
    pub(in crate::cli) kind: Kind,
    /// Only these pods: name, namespace/name, uid, or the beginning of an id.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) among: Among,
    /// Those whose fields are so: status.phase=Running, metadata.name!=web; by commas.
    #[arg(long, value_name = "FIELDS", conflicts_with = "names")]
    pub(in crate::cli) field_selector: Option<FieldSelector>,
    /// How to print them: wide; json or yaml, a Kubernetes v1 Pod or a List; name, pod/NAME a line
    /// each; jsonpath=TEMPLATE; custom-columns=HEADING:.PATH,...
    #[arg(long, short, value_name = "FORMAT", add = ArgValueCompleter::new(complete::formats))]
    pub(in crate::cli) output: Option<Format>,
    /// The order: by what is in this field, {.metadata.creationTimestamp} for one.
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) sort_by: Option<Path>,
    /// The table without its first line.
    #[arg(long)]
    pub(in crate::cli) no_headers: bool,
    /// A column with their labels.
    #[arg(long)]
    pub(in crate::cli) show_labels: bool,
    /// A pod that isn't there is no failure, and nothing is said of it.
    #[arg(long)]
    pub(in crate::cli) ignore_not_found: bool,
    /// Go on, with each pod anew whenever what is printed of it has changed.
    #[arg(long, short)]
    pub(in crate::cli) watch: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Format {
    /// More columns.
    Wide,
    /// A Kubernetes v1 Pod, or a List of them.
    Json,
    /// The same as YAML.
    Yaml,
    /// `pod/NAME`, a line each.
    Name,
    JsonPath(Template),
    CustomColumns(CustomColumns),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').map_or((text, None), |(format, rest)| (format, Some(rest))) {
            ("wide", None) => Ok(Self::Wide),
            ("json", None) => Ok(Self::Json),
            ("yaml", None) => Ok(Self::Yaml),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", Some(template)) => template.parse().map(Self::JsonPath),
            ("custom-columns", Some(columns)) => columns.parse().map(Self::CustomColumns),
            _ => Err("wide, json, yaml, name, jsonpath=TEMPLATE and \
                      custom-columns=HEADING:.PATH,... are allowed"
                .to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DescribeArgs {
    /// What to show: pods.
    #[arg(value_name = "pods", add = ArgValueCompleter::new(complete::kinds))]
    pub(in crate::cli) kind: Kind,
    /// Only these pods: name, namespace/name, uid, or the beginning of an id.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) among: Among,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HealthArgs {
    /// Only these pods'.
    #[arg(value_name = "POD", add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) among: Among,
    /// A list of objects, one a probe.
    #[arg(long, short)]
    pub(in crate::cli) output: Option<ObjectFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArgs {
    /// What to wait for: pods.
    #[arg(value_name = "pods", add = ArgValueCompleter::new(complete::kinds))]
    pub(in crate::cli) kind: Kind,
    /// The pods: name, namespace/name, uid, or the beginning of an id.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) among: Among,
    /// condition=Ready (or PodScheduled, Initialized, ContainersReady; =False after it for the
    /// contrary), phase=PHASE, jsonpath={.PATH}=VALUE, create, or delete.
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready",
        add = ArgValueCompleter::new(complete::wanted))]
    pub(in crate::cli) wanted: Wanted,
    /// Every pod of the namespace, or with -A of all of them.
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub(in crate::cli) all: bool,
    /// How long to wait for all of them; 0 looks once, less than 0 is a week.
    #[arg(long, value_name = "TIME", default_value = "30s", allow_hyphen_values = true)]
    pub(in crate::cli) timeout: Patience,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    /// What to delete: pods.
    #[arg(
        value_name = "pods",
        required_unless_present = "filename",
        conflicts_with = "filename",
        add = ArgValueCompleter::new(complete::kinds)
    )]
    pub(in crate::cli) kind: Option<Kind>,
    /// The pods: name, namespace/name, uid, or the beginning of an id.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) among: Among,
    /// Every pod of the namespace, or with -A of all of them.
    #[arg(long, conflicts_with_all = ["names", "selector", "filename"])]
    pub(in crate::cli) all: bool,
    /// The pods of this file, a directory of such files, or "-" for standard input.
    /// May be given again.
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::AnyPath,
        conflicts_with_all = ["names", "selector", "all_namespaces"])]
    pub(in crate::cli) filename: Vec<PathBuf>,
    /// Also the files of the directories below a directory.
    #[arg(long, short = 'R', requires = "filename", conflicts_with = "kind")]
    pub(in crate::cli) recursive: bool,
    /// In place of the pods' own terminationGracePeriodSeconds; of a pod that is being deleted
    /// already it may only make less.
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) grace_period: Option<u32>,
    /// The same as --grace-period 1.
    #[arg(long, conflicts_with = "grace_period")]
    pub(in crate::cli) now: bool,
    /// Without --grace-period the same as --grace-period 0: killed at once.
    #[arg(long, conflicts_with = "now")]
    pub(in crate::cli) force: bool,
    /// A pod that isn't there is as good as deleted.
    #[arg(long)]
    pub(in crate::cli) ignore_not_found: bool,
    /// Whether to wait until they are gone.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(in crate::cli) wait: bool,
    /// How long to wait for that; they go on being deleted. 0: as long as it takes.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) timeout: Option<Span>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Only these pods', also of pods that are gone.
    #[arg(value_name = "POD", add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) among: Among,
    /// Only this pod's: pod/NAME.
    #[arg(long = "for", value_name = "POD", conflicts_with_all = ["names", "selector"],
        add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) of: Option<String>,
    /// Only those of these types.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', ignore_case = true)]
    pub(in crate::cli) types: Vec<EventType>,
    /// Go on with new events as they come.
    #[arg(long, short)]
    pub(in crate::cli) watch: bool,
    /// How to print times: else age, and with --watch clock.
    #[arg(long)]
    pub(in crate::cli) time: Option<TimeFormat>,
    /// As Kubernetes v1 Events: a List of them, with --watch one after the other.
    #[arg(long, short, conflicts_with = "time")]
    pub(in crate::cli) output: Option<ObjectFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EventType {
    #[value(name = "Normal")]
    Normal,
    #[value(name = "Warning")]
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TimeFormat {
    /// How long ago.
    Age,
    /// UTC, to the millisecond.
    Clock,
    /// Seconds since the first event printed.
    Offset,
}
