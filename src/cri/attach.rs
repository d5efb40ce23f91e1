//! Attach: a URL at which a client is joined to a container's own streams.

use tonic::Status;

use super::Face;
use super::exec::{process, wanted};
use super::status::{invalid, of_pod, of_stream, wrong_state};
use crate::container::attach::attach;
use crate::container::session::Streams;
use crate::container::state::State;
use crate::proto::cri;
use crate::stream::{Start, Wanted};

impl Face {
    pub(super) fn attach(
        &self,
        request: &cri::AttachRequest,
    ) -> Result<cri::AttachResponse, Status> {
        let &cri::AttachRequest { ref container_id, stdin, tty, stdout, stderr } = request;
        let wanted = wanted(Wanted { stdin, stdout, stderr, tty })?;
        let (pod, container) = self.pods.container(container_id).map_err(of_pod)?;
        if !matches!(container.state, State::Running(_)) {
            let why = format!("container {container_id} does not run: nothing to attach to");
            return Err(wrong_state(why));
        }
        if tty && !container.config.tty {
            return Err(invalid(format!("container {container_id} has no terminal")));
        }
        let start: Start = Box::new(move || {
            Box::pin(async move {
                let Wanted { stdin, stdout, stderr, tty } = wanted;
                let streams = Streams { stdin, stdout, stderr, tty };
                let attached = attach(&pod.dir, &container.place, &container.config, streams).await;
                attached.map(process).map_err(|error| error.to_string())
            })
        });
        let url = self.streams.attach(wanted, start).map_err(of_stream)?;
        Ok(cri::AttachResponse { url })
    }
}
