//! Exec: a URL at which a command is run.

use tonic::Status;

use super::Face;
use super::status::{invalid, of_pod, of_stream, wrong_state};
use crate::container::session::{self, Session};
use crate::container::state::State;
use crate::proto::cri;
use crate::stream::{Process, Start, Wanted};

impl Face {
    pub(super) fn exec(&self, request: cri::ExecRequest) -> Result<cri::ExecResponse, Status> {
        let cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        let wanted = wanted(Wanted { stdin, stdout, stderr, tty })?;
        if cmd.first().is_none_or(String::is_empty) {
            return Err(invalid(format!("no command was given to run in {container_id}")));
        }
        let (pod, container) = self.pods.container(&container_id).map_err(of_pod)?;
        if !matches!(container.state, State::Running(_)) {
            let why = format!("container {container_id} does not run, so nothing can be run in it");
            return Err(wrong_state(why));
        }
        let start: Start = Box::new(move || {
            Box::pin(async move {
                let Wanted { stdin, stdout, stderr, tty } = wanted;
                let streams = session::Streams { stdin, stdout, stderr, tty };
                let started = session::start(&pod.runtime, &container.place, &cmd, streams).await;
                started.map(process).map_err(|error| error.to_string())
            })
        });
        let url = self.streams.exec(wanted, start).map_err(of_stream)?;
        Ok(cri::ExecResponse { url })
    }
}

/// The CRI's own conditions.
pub(super) fn wanted(wanted: Wanted) -> Result<Wanted, Status> {
    if wanted.tty && wanted.stderr {
        return Err(invalid("tty and stderr cannot both be true: a terminal has one output"));
    }
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Err(invalid("one of stdin, stdout and stderr must be true"));
    }
    Ok(wanted)
}

pub(super) fn process(session: Session) -> Process {
    let Session { stdin, stdout, stderr, resize, ended } = session;
    let ended = Box::pin(async move { ended.await.map_err(|error| error.to_string()) });
    Process { stdin, stdout, stderr, resize, ended }
}
