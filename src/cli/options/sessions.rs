//! Arguments of the commands about containers and what goes on in them.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::{Among, Span};
use crate::cli::complete;
use crate::cli::copy::Place;
use crate::cli::port_forward::{Listen, Ports};
use crate::cli::session::detach::Keys;

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// The pods: name, namespace/name, uid, or the beginning of an id.
    #[arg(
        value_name = "POD",
        required_unless_present = "selector",
        add = ArgValueCompleter::new(complete::pods)
    )]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) among: Among,
    /// The container; not needed where there is only one.
    #[arg(long, short, add = ArgValueCompleter::new(complete::containers))]
    pub(in crate::cli) container: Option<String>,
    /// Every container, init containers too.
    #[arg(long, conflicts_with = "container")]
    pub(in crate::cli) all_containers: bool,
    /// Go on with new lines as they come, also those of the container started again.
    #[arg(long, short)]
    pub(in crate::cli) follow: bool,
    /// Only the last lines of each; -1 is all. With -l else 10.
    #[arg(long, value_name = "LINES", allow_negative_numbers = true, value_parser = lines)]
    pub(in crate::cli) tail: Option<i64>,
    /// Only lines not older than this: 10m.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<Span>,
    /// Only lines since this moment: 2026-01-02T03:04:05Z.
    #[arg(long, value_name = "RFC3339", conflicts_with = "since", value_parser = moment)]
    pub(in crate::cli) since_time: Option<jiff::Timestamp>,
    /// The log of the attempt before this one.
    #[arg(long, short, conflicts_with = "follow")]
    pub(in crate::cli) previous: bool,
    /// At most so many bytes of each, without prefixes.
    #[arg(long, value_name = "BYTES")]
    pub(in crate::cli) limit_bytes: Option<u64>,
    /// Each line with its time.
    #[arg(long, short)]
    pub(in crate::cli) timestamps: bool,
    /// Each line with its pod and container, as by itself with several.
    #[arg(long)]
    pub(in crate::cli) prefix: bool,
}

fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| "a moment is wanted: 2026-01-02T03:04:05Z".to_owned())
}

fn lines(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "a number of lines is wanted, or -1 for all".to_owned())
}

/// A container of a pod.
#[derive(Debug, Args)]
pub(in crate::cli) struct Target {
    /// The pod: name, namespace/name, uid, or the beginning of an id.
    #[arg(add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) pod: String,
    /// The container; the first where it isn't given.
    #[arg(long, short, add = ArgValueCompleter::new(complete::containers))]
    pub(in crate::cli) container: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExecArgs {
    #[command(flatten)]
    pub(in crate::cli) target: Target,
    /// Pass on standard input.
    #[arg(long, short = 'i')]
    pub(in crate::cli) stdin: bool,
    /// Give the command a terminal.
    #[arg(long, short = 't')]
    pub(in crate::cli) tty: bool,
    /// Kill the command after this many seconds; its output comes at the end, at most 7 MiB each.
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["stdin", "tty"])]
    pub(in crate::cli) timeout: Option<u32>,
    /// The command and its arguments. After "--" it may begin with a dash.
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AttachArgs {
    #[command(flatten)]
    pub(in crate::cli) target: Target,
    /// Pass on standard input; the container must have one (stdin: true).
    #[arg(long, short = 'i')]
    pub(in crate::cli) stdin: bool,
    /// Its terminal; the container must have one (tty: true).
    #[arg(long, short = 't')]
    pub(in crate::cli) tty: bool,
    /// With -it, the keys that leave and let the container run on; "" is none.
    #[arg(long, value_name = "KEYS", default_value = Keys::DEFAULT)]
    pub(in crate::cli) detach_keys: Keys,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PortForwardArgs {
    /// The pod: name, namespace/name, uid, or the beginning of an id.
    #[arg(add = ArgValueCompleter::new(complete::pods))]
    pub(in crate::cli) pod: String,
    /// LOCAL:REMOTE, REMOTE for the same number here, :REMOTE for any that is free. REMOTE may
    /// be the name of a port in the pod's manifest.
    #[arg(required = true, value_name = "PORTS")]
    pub(in crate::cli) ports: Vec<Ports>,
    /// The addresses to listen on, by commas.
    #[arg(
        long = "address",
        id = "listen_address",
        value_name = "IP",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    pub(in crate::cli) addresses: Vec<Listen>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// A path here, or [NAMESPACE/]POD:PATH.
    #[arg(value_name = "FROM", add = ArgValueCompleter::new(complete::places))]
    pub(in crate::cli) from: Place,
    /// The other of the two. A directory that is there gets it under its own name.
    #[arg(value_name = "TO", add = ArgValueCompleter::new(complete::places))]
    pub(in crate::cli) to: Place,
    /// The container; the first where it isn't given.
    #[arg(long, short, add = ArgValueCompleter::new(complete::containers))]
    pub(in crate::cli) container: Option<String>,
}
