//! Completion in real shells, in a real terminal, against the stand-in for haled.

use std::path::Path;

use super::server::Server;
use super::terminal::Terminal;

/// Where halectl is.
fn programs() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_halectl"));
    format!("{}:/usr/bin:/bin", program.parent().unwrap().display())
}

/// A shell that has loaded its script.
fn shell(server: &Server, words: &[&str], load: &str) -> Terminal {
    let variables = [
        format!("PATH={}", programs()),
        format!("HALED_ADDRESS={}", server.socket().display()),
        format!("HOME={}", server.socket().parent().unwrap().display()),
        "PS1=ready> ".to_owned(),
        "LC_ALL=C.UTF-8".to_owned(),
        "TERM=xterm".to_owned(),
    ];
    let mut all = vec!["env", "-i"];
    all.extend(variables.iter().map(String::as_str));
    all.extend(words);
    let mut terminal = Terminal::run(&all, None);
    // Split, so that what is typed isn't taken for what is answered.
    terminal.keys(&format!("{load}; echo load''ed\r"));
    terminal.until("loaded");
    terminal
}

const CASES: [(&str, &str); 7] = [
    ("halectl explain pod.s", "halectl explain pod.spec"),
    ("halectl descr", "halectl describe"),
    ("halectl get pods we", "halectl get pods web"),
    ("halectl logs other/d", "halectl logs other/db"),
    ("halectl -n other exec d", "halectl -n other exec db"),
    ("halectl exec web -c si", "halectl exec web -c side"),
    ("halectl get pods -n oth", "halectl get pods -n other"),
];

/// Types each line and Tab, and has the shell itself say what has become of it.
fn completes(mut terminal: Terminal) {
    for (typed, expected) in CASES {
        // To the line's beginning, and to its end. Between its words a shell may put several
        // spaces; echo puts one.
        terminal.keys(&format!("{typed}\t\u{1}echo = \u{5} =\r"));
        terminal.until(&format!("= {expected} ="));
    }
}

#[test]
fn bash_completes_commands_and_names() {
    let server = Server::start();
    let words = ["bash", "--norc", "--noprofile", "-i"];
    let load = "bind 'set enable-bracketed-paste off'; source <(halectl completion bash)";
    completes(shell(&server, &words, load));
}

#[test]
fn zsh_completes_commands_and_names() {
    let server = Server::start();
    let load = "autoload -U compinit && compinit -u && source <(halectl completion zsh)";
    completes(shell(&server, &["zsh", "-f", "-i"], load));
}

#[test]
fn fish_completes_commands_and_names() {
    let server = Server::start();
    completes(shell(&server, &["fish", "--no-config", "-i"], "halectl completion fish | source"));
}
