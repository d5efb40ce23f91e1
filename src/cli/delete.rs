//! `halectl delete`.

use std::process::ExitCode;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tonic::Code;

use crate::proto::haled::DeleteRequest;

use super::client::{self, Address};
use super::options::{DEFAULT_NAMESPACE, DeleteArgs};
use super::output::{complain, print};
use super::pods::{fits, key, list, object, place};
use super::{Failure, Outcome, manifest, names};

/// What is to be deleted.
#[derive(Default)]
struct Targets {
    /// Namespaces and names.
    pods: Vec<(String, String)>,
    /// They were there a moment ago: one that isn't any more is deleted.
    seen: bool,
    /// Some that were named aren't there.
    missing: bool,
}

/// All of them at once, each told when it is done; one that fails doesn't save the others.
pub(super) async fn delete(
    address: &Address,
    namespace: Option<&str>,
    args: DeleteArgs,
) -> Outcome {
    let targets = targets(address, namespace, &args).await?;
    let mut failed = targets.missing;
    // kubectl's users write --force --grace-period=0.
    let by_flag = args.force.then_some(0).or(args.now.then_some(1));
    let grace_seconds = args.grace_period.or(by_flag);
    let haled = client::haled(address).await?;
    let mut left: Vec<String> = Vec::new();
    let mut deletions = FuturesUnordered::new();
    for (namespace, name) in targets.pods {
        let told = object(&namespace, &name);
        left.push(told.clone());
        let request = DeleteRequest { namespace, name, grace_seconds, no_wait: !args.wait };
        let mut haled = haled.clone();
        deletions.push(async move { (told, haled.delete(request).await) });
    }
    // As kubectl has it, 0 is no limit.
    let limit = args.timeout.map(|limit| limit.0).filter(|limit| !limit.is_zero());
    let end = limit.map(|limit| Instant::now() + limit);
    loop {
        let next = match end {
            Some(end) => tokio::time::timeout_at(end, deletions.next()).await,
            None => Ok(deletions.next().await),
        };
        let Ok(next) = next else {
            for told in &left {
                complain(&format!("{told} is not gone yet: it goes on being deleted"));
            }
            return Ok(ExitCode::FAILURE);
        };
        let Some((told, answer)) = next else { break };
        left.retain(|other| *other != told);
        let is_gone = |status: &tonic::Status| status.code() == Code::NotFound;
        match answer {
            Ok(_) if args.wait => print(format!("{told} deleted\n"))?,
            Ok(_) => print(format!("{told} is being deleted\n"))?,
            Err(status) if is_gone(&status) && targets.seen => print(format!("{told} deleted\n"))?,
            Err(status) if is_gone(&status) && args.ignore_not_found => {}
            Err(status) => match Failure::from(status) {
                Failure::Message(message) => {
                    complain(&message);
                    failed = true;
                }
                other => return Err(other),
            },
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn targets(
    address: &Address,
    namespace: Option<&str>,
    args: &DeleteArgs,
) -> Result<Targets, Failure> {
    let mut targets = Targets::default();
    if !args.filename.is_empty() {
        manifest::refuse_namespace(namespace)?;
        for file in manifest::files(&args.filename, args.recursive)? {
            let (manifest, source) = manifest::read(&file).await?;
            targets.pods.extend(manifest::named_pods(&manifest, &source)?);
        }
        return Ok(targets);
    }
    targets.seen = true;
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    let names = args.kind.clone().map(|kind| kind.with(args.names.clone())).unwrap_or_default();
    if names.is_empty() && args.among.selector.is_none() && !args.all {
        let why = "which pods? Name them, or say -l LABELS, --all or -f FILE";
        return Err(Failure::Usage(why.to_owned()));
    }
    let pods = list(address).await?;
    if names.is_empty() {
        targets.pods.extend(pods.iter().filter(|pod| fits(pod, namespace, &args.among)).map(key));
        if targets.pods.is_empty() {
            complain(&format!("there are no pods{}", place(namespace, &args.among)));
        }
    }
    for name in &names {
        match names::pod(&pods, namespace, name) {
            // A pod that is named twice is one.
            Ok(pod) if targets.pods.contains(&key(pod)) => {}
            Ok(pod) => targets.pods.push(key(pod)),
            Err(_) if args.ignore_not_found => {}
            Err(why) => {
                complain(&why);
                targets.missing = true;
            }
        }
    }
    Ok(targets)
}
