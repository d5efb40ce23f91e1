//! The daemon: settle what it is to do, put it together, serve, and leave pods running.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use haled::config::Config;
use haled::{daemon, doctor};

/// A container runtime for Kubernetes nodes (CRI v1) that heals the pods it runs.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  haled --config /etc/haled/config.toml")]
struct Arguments {
    /// Configuration file; by default /etc/haled/config.toml, where there is one
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Images, records and logs: kept over a reboot
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Sockets, namespaces and bundles: not kept over a reboot
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The socket that kubelets, crictl and halectl connect to
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a tracing filter
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Log JSON lines in place of text
    #[arg(long)]
    log_json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show or check configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say what this machine offers to pods and what it lacks, each with its remedy
    Doctor(doctor::Options),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the default configuration, every key explained
    Default,
    /// Say what is wrong with a configuration file and the config.d beside it: exit code 1, or "ok"
    Check {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Config(ConfigCommand::Default)) => {
            print!("{}", Config::default_text());
            Ok(())
        }
        Some(Command::Config(ConfigCommand::Check { file })) => Config::find(Some(file))
            .map(|_| println!("{}: ok", file.display()))
            .map_err(|error| error.to_string()),
        Some(Command::Doctor(options)) => return doctor::run(options, settle(&arguments)),
        None => daemon::run(move || settle(&arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("haled: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration file, and over it what the command line says.
fn settle(arguments: &Arguments) -> Result<Config, String> {
    let text = |error: haled::config::Error| error.to_string();
    let mut config = Config::find(arguments.config.as_deref()).map_err(text)?;
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(root) = &arguments.root {
        config.root = absolute(root)?;
    }
    if let Some(state) = &arguments.state {
        config.state = absolute(state)?;
    }
    if let Some(listen) = &arguments.listen {
        config.listen = absolute(listen)?;
    }
    if let Some(level) = &arguments.log_level {
        config.log.level.clone_from(level);
    }
    config.log.json |= arguments.log_json;
    config.check().map_err(text)?;
    Ok(config)
}
