//! What the page is told while it is open: one task looks at the pods for all of them, and
//! only while there are any.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::html::View;
use crate::cri::Face;
use crate::proto::haled::ListPodsRequest;

/// Pages that may be open at once.
const PAGES: usize = 16;
/// Changes that a page may lag behind. Then it is cut off, and begins anew by itself.
const LAG: usize = 16;
/// How often a page is told that there is nothing to tell, so that one that has gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Changes are told at most this often: pods that start come with many at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The changes of all pods. Cheap to clone.
#[derive(Clone)]
pub(super) struct Feed {
    face: Face,
    running: Arc<Mutex<Option<Running>>>,
    pages: Arc<Semaphore>,
}

/// What the task that looks has told so far.
struct Running {
    view: View,
    told: broadcast::Sender<Bytes>,
}

impl Feed {
    pub(super) fn new(face: Face) -> Self {
        Self { face, running: Arc::default(), pages: Arc::new(Semaphore::new(PAGES)) }
    }

    /// Everything now and whatever changes from then on, as server-sent events. `None`: too
    /// many pages are open.
    pub(super) fn follow(&self) -> Option<impl Stream<Item = Bytes> + Send + use<>> {
        let permit = self.pages.clone().try_acquire_owned().ok()?;
        let mut running = self.lock();
        let running = running.get_or_insert_with(|| {
            let told = broadcast::Sender::new(LAG);
            tokio::spawn(self.clone().look(told.clone()));
            Running { view: View::of(&self.face.list()), told }
        });
        // Of this very moment: the task tells what comes after, under the same lock.
        let coming = running.told.subscribe();
        let first = running.view.event_after(&View::default());
        // A first event in any case, so that the page knows that there are none.
        let first = if first.is_empty() { ": no pods\n\n".to_owned() } else { first };
        let state = (Some(Bytes::from(first)), coming, permit);
        Some(futures_util::stream::unfold(state, next))
    }

    /// Tells what changes until nobody listens.
    async fn look(self, told: broadcast::Sender<Bytes>) {
        let lists = self.face.clone().watch(ListPodsRequest::default());
        let mut lists: Pin<Box<_>> = Box::pin(lists);
        loop {
            let list = tokio::select! {
                Some(list) = lists.next() => Some(list),
                () = told.closed() => None,
            };
            {
                let mut running = self.lock();
                match (list, running.as_mut()) {
                    (Some(list), Some(running)) => {
                        let view = View::of(&list.pods);
                        let event = view.event_after(&running.view);
                        running.view = view;
                        if !event.is_empty() {
                            // Nobody listening is seen above.
                            drop(told.send(event.into()));
                        }
                    }
                    // One that came while the lock was waited for is listening to this task.
                    (None, Some(_)) if told.receiver_count() > 0 => {}
                    _ => {
                        *running = None;
                        return;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Page = (Option<Bytes>, broadcast::Receiver<Bytes>, OwnedSemaphorePermit);

/// The next event for one page; the end: it was too slow, or the daemon ends.
async fn next((first, mut coming, permit): Page) -> Option<(Bytes, Page)> {
    let event = match first {
        Some(first) => first,
        None => match tokio::time::timeout(HEARTBEAT, coming.recv()).await {
            Ok(Ok(event)) => event,
            Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => return None,
            Err(_) => Bytes::from_static(b": still here\n\n"),
        },
    };
    Some((event, (None, coming, permit)))
}
