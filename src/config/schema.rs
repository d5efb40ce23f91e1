//! Which keys there are, and their defaults.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::file::{Mistake, Reading, Section};
use super::{
    Bytes, CgroupDriver, Config, HandlerConfig, HealingConfig, ImageConfig, LogConfig,
    ManifestConfig, NetworkConfig, NriConfig, RuntimeConfig, StatusConfig, StreamConfig,
    TracingConfig, check,
};

/// Reads files' texts, each over those before it; every mistake in them with the number of its
/// file, in their order.
pub(super) fn read(texts: &[&str]) -> Result<Config, Vec<(usize, Mistake)>> {
    let readings: Vec<Reading<'_>> = texts.iter().map(|text| Reading::new(text)).collect();
    let mut config = Config::default();
    let mut whole = true;
    for (reading, text) in readings.iter().zip(texts) {
        match DeTable::parse(text) {
            Ok(table) => fill(reading, table.get_ref(), &mut config),
            Err(error) => {
                whole = false;
                reading.note(error.span().map(|span| span.start), error.message().to_owned());
            }
        }
    }
    // What a file that can't be read leaves out would pass for a mistake of the others.
    let mistakes = if whole { check::mistakes(&config) } else { Vec::new() };
    for (key, what) in mistakes {
        // The last that has it has set it.
        let has = readings.iter().rev().find(|reading| reading.has(&key));
        if let Some(reading) = has.or(readings.first()) {
            reading.note_key(&key, &what);
        }
    }
    let of_file = |(at, reading): (usize, Reading<'_>)| {
        reading.into_mistakes().into_iter().map(move |mistake| (at, mistake))
    };
    let mistakes: Vec<_> = readings.into_iter().enumerate().flat_map(of_file).collect();
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

/// The settings as a file that means the same, each that is not the default with its default.
pub(super) fn write(config: &Config) -> String {
    let shown = |mut config: Config| {
        // A handler is known by its table.
        let mut text = String::new();
        for name in config.runtime.handlers.keys() {
            writeln!(text, "[runtime.handlers.{}]", key(name)).expect("a String takes every write");
        }
        let reading = Reading::new(&text);
        if let Ok(table) = DeTable::parse(&text) {
            fill(&reading, table.get_ref(), &mut config);
        }
        reading.into_shown()
    };
    let (now, defaults) = (shown(config.clone()), shown(Config::default()));
    let mut text = String::new();
    let mut table = "";
    for shown in &now {
        let Some(value) = &shown.value else { continue };
        if shown.table != table {
            table = &shown.table;
            let names: Vec<String> = table.trim_end_matches('.').splitn(3, '.').map(key).collect();
            writeln!(text, "\n[{}]", names.join(".")).expect("a String takes every write");
        }
        let default = defaults
            .iter()
            .find(|default| (&default.table, default.key) == (&shown.table, shown.key));
        let default = match default.map(|default| &default.value) {
            Some(Some(default)) if default != value => format!(" # default: {default}"),
            Some(None) => " # default: not set".to_owned(),
            _ => String::new(),
        };
        writeln!(text, "{} = {value}{default}", shown.key).expect("a String takes every write");
    }
    text
}

/// A table's name, in quotes where it needs some.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) {
        return name.to_owned();
    }
    toml::Value::from(name).to_string()
}

/// Puts what a file says over what there is.
pub(super) fn fill<'r, 't>(reading: &'r Reading<'t>, table: &'r DeTable<'t>, config: &mut Config) {
    let mut top = Section::top(reading, table);
    top.set("root", &mut config.root);
    top.set("state", &mut config.state);
    top.set("listen", &mut config.listen);
    top.set("helper_dir", &mut config.helper_dir);
    runtime(top.section("runtime"), &mut config.runtime);
    network(top.section("network"), &mut config.network);
    image(top.section("image"), &mut config.image);
    stream(top.section("stream"), &mut config.stream);
    healing(top.section("healing"), &mut config.healing);
    manifest(top.section("manifest"), &mut config.manifest);
    status(top.section("status"), &mut config.status);
    tracing(top.section("tracing"), &mut config.tracing);
    nri(top.section("nri"), &mut config.nri);
    log(top.section("log"), &mut config.log);
    top.finish();
}

fn runtime(mut section: Section<'_, '_>, config: &mut RuntimeConfig) {
    section.set("default_handler", &mut config.default_handler);
    section.set("cgroup_driver", &mut config.cgroup_driver);
    section.set("cgroup_parent", &mut config.cgroup_parent);
    section.set("seccomp_dir", &mut config.seccomp_dir);
    section.set("restore_checkpoints", &mut config.restore_checkpoints);
    section.set("blockio_config_file", &mut config.blockio_config_file);
    for (name, mut handler) in section.tables("handlers") {
        let known = config.handlers.entry(name).or_insert_with_key(|name| named(name));
        handler.set("path", &mut known.path);
        handler.set("args", &mut known.args);
        handler.set("root", &mut known.root);
        handler.set("privileged_without_host_devices", &mut known.privileged_without_host_devices);
        handler.set(
            "privileged_without_host_devices_all_devices_allowed",
            &mut known.privileged_without_host_devices_all_devices_allowed,
        );
        handler.set("pod_annotations", &mut known.pod_annotations);
        handler.finish();
    }
    section.finish();
}

/// A handler without a path is found by its own name.
fn named(name: &str) -> HandlerConfig {
    HandlerConfig { path: name.into(), ..HandlerConfig::default() }
}

fn network(mut section: Section<'_, '_>, config: &mut NetworkConfig) {
    section.set("conf_dir", &mut config.conf_dir);
    section.set("plugin_dirs", &mut config.plugin_dirs);
    section.set("default_bridge", &mut config.default_bridge);
    section.set("bridge_name", &mut config.bridge_name);
    section.set("bridge_subnet", &mut config.bridge_subnet);
    section.finish();
}

fn image(mut section: Section<'_, '_>, config: &mut ImageConfig) {
    section.set("certs_dirs", &mut config.certs_dirs);
    section.set("parallel_layers", &mut config.parallel_layers);
    section.finish();
}

fn stream(mut section: Section<'_, '_>, config: &mut StreamConfig) {
    section.set("address", &mut config.address);
    section.set("port", &mut config.port);
    section.set("idle_limit", &mut config.idle_limit);
    section.set("creation_limit", &mut config.creation_limit);
    section.set("tls_cert", &mut config.tls_cert);
    section.set("tls_key", &mut config.tls_key);
    section.finish();
}

fn healing(mut section: Section<'_, '_>, config: &mut HealingConfig) {
    section.set("backoff_initial", &mut config.backoff_initial);
    section.set("backoff_max", &mut config.backoff_max);
    section.set("backoff_reset", &mut config.backoff_reset);
    section.set("orchestrator_open", &mut config.orchestrator_open);
    section.set("orchestrator_used", &mut config.orchestrator_used);
    section.finish();
}

fn manifest(mut section: Section<'_, '_>, config: &mut ManifestConfig) {
    section.set("dir", &mut config.dir);
    section.finish();
}

fn status(mut section: Section<'_, '_>, config: &mut StatusConfig) {
    section.set("listen", &mut config.listen);
    section.finish();
}

fn tracing(mut section: Section<'_, '_>, config: &mut TracingConfig) {
    section.set("otlp_endpoint", &mut config.otlp_endpoint);
    section.set("sample_percent", &mut config.sample_percent);
    section.finish();
}

fn nri(mut section: Section<'_, '_>, config: &mut NriConfig) {
    section.set("enable", &mut config.enable);
    section.set("socket_path", &mut config.socket_path);
    section.set("plugin_path", &mut config.plugin_path);
    section.set("plugin_config_path", &mut config.plugin_config_path);
    section.set("plugin_registration_timeout", &mut config.plugin_registration_timeout);
    section.set("plugin_request_timeout", &mut config.plugin_request_timeout);
    section.set("disable_connections", &mut config.disable_connections);
    section.finish();
}

fn log(mut section: Section<'_, '_>, config: &mut LogConfig) {
    section.set("level", &mut config.level);
    section.set("json", &mut config.json);
    section.set("max_size", &mut config.max_size);
    section.set("max_files", &mut config.max_files);
    section.finish();
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/haled".into(),
            state: "/run/haled".into(),
            listen: "/run/haled/haled.sock".into(),
            helper_dir: None,
            runtime: RuntimeConfig::default(),
            network: NetworkConfig::default(),
            image: ImageConfig::default(),
            stream: StreamConfig::default(),
            healing: HealingConfig::default(),
            manifest: ManifestConfig::default(),
            status: StatusConfig::default(),
            tracing: TracingConfig::default(),
            nri: NriConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let handler = |name: &str| (name.to_owned(), named(name));
        Self {
            default_handler: "runc".into(),
            handlers: ["runc", "crun"].map(handler).into(),
            cgroup_driver: CgroupDriver::Auto,
            cgroup_parent: None,
            seccomp_dir: "/var/lib/kubelet/seccomp".into(),
            restore_checkpoints: false,
            blockio_config_file: None,
        }
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            plugin_dirs: ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]
                .map(PathBuf::from)
                .into(),
            default_bridge: false,
            bridge_name: "haled0".into(),
            bridge_subnet: "10.88.0.0/16".into(),
        }
    }
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            certs_dirs: ["/etc/haled/certs.d", "/etc/containerd/certs.d"].map(PathBuf::from).into(),
            parallel_layers: 3,
        }
    }
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self { otlp_endpoint: String::new(), sample_percent: 100 }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".into(),
            port: 0,
            idle_limit: Duration::from_hours(4),
            creation_limit: Duration::from_secs(30),
            tls_cert: None,
            tls_key: None,
        }
    }
}

impl Default for HealingConfig {
    fn default() -> Self {
        Self {
            backoff_initial: Duration::from_secs(10),
            backoff_max: Duration::from_mins(5),
            backoff_reset: Duration::from_mins(10),
            orchestrator_open: Duration::from_secs(10),
            orchestrator_used: Duration::from_secs(20),
        }
    }
}

impl Default for ManifestConfig {
    fn default() -> Self {
        Self { dir: "/etc/haled/manifests".into() }
    }
}

impl Default for NriConfig {
    fn default() -> Self {
        Self {
            enable: false,
            socket_path: "/var/run/nri/nri.sock".into(),
            plugin_path: "/opt/nri/plugins".into(),
            plugin_config_path: "/etc/nri/conf.d".into(),
            plugin_registration_timeout: Duration::from_secs(5),
            plugin_request_timeout: Duration::from_secs(2),
            disable_connections: false,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), json: false, max_size: Bytes(10 << 20), max_files: 5 }
    }
}
