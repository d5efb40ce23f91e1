//! Pods on the network: loopback, the bridge between pods, host ports, and what is said when
//! there is no network.

use haled::proto::cri;
use tonic::Code;

use crate::daemon::Daemon;

/// Asks until something answers, for a server may still be starting. With nc: the wget of a
/// static busybox can't look anything up.
fn ask(address: &str) -> String {
    format!(
        "for i in $(seq 100); do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 8080 >/tmp/answer \
         && tail -n 1 /tmp/answer && exit 0; sleep 0.1; done; echo silence; exit 1"
    )
}

const WEB: &str = "exec httpd -f -p 8080 -h /www";

#[tokio::test]
async fn a_pods_containers_share_localhost_and_pods_reach_each_other() {
    let daemon = Daemon::start().await;
    let one = daemon.run(&daemon.sandbox("one")).await;
    let two = daemon.run(&daemon.sandbox("two")).await;
    daemon.run_container(&one, Daemon::container("web", WEB)).await;
    let near = daemon.run_container(&one, Daemon::container("near", "exec sleep 600")).await;
    let far = daemon.run_container(&two, Daemon::container("far", "exec sleep 600")).await;

    let there = (0, "it works\n".to_owned());
    assert_eq!(daemon.exec(&near, &["sh", "-c", &ask("127.0.0.1")]).await, there);
    let address = daemon.pod_ip(&one).await;
    assert_ne!(address, daemon.pod_ip(&two).await);
    assert_eq!(daemon.exec(&far, &["sh", "-c", &ask(&address)]).await, there);
    let (code, _) = daemon.exec(&far, &["nc", "-w", "5", "127.0.0.1", "8080"]).await;
    assert_ne!(code, 0, "the other pod's localhost is its own");
    let (_, hosts) = daemon.exec(&near, &["cat", "/etc/hosts"]).await;
    assert!(hosts.contains(&address) && hosts.contains("one"), "{hosts}");
}

#[tokio::test]
async fn a_host_port_answers_until_the_pod_is_gone() {
    let daemon = Daemon::start().await;
    let mut config = daemon.sandbox("web");
    config.port_mappings = vec![cri::PortMapping {
        protocol: cri::Protocol::Tcp.into(),
        container_port: 8080,
        host_port: 18080,
        host_ip: String::new(),
    }];
    let pod = daemon.run(&config).await;
    daemon.run_container(&pod, Daemon::container("web", WEB)).await;
    let from_node = || {
        let command = "curl -s -m 2 http://127.0.0.1:18080/";
        daemon.on_node(command).output().unwrap().stdout
    };
    daemon.until("an answer on the host port", || from_node() == b"it works\n").await;
    daemon.remove_pod(&pod).await;
    assert!(from_node().is_empty(), "it answers for a pod that is gone");
}

#[tokio::test]
async fn a_pod_on_the_hosts_network_is_on_the_hosts_network() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("host")).await;
    let container = Daemon::host_container("web", "exec httpd -f -p 18081 -h /www");
    daemon.run_container(&pod, container).await;
    let from_node = || {
        let command = "curl -s -m 2 http://127.0.0.1:18081/";
        daemon.on_node(command).output().unwrap().stdout
    };
    daemon.until("an answer on the node", || from_node() == b"it works\n").await;
    assert_eq!(daemon.pod_ip(&pod).await, "", "the kubelet takes the node's own");
}

#[tokio::test]
async fn without_a_configuration_the_network_is_not_ready_and_says_how_it_would_be() {
    let daemon = Daemon::start_without_network().await;
    let status = daemon.runtime().await.status(cri::StatusRequest { verbose: true }).await;
    let status = status.unwrap().into_inner().status.unwrap();
    let condition = |name: &str| {
        status.conditions.iter().find(|condition| condition.r#type == name).unwrap().clone()
    };
    assert!(condition("RuntimeReady").status);
    let network = condition("NetworkReady");
    assert!(!network.status);
    assert!(network.message.contains("network.default_bridge = true"), "{}", network.message);

    let request = cri::RunPodSandboxRequest {
        config: Some(daemon.sandbox("none")),
        runtime_handler: String::new(),
    };
    let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().contains("no CNI configuration"), "{}", error.message());
    daemon.no_pods().await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_and_nothing_stays() {
    let daemon = Daemon::start_without_network().await;
    std::fs::create_dir_all(daemon.path("cni")).unwrap();
    let conflist = r#"{"cniVersion": "1.0.0", "name": "broken", "plugins": [
        {"type": "bridge", "bridge": "broken0",
         "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}]]}},
        {"type": "no-such-plugin"}]}"#;
    std::fs::write(daemon.path("cni/10-broken.conflist"), conflist).unwrap();
    let request = cri::RunPodSandboxRequest {
        config: Some(daemon.sandbox("broken")),
        runtime_handler: String::new(),
    };
    let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    assert_ne!(error.code(), Code::Ok);
    assert!(error.message().contains("no-such-plugin"), "{}", error.message());
    let leases =
        daemon.on_node("ls /var/lib/cni/networks/broken 2>/dev/null | grep '^10'").output();
    assert!(leases.unwrap().stdout.is_empty(), "an address stays taken");
    daemon.no_pods().await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn what_a_network_cannot_do_is_refused_before_anything_is_made() {
    let daemon = Daemon::start().await;
    let refused = |config: cri::PodSandboxConfig| {
        let daemon = &daemon;
        async move {
            let request =
                cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
            let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            error.message().to_owned()
        }
    };
    let mut rate = daemon.sandbox("rate");
    rate.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "plenty".into());
    assert!(refused(rate).await.contains("plenty"));
    let mut sysctl = daemon.sandbox("sysctl");
    sysctl.linux.as_mut().unwrap().sysctls.insert("kernel.core_pattern".into(), "x".into());
    assert!(refused(sysctl).await.contains("kernel.core_pattern"));
    let mut parent = daemon.sandbox("parent");
    parent.linux.as_mut().unwrap().cgroup_parent = "/a//b".into();
    assert!(refused(parent).await.contains("/a//b"));
    daemon.nothing_is_left().await;
}
