//! `haled doctor` on this very machine.

use std::process::{Command, Output};

use serde_json::Value;

fn doctor(directory: &std::path::Path, settings: &str, arguments: &[&str]) -> Output {
    let file = directory.join("config.toml");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_haled"));
    command.arg("--config").arg(file).args(["--root", directory.to_str().unwrap()]);
    command.arg("doctor").args(arguments).output().unwrap()
}

#[test]
fn this_machine_is_told_as_json_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let settings = format!(
        "listen = \"{0}/haled.sock\"\n[network]\nconf_dir = \"{0}/cni\"\n\
         [runtime.handlers.strange]\npath = \"/no/such/runtime\"\n",
        dir.path().display()
    );
    let output = doctor(dir.path(), &settings, &["--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let of = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap();
    assert_eq!(of("runtime runc")["found"].as_str().unwrap().split(' ').next(), Some("runc"));
    assert_eq!(of("runtime strange")["state"], "note");
    assert_eq!(of("overlayfs")["state"], "ok");
    assert_eq!(of("settings")["state"], "ok");
    // There is no configuration in that directory.
    assert_eq!(of("network")["state"], "problem");
    assert!(of("network")["remedy"].as_str().unwrap().contains("default_bridge"));
    assert_eq!((output.status.code(), &report["state"]), (Some(1), &Value::from("problem")));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the settings are there");
}

#[test]
fn text_has_no_colours_in_a_pipe_and_mistakes_in_the_settings_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(dir.path(), "nonsense = 1\n", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = text.lines().find(|line| line.contains("settings")).unwrap();
    assert!(line.starts_with("problem  settings") && line.contains("nonsense"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(doctor(dir.path(), "", &["--output", "xml"]).status.code(), Some(2));
}
