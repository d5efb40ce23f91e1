//! One plugin that is there: what it wants to hear, and how it is asked.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::process::Child;

use super::Error;
use super::api::{
    self, Container, CreateContainerRequest, Empty, Event, FailurePolicy, PodSandbox,
    RunPodSandboxRequest, StateChangeEvent,
};
use super::connection::{CallError, Connection, UNIMPLEMENTED};

/// A plugin that has registered and been configured.
pub(super) struct Plugin {
    /// `10-name`.
    pub(super) name: String,
    /// Bit n-1 stands for the event n.
    pub(super) events: i32,
    pub(super) policy: FailurePolicy,
    pub(super) connection: Connection,
    pub(super) limit: Duration,
    /// Events for which it knows no method of its own.
    pub(super) plain: BTreeSet<i32>,
    /// Its process, if haled started it; killed with the last that has this.
    pub(super) process: Option<Child>,
}

/// Every event there is.
pub(super) const ALL_EVENTS: i32 = (1 << (Event::Last as i32 - 1)) - 1;

/// The method of an event.
pub(super) fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}

impl Plugin {
    /// The index and the name.
    pub(super) fn instance(&self) -> api::PluginInstance {
        let (index, name) = self.name.split_once('-').unwrap_or(("", &self.name));
        api::PluginInstance { name: name.to_owned(), index: index.to_owned() }
    }

    /// Tells it that haled stops, and closes its connection. One that haled started then has as
    /// long as for an answer to end; dropped, it is killed.
    pub(super) async fn dismiss(mut self) {
        let told = self.connection.call::<Empty>("Shutdown", &Empty {}, self.limit).await;
        match told {
            Ok(Empty {}) | Err(CallError::Refused { code: UNIMPLEMENTED, .. }) => {}
            Err(error) => {
                tracing::warn!(plugin = self.name, %error, "an NRI plugin took no leave");
            }
        }
        self.connection.close();
        if let Some(process) = &mut self.process
            && tokio::time::timeout(self.limit, process.wait()).await.is_err()
        {
            tracing::warn!(plugin = self.name, "an NRI plugin doesn't end and is killed");
        }
    }

    pub(super) fn wants(&self, event: Event) -> bool {
        self.events & (1 << (event as i32 - 1)) != 0 && !self.connection.is_closed()
    }

    /// Asks about an event. `None`: it doesn't want to hear of it, or failed and is passed over.
    pub(super) async fn ask<Answer: prost::Message + Default>(
        &self,
        event: Event,
        request: &impl prost::Message,
    ) -> Result<Option<Answer>, Error> {
        if !self.wants(event) {
            return Ok(None);
        }
        match self.connection.call(method(event), request, self.limit).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => self.failed(event, error).map(|()| None),
        }
    }

    /// Tells of an event that a plugin can only refuse. A pod's where there is no container.
    pub(super) async fn tell(
        &mut self,
        event: Event,
        pod: &PodSandbox,
        container: Option<&Container>,
    ) -> Result<(), Error> {
        if !self.wants(event) {
            return Ok(());
        }
        let told = if self.plain.contains(&(event as i32)) {
            Err(CallError::Refused { code: UNIMPLEMENTED, message: String::new() })
        } else {
            let pod = Some(pod.clone());
            let (to, limit) = (method(event), self.limit);
            // All such events have one shape: field 1 the pod, field 2 the container. Nor is
            // anything looked for in their answers.
            match container.cloned() {
                None => {
                    let request = RunPodSandboxRequest { pod };
                    self.connection.call::<Empty>(to, &request, limit).await
                }
                Some(container) => {
                    let container = Some(container);
                    let request = CreateContainerRequest { pod, container };
                    self.connection.call::<Empty>(to, &request, limit).await
                }
            }
        };
        let told = match told {
            // Older plugins have one method for all of these.
            Err(CallError::Refused { code: UNIMPLEMENTED, .. }) => {
                self.plain.insert(event as i32);
                let (pod, container) = (Some(pod.clone()), container.cloned());
                let request = StateChangeEvent { event: event as i32, pod, container };
                self.connection.call::<Empty>("StateChange", &request, self.limit).await
            }
            other => other,
        };
        match told {
            Ok(Empty {}) | Err(CallError::Refused { code: UNIMPLEMENTED, .. }) => Ok(()),
            Err(error) => self.failed(event, error),
        }
    }

    /// What a failed call means: `Ok` that the event goes on without this plugin.
    fn failed(&self, event: Event, error: CallError) -> Result<(), Error> {
        let event = method(event);
        if let CallError::Refused { message, .. } = error {
            return Err(Error::Refused { plugin: self.name.clone(), event, message });
        }
        let keep = self.policy.keep_connected && matches!(error, CallError::TimedOut(_));
        if keep {
            tracing::warn!(plugin = self.name, event, %error, "an NRI plugin is late");
        } else {
            tracing::warn!(plugin = self.name, event, %error, "an NRI plugin is dropped");
            self.connection.close();
        }
        if self.policy.fail_request {
            let why = error.to_string();
            return Err(Error::Failed { plugin: self.name.clone(), event, why });
        }
        Ok(())
    }
}
