//! What holds while a checkpoint is being written, and when its daemon is killed then. CRIU is
//! held up by a script before it, for as long as the test wants.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use haled::sys::cgroup;

use super::{COUNTER, checkpoint, count, counts_beyond, criu};
use crate::daemon::Daemon;

/// A CRIU that waits.
struct Gate {
    /// What a waiting one has written its process's number to.
    waiting: PathBuf,
    open: PathBuf,
}

impl Gate {
    /// Puts it before the real one, from the daemon's next start.
    fn before(daemon: &mut Daemon, real: &Path) -> Self {
        let dir = daemon.path("gated");
        std::fs::create_dir(&dir).unwrap();
        let gate = Self { waiting: dir.join("waiting"), open: dir.join("open") };
        // runc asks CRIU for its version first.
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *swrk*)\necho $$ > {waiting}.new && mv {waiting}.new {waiting}\n\
             while ! test -e {open}; do sleep 0.02; done;;\nesac\nexec {real}/criu \"$@\"\n",
            waiting = gate.waiting.display(),
            open = gate.open.display(),
            real = real.display(),
        );
        program(&dir.join("criu"), &script);
        daemon.programs = Some(dir);
        gate
    }

    /// Once CRIU has been called: its process.
    async fn reached(&self, daemon: &Daemon) -> nix::unistd::Pid {
        daemon.until("CRIU's call", || self.waiting.exists()).await;
        let pid = std::fs::read_to_string(&self.waiting).unwrap();
        nix::unistd::Pid::from_raw(pid.trim().parse().unwrap())
    }

    fn open(&self) {
        std::fs::write(&self.open, "").unwrap();
    }
}

fn program(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn gated() -> Option<(Daemon, Gate)> {
    let real = criu()?;
    let mut daemon = Daemon::start_with("").await;
    daemon.terminate();
    let gate = Gate::before(&mut daemon, &real);
    daemon.launch().await;
    Some((daemon, gate))
}

/// Whether the processes of a container's cgroup stand still.
fn is_frozen(pid: i32) -> bool {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let v1 = cgroup::version() == cgroup::Version::V1;
    let line = cgroups.lines().find(|line| line.contains(if v1 { ":freezer:" } else { "0::" }));
    let path = line.unwrap().rsplit_once(':').unwrap().1;
    let dir = cgroup::directory("freezer", path).unwrap();
    let state =
        std::fs::read_to_string(dir.join(if v1 { "freezer.state" } else { "cgroup.freeze" }));
    matches!(state.unwrap().trim(), "FROZEN" | "1")
}

#[tokio::test]
async fn a_container_goes_on_when_the_daemon_is_killed_while_it_is_checkpointed() {
    let Some((mut daemon, gate)) = gated().await else { return };
    let pod = daemon.run(&daemon.sandbox("cut")).await;
    let id = daemon.run_container(&pod, Daemon::container("counter", COUNTER)).await;
    counts_beyond(&daemon, &id, 2).await;
    let pid = daemon.pid(&id).await;
    let dir = daemon.path("checkpoints");
    std::fs::create_dir(&dir).unwrap();
    let location = dir.join("counter.tar");
    let criu = tokio::select! {
        answer = checkpoint(&daemon, &id, &location, 600) => panic!("{answer:?}"),
        criu = gate.reached(&daemon) => criu,
    };
    assert!(is_frozen(pid));
    daemon.kill();
    assert!(is_frozen(pid));

    daemon.launch().await;
    assert!(!is_frozen(pid));
    assert_eq!(daemon.pid(&id).await, pid);
    let now = count(&daemon, &id).await;
    counts_beyond(&daemon, &id, now).await;
    assert!(!location.exists());
    nix::sys::signal::kill(criu, nix::sys::signal::Signal::SIGKILL).unwrap();
    gate.open();
    daemon
        .until("the end of what was called", || !Path::new(&format!("/proc/{criu}")).exists())
        .await;
    // The next one is as if nothing had been.
    checkpoint(&daemon, &id, &location, 60).await.unwrap_or_else(|error| {
        panic!("{error}\n{}", daemon.log());
    });
    daemon
        .until("the scratch of the first", || {
            super::is_empty(&daemon.path("root/images/ingest"))
                && super::is_empty(&daemon.path("root/images/ingest.old"))
        })
        .await;
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

/// A web server that is content with everything, and tells how often each path was asked for.
fn counting(listener: std::net::TcpListener) -> impl Fn(&str) -> usize {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&seen);
    // Ends with the test process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let read = BufReader::new(&stream).read_line(&mut line);
            noted.lock().unwrap().push(line);
            drop(
                read.and_then(|_| {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                }),
            );
        }
    });
    move |path| seen.lock().unwrap().iter().filter(|line| line.contains(path)).count()
}

/// The probes ask a server that never stands still: only haled can make them wait.
#[tokio::test]
async fn probes_wait_while_a_container_is_checkpointed() {
    let Some((daemon, gate)) = gated().await else { return };
    let listener = daemon.listener_on("0.0.0.0");
    let port = listener.local_addr().unwrap().port();
    let probes = counting(listener);
    let mut config = daemon.sandbox("probed");
    config.annotations.insert("haled/heal".into(), "restart".into());
    for name in ["app", "other"] {
        // The address that the bridge has on the node.
        let probe = format!(
            r#"{{"httpGet": {{"host": "10.88.0.1", "port": {port}, "path": "/{name}"}}, "periodMilliseconds": 100, "timeoutSeconds": 60}}"#
        );
        config.annotations.insert(format!("liveness.haled/{name}"), probe);
    }
    let pod = daemon.run(&config).await;
    let id = daemon.run_container(&pod, Daemon::container("app", COUNTER)).await;
    daemon.run_container(&pod, Daemon::container("other", COUNTER)).await;
    let probed = async |name: &str, more: usize| {
        let now = probes(name);
        daemon.until("more probes", || probes(name) >= now + more).await;
    };
    probed("/app", 2).await;
    let location = daemon.path("app.tar");
    let writing = checkpoint(&daemon, &id, &location, 600);
    tokio::pin!(writing);
    tokio::select! {
        answer = &mut writing => panic!("{answer:?}"),
        _ = gate.reached(&daemon) => {}
    }
    let before = probes("/app");
    tokio::select! {
        answer = &mut writing => panic!("{answer:?}"),
        () = probed("/other", 20) => {}
    }
    // One may have been on its way.
    assert!(probes("/app") <= before + 1, "{} after {before}", probes("/app"));
    gate.open();
    writing.await.unwrap_or_else(|error| panic!("{error}\n{}", daemon.log()));
    probed("/app", 3).await;
    assert_eq!(daemon.containers(&pod).await.len(), 2);
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

/// On cgroup v1 runc gives up when processes come up faster than they are frozen.
#[tokio::test]
async fn a_container_that_cannot_be_frozen_at_once_is_tried_again() {
    let Some((mut daemon, gate)) = gated().await else { return };
    gate.open();
    let dir = daemon.programs.clone().unwrap();
    let tries = dir.join("tries");
    let path = std::env::var_os("PATH").unwrap();
    let runc = std::env::split_paths(&path).map(|dir| dir.join("runc")).find(|it| it.exists());
    let runc = runc.expect("runc is installed");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" pause \"*)\necho >> {tries}\n\
         if [ $(wc -l < {tries}) -lt 3 ]; then echo unable to freeze >&2; exit 1; fi;;\nesac\n\
         exec {runc} \"$@\"\n",
        tries = tries.display(),
        runc = runc.display(),
    );
    program(&dir.join("runc"), &script);
    daemon.terminate();
    daemon.launch().await;
    let pod = daemon.run(&daemon.sandbox("busy")).await;
    let id = daemon.run_container(&pod, Daemon::container("counter", COUNTER)).await;
    let location = daemon.path("counter.tar");
    checkpoint(&daemon, &id, &location, 60).await.unwrap_or_else(|error| {
        panic!("{error}\n{}", daemon.log());
    });
    let tries = std::fs::read_to_string(tries).unwrap().lines().count();
    assert!(tries >= 3, "{tries}: {}", daemon.log());
    let now = count(&daemon, &id).await;
    counts_beyond(&daemon, &id, now).await;
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}
