//! The packaged unit, started by a real systemd. It has the machine to itself: haled is where
//! an installed one is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{property, scopes, systemctl, systemd_is_here};
use crate::daemon::{BUSYBOX, PATIENCE, busybox, helper_dir};

const UNIT: &str = include_str!("../../../packaging/haled.service");
const SERVICE: &str = "haled.service";

/// The service installed and started; taken away again at its end.
struct Installed;

impl Installed {
    fn start() -> Self {
        // haled's own directory can't be an overlay: it has layers of its own.
        let disk = tempfile::Builder::new().prefix("haled-service-").tempdir().unwrap().keep();
        for dir in ["/var/lib/haled", "/etc/haled"] {
            fs::create_dir_all(dir).unwrap();
        }
        let bound = Command::new("mount").arg("--bind").arg(disk).arg("/var/lib/haled").status();
        assert!(bound.unwrap().success());
        let settings = format!("helper_dir = \"{}\"\n", helper_dir().display());
        fs::write("/etc/haled/config.toml", settings).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_haled")).parent().unwrap();
        let unit = UNIT.replace("@BINDIR@", program.to_str().unwrap());
        fs::write(Path::new("/run/systemd/system").join(SERVICE), unit).unwrap();
        systemctl(&["daemon-reload"]);
        // It returns when haled has said that it is ready.
        let started = Self;
        systemctl(&["start", SERVICE]);
        started
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = Command::new("systemctl").args(["status", "--full", SERVICE]).output();
            eprintln!("{}", String::from_utf8_lossy(&status.unwrap().stdout));
            let journal = Command::new("journalctl").args(["-u", SERVICE, "--no-pager"]).output();
            eprintln!("{}", String::from_utf8_lossy(&journal.unwrap().stdout));
        }
        drop(Command::new("systemctl").args(["stop", SERVICE]).status());
        drop(fs::remove_file(Path::new("/run/systemd/system").join(SERVICE)));
        drop(Command::new("umount").args(["--lazy", "/var/lib/haled"]).status());
    }
}

fn halectl(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_halectl")).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "halectl {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `done`.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "never came: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Runs, with the same process as ever.
fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

#[test]
fn the_packaged_unit_is_started_restarted_reloaded_and_stopped_over_a_running_pod() {
    if !systemd_is_here() {
        return;
    }
    let _installed = Installed::start();
    let main = || property(SERVICE, "MainPID");
    assert_eq!(property(SERVICE, "Type"), "notify");
    assert_eq!(property(SERVICE, "ActiveState"), "active");
    let first = main();
    let cgroup = fs::read_to_string(format!("/proc/{first}/cgroup")).unwrap();
    assert!(cgroup.contains("/system.slice/haled.service"), "{cgroup}");

    let dir = tempfile::tempdir().unwrap();
    let (image, pod) = (dir.path().join("busybox.tar"), dir.path().join("pod.yaml"));
    fs::write(&image, busybox::tar()).unwrap();
    halectl(&["image", "import", "--name", BUSYBOX, image.to_str().unwrap()]);
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: lasting}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: app\n    image: {BUSYBOX}\n    \
         imagePullPolicy: Never\n    command: [sleep, '600']\n"
    );
    fs::write(&pod, manifest).unwrap();
    halectl(&["apply", "-f", pod.to_str().unwrap()]);
    halectl(&["wait", "pod", "lasting", "--timeout", "5m"]);
    let [scope] = &scopes()[..] else { panic!("one scope, not {:?}", scopes()) };
    assert_eq!(property(scope, "ControlGroup"), format!("/haled.slice/{scope}"));
    let processes = haled::sys::cgroup::processes(&format!("/haled.slice/{scope}")).unwrap();
    let pid = processes.iter().map(i32::to_string).find(|pid| lives(pid)).expect("the sleep");

    systemctl(&["restart", SERVICE]);
    let second = main();
    assert_ne!(second, first);
    assert_eq!(property(SERVICE, "ActiveState"), "active");
    assert!(lives(&pid), "the pod has gone with the daemon");
    assert_eq!(halectl(&["exec", "lasting", "--", "echo", "hi"]), "hi\n");

    fs::create_dir_all("/etc/haled/config.d").unwrap();
    fs::write("/etc/haled/config.d/level.toml", "[log]\nlevel = \"debug\"\n").unwrap();
    systemctl(&["reload", SERVICE]);
    until("the new level", || halectl(&["config"]).contains("level = \"debug\""));
    assert_eq!(main(), second, "a reload is no restart");

    systemctl(&["kill", "--kill-who=main", "--signal", "KILL", SERVICE]);
    until("another daemon", || {
        property(SERVICE, "ActiveState") == "active" && ![&second, "0"].contains(&main().as_str())
    });
    assert!(lives(&pid), "the pod has gone with the daemon");

    systemctl(&["stop", SERVICE]);
    assert_eq!(property(SERVICE, "ActiveState"), "inactive");
    assert!(lives(&pid), "the pod has gone with the daemon");
    assert_eq!(property(scope, "ActiveState"), "active");
    systemctl(&["start", SERVICE]);
    assert_eq!(halectl(&["exec", "lasting", "--", "echo", "hi"]), "hi\n");

    halectl(&["delete", "pod", "lasting"]);
    until("the pod's end", || scopes().is_empty());
    assert!(!lives(&pid));
}
