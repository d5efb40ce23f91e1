//! Pods as a cluster, or haled itself, prints them.

use super::{delete, halectl, phase};
use crate::daemon::Daemon;

/// What `kubectl get pod web -o yaml` prints, from a cluster of version 1.36.
const FROM_CLUSTER: &str = include_str!("../../pods/from-a-cluster.yaml");

#[tokio::test]
async fn what_is_printed_can_be_applied() {
    let daemon = Daemon::start_without_network().await;
    let dir = daemon.path("");
    std::fs::write(dir.join("pod.yaml"), FROM_CLUSTER).unwrap();
    let halectl = |args: &[&str]| halectl(&daemon, &dir, args);
    let (code, told) = halectl(&["apply", "-f", "pod.yaml", "--dry-run"]);
    assert!(code == 0 && told.starts_with("pod/pod created (dry run)\n"), "{told}");
    assert!(daemon.pod("pod").await.is_none());
    let (code, told) = halectl(&["apply", "-f", "pod.yaml"]);
    let left_out = "halectl: pod.yaml: pod \"pod\": volume \"kube-api-access-7xk2p\" and its mounts are \
                    left out: there is no API server here, and no token for one\n";
    assert_eq!((code, told), (0, format!("pod/pod created\n{left_out}")));
    let first = phase(&daemon, "Running").await;
    // What haled prints of it is what it has, whichever way it is asked for.
    for args in [
        &["get", "pod", "pod", "-o", "yaml"][..],
        &["get", "pod", "pod", "-o", "json"],
        &["get", "pods", "-o", "yaml"],
        &["get", "pods", "-o", "json"],
    ] {
        let (code, printed) = halectl(args);
        assert_eq!(code, 0, "{printed}");
        std::fs::write(dir.join("printed"), &printed).unwrap();
        let (code, told) = halectl(&["apply", "-f", "printed"]);
        assert_eq!((code, told.as_str()), (0, "pod/pod unchanged\n"), "{args:?}\n{printed}");
    }
    assert_eq!(daemon.pod("pod").await.unwrap().uid, first.uid);
    let (code, told) = halectl(&["delete", "-f", "printed"]);
    assert_eq!((code, told.as_str()), (0, "pod/pod deleted\n"));
    // And comes back from it.
    let (code, told) = halectl(&["apply", "-f", "printed"]);
    assert_eq!((code, told.as_str()), (0, "pod/pod created\n"));
    phase(&daemon, "Running").await;
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}
