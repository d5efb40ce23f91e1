//! The settings: checked by the command, reloaded by the daemon.

use std::collections::HashMap;
use std::process::{Command, Output};
use std::time::Duration;

use haled::proto::cri;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::Daemon;

#[test]
fn the_command_says_what_is_wrong_or_ok() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let check = || -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haled"));
        let Output { status, stdout, stderr } =
            command.args(["config", "check"]).arg(&path).output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    };
    std::fs::write(&path, "[log]\nlevel = \"debug\"\n").unwrap();
    assert_eq!(check(), (Some(0), format!("{}: ok\n", path.display())));
    std::fs::create_dir(dir.path().join("config.d")).unwrap();
    let more = dir.path().join("config.d/more.toml");
    std::fs::write(&more, "[healing]\nbackof_max = \"1m\"\n").unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(1));
    let expected = format!("{}:2: ", more.display());
    assert!(text.contains(&expected) && text.contains("backoff_max"), "{text}");
}

fn hang_up(daemon: &Daemon) {
    kill(Pid::from_raw(daemon.process_id().try_into().unwrap()), Signal::SIGHUP).unwrap();
}

/// Puts a file beside the daemon's own settings and has it read; waits for `word` in the log.
async fn reload(daemon: &Daemon, text: &str, word: &str) {
    std::fs::create_dir_all(daemon.path("config.d")).unwrap();
    std::fs::write(daemon.path("config.d/10.toml"), text).unwrap();
    let before = daemon.log().matches(word).count();
    hang_up(daemon);
    daemon.until(word, || daemon.log().matches(word).count() > before).await;
}

async fn shown(daemon: &Daemon) -> String {
    let request = cri::StatusRequest { verbose: true };
    let status = daemon.runtime().await.status(request).await.unwrap().into_inner();
    status.info["config"].clone()
}

#[tokio::test]
async fn a_hangup_reloads_what_can_be_and_a_mistake_changes_nothing() {
    let daemon = Daemon::start_without_network().await;
    let text = "[log]\nlevel = \"info,haled=debug\"\n[healing]\nbackoff_initial = \"2h\"\nbackoff_max = \"3h\"\n[stream]\nport = 1\n";
    reload(&daemon, text, "some that have changed need a restart").await;
    assert!(daemon.log().contains("restart_for=\"stream\""), "{}", daemon.log());
    let now = shown(&daemon).await;
    assert!(now.contains("backoff_initial = \"2h\"") && now.contains("info,haled=debug"), "{now}");
    assert!(!now.contains("port = 1"), "{now}");

    reload(&daemon, "\n[healing]\nbackoff_initial = \"soon\"\n", "stay as they were").await;
    let place = "config.d/10.toml:3: healing.backoff_initial: found \\\"soon\\\"";
    let log = daemon.log().replace("\\\"", "\"");
    assert!(log.contains(&place.replace("\\\"", "\"")), "{log}");
    assert_eq!(shown(&daemon).await, now);

    // What is decided from now on follows the new settings.
    let mut config = daemon.host_sandbox("reloaded");
    config.annotations = HashMap::from([
        ("haled/restart-policy".to_owned(), "Always".to_owned()),
        ("haled/heal".to_owned(), "restart".to_owned()),
    ]);
    let pod = daemon.run(&config).await;
    daemon.run_container(&pod, Daemon::host_container("app", "exit 1")).await;
    // The first restart comes at once; it has ended, too, before anyone may have seen it run.
    let waits = async {
        loop {
            for container in daemon.containers(&pod).await {
                let message = daemon.status(&container.id).await.message;
                if let Some((_, left)) = message.split_once("haled starts it again in ")
                    && let left @ 1.. = left.split(' ').next().unwrap().parse::<u64>().unwrap()
                {
                    return left;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let left = tokio::time::timeout(crate::daemon::PATIENCE, waits).await.expect("it waits");
    assert!((3600..=7200).contains(&left), "{left}");
    daemon.remove_pod(&pod).await;
}
