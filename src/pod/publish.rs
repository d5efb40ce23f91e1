//! What the driver shows of its pod: the view, and the events of clients that follow it.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::changes::{Change, Told};
use super::course::Deletion;
use super::driver::Driver;
use super::view::{ContainerView, PodView};
use super::work::Work;
use crate::container::state::{State, nanos};
use crate::health::Prober;

impl Driver {
    pub(super) fn publish(&mut self) {
        let (now, wall) = (Instant::now().into_std(), SystemTime::now());
        // What is still being created can't be used, so it isn't shown.
        let visible = self.containers.iter().filter(|c| !matches!(c.work, Work::Creating { .. }));
        let ends_all = self.ends_all();
        let before = self.view.load();
        let containers = visible.map(|container| {
            let prober = container.prober.as_ref();
            let view = ContainerView {
                id: container.id.clone(),
                sandbox: self.id.clone(),
                config: container.config.clone(),
                image_id: container.record.image_id.clone(),
                image_name: container.record.image_name.clone(),
                image_ref: container.record.image_ref.clone(),
                created_at: container.record.created_at,
                user: container.record.user.clone(),
                stop_signal: container.record.stop_signal.clone(),
                state: container.record.state.clone(),
                health: prober.and_then(Prober::health),
                health_message: prober.map(Prober::message).unwrap_or_default(),
                // What health has condemned isn't ready any more, whatever its probes say.
                ready: matches!(container.record.state, State::Running(_))
                    && container.record.killed.is_none()
                    && container.post_start.is_none()
                    && prober.is_none_or(Prober::ready),
                probes: prober.map(|p| p.report(now, wall)).unwrap_or_default(),
                past: container.record.run_again && !ends_all,
                place: container.place.clone(),
                executor: container.executor.clone(),
                log_path: self.log_path(&container.config),
            };
            before.same_or_new(view)
        });
        let waiting = self.record.restarts.iter().filter_map(|(name, restarting)| {
            let at = restarting.next_start_at.filter(|_| self.waiting.contains_key(name))?;
            Some((name.clone(), at))
        });
        let view = Arc::new(PodView {
            id: self.id.clone(),
            config: self.config.clone(),
            origin: self.record.origin,
            policy: self.policy.clone(),
            created_at: self.record.created_at,
            phase: self.record.phase.clone(),
            dir: self.dir.clone(),
            runtime: self.runtime.clone(),
            containers: containers.collect(),
            waiting: waiting.collect(),
            histories: self.histories.clone(),
        });
        self.view.store(view.clone());
        self.tell(view);
    }

    /// Tells the clients that follow this pod what the view shows for the first time.
    pub(super) fn tell(&mut self, view: Arc<PodView>) {
        let told = self.told.get_or_insert_with(|| Told::until(&view, &view.phase));
        for (kind, id) in told.changes(&view, self.course.deletion == Deletion::Done) {
            let at = nanos(SystemTime::now());
            let change = Change { at, kind, id, pod: view.clone() };
            self.services.changes.tell(change, Instant::now().into_std());
        }
    }
}
