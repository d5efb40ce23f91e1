use proptest::prelude::*;
use toml::de::DeTable;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(&[("haled.toml".into(), text.to_owned())]).map_err(|error| error.0)
}

fn refused(text: &str) -> String {
    parse(text).expect_err("it should be refused")
}

/// Every key of the schema, as `section.key`, with one handler.
fn keys() -> Vec<String> {
    let text = "[runtime.handlers.NAME]";
    let reading = file::Reading::new(text);
    schema::fill(&reading, DeTable::parse(text).unwrap().get_ref(), &mut Config::default());
    reading.asked()
}

#[test]
fn the_default_text_is_the_default() {
    assert_eq!(parse(Config::default_text()), Ok(Config::default()));
    assert_eq!(parse(""), Ok(Config::default()));
    assert_eq!(Config::default().check(), Ok(()));
}

#[test]
fn the_default_text_has_every_key_with_a_word_about_it() {
    let text = Config::default_text();
    let keys = keys();
    assert!(keys.len() >= 20, "{keys:?}");
    for key in keys {
        let (table, key) = key.rsplit_once('.').unwrap_or(("", &key));
        let body = match table.replace("NAME", "runc").as_str() {
            "" => text,
            table => text.split(&format!("\n[{table}]\n")).nth(1).expect(table),
        };
        let body = body.split("\n[").next().unwrap();
        assert!(
            body.lines()
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = "))),
            "[{table}] {key}"
        );
    }
}

#[test]
fn every_value_can_be_set() {
    let text = r#"
        root = "/srv/haled"
        state = "/run/h"
        listen = "/run/h/s"
        helper_dir = "/opt/haled"
        [runtime]
        default_handler = "youki"
        cgroup_driver = "systemd"
        cgroup_parent = "machine-haled.slice"
        seccomp_dir = "/etc/seccomp"
        blockio_config_file = "/etc/blockio.yaml"
        handlers.youki.path = "/usr/local/bin/youki"
        handlers.kata = {args = ["--debug"], root = "/run/kata", privileged_without_host_devices = true, privileged_without_host_devices_all_devices_allowed = true, pod_annotations = ["a/*"]}
        [network]
        conf_dir = "/etc/cni"
        plugin_dirs = ["/cni"]
        default_bridge = true
        bridge_name = "br0"
        bridge_subnet = "fd00::/64"
        [image]
        certs_dirs = []
        parallel_layers = 0x8
        [stream]
        address = "::1"
        port = 10250
        idle_limit = "1h"
        creation_limit = "5s"
        tls_cert = "/etc/haled/tls.crt"
        tls_key = "/etc/haled/tls.key"
        [healing]
        backoff_initial = "500ms"
        backoff_max = "1m30s"
        backoff_reset = "1h"
        orchestrator_open = "5s"
        orchestrator_used = "7s"
        [status]
        listen = "[::1]:9470"
        [tracing]
        otlp_endpoint = "http://127.0.0.1:4317"
        sample_percent = 5
        [log]
        level = "info,haled::image=debug"
        json = true
        max_size = "1GiB"
        max_files = 2
    "#;
    let config = parse(text).unwrap();
    let default = Config::default();
    assert_eq!(config.helper_dir, Some("/opt/haled".into()));
    let handler = |path: &str| HandlerConfig { path: path.into(), ..HandlerConfig::default() };
    assert_eq!(config.runtime.handlers["youki"], handler("/usr/local/bin/youki"));
    let kata = HandlerConfig {
        path: "kata".into(),
        args: vec!["--debug".into()],
        root: Some("/run/kata".into()),
        privileged_without_host_devices: true,
        privileged_without_host_devices_all_devices_allowed: true,
        pod_annotations: vec!["a/*".into()],
    };
    assert_eq!(config.runtime.handlers["kata"], kata);
    assert_eq!(config.runtime.handlers["runc"], handler("runc"));
    assert_eq!(config.healing.backoff_max, Duration::from_secs(90));
    assert_eq!(config.image.parallel_layers, 8);
    // Whatever was left at its default was forgotten above, or isn't read.
    assert_ne!(config.root, default.root);
    assert_ne!(config.state, default.state);
    assert_ne!(config.listen, default.listen);
    assert_ne!(config.runtime.default_handler, default.runtime.default_handler);
    assert_ne!(config.runtime.cgroup_driver, default.runtime.cgroup_driver);
    assert_ne!(config.runtime.cgroup_parent, default.runtime.cgroup_parent);
    assert_ne!(config.runtime.seccomp_dir, default.runtime.seccomp_dir);
    assert_ne!(config.runtime.blockio_config_file, default.runtime.blockio_config_file);
    assert_ne!(config.network.conf_dir, default.network.conf_dir);
    assert_ne!(config.network.plugin_dirs, default.network.plugin_dirs);
    assert_ne!(config.network.default_bridge, default.network.default_bridge);
    assert_ne!(config.network.bridge_name, default.network.bridge_name);
    assert_ne!(config.network.bridge_subnet, default.network.bridge_subnet);
    assert_ne!(config.image.certs_dirs, default.image.certs_dirs);
    assert_ne!(config.healing.backoff_initial, default.healing.backoff_initial);
    assert_ne!(config.healing.backoff_reset, default.healing.backoff_reset);
    assert_ne!(config.healing.orchestrator_open, default.healing.orchestrator_open);
    assert_ne!(config.healing.orchestrator_used, default.healing.orchestrator_used);
    assert_ne!(config.stream.address, default.stream.address);
    assert_ne!(config.stream.port, default.stream.port);
    assert_ne!(config.stream.idle_limit, default.stream.idle_limit);
    assert_ne!(config.stream.creation_limit, default.stream.creation_limit);
    assert_ne!(config.status.listen, default.status.listen);
    assert_ne!(config.tracing.otlp_endpoint, default.tracing.otlp_endpoint);
    assert_ne!(config.tracing.sample_percent, default.tracing.sample_percent);
    assert_ne!(config.stream.tls_cert, default.stream.tls_cert);
    assert_ne!(config.stream.tls_key, default.stream.tls_key);
    assert_ne!(config.log.level, default.log.level);
    assert_ne!(config.log.json, default.log.json);
    assert_ne!(config.log.max_size, default.log.max_size);
    assert_ne!(config.log.max_files, default.log.max_files);
}

#[test]
fn a_certificate_comes_with_its_key() {
    assert_eq!(
        refused("[stream]\n\ntls_key = \"/a\"\n"),
        "haled.toml:3: stream.tls_key: is of no use without stream.tls_cert: set both, or neither"
    );
    let relative = refused("[stream]\ntls_cert = \"a\"\ntls_key = \"/b\"\n");
    assert!(relative.contains("haled.toml:2: stream.tls_cert: found \"a\""), "{relative}");
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest() {
    assert_eq!(
        refused("root = \"/a\"\n\nlisen = \"/b\"\n"),
        "haled.toml:3: unknown key \"lisen\", did you mean \"listen\"?"
    );
    assert_eq!(
        refused("[healing]\nbackof_max = \"1s\"\n"),
        "haled.toml:2: unknown key \"healing.backof_max\", did you mean \"backoff_max\"?"
    );
    assert_eq!(
        refused("[runtime.handlers.kata]\npaht = \"kata\"\n"),
        "haled.toml:2: unknown key \"runtime.handlers.kata.paht\", did you mean \"path\"?"
    );
    assert_eq!(
        refused("[log]\ncolour = true\n"),
        "haled.toml:2: unknown key \"log.colour\": there are json, level, max_files, max_size"
    );
    assert_eq!(
        refused("[helaing]\n"),
        "haled.toml:1: unknown key \"helaing\", did you mean \"healing\"?"
    );
}

#[test]
fn every_mistake_is_told_in_the_files_order() {
    let text =
        "root = 5\n[image]\nparallel_layers = 0\n[network]\nfoo = 1\nbridge_subnet = \"x\"\n";
    insta::assert_snapshot!(refused(text), @r#"
    haled.toml:1: root: found 5, a path in quotes is needed
    haled.toml:3: image.parallel_layers: found 0, 1 to 16 is allowed
    haled.toml:5: unknown key "network.foo": there are bridge_name, bridge_subnet, conf_dir, default_bridge, plugin_dirs
    haled.toml:6: network.bridge_subnet: found "x", a subnet in CIDR form is needed: "10.88.0.0/16" is one
    "#);
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let error = refused("root = \"/a\"\nstate = \n");
    assert!(error.starts_with("haled.toml:2: "), "{error}");
    let error = refused("root = \"/a\"\nroot = \"/b\"\n");
    assert!(error.starts_with("haled.toml:2: ") && error.contains("duplicate key"), "{error}");
}

#[test]
fn bad_values_are_refused_by_name() {
    let cases = [
        ("root = \"lib\"", "root: found \"lib\", an absolute path is needed"),
        ("root = \"/\"", "root: found \"/\", a directory of its own"),
        ("root = \"/a/../b\"", "a path without \"..\" is needed"),
        ("root = \"/run/haled/lib\"", "neither may lie in the other"),
        ("log = 1", "log: found 1, a table [log] is needed"),
        ("[log]\njson = \"yes\"", "log.json: found \"yes\", true or false is needed"),
        ("[log]\nlevel = \"inof\"", "found \"inof\", did you mean \"info\"?"),
        ("[log]\nlevel = \"loud\"", "one of off, error, warn, info, debug, trace"),
        ("[log]\nlevel = \"haled=louder\"", "log.level: found \"haled=louder\""),
        ("[runtime]\ndefault_handler = \"rucn\"", "did you mean \"runc\"?"),
        ("[runtime]\ndefault_handler = \"kata\"", "add [runtime.handlers.kata]"),
        ("[runtime]\ncgroup_parent = \"haled\"", "found \"haled\", an absolute path of a cgroup"),
        ("[runtime]\ncgroup_parent = \"/\"", "below \"/\" is needed"),
        ("[runtime]\ncgroup_parent = \"/a/../..\"", "without \"..\""),
        ("[runtime]\ncgroup_parent = \"a--b.slice\"", "\"a--b.slice\" is no slice"),
        ("[runtime]\ncgroup_driver = \"systemd\"\ncgroup_parent = \"/a\"", "\"/a\" is no slice"),
        (
            "[runtime]\ncgroup_driver = \"cgroupfs\"\ncgroup_parent = \"a.slice\"",
            "a path is needed",
        ),
        ("[runtime]\ncgroup_driver = \"cgroup\"", "\"auto\", \"cgroupfs\" or \"systemd\" is"),
        ("[runtime.handlers.\"a/b\"]", "a handler's name is 1 to 63"),
        ("[runtime.handlers.\"-a\"]", "a handler's name is 1 to 63"),
        ("[runtime.handlers.a]\npath = \"./a\"", "a bare name (looked up in PATH) is needed"),
        ("[runtime.handlers.a]\npath = \"\"", "a bare name (looked up in PATH) is needed"),
        ("[runtime.handlers.a]\nargs = \"-x\"", "a list of texts is needed"),
        ("[runtime.handlers.a]\nargs = [\"--root=/x\"]", "set root instead"),
        ("[runtime.handlers.a]\nargs = [\"--systemd-cgroup\"]", "set runtime.cgroup_driver"),
        ("[runtime.handlers.a]\nargs = [\"\"]", "an empty argument"),
        ("[runtime.handlers.a]\nroot = \"/run/runc\"", "which others use"),
        ("[runtime.handlers]\na.root = \"/r\"\nb.root = \"/r\"", "which is handler \"b\"'s"),
        (
            "[runtime.handlers.a]\nprivileged_without_host_devices_all_devices_allowed = true",
            "means nothing without privileged_without_host_devices",
        ),
        ("[runtime.handlers.a]\npod_annotations = [\"\"]", "an empty pattern"),
        ("[runtime.handlers.a]\npod_annotations = [\"a[\"]", "found \"a[\""),
        ("[runtime]\nblockio_config_file = \"b.yaml\"", "an absolute path is needed"),
        ("[network]\nplugin_dirs = []", "at least one directory"),
        ("[network]\nplugin_dirs = [\"/a\", \"b\"]", "found \"b\", an absolute path is needed"),
        ("[network]\nbridge_name = \"sixteen-letters-\"", "found \"sixteen-letters-\""),
        ("[network]\nbridge_subnet = \"10.88.0.1/16\"", "no bits after its prefix"),
        ("[network]\nbridge_subnet = \"10.88.0.0/31\"", "a prefix of 1 to 30"),
        ("[network]\nbridge_subnet = \"10.88.0.0/99999999999\"", "in CIDR form"),
        ("[image]\nparallel_layers = -1", "found -1, a whole number from 0 is needed"),
        ("[status]\nlisten = \"9470\"", "found \"9470\", an IP address with a port"),
        ("[status]\nlisten = \"localhost:9470\"", "an IP address with a port"),
        ("[tracing]\notlp_endpoint = \"localhost:4317\"", "tracing.otlp_endpoint: found"),
        ("[tracing]\notlp_endpoint = \"https://a:4317\"", "without TLS"),
        ("[tracing]\nsample_percent = 101", "found 101, 0 to 100 is allowed"),
        ("[log]\nmax_size = 10", "found 10, a size with its unit"),
        ("[log]\nmax_size = \"10MB\"", "found \"10MB\", a size with its unit"),
        ("[log]\nmax_size = \"99999999999999GiB\"", "a size with its unit"),
        ("[log]\nmax_size = \"1KiB\"", "found 1024 bytes, at least 64KiB"),
        ("[log]\nmax_files = 1", "found 1, at least 2"),
        ("[healing]\nbackoff_initial = 10", "found 10, a time with its unit"),
        ("[healing]\nbackoff_initial = \"10\"", "found \"10\", a time with its unit"),
        ("[healing]\nbackoff_initial = \"0s\"", "found 0ns, \"100ms\" to \"24h\""),
        ("[healing]\norchestrator_open = \"25h\"", "healing.orchestrator_open: found 90000s"),
        ("[healing]\norchestrator_used = \"9ms\"", "healing.orchestrator_used: found 9ms"),
        ("[healing]\nbackoff_max = \"1s\"", "at least backoff_initial (10s) is needed"),
        ("[healing]\nbackoff_max = \"99999999999999999999h\"", "a time with its unit"),
    ];
    for (text, expected) in cases {
        let error = refused(text);
        assert!(error.contains(expected), "{text}\n  gave {error}\n  not {expected}");
        assert!(error.starts_with("haled.toml"), "{error}");
    }
    let long = format!("listen = \"/{}\"", "s".repeat(107));
    assert!(refused(&long).contains("a path of 108 bytes"));
}

#[test]
fn a_named_file_must_be_there_and_short() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let error = Config::find(Some(&path)).unwrap_err().0;
    assert!(error.starts_with(&format!("cannot read {}: ", path.display())), "{error}");
    std::fs::write(&path, "state = \"/run/other\"").unwrap();
    assert_eq!(Config::find(Some(&path)).unwrap().state, PathBuf::from("/run/other"));
    std::fs::write(&path, "#".repeat(LENGTH_LIMIT as usize + 1)).unwrap();
    assert!(Config::find(Some(&path)).unwrap_err().0.ends_with("it is longer than 1 MiB"));
}

#[test]
fn files_beside_it_go_over_it_key_by_key_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let path = dir.path().join("config.toml");
    let find = || Config::find(Some(&path)).map_err(|error| error.0);
    std::fs::create_dir(dir.path().join(DROP_INS)).unwrap();
    write("config.toml", "[healing]\nbackoff_initial = \"1s\"\nbackoff_max = \"2s\"");
    write("config.d/20.toml", "[healing]\nbackoff_max = \"4s\"");
    write("config.d/10.toml", "[healing]\nbackoff_max = \"3s\"\n[runtime.handlers.youki]");
    write("config.d/30.toml.off", "nonsense");
    let config = find().unwrap();
    let seconds = Duration::from_secs;
    let healing = &config.healing;
    assert_eq!((healing.backoff_initial, healing.backoff_max), (seconds(1), seconds(4)));
    assert!(
        ["crun", "runc", "youki"].iter().all(|name| config.runtime.handlers.contains_key(*name))
    );

    // A mistake is told where it is, also one that two files make together.
    write("config.d/10.toml", "x = 1");
    write("config.d/20.toml", "\n[healing]\nbackoff_max = \"500ms\"");
    let error = find().unwrap_err();
    assert!(error.contains("config.d/10.toml:1: "), "{error}");
    assert!(error.contains("config.d/20.toml:3: healing.backoff_max: found 500ms"), "{error}");
    write("config.d/10.toml", "[");
    assert!(find().unwrap_err().contains("config.d/10.toml:1: "));
}

#[test]
fn what_a_reload_can_not_take_is_named() {
    let old = Config::default();
    let mut new = Config::default();
    assert_eq!(old.reloaded(&new), (old.clone(), vec![]));
    new.healing.backoff_max = Duration::from_mins(1);
    new.log.level = "debug".into();
    assert_eq!(old.reloaded(&new), (new.clone(), vec![]));
    let taken = new.clone();
    new.stream.port = 1;
    new.log.json = true;
    assert_eq!(old.reloaded(&new), (taken, vec!["stream", "log.json"]));
}

#[test]
fn the_settings_in_force_are_a_file_that_means_the_same() {
    let defaults = Config::default().text();
    assert!(!defaults.contains(" # default"), "{defaults}");
    assert_eq!(parse(&defaults), Ok(Config::default()));
    let changed = "helper_dir = \"/opt/a \\\"b\\\"\"\n[healing]\nbackoff_max = \"1h1m\"\n\
        [runtime.handlers.\"my.own\"]\npath = \"/x\"\n[log]\nmax_size = \"3GiB\"\n\
        [network]\nplugin_dirs = [\"/p\"]\n[runtime.handlers.runc]\npath = \"/runc\"";
    let config = parse(changed).unwrap();
    let text = config.text();
    assert_eq!(parse(&text), Ok(config), "{text}");
    for line in [
        "helper_dir = '/opt/a \"b\"' # default: not set",
        "backoff_max = \"61m\" # default: \"5m\"",
        "[runtime.handlers.\"my.own\"]\npath = \"/x\"\n",
        "path = \"/runc\" # default: \"runc\"",
        "max_size = \"3GiB\" # default: \"10MiB\"",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_check_after_the_command_line_names_the_key() {
    let config = Config { root: "here".into(), ..Config::default() };
    let error = config.check().unwrap_err().0;
    assert_eq!(error, "root: found \"here\", an absolute path is needed");
}

#[test]
fn times_are_read() {
    let read = |text| file::duration(text).map(|time| time.as_millis());
    assert_eq!(read("1h2m3s4ms"), Some(3_723_004));
    assert_eq!(read(" 5m "), Some(300_000));
    for bad in
        ["", "5", "m", "5 m", "-5s", "1.5s", "5d", "99999999999999999s1h9999999999999999999h"]
    {
        assert_eq!(read(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}|([a-z_.\\[\\]=\" 0-9/\n]{0,80})") {
        parse(&text).ok();
    }

    #[test]
    fn no_time_makes_it_panic(text in "[0-9hms ]{0,40}") {
        file::duration(&text);
    }

    #[test]
    fn no_subnet_makes_it_panic(text in "[0-9a-f.:/]{0,30}") {
        parse(&format!("[network]\nbridge_subnet = \"{text}\"")).ok();
    }
}
