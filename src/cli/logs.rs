//! A container's log.

use std::process::ExitCode;

use crate::proto::haled::LogsRequest;

use super::Outcome;
use super::age::rfc3339_nano;
use super::client::{self, Address};
use super::options::LogsArgs;
use super::output::print;

/// `halectl logs`: stdout and stderr of the container, both to stdout, as `kubectl logs` does.
pub(super) async fn logs(address: &Address, namespace: &str, args: LogsArgs) -> Outcome {
    let request = LogsRequest {
        namespace: namespace.to_owned(),
        pod: args.pod,
        container: args.container.unwrap_or_default(),
        follow: args.follow,
        tail: args.tail,
        previous: args.previous,
    };
    let mut lines = client::haled(address).await?.logs(request).await?.into_inner();
    while let Some(line) = lines.message().await? {
        let mut bytes = Vec::with_capacity(line.line.len() + 1);
        if args.timestamps {
            bytes.extend_from_slice(rfc3339_nano(line.at).as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&line.line);
        bytes.push(b'\n');
        print(bytes)?;
    }
    Ok(ExitCode::SUCCESS)
}
