//! Pods with their drivers in this process, on the host's network: for what a manifest can
//! say and the CRI can't.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haled::container::config::ContainerConfig;
use haled::container::exec::Program;
use haled::container::state::State;
use haled::health::{BackoffSettings, ContainerPolicy, Policy, Probe, Probes, RestartPolicy};
use haled::id::SandboxId;
use haled::image::{self, Images};
use haled::network::{self, Network};
use haled::oci::Runtime;
use haled::oci::model::{Mount, Sharing};
use haled::pod::config::SandboxConfig;
use haled::pod::record::Origin;
use haled::pod::view::ContainerView;
use haled::pod::{Pods, Services, events, orchestrator, recovery};
use haled::store::Store;

use crate::daemon::{BUSYBOX, PATIENCE, busybox, helper_dir};

pub(super) struct House {
    pub(super) pods: Pods,
    dir: tempfile::TempDir,
    cgroup: String,
}

impl House {
    pub(super) async fn open() -> Self {
        let dir = tempfile::Builder::new().prefix("haled-house-").tempdir().unwrap();
        let cgroup = format!("/{}", dir.path().file_name().unwrap().to_str().unwrap());
        let store = Store::open(&dir.path().join("haled.db")).unwrap();
        let settings = image::Settings {
            root: dir.path().join("images"),
            certs_dirs: Vec::new(),
            parallel_layers: 1,
        };
        let images = Images::open(settings, store.clone()).unwrap();
        images.import_stream(std::io::Cursor::new(busybox::tar()), Some(BUSYBOX)).await.unwrap();
        let network = Network::new(network::Settings {
            conf_dir: dir.path().join("cni"),
            plugin_dirs: Vec::new(),
            data_dir: dir.path().join("network"),
            default_bridge: false,
            bridge_name: "unused0".into(),
            bridge_subnet: "10.88.0.0/16".into(),
        });
        let runc = Runtime {
            name: "runc".into(),
            path: haled::oci::resolve_path("runc").unwrap(),
            root: dir.path().join("runtimes"),
            keeper: helper_dir().join("haled-monitor"),
            settings: haled::oci::RuntimeSettings::default(),
        };
        let services = Services {
            store,
            images,
            network,
            runtimes: BTreeMap::from([("runc".into(), runc)]),
            default_handler: "runc".into(),
            pods_dir: dir.path().join("pods"),
            monitor: helper_dir().join("haled-monitor"),
            pause: helper_dir().join("haled-pause"),
            agent: Some(Arc::new(Program::load(&helper_dir().join("haled-agent")).unwrap())),
            cgroup_driver: haled::pod::cgroup::Driver::Cgroupfs,
            cgroup_parent: cgroup.clone(),
            backoff: arc_swap::ArcSwap::from_pointee(BackoffSettings {
                initial: Duration::from_millis(300),
                max: Duration::from_secs(1),
                reset: Duration::from_mins(10),
            }),
            events: events::Events::default(),
            changes: haled::pod::changes::Changes::new(std::time::Instant::now()),
            nri: None,
            presence: orchestrator::Presence::new(
                orchestrator::Settings {
                    open_for: Duration::from_secs(10),
                    used_within: Duration::from_secs(20),
                },
                Instant::now(),
            ),
        };
        let pods = recovery::recover(Arc::new(services)).await.unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        Self { pods, dir, cgroup }
    }

    /// Where containers see `/out`.
    pub(super) fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    /// Runs a sandbox as a manifest's.
    pub(super) async fn run(&self, policy: Policy) -> SandboxId {
        let config = SandboxConfig {
            name: "pod".into(),
            namespace: "default".into(),
            uid: "uid".into(),
            log_directory: self.dir.path().join("logs"),
            network: Sharing::Node,
            ..SandboxConfig::default()
        };
        self.pods.run(config, Origin::Manifest, Some(policy)).await.unwrap()
    }

    /// Starts a container that runs `script` with `/out`, and 5 s to stop.
    pub(super) async fn start(&self, pod: &SandboxId, name: &str, script: &str) {
        let id = self.pods.create(pod, self.container(name, script)).await.unwrap();
        self.pods.start(&id).await.unwrap();
    }

    pub(super) fn container(&self, name: &str, script: &str) -> ContainerConfig {
        let grace = ("io.kubernetes.pod.terminationGracePeriod".to_owned(), "5".to_owned());
        let out = Mount {
            container_path: "/out".into(),
            host_path: self.dir.path().join("out"),
            ..Mount::default()
        };
        ContainerConfig {
            name: name.into(),
            attempt: 0,
            image: BUSYBOX.into(),
            user_image: BUSYBOX.into(),
            command: ["/bin/sh", "-c", script].map(String::from).into(),
            args: Vec::new(),
            working_dir: String::new(),
            env: Vec::new(),
            mounts: vec![out],
            devices: Vec::new(),
            cdi_devices: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([grace]),
            log_path: format!("{name}/0.log").into(),
            stdin: false,
            stdin_once: false,
            tty: false,
            pid_mode: haled::oci::model::PidMode::Container,
            security: haled::oci::model::Security::default(),
            resources: haled::oci::model::Resources::default(),
            checkpoint: None,
            stop_signal: None,
        }
    }

    /// The newest attempt of a name, as soon as `fits` says so.
    pub(super) async fn when(
        &self,
        pod: &SandboxId,
        name: &str,
        fits: impl Fn(&ContainerView) -> bool,
    ) -> Arc<ContainerView> {
        let began = Instant::now();
        loop {
            let view = self.pods.pod(pod.as_str()).unwrap();
            let newest = view.containers.iter().filter(|c| c.config.name == name);
            let newest = newest.max_by_key(|c| c.config.attempt);
            if let Some(newest) = newest.filter(|newest| fits(newest)) {
                return newest.clone();
            }
            assert!(began.elapsed() < PATIENCE, "never came: {:?}\n{:?}", newest, self.events());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reason and message of every event so far.
    pub(super) fn events(&self) -> Vec<(&'static str, String)> {
        let events = self.pods.services().events.list("", "");
        events.into_iter().map(|event| (event.reason, event.message)).collect()
    }

    pub(super) async fn close(self, pod: &SandboxId) {
        self.pods.remove_sandbox(pod).await.unwrap();
    }
}

impl Drop for House {
    /// Ends what a failed test leaves.
    fn drop(&mut self) {
        for dir in std::fs::read_dir(self.dir.path().join("pods")).into_iter().flatten().flatten() {
            if let Ok(pid) = std::fs::read_to_string(dir.path().join("monitor.pid"))
                && let Ok(pid) = pid.trim().parse()
            {
                let pid = nix::unistd::Pid::from_raw(pid);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
        drop(haled::sys::cgroup::kill(&self.cgroup));
        drop(haled::sys::cgroup::remove(&self.cgroup));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(self.dir.path())) {
            drop(haled::sys::mount::detach(Path::new(point)));
        }
    }
}

/// Runs in state `Running`.
pub(super) fn runs(container: &ContainerView) -> bool {
    matches!(container.state, State::Running(_))
}

/// Exit code and reason, once it has ended.
pub(super) fn end(container: &ContainerView) -> Option<(i32, &str)> {
    match &container.state {
        State::Exited(ended) => Some((ended.code, ended.reason.as_str())),
        _ => None,
    }
}

/// A policy with one container of its own kind.
pub(super) fn policy(restart: RestartPolicy, name: &str, own: ContainerPolicy) -> Policy {
    Policy {
        restart,
        heal: haled::health::Heal::Restart,
        containers: BTreeMap::from([(name.to_owned(), own)]),
        ..Policy::default()
    }
}

/// The same with a liveness probe.
pub(super) fn with_liveness(mut policy: Policy, name: &str, probe: Probe) -> Policy {
    let probes = Probes { liveness: Some(probe), ..Probes::default() };
    policy.probes.insert(name.to_owned(), probes);
    policy
}
