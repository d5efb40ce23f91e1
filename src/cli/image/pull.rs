//! `halectl image pull`: how far it is goes to a terminal, the id to standard output.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::client::{self, Address};
use crate::cli::credentials::{self, Sources};
use crate::cli::options::PullArgs;
use crate::cli::output::{line, print};
use crate::cli::{Failure, Outcome};
use crate::proto::haled::pull_part::Stage;
use crate::proto::haled::{PullImageProgress, PullImageRequest, PullPart};

pub(in crate::cli) async fn pull(address: &Address, args: PullArgs) -> Outcome {
    let PullArgs { reference, creds, authfile, quiet } = args;
    let credentials = credentials::find(&reference, &Sources { given: creds, authfile });
    let credentials = credentials.map_err(Failure::Message)?;
    let mut client = client::own_images(address).await?;
    let bar = bar(quiet || !std::io::stderr().is_terminal());
    bar.set_message(format!("asking the registry for {}", line(&reference)));
    let request = PullImageRequest { reference, credentials };
    let answers = client.pull(request).await;
    let mut answers = answers.inspect_err(|_| bar.finish_and_clear())?.into_inner();
    let mut id = String::new();
    let ended = loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                show(&bar, &answer);
                id = answer.id;
            }
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    bar.finish_and_clear();
    ended?;
    if id.is_empty() {
        return Err(Failure::Message("haled ended the pull without an answer: try again".into()));
    }
    print(format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// A bar of bytes, with their rate; or one that shows nothing.
pub(super) fn bar(hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    // Until there is something to count.
    let bar = ProgressBar::no_length().with_style(style("{spinner} {msg}"));
    // What came last is shown also when nothing comes any more, with the rate that is left.
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// From now on the bar shows bytes.
pub(super) fn counts(bar: &ProgressBar) {
    bar.set_style(style(
        "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}",
    ));
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("a template that is well-formed");
    style.progress_chars("=> ").tick_chars("-\\|/ ")
}

fn show(bar: &ProgressBar, answer: &PullImageProgress) {
    if answer.parts.is_empty() {
        return;
    }
    let (words, done, size) = told(&answer.parts, "");
    counts(bar);
    // Each of these may be the one that is drawn.
    bar.set_message(words);
    bar.set_length(size);
    bar.set_position(done);
}

/// How far it is, in words and in bytes of all. `before`: what is done when no part is known.
pub(super) fn told(parts: &[PullPart], before: &str) -> (String, u64, u64) {
    let done = parts.iter().map(|part| part.done.min(part.size)).sum();
    let size = parts.iter().map(|part| part.size).sum();
    let all = parts.len();
    let unpacked = parts.iter().filter(|part| part.stage() == Stage::Done).count();
    let words = if parts.is_empty() {
        before.to_owned()
    } else if done < size {
        format!("pulling {all} layers")
    } else {
        format!("unpacking layer {} of {all}", (unpacked + 1).min(all))
    };
    (words, done, size)
}
