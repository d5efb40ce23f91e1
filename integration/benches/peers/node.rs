//! A runtime as the bench sees it: a socket that speaks the CRI, and the processes behind it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use haled::proto::cri;
use haled::proto::cri::runtime_service_client::RuntimeServiceClient;
use haled::sys::cgroup;
use tonic::transport::{Channel, Endpoint};

use crate::daemon::BUSYBOX;
use crate::processes::pss_of_living;

#[derive(Clone, Copy)]
pub enum Network {
    Host,
    Bridge,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host network",
            Self::Bridge => "CNI bridge",
        })
    }
}

pub struct Node {
    name: &'static str,
    pub pid: u32,
    dir: PathBuf,
    /// All its pods are below; so is the daemon itself, and what it starts beside them.
    cgroup: String,
    client: RuntimeServiceClient<Channel>,
}

impl Node {
    pub fn new(name: &'static str, pid: u32, dir: PathBuf, socket: PathBuf, cgroup: &str) -> Self {
        let of_daemon = format!("{cgroup}/daemon");
        cgroup::create(&of_daemon).unwrap();
        cgroup::join(&of_daemon, pid.try_into().unwrap()).unwrap();
        Self { name, pid, dir, cgroup: cgroup.to_owned(), client: client(socket) }
    }

    /// What the daemon, its pods and all it has started have used.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(haled::stats::cpu_nanos(&self.cgroup).unwrap())
    }

    /// The PSS of all its processes but the daemon, in kB: of those in its pods' cgroups, and of
    /// those that were told its directory.
    pub fn memory_beside(&self) -> usize {
        let mut sum = 0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            let read = |file: &str| {
                let content = std::fs::read(entry.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&content).into_owned()
            };
            let is_its = read("cmdline").contains(self.dir.to_str().unwrap())
                || read("cgroup").contains(&format!("{}/", self.cgroup));
            if is_its && pid != self.pid && !read("cmdline").starts_with("nsenter") {
                sum += pss_of_living(pid).unwrap_or(0);
            }
        }
        sum
    }

    pub fn sandbox(&self, name: &str, network: Network) -> cri::PodSandboxConfig {
        let network = match network {
            Network::Host => cri::NamespaceMode::Node,
            Network::Bridge => cri::NamespaceMode::Pod,
        };
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            log_directory: self.dir.join("logs").join(name).to_str().unwrap().into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces(network)),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// What a failed call says.
    fn failed<T>(&self, error: &tonic::Status) -> T {
        panic!("{}: {error}", self.name)
    }

    pub async fn run(&self, config: &cri::PodSandboxConfig) -> String {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let answer = self.client.clone().run_pod_sandbox(request).await;
        answer.unwrap_or_else(|error| self.failed(&error)).into_inner().pod_sandbox_id
    }

    /// Creates and starts a container that sleeps until it is told to end.
    pub async fn start(&self, pod: &str, sandbox: &cri::PodSandboxConfig, name: &str) -> String {
        let security = sandbox.linux.as_ref().unwrap().security_context.as_ref().unwrap();
        let script = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: BUSYBOX.into(), ..Default::default() }),
            command: ["/bin/sh", "-c", script].map(String::from).into(),
            log_path: format!("{name}.log"),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: security.namespace_options.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: Some(sandbox.clone()),
        };
        let answer = self.client.clone().create_container(request).await;
        let id = answer.unwrap_or_else(|error| self.failed(&error)).into_inner().container_id;
        let request = cri::StartContainerRequest { container_id: id.clone() };
        let answer = self.client.clone().start_container(request).await;
        answer.unwrap_or_else(|error| self.failed(&error));
        id
    }

    pub async fn stop(&self, container: &str) {
        let request = cri::StopContainerRequest { container_id: container.into(), timeout: 30 };
        let answer = self.client.clone().stop_container(request).await;
        answer.unwrap_or_else(|error| self.failed(&error));
    }

    pub async fn exec(&self, container: &str) {
        let request = cri::ExecSyncRequest {
            container_id: container.into(),
            cmd: vec!["/bin/true".into()],
            timeout: 30,
        };
        let answer = self.client.clone().exec_sync(request).await;
        let answer = answer.unwrap_or_else(|error| self.failed(&error)).into_inner();
        assert_eq!(answer.exit_code, 0, "{}: {answer:?}", self.name);
    }

    pub async fn stop_pod(&self, pod: &str) {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod.into() };
        let answer = self.client.clone().stop_pod_sandbox(request).await;
        answer.unwrap_or_else(|error| self.failed(&error));
    }

    /// Stops it first, where it runs.
    pub async fn remove_pod(&self, pod: &str) {
        self.stop_pod(pod).await;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: pod.into() };
        let answer = self.client.clone().remove_pod_sandbox(request).await;
        answer.unwrap_or_else(|error| self.failed(&error));
    }

    /// How many containers there are.
    pub async fn list(&self) -> usize {
        let request = cri::ListContainersRequest::default();
        let answer = self.client.clone().list_containers(request).await;
        answer.unwrap_or_else(|error| self.failed(&error)).into_inner().containers.len()
    }

    pub async fn stats(&self) {
        let request = cri::ListContainerStatsRequest::default();
        let answer = self.client.clone().list_container_stats(request).await;
        answer.unwrap_or_else(|error| self.failed(&error));
    }
}

fn namespaces(network: cri::NamespaceMode) -> cri::NamespaceOption {
    cri::NamespaceOption {
        network: network.into(),
        pid: cri::NamespaceMode::Container.into(),
        ..Default::default()
    }
}

fn client(socket: PathBuf) -> RuntimeServiceClient<Channel> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
    RuntimeServiceClient::new(channel).max_decoding_message_size(16 << 20)
}
