//! The arrows between rooms go one way (the front page of the library says which).
//!
//! Reads the sources as text: every path through `crate::`, `haled::` or `super::` that leaves
//! a room must lead to a room it may use. Comments and strings don't count.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A room and those it may use, or the one module of them. `store`, `meter`, `sys` and `id` are
/// everyone's and not written down.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "cri",
        &[
            "container",
            "health",
            "image",
            "manifest",
            "network",
            "oci::model",
            "pod",
            "proto",
            "stats",
            "stream",
        ],
    ),
    ("status", &["cri", "proto"]),
    ("manifest", &["container", "health", "image", "network", "oci::model", "pod"]),
    ("pod", &["container", "health", "image", "monitor", "network", "nri", "oci", "stats"]),
    ("container", &["health", "image", "monitor", "oci"]),
    ("stream", &[]),
    // The bottom: none of each other.
    ("health", &[]),
    ("image", &[]),
    ("monitor", &[]),
    ("network", &[]),
    ("nri", &["proto"]),
    ("oci", &[]),
    ("stats", &[]),
    // Puts the rooms together.
    (
        "daemon",
        &[
            "config",
            "container",
            "cri",
            "health",
            "image",
            "manifest",
            "monitor",
            "network",
            "nri",
            "oci",
            "pod",
            "stats",
            "status",
            "stream",
        ],
    ),
    // Looks at the machine for what the daemon would ask of it.
    ("doctor", &["config", "daemon", "network", "oci"]),
    // Apart from all that: the settings are handed on, and the client is across a socket, of
    // which it knows the protocols.
    ("cli", &["proto", "stream::spdy", "tls"]),
    ("config", &[]),
];
/// What everyone may use, and what these may use themselves.
const FOUNDATIONS: &[(&str, &[&str])] =
    &[("store", &["id", "sys"]), ("meter", &[]), ("tls", &[]), ("sys", &[]), ("id", &[])];
/// The programs.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("haled", &["config", "daemon", "doctor"]),
    ("halectl", &["cli"]),
    ("haled-monitor", &["monitor"]),
    ("haled-pause", &[]),
    ("haled-agent", &[]),
];

/// What must not be.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// `room` may not use `other`.
    Arrow { room: String, other: String },
    /// A room, or a program, that no line above speaks of.
    Unknown(String),
    /// A way around this test.
    Disguise(&'static str),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrow { room, other } => write!(f, "{room} may not use {other}"),
            Self::Unknown(room) => write!(f, "\"{room}\" has no line in ARROWS: what may it use?"),
            Self::Disguise(how) => write!(f, "{how} hides what is used: write the path out"),
        }
    }
}

#[test]
fn the_arrows_between_rooms_go_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut mistakes = Vec::new();
    let files = rust_files(&source);
    assert!(files.len() > 20, "found only {files:?}");
    for file in files {
        let text = std::fs::read_to_string(source.join(&file)).unwrap();
        for (line, wrong) in check(&file, &text) {
            mistakes.push(format!("src/{}:{line}: {wrong}", file.display()));
        }
    }
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

/// Paths below a directory, relative to it.
fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Where the file stands: its room, and how many `super::` lead to the crate's root.
fn place(file: &Path) -> (String, usize) {
    let part = |part: Component<'_>| part.as_os_str().to_str().unwrap().to_owned();
    let mut parts: Vec<String> = file.with_extension("").components().map(part).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    (parts[0].clone(), parts.len())
}

/// Everything wrong in one file below `src`, with its line.
fn check(file: &Path, text: &str) -> Vec<(usize, Wrong)> {
    let (room, depth) = place(file);
    // The front page declares the rooms.
    let (room, allowed, depth) = match (room.as_str(), file.iter().nth(1)) {
        ("lib", None) => return Vec::new(),
        // A file, or a directory of them.
        ("bin", Some(program)) => {
            let program = Path::new(program).file_stem().unwrap().to_str().unwrap().to_owned();
            let allowed = PROGRAMS.iter().find(|(name, _)| *name == program);
            (program, allowed, depth)
        }
        _ => {
            let mut rooms = ARROWS.iter().chain(FOUNDATIONS);
            let allowed = rooms.find(|(name, _)| *name == room);
            (room, allowed, depth)
        }
    };
    let Some((_, allowed)) = allowed else { return vec![(1, Wrong::Unknown(room))] };
    let everyones = room != "cli" && !FOUNDATIONS.iter().any(|(name, _)| *name == room);
    let may = |other: &str, path: &str| {
        other == room
            || allowed.contains(&other)
            || allowed.contains(&path)
            || (everyones && FOUNDATIONS.iter().any(|(name, _)| *name == other))
    };
    let code = code_only(text);
    let mut wrong = disguises(&code);
    for (offset, path) in used(&code, depth) {
        let other = path.split("::").next().unwrap_or_default();
        if other == "*" {
            wrong.push((offset, Wrong::Disguise("a glob of the crate's root")));
        } else if is_room(other) && !may(other, &path) {
            let (room, other) = (room.clone(), other.to_owned());
            wrong.push((offset, Wrong::Arrow { room, other }));
        }
    }
    wrong.sort_by_key(|(offset, _)| *offset);
    let line = |offset: usize| code[..offset].matches('\n').count() + 1;
    wrong.into_iter().map(|(offset, wrong)| (line(offset), wrong)).collect()
}

fn is_room(name: &str) -> bool {
    name == "proto" || ARROWS.iter().chain(FOUNDATIONS).any(|(room, _)| *room == name)
}

/// Other names for the crate or for a file.
fn disguises(code: &str) -> Vec<(usize, Wrong)> {
    let squeezed = [
        ("#[path", "#[path]"),
        ("crate as ", "another name for the crate"),
        ("extern crate self", "another name for the crate"),
        ("include!", "include!"),
    ];
    let found = squeezed.iter().flat_map(|(needle, how)| {
        code.match_indices(needle).map(|(offset, _)| (offset, Wrong::Disguise(how)))
    });
    found
        // What the protocol's build makes is no source of ours.
        .filter(|(offset, _)| !code[..*offset].ends_with("tonic::"))
        .collect()
}

/// Where a path leaves for the crate's root, and the first two names after it.
fn used(code: &str, depth: usize) -> Vec<(usize, String)> {
    let supers = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for root in ["crate::", "haled::", &supers] {
        for (offset, _) in code.match_indices(root) {
            let before = code[..offset].chars().next_back();
            // `my_crate::`, or the middle of a longer chain of `super::`.
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            // `use super::*` in a module within the file, a test's: not the crate's root.
            // rustfmt sees to it that such a line is set in.
            let line = code[..offset].rsplit('\n').next().unwrap_or_default();
            let inner = root == supers && line.starts_with(' ');
            for name in first_names(&code[offset + root.len()..]) {
                if !(inner && name == "*") {
                    found.insert((offset, name));
                }
            }
        }
    }
    found.into_iter().collect()
}

/// `pod::x::y` gives pod::x; `{pod::{a, b}, id}` gives pod and id; `*` itself.
fn first_names(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else { return name(rest).into_iter().collect() };
    let mut names = Vec::new();
    let (mut level, mut start) = (0usize, 0);
    for (offset, c) in group.char_indices() {
        match c {
            '{' => level += 1,
            '}' if level == 0 => {
                names.extend(name(&group[start..offset]));
                break;
            }
            '}' => level -= 1,
            ',' if level == 0 => {
                names.extend(name(&group[start..offset]));
                start = offset + 1;
            }
            _ => {}
        }
    }
    names
}

/// One or two names: what a group or a glob stands for can't be told.
fn name(text: &str) -> Option<String> {
    let (first, rest) = word(text);
    if first.is_empty() {
        return rest.starts_with('*').then(|| "*".to_owned());
    }
    match rest.strip_prefix("::").map(word) {
        Some((second, _)) if !second.is_empty() => Some(format!("{first}::{second}")),
        _ => Some(first.to_owned()),
    }
}

/// The name that a text begins with, and what comes after it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let text = text.strip_prefix("r#").unwrap_or(text);
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

/// The text with every comment and every string's content blanked, lines kept; and without
/// the space that Rust allows around `::`.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if raw_string(rest).is_some() && !ends_in_word(&code) => raw_string(rest).unwrap(),
            '\'' => character(rest),
            _ => 0,
        };
        let step = if skipped == 0 { c.len_utf8() } else { skipped };
        if skipped == 0 {
            code.push(c);
        } else {
            code.extend(rest[..step].chars().filter(|&c| c == '\n'));
            code.push(' ');
        }
        rest = &rest[step..];
    }
    // `crate :: pod` and `crate::` at a line's end are the same path. The lines stay counted:
    // only blanks go.
    for (from, to) in [(" ::", "::"), (":: ", "::")] {
        while code.contains(from) {
            code = code.replace(from, to);
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn block_comment(text: &str) -> usize {
    let (mut level, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            level += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            level -= 1;
            at += 2;
            if level == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (offset, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return offset + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"…"` or `r#"…"#`; `None`: it is none.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(inside.find(&end).map_or(text.len(), |at| 1 + hashes + 1 + at + end.len()))
}

/// The length of a character literal; 0: a lifetime.
fn character(text: &str) -> usize {
    let inside = &text[1..];
    match inside.chars().next() {
        Some('\\') => inside[2..].find('\'').map_or(0, |end| end + 4),
        Some(c) if inside[c.len_utf8()..].starts_with('\'') => c.len_utf8() + 2,
        _ => 0,
    }
}

// ---- The test is tested: each of these must be found, or must not ----------------------

fn found(file: &str, text: &str) -> Vec<String> {
    check(Path::new(file), text).iter().map(|(line, wrong)| format!("{line}: {wrong}")).collect()
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    let wrong = "1: image may not use network";
    for text in [
        "use crate::network::Network;",
        "use crate::{id::ContainerId, network::Network};",
        "use crate::{store::{self, Store}, network};",
        "pub(crate) use crate::r#network;",
        "fn f() { crate::network::add() }",
        "fn f() { crate :: network::add() }",
        "use super::super::network;",
        "macro_rules! m { () => { $crate::network::add() } }",
        "/* a /* nested */ comment */ use crate::network;",
        "const A: char = '\"'; use crate::network;",
        "const A: &str = r#\"\"\"#; use crate::network;",
        "fn f<'a>(a: &'a str) { crate::network::add(a, 'x') }",
        "use haled::network::Network;",
    ] {
        assert_eq!(found("image/pull.rs", text), [wrong], "{text}");
    }
    assert_eq!(found("image/mod.rs", "use super::network;"), [wrong]);
    assert_eq!(found("image/pull/retry.rs", "use super::super::super::network;"), [wrong]);
    assert_eq!(found("image/pull.rs", "\n\nuse crate::network;"), ["3: image may not use network"]);
}

#[test]
fn every_rule_has_teeth() {
    let cases = [
        ("pod/mod.rs", "use crate::cri::Status;", "pod may not use cri"),
        ("pod/mod.rs", "use crate::proto::cri::Pod;", "pod may not use proto"),
        ("container/exec.rs", "use crate::pod::Driver;", "container may not use pod"),
        ("container/exec.rs", "use crate::network;", "container may not use network"),
        ("cli/mod.rs", "use crate::pod;", "cli may not use pod"),
        ("cli/mod.rs", "use crate::store;", "cli may not use store"),
        ("cri/mod.rs", "use crate::config::Config;", "cri may not use config"),
        ("cri/mod.rs", "use crate::oci::Runtime;", "cri may not use oci"),
        ("cri/mod.rs", "use crate::oci::{model, Runtime};", "cri may not use oci"),
        ("pod/mod.rs", "use crate::daemon;", "pod may not use daemon"),
        ("daemon.rs", "use crate::cli;", "daemon may not use cli"),
        ("store/mod.rs", "use crate::image;", "store may not use image"),
        ("sys/mod.rs", "use crate::id;", "sys may not use id"),
        ("id.rs", "use crate::store;", "id may not use store"),
        ("bin/halectl.rs", "use haled::pod;", "halectl may not use pod"),
        ("bin/haled.rs", "use haled::cli;", "haled may not use cli"),
        ("bin/haled-monitor.rs", "use haled::oci;", "haled-monitor may not use oci"),
        ("attic/mod.rs", "", "\"attic\" has no line in ARROWS: what may it use?"),
        (
            "oci/mod.rs",
            "use crate::*;",
            "a glob of the crate's root hides what is used: write the path out",
        ),
        (
            "oci/mod.rs",
            "#[path = \"../image/mod.rs\"] mod i;",
            "#[path] hides what is used: write the path out",
        ),
        (
            "oci/mod.rs",
            "use crate as c;",
            "another name for the crate hides what is used: write the path out",
        ),
    ];
    for (file, text, wrong) in cases {
        assert_eq!(found(file, text), [format!("1: {wrong}")], "{file}: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let cases = [
        ("cri/run.rs", "use crate::oci::model::{Mount, PidMode}; use crate::{oci::model, pod};"),
        ("cri/run.rs", "use crate::{pod, container, image, proto::cri, store, sys, id};"),
        ("pod/mod.rs", "use crate::container::config; use crate::network::Dns;"),
        ("image/pull.rs", "use super::reference; use crate::image::Image; use crate::sys::mount;"),
        (
            "image/pull.rs",
            "// use crate::network;\n/// [`crate::network`]\nconst A: &str = \"crate::network\";",
        ),
        ("image/pull.rs", "use my_crate::network; use other::crate_network;"),
        ("image/pull.rs", "const A: &str = \"http://x\"; const B: char = '\\''; mod network {}"),
        ("cli/tests.rs", "use super::{image, pods}; use crate::proto::haled::Pod;"),
        ("oci/mod.rs", "mod tests {\n    use super::*;\n}"),
        ("bin/haled.rs", "use haled::{config::Config, daemon};"),
    ];
    for (file, text) in cases {
        assert_eq!(found(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}
