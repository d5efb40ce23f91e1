//! What halectl shows of a real daemon's pods: as they change, in full, and by fields.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::{Ended, ended, halectl};
use crate::daemon::{BUSYBOX, Daemon};

/// A pod whose probe runs ten times a second.
fn probed(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: app\n    image: {BUSYBOX}\n    \
         command: [sh, -c, exec sleep 600]\n    env: [{{name: WORD, value: secret}}]\n    \
         resources: {{limits: {{memory: 64Mi}}}}\n    \
         livenessProbe: {{exec: {{command: ['true']}}, periodMilliseconds: 100, timeoutSeconds: 60, failureThreshold: 2}}\n"
    )
}

fn command(daemon: &Daemon, args: &[&str]) -> Command {
    halectl(&daemon.socket(), args)
}

fn run(daemon: &Daemon, args: &[&str]) -> Ended {
    ended(command(daemon, args).output().unwrap())
}

fn well(daemon: &Daemon, args: &[&str]) -> String {
    let (code, out, error) = run(daemon, args);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{args:?}: {out}");
    out
}

/// Waits for so many more runs of the pod's probe.
async fn probe_runs(daemon: &Daemon, pod: &str, more: usize) {
    let last = async || {
        let pod = daemon.pod(pod).await.unwrap();
        pod.containers[0].probe_runs.last().map_or(0, |run| run.at)
    };
    let (mut seen, mut runs) = (last().await, 0);
    while runs < more {
        let now = last().await;
        runs += usize::from(now != seen);
        seen = now;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_pod_is_printed_when_its_row_has_changed() {
    let daemon = Daemon::start().await;
    daemon.apply(&probed("web")).await.unwrap();
    daemon.settled("web", 0).await;
    let mut table = command(&daemon, &["get", "pods", "-w"]);
    let mut names = command(&daemon, &["get", "pods", "-w", "-o", "name"]);
    let watching = [&mut table, &mut names].map(|command| {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        (child, lines, first)
    });
    probe_runs(&daemon, "web", 8).await;
    let (code, out, _) = run(&daemon, &["delete", "pod", "web"]);
    assert_eq!((code, out.as_str()), (Some(0), "pod/web deleted\n"));
    let mut printed = Vec::new();
    for (mut child, lines, first) in watching {
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        let gone = told.next().unwrap().unwrap();
        assert_eq!(gone, "halectl: pod default/web is gone");
        child.kill().unwrap();
        child.wait().unwrap();
        printed.push(std::iter::once(first).chain(lines).collect::<Vec<_>>());
    }
    assert!(printed[0][0].starts_with("NAME "), "{printed:?}");
    let without_age = |row: &String| {
        let mut words: Vec<_> = row.split_whitespace().map(str::to_owned).collect();
        words.pop();
        words.join(" ")
    };
    let rows: Vec<String> = printed[0][1..].iter().map(without_age).collect();
    assert_eq!(rows[0], "web 1/1 Running 0", "{printed:?}");
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "{printed:?}");
    assert_eq!(printed[1], ["pod/web"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_shown_by_its_fields() {
    let daemon = Daemon::start().await;
    for name in ["web", "api"] {
        daemon.apply(&probed(name)).await.unwrap();
        daemon.settled(name, 0).await;
    }
    let get = |args: &[&str]| well(&daemon, &[&["get", "pods"], args].concat());
    assert_eq!(get(&["web", "-o", "jsonpath={.status.phase}"]), "Running");
    let ranged = "-o=jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}";
    assert_eq!(get(&[ranged]), "api\nweb\n");
    assert_eq!(
        get(&["-o", "custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image,NO:.x"]),
        format!(
            "NAME   IMAGE{0:1$}NO\napi    {BUSYBOX}   <none>\nweb    {BUSYBOX}   <none>\n",
            "",
            BUSYBOX.len() - "IMAGE".len() + 3
        )
    );
    let oldest_first = ["--sort-by={.metadata.creationTimestamp}", "-o", "name"];
    let mut sorted: Vec<_> = get(&oldest_first).lines().map(str::to_owned).collect();
    sorted.sort();
    assert_eq!(sorted, ["pod/api", "pod/web"]);
    let by_field = ["--field-selector", "status.phase=Running,metadata.name!=api", "-o", "name"];
    assert_eq!(get(&by_field), "pod/web\n");

    // What is there is shown, and what is not is told.
    let (code, out, error) = run(&daemon, &["get", "pods", "web", "nope", "-o", "name"]);
    assert_eq!((code, out.as_str()), (Some(1), "pod/web\n"), "{error}");
    assert_eq!(error, "halectl: there is no pod default/nope\n");
    assert_eq!(get(&["nope", "--ignore-not-found"]), "");
    assert_eq!(get(&["-l", "app=nope", "--ignore-not-found"]), "");
    let (code, out, _) = run(&daemon, &["describe", "pods", "nope", "web"]);
    assert_eq!(code, Some(1));
    assert!(out.starts_with("Name:               web\n"), "{out}");

    let described = well(&daemon, &["describe", "pod", "web"]);
    for part in [
        "Image ID:       sha256:",
        "Limits:         memory 64Mi\n",
        "Environment:    WORD=secret\n",
        "Liveness:       exec [true] delay=0s timeout=60s period=0.1s #success=1 #failure=2\n",
        "Conditions:\n  TYPE ",
        "QoS Class:          Burstable\n",
    ] {
        assert!(described.contains(part), "no {part:?} in\n{described}");
    }

    let health = well(&daemon, &["health", "web", "-o", "json"]);
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!((&health[0]["pod"], &health[0]["result"]), (&"web".into(), &"Success".into()));
    let table = well(&daemon, &["health", "web"]);
    assert!(table.contains(" ok, fails at 2 "), "{table}");
    let (code, out, error) = run(&daemon, &["health", "web", "nope"]);
    assert_eq!((code, error.as_str()), (Some(1), "halectl: there is no pod default/nope\n"));
    assert!(out.contains("web "), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_chosen_by_type_and_are_objects() {
    let daemon = Daemon::start().await;
    daemon.apply(&probed("web")).await.unwrap();
    daemon.settled("web", 0).await;
    let events = well(&daemon, &["events", "--for", "pod/web", "--types=normal", "-o", "json"]);
    let events: serde_json::Value = serde_json::from_str(&events).unwrap();
    let events = events["items"].as_array().unwrap();
    assert!(events.iter().any(|event| event["reason"] == "Started"), "{events:?}");
    assert!(events.iter().all(|event| event["involvedObject"]["name"] == "web"), "{events:?}");
    let none = run(&daemon, &["events", "web", "--types", "Warning"]);
    assert_eq!(none, (Some(0), String::new(), "halectl: there are no events\n".to_owned()));
    let (code, out, error) = run(&daemon, &["events", "web", "nope"]);
    assert_eq!((code, error.as_str()), (Some(1), "halectl: there is no pod default/nope\n"));
    assert!(out.contains("pod/web"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_there_yet_says_what_it_waits_for() {
    let daemon = Daemon::start().await;
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  initContainers:\n  - {{name: first, image: {BUSYBOX}, \
         command: [sh, -c, 'echo 0123456789; echo next; exec sleep 600']}}\n  containers:\n  \
         - {{name: app, image: {BUSYBOX}, command: [sh, -c, exec sleep 600]}}\n"
    );
    daemon.apply(&manifest).await.unwrap();
    daemon.until("log", || run(&daemon, &["logs", "slow", "-c", "first"]).1.contains("next")).await;
    assert_eq!(
        run(&daemon, &["logs", "slow"]).2,
        "halectl: container \"app\" of pod default/slow is waiting to start: PodInitializing\n"
    );
    assert_eq!(
        run(&daemon, &["logs", "slow", "-c", "first", "-p"]).2,
        "halectl: container \"first\" of pod default/slow has no attempt before this one\n"
    );
    assert_eq!(
        run(&daemon, &["logs", "slow", "first"]),
        (
            Some(1),
            String::new(),
            "halectl: there is no pod default/first; of slow's container: -c first\n".to_owned()
        )
    );
    assert_eq!(well(&daemon, &["logs", "slow", "-c", "first", "--limit-bytes", "4"]), "0123");
    let cut = well(&daemon, &["logs", "slow", "-c", "first", "--limit-bytes", "13", "-f"]);
    assert_eq!(cut, "0123456789\nne");
    let stamped = well(&daemon, &["logs", "slow", "-c", "first", "-t", "--tail", "1"]);
    assert!(stamped.ends_with("Z next\n"), "{stamped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_looks_at_once_and_tells_of_each() {
    let daemon = Daemon::start().await;
    for name in ["api", "web"] {
        daemon.apply(&probed(name)).await.unwrap();
        daemon.settled(name, 0).await;
    }
    let wait = |args: &[&str]| run(&daemon, &[&["wait", "pods"], args].concat());
    let both = "pod/api condition met\npod/web condition met\n".to_owned();
    assert_eq!(wait(&["api", "web", "--timeout=0"]), (Some(0), both.clone(), String::new()));
    assert_eq!(wait(&["--all", "--timeout=-1s"]), (Some(0), both.clone(), String::new()));
    let told = "halectl: pod/api: it is not so now\nhalectl: pod/web: it is not so now\n";
    let late = (Some(1), String::new(), told.to_owned());
    assert_eq!(wait(&["--all", "--for=delete", "--timeout=0"]), late);
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True";
    assert_eq!(wait(&["--all", "--for", ready]), (Some(0), both, String::new()));

    // One that comes only later.
    let mut waiting = command(&daemon, &["wait", "pod/new", "--for=create", "--timeout", "60"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    daemon.apply(&probed("new")).await.unwrap();
    let created = ended(waiting.wait_with_output().unwrap());
    assert_eq!(created, (Some(0), "pod/new condition met\n".to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_through_the_cri_is_described_as_far_as_the_cri_tells() {
    use haled::proto::cri;
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("plain")).await;
    let mut container = Daemon::host_container("app", "exec sleep 600");
    container.envs.push(cri::KeyValue { key: "WORD".into(), value: "secret".into() });
    let shared = daemon.path("shared");
    std::fs::create_dir(&shared).unwrap();
    container.mounts.push(cri::Mount {
        container_path: "/shared".into(),
        host_path: shared.display().to_string(),
        readonly: true,
        ..cri::Mount::default()
    });
    let limits = cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        ..cri::LinuxContainerResources::default()
    };
    container.linux.get_or_insert_default().resources = Some(limits);
    daemon.run_container(&pod, container).await;
    let described = well(&daemon, &["describe", "pod", "plain"]);
    for part in [
        "Command:        ",
        "Limits:         memory 67108864\n",
        "Mounts:         /shared from mount-0 (ro)\n",
        &format!("  mount-0:          hostPath, path {}\n", shared.display()),
        "Image ID:       sha256:",
        "Host Network:       true\n",
    ] {
        assert!(described.contains(part), "no {part:?} in\n{described}");
    }
    assert!(!described.contains("secret"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_use_is_a_table_of_those_that_are_meant() {
    let daemon = Daemon::start().await;
    for name in ["api", "web"] {
        daemon.apply(&probed(name)).await.unwrap();
        daemon.settled(name, 0).await;
    }
    let top = well(&daemon, &["top", "pods", "web", "--no-headers"]);
    assert!(top.starts_with("web ") && top.lines().count() == 1, "{top}");
    let top = well(&daemon, &["top", "pods", "-l", "app=api", "--containers", "-A"]);
    assert!(top.starts_with("NAMESPACE   POD   CONTAINER "), "{top}");
    let top = well(&daemon, &["top", "pods", "-o", "json"]);
    let top: serde_json::Value = serde_json::from_str(&top).unwrap();
    assert!(top[1]["memoryBytes"].is_u64(), "{top}");
    let none = run(&daemon, &["top", "pods", "-n", "empty"]);
    let told = "halectl: there are no pods in namespace \"empty\"\n";
    assert_eq!(none, (Some(0), String::new(), told.to_owned()));
}
