//! What a pod's fields look like from inside, where `every_field` can't say it: a pod has
//! only one user, and one resolv.conf.

use super::phase;
use crate::daemon::Daemon;

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
