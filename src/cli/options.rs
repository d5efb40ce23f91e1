//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::client::Address;

/// The namespace of a pod that names none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Pods and images on a machine that runs haled.
#[derive(Debug, Parser)]
#[command(name = "halectl", version, max_term_width = 100)]
pub(super) struct Options {
    /// haled's socket: unix:///PATH, or a path.
    #[arg(long, global = true, env = "HALED_ADDRESS", default_value = Address::DEFAULT)]
    pub(super) address: Address,
    /// The pods' namespace; "default" where it isn't given.
    #[arg(long, short, global = true)]
    pub(super) namespace: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the pods of a manifest run.
    Apply(ApplyArgs),
    /// List pods.
    Get(GetArgs),
    /// Show a pod in full: containers, health, probes, events.
    Describe(DescribeArgs),
    /// Show every probe of every container; 3 where one fails or hasn't passed yet.
    Health(HealthArgs),
    /// Wait until a pod is as wanted: 0 it is, 1 the time is up, 3 it can't be any more.
    Wait(WaitArgs),
    /// Write a manifest's own probes into annotations that haled heals by, for kubectl apply.
    Annotate(ApplyArgs),
    /// Print a container's log.
    Logs(LogsArgs),
    /// Run a command in a container, without a terminal or standard input.
    Exec(ExecArgs),
    /// Stop and remove pods; ends when they are gone.
    Delete(DeleteArgs),
    /// Show what happened to pods.
    Events(EventsArgs),
    /// List, pull, import and remove images.
    #[command(subcommand, visible_alias = "images")]
    Image(ImageCommand),
    /// Print the versions of halectl and of haled.
    Version,
}

/// What `get`, `describe` and `delete` are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    #[value(name = "pods", aliases = ["pod", "po"])]
    Pods,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// A file of YAML or JSON documents; "-" is standard input. May be given again.
    #[arg(long, short, required = true, value_name = "FILE")]
    pub(super) filename: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// What to list: pods.
    #[arg(hide_possible_values = true, value_name = "pods")]
    pub(super) kind: Kind,
    /// Only this pod.
    pub(super) name: Option<String>,
    /// The pods of every namespace.
    #[arg(long, short = 'A', conflicts_with = "name")]
    pub(super) all_namespaces: bool,
    /// How to print them.
    #[arg(long, short)]
    pub(super) output: Option<Format>,
    /// Print them again whenever something has changed.
    #[arg(long, short)]
    pub(super) watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// More columns.
    Wide,
    /// A Kubernetes v1 Pod, or a List of them.
    Json,
    /// The same as YAML.
    Yaml,
    /// pod/NAME, a line each.
    Name,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// What to show: a pod.
    #[arg(hide_possible_values = true, value_name = "pod")]
    pub(super) kind: Kind,
    /// The pod's name.
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Only this pod's.
    pub(super) pod: Option<String>,
    /// Those of every namespace.
    #[arg(long, short = 'A', conflicts_with = "pod")]
    pub(super) all_namespaces: bool,
}

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// What to wait for: a pod.
    #[arg(hide_possible_values = true, value_name = "pod")]
    pub(super) kind: Kind,
    /// The pod's name.
    pub(super) name: String,
    /// condition=Ready (or Initialized, ContainersReady; =False after it for the contrary),
    /// phase=PHASE, or delete.
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready")]
    pub(super) wanted: super::wait::Wanted,
    /// Seconds to wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) timeout: u32,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    pub(super) pod: String,
    /// The container; not needed where there is only one.
    #[arg(long, short)]
    pub(super) container: Option<String>,
    /// Go on with new lines as they come.
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Only the last lines.
    #[arg(long, value_name = "LINES")]
    pub(super) tail: Option<u32>,
    /// The log of the attempt before this one.
    #[arg(long, short, conflicts_with = "follow")]
    pub(super) previous: bool,
    /// Each line with its time.
    #[arg(long)]
    pub(super) timestamps: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    pub(super) pod: String,
    /// The container; the first where it isn't given.
    #[arg(long, short)]
    pub(super) container: Option<String>,
    /// Kill the command after this many seconds; 0 never does.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(super) timeout: u32,
    /// The command and its arguments, after "--".
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// What to delete: pods.
    #[arg(
        hide_possible_values = true,
        value_name = "pod",
        required_unless_present = "filename",
        conflicts_with = "filename"
    )]
    pub(super) kind: Option<Kind>,
    /// The pods' names.
    #[arg(value_name = "NAME", required_unless_present = "filename")]
    pub(super) names: Vec<String>,
    /// The pods of this manifest; "-" is standard input. May be given again.
    #[arg(long, short, value_name = "FILE")]
    pub(super) filename: Vec<PathBuf>,
    /// In place of the pods' own terminationGracePeriodSeconds.
    #[arg(long, value_name = "SECONDS")]
    pub(super) grace_period: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Only this pod's.
    pub(super) pod: Option<String>,
    /// Go on with new events as they come.
    #[arg(long, short)]
    pub(super) watch: bool,
    /// Those of every namespace.
    #[arg(long, short = 'A', conflicts_with = "pod")]
    pub(super) all_namespaces: bool,
    /// How to print times: else age, and with --watch clock.
    #[arg(long)]
    pub(super) time: Option<TimeFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TimeFormat {
    /// How long ago.
    Age,
    /// UTC, to the millisecond.
    Clock,
    /// Seconds since the first event printed.
    Offset,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List the images on this machine.
    #[command(visible_alias = "list")]
    Ls,
    /// Pull an image from its registry.
    Pull { reference: String },
    /// Take an image from an archive or a directory.
    ///
    /// An archive is an OCI layout, a docker-archive or a root file system, as tar, plain or
    /// compressed. A directory, an OCI layout or a root file system, is sent as a tar.
    Import {
        /// The reference to give it: needed for a root file system.
        #[arg(long)]
        name: Option<String>,
        /// An archive, a directory, or "-" for an archive on standard input.
        source: PathBuf,
    },
    /// Remove images, by reference or id.
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
}
