//! Manifests with one mistake each: what is told.

use super::pod;
use crate::daemon::Daemon;

#[tokio::test]
async fn one_mistake_each() {
    let daemon = Daemon::start().await;
    let manifests = [
        "apiVersion: v1\nkind: Pod\nmetadata: {name: pod}\nspec: [\n".to_owned(),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n".to_owned(),
        pod("  containers:\n  - name: app\n    imagee: busybox\n"),
        pod("  containers:\n  - name: App_1\n    image: busybox\n"),
        pod("  containers:\n  - name: app\n    image: busybox\n    command: sleep 1\n"),
        pod(
            "  containers:\n  - name: app\n    image: busybox\n    livenessProbe:\n      exec: {command: [ls]}\n      periodSeconds: 0\n",
        ),
        pod(
            "  containers:\n  - name: app\n    image: busybox\n    volumeMounts:\n    - {name: data, mountPath: /data}\n",
        ),
        pod(
            "  containers:\n  - name: app\n    image: busybox\n    env:\n    - name: A\n      valueFrom:\n        secretKeyRef: {name: key, key: token}\n",
        ),
        pod(
            "  containers:\n  - name: app\n    image: busybox\n    resources:\n      limits: {memory: lots}\n",
        ),
        pod("  restartPolicy: always\n  containers:\n  - {name: app, image: busybox}\n"),
        pod("  nodeSelector: {disk: ssd}\n  containers:\n  - {name: app, image: busybox}\n"),
    ];
    let mut told = String::new();
    for manifest in manifests {
        let error = daemon.apply(&manifest).await.unwrap_err();
        told += error.message();
        told.push('\n');
    }
    assert!(daemon.pod("pod").await.is_none());
    insta::assert_snapshot!(told);
}
