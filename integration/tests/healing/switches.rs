//! `haled/heal: auto`: a client that comes and goes as it likes, and haled, share the restarts of
//! one container without ever having two of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use haled::proto::cri::runtime_service_client::RuntimeServiceClient;
use haled::proto::{cri, haled as wire};
use tonic::Code;
use tonic::transport::Channel;

use crate::daemon::{Daemon, PATIENCE};

/// Times as short as the configuration allows.
const SETTINGS: &str = "[healing]\norchestrator_open = \"100ms\"\norchestrator_used = \"100ms\"\n\
                        backoff_initial = \"100ms\"\nbackoff_max = \"100ms\"\n";
/// How often the client comes or goes.
const SWITCHES: u32 = 200;
/// It stays and is away for less than this.
const LONGEST_STAY_MS: u64 = 280;

/// Fails by itself or, every third time, becomes unhealthy. A port can be had only once, so
/// whoever doesn't get it has found another attempt alive.
const SCRIPT: &str = r"
touch /tmp/healthy
trap 'exit 3' TERM
httpd -p 127.0.0.1:7766 || echo two >> /out/two
echo run >> /out/starts
if [ $(( $(wc -l < /out/starts) % 3 )) = 0 ]; then
    rm /tmp/healthy
    while true; do sleep 0.05; done
fi
sleep 0.1
exit 1
";

/// A kubelet's part in restarting, as far as it matters here.
struct Client<'a> {
    runtime: RuntimeServiceClient<Channel>,
    pod: &'a str,
    config: &'a cri::ContainerConfig,
    /// Dies after CreateContainer.
    forgets_to_start: bool,
}

impl Client<'_> {
    /// Looks after the container until it is dropped.
    async fn work(&mut self) {
        loop {
            self.look().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn look(&mut self) {
        let filter = cri::ContainerFilter { pod_sandbox_id: self.pod.into(), ..Default::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        let mut all = self.runtime.list_containers(request).await.unwrap().into_inner().containers;
        let running = |c: &&cri::Container| c.state() == cri::ContainerState::ContainerRunning;
        assert!(all.iter().filter(running).count() <= 1, "two run: {all:?}");
        all.sort_by_key(attempt);
        let newest = all.pop().unwrap();
        let kept = all.len().saturating_sub(1);
        for old in all.drain(..kept) {
            let request = cri::RemoveContainerRequest { container_id: old.id };
            self.runtime.remove_container(request).await.unwrap();
        }
        if newest.state() != cri::ContainerState::ContainerRunning {
            self.restart(attempt(&newest) + 1).await;
        }
    }

    async fn restart(&mut self, attempt: u32) {
        let mut config = self.config.clone();
        config.metadata = Some(cri::ContainerMetadata { name: "app".into(), attempt });
        config.log_path = format!("app/{attempt}.log");
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.pod.into(),
            config: Some(config),
            sandbox_config: None,
        };
        let container_id = match self.runtime.create_container(request).await {
            Ok(created) => created.into_inner().container_id,
            // haled was there before: what it made is found by looking again.
            Err(refused) if refused.code() == Code::AlreadyExists => return,
            Err(error) => panic!("{error}"),
        };
        if self.forgets_to_start {
            return std::future::pending().await;
        }
        let request = cri::StartContainerRequest { container_id };
        match self.runtime.start_container(request).await {
            Err(error) if error.code() != Code::FailedPrecondition => panic!("{error}"),
            _ => {}
        }
    }
}

fn attempt(container: &cri::Container) -> u32 {
    container.metadata.as_ref().unwrap().attempt
}

/// Numbers that look random and are the same each time (a linear congruence).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Every start of the pod's container, by its event's reason and message.
async fn note_starts(daemon: &Daemon) -> tokio::sync::watch::Receiver<Vec<(String, String)>> {
    let request = wire::EventsRequest { follow: true, ..Default::default() };
    let mut events = daemon.haled().await.events(request).await.unwrap().into_inner();
    let (sender, receiver) = tokio::sync::watch::channel(Vec::new());
    tokio::spawn(async move {
        while let Ok(Some(event)) = events.message().await {
            if ["Started", "Restarted"].contains(&event.reason.as_str()) {
                assert_eq!(event.count, 1, "{event:?}");
                sender.send_modify(|starts| starts.push((event.reason, event.message)));
            }
        }
    });
    receiver
}

#[tokio::test]
async fn a_client_that_comes_and_goes_never_makes_two_of_a_container() {
    let daemon = Daemon::start_so("", SETTINGS).await;
    let out = daemon.path("out");
    std::fs::create_dir(&out).unwrap();
    let starts = note_starts(&daemon).await;
    let probe = r#"{"exec": {"command": ["ls", "/tmp/healthy"]}, "periodMilliseconds": 100, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#;
    let sandbox = cri::PodSandboxConfig {
        annotations: HashMap::from([("liveness.haled/app".to_owned(), probe.to_owned())]),
        ..daemon.host_sandbox("shared")
    };
    let pod = daemon.run(&sandbox).await;
    let mut config = Daemon::host_container("app", SCRIPT);
    config.mounts.push(cri::Mount {
        host_path: out.to_str().unwrap().into(),
        container_path: "/out".into(),
        ..Default::default()
    });
    daemon.run_container(&pod, config.clone()).await;

    let mut dice = Dice(20_261_124);
    for _ in 0..SWITCHES / 2 {
        let mut client = Client {
            runtime: daemon.runtime().await,
            pod: &pod,
            config: &config,
            forgets_to_start: dice.below(4) == 0,
        };
        let stay = Duration::from_millis(dice.below(LONGEST_STAY_MS));
        // Cut off wherever it is.
        drop(tokio::time::timeout(stay, client.work()).await);
        drop(client);
        tokio::time::sleep(Duration::from_millis(dice.below(LONGEST_STAY_MS))).await;
    }

    // Now that nobody is there any more, haled goes on.
    let healed = |starts: &[(String, String)]| {
        starts.iter().filter(|(reason, _)| reason == "Restarted").count()
    };
    let (before, began) = (healed(&starts.borrow()), Instant::now());
    while healed(&starts.borrow()) < before + 3 {
        assert!(began.elapsed() < PATIENCE, "it isn't restarted any more\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let starts = starts.borrow().clone();
    assert!(healed(&starts) < starts.len(), "the client restarted nothing: {starts:?}");
    assert!(before > 0, "haled restarted nothing while the client came and went: {starts:?}");
    let mut attempts: Vec<&str> =
        starts.iter().map(|(_, message)| message.rsplit(' ').next().unwrap()).collect();
    attempts.sort_unstable();
    let all = attempts.len();
    attempts.dedup();
    assert_eq!(attempts.len(), all, "an attempt was started twice: {starts:?}");
    assert!(!out.join("two").exists(), "two attempts ran at once: {starts:?}");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}
