//! halectl: a client of haled's socket, for people.
//!
//! It speaks haled v1 and the CRI, and knows nothing that the socket doesn't tell it: no room
//! but the generated protocol is used here, and the codec of SPDY frames, which is a protocol
//! as well. `options` is the command line, `client` the connection, `session` what the
//! streaming server's URLs lead to; a file each for a family of commands; `names`, `selector`,
//! `path`, `status`, `age`, `table` and `json` are pure.
//!
//! Answers go to stdout, everything else to stderr as `halectl: …`. Exit codes: 0, 1 for a
//! failure, 2 for a command line that isn't understood, 3 where `wait` or `health` have a bad
//! answer, and `exec`'s own, with 126 and 127 for what can't be run.

mod age;
mod annotate;
mod apply;
mod archive;
mod client;
mod complete;
mod copy;
mod credentials;
mod delete;
mod describe;
mod events;
mod exec;
mod explain;
mod get;
mod health;
mod image;
mod json;
mod logs;
mod manifest;
mod names;
mod options;
mod output;
mod path;
mod pods;
mod port_forward;
mod selector;
mod session;
mod shell;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod top;
mod version;
mod wait;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use client::Address;
use options::{Command, ImageCommand, Options};

/// Why a command ended otherwise than well.
#[derive(Debug)]
enum Failure {
    /// To be told.
    Message(String),
    /// A command line that says too little, or two things at once: why.
    Usage(String),
    /// Whoever read our output has had enough, which is no failure: `halectl logs | head`.
    ReaderGone,
}

/// What a command gives back: the process's exit code.
type Outcome = Result<ExitCode, Failure>;

/// Reads the command line, runs the command, tells what went wrong.
pub fn run() -> ExitCode {
    shell::complete();
    let line: Vec<_> = std::env::args_os().collect();
    let matches = match Options::command().try_get_matches_from(&line) {
        Ok(matches) => matches,
        Err(error) => return output::refuse(&options::hinted(error, &line)),
    };
    let options = match Options::from_arg_matches(&matches) {
        Ok(options) => options,
        Err(error) => return output::refuse(&error.format(&mut Options::command())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(options));
            // A thread that still reads stdin or a slow disk must not hold the process.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::Message(format!("cannot start: {error}"))),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Message(message)) => {
            output::complain(&message);
            ExitCode::FAILURE
        }
        Err(Failure::Usage(why)) => output::refuse(&misused(&matches, &why)),
    }
}

/// What is told as a mistake of the command line, as those that clap finds by itself.
fn misused(matches: &ArgMatches, why: &str) -> clap::Error {
    let mut command = Options::command();
    command.build();
    let name = matches.subcommand_name().unwrap_or_default();
    let command = command.find_subcommand_mut(name).expect("it was parsed");
    command.error(clap::error::ErrorKind::MissingRequiredArgument, why)
}

async fn dispatch(options: Options) -> Outcome {
    let Some(limit) = options.request_timeout else { return obey(options).await };
    tokio::time::timeout(limit.0, obey(options)).await.unwrap_or_else(|_| {
        let why = format!("not done within {:?} (--request-timeout)", limit.0);
        Err(Failure::Message(why))
    })
}

async fn obey(options: Options) -> Outcome {
    let Options { socket, address, namespace, command, .. } = options;
    let given = address.map(|address| address.said_by("by --address")).or(socket);
    let address = Address::settled(given).map_err(Failure::Message)?;
    let named = namespace.as_deref();
    let namespace = named.unwrap_or(options::DEFAULT_NAMESPACE);
    match command {
        Command::Apply(args) => apply::apply(&address, named, args).await,
        Command::Get(args) => get::get(&address, namespace, args).await,
        Command::Describe(args) => describe::command(&address, namespace, args).await,
        Command::Health(args) => health::health(&address, namespace, args).await,
        Command::Wait(args) => wait::wait(&address, namespace, args).await,
        Command::Annotate(args) => annotate::annotate(args).await,
        Command::Delete(args) => delete::delete(&address, named, args).await,
        Command::Logs(args) => logs::logs(&address, namespace, args).await,
        Command::Exec(args) => exec::exec(&address, namespace, args).await,
        Command::Attach(args) => exec::attach(&address, namespace, args).await,
        Command::PortForward(args) => port_forward::port_forward(&address, namespace, args).await,
        Command::Cp(args) => copy::copy(&address, namespace, args).await,
        Command::Events(args) => events::events(&address, namespace, args).await,
        Command::Top(args) => top::top(&address, namespace, args).await,
        Command::Images(args) | Command::Image(ImageCommand::Ls(args)) => {
            image::list(&address, args).await
        }
        Command::Image(ImageCommand::Pull(args)) => image::pull(&address, args).await,
        Command::Image(ImageCommand::Import(args)) => image::import(&address, args).await,
        Command::Image(ImageCommand::Export(args)) => image::export(&address, args).await,
        Command::Image(ImageCommand::Rm(args)) => image::remove(&address, args).await,
        Command::Image(ImageCommand::Prune(args)) => image::prune(&address, args).await,
        Command::Image(ImageCommand::Inspect(args)) => image::inspect(&address, args).await,
        Command::Explain(args) => explain::explain(&address, args).await,
        Command::Config => version::config(&address).await,
        Command::Version(args) => version::version(&address, args).await,
        Command::Completion(args) => shell::completion(args.shell),
        Command::Man { dir } => shell::man(&dir),
    }
}
