//! Plugins of the Node Resource Interface: a real one, made of NRI's own stub
//! (`integration/clients/critest/plugin`), and ones that behave badly.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use haled::proto::cri;
use serde_json::{Value, json};
use tonic::Code;

use crate::daemon::Daemon;

/// The plugin, built once.
static PLUGIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/clients/nri-plugin");
    let built = Command::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg("./plugin")
        .current_dir(root.join("integration/clients/critest"))
        .output()
        .expect("go is on the PATH");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
});

/// A daemon that lets plugins in. Its socket and directories are its own.
async fn daemon(settings: &str) -> Daemon {
    let own = "[nri]\nenable = true\nsocket_path = \"{dir}/nri.sock\"\n\
               plugin_path = \"{dir}/plugins\"\nplugin_config_path = \"{dir}/conf.d\"\n";
    Daemon::start_so("", &format!("{own}{settings}\n")).await
}

struct Plugin {
    process: Child,
    out: PathBuf,
}

impl Plugin {
    /// Starts one and waits until it has been told what is there.
    async fn start(daemon: &Daemon, index: &str, name: &str, rules: Value) -> Self {
        let plugin = Self::begin(daemon, index, name, rules);
        plugin.event(daemon, "Synchronize").await;
        // It is a plugin only once its answer has been taken.
        let come = format!("plugin=\"{index}-{name}\"");
        let been_let_in = |line: &str| line.contains("has come") && line.contains(&come);
        daemon.until("the plugin", || daemon.log().lines().any(been_let_in)).await;
        plugin
    }

    fn begin(daemon: &Daemon, index: &str, name: &str, mut rules: Value) -> Self {
        let dir = daemon.path("");
        let out = dir.join(format!("{name}.out"));
        rules["Out"] = json!(out);
        let file = dir.join(format!("{name}.rules"));
        std::fs::write(&file, rules.to_string()).unwrap();
        let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let process = Command::new(&*PLUGIN)
            .args(["-name", name, "-idx", index, "-socket"])
            .arg(dir.join("nri.sock"))
            .arg("-rules")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process, out }
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.out)
    }

    /// Waits for the first event of this kind.
    async fn event(&self, daemon: &Daemon, event: &str) -> Value {
        event_in(daemon, &self.out, event).await
    }

    /// Events of a pod or container, in their order.
    fn of(&self, id: &str) -> Vec<String> {
        let of = |line: &Value| {
            line["container"] == id || (line["pod"] == id && line["container"].is_null())
        };
        let lines = self.lines().into_iter().filter(of);
        lines.map(|line| line["event"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn lines(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    // The last may not be whole yet.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

async fn event_in(daemon: &Daemon, out: &Path, event: &str) -> Value {
    let found = || lines(out).into_iter().find(|line| line["event"] == event);
    daemon.until(event, || found().is_some()).await;
    found().unwrap()
}

/// A container that sleeps, but ends at once when told to.
fn sleeper(name: &str) -> cri::ContainerConfig {
    Daemon::host_container(name, "trap 'exit 0' TERM; while :; do sleep 0.05; done")
}

fn variable(key: &str, value: &str) -> Value {
    json!({"key": key, "value": value})
}

async fn start(daemon: &Daemon, container: &str) -> Result<(), tonic::Status> {
    let request = cri::StartContainerRequest { container_id: container.into() };
    daemon.runtime().await.start_container(request).await.map(drop)
}

async fn limit(daemon: &Daemon, container: &str, shares: i64) -> Result<(), tonic::Status> {
    let request = cri::UpdateContainerResourcesRequest {
        container_id: container.into(),
        linux: Some(cri::LinuxContainerResources { cpu_shares: shares, ..Default::default() }),
        ..Default::default()
    };
    daemon.runtime().await.update_container_resources(request).await.map(drop)
}

async fn shares(daemon: &Daemon, container: &str) -> i64 {
    daemon.status(container).await.resources.unwrap().linux.unwrap().cpu_shares
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_hears_of_a_whole_life_in_its_order() {
    let daemon = daemon("").await;
    let plugin = Plugin::start(&daemon, "00", "life", json!({})).await;
    let pod = daemon.run(&daemon.host_sandbox("life")).await;
    let container = daemon.run_container(&pod, sleeper("app")).await;
    limit(&daemon, &container, 512).await.unwrap();
    let resources = cri::LinuxContainerResources { memory_limit_in_bytes: 7, ..Default::default() };
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        overhead: None,
        resources: Some(resources),
    };
    daemon.runtime().await.update_pod_sandbox_resources(request).await.unwrap();
    daemon.stop(&container, 10).await;
    let other = daemon.run_container(&pod, sleeper("other")).await;
    daemon.stop_pod(&pod).await;
    daemon.remove_pod(&pod).await;
    let life = [
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "StopContainer",
        "RemoveContainer",
    ];
    assert_eq!(plugin.of(&container), life);
    assert_eq!(plugin.of(&other), [&life[..4], &life[6..]].concat());
    let of_pod = [
        "RunPodSandbox",
        "UpdatePodSandbox",
        "PostUpdatePodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    assert_eq!(plugin.of(&pod), of_pod);
    assert_eq!(plugin.event(&daemon, "Limits").await["limit"], 7);
    let run = plugin.event(&daemon, "PostStartContainer").await;
    assert_eq!((&run["state"], &run["name"]), (&json!("CONTAINER_RUNNING"), &json!("app")));
    let made = plugin.event(&daemon, "CreateContainer").await;
    assert_eq!(made["args"][0], "/bin/sh");
    // The containers ended before their pod's end was told.
    let all: Vec<_> = plugin.lines();
    let at = |event: &str, id: &str| {
        all.iter().position(|l| l["event"] == event && (l["container"] == id || l["pod"] == id))
    };
    assert!(at("StopContainer", &other) < at("StopPodSandbox", &pod));
    assert!(at("RemoveContainer", &other) < at("RemovePodSandbox", &pod));
    daemon.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_becomes_what_plugins_want() {
    let daemon = daemon("").await;
    let given = daemon.path("given");
    std::fs::write(&given, "given\n").unwrap();
    let rules = json!({"Adjust": {
        "env": [variable("WHO", "first"), variable("-GONE", "")],
        "annotations": {"from": "plugin", "-gone": ""},
        "mounts": [{"destination": "/given", "type": "bind", "source": given,
            "options": ["rbind", "ro"]}],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        "linux": {
            "resources": {"cpu": {"shares": {"value": 512}}, "pids": {"limit": 77}},
            "oom_score_adj": {"value": 900},
            "devices": [{"path": "/dev/haled0", "type": "c", "major": 1, "minor": 3}],
        },
    }});
    let _first = Plugin::start(&daemon, "00", "first", rules).await;
    let second = json!({"Adjust": {"env": [variable("TOO", "second")]}});
    let second = Plugin::start(&daemon, "10", "second", second).await;
    let pod = daemon.run(&daemon.host_sandbox("adjust")).await;
    let mut config = sleeper("app");
    config.envs = vec![
        cri::KeyValue { key: "GONE".into(), value: "1".into() },
        cri::KeyValue { key: "KEPT".into(), value: "1".into() },
    ];
    // Longer than a plugin's reader takes at once.
    let long = "x".repeat(100_000);
    config.annotations =
        [("gone".to_owned(), "1".to_owned()), ("long".to_owned(), long.clone())].into();
    let container = daemon.run_container(&pod, config.clone()).await;
    let see = async |command: &str| daemon.exec(&container, &["sh", "-c", command]).await.1;
    assert_eq!(see("echo $WHO $TOO $KEPT $GONE").await, "first second 1\n");
    assert_eq!(see("cat /given; echo x > /given 2>/dev/null || echo ro").await, "given\nro\n");
    assert_eq!(
        see("cat /proc/1/limits | grep 'open files' | tr -s ' '").await.trim(),
        "Max open files 100 200 files"
    );
    assert_eq!(see("cat /proc/1/oom_score_adj").await, "900\n");
    assert_eq!(see("echo x > /dev/haled0 && stat -c %t:%T /dev/haled0").await, "1:3\n");
    assert_eq!(shares(&daemon, &container).await, 512);
    // The one of the higher index sees what the other has made of it.
    let seen = second.event(&daemon, "CreateContainer").await;
    let env = seen["env"].as_array().unwrap();
    assert!(env.contains(&json!("WHO=first")) && !env.contains(&json!("GONE=1")), "{env:?}");
    assert_eq!(seen["annotations"]["from"], "plugin");
    assert!(seen["annotations"]["gone"].is_null());
    assert_eq!(seen["annotations"]["long"], long);
    // The same asked for again is the same, whatever plugins have made of it.
    let again = sleeper("again");
    let one = daemon.create(&pod, again.clone()).await.unwrap();
    assert_eq!(daemon.create(&pod, again).await.unwrap(), one);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_plugins_that_want_the_same_are_named_and_nothing_is_made() {
    let daemon = daemon("").await;
    let rules = |value: &str| json!({"Adjust": {"env": [variable("WHO", value)]}, "Only": "bad"});
    let first = Plugin::start(&daemon, "00", "first", rules("1")).await;
    let _second = Plugin::start(&daemon, "10", "second", rules("2")).await;
    let pod = daemon.run(&daemon.host_sandbox("conflict")).await;
    let error = daemon.create(&pod, sleeper("bad")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    for part in ["00-first", "10-second", "WHO"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert!(daemon.containers(&pod).await.is_empty());
    // Who has been told of it is told that it isn't.
    let id = first.event(&daemon, "CreateContainer").await["container"].clone();
    assert_eq!(
        first.of(id.as_str().unwrap()),
        ["CreateContainer", "StopContainer", "RemoveContainer"]
    );
    daemon.run_container(&pod, sleeper("good")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_used_is_told() {
    let daemon = daemon("").await;
    let linux = json!({"seccomp_policy": {"default_action": "NO_SUCH_ACTION"}});
    let rules = json!({"Adjust": {"linux": linux}, "Only": "seccomp"});
    let _one = Plugin::start(&daemon, "00", "one", rules).await;
    let rules = json!({"Adjust": {"CDI_devices": [{"name": "no.such/dev=1"}]}, "Only": "cdi"});
    let _two = Plugin::start(&daemon, "10", "two", rules).await;
    let pod = daemon.run(&daemon.host_sandbox("unusable")).await;
    for (name, part) in [("seccomp", "NO_SUCH_ACTION"), ("cdi", "no.such/dev=1")] {
        let error = daemon.create(&pod, sleeper(name)).await.unwrap_err();
        assert!(error.message().contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_is_told_who_wants_what_and_may_reject_it() {
    let daemon = daemon("").await;
    let rules = json!({"Adjust": {"env": [variable("WHO", "1")]}});
    let _first = Plugin::start(&daemon, "00", "first", rules).await;
    let judge = json!({"Reject": "not here", "Events": "ValidateContainerAdjustment"});
    let judge = Plugin::start(&daemon, "10", "judge", judge).await;
    let pod = daemon.run(&daemon.host_sandbox("judged")).await;
    let error = daemon.create(&pod, sleeper("app")).await.unwrap_err();
    assert!(
        error.message().contains("10-judge") && error.message().contains("not here"),
        "{error}"
    );
    assert_eq!(judge.event(&daemon, "Validate").await["text"], r#"{"WHO":"00-first"}"#);
    // It has asked for nothing else.
    assert!(judge.lines().iter().all(|line| line["event"] != "CreateContainer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_container_reaches_a_plugin_that_comes_exactly_once() {
    let daemon = daemon("plugin_registration_timeout = \"60s\"").await;
    let pod = daemon.run(&daemon.host_sandbox("sync")).await;
    let before = daemon.run_container(&pod, sleeper("before")).await;
    let ended = daemon.run_container(&pod, sleeper("ended")).await;
    daemon.stop(&ended, 10).await;
    let hold = daemon.path("hold");
    let plugin = Plugin::begin(&daemon, "00", "late", json!({"Hold": hold}));
    plugin.event(&daemon, "Synchronize").await;
    let mut during = Vec::new();
    for name in ["a", "b", "c"] {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(sleeper(name)),
            sandbox_config: None,
        };
        let mut runtime = daemon.runtime().await;
        during.push(tokio::spawn(async move { runtime.create_container(request).await }));
    }
    // They wait for the plugin, which waits for the file: whether they are there already makes
    // no difference to what must hold.
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::fs::write(&hold, "").unwrap();
    let mut all = vec![before];
    for created in during {
        all.push(created.await.unwrap().unwrap().into_inner().container_id);
    }
    all.push(daemon.create(&pod, sleeper("after")).await.unwrap());
    daemon.until("the last", || !plugin.of(&all[4]).is_empty()).await;
    let synced = plugin.event(&daemon, "Synchronize").await;
    assert_eq!(synced["pods"], json!([pod]));
    for id in &all {
        let listed = synced["containers"].as_array().unwrap().contains(&json!(id));
        let told = plugin.of(id).iter().filter(|event| *event == "CreateContainer").count();
        assert_eq!(usize::from(listed) + told, 1, "{id}: {listed}, {told}");
    }
    let list = synced["containers"].as_array().unwrap();
    assert!(!list.contains(&json!(ended)), "what has ended lives no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_is_dropped_and_pods_go_on() {
    let daemon = daemon("plugin_request_timeout = \"300ms\"").await;
    let plugin = Plugin::start(&daemon, "00", "hangs", json!({"Hang": "StartContainer"})).await;
    let pod = daemon.run(&daemon.host_sandbox("hang")).await;
    let container = daemon.run_container(&pod, sleeper("app")).await;
    assert_eq!(plugin.of(&container).last().unwrap(), "StartContainer");
    daemon.run_container(&pod, sleeper("next")).await;
    assert!(daemon.log().contains("no answer within 300 ms"), "{}", daemon.log());
    // One that wants it so takes the container with it.
    let rules = json!({"Hang": "StartContainer", "Strict": true});
    let _strict = Plugin::start(&daemon, "10", "strict", rules).await;
    let last = daemon.create(&pod, sleeper("last")).await.unwrap();
    let error = start(&daemon, &last).await.unwrap_err();
    assert!(error.message().contains("10-strict"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_dies_is_forgotten() {
    let daemon = daemon("").await;
    let plugin = Plugin::start(&daemon, "00", "dies", json!({"Strict": true})).await;
    drop(plugin);
    daemon.until("its end", || daemon.log().contains("an NRI plugin has gone")).await;
    let pod = daemon.run(&daemon.host_sandbox("dies")).await;
    daemon.run_container(&pod, sleeper("app")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_failure_that_leaves_nothing() {
    let daemon = daemon("").await;
    let rules = json!({"Refuse": {"RunPodSandbox": "not this one", "StartContainer": "nor this"}});
    let plugin = Plugin::start(&daemon, "00", "no", rules).await;
    let request = cri::RunPodSandboxRequest {
        config: Some(daemon.host_sandbox("refused")),
        runtime_handler: String::new(),
    };
    let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    assert!(
        error.message().contains("00-no") && error.message().contains("not this one"),
        "{error}"
    );
    assert!(daemon.pods().await.is_empty());
    daemon.nothing_is_left().await;
    drop(plugin);
    daemon.until("its end", || daemon.log().contains("an NRI plugin has gone")).await;
    // The same name again, while nobody minds.
    let pod = daemon.run(&daemon.host_sandbox("refused")).await;
    let rules = json!({"Refuse": {"StartContainer": "nor this"}});
    let _again = Plugin::start(&daemon, "00", "again", rules).await;
    let container = daemon.create(&pod, sleeper("app")).await.unwrap();
    let error = start(&daemon, &container).await.unwrap_err();
    assert!(error.message().contains("nor this"), "{error}");
    assert_eq!(daemon.status(&container).await.reason, "StartError");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_change_limits_of_what_runs() {
    let daemon = daemon("").await;
    let ask = daemon.path("ask");
    let of = |shares: u64| json!({"cpu": {"shares": {"value": shares}}});
    let rules = json!({
        "Update": of(300), "Ask": ask, "Also": of(700), "AlsoOf": "one", "Only": "two",
    });
    let plugin = Plugin::start(&daemon, "00", "limits", rules).await;
    let pod = daemon.run(&daemon.host_sandbox("limits")).await;
    let one = daemon.run_container(&pod, sleeper("one")).await;
    // What a client wants, as the plugin wants it.
    limit(&daemon, &one, 200).await.unwrap();
    assert_eq!(shares(&daemon, &one).await, 300);
    // Another's creation.
    daemon.run_container(&pod, sleeper("two")).await;
    assert_eq!(shares(&daemon, &one).await, 700);
    // Of its own accord: no plugin hears of that as an event.
    let before = plugin.of(&one).len();
    let linux = json!({"resources": of(900)});
    std::fs::write(&ask, json!({"container_id": one, "linux": linux}).to_string()).unwrap();
    assert_eq!(plugin.event(&daemon, "Asked").await["text"], "0 failed, <nil>");
    assert_eq!(shares(&daemon, &one).await, 900);
    assert_eq!(plugin.of(&one).len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_is_told_to_the_plugin() {
    let daemon = daemon("").await;
    let ask = daemon.path("ask");
    let plugin = Plugin::start(&daemon, "00", "fails", json!({"Ask": ask})).await;
    let linux = json!({"resources": {"cpu": {"shares": {"value": 5}}}});
    let text = json!({"container_id": "f".repeat(64), "linux": linux}).to_string();
    std::fs::write(&ask, text).unwrap();
    assert_eq!(plugin.event(&daemon, "Asked").await["text"], "1 failed, <nil>");
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_plugins_are_started_and_see_what_haled_makes_itself_and_after_a_restart() {
    let mut daemon = daemon("").await;
    let dir = daemon.path("");
    let out = dir.join("out");
    for part in ["plugins", "conf.d"] {
        std::fs::create_dir_all(dir.join(part)).unwrap();
    }
    std::fs::copy(&*PLUGIN, dir.join("plugins/05-installed")).unwrap();
    std::fs::write(dir.join("plugins/notes.txt"), "no program").unwrap();
    let rules = json!({"Out": out, "Adjust": {"env": [variable("WHO", "installed")]}});
    std::fs::write(dir.join("conf.d/installed.conf"), rules.to_string()).unwrap();
    assert!(daemon.terminate());
    daemon.launch().await;
    assert!(
        event_in(&daemon, &out, "Configure").await["text"].as_str().unwrap().starts_with("haled ")
    );
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: own}\nspec:\n  hostNetwork: true\n  \
         containers:\n  - name: app\n    image: docker.io/library/busybox:latest\n    \
         imagePullPolicy: Never\n    command: [sh, -c, 'test $WHO = installed && exit 3']\n";
    daemon.apply(manifest).await.unwrap();
    // Both attempts came through the plugin: each ended as the plugin's variable has it.
    let created = || lines(&out).iter().filter(|line| line["event"] == "CreateContainer").count();
    daemon.until("a second attempt", || created() >= 2).await;
    let sandbox = daemon.pods().await[0].id.clone();
    let first = lines(&out).into_iter().find(|line| line["event"] == "StopContainer").unwrap();
    assert_eq!(first["name"], "app");
    let stays = daemon.run(&daemon.host_sandbox("stays")).await;
    let container = daemon.run_container(&stays, sleeper("stays")).await;
    daemon.kill();
    std::fs::remove_file(&out).unwrap();
    daemon.launch().await;
    let synced = event_in(&daemon, &out, "Synchronize").await;
    let (pods, containers) = (&synced["pods"], &synced["containers"]);
    assert!(pods.as_array().unwrap().contains(&json!(stays)), "{synced}");
    assert!(pods.as_array().unwrap().contains(&json!(sandbox)), "{synced}");
    assert!(containers.as_array().unwrap().contains(&json!(container)), "{synced}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_connections_harm_nobody() {
    let daemon = daemon("plugin_registration_timeout = \"300ms\"").await;
    let socket = daemon.path("nri.sock");
    let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let frame = |connection: u32, body: &[u8]| {
        [&connection.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), body].concat()
    };
    let message = |length: u32, kind: u8, body: &[u8]| {
        [&length.to_be_bytes()[..], &1u32.to_be_bytes(), &[kind, 0], body].concat()
    };
    let mut kept = vec![connect()];
    for bytes in [
        vec![0xff; 64],
        frame(2, &message(u32::MAX, 1, b"")),
        frame(2, &message(4, 1, b"abcd")),
        frame(1, &message(0, 1, b"")),
        frame(2, &message(0, 9, b"")),
        frame(1, &message(3, 2, b"abc")),
    ] {
        let mut stream = connect();
        stream.write_all(&bytes).unwrap();
        kept.push(stream);
    }
    let plugin = Plugin::start(&daemon, "00", "good", json!({})).await;
    let pod = daemon.run(&daemon.host_sandbox("hostile")).await;
    assert_eq!(plugin.of(&pod), ["RunPodSandbox"]);
    daemon.until("the idle one's end", || daemon.log().contains("did not register within")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_told_that_haled_stops_and_end_in_order() {
    let mut daemon = daemon("").await;
    let dir = daemon.path("");
    let connected = Plugin::start(&daemon, "20", "connected", json!({})).await;
    let id = daemon.run(&daemon.host_sandbox("stays")).await;
    assert!(daemon.terminate(), "haled ended badly");
    let shutdowns = |out: &Path| {
        let lines = lines(out);
        assert_eq!(lines.last().unwrap()["event"], "Shutdown", "{lines:?}");
        lines.iter().filter(|line| line["event"] == "Shutdown").count()
    };
    assert_eq!(shutdowns(&connected.out), 1);
    assert!(!daemon.log().contains("took no leave"), "{}", daemon.log());
    drop(connected);

    // One that is installed ends by itself, and the next daemon starts it anew.
    std::fs::create_dir_all(dir.join("plugins")).unwrap();
    std::fs::create_dir_all(dir.join("conf.d")).unwrap();
    std::os::unix::fs::symlink(&*PLUGIN, dir.join("plugins/10-installed")).unwrap();
    let out = dir.join("installed.out");
    std::fs::write(dir.join("conf.d/10-installed.conf"), json!({"Out": out}).to_string()).unwrap();
    daemon.launch().await;
    event_in(&daemon, &out, "Synchronize").await;
    assert!(daemon.terminate(), "haled ended badly");
    assert_eq!(shutdowns(&out), 1);
    assert!(!daemon.log().contains("doesn't end and is killed"), "{}", daemon.log());
    daemon.launch().await;
    daemon
        .until("the plugin's second start", || {
            lines(&out).iter().filter(|line| line["event"] == "Synchronize").count() == 2
        })
        .await;
    daemon.stop_pod(&id).await;
    daemon.remove_pod(&id).await;
    daemon.nothing_is_left().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_has_containers_evicted() {
    let daemon = daemon("").await;
    let dir = daemon.path("");
    let sandbox = daemon.run(&daemon.host_sandbox("evicts")).await;
    let first = daemon.run_container(&sandbox, sleeper("noisy")).await;
    let ended = async |id: &str| {
        daemon.exited(id).await;
        let reason = format!("container={id} reason=\"too noisy\"");
        let told = daemon
            .log()
            .lines()
            .any(|line| line.contains("evicts a container") && line.contains(&reason));
        assert!(told, "{}", daemon.log());
    };
    // By a call of its own.
    let evictor = Plugin::begin(&daemon, "10", "evictor", json!({"Evict": "noisy"}));
    assert_eq!(evictor.event(&daemon, "Asked").await["text"], "0 failed, <nil>");
    ended(&first).await;
    // As part of its answer to another's creation.
    let later = Plugin::start(&daemon, "20", "later", json!({"Evict": "second"})).await;
    let second = daemon.run_container(&sandbox, sleeper("second")).await;
    let third = daemon.create(&sandbox, sleeper("third")).await.unwrap();
    ended(&second).await;
    start(&daemon, &third).await.unwrap();
    drop((evictor, later));
    daemon.stop_pod(&sandbox).await;
    daemon.remove_pod(&sandbox).await;
    daemon.nothing_is_left().await;
    std::fs::remove_dir_all(dir).unwrap();
}
