//! haled beside containerd: the same calls of the CRI, made in turn in one run, with the same
//! runc, CNI plugins and image.
//!
//! `cargo bench --bench peers`, as root, after `make helpers` and `integration/peers/install`.
//! Times are medians. A machine swings, so what counts is the ratio.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::large_futures)]

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../tests/daemon/mod.rs"]
mod daemon;
mod peers {
    pub mod containerd;
    pub mod node;
}
mod processes;

use daemon::Daemon;
use peers::containerd::Containerd;
use peers::node::{Network, Node};
use processes::pss;

/// Runs of everything that is timed.
const RUNS: usize = 20;
/// Commands that are run in a container, more often for what they use of the CPU.
const COMMANDS: usize = 100;
/// Pods that are there when memory is read and lists are asked for, each with a container.
const PODS: usize = 20;
/// Pods that are asked for at once, and how often.
const AT_ONCE: usize = 10;
const ROUNDS: usize = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    let haled = Daemon::start_so("", "").await;
    let containerd = Containerd::start().await;
    peers::containerd::write_network(&haled.path("cni"), &haled.path("addresses"));
    let nodes = [
        Node::new("haled", haled.process_id(), haled.path(""), haled.socket(), haled.cgroup()),
        containerd.node(),
    ];
    println!("{:<46} {:>10} {:>10} {:>6}", "", "haled", "containerd", "ratio");
    memory("the daemon, idle", nodes.each_ref().map(|node| pss(node.pid)));
    sandboxes(&nodes, Network::Host).await;
    sandboxes(&nodes, Network::Bridge).await;
    containers(&nodes).await;
    commands(&nodes).await;
    bare_pod(&nodes).await;
    crowd(&nodes).await;
    at_once(&nodes).await;
}

fn line(what: &str, unit: &str, [ours, theirs]: [f64; 2]) {
    println!("{what:<46} {ours:>7.1} {unit:<2} {theirs:>7.1} {unit:<2} {:>6.2}", ours / theirs);
}

/// Of resident pages, those shared by several processes in equal parts (proc(5), Pss).
fn memory(what: &str, kilobytes: [usize; 2]) {
    line(&format!("{what}: memory (PSS)"), "MB", kilobytes.map(|kb| kb as f64 / 1000.0));
}

/// Times of the same call, of each.
#[derive(Default)]
struct Times([Vec<Duration>; 2]);

impl Times {
    async fn take<T>(&mut self, at: usize, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let result = work.await;
        self.0[at].push(began.elapsed());
        result
    }

    fn median(mut self, what: &str) {
        let medians = self.0.each_mut().map(|times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1000.0
        });
        line(what, "ms", medians);
    }
}

async fn sandboxes(nodes: &[Node; 2], network: Network) {
    let (mut run, mut stop, mut remove) = (Times::default(), Times::default(), Times::default());
    for round in 0..RUNS {
        for (at, node) in nodes.iter().enumerate() {
            let config = node.sandbox(&format!("sandbox-{round}"), network);
            let pod = run.take(at, node.run(&config)).await;
            stop.take(at, node.stop_pod(&pod)).await;
            remove.take(at, node.remove_pod(&pod)).await;
        }
    }
    run.median(&format!("RunPodSandbox, {network}"));
    stop.median(&format!("StopPodSandbox, {network}"));
    remove.median(&format!("RemovePodSandbox, {network}"));
}

async fn containers(nodes: &[Node; 2]) {
    let mut both = Times::default();
    let mut stop = Times::default();
    let pods = pods(nodes, "containers").await;
    for round in 0..RUNS {
        for (at, (node, (config, pod))) in nodes.iter().zip(&pods).enumerate() {
            let name = format!("app-{round}");
            let id = both.take(at, node.start(pod, config, &name)).await;
            stop.take(at, node.stop(&id)).await;
        }
    }
    both.median("CreateContainer + StartContainer");
    stop.median("StopContainer, the process ends at SIGTERM");
    remove(nodes, &pods).await;
}

/// What an exec probe is: a command in a container that is there.
async fn commands(nodes: &[Node; 2]) {
    let pods = pods(nodes, "commands").await;
    let mut exec = Times::default();
    let mut used = [Duration::ZERO; 2];
    for (at, (node, (config, pod))) in nodes.iter().zip(&pods).enumerate() {
        let id = node.start(pod, config, "app").await;
        // As it is with probes, of which there is a next one.
        for _ in 0..2 {
            node.exec(&id).await;
        }
        let before = node.cpu();
        for _ in 0..COMMANDS {
            exec.take(at, node.exec(&id)).await;
        }
        used[at] = node.cpu().saturating_sub(before);
    }
    exec.median("ExecSync of true");
    let each = used.map(|used| used.as_secs_f64() * 1000.0 / COMMANDS as f64);
    line("the same, CPU time of all that takes part", "ms", each);
    remove(nodes, &pods).await;
}

/// What a pod costs before its first container: all processes that are there for it.
async fn bare_pod(nodes: &[Node; 2]) {
    let mut before = [0; 2];
    for (node, before) in nodes.iter().zip(&mut before) {
        *before = node.memory_beside();
    }
    let mut pods = Vec::new();
    for round in 0..PODS {
        for node in nodes {
            pods.push((
                node,
                node.run(&node.sandbox(&format!("bare-{round}"), Network::Host)).await,
            ));
        }
    }
    let mut each = [0.0; 2];
    for (at, node) in nodes.iter().enumerate() {
        each[at] = (node.memory_beside() - before[at]) as f64 / PODS as f64;
    }
    line("beside the daemon, for each pod: memory (PSS)", "kB", each);
    for (node, pod) in pods {
        node.remove_pod(&pod).await;
    }
}

/// As on a node: many pods, each with a container.
async fn crowd(nodes: &[Node; 2]) {
    let mut pods = Vec::new();
    for round in 0..PODS {
        for node in nodes {
            let config = node.sandbox(&format!("crowd-{round}"), Network::Bridge);
            let pod = node.run(&config).await;
            node.start(&pod, &config, "app").await;
            pods.push((node, pod));
        }
    }
    let (mut list, mut stats) = (Times::default(), Times::default());
    for _ in 0..RUNS * 5 {
        for (at, node) in nodes.iter().enumerate() {
            assert_eq!(list.take(at, node.list()).await, PODS);
            stats.take(at, node.stats()).await;
        }
    }
    list.median(&format!("ListContainers, {PODS} containers"));
    stats.median(&format!("ListContainerStats, {PODS} containers"));
    memory(&format!("the daemon, {PODS} pods"), nodes.each_ref().map(|node| pss(node.pid)));
    for (node, pod) in pods {
        node.remove_pod(&pod).await;
    }
}

/// Pods that are asked for at once, each with a container.
async fn at_once(nodes: &[Node; 2]) {
    let mut took = [Duration::ZERO; 2];
    for round in 0..ROUNDS {
        for (at, node) in nodes.iter().enumerate() {
            let began = Instant::now();
            let pods = (0..AT_ONCE).map(|pod| async move {
                let config = node.sandbox(&format!("at-once-{round}-{pod}"), Network::Bridge);
                let pod = node.run(&config).await;
                node.start(&pod, &config, "app").await;
                pod
            });
            let pods = futures_util::future::join_all(pods).await;
            took[at] += began.elapsed();
            for pod in pods {
                node.remove_pod(&pod).await;
            }
        }
    }
    let rates = took.map(|took| (ROUNDS * AT_ONCE) as f64 / took.as_secs_f64());
    line(&format!("pods a second, {AT_ONCE} at once"), "/s", rates);
}

type Pod = (haled::proto::cri::PodSandboxConfig, String);

/// A pod of this name on each.
async fn pods(nodes: &[Node; 2], name: &str) -> Vec<Pod> {
    let mut pods = Vec::new();
    for node in nodes {
        let config = node.sandbox(name, Network::Host);
        let id = node.run(&config).await;
        pods.push((config, id));
    }
    pods
}

async fn remove(nodes: &[Node; 2], pods: &[Pod]) {
    for (node, (_, pod)) in nodes.iter().zip(pods) {
        node.remove_pod(pod).await;
    }
}

/// What `install` has built, or a word on how to.
fn built(program: &str) -> std::path::PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(program);
    assert!(path.is_file(), "run integration/peers/install first: there is no {}", path.display());
    path
}
