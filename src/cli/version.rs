//! Who speaks with whom.

use std::process::ExitCode;

use crate::proto::cri::VersionRequest;

use super::Outcome;
use super::client::{self, Address};
use super::output::print;

/// `halectl version`. Ours is printed even where haled can't be reached.
pub(super) async fn version(address: &Address) -> Outcome {
    print(format!("halectl  {}\n", env!("CARGO_PKG_VERSION")))?;
    let mut runtime = client::runtime(address).await?;
    // The CRI's clients send the version of the kubelet's old API; nobody reads it.
    let request = VersionRequest { version: "v1".into() };
    let answer = runtime.version(request).await?.into_inner();
    let (name, version) = (answer.runtime_name, answer.runtime_version);
    print(format!("{name:8} {version} (CRI {})\n", answer.runtime_api_version))?;
    Ok(ExitCode::SUCCESS)
}
