//! GetContainerEvents: every change, to every client, and what a daemon missed.

use haled::container::record::ContainerRecord;
use haled::proto::cri;
use haled::proto::cri::ContainerEventType as Kind;
use tonic::{Code, Streaming};

use crate::daemon::Daemon;

type Events = Streaming<cri::ContainerEventResponse>;

async fn follow(daemon: &Daemon) -> Events {
    let request = cri::GetEventsRequest::default();
    daemon.runtime().await.get_container_events(request).await.unwrap().into_inner()
}

/// The kind and the id of the next `count` events; each must show the pod it is about.
async fn next(events: &mut Events, sandbox: &str, count: usize) -> Vec<(Kind, String)> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let event = events.message().await.unwrap().expect("the stream goes on");
        let pod = event.pod_sandbox_status.as_ref().expect("the pod's status");
        assert_eq!(pod.id, sandbox);
        let (kind, id) = (event.container_event_type(), event.container_id.clone());
        let status = event.containers_statuses.iter().find(|status| status.id == id);
        if id != sandbox {
            assert_eq!(status.is_none(), kind == Kind::ContainerDeletedEvent, "{event:?}");
        }
        assert!(event.created_at > 0);
        heard.push((kind, id));
    }
    heard
}

#[tokio::test]
async fn every_client_is_told_every_change_in_order() {
    let daemon = Daemon::start_without_network().await;
    let mut clients = [follow(&daemon).await, follow(&daemon).await, follow(&daemon).await];
    let pod = daemon.run(&daemon.host_sandbox("told")).await;
    let first = daemon.run_container(&pod, Daemon::host_container("first", "exit 3")).await;
    daemon.exited(&first).await;
    let second =
        daemon.run_container(&pod, Daemon::host_container("second", "exec sleep 600")).await;
    daemon.stop(&second, 0).await;
    let request = cri::RemoveContainerRequest { container_id: first.clone() };
    daemon.runtime().await.remove_container(request).await.unwrap();
    daemon.remove_pod(&pod).await;

    let [created, started, stopped, deleted] = [
        Kind::ContainerCreatedEvent,
        Kind::ContainerStartedEvent,
        Kind::ContainerStoppedEvent,
        Kind::ContainerDeletedEvent,
    ];
    let expected = [
        (created, &pod),
        (started, &pod),
        (created, &first),
        (started, &first),
        (stopped, &first),
        (created, &second),
        (started, &second),
        (stopped, &second),
        (deleted, &first),
        (stopped, &pod),
        (deleted, &second),
        (deleted, &pod),
    ];
    let expected = expected.map(|(kind, id)| (kind, id.clone()));
    for events in &mut clients {
        assert_eq!(next(events, &pod, expected.len()).await, expected);
    }
}

// More than one thread: the end of the daemon is waited for without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_the_daemon_was_away_is_told_by_the_next() {
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("away")).await;
    let id = daemon.run_container(&pod, Daemon::host_container("app", "exec sleep 600")).await;
    let pid = daemon.pid(&id).await;
    let mut events = follow(&daemon).await;
    daemon.kill();
    // Nobody had followed before: what began was told first.
    assert_eq!(next(&mut events, &pod, 4).await[3], (Kind::ContainerStartedEvent, id.clone()));
    assert!(events.message().await.is_err());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    daemon.until("the end", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    daemon.launch().await;
    // The second client is told as well: neither knows of the other.
    for mut events in [follow(&daemon).await, follow(&daemon).await] {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!(
            (event.container_event_type(), &event.container_id),
            (Kind::ContainerStoppedEvent, &id)
        );
        assert_eq!(event.containers_statuses[0].exit_code, 137);
    }
    let mut events = follow(&daemon).await;
    assert!(daemon.terminate(), "a client that follows doesn't keep it: {}", daemon.log());
    assert!(!daemon.log().contains("did not end in time"), "{}", daemon.log());
    let mut last = events.message().await;
    while let Ok(Some(_)) = last {
        last = events.message().await;
    }
    assert_eq!(last.unwrap_err().code(), Code::Unavailable);
    daemon.launch().await;
}

#[tokio::test]
async fn what_healing_made_and_a_crash_kept_from_starting_is_told_as_deleted() {
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("healed")).await;
    let config = Daemon::host_container("app", "exec sleep 600");
    let id = daemon.create(&pod, config).await.unwrap();
    daemon.kill();
    // As if healing had made it: the next daemon makes such a one anew.
    {
        let store = haled::store::Store::open(&daemon.path("root/haled.db")).unwrap();
        let (records, _) = store.all::<ContainerRecord>().unwrap();
        let (key, mut record) = records.into_iter().find(|(key, _)| *key == id).unwrap();
        record.made_by_healing = true;
        store.put(&key, &record).unwrap();
    }
    daemon.launch().await;
    let mut events = follow(&daemon).await;
    assert_eq!(next(&mut events, &pod, 1).await, [(Kind::ContainerDeletedEvent, id.clone())]);
    assert_eq!(daemon.containers(&pod).await, []);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_the_others_are_not() {
    let daemon = Daemon::start_without_network().await;
    let mut idle = follow(&daemon).await;
    let mut reader = follow(&daemon).await;
    let mut config = daemon.host_sandbox("busy");
    // The wider an event, the sooner the connection is full and haled's own queue after it.
    config.annotations.insert("wide".into(), "x".repeat(100 << 10));
    let pod = daemon.run(&config).await;
    assert_eq!(next(&mut reader, &pod, 2).await.len(), 2);
    let mut runtime = daemon.runtime().await;
    for attempt in 0..560 {
        let mut container = Daemon::host_container("app", "true");
        container.metadata.as_mut().unwrap().attempt = attempt;
        let id = daemon.create(&pod, container).await.unwrap();
        let request = cri::RemoveContainerRequest { container_id: id.clone() };
        runtime.remove_container(request).await.unwrap();
        let expected = [Kind::ContainerCreatedEvent, Kind::ContainerDeletedEvent];
        assert_eq!(next(&mut reader, &pod, 2).await, expected.map(|kind| (kind, id.clone())));
    }
    let mut heard = 0;
    let end = loop {
        match idle.message().await {
            Ok(Some(_)) => heard += 1,
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::ResourceExhausted, "after {heard}: {end}");
    assert!(end.message().contains("too slowly"), "{end}");
    daemon.remove_pod(&pod).await;
}
