//! A command in a container, through the CRI's ExecSync.

use std::process::ExitCode;

use crate::proto::cri::ExecSyncRequest;
use crate::proto::haled::{Container, Pod};

use super::client::{self, Address};
use super::options::ExecArgs;
use super::output::{complain, print, print_error};
use super::{Failure, Outcome, pods};

/// `halectl exec`: the command's output and exit code are ours.
pub(super) async fn exec(address: &Address, namespace: &str, args: ExecArgs) -> Outcome {
    let pod = pods::one(address, namespace, &args.pod).await?;
    let container = container(&pod, args.container.as_deref())?;
    if args.container.is_none() && pod.containers.len() > 1 {
        let names: Vec<_> = pod.containers.iter().map(|c| c.name.as_str()).collect();
        complain(&format!("in container \"{}\" of: {}", container.name, names.join(", ")));
    }
    let request = ExecSyncRequest {
        container_id: container.id.clone(),
        cmd: args.command,
        timeout: args.timeout.into(),
    };
    let answer = client::runtime(address).await?.exec_sync(request).await?.into_inner();
    print(&answer.stdout)?;
    print_error(&answer.stderr)?;
    Ok(ExitCode::from(code(answer.exit_code)))
}

/// The one that was asked for, or the first; only a running one.
fn container<'p>(pod: &'p Pod, name: Option<&str>) -> Result<&'p Container, Failure> {
    let full = format!("{}/{}", pod.namespace, pod.name);
    let found = match name {
        Some(name) => pod.containers.iter().find(|container| container.name == name),
        None => pod.containers.first(),
    };
    let Some(container) = found else {
        let names: Vec<_> = pod.containers.iter().map(|c| c.name.as_str()).collect();
        let message = match (name, names.is_empty()) {
            (Some(name), false) => {
                format!("pod {full} has no container \"{name}\": it has {}", names.join(", "))
            }
            _ => format!("pod {full} has no container yet"),
        };
        return Err(Failure::Message(message));
    };
    if container.state != "Running" || container.id.is_empty() {
        let why = if container.reason.is_empty() { &container.state } else { &container.reason };
        let name = &container.name;
        let message = format!("container \"{name}\" of pod {full} is not running: {why}");
        return Err(Failure::Message(message));
    }
    Ok(container)
}

/// A process's exit code is a byte; what doesn't fit must at least not look like success.
fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let container = |name: &str, state: &str, reason: &str| Container {
            name: name.into(),
            id: "ab".repeat(32),
            state: state.into(),
            reason: reason.into(),
            ..Container::default()
        };
        Pod {
            namespace: "default".into(),
            name: "web".into(),
            containers: vec![
                container("app", "Running", "Healthy"),
                container("side", "Waiting", "CrashLoopBackOff"),
            ],
            ..Pod::default()
        }
    }

    fn refused(pod: &Pod, name: Option<&str>) -> String {
        match container(pod, name) {
            Err(Failure::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_named_or_first_container_is_taken_if_it_runs() {
        let pod = pod();
        assert_eq!(container(&pod, None).unwrap().name, "app");
        assert_eq!(
            refused(&pod, Some("side")),
            "container \"side\" of pod default/web is not running: CrashLoopBackOff"
        );
        assert_eq!(
            refused(&pod, Some("ap")),
            "pod default/web has no container \"ap\": it has app, side"
        );
        assert_eq!(refused(&Pod::default(), None), "pod / has no container yet");
    }

    #[test]
    fn a_code_that_is_no_byte_is_not_success() {
        assert_eq!([0, 1, 137, 255, 256, -1].map(code), [0, 1, 137, 255, 255, 255]);
    }
}
