//! What users of kubectl, podman, docker, nerdctl and crictl type, and what it is here.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};

/// Commands, and what does the same here.
pub(super) const COMMANDS: [(&str, &str); 23] = [
    ("cat", "logs"),
    ("create", "apply"),
    ("history", "image inspect"),
    ("import", "image import"),
    ("info", "version"),
    ("inspect", "image inspect"),
    ("inspecti", "image inspect"),
    ("inspectp", "describe pods"),
    ("kill", "delete pods"),
    ("kube", "apply"),
    ("load", "image import"),
    ("play", "apply"),
    ("pods", "get pods"),
    ("ps", "get pods"),
    ("pull", "image pull"),
    ("replace", "apply"),
    ("rm", "delete pods"),
    ("rmi", "image rm"),
    ("rmp", "delete pods"),
    ("save", "image export"),
    ("stats", "top"),
    ("stop", "delete pods"),
    ("stopp", "delete pods"),
];

/// Commands that something else does here.
const OTHERWISE: [(&str, &str); 7] = [
    ("delete", "halectl image rm"),
    ("diff", "edit the manifest's file: halectl apply -f FILE says whether it was another"),
    ("edit", "edit the manifest's file, and halectl apply -f FILE"),
    ("patch", "edit the manifest's file, and halectl apply -f FILE"),
    ("remove", "halectl image rm, or halectl delete pods"),
    ("restart", "halectl top has a key for it, r; or halectl delete and apply the pod"),
    ("run", "write a manifest, and halectl apply -f FILE"),
];

/// Options of `exec` that the CRI has nothing for.
const OF_EXEC: [(&str, &str); 6] = [
    ("-e", "the command's own: halectl exec POD -- env NAME=VALUE COMMAND"),
    ("--env", "the command's own: halectl exec POD -- env NAME=VALUE COMMAND"),
    ("-u", "it runs as the container's user: halectl exec POD -- su USER -c COMMAND"),
    ("--user", "it runs as the container's user: halectl exec POD -- su USER -c COMMAND"),
    ("-w", "it begins where the container did: halectl exec POD -- sh -c 'cd DIR && COMMAND'"),
    (
        "--workdir",
        "it begins where the container did: halectl exec POD -- sh -c 'cd DIR && COMMAND'",
    ),
];

/// A mistake of this command line; what is something elsewhere is told by what it is here.
pub(in crate::cli) fn hinted(mut error: clap::Error, line: &[OsString]) -> clap::Error {
    let of = |table: &[(&str, &'static str)], typed: &str| {
        table.iter().find(|(elsewhere, _)| *elsewhere == typed).map(|(_, here)| *here)
    };
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(typed)) => Some(typed.clone()),
        _ => None,
    };
    if let Some(typed) = text(&error, ContextKind::InvalidSubcommand) {
        if let Some(here) = of(&COMMANDS, &typed) {
            let here = ContextValue::Strings(vec![here.to_owned()]);
            error.insert(ContextKind::SuggestedSubcommand, here);
        } else if let Some(words) = of(&OTHERWISE, &typed) {
            error.remove(ContextKind::SuggestedSubcommand);
            tip(&mut error, words);
        }
    }
    if let Some(typed) = text(&error, ContextKind::InvalidArg) {
        // Nobody who mistypes an option wants it as a word of its own, behind "--".
        error.remove(ContextKind::Suggested);
        let is_exec = line.iter().any(|word| word == "exec");
        if let Some(words) = of(&OF_EXEC, &typed).filter(|_| is_exec) {
            error.remove(ContextKind::SuggestedArg);
            tip(&mut error, words);
        }
    }
    error
}

fn tip(error: &mut clap::Error, words: &'static str) {
    let words = ContextValue::StyledStrs(vec![StyledStr::from(words)]);
    error.insert(ContextKind::Suggested, words);
}
