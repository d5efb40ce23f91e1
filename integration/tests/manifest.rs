//! Pods from manifests, whole: a real daemon and real containers.

mod cluster;
mod deletion;
mod every_field;
mod folder;
mod life;
mod mistakes;
mod seen;
mod users;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use haled::proto::haled as wire;

use crate::daemon::{Daemon, PATIENCE};

/// A Pod named `pod` with these lines in its spec; the image is always there.
fn pod(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: pod}}\nspec:\n{spec}")
}

/// Waits until the pod is as wanted.
async fn until(
    daemon: &Daemon,
    name: &str,
    what: &str,
    done: impl Fn(&wire::Pod) -> bool,
) -> wire::Pod {
    let began = Instant::now();
    loop {
        let there = daemon.pod(name).await;
        if let Some(pod) = there.as_ref().filter(|pod| done(pod)) {
            return pod.clone();
        }
        let log = daemon.log();
        assert!(began.elapsed() < PATIENCE, "never came: {what}: {there:?}\n{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// halectl with these arguments in a directory: its code, and what it printed.
fn halectl(daemon: &Daemon, dir: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halectl"));
    command.env_remove("HALED_ADDRESS").current_dir(dir);
    command.arg("--address").arg(daemon.socket()).args(args);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

async fn phase(daemon: &Daemon, wanted: &str) -> wire::Pod {
    until(daemon, "pod", wanted, |pod| pod.phase == wanted).await
}

async fn delete(daemon: &Daemon, name: &str) {
    let request = wire::DeleteRequest {
        namespace: "default".into(),
        name: name.into(),
        grace_seconds: None,
        no_wait: false,
    };
    daemon.haled().await.delete(request).await.unwrap();
}
