//! A root file system of busybox, and containers run from it that leave nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use haled::oci::model::{Device, EnvVar, Mount, Resources, Security};
use haled::oci::{self, ImageDefaults, Input, Namespaces, Runtime, SandboxFile};
use haled::sys::cgroup;

/// Applets that the tests call.
const APPLETS: [&str; 28] = [
    "sh", "cat", "ls", "id", "sleep", "mount", "umount", "unshare", "hostname", "touch", "mkdir",
    "env", "pwd", "grep", "head", "dd", "mknod", "true", "false", "echo", "setsid", "chroot",
    "ulimit", "wc", "readlink", "kill", "stat", "sort",
];

/// Eight random hex digits: tests run side by side.
pub(super) fn random() -> String {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).unwrap();
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

/// A cgroup of a test's own, emptied and removed with it.
pub(crate) struct Cgroup(pub(crate) String);

impl Cgroup {
    pub(crate) fn new() -> Self {
        Self(format!("/haled-test-{}", random()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let result = cgroup::kill(&self.0).and_then(|()| cgroup::remove(&self.0));
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

/// What a test wants of its container; the rest is as the kubelet sends it.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) command: Vec<String>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<EnvVar>,
    pub(super) working_dir: String,
    pub(super) image_env: Vec<String>,
    pub(super) image_user: String,
    pub(super) hostname: String,
    pub(super) mounts: Vec<Mount>,
    pub(super) devices: Vec<Device>,
    pub(super) security: Security,
    pub(super) resources: Resources,
    pub(super) namespaces: Namespaces,
    pub(super) sandbox_files: Vec<SandboxFile>,
}

impl Wanted {
    /// A shell that runs this text.
    pub(super) fn shell(text: &str) -> Self {
        let command = ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
        Self { command, ..Default::default() }
    }
}

/// How a container ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ended {
    /// The output of a container that must have ended well.
    pub(super) fn good(self) -> String {
        assert_eq!(self.code, Some(0), "out: {}\nerr: {}", self.out, self.err);
        self.out
    }
}

/// One test's directory, cgroup and container. Everything goes with it. The runtime is runc,
/// or what HALED_TEST_RUNTIME names: a name or a path.
pub(super) struct Rig {
    pub(super) home: tempfile::TempDir,
    pub(super) cgroup: Cgroup,
    pub(super) runtime: Runtime,
    pub(super) id: String,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let status = self.runc(&["delete", "--force", &self.id]).status();
        if !std::thread::panicking() {
            assert!(status.unwrap().success());
        }
    }
}

impl Rig {
    pub(super) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("bundle/rootfs");
        for directory in ["bin", "etc", "tmp", "proc", "dev", "sys", "data", "home/app"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n",
        )
        .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:50000:app\n").unwrap();
        let name = std::env::var("HALED_TEST_RUNTIME").unwrap_or_else(|_| "runc".to_owned());
        let runtime = Runtime {
            path: oci::resolve_path(&name).expect("the runtime is installed"),
            name,
            root: home.path().join("state"),
            keeper: crate::daemon::helper_dir().join("haled-monitor"),
            settings: oci::RuntimeSettings::default(),
        };
        Self { home, cgroup: Cgroup::new(), runtime, id: format!("test-{}", random()) }
    }

    pub(super) fn rootfs(&self) -> PathBuf {
        self.home.path().join("bundle/rootfs")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The container's cgroup.
    pub(super) fn cgroup_path(&self) -> String {
        format!("{}/{}", self.cgroup.0, self.id)
    }

    pub(super) fn spec(&self, wanted: &Wanted) -> Result<oci_spec::runtime::Spec, oci::Error> {
        oci::build(&Input {
            rootfs: &self.rootfs(),
            image: ImageDefaults {
                env: &wanted.image_env,
                user: &wanted.image_user,
                ..Default::default()
            },
            command: &wanted.command,
            args: &wanted.args,
            env: &wanted.env,
            working_dir: &wanted.working_dir,
            tty: false,
            hostname: &wanted.hostname,
            mounts: &wanted.mounts,
            devices: &wanted.devices,
            cdi_devices: &[],
            blockio_config: None,
            privileged_devices: oci::PrivilegedDevices::All,
            security: &wanted.security,
            selinux: None,
            resources: &wanted.resources,
            namespaces: &wanted.namespaces,
            sandbox_files: &wanted.sandbox_files,
            cgroup_path: &self.cgroup_path(),
            annotations: &BTreeMap::new(),
        })
    }

    /// Runs a container to its end.
    pub(super) fn run(&self, wanted: &Wanted) -> Ended {
        self.write_bundle(wanted);
        let mut command = self.runc(&["run", "--bundle"]);
        command.arg(self.path("bundle")).arg(&self.id).stdin(Stdio::null());
        let output = command.output().unwrap();
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a container that stays. Gives its process as built.
    pub(super) fn start(&self, wanted: &Wanted) -> oci_spec::runtime::Process {
        let spec = self.write_bundle(wanted);
        // A container that stays must not hold this test's pipes.
        let errors = fs::File::create(self.path("errors")).unwrap();
        let mut command = self.runc(&["run", "--detach", "--bundle"]);
        command.arg(self.path("bundle")).arg(&self.id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let status = command.status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(self.path("errors")).unwrap());
        spec.process().clone().unwrap()
    }

    fn write_bundle(&self, wanted: &Wanted) -> oci_spec::runtime::Spec {
        let spec = self.spec(wanted).unwrap();
        let file = fs::File::create(self.path("bundle/config.json")).unwrap();
        serde_json::to_writer(file, &spec).unwrap();
        spec
    }

    fn runc(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime.path);
        command.args(self.runtime.global_args()).args(args);
        command
    }

    /// A file of the container's cgroup, by its name on v1 and on v2.
    pub(super) fn cgroup_file(&self, controller: &str, v1: &str, v2: &str) -> PathBuf {
        let file = match cgroup::version() {
            cgroup::Version::V1 => v1,
            cgroup::Version::V2 => v2,
        };
        cgroup::directory(controller, &self.cgroup_path()).unwrap().join(file)
    }
}

/// The value of a line `Name:\tvalue` of /proc/PID/status.
pub(super) fn status_field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

/// A bind mount of a host path.
pub(super) fn bind(host: &Path, inside: &str) -> Mount {
    Mount { container_path: inside.into(), host_path: host.to_owned(), ..Mount::default() }
}
