//! What haled tells while the screen is up: tasks that hand it over as news.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::Usage;
use crate::cli::client::{self, Address};
use crate::cli::options::Among;
use crate::cli::pods::fits;
use crate::cli::{Failure, output};
use crate::proto::haled::haled_client::HaledClient;
use crate::proto::haled::{
    EventsRequest, ListPodsRequest, LogsRequest, Pod, RestartContainerRequest, UsageRequest,
};

/// How often it is asked what containers use.
const USAGE_PAUSE: Duration = Duration::from_secs(2);
/// Lines of a log that a pod's page begins with.
const TAIL: u32 = 100;

/// Something new.
#[derive(Debug)]
pub(super) enum News {
    /// Every pod there is.
    Pods(Vec<Pod>),
    /// What containers use, by id.
    Usage(Vec<(String, Usage)>),
    /// Of the pod whose page is open: something happened to it.
    Event { at: i64, text: String, warning: bool },
    /// The same: a line of its log.
    Log(String),
    /// What became of a restart that was asked for.
    Told(String),
    /// The connection is.
    Broken(String),
}

/// The tasks that ask. They end with it.
pub(super) struct Feed {
    client: HaledClient<Channel>,
    news: mpsc::Sender<News>,
    always: Vec<JoinHandle<()>>,
    page: Vec<JoinHandle<()>>,
}

impl Feed {
    /// Of the pods those that fit.
    pub(super) async fn begin(
        address: &Address,
        namespace: &str,
        among: Among,
        news: mpsc::Sender<News>,
    ) -> Result<Self, Failure> {
        let client = client::haled(address).await?;
        let always = vec![
            tokio::spawn(pods(client.clone(), namespace.to_owned(), among, news.clone())),
            tokio::spawn(usage(client.clone(), news.clone())),
        ];
        Ok(Self { client, news, always, page: Vec::new() })
    }

    /// Follows one pod's events and one of its containers' log, and no other's any more.
    pub(super) fn open(&mut self, namespace: String, pod: String, container: String) {
        self.close();
        let events =
            EventsRequest { namespace: namespace.clone(), name: pod.clone(), follow: true };
        self.page.push(tokio::spawn(follow_events(self.client.clone(), events, self.news.clone())));
        let logs = LogsRequest {
            namespace,
            pod,
            container,
            follow: true,
            tail: Some(TAIL),
            ..LogsRequest::default()
        };
        self.page.push(tokio::spawn(follow_log(self.client.clone(), logs, self.news.clone())));
    }

    pub(super) fn close(&mut self) {
        for task in self.page.drain(..) {
            task.abort();
        }
    }

    /// Has a container restarted. `what`: its name, for people.
    pub(super) fn restart(&self, container_id: String, what: String) {
        let (mut client, news) = (self.client.clone(), self.news.clone());
        // Short, and not to be broken off with the page.
        tokio::spawn(async move {
            let request = RestartContainerRequest { container_id };
            let told = match client.restart_container(request).await {
                Ok(_) => format!("{what} is being restarted"),
                Err(status) => format!("not restarted: {}", words(status)),
            };
            drop(news.send(News::Told(told)).await);
        });
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.close();
        for task in self.always.drain(..) {
            task.abort();
        }
    }
}

fn words(status: Status) -> String {
    match Failure::from(status) {
        Failure::Message(message) | Failure::Usage(message) => output::line(&message),
        Failure::ReaderGone => String::new(),
    }
}

async fn pods(
    mut client: HaledClient<Channel>,
    namespace: String,
    among: Among,
    news: mpsc::Sender<News>,
) {
    let watched = async {
        let mut lists = client.watch_pods(ListPodsRequest::default()).await?.into_inner();
        while let Some(mut list) = lists.message().await? {
            list.pods.retain(|pod| fits(pod, &namespace, &among));
            if news.send(News::Pods(list.pods)).await.is_err() {
                break;
            }
        }
        Ok::<(), Status>(())
    };
    let why = match watched.await {
        Ok(()) => "haled has ended".to_owned(),
        Err(status) => words(status),
    };
    drop(news.send(News::Broken(why)).await);
}

async fn usage(mut client: HaledClient<Channel>, news: mpsc::Sender<News>) {
    // What can't be told now is told the next time; that haled is gone is the other task's.
    loop {
        if let Ok(answer) = client.usage(UsageRequest {}).await {
            let all = answer.into_inner().containers.into_iter();
            let all = all.map(|u| (u.container_id, (u.cpu_nanocores, u.memory_bytes))).collect();
            if news.send(News::Usage(all)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(USAGE_PAUSE).await;
    }
}

async fn follow_events(
    mut client: HaledClient<Channel>,
    request: EventsRequest,
    news: mpsc::Sender<News>,
) {
    let followed = async {
        let mut events = client.events(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            let whose = if event.container.is_empty() { "" } else { ": " };
            let text = format!("{}{whose}{} {}", event.container, event.reason, event.message);
            let text = output::line(&text);
            let told = News::Event { at: event.at, text, warning: event.warning };
            if news.send(told).await.is_err() {
                break;
            }
        }
        Ok::<(), Status>(())
    };
    if let Err(status) = followed.await {
        drop(news.send(News::Told(words(status))).await);
    }
}

async fn follow_log(
    mut client: HaledClient<Channel>,
    request: LogsRequest,
    news: mpsc::Sender<News>,
) {
    let followed = async {
        let mut lines = client.logs(request).await?.into_inner();
        while let Some(line) = lines.message().await? {
            let text = output::line(&String::from_utf8_lossy(&line.line));
            if news.send(News::Log(text)).await.is_err() {
                break;
            }
        }
        Ok::<(), Status>(())
    };
    if let Err(status) = followed.await {
        drop(news.send(News::Log(format!("(no log: {})", words(status)))).await);
    }
}
