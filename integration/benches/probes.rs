//! What 1,000 HTTP probes a second cost, beside a loop that makes the same connections and
//! does nothing else.
//!
//! `cargo bench --bench probes`, as root, after `make helpers`. 100 pods with a network of their
//! own are probed every 100 ms. The server of each is a socket of this process, opened in the
//! pod's network namespace, so that what is measured is the prober and no server.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::large_futures)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_gettime};

#[path = "../tests/daemon/mod.rs"]
mod daemon;
mod processes;

use daemon::Daemon;
use processes::{cpu, monitor_of, pause_of};

const PODS: usize = 100;
/// Of every pod, in milliseconds: the least there is.
const PERIOD: u64 = 100;
const PORT: u16 = 8080;
/// How long is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// A pod as a loop without a runtime sees it.
struct Target {
    namespace: File,
    address: SocketAddr,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    let mut daemon = Daemon::start().await;
    let served = Arc::new(AtomicU64::new(0));
    let mut targets = Vec::new();
    for at in 0..PODS {
        targets.push(probed_pod(&daemon, at, &served).await);
    }
    // The first run of each is spread over a period.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let pid = daemon.process_id();
    let (before, first, began) = (cpu(pid), served.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(WINDOW).await;
    let probes = served.load(Ordering::Relaxed) - first;
    let ours = report("haled", probes, cpu(pid).saturating_sub(before), began.elapsed());

    daemon.kill();
    // On a thread of its own: it doesn't come back from the pods' namespaces.
    let bare = std::thread::spawn(move || bare_loop(&targets)).join().unwrap();
    println!("{:<12} {:>7.2}", "ratio", ours / bare);

    daemon.launch().await;
    for pod in daemon.pods().await {
        daemon.remove_pod(&pod.id).await;
    }
}

/// One line of the table; gives the seconds of CPU for each probe.
fn report(who: &str, probes: u64, used: Duration, took: Duration) -> f64 {
    let each = used.as_secs_f64() / probes as f64;
    println!(
        "{who:<12} {:>7.0} probes/s {:>7.1} % of a CPU {:>7.0} us a probe",
        probes as f64 / took.as_secs_f64(),
        used.as_secs_f64() / took.as_secs_f64() * 100.0,
        each * 1e6,
    );
    each
}

/// A pod with a readiness probe, and its server.
async fn probed_pod(daemon: &Daemon, at: usize, served: &Arc<AtomicU64>) -> Target {
    let mut config = daemon.sandbox(&format!("probed-{at}"));
    let probe = format!(r#"{{"httpGet": {{"port": {PORT}}}, "periodMilliseconds": {PERIOD}}}"#);
    config.annotations.insert("readiness.haled/app".into(), probe);
    let pod = daemon.run(&config).await;
    let pause = pause_of(monitor_of(daemon, &pod));
    let namespace = File::open(format!("/proc/{pause}/ns/net")).unwrap();
    let address = SocketAddr::new(daemon.pod_ip(&pod).await.parse().unwrap(), PORT);
    let target = Target { namespace, address };
    serve(&target, served);
    daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    target
}

/// Answers every request in the pod's network namespace, on a thread of its own.
fn serve(target: &Target, served: &Arc<AtomicU64>) {
    let (namespace, served) = (target.namespace.try_clone().unwrap(), served.clone());
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
        ready.send(()).unwrap();
        for connection in listener.incoming() {
            // A prober that is killed leaves a connection cut off in the middle.
            if connection.and_then(|stream| answer(&stream)).is_ok() {
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    is_ready.recv().unwrap();
}

fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let mut length = 0;
    while !request[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut request[length..])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// The same connections at the same rate by one thread; gives its seconds of CPU for each.
fn bare_loop(targets: &[Target]) -> f64 {
    let pause = Duration::from_millis(PERIOD) / u32::try_from(targets.len()).unwrap();
    let on_cpu = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let (before, began) = (on_cpu(), Instant::now());
    let mut probes = 0;
    for target in targets.iter().cycle() {
        if began.elapsed() >= WINDOW {
            break;
        }
        let next = began + pause * probes;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        bare_probe(target).unwrap();
        probes += 1;
    }
    report("a bare loop", probes.into(), on_cpu().saturating_sub(before), began.elapsed())
}

fn bare_probe(target: &Target) -> std::io::Result<()> {
    setns(&target.namespace, CloneFlags::CLONE_NEWNET)?;
    let mut stream = TcpStream::connect(target.address)?;
    let request = "GET / HTTP/1.1\r\nHost: pod\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    Ok(())
}
