//! The processors that a container may run on.

use super::*;

/// Those that this process may, `0-1,4`, one by one.
fn processors() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        (number(from)..=number(to)).map(|each| each.to_string()).collect::<Vec<_>>()
    };
    list.trim().split(',').flat_map(range).collect()
}

#[tokio::test]
async fn a_container_runs_on_the_processors_it_was_given_and_then_on_others() {
    let all = processors();
    let (first, last) = (all.first().unwrap().clone(), all.last().unwrap().clone());
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("processors")).await;
    let on = |cpus: &str| cri::LinuxContainerResources {
        cpuset_cpus: cpus.into(),
        cpuset_mems: "0".into(),
        ..Default::default()
    };
    let id = daemon.run_container(&pod, limited("app", on(&first))).await;
    let seen = async |daemon: &Daemon| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid(&id).await));
        // The first process, and what is executed beside it.
        [status.unwrap(), daemon.exec(&id, &["cat", "/proc/self/status"]).await.1].map(|status| {
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
            };
            (field("Cpus_allowed_list:"), field("Mems_allowed_list:"))
        })
    };
    let both = |cpus: &str| [(cpus.to_owned(), "0".to_owned()), (cpus.to_owned(), "0".to_owned())];
    assert_eq!(seen(&daemon).await, both(&first));
    update(&daemon, &id, cri::LinuxContainerResources { cpuset_mems: String::new(), ..on(&last) })
        .await
        .unwrap();
    assert_eq!(kernel(&daemon.cgroup_of(&id).await, "cpuset", "cpuset.cpus"), last);
    assert_eq!(seen(&daemon).await, both(&last));
    daemon.kill();
    daemon.launch().await;
    assert_eq!(told(&daemon, &id).await, on(&last));
    assert_eq!(seen(&daemon).await, both(&last));
    daemon.remove_pod(&pod).await;
}
