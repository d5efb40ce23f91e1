//! halectl: pods, health, logs and images from the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    haled::cli::run()
}
