//! The daemon put together: each room is handed its own settings, recovery finds what is
//! there, and the socket is served until a signal says otherwise.
//!
//! No policy is here. Pods go on running when this ends.

mod reload;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{CgroupDriver, Config, HandlerConfig, HealingConfig, NriConfig, RuntimeConfig};
use crate::container::exec::Program;
use crate::container::rotation;
use crate::cri::{About, Face, server};
use crate::health::BackoffSettings;
use crate::image::Images;
use crate::manifest::controller::{self, Manifests};
use crate::network::Network;
use crate::oci::{PrivilegedDevices, Runtime, RuntimeSettings};
use crate::pod::cgroup::Driver;
use crate::pod::{Services, changes, events, orchestrator, recovery};
use crate::status::traces::{self, Traces};
use crate::store::{RootLock, Store};
use crate::sys::userns::{IdMaps, Range};
use crate::sys::{cgroup, idmap, memory, systemd};
use crate::{image, network, nri, oci, pod, status, stream};
use reload::Reload;

/// Threads that drive pods and answer calls; what blocks runs on others.
const WORKERS: usize = 2;
/// How long a thread for what blocks waits for more of it: each holds the stack it has used.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long running calls may take to end after a signal to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the daemon until SIGTERM or SIGINT. `settle` gives the settings, at start and again
/// for SIGHUP.
pub fn run(settle: impl Fn() -> Result<Config, String> + Send + 'static) -> Result<(), String> {
    memory::share_one_heap();
    let config = settle()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    // Traces are sent by the runtime's threads.
    let entered = runtime.enter();
    let (set_level, traces) = trace(&config)?;
    drop(entered);
    let reload = Reload::new(config.clone(), Box::new(settle), set_level);
    let ended = runtime.block_on(serve(config, reload));
    if let Some(traces) = traces {
        traces.end();
    }
    // Pods' tasks never end by themselves; all they have decided is on disk.
    runtime.shutdown_background();
    ended
}

/// Begins to log, and to send traces where the settings say so. Gives what changes the level.
fn trace(config: &Config) -> Result<(reload::SetLevel, Option<Traces>), String> {
    // Checked with the rest of the configuration.
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    // A line that can't be written is dropped: complaining about it on the same standard error
    // would panic.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = if config.log.json {
        lines.json().boxed()
    } else {
        lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
    };
    let (endpoint, percent) = (&config.tracing.otlp_endpoint, config.tracing.sample_percent);
    let (traces, layer) = if endpoint.is_empty() {
        (None, None)
    } else {
        let (traces, layer) = traces::begin(endpoint, percent, &controller::node::name())?;
        (Some(traces), Some(layer))
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(layer).init();
    let set_level = move |filter| handle.reload(filter).map_err(|error| error.to_string());
    Ok((Box::new(set_level), traces))
}

async fn serve(config: Config, mut reload: Reload) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // From the first moment on: by itself this signal ends a process.
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| text(&error))?;
    for dir in [&config.root, &config.state] {
        make_private(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    }
    let_through(&config.root)
        .map_err(|error| format!("cannot set modes below {}: {error}", config.root.display()))?;
    let mut locks = vec![RootLock::take(&config.root).map_err(|error| text(&error))?];
    if config.state != config.root {
        // Another root directory with this state would take its pods for strays.
        locks.push(RootLock::take(&config.state).map_err(|error| text(&error))?);
    }
    let store = Store::open(&config.root.join("haled.db")).map_err(|error| text(&error))?;
    let images = Images::open(
        image::Settings {
            root: config.root.join("images"),
            certs_dirs: config.image.certs_dirs.clone(),
            parallel_layers: config.image.parallel_layers,
        },
        store.clone(),
    )
    .map_err(|error| text(&error))?;
    let services = Arc::new(services(&config, &store, &images)?);
    let pods = recovery::recover(services).await.map_err(|error| text(&error))?;
    if let Some(plugins) = &pods.services().nri {
        let socket = config.nri.socket_path.display();
        let failed = |error| format!("cannot listen on {socket} for NRI plugins: {error}");
        plugins.serve(Arc::new(pods.clone())).await.map_err(failed)?;
    }
    let limits =
        rotation::Limits { max_size: config.log.max_size.0, max_files: config.log.max_files };
    tokio::spawn(pod::rotation::run(pods.clone(), limits));
    let settings = controller::Settings {
        logs: config.root.join("logs"),
        volumes: config.root.join("volumes"),
        seccomp_dir: config.runtime.seccomp_dir.clone(),
        dir: Some(config.manifest.dir.clone()),
    };
    let manifests = Manifests::open(pods.clone(), images.clone(), store, settings)
        .map_err(|error| text(&error))?;
    let (streams, stream_listener) =
        stream::Server::bind(stream_settings(&config)?).await.map_err(|error| text(&error))?;
    let listener = server::bind(&config.listen)
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen.display()))?;

    let mut terminate = signal(SignalKind::terminate()).map_err(|error| text(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| text(&error))?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let shutdown = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        // The sender lives as long as this function.
        drop(stopped.wait_for(|stop| *stop).await);
    };
    let count = pods.views().len();
    let services = pods.services().clone();
    let about = about(&config, &reload, &services).await;
    let face = Face::new(pods, images, manifests, streams.clone(), about);
    // Ends with the daemon, as the next one does.
    tokio::spawn(face.clone().sample());
    // Ends with the daemon: sessions are cut off, what they started is not.
    tokio::spawn(streams.serve(stream_listener));
    if !config.status.listen.is_empty() {
        // Ends with the daemon.
        tokio::spawn(status_server(&config.status.listen, face.clone()).await?);
    }
    let serving = tokio::spawn(server::serve(face, listener, shutdown(stopped)));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %config.listen.display(),
        pods = count,
        "haled serves"
    );
    notify(sd_notify::NotifyState::Ready);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(()) = hangup.recv() => reload.now(&services),
        }
    }
    notify(sd_notify::NotifyState::Stopping);
    tracing::info!("haled stops; its pods go on running");
    stop.send_replace(true);
    // Those who follow would hold the end up to its limit.
    services.changes.close();
    let served = tokio::time::timeout(DRAIN, serving).await;
    if let Some(plugins) = &services.nri
        && tokio::time::timeout(DRAIN, plugins.dismiss()).await.is_err()
    {
        tracing::warn!(seconds = DRAIN.as_secs(), "NRI plugins are cut off");
    }
    if let Err(error) = std::fs::remove_file(&config.listen) {
        tracing::warn!(listen = %config.listen.display(), %error, "cannot delete the socket");
    }
    drop(locks);
    match served {
        Ok(Ok(())) => Ok(()),
        Ok(Err(panic)) => Err(format!("serving failed: {panic}")),
        Err(_) => {
            tracing::warn!(
                seconds = DRAIN.as_secs(),
                "calls that did not end in time were cut off"
            );
            Ok(())
        }
    }
}

/// Gives what serves the status page, once it is bound.
async fn status_server(
    address: &str,
    face: Face,
) -> Result<impl Future<Output = ()> + use<>, String> {
    let failed =
        |error| format!("cannot listen on {address} for the status page (status.listen): {error}");
    let listener = status::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let server =
        status::Server::new(face, &controller::node::name(), bound.ip()).map_err(failed)?;
    tracing::info!(address = %bound, "the status page is served");
    Ok(server.serve(listener))
}

/// What Status tells: some of it is found out by trying.
async fn about(config: &Config, reload: &Reload, services: &Services) -> About {
    let mut recursive_readonly = BTreeSet::new();
    for (name, runtime) in &services.runtimes {
        if runtime.mounts_recursively_readonly().await {
            recursive_readonly.insert(name.clone());
        }
    }
    About {
        config: reload.shown(),
        seccomp_dir: config.runtime.seccomp_dir.clone(),
        restore_checkpoints: config.runtime.restore_checkpoints,
        recursive_readonly,
        user_namespaces: can_map_users(&config.root, &services.pause).await,
    }
}

fn stream_settings(config: &Config) -> Result<stream::Settings, String> {
    let settings = &config.stream;
    // Both were checked with the rest of the configuration.
    let address = settings.address.parse().map_err(|error| format!("stream.address: {error}"))?;
    let port = u16::try_from(settings.port).map_err(|error| format!("stream.port: {error}"))?;
    let tls = settings.tls_cert.clone().zip(settings.tls_key.clone());
    Ok(stream::Settings {
        tls: tls.map(|(cert, key)| stream::Files { cert, key }),
        address: std::net::SocketAddr::new(address, port),
        idle: settings.idle_limit,
        creation: settings.creation_limit,
    })
}

fn services(config: &Config, store: &Store, images: &Images) -> Result<Services, String> {
    let network = Network::new(network_settings(config));
    let monitor = helper(config, "haled-monitor")?;
    let (cgroup_driver, cgroup_parent) = cgroups(&config.runtime)?;
    let runtimes = config.runtime.handlers.iter().map(|(name, handler)| {
        let path = &handler.path;
        let runtime = Runtime {
            name: name.clone(),
            // A bare name is looked for in PATH; what isn't there is said by RuntimeReady.
            path: path.to_str().and_then(oci::resolve_path).unwrap_or_else(|| path.clone()),
            root: handler.root.clone().unwrap_or_else(|| config.state.join("runtimes").join(name)),
            keeper: monitor.clone(),
            settings: runtime_settings(&config.runtime, handler),
        };
        (name.clone(), runtime)
    });
    Ok(Services {
        store: store.clone(),
        images: images.clone(),
        network,
        runtimes: runtimes.collect(),
        monitor: monitor.clone(),
        default_handler: config.runtime.default_handler.clone(),
        pods_dir: config.state.join("pods"),
        pause: helper(config, "haled-pause")?,
        agent: agent(&helper(config, "haled-agent")?),
        cgroup_driver,
        cgroup_parent,
        backoff: ArcSwap::from_pointee(backoff(&config.healing)),
        events: events::Events::default(),
        changes: changes::Changes::new(Instant::now()),
        presence: orchestrator::Presence::new(orchestrator(&config.healing), Instant::now()),
        nri: config.nri.enable.then(|| nri::Plugins::new(plugins(&config.nri))),
    })
}

/// What executes commands in containers. Without it the OCI runtime does, at a higher cost.
fn agent(program: &Path) -> Option<Arc<Program>> {
    match Program::load(program) {
        Ok(program) => Some(Arc::new(program)),
        Err(error) => {
            let remedy = "exec probes and ExecSync go through the OCI runtime each time; is \
                          vm.memfd_noexec 2?";
            tracing::warn!(program = %program.display(), %error, remedy, "no agent can be made");
            None
        }
    }
}

/// Who makes pods' cgroups, and the parent of those that come without one.
pub(crate) fn cgroups(config: &RuntimeConfig) -> Result<(Driver, String), String> {
    let driver = match config.cgroup_driver {
        CgroupDriver::Cgroupfs => Driver::Cgroupfs,
        CgroupDriver::Systemd if systemd::is_here() => Driver::Systemd,
        // On v1 nobody has tried it.
        CgroupDriver::Auto if systemd::is_here() && cgroup::version() == cgroup::Version::V2 => {
            Driver::Systemd
        }
        CgroupDriver::Auto => Driver::Cgroupfs,
        CgroupDriver::Systemd => {
            return Err("runtime.cgroup_driver is \"systemd\", but systemd does not run this \
                        machine (there is no /run/systemd/system): set it to \"cgroupfs\" or \
                        \"auto\", or boot with systemd"
                .to_owned());
        }
    };
    let Some(parent) = &config.cgroup_parent else {
        return Ok((driver, driver.default_parent().to_owned()));
    };
    let parent = driver.parent(parent);
    Ok((driver, parent.map_err(|why| format!("runtime.cgroup_parent: {why}"))?))
}

/// What pods' networks are by these settings.
pub(crate) fn network_settings(config: &Config) -> network::Settings {
    network::Settings {
        conf_dir: config.network.conf_dir.clone(),
        plugin_dirs: config.network.plugin_dirs.clone(),
        data_dir: config.root.join("network"),
        default_bridge: config.network.default_bridge,
        bridge_name: config.network.bridge_name.clone(),
        bridge_subnet: config.network.bridge_subnet.clone(),
    }
}

fn runtime_settings(config: &RuntimeConfig, handler: &HandlerConfig) -> RuntimeSettings {
    let all_allowed = handler.privileged_without_host_devices_all_devices_allowed;
    RuntimeSettings {
        args: handler.args.clone(),
        privileged_devices: match handler.privileged_without_host_devices {
            false => PrivilegedDevices::All,
            true if all_allowed => PrivilegedDevices::Asked,
            true => PrivilegedDevices::AskedAlone,
        },
        pod_annotations: handler.pod_annotations.clone(),
        blockio_config: config.blockio_config_file.clone(),
    }
}

fn plugins(config: &NriConfig) -> nri::Settings {
    nri::Settings {
        socket: (!config.disable_connections).then(|| config.socket_path.clone()),
        plugin_path: config.plugin_path.clone(),
        plugin_config_path: config.plugin_config_path.clone(),
        registration_timeout: config.plugin_registration_timeout,
        request_timeout: config.plugin_request_timeout,
    }
}

fn backoff(healing: &HealingConfig) -> BackoffSettings {
    BackoffSettings {
        initial: healing.backoff_initial,
        max: healing.backoff_max,
        reset: healing.backoff_reset,
    }
}

fn orchestrator(healing: &HealingConfig) -> orchestrator::Settings {
    orchestrator::Settings {
        open_for: healing.orchestrator_open,
        used_within: healing.orchestrator_used,
    }
}

/// A helper: where the configuration says, else beside haled, else in ../libexec/haled.
pub(crate) fn helper(config: &Config, name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find haled: {error}"))?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let places = match &config.helper_dir {
        Some(dir) => vec![dir.clone()],
        None => vec![beside.to_owned(), beside.join("../libexec/haled")],
    };
    let found = places.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
        format!(
            "{name} is in none of {}: install it, or set helper_dir in the configuration",
            places.join(", ")
        )
    })
}

/// A directory that only root may look into: root file systems and sockets are below it.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Roots of user namespaces pass through the root directory to their root file systems, and
/// see nothing else of it.
fn let_through(root: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for private in ["logs", "volumes"].map(|name| root.join(name)) {
        make_private(&private)?;
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700))?;
    }
    let mode = std::fs::metadata(root)?.permissions().mode() | 0o011;
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(mode))
}

/// Whether pods can have user namespaces on this machine; why not is logged.
async fn can_map_users(root: &Path, pause: &Path) -> bool {
    let (root, pause) = (root.join("images"), pause.to_owned());
    let range = Range { inside: 0, outside: 1 << 16, count: 1 << 16 };
    let maps = IdMaps { uids: vec![range], gids: vec![range] };
    let tried = tokio::task::spawn_blocking(move || idmap::check(&root, &pause, &maps)).await;
    match tried.map_err(std::io::Error::other).flatten() {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, "pods can't have user namespaces of their own on this machine");
            false
        }
    }
}

/// Tells systemd, where it listens.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
