//! halectl: a client of haled's socket, for people.
//!
//! It speaks haled v1 and the CRI, and knows nothing that the socket doesn't tell it: no room
//! but the generated protocol is used here. `options` is the command line, `client` the
//! connection; a file each for a family of commands; `status`, `age`, `table`, `describe` and
//! `json` are pure and turn what was answered into text.
//!
//! Answers go to stdout, everything else to stderr as `halectl: …`. Exit codes: 0, 1 for a
//! failure, 2 for a command line that isn't understood, 3 where `wait` or `health` have a bad
//! answer, and `exec`'s own.

mod age;
mod annotate;
mod archive;
mod client;
mod describe;
mod events;
mod exec;
mod health;
mod image;
mod json;
mod logs;
mod options;
mod output;
mod pods;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod version;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

use options::{Command, ImageCommand, Options};

/// Why a command ended otherwise than well.
#[derive(Debug)]
enum Failure {
    /// To be told.
    Message(String),
    /// Whoever read our output has had enough, which is no failure: `halectl logs | head`.
    ReaderGone,
}

/// What a command gives back: the process's exit code.
type Outcome = Result<ExitCode, Failure>;

/// Reads the command line, runs the command, tells what went wrong.
pub fn run() -> ExitCode {
    let options = Options::parse();
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
    }
}

async fn dispatch(options: Options) -> Outcome {
    let Options { address, namespace, command } = options;
    let named = namespace.as_deref();
    let namespace = named.unwrap_or(options::DEFAULT_NAMESPACE);
    match command {
        Command::Apply(args) => pods::apply(&address, named, args).await,
        Command::Get(args) => pods::get(&address, namespace, args).await,
        Command::Describe(args) => pods::describe(&address, namespace, args).await,
        Command::Health(args) => health::health(&address, namespace, args).await,
        Command::Wait(args) => wait::wait(&address, namespace, args).await,
        Command::Annotate(args) => annotate::annotate(args).await,
        Command::Delete(args) => pods::delete(&address, named, args).await,
        Command::Logs(args) => logs::logs(&address, namespace, args).await,
        Command::Exec(args) => exec::exec(&address, namespace, args).await,
        Command::Events(args) => events::events(&address, namespace, args).await,
        Command::Image(ImageCommand::Ls) => image::list(&address).await,
        Command::Image(ImageCommand::Pull { reference }) => image::pull(&address, reference).await,
        Command::Image(ImageCommand::Import { name, source }) => {
            image::import(&address, name, source).await
        }
        Command::Image(ImageCommand::Rm { images }) => image::remove(&address, images).await,
        Command::Version => version::version(&address).await,
    }
}
