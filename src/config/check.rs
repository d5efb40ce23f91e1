//! What each value may be. Pure: whether a path exists is for whoever uses it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::file::nearest;
use super::{Bytes, CgroupDriver, Config};
use crate::sys::systemd::Slice;

/// The longest path of a socket, in bytes: `sun_path` less its end (unix(7)).
const SOCKET_PATH_LIMIT: usize = 107;
/// The longest name of an interface, in bytes: IFNAMSIZ less its end (netdevice(7)).
const INTERFACE_LIMIT: usize = 15;
/// The longest name of a directory, in bytes: NAME_MAX.
const NAME_LIMIT: usize = 255;
/// The longest handler name: a DNS label's, as RuntimeClass has it.
const HANDLER_LIMIT: usize = 63;
/// Where OCI runtimes keep the state of those who don't say.
const SHARED_ROOTS: [&str; 4] = ["/run/runc", "/run/crun", "/run/youki", "/run/containerd/runc"];
/// Layers fetched at once: more only hits the registry's rate limit.
const PARALLEL_LIMIT: usize = 16;
/// A shorter time of healing would be a hot loop.
const SHORTEST_TIME: Duration = Duration::from_millis(100);
/// A shorter limit would break off clients that are merely slow.
const SHORTEST_STREAM_LIMIT: Duration = Duration::from_secs(1);
/// A month: more is a slip.
const LONGEST_STREAM_LIMIT: Duration = Duration::from_hours(720);
/// A smaller one would be rotated at every look.
const SMALLEST_LOG: Bytes = Bytes(64 << 10);
/// A plugin that is waited for longer would hold up every pod of the node.
const LONGEST_PLUGIN_TIME: Duration = Duration::from_mins(1);
/// A longer one is a slip.
const LONGEST_TIME: Duration = Duration::from_hours(24);

/// Every value that may not be: its key, and what is allowed.
pub(super) fn mistakes(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut check = |key: &str, result: Result<(), String>| {
        if let Err(what) = result {
            found.push((key.to_owned(), what));
        }
    };
    check("root", directory(&config.root));
    check("state", directory(&config.state).and_then(|()| apart(&config.root, &config.state)));
    check("listen", socket(&config.listen));
    check("helper_dir", config.helper_dir.as_deref().map_or(Ok(()), absolute));

    let runtime = &config.runtime;
    check("runtime.default_handler", default_handler(config));
    let parent = runtime.cgroup_parent.as_deref();
    check("runtime.cgroup_parent", parent.map_or(Ok(()), |it| cgroup(it, runtime.cgroup_driver)));
    check("runtime.seccomp_dir", absolute(&runtime.seccomp_dir));
    let blockio = runtime.blockio_config_file.as_deref();
    check("runtime.blockio_config_file", blockio.map_or(Ok(()), absolute));
    for (name, handler) in &runtime.handlers {
        let key = |key: &str| format!("runtime.handlers.{name}.{key}");
        check("runtime.handlers", handler_name(name));
        check(&key("path"), program(&handler.path));
        check(&key("args"), handler.args.iter().try_for_each(|arg| argument(arg)));
        check(&key("root"), runtime_root(config, name));
        let all_allowed = handler.privileged_without_host_devices_all_devices_allowed;
        check(
            &key("privileged_without_host_devices_all_devices_allowed"),
            if all_allowed && !handler.privileged_without_host_devices {
                Err("means nothing without privileged_without_host_devices".to_owned())
            } else {
                Ok(())
            },
        );
        check(&key("pod_annotations"), patterns(&handler.pod_annotations));
    }

    let network = &config.network;
    check("network.conf_dir", absolute(&network.conf_dir));
    check("network.plugin_dirs", plugin_dirs(&network.plugin_dirs));
    check("network.bridge_name", interface(&network.bridge_name));
    check("network.bridge_subnet", subnet(&network.bridge_subnet));

    check("image.certs_dirs", config.image.certs_dirs.iter().try_for_each(|dir| absolute(dir)));
    check("image.parallel_layers", parallel(config.image.parallel_layers));

    let stream = &config.stream;
    check("stream.address", address(&stream.address));
    check("stream.port", port(stream.port));
    check("stream.idle_limit", stream_limit(stream.idle_limit));
    check("stream.creation_limit", stream_limit(stream.creation_limit));
    let (cert, key) = (stream.tls_cert.as_deref(), stream.tls_key.as_deref());
    check("stream.tls_cert", tls_file(cert, key, "tls_key"));
    check("stream.tls_key", tls_file(key, cert, "tls_cert"));

    let healing = &config.healing;
    check("healing.backoff_initial", time(healing.backoff_initial));
    check("healing.backoff_max", time(healing.backoff_max));
    check("healing.backoff_max", ordered(healing.backoff_initial, healing.backoff_max));
    check("healing.backoff_reset", time(healing.backoff_reset));
    check("healing.orchestrator_open", time(healing.orchestrator_open));
    check("healing.orchestrator_used", time(healing.orchestrator_used));

    check("manifest.dir", directory(&config.manifest.dir));

    check("status.listen", status_listen(&config.status.listen));
    check("tracing.otlp_endpoint", endpoint(&config.tracing.otlp_endpoint));
    check("tracing.sample_percent", percent(config.tracing.sample_percent));
    let nri = &config.nri;
    check("nri.socket_path", socket(&nri.socket_path));
    check("nri.plugin_path", absolute(&nri.plugin_path));
    check("nri.plugin_config_path", absolute(&nri.plugin_config_path));
    check("nri.plugin_registration_timeout", plugin_time(nri.plugin_registration_timeout));
    check("nri.plugin_request_timeout", plugin_time(nri.plugin_request_timeout));

    check("log.level", level(&config.log.level));
    check("log.max_size", log_size(config.log.max_size));
    check("log.max_files", log_files(config.log.max_files));
    found
}

/// What a plugin may hold up all pods for.
fn plugin_time(time: Duration) -> Result<(), String> {
    if !(SHORTEST_TIME..=LONGEST_PLUGIN_TIME).contains(&time) {
        return Err(format!("found {time:?}, \"100ms\" to \"60s\" is needed"));
    }
    Ok(())
}

fn log_size(size: Bytes) -> Result<(), String> {
    if size < SMALLEST_LOG {
        return Err(format!("found {} bytes, at least 64KiB are needed", size.0));
    }
    Ok(())
}

/// Two, as the kubelet has it: with one, nothing would be left after a rotation.
fn log_files(files: usize) -> Result<(), String> {
    if files < 2 {
        return Err(format!("found {files}, at least 2 are needed: the current one and an older"));
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<(), String> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    let told = path.display();
    if !path.is_absolute() {
        Err(format!("found \"{told}\", an absolute path is needed"))
    } else if !path.components().all(plain) {
        Err(format!("found \"{told}\", a path without \"..\" is needed"))
    } else if told.to_string().contains('\0') {
        Err("found a NUL byte, a path has none".to_owned())
    } else {
        Ok(())
    }
}

fn directory(path: &Path) -> Result<(), String> {
    absolute(path)?;
    if path == Path::new("/") {
        return Err("found \"/\", a directory of its own is needed".to_owned());
    }
    Ok(())
}

/// One survives a reboot and the other must not.
fn apart(root: &Path, state: &Path) -> Result<(), String> {
    if root.starts_with(state) || state.starts_with(root) {
        let (root, state) = (root.display(), state.display());
        return Err(format!(
            "found \"{state}\" with root \"{root}\", neither may lie in the other: \
             root survives a reboot, state must not"
        ));
    }
    Ok(())
}

fn socket(path: &Path) -> Result<(), String> {
    absolute(path)?;
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_LIMIT {
        return Err(format!(
            "found a path of {length} bytes, a socket's has at most {SOCKET_PATH_LIMIT}"
        ));
    }
    Ok(())
}

fn default_handler(config: &Config) -> Result<(), String> {
    let (name, handlers) = (&config.runtime.default_handler, &config.runtime.handlers);
    if handlers.contains_key(name) {
        return Ok(());
    }
    let names: Vec<_> = handlers.keys().map(String::as_str).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => Err(format!("there is no handler \"{name}\", did you mean \"{near}\"?")),
        None => Err(format!(
            "there is no handler \"{name}\": add [runtime.handlers.{name}], or use one of {}",
            names.join(", ")
        )),
    }
}

fn handler_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() <= HANDLER_LIMIT && name.chars().all(good) {
        return Ok(());
    }
    Err(format!(
        "found \"{name}\", a handler's name is 1 to {HANDLER_LIMIT} letters, digits, \"-\", \"_\" \
         and \".\", the first a letter or digit"
    ))
}

/// An absolute path, or a bare name for PATH.
fn program(path: &Path) -> Result<(), String> {
    let mut parts = path.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(()),
        _ if path.is_absolute() => absolute(path),
        _ => Err(format!(
            "found \"{}\", an absolute path or a bare name (looked up in PATH) is needed",
            path.display()
        )),
    }
}

/// An argument of an OCI runtime that haled has no word of its own on.
fn argument(text: &str) -> Result<(), String> {
    let name = text.split('=').next().unwrap_or_default().trim_start_matches('-');
    match name {
        "" => Err("found an empty argument".to_owned()),
        "root" => Err(format!("found \"{text}\", set root instead")),
        "log" | "log-format" => Err(format!("found \"{text}\", which haled sets itself")),
        "systemd-cgroup" => Err(format!(
            "found \"{text}\", set runtime.cgroup_driver instead: haled asks systemd itself"
        )),
        _ if text.contains('\0') => Err("found a NUL byte, an argument has none".to_owned()),
        _ => Ok(()),
    }
}

/// Containers in it that haled doesn't know are removed, so it must be this handler's alone.
fn runtime_root(config: &Config, name: &str) -> Result<(), String> {
    let handlers = &config.runtime.handlers;
    let Some(root) = handlers.get(name).and_then(|handler| handler.root.as_deref()) else {
        return Ok(());
    };
    directory(root)?;
    let told = root.display();
    if SHARED_ROOTS.iter().any(|shared| root == Path::new(shared)) {
        return Err(format!(
            "found \"{told}\", which others use: haled removes containers it doesn't know from it"
        ));
    }
    let twin = |(other, handler): &(&String, &super::HandlerConfig)| {
        other.as_str() != name && handler.root.as_deref() == Some(root)
    };
    match handlers.iter().find(twin) {
        Some((other, _)) => Err(format!("found \"{told}\", which is handler \"{other}\"'s")),
        None => Ok(()),
    }
}

fn patterns(all: &[String]) -> Result<(), String> {
    for pattern in all {
        if pattern.is_empty() {
            return Err("found an empty pattern, \"example.com/*\" is one".to_owned());
        }
        glob::Pattern::new(pattern).map_err(|error| format!("found \"{pattern}\": {error}"))?;
    }
    Ok(())
}

/// A path, or of systemd a slice. With "auto", which of them is right is the machine's to say.
fn cgroup(parent: &str, driver: CgroupDriver) -> Result<(), String> {
    match (driver, Slice::is_meant(parent)) {
        (CgroupDriver::Cgroupfs, true) => {
            return Err(format!(
                "found \"{parent}\", with cgroup_driver \"cgroupfs\" a path is needed"
            ));
        }
        (CgroupDriver::Systemd, _) | (CgroupDriver::Auto, true) => {
            return Slice::parse(parent).map(drop).map_err(|why| format!("found {why}"));
        }
        (CgroupDriver::Cgroupfs | CgroupDriver::Auto, false) => {}
    }
    let names = parent.strip_prefix('/').unwrap_or_default();
    let bad = |name: &str| {
        matches!(name, "" | "." | "..") || name.contains(['\0', '\n']) || name.len() > NAME_LIMIT
    };
    if names.split('/').any(bad) {
        return Err(format!(
            "found \"{parent}\", an absolute path of a cgroup below \"/\" is needed, without \
             \"..\" and empty names, or with the systemd driver a slice"
        ));
    }
    Ok(())
}

fn plugin_dirs(dirs: &[std::path::PathBuf]) -> Result<(), String> {
    if dirs.is_empty() {
        return Err("found an empty list, at least one directory is needed".to_owned());
    }
    dirs.iter().try_for_each(|dir| absolute(dir))
}

fn interface(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_graphic() && !"/:%".contains(c);
    let dots = matches!(name, "." | "..");
    if (1..=INTERFACE_LIMIT).contains(&name.len()) && name.chars().all(good) && !dots {
        return Ok(());
    }
    Err(format!(
        "found \"{name}\", an interface's name is 1 to {INTERFACE_LIMIT} printable characters \
         other than \"/\", \":\" and \"%\""
    ))
}

fn subnet(text: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("found \"{text}\", {why}: \"10.88.0.0/16\" is one");
    let (address, prefix) = text
        .split_once('/')
        .and_then(|(address, prefix)| {
            Some((address.parse::<IpAddr>().ok()?, prefix.parse::<u32>().ok()?))
        })
        .ok_or_else(|| wrong("a subnet in CIDR form is needed"))?;
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    // The bridge itself, one pod, the network's own address and the broadcast.
    if prefix == 0 || prefix > width - 2 {
        return Err(wrong(&format!("a prefix of 1 to {} is needed", width - 2)));
    }
    if bits & ((1 << (width - prefix)) - 1) != 0 {
        return Err(wrong("a subnet's address has no bits after its prefix"));
    }
    Ok(())
}

fn parallel(layers: usize) -> Result<(), String> {
    if (1..=PARALLEL_LIMIT).contains(&layers) {
        return Ok(());
    }
    Err(format!("found {layers}, 1 to {PARALLEL_LIMIT} is allowed"))
}

fn address(text: &str) -> Result<(), String> {
    let parsed = text.parse::<IpAddr>().map(drop);
    parsed.map_err(|_| format!("found {text:?}, an IP address is needed: \"127.0.0.1\""))
}

fn port(port: usize) -> Result<(), String> {
    u16::try_from(port).map(drop).map_err(|_| format!("found {port}, 0 to 65535 is allowed"))
}

fn status_listen(text: &str) -> Result<(), String> {
    if text.is_empty() || text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let needed = "an IP address with a port is needed, \"127.0.0.1:9470\", or \"\" for none";
    Err(format!("found {text:?}, {needed}"))
}

/// Without TLS: the collector is this node's own, or behind a proxy that is.
fn endpoint(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let good =
        |url: &url::Url| url.scheme() == "http" && url.has_host() && matches!(url.path(), "" | "/");
    if url::Url::parse(text).is_ok_and(|url| good(&url)) {
        return Ok(());
    }
    Err(format!(
        "found {text:?}, a collector's \"http://HOST:PORT\" (OTLP by gRPC, without TLS) is \
         needed, or \"\" for none"
    ))
}

fn percent(number: usize) -> Result<(), String> {
    if number <= 100 {
        return Ok(());
    }
    Err(format!("found {number}, 0 to 100 is allowed"))
}

/// A certificate and its key are nothing without each other.
fn tls_file(path: Option<&Path>, other: Option<&Path>, name: &str) -> Result<(), String> {
    match (path, other) {
        (Some(_), None) => Err(format!("is of no use without stream.{name}: set both, or neither")),
        (Some(path), Some(_)) => absolute(path),
        (None, _) => Ok(()),
    }
}

fn stream_limit(time: Duration) -> Result<(), String> {
    if (SHORTEST_STREAM_LIMIT..=LONGEST_STREAM_LIMIT).contains(&time) {
        return Ok(());
    }
    Err(format!("found {time:?}, \"1s\" to \"720h\" is allowed"))
}

fn time(time: Duration) -> Result<(), String> {
    if (SHORTEST_TIME..=LONGEST_TIME).contains(&time) {
        return Ok(());
    }
    Err(format!("found {time:?}, \"100ms\" to \"24h\" is allowed"))
}

fn ordered(initial: Duration, max: Duration) -> Result<(), String> {
    if initial <= max {
        return Ok(());
    }
    Err(format!("found {max:?}, at least backoff_initial ({initial:?}) is needed"))
}

/// A filter of one word is a level: the filter's own parser would take a mistyped one for
/// the name of a target, and be silent.
fn level(text: &str) -> Result<(), String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let word = text.trim().to_ascii_lowercase();
    if levels.contains(&word.as_str()) {
        return Ok(());
    }
    let allowed = format!("one of {} or a tracing filter is needed", levels.join(", "));
    if word.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(match nearest(&word, levels.into_iter()) {
            Some(near) => format!("found \"{text}\", did you mean \"{near}\"?"),
            None => format!("found \"{text}\", {allowed}"),
        });
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("found \"{text}\", {allowed}: {error}")),
    }
}
