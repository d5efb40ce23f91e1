//! The pod with every field that haled takes: what each has come to, from inside.

use haled::proto::haled::Container;
use haled::sys::cgroup;

use super::{delete, until};
use crate::daemon::Daemon;

const POD: &str = include_str!("../../pods/every-field.yaml");
/// The profile that the file names: all but mkdir(2) is allowed.
const PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;

fn of<'c>(containers: &'c [Container], name: &str) -> &'c Container {
    containers.iter().find(|container| container.name == name).unwrap()
}

async fn prints(daemon: &Daemon, container: &str, script: &str, wanted: &str) {
    let (_, out) = daemon.exec(container, &["sh", "-c", script]).await;
    assert_eq!(out.trim_end(), wanted, "{script}");
}

#[tokio::test]
async fn every_field_has_taken_effect() {
    let profiles = tempfile::tempdir().unwrap();
    std::fs::write(profiles.path().join("every-field.json"), PROFILE).unwrap();
    let settings = format!("[runtime]\nseccomp_dir = \"{}\"\n", profiles.path().display());
    let mut daemon = Daemon::start().await;
    std::fs::create_dir(daemon.path("config.d")).unwrap();
    std::fs::write(daemon.path("config.d/seccomp.toml"), settings).unwrap();
    daemon.terminate();
    daemon.launch().await;
    daemon.apply(POD).await.unwrap();
    let pod = until(&daemon, "every-field", "all are ready and one came again", |pod| {
        pod.containers.iter().all(|container| container.ready)
            && of(&pod.containers, "again").restart_count == 1
    })
    .await;
    let last = of(&pod.containers, "again").last.as_ref().unwrap();
    assert_eq!((pod.phase.as_str(), last.exit_code), ("Running", 42));
    assert_eq!(pod.qos_class, "Burstable");
    let web = of(&pod.init_containers, "web");
    assert!(web.sidecar && web.ready && web.started);
    assert_eq!(of(&pod.init_containers, "page").exit_code, 0);
    let kinds = |name: &str| -> Vec<String> {
        let all = pod.init_containers.iter().chain(&pod.containers);
        let probes = all.filter(|c| c.name == name).flat_map(|c| &c.probes);
        probes.map(|probe| format!("{} {}", probe.kind, probe.handler)).collect()
    };
    assert_eq!(
        kinds("web"),
        ["startup http-get http://:8080/", "liveness tcp-socket 127.0.0.1:8080"]
    );
    assert_eq!(
        kinds("app"),
        [
            "startup exec [ls /scratch/tty]",
            "liveness grpc <pod>:50051 app",
            "readiness http-get http://127.0.0.1:8080/"
        ]
    );
    let app = &of(&pod.containers, "app").id;
    seen_from_inside(&daemon, app, &pod.ips[0], &pod.uid).await;
    volumes(&daemon, app, &pod.uid).await;
    // The profile of its own allows no directory, the others' do.
    let (code, _) = daemon.exec(&web.id, &["mkdir", "/tmp/x"]).await;
    assert_ne!(code, 0);
    let page = daemon.on_node("curl -s -m 10 http://127.0.0.1:18080/").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&page.stdout), "it works\n", "{page:?}");
    has_its_memory(&daemon, app).await;
    delete(&daemon, "every-field").await;
    daemon.nothing_is_left().await;
}

async fn seen_from_inside(daemon: &Daemon, app: &str, ip: &str, uid: &str) {
    for (script, wanted) in [
        ("echo $COLOR $APP $POD_IP $POD_UID", format!("blue web {ip} {uid}")),
        (
            "echo $TOKEN $CPU $S_color $S_size $S_raw $K_token $K_user",
            "hush 250 blue 7 hello hush me".into(),
        ),
        ("pwd; hostname", "/tmp\nelsewhere".into()),
        ("id -u; id -g; id -G", "1000\n1001\n1001 2000 3000".into()),
        ("grep db.example /etc/hosts", "10.9.9.9\tdb.example".into()),
        ("cat /etc/resolv.conf", "search example\nnameserver 10.9.9.8\noptions ndots:2".into()),
        ("touch /x 2>/dev/null || echo no", "no".into()),
        (
            "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status",
            "CapEff:\t0000000000000000\nCapBnd:\t0000000000000400\nNoNewPrivs:\t1\nSeccomp:\t2"
                .into(),
        ),
        ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "1000".into()),
        ("ls /scratch/tty /scratch/hook", "/scratch/hook\n/scratch/tty".into()),
        // The other containers' processes are seen.
        ("ps | grep -c -E '[h]ttpd|[s]leep 86400'", "3".into()),
        // Masked, as procMount: Default says.
        ("wc -c < /proc/keys", "0".into()),
    ] {
        prints(daemon, app, script, &wanted).await;
    }
}

async fn volumes(daemon: &Daemon, app: &str, uid: &str) {
    for (script, wanted) in [
        ("touch /own/z; ls /scratch/of-web", "z".into()),
        (
            "cat /self/labels; echo; cat /self/deep/uid",
            format!("app=\"web\"\ntier=\"front\"\n{uid}"),
        ),
        ("cat /self/cpu", "500".into()),
        ("ls -l /self/labels | head -c 10", "-r--r-----".into()),
        ("ls -lL /self/deep/uid | head -c 10", "-r--r--r--".into()),
        (
            "cd /both; cat a/color token memory name; echo; ls",
            "bluehush64every-field\na\nmemory\nname\ntoken".into(),
        ),
        ("grep -c ' /both tmpfs' /proc/mounts", "1".into()),
        ("touch /scratch/x /part/y && ls /scratch/a/b", "y".into()),
        ("ls -ln /scratch/x | awk '{print $4}'", "2000".into()),
        ("dd if=/dev/zero of=/memory/x bs=1M count=2 2>/dev/null || echo full", "full".into()),
        ("cat /settings/color /one; touch /settings/x 2>/dev/null || echo no", "blueblueno".into()),
        ("ls /settings; ls -lL /settings/color | head -c 10", "color\n-r--r-----".into()),
        ("ls /key; cat /key/token; grep -c ' /key tmpfs' /proc/mounts", "token\nhush1".into()),
        ("ls -lL /key/token | head -c 10", "-r--r-----".into()),
        ("grep -c ^root: /node/passwd", "1".into()),
        ("test -x /tools/bin/busybox && echo there", "there".into()),
        ("touch /tools/x 2>/dev/null || echo no", "no".into()),
    ] {
        prints(daemon, app, script, &wanted).await;
    }
}

/// The container's cgroup has the limit of its resources.
async fn has_its_memory(daemon: &Daemon, app: &str) {
    let file = match cgroup::version() {
        cgroup::Version::V1 => "memory.limit_in_bytes",
        cgroup::Version::V2 => "memory.max",
    };
    let path = daemon.cgroup_of(app).await;
    let directory = cgroup::directory("memory", &path).unwrap();
    let limit = std::fs::read_to_string(directory.join(file)).unwrap();
    assert_eq!(limit.trim(), (64 << 20).to_string());
}
