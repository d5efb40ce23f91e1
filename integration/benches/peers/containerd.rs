//! A containerd on private directories, in namespaces of its own, as its packages configure it
//! but for where things lie.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::node::Node;
use crate::built;
use crate::daemon::{BUSYBOX, PATIENCE, busybox};

/// What it runs in place of a pause process of its own.
const PAUSE: &str = "docker.io/library/pause:latest";

pub struct Containerd {
    holder: Child,
    process: Child,
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Containerd {
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("haled-peer-").tempdir().unwrap();
        let cgroup = format!("/{}", dir.path().file_name().unwrap().to_str().unwrap());
        std::fs::write(dir.path().join("config.toml"), config(dir.path())).unwrap();
        write_network(&dir.path().join("cni"), &dir.path().join("addresses"));
        // Its shims have their sockets below /run, whatever the configuration says.
        let ready = dir.path().join("ready");
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--ipc", "--propagation", "private", "sh", "-c"])
            .arg("mount -t tmpfs tmpfs /run && ip link set lo up && : > \"$0\" && exec sleep 3600")
            .arg(&ready)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare(1) is there");
        wait_for("namespaces", || ready.exists()).await;
        let log = std::fs::File::create(dir.path().join("containerd.log")).unwrap();
        let path = std::env::join_paths(
            std::iter::once(built("containerd").parent().unwrap().to_owned())
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let process = Command::new("nsenter")
            .args(["--net", "--mount", "--ipc", "--target", &holder.id().to_string()])
            .arg(built("containerd"))
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .env("PATH", path.unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let peer = Self { holder, process, dir, cgroup };
        wait_for("containerd's socket", || peer.socket().exists()).await;
        peer.import(BUSYBOX, &busybox::tar(), "/bin/sh").await;
        peer.import(PAUSE, &pause_tar(peer.dir.path()), "/pause").await;
        peer
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    pub fn node(&self) -> Node {
        let (pid, dir) = (self.process.id(), self.dir.path().to_owned());
        Node::new("containerd", pid, dir, self.socket(), &self.cgroup)
    }

    /// Puts in an image of one layer.
    async fn import(&self, name: &str, layer: &[u8], entrypoint: &str) {
        let archive = self.dir.path().join("image.tar");
        std::fs::write(&archive, archive_of(name, layer, entrypoint)).unwrap();
        let began = Instant::now();
        loop {
            let output = Command::new(built("ctr"))
                .arg("--address")
                .arg(self.socket())
                .args(["--namespace", "k8s.io", "images", "import", "--local"])
                .arg(&archive)
                .output()
                .unwrap();
            if output.status.success() {
                return;
            }
            // It has its socket before it serves.
            assert!(began.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&output.stderr));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Containerd {
    /// Shims outlive it: they end with their pods' processes or are in the daemon's cgroup.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("containerd.log"));
            eprintln!("--- containerd's log:\n{}", log.unwrap_or_default());
        }
        drop(self.process.kill());
        drop(self.process.wait());
        drop(haled::sys::cgroup::kill(&self.cgroup));
        drop(haled::sys::cgroup::remove(&self.cgroup));
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

async fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Its defaults, in private directories, without what a machine may lack or this doesn't use.
fn config(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 3
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
address = "{dir}/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
# Without CAP_SYS_RESOURCE no score can be lowered.
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
conf_dir = "{dir}/cni"
"#
    )
}

/// One bridge with masquerading, as a node has.
pub fn write_network(conf_dir: &Path, addresses: &Path) {
    std::fs::create_dir_all(conf_dir).unwrap();
    let conf = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "plugins": [{
            "type": "bridge",
            "bridge": "bench0",
            "isGateway": true,
            "ipMasq": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.66.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": addresses,
            },
        }],
    });
    std::fs::write(conf_dir.join("10-bench.conflist"), conf.to_string()).unwrap();
}

/// A static program that does nothing until it is told to end, as the pause image has.
fn pause_tar(dir: &Path) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/images/src/pause.c");
    let program = dir.join("pause");
    let built =
        Command::new("cc").args(["-Os", "-static", "-s", "-o"]).arg(&program).arg(source).status();
    assert!(built.unwrap().success(), "cc");
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name(&program, "pause").unwrap();
    tar.into_inner().unwrap()
}

/// An archive as `docker save` writes it.
fn archive_of(name: &str, layer: &[u8], entrypoint: &str) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": {"Entrypoint": [entrypoint]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(layer))]},
    })
    .to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest = serde_json::json!([
        {"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}
    ])
    .to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [
        (config_name.as_str(), config.as_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn hex(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
