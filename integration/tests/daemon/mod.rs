//! A real haled on a private root directory, in network and mount namespaces of its own, with
//! a cgroup of its own; and a CRI client for it.
//!
//! The namespaces are held by a process that outlives the daemon, so that a daemon can be
//! killed and started again where it was.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use haled::proto::cri;
use haled::proto::cri::image_service_client::ImageServiceClient;
use haled::proto::cri::runtime_service_client::RuntimeServiceClient;
use haled::proto::haled as wire;
use haled::proto::haled::haled_client::HaledClient;
use haled::proto::haled::images_client::ImagesClient;
use haled::sys::systemd::{self, Slice};
use tonic::transport::{Channel, Endpoint};

pub mod busybox;

/// How long anything may take that should be quick, on an emulated or busy machine too; only
/// there so that a failure ends.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// The image every test has.
pub const BUSYBOX: &str = "docker.io/library/busybox:latest";

pub struct Daemon {
    holder: Child,
    process: Option<Child>,
    dir: tempfile::TempDir,
    parent: Parent,
    /// Found before all else in the daemon's PATH.
    pub programs: Option<PathBuf>,
}

/// Whether haled has systemd make cgroups, where the settings don't say.
pub fn systemd_makes_cgroups() -> bool {
    systemd::is_here() && haled::sys::cgroup::version() == haled::sys::cgroup::Version::V2
}

/// What a test's pods are in.
pub struct Parent {
    /// In the form of the cgroup driver that haled chooses on this machine.
    pub text: String,
    /// Its cgroup.
    pub cgroup: String,
}

impl Parent {
    /// One below it, or where that is empty one of its own.
    fn of(above: &str, name: &str) -> Self {
        if systemd_makes_cgroups() {
            let above = above.strip_suffix(".slice").map(|above| format!("{above}-"));
            let name = name.replace('-', "_");
            let slice =
                Slice::parse(&format!("{}{name}.slice", above.unwrap_or_default())).unwrap();
            return Self { text: slice.name().to_owned(), cgroup: slice.cgroup() };
        }
        let path = format!("{above}/{name}");
        Self { text: path.clone(), cgroup: path }
    }

    /// Kills what is in it, and removes it.
    fn remove(&self) {
        drop(haled::sys::cgroup::kill(&self.cgroup));
        if systemd_makes_cgroups() {
            drop(Command::new("systemctl").args(["stop", &self.text]).status());
        }
        drop(haled::sys::cgroup::remove(&self.cgroup));
    }
}

impl Daemon {
    /// Starts one with the built-in bridge and the busybox image.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with more lines in its configuration, where `{dir}` stands for its directory.
    pub async fn start_with(settings: &str) -> Self {
        Self::start_so("default_bridge = true", settings).await
    }

    /// The same with no network at all.
    pub async fn start_without_network() -> Self {
        Self::start_so("", "").await
    }

    pub async fn start_so(network: &str, settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("haled-test-").tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let ready = dir.path().join("namespaces-ready");
        let holder = namespaces(&ready);
        let parent = Parent::of("", &name);
        let mut daemon = Self { holder, process: None, dir, parent, programs: None };
        daemon.until("namespaces", || ready.exists()).await;
        daemon.configure(network, settings);
        daemon.launch().await;
        busybox::import(&daemon).await;
        daemon
    }

    /// A reboot: every process, mount and namespace goes, and the run directory with them.
    /// What is on disk stays.
    pub async fn reboot(&mut self) {
        self.kill();
        self.end_pods();
        self.parent.remove();
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
        std::fs::remove_dir_all(self.path("state")).unwrap();
        drop(std::fs::remove_file(self.socket()));
        let ready = self.path("namespaces-ready");
        std::fs::remove_file(&ready).unwrap();
        self.holder = namespaces(&ready);
        self.until("namespaces", || ready.exists()).await;
        self.launch().await;
    }

    /// kill -9 of every monitor.
    fn end_pods(&self) {
        for dir in std::fs::read_dir(self.path("state/pods")).into_iter().flatten().flatten() {
            if let Ok(pid) = std::fs::read_to_string(dir.path().join("monitor.pid"))
                && let Ok(pid) = pid.trim().parse()
            {
                let pid = nix::unistd::Pid::from_raw(pid);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
    }

    fn configure(&self, network: &str, settings: &str) {
        let text = format!(
            "{}\n[runtime]\ncgroup_parent = \"{}\"\n[network]\n{network}\nconf_dir = \"{}\"\n\
             [image]\ncerts_dirs = [\"{}\"]\n",
            format_args!("helper_dir = \"{}\"\n", helper_dir().display()),
            self.parent.text,
            self.path("cni").display(),
            self.path("certs.d").display(),
        );
        let settings = settings.replace("{dir}", &self.dir.path().display().to_string());
        std::fs::write(self.path("config.toml"), text + &settings).unwrap();
    }

    /// Starts the daemon in its namespaces and waits until it serves.
    pub async fn launch(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("haled.log"))
            .unwrap();
        let child = Command::new("nsenter")
            .args(["--net", "--mount", "--ipc", "--target", &self.holder.id().to_string()])
            .arg(env!("CARGO_BIN_EXE_haled"))
            .arg("--config")
            .arg(self.path("config.toml"))
            .arg("--root")
            .arg(self.path("root"))
            .arg("--state")
            .arg(self.path("state"))
            .arg("--listen")
            .arg(self.socket())
            .env("PATH", self.search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("haled ended with {status}: {}", self.log());
            }
            if self.socket().exists()
                && let Ok(mut client) = self.try_runtime().await
                && client.version(cri::VersionRequest::default()).await.is_ok()
            {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "haled does not serve: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn search_path(&self) -> std::ffi::OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = self.programs.iter().cloned().chain(std::env::split_paths(&path));
        std::env::join_paths(dirs).unwrap()
    }

    /// The daemon's own.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// kill -9: nothing can be tidied up.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM; gives whether it ended with 0.
    pub fn terminate(&mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.process_id().try_into().unwrap());
        let mut process = self.process.take().expect("it runs");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        process.wait().unwrap().success()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("haled.sock")
    }

    /// The cgroup that all of its pods are below.
    pub fn cgroup(&self) -> &str {
        &self.parent.cgroup
    }

    /// A cgroup parent below that.
    pub fn parent(&self, name: &str) -> Parent {
        Parent::of(&self.parent.text, name)
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("haled.log")).unwrap_or_default()
    }

    /// A command in the daemon's own namespaces: what a process on the node would see.
    pub fn on_node(&self, command: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .args(["--net", "--mount", "--ipc", "--target", &self.holder.id().to_string()])
            .args(["sh", "-c", command])
            .stdin(Stdio::null());
        nsenter
    }

    /// A socket that listens on the node's loopback.
    pub fn listener(&self) -> std::net::TcpListener {
        self.listener_on("127.0.0.1")
    }

    /// The same on another address of the node.
    pub fn listener_on(&self, address: &'static str) -> std::net::TcpListener {
        let network = PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()));
        haled::sys::netns::within(&network, || std::net::TcpListener::bind((address, 0))).unwrap()
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let socket = self.socket();
        Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let socket = socket.clone();
                async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
                }
            }))
            .await
    }

    async fn try_runtime(&self) -> Result<RuntimeServiceClient<Channel>, tonic::transport::Error> {
        let client = RuntimeServiceClient::new(self.channel().await?);
        Ok(client.max_decoding_message_size(16 << 20))
    }

    pub async fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.try_runtime().await.unwrap()
    }

    pub async fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel().await.unwrap())
    }

    pub async fn haled(&self) -> HaledClient<Channel> {
        HaledClient::new(self.channel().await.unwrap())
    }

    /// haled's own service for images.
    pub async fn own_images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel().await.unwrap())
    }

    /// Waits until `done`, looking often.
    pub async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "never came: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A sandbox configuration with a network of its own.
    pub fn sandbox(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.path("logs").join(name).to_str().unwrap().into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: self.parent.text.clone(),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// The same on the host's network.
    pub fn host_sandbox(&self, name: &str) -> cri::PodSandboxConfig {
        let mut config = self.sandbox(name);
        config.hostname = String::new();
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap().network = cri::NamespaceMode::Node.into();
        config
    }

    /// Runs a sandbox and gives its id.
    pub async fn run(&self, config: &cri::PodSandboxConfig) -> String {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let response = self.runtime().await.run_pod_sandbox(request).await;
        response
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
            .into_inner()
            .pod_sandbox_id
    }

    /// A container that runs `script` in a shell.
    pub fn container(name: &str, script: &str) -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: BUSYBOX.into(), ..Default::default() }),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            log_path: format!("{name}/0.log"),
            ..Default::default()
        }
    }

    /// The same for a sandbox on the host's network.
    pub fn host_container(name: &str, script: &str) -> cri::ContainerConfig {
        let mut container = Self::container(name, script);
        container.linux = Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    network: cri::NamespaceMode::Node.into(),
                    pid: cri::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        });
        container
    }

    /// Creates and starts a container, and gives its id.
    pub async fn run_container(&self, sandbox: &str, config: cri::ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.unwrap();
        let request = cri::StartContainerRequest { container_id: id.clone() };
        if let Err(error) = self.runtime().await.start_container(request).await {
            panic!("{error}\n{}", self.log());
        }
        id
    }

    /// Pulls an image through the CRI and gives the name by which the kubelet then has it.
    pub async fn pull(&self, image: &str) -> Result<String, tonic::Status> {
        let image = Some(cri::ImageSpec { image: image.into(), ..Default::default() });
        let request = cri::PullImageRequest { image, ..Default::default() };
        Ok(self.images().await.pull_image(request).await?.into_inner().image_ref)
    }

    /// Streams an image's archive to it.
    pub async fn import(
        &self,
        name: &str,
        archive: &[u8],
    ) -> Result<Vec<wire::ImportedImage>, tonic::Status> {
        let chunk = |chunk: &[u8]| wire::ImportImageRequest {
            reference: name.to_owned(),
            chunk: chunk.to_vec().into(),
            ..Default::default()
        };
        let messages: Vec<_> = archive.chunks(1 << 20).map(chunk).collect();
        let mut own = self.own_images().await;
        let mut answers = own.import(tokio_stream::iter(messages)).await?.into_inner();
        let mut images = Vec::new();
        while let Some(answer) = answers.message().await? {
            images = answer.images;
        }
        Ok(images)
    }

    pub async fn create(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.runtime().await.create_container(request).await?.into_inner().container_id)
    }

    /// The pid of a container's first process, on the node.
    pub async fn pid(&self, container: &str) -> i32 {
        let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: true };
        let response = self.runtime().await.container_status(request).await.unwrap();
        let info = &response.into_inner().info["info"];
        let info: serde_json::Value = serde_json::from_str(info).unwrap();
        info["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// kill -9 of a pod's monitor.
    pub fn kill_monitor(&self, sandbox: &str) {
        let file = self.path("state/pods").join(sandbox).join("monitor.pid");
        let pid = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    pub async fn status(&self, container: &str) -> cri::ContainerStatus {
        let request =
            cri::ContainerStatusRequest { container_id: container.into(), verbose: false };
        let response = self.runtime().await.container_status(request).await;
        response.unwrap().into_inner().status.unwrap()
    }

    /// Waits until a container has exited.
    pub async fn exited(&self, container: &str) -> cri::ContainerStatus {
        let began = Instant::now();
        loop {
            let status = self.status(container).await;
            if status.state() == cri::ContainerState::ContainerExited {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not exit: {status:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Every container of a sandbox, the newest first.
    pub async fn containers(&self, sandbox: &str) -> Vec<cri::Container> {
        let filter = cri::ContainerFilter { pod_sandbox_id: sandbox.into(), ..Default::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        self.runtime().await.list_containers(request).await.unwrap().into_inner().containers
    }

    /// Every sandbox.
    pub async fn pods(&self) -> Vec<cri::PodSandbox> {
        let request = cri::ListPodSandboxRequest::default();
        self.runtime().await.list_pod_sandbox(request).await.unwrap().into_inner().items
    }

    /// Waits until there is no sandbox.
    pub async fn no_pods(&self) {
        let began = Instant::now();
        while !self.pods().await.is_empty() {
            assert!(began.elapsed() < PATIENCE, "a pod stays: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a container runs as this attempt, and gives its id.
    pub async fn attempt(&self, sandbox: &str, name: &str, attempt: u32) -> String {
        let began = Instant::now();
        loop {
            let all = self.containers(sandbox).await;
            let running = all.iter().find(|container| {
                container.state() == cri::ContainerState::ContainerRunning
                    && container
                        .metadata
                        .as_ref()
                        .is_some_and(|meta| meta.name == name && meta.attempt == attempt)
            });
            if let Some(running) = running {
                return running.id.clone();
            }
            let log = self.log();
            assert!(began.elapsed() < PATIENCE, "no attempt {attempt} of {name}: {all:?}\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a running container's status gives this reason.
    pub async fn reason(&self, container: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let status = self.status(container).await;
            if status.reason == wanted {
                return;
            }
            let log = self.log();
            assert!(began.elapsed() < PATIENCE, "not {wanted}: {status:?}\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command in a container: exit code and standard output.
    pub async fn exec(&self, container: &str, command: &[&str]) -> (i32, String) {
        let response = self.try_exec(container, command, 0).await;
        let response = response.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        (response.exit_code, String::from_utf8_lossy(&response.stdout).into_owned())
    }

    pub async fn try_exec(
        &self,
        container: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<cri::ExecSyncResponse, tonic::Status> {
        let request = cri::ExecSyncRequest {
            container_id: container.into(),
            cmd: command.iter().map(ToString::to_string).collect(),
            timeout,
        };
        Ok(self.runtime().await.exec_sync(request).await?.into_inner())
    }

    pub async fn stop(&self, container: &str, timeout: i64) {
        let request = cri::StopContainerRequest { container_id: container.into(), timeout };
        self.runtime().await.stop_container(request).await.unwrap();
    }

    pub async fn stop_pod(&self, sandbox: &str) {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.into() };
        if let Err(error) = self.runtime().await.stop_pod_sandbox(request).await {
            panic!("{error}\n{}", self.log());
        }
    }

    pub async fn remove_pod(&self, sandbox: &str) {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.into() };
        if let Err(error) = self.runtime().await.remove_pod_sandbox(request).await {
            panic!("{error}\n{}", self.log());
        }
    }

    /// The same, asked again as a kubelet does until it succeeds.
    pub async fn remove_pod_at_last(&self, sandbox: &str) {
        let began = Instant::now();
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.into() };
        while let Err(error) = self.runtime().await.remove_pod_sandbox(request.clone()).await {
            assert!(began.elapsed() < PATIENCE, "{error}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn pod_ip(&self, sandbox: &str) -> String {
        let request =
            cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.into(), verbose: false };
        let response = self.runtime().await.pod_sandbox_status(request).await.unwrap();
        response.into_inner().status.unwrap().network.unwrap().ip
    }

    /// The lines of a container's log without their time, stream and tag.
    pub fn log_lines(&self, pod: &str, path: &str) -> Vec<String> {
        let path = self.path("logs").join(pod).join(path);
        let text = std::fs::read(path).unwrap_or_default();
        let mut lines = vec![String::new()];
        for line in String::from_utf8_lossy(&text).lines() {
            let mut parts = line.splitn(4, ' ');
            let (tag, content) = (parts.nth(2).unwrap_or("F"), parts.next().unwrap_or(""));
            lines.last_mut().unwrap().push_str(content);
            if tag == "F" {
                lines.push(String::new());
            }
        }
        lines.pop();
        lines
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &str) -> Result<wire::ApplyResponse, tonic::Status> {
        let request = wire::ApplyRequest {
            manifest: manifest.as_bytes().to_vec().into(),
            source: "test.yaml".into(),
            dry_run: false,
        };
        Ok(self.haled().await.apply(request).await?.into_inner())
    }

    /// No process, mount, interface but the bridge, rule, cgroup or file of a pod.
    pub async fn nothing_is_left(&self) {
        self.until("an empty cgroup", || {
            haled::sys::cgroup::processes(self.cgroup()).is_ok_and(|all| all.is_empty())
        })
        .await;
        let pods = std::fs::read_dir(self.path("state/pods")).unwrap().count();
        assert_eq!(pods, 0, "run directories are left");
        let rootfs = self.path("root/images/rootfs");
        assert_eq!(
            std::fs::read_dir(rootfs).map_or(0, Iterator::count),
            0,
            "root file systems are left"
        );
        let see = |command: &str| {
            let output = self.on_node(command).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let dir = self.path("").display().to_string();
        let mounts = see("cat /proc/self/mountinfo");
        assert!(!mounts.contains(&dir), "mounts are left: {mounts}");
        assert!(!see("ip -o link").contains("veth"), "an interface is left");
        assert!(!see("iptables-save").contains("CNI-DN-"), "port mappings are left");
        let addresses = see(&format!("ls {dir}/root/network/addresses/haled-bridge"));
        assert!(!addresses.contains("10."), "addresses are left: {addresses}");
    }

    /// Waits until the only container of a manifest's pod is healthy after so many restarts.
    pub async fn settled(&self, pod: &str, restarts: u32) -> wire::Container {
        let began = Instant::now();
        loop {
            let there = self.pod(pod).await;
            if let Some(container) = there.as_ref().and_then(|pod| pod.containers.first())
                && container.restart_count == restarts
                && container.reason == "Healthy"
            {
                return container.clone();
            }
            let log = self.log();
            assert!(began.elapsed() < PATIENCE, "not healthy after {restarts}: {there:?}\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A pod as halectl sees it.
    pub async fn pod(&self, name: &str) -> Option<wire::Pod> {
        let request = wire::ListPodsRequest { name: name.into(), ..Default::default() };
        self.haled().await.list_pods(request).await.unwrap().into_inner().pods.pop()
    }
}

/// Where the helpers have been built (`make helpers`).
pub fn helper_dir() -> PathBuf {
    let dir = std::env::var_os("HALED_HELPER_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/helper"), PathBuf::from);
    assert!(dir.join("haled-agent").is_file(), "run `make helpers` first: {}", dir.display());
    dir
}

/// The process that holds a daemon's namespaces.
fn namespaces(ready: &Path) -> Child {
    Command::new("unshare")
        .args(["--net", "--mount", "--ipc", "--propagation", "private", "sh", "-c"])
        .arg("ip link set lo up && : > \"$0\" && exec sleep 3600")
        .arg(ready)
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare(1) is there")
}

impl Drop for Daemon {
    /// Ends every process of the test by pid, whatever state the test left it in.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- haled's log:\n{}", self.log());
        }
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        // Monitors first, so that nothing is reaped or recorded any more.
        self.end_pods();
        self.parent.remove();
        // With the last process the namespaces go, and with them mounts and interfaces.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
