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

/// So many that a client would break the connection over the answer.
#[tokio::test]
async fn a_wall_of_mistakes_reaches_the_client() {
    let daemon = Daemon::start_without_network().await;
    let fields: String =
        (0..8000).fold(String::new(), |all, at| all + &format!("    imagee{at}: x\n"));
    let text = pod(&format!("  containers:\n  - name: app\n    image: busybox\n{fields}"));
    let error = daemon.apply(&text).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    assert!(error.message().ends_with(" more mistakes"), "{}", error.message());
    let fields: Vec<String> = (0..5000).map(|at| format!("\"é{at}\": 1")).collect();
    let mut config = daemon.host_sandbox("wall");
    config.annotations.insert("liveness.haled/app".into(), format!("{{{}}}", fields.join(",")));
    let request =
        haled::proto::cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    assert!(error.message().contains("liveness.haled/app"), "{}", error.message());
}
