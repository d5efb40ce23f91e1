//! `halectl top` in a real terminal, beside a real daemon.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use haled::proto::haled as wire;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::daemon::{Daemon, PATIENCE};

/// A terminal of 80 by 24 with `halectl top` in it.
struct Terminal {
    master: File,
    slave: OwnedFd,
    before: Termios,
    child: Child,
    written: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(daemon: &Daemon, term: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        // One end is held open, so that the terminal outlives what runs in it.
        let slave = OwnedFd::from(open());
        let before = tcgetattr(&slave).unwrap();
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_halectl"), "--socket"])
            .arg(daemon.socket())
            .arg("top")
            .env("TERM", term)
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .unwrap();
        let (master, written) = (File::from(master), Arc::new(Mutex::new(String::new())));
        let (mut reader, all) = (master.try_clone().unwrap(), written.clone());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                all.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        });
        Self { master, slave, before, child, written }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    async fn until(&self, words: &str) {
        let began = Instant::now();
        while !self.written.lock().unwrap().contains(words) {
            let written = self.written.lock().unwrap().clone();
            assert!(began.elapsed() < PATIENCE, "no {words:?} in {written:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the end; the terminal must be as it was.
    async fn ended(mut self) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success(), "{status}: {}", self.written.lock().unwrap());
        // The main screen, with its cursor.
        self.until("\u{1b}[?1049l").await;
        self.until("\u{1b}[?25h").await;
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
    }
}

async fn web(daemon: &Daemon) {
    let manifest = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {terminationGracePeriodSeconds: 2, containers: [{\
        name: app, image: busybox, imagePullPolicy: Never, \
        command: [sh, -c, 'trap \"exit 0\" TERM; echo QQQQQQQQ; while :; do sleep 0.1; done'], \
        livenessProbe: {exec: {command: ['true']}, periodMilliseconds: 200, timeoutSeconds: 60}}]}}";
    let request = wire::ApplyRequest {
        manifest: manifest.as_bytes().to_vec().into(),
        source: "web.yaml".into(),
        dry_run: false,
    };
    daemon.haled().await.apply(request).await.unwrap();
}

/// The pod's only container, once it is as wanted.
async fn container(daemon: &Daemon, wanted: impl Fn(&wire::Container) -> bool) -> wire::Container {
    let began = Instant::now();
    loop {
        let list = daemon.haled().await.list_pods(wire::ListPodsRequest::default()).await.unwrap();
        let found = list.into_inner().pods[0].containers[0].clone();
        if wanted(&found) {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never so: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_restarted_from_the_screen_and_the_terminal_is_as_it_was() {
    let daemon = Daemon::start().await;
    web(&daemon).await;
    container(&daemon, |container| container.reason == "Healthy").await;
    let mut terminal = Terminal::start(&daemon, "xterm-256color");
    terminal.until("web ").await;
    terminal.until("liveness").await;
    // To the container, and its page.
    terminal.press("j\r");
    // Letters that were there already aren't written again, so a word that fits nothing else.
    terminal.until("QQQQQQQQ").await;
    terminal.press("ry");
    let restarted = container(&daemon, |container| container.restart_count == 1).await;
    let restarted = if restarted.restarts.is_empty() {
        container(&daemon, |container| !container.restarts.is_empty()).await
    } else {
        restarted
    };
    assert_eq!(restarted.restarts[0].reason, "RestartRequested");
    terminal.press("q");
    terminal.ended().await;

    // A terminal that is only for lines gets lines.
    let mut dumb = Terminal::start(&daemon, "dumb");
    dumb.until("MEMORY").await;
    assert!(dumb.child.wait().unwrap().success());
    let written = dumb.written.lock().unwrap().clone();
    assert!(!written.contains('\u{1b}'), "{written:?}");

    // A signal ends it as well as a key.
    let terminal = Terminal::start(&daemon, "xterm-256color");
    terminal.until("web ").await;
    let pid = nix::unistd::Pid::from_raw(terminal.child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    terminal.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_there_is_a_table_and_what_haled_does_not_restart_is_refused() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("plain")).await;
    let id = daemon.run_container(&pod, Daemon::host_container("app", "exec sleep 600")).await;
    let top = |what: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halectl"));
        command.arg("--socket").arg(daemon.socket()).arg("top").args(what);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // What it uses may be another by then.
    let names = |table: String| -> Vec<String> {
        let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        table.lines().map(words).collect()
    };
    assert_eq!(names(top(&["-A"])), ["NAMESPACE POD", "default plain"]);
    assert_eq!(names(top(&["pods"])), names(top(&[])));
    let table = top(&["containers", "-A"]);
    let words: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..3], ["default", "plain", "app"], "{table}");
    assert!(words[4].ends_with("Ki") || words[4].ends_with("Mi"), "{table}");
    assert_eq!(words[5], "0", "{table}");

    let request = wire::RestartContainerRequest { container_id: id };
    let refused = daemon.haled().await.restart_container(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("is none that haled restarts"), "{refused}");
}
