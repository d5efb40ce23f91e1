//! Pods whose root is nobody on the node, and images as volumes.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::{delete, phase, until};
use crate::daemon::Daemon;

/// One with every kind of volume that has files.
const POD: &str = r#"
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
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 2000}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key}}
  - {name: tools, image: {reference: busybox, pullPolicy: Never}}
  containers:
  - name: app
    image: busybox
    command: [sleep, "600"]
    env: [{name: DIR, value: bin}]
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: scratch, mountPath: /part, subPath: a/b}
    - {name: memory, mountPath: /memory}
    - {name: settings, mountPath: /settings}
    - {name: key, mountPath: /key}
    - {name: key, mountPath: /rro, readOnly: true, recursiveReadOnly: Enabled}
    - {name: tools, mountPath: /tools}
    - {name: tools, mountPath: /bins, subPathExpr: $(DIR)}
"#;

/// A pod's root comes to its files through the test's directory.
fn open_the_way(daemon: &Daemon) {
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(daemon.path(""), mode).unwrap();
}

async fn root_of(daemon: &Daemon, container: &str) -> u32 {
    std::fs::metadata(format!("/proc/{}", daemon.pid(container).await)).unwrap().uid()
}

#[tokio::test]
async fn a_pod_has_users_of_its_own() {
    let mut daemon = Daemon::start().await;
    open_the_way(&daemon);
    daemon.apply(POD).await.unwrap();
    let pod = phase(&daemon, "Running").await;
    let id = pod.containers[0].id.clone();
    let root = root_of(&daemon, &id).await;
    assert!(root >= 0x7000_0000, "{root}");
    let map = daemon.exec(&id, &["cat", "/proc/self/uid_map"]).await.1;
    let map: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(map, [0, root, 65536]);
    for (script, wanted) in [
        ("stat -c %u:%g / /bin/busybox /tools/bin/busybox | sort -u", "0:0"),
        ("stat -c %u:%g /scratch /part /memory /settings/color /key/token | sort -u", "0:2000"),
        ("cat /settings/color /key/token", "bluehush"),
        ("touch /scratch/x /part/y /memory/z && stat -c %u:%g /scratch/x", "0:2000"),
        ("/tools/bin/busybox echo whole; /bins/busybox echo part", "whole\npart"),
        ("for dir in tools settings key rro; do touch /$dir/x || echo no; done", "no\nno\nno\nno"),
        ("mount -o remount,rw,bind /settings || echo locked", "locked"),
    ] {
        let (_, out) = daemon.exec(&id, &["sh", "-c", script]).await;
        assert_eq!(out.trim_end(), wanted, "{script}");
    }
    // Another pod has others, and both keep theirs.
    let other = POD.replace("metadata: {name: pod}", "metadata: {name: other}");
    daemon.apply(&other).await.unwrap();
    let runs = |pod: &haled::proto::haled::Pod| pod.phase == "Running";
    let second = until(&daemon, "other", "it runs", runs).await;
    assert!(root_of(&daemon, &second.containers[0].id).await.abs_diff(root) >= 65536);
    daemon.kill();
    daemon.launch().await;
    let again = daemon.apply(POD).await.unwrap();
    assert_eq!(again.pods[0].result(), haled::proto::haled::applied_pod::Result::Unchanged);
    // Also when its sandbox is made anew, with what it left in its volumes.
    daemon.kill_monitor(&pod.sandbox_id);
    let new = until(&daemon, "pod", "another sandbox", |now| {
        now.sandbox_id != pod.sandbox_id && now.containers[0].state == "Running"
    })
    .await;
    let id = &new.containers[0].id;
    assert_eq!(root_of(&daemon, id).await, root);
    let (_, seen) =
        daemon.exec(id, &["busybox", "stat", "-c", "%u:%g", "/scratch/x", "/part/y"]).await;
    assert_eq!(seen, "0:2000\n0:2000\n");
    delete(&daemon, "pod").await;
    delete(&daemon, "other").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn an_image_volume_that_is_not_here_is_told() {
    let daemon = Daemon::start().await;
    let text = super::pod(
        "  volumes: [{name: v, image: {reference: 'example.com/none:1', pullPolicy: Never}}]\n  containers: [{name: app, image: busybox, volumeMounts: [{name: v, mountPath: /v}]}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let told = |pod: &haled::proto::haled::Pod| pod.reason.starts_with("ErrImageNeverPull");
    let pod = until(&daemon, "pod", "the reason", told).await;
    assert!(pod.reason.contains("example.com/none:1"), "{}", pod.reason);
    delete(&daemon, "pod").await;
}
