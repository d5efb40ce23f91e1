//! What a pod costs: time and memory, beside bare runc and the bare CNI plugin in the same run.
//!
//! `cargo bench --bench pods [-- PODS]`, as root, after `make helpers`. Times are medians; a
//! machine swings, so what counts is the ratio to what stands beside.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::large_futures)]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use haled::proto::cri;

#[path = "../tests/daemon/mod.rs"]
mod daemon;
mod processes;

use daemon::Daemon;
use processes::{monitor_of, pause_of, pss};

/// Runs of everything that is timed.
const RUNS: usize = 20;
/// Containers whose statistics and metrics are asked for.
const MEASURED: usize = 20;
/// Pods that are there when memory is read, unless the command line says.
const PODS: usize = 50;

fn main() {
    let pods = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(PODS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut daemon = Daemon::start().await;
        println!("{:<44} {:>10} {:>10} {:>7}", "what", "haled", "beside", "ratio");
        sandboxes(&daemon).await;
        containers(&daemon).await;
        statistics(&daemon).await;
        crowd(&mut daemon, pods).await;
    });
}

/// One line of the table.
fn row(what: &str, ours: &mut [Duration], beside: Option<(&str, &mut [Duration])>) {
    let median = |times: &mut [Duration]| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    let ours = median(ours);
    match beside {
        Some((name, theirs)) => {
            let theirs = median(theirs);
            println!("{what:<44} {ours:>7.1} ms {theirs:>7.1} ms {:>7.2}  ({name})", ours / theirs);
        }
        None => println!("{what:<44} {ours:>7.1} ms"),
    }
}

async fn timed<T>(times: &mut Vec<Duration>, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let result = work.await;
    times.push(began.elapsed());
    result
}

async fn sandboxes(daemon: &Daemon) {
    let (mut run, mut stop) = (Vec::new(), Vec::new());
    for at in 0..RUNS {
        let config = daemon.host_sandbox(&format!("host-{at}"));
        let pod = timed(&mut run, daemon.run(&config)).await;
        timed(&mut stop, daemon.stop_pod(&pod)).await;
        daemon.remove_pod(&pod).await;
    }
    row("RunPodSandbox, host network", &mut run, None);
    row("StopPodSandbox, host network", &mut stop, None);

    let (mut run, mut stop, mut plugin) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..RUNS {
        let pod = timed(&mut run, daemon.run(&daemon.sandbox(&format!("cni-{at}")))).await;
        timed(&mut stop, daemon.stop_pod(&pod)).await;
        daemon.remove_pod(&pod).await;
        plugin.push(bare_plugin(daemon, at));
    }
    row("RunPodSandbox, CNI bridge", &mut run, Some(("the bridge plugin's ADD", &mut plugin)));
    row("StopPodSandbox, CNI bridge", &mut stop, None);
}

/// ADD by the bridge plugin alone, in a network namespace that is there already.
fn bare_plugin(daemon: &Daemon, at: usize) -> Duration {
    let name = format!("bench-{at}");
    let shell = |script: &str| assert!(daemon.on_node(script).status().unwrap().success());
    shell(&format!("mkdir -p /run/netns && ip netns add {name}"));
    let plugin = ["/opt/cni/bin/bridge", "/usr/lib/cni/bridge"];
    let plugin = plugin.iter().find(|path| Path::new(path).exists()).expect("CNI plugins");
    let input = daemon.path("bench-cni.json");
    let conf = format!(
        r#"{{"cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "bench0", "isGateway": true, "ipMasq": true,
            "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "10.66.0.0/16"}}]], "dataDir": "{}"}}}}"#,
        daemon.path("bench-addresses").display()
    );
    std::fs::write(&input, conf).unwrap();
    let call = |command: &str| {
        format!(
            "CNI_COMMAND={command} CNI_CONTAINERID={name} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0 \
             CNI_PATH={} {plugin} < {} > /dev/null",
            Path::new(plugin).parent().unwrap().display(),
            input.display()
        )
    };
    let began = Instant::now();
    shell(&call("ADD"));
    let took = began.elapsed();
    shell(&call("DEL"));
    shell(&format!("ip netns del {name}"));
    took
}

async fn containers(daemon: &Daemon) {
    let pod = daemon.run(&daemon.host_sandbox("containers")).await;
    let sleeper = |name: String| Daemon::host_container(&name, "exec sleep 600");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut last = String::new();
    for at in 0..RUNS {
        let config = sleeper(format!("ours-{at}"));
        last = timed(&mut ours, daemon.run_container(&pod, config)).await;
        // The bundle of a container that is created and never started by haled.
        let id = daemon.create(&pod, sleeper(format!("bare-{at}"))).await.unwrap();
        bare.push(bare_runc(daemon, &pod, &id));
    }
    row("CreateContainer + StartContainer", &mut ours, Some(("runc run --detach", &mut bare)));
    let mut exec = Vec::new();
    for _ in 0..RUNS {
        timed(&mut exec, daemon.exec(&last, &["true"])).await;
    }
    row("ExecSync", &mut exec, None);
    daemon.remove_pod(&pod).await;
}

fn bare_runc(daemon: &Daemon, pod: &str, id: &str) -> Duration {
    let bundle = daemon.path("state/pods").join(pod).join("containers").join(id);
    let root = daemon.path("bench-runc");
    let runc = format!("runc --root {}", root.display());
    let run = |script: &str| {
        let status = daemon.on_node(script).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{script}");
    };
    let began = Instant::now();
    run(&format!("{runc} run --detach --bundle {} {id}", bundle.display()));
    let took = began.elapsed();
    run(&format!("{runc} delete --force {id}"));
    took
}

/// What a kubelet asks for every ten seconds.
async fn statistics(daemon: &Daemon) {
    let pod = daemon.run(&daemon.host_sandbox("measured")).await;
    for at in 0..MEASURED {
        let config = Daemon::host_container(&format!("app-{at}"), "exec sleep 600");
        daemon.run_container(&pod, config).await;
    }
    let mut client = daemon.runtime().await;
    // The first answer waits for writable layers, which later ones know.
    let all = client.list_container_stats(cri::ListContainerStatsRequest::default()).await;
    assert_eq!(all.unwrap().into_inner().stats.len(), MEASURED);
    let (mut stats, mut metrics) = (Vec::new(), Vec::new());
    for _ in 0..RUNS * 5 {
        let request = cri::ListContainerStatsRequest::default();
        timed(&mut stats, client.list_container_stats(request)).await.unwrap();
        let request = cri::ListPodSandboxMetricsRequest::default();
        timed(&mut metrics, client.list_pod_sandbox_metrics(request)).await.unwrap();
    }
    row(&format!("ListContainerStats, {MEASURED} containers"), &mut stats, None);
    row(&format!("ListPodSandboxMetrics, {MEASURED} containers"), &mut metrics, None);
    daemon.remove_pod(&pod).await;
}

/// Many pods at once: memory, listing, a restart of the daemon.
async fn crowd(daemon: &mut Daemon, count: usize) {
    println!("{:<44} {:>7} kB", "daemon, idle: PSS", pss(daemon.process_id()));
    let began = Instant::now();
    for at in 0..count {
        let pod = daemon.run(&daemon.sandbox(&format!("crowd-{at}"))).await;
        daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("{:<44} {rate:>7.1} /s", "pods with a container, one after another");
    println!("{:<44} {:>7} kB", format!("daemon, {count} pods: PSS"), pss(daemon.process_id()));
    let (mut monitor, mut pause) = (0, 0);
    for pod in daemon.pods().await {
        let pid = monitor_of(daemon, &pod.id);
        monitor += pss(pid);
        pause += pss(pause_of(pid));
    }
    let each = |sum: usize| sum / count.max(1);
    println!("{:<44} {:>7} kB", "a pod: PSS of the monitor", each(monitor));
    println!("{:<44} {:>7} kB", "a pod: PSS of pause", each(pause));

    let mut list = Vec::new();
    for _ in 0..RUNS * 5 {
        let mut client = daemon.runtime().await;
        let request = cri::ListContainersRequest::default();
        timed(&mut list, client.list_containers(request)).await.unwrap();
    }
    row(&format!("ListContainers, {count} containers"), &mut list, None);

    daemon.kill();
    let began = Instant::now();
    daemon.launch().await;
    let what = format!("kill -9, until it serves again, {count} pods");
    println!("{what:<44} {:>7.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    for pod in daemon.pods().await {
        daemon.remove_pod(&pod.id).await;
    }
}
