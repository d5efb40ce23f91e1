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

#[test]
fn plugins_and_iptables_are_asked_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, conf) = (dir.path().join("bin"), dir.path().join("cni"));
    std::fs::create_dir(&bin).unwrap();
    std::fs::create_dir(&conf).unwrap();
    let settings = format!(
        "[network]\nconf_dir = \"{}\"\nplugin_dirs = [\"{}\", \"/usr/lib/cni\"]\n",
        conf.display(),
        bin.display()
    );
    let configure = |version: &str, plugin: &str| {
        let text = format!(
            r#"{{"name": "n", "cniVersion": "{version}", "plugins": [{{"type": "{plugin}"}}]}}"#
        );
        std::fs::write(conf.join("10.conflist"), text).unwrap();
        let output = doctor(dir.path(), &settings, &["--output", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let of = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap().clone();
        (of("network"), of("iptables"))
    };
    // The plugins of this machine are real, and of 1.0.0 at most or newer.
    let (network, iptables) = configure("1.0.0", "bridge");
    assert_eq!(
        (&network["state"], &network["found"]),
        (&"ok".into(), &"CNI 1.0.0, with bridge".into())
    );
    assert!(iptables["found"].as_str().unwrap().starts_with("iptables v1."), "{iptables}");
    // One that speaks something else, and one that can't be run.
    for (plugin, text, told) in [
        (
            "strange",
            "#!/bin/sh\nread -r _\necho '{\"supportedVersions\": [\"0.2.0\"]}'\n",
            "the CNI plugin strange speaks 0.2.0, and the configuration is of 1.0.0",
        ),
        ("mute", "#!/bin/sh\nexit 1\n", "the CNI plugin mute doesn't tell its versions: "),
        ("broken", "\u{7f}ELF", "the CNI plugin broken doesn't tell its versions: "),
    ] {
        std::fs::write(bin.join(plugin), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join(plugin), mode).unwrap();
        let (network, _) = configure("1.0.0", plugin);
        assert_eq!(network["state"], "problem", "{network}");
        assert!(network["found"].as_str().unwrap().starts_with(told), "{network}");
        assert!(network["remedy"].is_string(), "{network}");
    }
}

#[test]
fn whoever_isnt_root_is_told_once_what_cant_be_seen() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "").unwrap();
    // The program may be where only root can look: it is called by its descriptor.
    let program = std::fs::File::open(env!("CARGO_BIN_EXE_haled")).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/proc/self/fd/0", "--config"])
        .arg(&file)
        .args(["--root", dir.path().to_str().unwrap(), "doctor"])
        .stdin(program)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("root:").count(), 1, "{text}");
    let user = text.lines().find(|line| line.contains(" user ")).unwrap();
    assert!(user.starts_with("note ") && text.contains("→ sudo haled doctor\n"), "{text}");
    for hidden in ["capabilities  ", "overlayfs  ", "user namespaces  ", "socket  "] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    assert!(!text.contains("not permitted") && !text.contains("Permission denied"), "{text}");
    let runc = text.lines().find(|line| line.contains("runtime runc")).unwrap();
    assert!(runc.contains("runc version "), "{text}");
}
