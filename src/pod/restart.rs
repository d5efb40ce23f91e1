//! The driver's part for restarting: when an ended container runs again, and as what.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Error;
use super::driver::Driver;
use super::heal::LEAST_GRACE;
use super::inbox::Reply;
use super::record::Origin;
use super::work::{Container, Work, no_container};
use crate::container::config::ContainerConfig;
use crate::container::state::{Ended, State, nanos};
use crate::health::{Heal, Policy, RESTART_ASKED, Sequel, is_kill};
use crate::id::ContainerId;
use crate::meter::{self, Measured};

/// Where a kubelet notes how often a container has been restarted.
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Reason of a container that was ended for all to start again.
const RESTART_ALL: &str = "RestartAllContainers";

impl Driver {
    /// Gives every container that has ended and is to run again the time of its next start.
    pub(super) fn schedule_restarts(&mut self) {
        let Some(policy) = self.policy.clone() else { return };
        let names: std::collections::BTreeSet<_> =
            self.containers.iter().map(|c| c.config.name.clone()).collect();
        for name in names {
            let Some(at) = self.newest(&name) else { continue };
            let State::Exited(ended) = &self.containers[at].record.state else { continue };
            if self.waiting.contains_key(&name)
                || self.beside(at).is_some()
                || self.sequel(&policy, at, ended) == Sequel::Rest
            {
                continue;
            }
            let ended = ended.clone();
            self.schedule(&name, at, &ended);
        }
    }

    fn schedule(&mut self, name: &str, at: usize, ended: &Ended) {
        let ran = if ended.started_at == 0 { 0 } else { ended.finished_at - ended.started_at };
        let ran = Duration::from_nanos(u64::try_from(ran).unwrap_or(0));
        let id = self.containers[at].id.to_string();
        let restarting = self.record.restarts.entry(name.to_owned()).or_default();
        // A daemon that was away goes by what was decided before it went.
        let decided = restarting.next_start_at.filter(|_| restarting.after.as_ref() == Some(&id));
        let next = decided.unwrap_or_else(|| {
            let delay = restarting.backoff.after_exit(ran, &self.services.backoff.load());
            // Whoever asked for it is waiting.
            let asked = ended.reason == RESTART_ASKED;
            let delay = if asked { Duration::ZERO } else { delay };
            let delay = i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX);
            ended.finished_at.saturating_add(delay)
        });
        restarting.next_start_at = Some(next);
        restarting.after = Some(id);
        let left = u64::try_from(next - nanos(SystemTime::now())).unwrap_or(0);
        let left = Duration::from_nanos(left);
        self.waiting.insert(name.to_owned(), Instant::now() + left);
        self.save();
        meter::record(&Measured::BackedOff { wait: left });
        if left >= Duration::from_secs(1) {
            let message = format!("back-off: it is started again in {} s", left.as_secs());
            self.event(name, "BackOff", message, true);
        }
    }

    /// What follows the end of the container at `at`.
    fn sequel(&self, policy: &Policy, at: usize, ended: &Ended) -> Sequel {
        let container = &self.containers[at];
        let record = &container.record;
        if record.stopped_by_client
            || record.run_again
            || container.remove.is_some()
            || self.is_done_init(policy, container, ended)
        {
            return Sequel::Rest;
        }
        policy.after(&container.config.name, ended.code, is_kill(&ended.reason))
    }

    /// A client's init container, which the CRI doesn't mark as one: it has no probes, ended
    /// well, and those that have probes come after it. It has done its work.
    fn is_done_init(&self, policy: &Policy, container: &Container, ended: &Ended) -> bool {
        let name = &container.config.name;
        let comes_later = |name: &String| {
            let mut of_name = self.containers.iter().filter(|c| c.config.name == *name);
            of_name.all(|c| c.record.created_at >= ended.finished_at)
        };
        self.record.origin == Origin::Cri
            && ended.code == 0
            && !policy.probes.contains_key(name)
            && policy.probes.keys().any(comes_later)
    }

    /// A client wants a running container ended and run again, which haled does only where it
    /// would have by itself.
    pub(super) fn restart_asked(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Err(no_container(id))) };
        let name = self.containers[at].config.name.clone();
        let restarts = self.policy.as_ref().filter(|_| self.restarts());
        let restarts = restarts.is_some_and(|policy| policy.after(&name, 1, true) != Sequel::Rest);
        let why = if !matches!(self.containers[at].record.state, State::Running(_)) {
            Some("does not run")
        } else if !restarts {
            Some("is none that haled restarts, by its pod's restart policy or annotations")
        } else {
            None
        };
        if let Some(why) = why {
            let why = format!("container \"{name}\" of pod \"{}\" {why}", self.config.name);
            return self.answers.add(reply, Err(Arc::new(Error::WrongState(why))));
        }
        let message = "a client asked for it to be restarted".to_owned();
        self.event(&name, "Killing", message.clone(), false);
        self.containers[at].record.killed = Some((RESTART_ASKED.to_owned(), message));
        self.failed.insert(name, Instant::now());
        self.save_container(at);
        self.begin_stop(at, self.pod_grace(at));
        self.answers.add(reply, Ok(()));
    }

    /// Makes and starts the next attempt of a container name, or ends them all to begin anew.
    pub(super) fn restart(&mut self, name: &str) {
        self.waiting.remove(name);
        let (Some(at), Some(policy)) = (self.newest(name), self.policy.clone()) else { return };
        let last = &self.containers[at];
        let (State::Exited(ended), Work::None) = (&last.record.state, &last.work) else { return };
        if self.beside(at).is_some() {
            return;
        }
        // Asked again: a client may have stopped it while it waited.
        match self.sequel(&policy, at, ended) {
            Sequel::Rest => return,
            Sequel::RestartAll => return self.restart_all(at),
            Sequel::Restart => {}
        }
        let next = following(&last.config, last.record.asked());
        // The very image it had, whatever its name means by now.
        let image = last.record.image_id.clone();
        if let Err(error) = self.begin_create(next, &image, true) {
            self.restart_failed(name, &error.to_string());
        }
    }

    /// The rules of the container at `at` have every container start again, init containers
    /// first. That order is the manifest's: here all are ended, fast and without preStop
    /// hooks, and marked. Once none runs they count as never made, so that the controller
    /// begins anew with the first; [`Driver::begun_anew`] makes those the next attempts.
    fn restart_all(&mut self, at: usize) {
        let name = self.containers[at].config.name.clone();
        let message =
            format!("container \"{name}\" ended, after which its rules start all containers again");
        self.event("", RESTART_ALL, message.clone(), false);
        self.waiting.clear();
        for at in 0..self.containers.len() {
            let record = &mut self.containers[at].record;
            record.run_again = true;
            if matches!(record.state, State::Starting | State::Running(_)) {
                record.killed = Some((RESTART_ALL.to_owned(), message.clone()));
            }
            self.save_container(at);
            self.end_fast(at, LEAST_GRACE);
        }
    }

    /// Whether containers that are to start again with all others still run.
    pub(super) fn ends_all(&self) -> bool {
        self.containers.iter().any(|c| c.record.run_again && !c.is_quiet())
    }

    /// What is asked for as if the pod were new, as the attempt after the last of its name.
    pub(super) fn begun_anew(&self, asked: ContainerConfig) -> ContainerConfig {
        let last = self.newest(&asked.name).map(|at| &self.containers[at]);
        match last.filter(|last| last.record.run_again) {
            Some(last) => following(&last.config, asked),
            None => asked,
        }
    }

    /// A client has done away with the newest attempt of a name, and the ones before it, which
    /// are newest in turn, don't come back for that.
    pub(super) fn rest(&mut self, name: &str) {
        for at in 0..self.containers.len() {
            if self.containers[at].config.name == name {
                self.containers[at].record.stopped_by_client = true;
                self.save_container(at);
            }
        }
    }

    /// Another attempt of the name of the container at `at`, in a pod that haled restarts, that
    /// lives or is about to. Two never run at once, whoever made them.
    pub(super) fn beside(&self, at: usize) -> Option<&Container> {
        let (id, name) = (&self.containers[at].id, &self.containers[at].config.name);
        self.restarts().then(|| self.living(name).find(|other| other.id != *id)).flatten()
    }

    /// Why a client can't create this: healing has begun the same, or been there before it. A
    /// client that looks again finds what healing made, and adopts it.
    pub(super) fn healed_already(&self, asked: &ContainerConfig) -> Option<String> {
        if !self.restarts() {
            return None;
        }
        let (name, attempt) = (&asked.name, asked.attempt);
        let newer = |c: &&Container| {
            c.config.name == *name && c.record.made_by_healing && c.config.attempt > attempt
        };
        let newer = self.containers.iter().filter(|c| c.remove.is_none()).find(newer);
        let other = self.living(name).next().or(newer)?;
        Some(format!(
            "container \"{name}\" is in pod {} already, with attempt {} as {}, and attempt {attempt} was asked for: look again",
            self.id, other.config.attempt, other.id
        ))
    }

    /// The attempts of a name that run, or are being made to.
    fn living(&self, name: &str) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |c| {
            let begun = matches!(c.work, Work::Creating { .. } | Work::Starting { .. });
            c.config.name == name && (begun || !c.is_quiet())
        })
    }

    /// Whether haled may restart the containers of this pod.
    fn restarts(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| matches!(policy.heal, Heal::Auto | Heal::Restart))
    }

    /// The containers that a client made to restart one that had ended and then left unstarted,
    /// as a kubelet does that dies in between, and when they are given up on and started here.
    pub(super) fn left_unstarted(&self, now: Instant) -> Vec<(ContainerId, Instant)> {
        if self.record.origin == Origin::Manifest || !self.restarts() {
            return Vec::new();
        }
        let wall = nanos(SystemTime::now());
        let left = self.containers.iter().enumerate().filter(|(at, c)| {
            let name = &c.config.name;
            let has_ended = |other: &Container| {
                other.config.name == *name && matches!(other.record.state, State::Exited(_))
            };
            c.record.state == State::Created
                && matches!(c.work, Work::None)
                && c.remove.is_none()
                && !c.record.stopped_by_client
                && self.newest(name) == Some(*at)
                && self.beside(*at).is_none()
                && self.containers.iter().any(has_ended)
        });
        let patience = self.services.presence.silence();
        left.map(|(_, c)| {
            let age = Duration::from_nanos(u64::try_from(wall - c.record.created_at).unwrap_or(0));
            (c.id.clone(), now + patience.saturating_sub(age))
        })
        .collect()
    }

    /// Starts what a client has left unstarted for too long.
    pub(super) fn start_what_was_left(&mut self) {
        let now = Instant::now();
        for (id, due) in self.left_unstarted(now) {
            if due <= now
                && let Some(at) = self.find(&id)
            {
                let message = format!("container {} was created and left unstarted", id.short());
                self.event(&self.containers[at].config.name.clone(), "TakenOver", message, true);
                self.begin_start(at);
            }
        }
    }

    /// The next attempt could not be made: tried again after a back-off.
    pub(super) fn restart_failed(&mut self, name: &str, why: &str) {
        let restarting = self.record.restarts.entry(name.to_owned()).or_default();
        let delay = restarting.backoff.after_exit(Duration::ZERO, &self.services.backoff.load());
        let delay = delay.max(self.services.backoff.load().initial);
        let at = nanos(SystemTime::now() + delay);
        restarting.next_start_at = Some(at);
        self.waiting.insert(name.to_owned(), Instant::now() + delay);
        self.save();
        let message = format!("cannot restart it, next try in {} s: {why}", delay.as_secs());
        self.event(name, "FailedRestart", message, true);
    }

    /// Removes the attempts before the newest ended one that haled itself made.
    pub(super) fn prune_attempts(&mut self, name: &str) {
        let ended = |c: &&mut Container| {
            c.config.name == name && matches!(c.record.state, State::Exited(_))
        };
        let all_own = self.record.origin == Origin::Manifest;
        let mut ended: Vec<&mut Container> = self.containers.iter_mut().filter(ended).collect();
        ended.sort_by_key(|container| container.config.attempt);
        ended.pop();
        for container in ended.into_iter().filter(|c| all_own || c.record.made_by_healing) {
            container.remove.get_or_insert_default();
        }
    }
}

/// `config` as the attempt after `last`, numbered as the kubelet would have numbered it.
fn following(last: &ContainerConfig, config: ContainerConfig) -> ContainerConfig {
    let mut next = ContainerConfig {
        attempt: last.attempt + 1,
        log_path: next_log_path(&last.log_path),
        ..config
    };
    if let Some(count) = last.annotations.get(RESTART_COUNT)
        && let Ok(number) = count.parse::<u32>()
    {
        next.annotations.insert(RESTART_COUNT.to_owned(), (number + 1).to_string());
    }
    next
}

/// `<n>.log` becomes `<n+1>.log`; any other name stays.
fn next_log_path(path: &Path) -> PathBuf {
    let number =
        path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse::<u32>().ok());
    match number {
        Some(number) => path.with_file_name(format!("{}.log", number + 1)),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_log_gets_the_next_number() {
        for (last, next) in
            [("app/0.log", "app/1.log"), ("9.log", "10.log"), ("app.log", "app.log"), ("", "")]
        {
            assert_eq!(next_log_path(last.as_ref()), PathBuf::from(next));
        }
    }
}
