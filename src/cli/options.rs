//! The command line. Every command has an example in its help.

mod elsewhere;
mod pods;
mod sessions;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;

use super::client::Address;
use super::complete;
use super::top::Sort;
pub(super) use elsewhere::hinted;
pub(super) use pods::*;
pub(super) use sessions::*;

/// Above the options that every command has.
const GLOBAL: &str = "Options of every command";

/// The namespace of a pod that names none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Pods and images on a machine that runs haled.
#[derive(Debug, Parser)]
#[command(
    name = "halectl",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Exit codes: 0; 1 a failure; 2 a command line that isn't understood; 3 a bad \
                  answer of wait or health; exec's and attach's own, 126 and 127 as a shell's.\n\
                  NO_COLOR=1 leaves out colours; on anything but a terminal there are none."
)]
pub(super) struct Options {
    /// haled's socket: unix:///PATH, or a path. Not given: $HALED_ADDRESS, else
    /// unix:///run/haled/haled.sock.
    #[arg(long, global = true, value_name = "PATH", help_heading = GLOBAL)]
    pub(super) socket: Option<Address>,
    /// The same, before the command.
    #[arg(long, hide = true, value_name = "PATH")]
    pub(super) address: Option<Address>,
    /// The pods' namespace; "default" where it isn't given.
    #[arg(long, short, global = true, help_heading = GLOBAL,
        add = ArgValueCompleter::new(complete::namespaces))]
    pub(super) namespace: Option<String>,
    /// Give up when the command has taken this long; what haled was asked for goes on.
    #[arg(long, global = true, value_name = "TIME", help_heading = GLOBAL)]
    pub(super) request_timeout: Option<Span>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the pods of a manifest run.
    #[command(after_help = "Examples:\n  halectl apply -f pod.yaml\n  \
        halectl apply -f pods/ --dry-run\n  kubectl get pod web -o yaml | halectl apply -f -")]
    Apply(ApplyArgs),
    /// List pods.
    #[command(after_help = "Examples:\n  halectl get pods -A -o wide\n  \
        halectl get pods -l app=web,tier!=back -w\n  halectl get pod web -o yaml\n  \
        halectl get pod web -o jsonpath='{.status.podIP}'")]
    Get(GetArgs),
    /// Show pods in full: containers, health, probes, events.
    #[command(
        after_help = "Examples:\n  halectl describe pod web\n  halectl describe pods -l app=web"
    )]
    Describe(DescribeArgs),
    /// Show every probe of every container; 3 where one fails or hasn't passed yet.
    #[command(after_help = "Examples:\n  halectl health\n  halectl health web && echo well")]
    Health(HealthArgs),
    /// Wait until pods are as wanted: 0 they are, 1 the time is up, 3 they can't be any more.
    #[command(
        after_help = "Examples:\n  halectl wait pod web --for=condition=Ready --timeout=60s\n  \
        halectl wait pods -l job=copy --for=phase=Succeeded\n  \
        halectl wait pod web --for=jsonpath='{.status.podIP}'=10.88.0.7\n  \
        halectl wait pod web --for=delete"
    )]
    Wait(WaitArgs),
    /// Write a manifest's own probes into annotations that haled heals by, for kubectl apply.
    #[command(after_help = "Example:\n  halectl annotate -f deploy.yaml | kubectl apply -f -")]
    Annotate(AnnotateArgs),
    /// Print containers' logs.
    #[command(
        after_help = "Examples:\n  halectl logs -f web\n  halectl logs web -c app --previous\n  \
        halectl logs -f -l app=web --all-containers\n  halectl logs web --since=10m --timestamps"
    )]
    Logs(LogsArgs),
    /// Run a command in a container.
    #[command(after_help = "Examples:\n  halectl exec -it web -- sh\n  \
        halectl exec web -c app -- ls -l /\n  halectl exec -i web -- tar xf - < files.tar")]
    Exec(ExecArgs),
    /// Join the streams of a container's own process.
    #[command(after_help = "Examples:\n  halectl attach web\n  halectl attach -it web -c shell")]
    Attach(AttachArgs),
    /// Lead ports of this machine into a pod.
    #[command(after_help = "Examples:\n  halectl port-forward web 8080:80\n  \
        halectl port-forward web :http 5432\n  \
        halectl port-forward --address 0.0.0.0 web 8080:80")]
    PortForward(PortForwardArgs),
    /// Copy files between here and a container, by the tar in its image.
    #[command(after_help = "Examples:\n  halectl cp web:/var/log/app.log .\n  \
        halectl cp ./conf web:/etc/app -c app\n  halectl cp kube-system/dns:/etc/hosts hosts")]
    Cp(CopyArgs),
    /// Stop and remove pods; ends when they are gone.
    #[command(after_help = "Examples:\n  halectl delete pod web\n  halectl delete -f pod.yaml\n  \
        halectl delete pods -l app=web --now\n  halectl delete pod web --force\n  \
        halectl delete pods --all --wait=false")]
    Delete(DeleteArgs),
    /// Show what happened to pods.
    #[command(after_help = "Examples:\n  halectl events web\n  halectl events -w -A\n  \
        halectl events -l app=web --time clock\n  halectl events --types Warning -o json")]
    Events(EventsArgs),
    /// Watch pods, what they use and what their probes give; or print that once.
    #[command(after_help = "Examples:\n  halectl top -A\n  halectl top pods --sort-by memory\n  \
        halectl top pod web --containers")]
    Top(TopArgs),
    /// List, pull, import and remove images.
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:\n  halectl image pull docker.io/library/nginx:1\n  \
            skopeo copy docker://nginx:1 docker-archive:/dev/stdout | halectl image import -"
    )]
    Image(ImageCommand),
    /// List images: the same as image ls.
    #[command(after_help = "Example:\n  halectl images")]
    Images(ListArgs),
    /// Say which fields of a manifest haled takes: their kind, default, range, and what they do.
    #[command(after_help = "Examples:\n  halectl explain probe\n  \
        halectl explain pod.spec.volumes.emptyDir\n  halectl explain pod --recursive")]
    Explain(ExplainArgs),
    /// Print where the socket is taken from, and the settings that haled runs with.
    #[command(
        after_help = "Examples:\n  halectl config\n  halectl config > /etc/haled/config.toml"
    )]
    Config,
    /// Print the versions of halectl, of haled, and of what it runs containers with.
    #[command(after_help = "Examples:\n  halectl version\n  halectl version -o json")]
    Version(VersionArgs),
    /// Print what makes a shell complete commands, and the names of pods and containers.
    #[command(after_help = "Examples:\n  source <(halectl completion bash)\n  \
        halectl completion zsh > /usr/share/zsh/site-functions/_halectl\n  \
        halectl completion fish > ~/.config/fish/completions/halectl.fish")]
    Completion(CompletionArgs),
    /// Write the manual's pages into a directory.
    #[command(hide = true)]
    Man {
        /// It must be there.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Print a table of these, once. Not given, and on a terminal: the screen.
    pub(super) what: Option<TopKind>,
    /// Only these pods: name, namespace/name, uid, or the beginning of an id.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::pods))]
    pub(super) names: Vec<String>,
    #[command(flatten)]
    pub(super) among: Among,
    /// A table of containers.
    #[arg(long)]
    pub(super) containers: bool,
    /// The order.
    #[arg(long, default_value = "name")]
    pub(super) sort_by: Sort,
    /// The table without its first line.
    #[arg(long)]
    pub(super) no_headers: bool,
    /// A list of objects, once.
    #[arg(long, short)]
    pub(super) output: Option<ObjectFormat>,
}

/// What `top` prints a table of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TopKind {
    #[value(aliases = ["pod", "po"])]
    Pods,
    #[value(aliases = ["container"])]
    Containers,
}

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Only halectl's own; haled isn't asked.
    #[arg(long)]
    pub(super) client: bool,
    /// As an object.
    #[arg(long, short)]
    pub(super) output: Option<ObjectFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ObjectFormat {
    Json,
    Yaml,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// pod, probe, configmap, secret, or the path of a field: pod.spec.containers.image. Not
    /// given: what there is.
    #[arg(add = ArgValueCompleter::new(complete::fields))]
    pub(super) path: Option<String>,
    /// Everything below it, too.
    #[arg(long, short = 'R')]
    pub(super) recursive: bool,
}

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell that is to complete.
    #[arg(value_name = "SHELL")]
    pub(super) shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only these: a repository, with or without a tag, or an id.
    #[arg(value_name = "IMAGE")]
    pub(super) images: Vec<String>,
    /// The table without its first line.
    #[arg(long)]
    pub(super) no_headers: bool,
    /// Only the ids.
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Not as a table, or as a wide one.
    #[arg(long, short, conflicts_with = "quiet")]
    pub(super) output: Option<ListFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    /// Whole ids and digests, and all that uses an image.
    Wide,
    /// A list of objects.
    Json,
    /// The same as YAML.
    Yaml,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The reference to give it: needed for a root file system.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// No progress, also on a terminal.
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// An archive, a directory, or "-" for an archive on standard input.
    pub(super) source: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// As docker has it: [REGISTRY/]REPOSITORY[:TAG][@DIGEST].
    #[arg(value_name = "IMAGE")]
    pub(super) reference: String,
    /// In place of all files. Others on this machine can read it in the list of processes.
    #[arg(long, value_name = "USER:PASSWORD")]
    pub(super) creds: Option<String>,
    /// Take credentials from this file alone.
    #[arg(long, value_name = "FILE", conflicts_with = "creds")]
    pub(super) authfile: Option<PathBuf>,
    /// No progress on a terminal either.
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The images, by reference or id.
    #[arg(required = true, value_name = "IMAGE")]
    pub(super) images: Vec<String>,
    /// The archive's file; "-", or nothing, is standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// No progress on a terminal either.
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The images, by reference or id: a tag alone goes, and with the last the image.
    #[arg(required = true, value_name = "IMAGE")]
    pub(super) images: Vec<String>,
    /// Also what containers use; they go on with it.
    #[arg(long, short)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Those with a tag too.
    #[arg(long, short)]
    pub(super) all: bool,
    /// Say nothing.
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The images, by reference or id.
    #[arg(required = true, value_name = "IMAGE")]
    pub(super) images: Vec<String>,
    /// How to print it.
    #[arg(long, short, default_value = "json")]
    pub(super) output: ObjectFormat,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List the images on this machine, and what uses them.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  halectl image ls\n  halectl image ls -q\n  \
            halectl image ls -o json | jq '.[] | select(.usedBy == [])'"
    )]
    Ls(ListArgs),
    /// Pull an image from its registry.
    ///
    /// Credentials are taken from what `docker login` and `podman login` have written, or from the
    /// credential helpers named there: $REGISTRY_AUTH_FILE,
    /// $XDG_RUNTIME_DIR/containers/auth.json, $DOCKER_CONFIG/config.json or
    /// ~/.docker/config.json, the first that knows the registry.
    #[command(after_help = "Examples:\n  halectl image pull busybox:1.36\n  \
        halectl image pull --authfile auth.json registry.example/team/app:v1")]
    Pull(PullArgs),
    /// Take an image from an archive or a directory.
    ///
    /// An archive is an OCI layout, a docker-archive or a root file system, as tar, plain or
    /// compressed. A directory, an OCI layout or a root file system, is sent as a tar.
    #[command(after_help = "Examples:\n  halectl image import busybox.tar\n  \
        halectl image import --name my:1 ./rootfs\n  \
        skopeo copy docker://nginx:1 docker-archive:/dev/stdout | halectl image import -")]
    Import(ImportArgs),
    /// Write images into one archive, an OCI layout that docker and podman load too.
    #[command(after_help = "Examples:\n  halectl image export -o busybox.tar busybox\n  \
        halectl image export app:v1 app:v2 | ssh other halectl image import -")]
    Export(ExportArgs),
    /// Remove images, by reference or id.
    #[command(after_help = "Examples:\n  halectl image rm busybox:1.36\n  \
        halectl image rm -f $(halectl image ls -q)")]
    Rm(RemoveArgs),
    /// Remove the images that nothing uses, and say what was freed.
    #[command(after_help = "Examples:\n  halectl image prune\n  halectl image prune --all")]
    Prune(PruneArgs),
    /// Show an image in full: configuration, layers, history, what uses it.
    #[command(after_help = "Examples:\n  halectl image inspect busybox\n  \
        halectl image inspect -o yaml busybox")]
    Inspect(InspectArgs),
}
