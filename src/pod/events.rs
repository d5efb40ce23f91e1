//! What happens to pods, for people: kept per pod, bounded, and told to who listens.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;

/// Events kept of one pod; the oldest go.
pub const KEPT_PER_POD: usize = 128;
/// Events that a slow listener may lag behind before it loses some.
const LISTENER_LAG: usize = 1024;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, the last time where it happened several times.
    pub at: SystemTime,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// Empty where it concerns the whole pod.
    pub container: String,
    /// `Created`, `Started`, `Unhealthy`, `Killing`, …: one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Something is wrong.
    pub warning: bool,
    /// Equal events in a row are one.
    pub count: u32,
}

/// By namespace and pod name, oldest first.
type Kept = HashMap<(String, String), VecDeque<Event>>;

/// The events of every pod. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    kept: Arc<Mutex<Kept>>,
    told: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Arc::default(), told: broadcast::Sender::new(LISTENER_LAG) }
    }
}

impl Events {
    /// Keeps an event and tells the listeners.
    pub fn record(&self, mut event: Event) {
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let of_pod = kept.entry((event.namespace.clone(), event.pod.clone())).or_default();
            let same = |last: &&mut Event| {
                last.reason == event.reason
                    && last.container == event.container
                    && last.message == event.message
            };
            if let Some(last) = of_pod.back_mut().filter(same) {
                last.count += 1;
                last.at = event.at;
                event.count = last.count;
            } else {
                if of_pod.len() == KEPT_PER_POD {
                    of_pod.pop_front();
                }
                of_pod.push_back(event.clone());
            }
        }
        // Nobody listening is no error.
        drop(self.told.send(event));
    }

    /// What is kept, oldest first. Empty namespace or name: all.
    pub fn list(&self, namespace: &str, pod: &str) -> Vec<Event> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events: Vec<Event> =
            kept.values().flatten().filter(|event| event.is_of(namespace, pod)).cloned().collect();
        events.sort_by_key(|event| event.at);
        events
    }

    /// Whatever happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.told.subscribe()
    }

    /// Drops what is kept of a pod.
    pub fn forget(&self, namespace: &str, pod: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&(namespace.to_owned(), pod.to_owned()));
    }
}

impl Event {
    /// Whether it concerns this pod. Empty namespace or name: any.
    pub fn is_of(&self, namespace: &str, pod: &str) -> bool {
        (namespace.is_empty() || self.namespace == namespace) && (pod.is_empty() || self.pod == pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pod: &str, message: String) -> Event {
        Event {
            at: SystemTime::now(),
            namespace: "default".into(),
            pod: pod.into(),
            container: "app".into(),
            reason: "Unhealthy",
            message,
            warning: true,
            count: 1,
        }
    }

    #[test]
    fn equal_events_in_a_row_are_counted_and_the_oldest_go() {
        let events = Events::default();
        events.record(event("a", "same".into()));
        events.record(event("a", "same".into()));
        events.record(event("b", "same".into()));
        assert_eq!(events.list("default", "a").iter().map(|e| e.count).collect::<Vec<_>>(), [2]);
        for n in 0..2 * KEPT_PER_POD {
            events.record(event("a", n.to_string()));
        }
        let kept = events.list("", "a");
        assert_eq!(kept.len(), KEPT_PER_POD);
        assert_eq!(kept[0].message, KEPT_PER_POD.to_string());
    }

    #[tokio::test]
    async fn a_listener_hears_what_comes_after() {
        let events = Events::default();
        events.record(event("a", "before".into()));
        let mut listener = events.listen();
        events.record(event("a", "after".into()));
        assert_eq!(listener.recv().await.unwrap().message, "after");
    }
}
