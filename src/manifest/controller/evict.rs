//! Ends a pod that holds more in its volumes than it may, as a kubelet evicts it.
//!
//! A memory volume is a tmpfs that takes no more than its limit; only what is on disk is
//! measured here.

use std::time::Duration;

use super::keep::blocking;
use super::{Key, Manifests};
use crate::manifest::plan::Ending;
use crate::manifest::volumes;

/// Between the end of one measurement and the next: what a pod writes in this time can't be
/// kept from the disk. As a kubelet has it.
const LOOK: Duration = Duration::from_secs(10);

impl Manifests {
    /// Measures a pod's volumes for ever, and evicts the pod where one holds too much. At
    /// most one measurement of a pod is under way, on a thread that may block.
    pub(super) async fn evict_when_overfull(&self, key: &Key) {
        loop {
            let Some(record) = self.record(key) else { return };
            if record.evicted.is_some() || record.plan.limited_on_disk().next().is_none() {
                return std::future::pending().await;
            }
            let dir = self.volumes_of(&record.uid);
            match blocking(move || Ok(volumes::overfull(&dir, &record.plan))).await {
                Ok(None) => {}
                Ok(Some(why)) => self.evict(key, why),
                Err(why) => tracing::error!(why, "cannot measure a pod's volumes"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn evict(&self, key: &Key, why: String) {
        let (namespace, name) = key;
        tracing::warn!(namespace, name, why, "the pod is evicted");
        let ending = Ending::evicted(why.clone());
        if let Err(error) = self.change(key, |record| record.evicted = Some(ending)) {
            // It is measured again.
            tracing::error!(namespace, name, %error, "cannot record the eviction");
        }
        self.tell(key, "Evicted", why);
    }
}
