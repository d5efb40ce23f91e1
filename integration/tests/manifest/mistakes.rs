//! Manifests with one mistake each: what is told.

use std::path::Path;

use super::{halectl, pod};
use crate::daemon::Daemon;

/// Each file of integration/pods/mistakes has one.
#[tokio::test]
async fn one_mistake_each() {
    let daemon = Daemon::start_without_network().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/pods/mistakes");
    let there = std::fs::read_dir(&folder).unwrap();
    let mut files: Vec<_> = there.map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files.len(), 10);
    let told: Vec<String> = files
        .iter()
        .map(|file| {
            let file = file.to_str().unwrap();
            let (code, printed) = halectl(&daemon, &folder, &["apply", "-f", file]);
            format!("$ halectl apply -f {file}\n{printed}exit code {code}\n")
        })
        .collect();
    assert!(daemon.pod("mistake").await.is_none());
    assert!(daemon.pod("typo").await.is_none());
    insta::assert_snapshot!(told.join("\n"));
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
