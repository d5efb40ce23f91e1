//! What a pod's fields look like from inside.

use super::{delete, phase};
use crate::daemon::Daemon;

const SETTINGS: &str = r"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {token: hush}
---
";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: pod, labels: {app: web, tier: front}}
spec:
  terminationGracePeriodSeconds: 0
  hostname: elsewhere
  hostAliases: [{ip: 10.9.9.9, hostnames: [db.example]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [10.9.9.8], searches: [example]}
  securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 2000, runAsNonRoot: true}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key, defaultMode: 256}}
  - name: self
    downwardAPI:
      defaultMode: 0o440
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: deep/uid, fieldRef: {fieldPath: metadata.uid}, mode: 0o444}
  - name: both
    projected:
      sources:
      - configMap: {name: settings, items: [{key: color, path: a/color}, {key: none, path: none}], optional: true}
      - secret: {name: key}
      - downwardAPI: {items: [{path: memory, resourceFieldRef: {containerName: app, resource: limits.memory, divisor: 1Mi}}]}
  containers:
  - name: app
    image: busybox
    resources: {limits: {memory: 64Mi}}
    command: [sleep, "600"]
    workingDir: /tmp
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: scratch, mountPath: /part, subPath: a/b}
    - {name: memory, mountPath: /memory}
    - {name: scratch, mountPath: /own, subPathExpr: of-$(APP)}
    - {name: self, mountPath: /self}
    - {name: both, mountPath: /both}
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /one, subPath: color}
    - {name: key, mountPath: /key}
"#;

#[tokio::test]
async fn variables_volumes_and_confinement_are_there() {
    let daemon = Daemon::start().await;
    daemon.apply(&format!("{SETTINGS}{POD}")).await.unwrap();
    let pod = phase(&daemon, "Running").await;
    let id = &pod.containers[0].id;
    let ip = &pod.ips[0];
    let uid = &pod.uid;
    for (script, wanted) in [
        ("echo $COLOR $APP $POD_IP $POD_UID", format!("blue web {ip} {uid}")),
        ("pwd; hostname", "/tmp\nelsewhere".into()),
        ("id -u; id -g; id -G", "1000\n1001\n1001 2000".into()),
        ("grep db.example /etc/hosts", "10.9.9.9\tdb.example".into()),
        ("cat /etc/resolv.conf", "search example\nnameserver 10.9.9.8".into()),
        ("touch /x 2>/dev/null || echo no", "no".into()),
        ("touch /own/z; ls /scratch; rm -r /scratch/of-web/z", "a\nof-web".into()),
        (
            "cat /self/labels; echo; cat /self/deep/uid",
            format!("app=\"web\"\ntier=\"front\"\n{uid}"),
        ),
        ("ls -l /self/labels | head -c 10", "-r--r-----".into()),
        ("cd /both; cat a/color token memory; ls", "bluehush64a\nmemory\ntoken".into()),
        ("grep -c ' /both tmpfs' /proc/mounts", "1".into()),
        (
            "touch /scratch/x /part/y && ls /scratch /scratch/a/b",
            "/scratch:\na\nof-web\nx\n\n/scratch/a/b:\ny".into(),
        ),
        ("ls -ln /scratch/x | awk '{print $4}'", "2000".into()),
        ("dd if=/dev/zero of=/memory/x bs=1M count=2 2>/dev/null || echo full", "full".into()),
        ("cat /settings/color /one; touch /settings/x 2>/dev/null || echo no", "blueblueno".into()),
        ("cat /key/token; grep -c ' /key tmpfs' /proc/mounts", "hush1".into()),
        ("ls -l /key/token | head -c 10", "-r--r-----".into()),
        (
            "grep -E 'CapEff|NoNewPrivs' /proc/self/status",
            "CapEff:\t0000000000000000\nNoNewPrivs:\t1".into(),
        ),
    ] {
        let (_, out) = daemon.exec(id, &["sh", "-c", script]).await;
        assert_eq!(out.trim_end(), wanted, "{script}");
    }
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn root_is_refused_where_the_pod_says_so() {
    let daemon = Daemon::start().await;
    let text = super::pod(
        "  securityContext: {runAsNonRoot: true}\n  containers: [{name: app, image: busybox}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let told = |pod: &haled::proto::haled::Pod| pod.reason.contains("runs as root");
    let pod = super::until(&daemon, "pod", "a refusal", told).await;
    assert_eq!(pod.containers[0].reason, "CreateContainerConfigError");
}

#[tokio::test]
async fn dns_settings_are_added_to_the_nodes() {
    let daemon = Daemon::start().await;
    let text = super::pod(
        "  terminationGracePeriodSeconds: 0\n  dnsConfig: {searches: [own.example], options: [{name: ndots, value: '7'}]}\n  containers: [{name: app, image: busybox, command: [sleep, '600']}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let pod = phase(&daemon, "Running").await;
    let (_, inside) = daemon.exec(&pod.containers[0].id, &["cat", "/etc/resolv.conf"]).await;
    let node = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let first = node.lines().find(|line| line.starts_with("nameserver"));
    assert!(first.is_none_or(|line| inside.contains(line)), "{node}\n{inside}");
    let line =
        |start: &str| inside.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(line("search ").ends_with("own.example"), "{inside}");
    assert!(line("options ").split(' ').any(|option| option == "ndots:7"), "{inside}");
}
