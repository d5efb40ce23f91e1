//! `halectl apply`.

use std::process::ExitCode;

use tonic::transport::Channel;

use crate::proto::haled::ApplyRequest;
use crate::proto::haled::applied_pod::Result as Applied;
use crate::proto::haled::haled_client::HaledClient;

use super::client::{self, Address};
use super::options::{ApplyArgs, DryRun};
use super::output::{complain, plain, print};
use super::pods::object;
use super::{Failure, Outcome, manifest};

/// Every file is tried; one that is wrong doesn't keep the others from being applied.
pub(super) async fn apply(address: &Address, namespace: Option<&str>, args: ApplyArgs) -> Outcome {
    manifest::refuse_namespace(namespace)?;
    let files = manifest::files(&args.filename, args.recursive)?;
    let dry_run = args.dry_run.is_some_and(|dry_run| dry_run != DryRun::None);
    let mut haled = None;
    let mut failed = false;
    for file in &files {
        let one = async {
            let (manifest, source) = manifest::read(file).await?;
            let haled = match &mut haled {
                Some(haled) => haled,
                none => none.insert(client::haled(address).await?),
            };
            send(haled, ApplyRequest { manifest: manifest.into(), source, dry_run }).await
        };
        match one.await {
            Ok(()) => {}
            Err(Failure::Message(why)) => {
                complain(&why);
                failed = true;
            }
            Err(other) => return Err(other),
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn send(haled: &mut HaledClient<Channel>, request: ApplyRequest) -> Result<(), Failure> {
    let (source, dry_run) = (request.source.clone(), request.dry_run);
    let applied = haled.apply(request).await?.into_inner();
    for warning in &applied.warnings {
        complain(&plain(&format!("{source}: {warning}")));
    }
    for pod in applied.pods {
        let result = match pod.result() {
            Applied::Unchanged => "unchanged",
            Applied::Created => "created",
            Applied::Replaced => "replaced",
        };
        let not_done = if dry_run { " (dry run)" } else { "" };
        print(format!("{} {result}{not_done}\n", object(&pod.namespace, &pod.name)))?;
    }
    Ok(())
}
