//! A pod's run directory, bundles and cgroup, removed whatever happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use haled::monitor::client::{Monitor, Notice};
use haled::monitor::wire::{Event, Exit, SandboxSpec, StartSpec};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What no test comes near to on a machine that works.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);

/// The helpers, built as operators get them.
fn helpers() -> (PathBuf, PathBuf) {
    let built = std::env::var_os("HALED_HELPER_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/helper"), PathBuf::from);
    let pause = built.join("haled-pause");
    assert!(pause.exists(), "{} is missing: run `make helpers`", pause.display());
    // The monitor of this very build, unless asked for the other one.
    let monitor = match std::env::var_os("HALED_TEST_BUILT_MONITOR") {
        Some(_) => built.join("haled-monitor"),
        None => PathBuf::from(env!("CARGO_BIN_EXE_haled-monitor")),
    };
    (monitor, pause)
}

pub(super) struct House {
    dir: tempfile::TempDir,
    cgroup: String,
    pub(super) executable: PathBuf,
    pub(super) pause: PathBuf,
}

impl House {
    pub(super) fn new() -> Self {
        let (executable, pause) = helpers();
        let dir = tempfile::Builder::new().prefix("haled-monitor-test-").tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap();
        let cgroup = format!("haled-test-{}", name.rsplit('-').next().unwrap());
        for sub in ["run", "logs", "runc"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self { dir, cgroup, executable, pause }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    pub(super) async fn spawn(&self) -> (Monitor, Notices) {
        let (sender, receiver) = mpsc::channel(64);
        let monitor =
            Monitor::spawn(self.executable.clone(), self.run_dir(), sender).await.unwrap();
        (monitor, Notices(receiver))
    }

    pub(super) fn sandbox_spec(&self) -> SandboxSpec {
        SandboxSpec {
            pause: self.pause.clone(),
            network: true,
            ipc: true,
            uts: true,
            pid: false,
            hostname: "a-pod".into(),
            sysctls: Vec::new(),
            oom_score_adj: -998,
            userns: None,
            cgroup: None,
            label: String::new(),
            pins: self.path("pins"),
        }
    }

    /// A bundle whose init runs a shell script, and how to start it.
    pub(super) fn script(&self, id: &str, script: &str) -> StartSpec {
        self.bundle(id, &["/bin/sh", "-c", script], |_| {})
    }

    pub(super) fn bundle(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> StartSpec {
        let bundle = self.path(&format!("bundle-{id}"));
        let bin = bundle.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for sub in ["proc", "dev", "tmp"] {
            fs::create_dir_all(bundle.join("rootfs").join(sub)).unwrap();
        }
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in [
            "sh", "cat", "sleep", "seq", "head", "tr", "dd", "kill", "tail", "true", "ls", "ps",
            "yes", "echo", "printf",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
                "env": ["PATH=/bin"]
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["newinstance", "ptmxmode=0666"]}
            ],
            "linux": {
                "cgroupsPath": format!("/{}/{id}", self.cgroup),
                "namespaces": [{"type": "pid"}, {"type": "mount"}],
                "resources": {"devices": [{"allow": true, "access": "rwm"}]}
            }
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        StartSpec {
            container: id.into(),
            runtime: "runc".into(),
            runtime_args: vec!["--root".into(), self.path("runc").to_str().unwrap().into()],
            bundle,
            log: self.path(&format!("logs/{id}/0.log")),
            ..StartSpec::default()
        }
    }

    /// The file that counts a container's OOM kills.
    pub(super) fn oom_events(&self, id: &str) -> PathBuf {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        if v1.exists() {
            v1.join(&self.cgroup).join(id).join("memory.oom_control")
        } else {
            Path::new("/sys/fs/cgroup").join(&self.cgroup).join(id).join("memory.events")
        }
    }

    /// The content of a container's log without its headers, pieces joined.
    pub(super) fn output(&self, id: &str) -> String {
        joined(&fs::read(self.path(&format!("logs/{id}/0.log"))).unwrap())
    }

    /// What is mounted below this house.
    pub(super) fn mounts(&self) -> Vec<String> {
        let here = self.dir.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(here)).map(str::to_owned).collect()
    }

    fn monitor_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.run_dir().join("monitor.pid")).ok()?;
        text.trim().parse().ok().filter(|pid| is_monitor(*pid, &self.run_dir()))
    }
}

impl Drop for House {
    /// Ends whatever a failed test has left. After a good one there's nothing to do.
    fn drop(&mut self) {
        let mut children = Vec::new();
        if let Some(pid) = self.monitor_pid() {
            let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            children = list.unwrap_or_default().split(' ').filter_map(|p| p.parse().ok()).collect();
            kill(pid, libc::SIGKILL);
        }
        for entry in fs::read_dir(self.path("runc")).into_iter().flatten().flatten() {
            let delete = Command::new("runc")
                .arg("--root")
                .arg(self.path("runc"))
                .args(["delete", "--force"])
                .arg(entry.file_name())
                .stderr(Stdio::null())
                .status();
            assert!(delete.is_ok() || std::thread::panicking());
        }
        for pid in children {
            kill(pid, libc::SIGKILL);
        }
        for kind in ["net", "ipc", "uts", "pid"] {
            haled::sys::mount::detach(&self.path("pins").join(kind)).unwrap_or_default();
        }
        let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for root in controllers.map(|e| e.path()).chain(["/sys/fs/cgroup".into()]) {
            fs::remove_dir(root.join(&self.cgroup)).unwrap_or_default();
        }
    }
}

fn is_monitor(pid: i32, dir: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(dir.to_str().unwrap())
}

pub(super) struct Notices(mpsc::Receiver<Notice>);

impl Notices {
    pub(super) fn new() -> (mpsc::Sender<Notice>, Self) {
        let (sender, receiver) = mpsc::channel(64);
        (sender, Self(receiver))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) async fn next(&mut self) -> Option<Notice> {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("a notice in time")
    }

    pub(super) async fn exit_of(&mut self, id: &str) -> Exit {
        match self.next().await {
            Some(Notice::Event(Event::Exited { container, exit })) if container == id => exit,
            other => panic!("not the exit of {id}: {other:?}"),
        }
    }
}

/// Removes the headers and joins the pieces of one stream's entries.
pub(super) fn joined(log: &[u8]) -> String {
    let mut out = String::new();
    for line in String::from_utf8_lossy(log).lines() {
        let mut parts = line.splitn(4, ' ');
        let time = parts.next().unwrap();
        assert!(time.len() == 30 && time.ends_with('Z'), "{line}");
        assert!(matches!(parts.next(), Some("stdout" | "stderr")), "{line}");
        let tag = parts.next().unwrap();
        let content = parts.next().unwrap();
        assert!(content.len() <= 16 * 1024);
        out.push_str(content);
        if tag == "F" {
            out.push('\n');
        } else {
            assert_eq!(tag, "P", "{line}");
        }
    }
    out
}

pub(super) fn kill(pid: i32, signal: i32) {
    haled::sys::process::signal_child(pid, signal).unwrap();
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
