//! postStart and preStop, in containers, over HTTP and as a pause.

use std::time::{Duration, Instant};

use haled::container::state::State;
use haled::health::{ContainerPolicy, Handler, Hook, Hooks, Probe, RestartPolicy};

use super::house::{House, end, policy, runs, with_liveness};

/// Ends on SIGTERM, with 5 where the file that a hook makes is there, else with 6.
const TELLS: &str =
    "trap 'test -e /out/hooked && exit 5; exit 6' TERM; while true; do sleep 0.05; done";

fn exec(script: &str) -> Hook {
    Hook::Run(Handler::Exec { command: ["/bin/sh", "-c", script].map(String::from).into() })
}

fn post_start(hook: Hook) -> ContainerPolicy {
    ContainerPolicy {
        hooks: Hooks { post_start: Some(hook), pre_stop: None },
        ..ContainerPolicy::default()
    }
}

fn pre_stop(hook: Hook) -> ContainerPolicy {
    ContainerPolicy {
        hooks: Hooks { post_start: None, pre_stop: Some(hook) },
        ..ContainerPolicy::default()
    }
}

#[tokio::test]
async fn post_start_runs_in_the_container_before_it_is_ready() {
    let house = House::open().await;
    let hook = exec("until test -e /out/go; do sleep 0.05; done; echo $$ > /out/hooked");
    let pod = house.run(policy(RestartPolicy::Always, "app", post_start(hook))).await;
    house.start(&pod, "app", "exec sleep 600").await;
    let app = house.when(&pod, "app", runs).await;
    assert!(!app.ready, "ready while its hook runs");
    std::fs::write(house.out("go"), "").unwrap();
    house.when(&pod, "app", |app| app.ready).await;
    assert!(house.out("hooked").exists());
    house.close(&pod).await;
}

#[tokio::test]
async fn a_failed_post_start_kills_the_container_which_restarts_by_policy() {
    let house = House::open().await;
    // Fails the first time. OnFailure: such an end is a failure, whatever the exit code.
    let hook = exec("test -e /out/hooked && exit 0; touch /out/hooked; echo no luck >&2; exit 3");
    let pod = house.run(policy(RestartPolicy::OnFailure, "app", post_start(hook))).await;
    let script = "trap 'exit 0' TERM; while true; do sleep 0.05; done";
    house.start(&pod, "app", script).await;
    house.when(&pod, "app", |app| app.config.attempt == 1 && app.ready).await;
    let view = house.pods.pod(pod.as_str()).unwrap();
    assert_eq!(end(&view.containers[0]), Some((0, "FailedPostStartHook")));
    let event = house.events().into_iter().find(|(reason, _)| *reason == "FailedPostStartHook");
    assert!(event.as_ref().is_some_and(|(_, why)| why.contains("no luck")), "{event:?}");
    house.close(&pod).await;
}

#[tokio::test]
async fn pre_stop_runs_before_the_stop_signal() {
    let house = House::open().await;
    let hook = exec("sleep 0.3; touch /out/hooked");
    let pod = house.run(policy(RestartPolicy::Always, "app", pre_stop(hook))).await;
    house.start(&pod, "app", TELLS).await;
    let app = house.when(&pod, "app", runs).await;
    house.pods.stop(&app.id, Duration::from_secs(20)).await.unwrap();
    let app = house.when(&pod, "app", |app| end(app).is_some()).await;
    assert_eq!(end(&app), Some((5, "Error")));
    // Without a grace there is no time for a hook.
    house.close(&pod).await;
}

#[tokio::test]
async fn pre_stop_runs_before_a_probes_kill() {
    let house = House::open().await;
    let hook = exec("touch /out/hooked");
    let probe = Probe {
        handler: Handler::Exec { command: vec!["false".into()] },
        initial_delay: Duration::from_millis(500),
        period: Duration::from_millis(200),
        timeout: Duration::from_secs(5),
        success_threshold: 1,
        failure_threshold: 1,
        termination_grace: None,
    };
    let policy = policy(RestartPolicy::Never, "app", pre_stop(hook));
    let pod = house.run(with_liveness(policy, "app", probe)).await;
    house.start(&pod, "app", TELLS).await;
    let app = house.when(&pod, "app", |app| end(app).is_some()).await;
    assert_eq!(end(&app), Some((5, "LivenessProbeFailed")));
    house.close(&pod).await;
}

#[tokio::test]
async fn after_an_overlong_pre_stop_two_seconds_remain_for_the_signal() {
    let house = House::open().await;
    let pod =
        house.run(policy(RestartPolicy::Never, "app", pre_stop(exec("exec sleep 600")))).await;
    let script = "trap 'sleep 1; exit 7' TERM; while true; do sleep 0.05; done";
    house.start(&pod, "app", script).await;
    let app = house.when(&pod, "app", runs).await;
    let began = Instant::now();
    house.pods.stop(&app.id, Duration::from_secs(1)).await.unwrap();
    assert!((2.0..4.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    let app = house.when(&pod, "app", |app| end(app).is_some()).await;
    assert_eq!(end(&app), Some((7, "Error")));
    let events = house.events();
    assert!(events.iter().any(|(reason, _)| *reason == "FailedPreStopHook"), "{events:?}");
    house.close(&pod).await;
}

#[tokio::test]
async fn a_hurried_stop_does_not_wait_for_the_hook() {
    let house = House::open().await;
    let hook = Hook::Sleep(Duration::from_mins(5));
    let pod = house.run(policy(RestartPolicy::Never, "app", pre_stop(hook))).await;
    house.start(&pod, "app", "exec sleep 600").await;
    let app = house.when(&pod, "app", runs).await;
    let (pods, id) = (house.pods.clone(), app.id.clone());
    let slow = tokio::spawn(async move { pods.stop(&id, Duration::from_mins(10)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!slow.is_finished());
    let began = Instant::now();
    house.pods.stop(&app.id, Duration::ZERO).await.unwrap();
    slow.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    house.close(&pod).await;
}

#[tokio::test]
async fn a_hook_may_be_a_request_to_the_pod() {
    let house = House::open().await;
    // On the host's network, so the test can be the server.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hook = Hook::Run(Handler::HttpGet {
        path: "/started?by=hook".into(),
        port,
        host: None,
        tls: false,
        headers: Vec::new(),
    });
    let pod = house.run(policy(RestartPolicy::Always, "app", post_start(hook))).await;
    house.start(&pod, "app", "exec sleep 600").await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = vec![0; 1024];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]);
    assert!(head.starts_with("GET /started?by=hook HTTP/1.1\r\n"), "{head}");
    // Any answer is good, as it is to the kubelet.
    let answer = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    let app = house.when(&pod, "app", |app| app.ready).await;
    assert!(matches!(app.state, State::Running(_)));
    house.close(&pod).await;
}
