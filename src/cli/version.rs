//! Who speaks with whom, and how haled is set.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::proto::cri::{VersionRequest, VersionResponse};
use crate::proto::haled::{AboutRequest, AboutResponse, OciRuntime};

use super::client::{self, Address};
use super::options::VersionArgs;
use super::output::print;
use super::table::table;
use super::{Failure, Outcome, json};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// `halectl version`. Ours is printed even where haled can't be reached.
pub(super) async fn version(address: &Address, args: VersionArgs) -> Outcome {
    let asked = if args.client { None } else { Some(ask(address).await) };
    let answer = asked.as_ref().and_then(|asked| asked.as_ref().ok());
    match args.output {
        None => print(text(answer))?,
        Some(format) => print(json::written(&object(answer), format)?)?,
    }
    asked.transpose().map(|_| ExitCode::SUCCESS)
}

/// `halectl config`: comments, and then the settings as a file that could be haled's.
pub(super) async fn config(address: &Address) -> Outcome {
    print(format!("# halectl: the socket is {address}, {}\n", address.origin()))?;
    let about = client::haled(address).await?.about(AboutRequest {}).await?.into_inner();
    print(format!("# haled {}: the settings in force\n{}", about.version, about.settings))?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(address: &Address) -> Result<(VersionResponse, AboutResponse), Failure> {
    // The CRI's clients send the version of the kubelet's old API; nobody reads it.
    let request = VersionRequest { version: "v1".into() };
    let version = client::runtime(address).await?.version(request).await?.into_inner();
    let about = match client::haled(address).await?.about(AboutRequest {}).await {
        // Another runtime's CRI, or a haled from before there was this.
        Err(status) if status.code() == tonic::Code::Unimplemented => AboutResponse::default(),
        answer => answer?.into_inner(),
    };
    Ok((version, about))
}

type Answer = (VersionResponse, AboutResponse);

fn text(answer: Option<&Answer>) -> String {
    let mut rows = vec![vec!["halectl".to_owned(), OWN.to_owned(), String::new()]];
    if let Some((version, about)) = answer {
        let cri = format!("CRI {}", version.runtime_api_version);
        rows.push(vec![version.runtime_name.clone(), version.runtime_version.clone(), cri]);
        rows.extend(about.runtimes.iter().map(|runtime| {
            let default = if runtime.default { ", the default" } else { "" };
            // What is long stands last, where it widens no column.
            let (version, more) = match runtime.problem.as_str() {
                "" => (&*runtime.version, format!("{}{default}", runtime.path)),
                problem => ("none", format!("{problem}{default}")),
            };
            vec![runtime.handler.clone(), version.to_owned(), more]
        }));
    }
    let lines = table(&["", "", ""], &rows);
    // Without a heading.
    lines.split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default()
}

fn object(answer: Option<&Answer>) -> Value {
    let mut object = json!({"client": {"version": OWN}});
    if let Some((version, about)) = answer {
        object["server"] = json!({
            "name": version.runtime_name,
            "version": version.runtime_version,
            "criVersion": version.runtime_api_version,
        });
        object["runtimes"] = about.runtimes.iter().map(runtime).collect();
    }
    object
}

fn runtime(runtime: &OciRuntime) -> Value {
    let mut object =
        json!({"handler": runtime.handler, "path": runtime.path, "default": runtime.default});
    let found = [("version", &runtime.version), ("problem", &runtime.problem)];
    for (name, text) in found.into_iter().filter(|(_, text)| !text.is_empty()) {
        object[name] = text.clone().into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_missing_widens_no_column() {
        let runtime = |handler: &str, version: &str, problem: &str| OciRuntime {
            handler: handler.into(),
            path: format!("/usr/bin/{handler}"),
            version: version.into(),
            problem: problem.into(),
            default: handler == "runc",
        };
        let version = VersionResponse {
            runtime_name: "haled".into(),
            runtime_version: "1.2.3".into(),
            runtime_api_version: "v1".into(),
            ..VersionResponse::default()
        };
        let missing = "cannot run /usr/bin/crun: No such file or directory: install it";
        let runtimes =
            vec![runtime("crun", "", missing), runtime("runc", "runc version 1.3.3", "")];
        let text = text(Some(&(version, AboutResponse { runtimes, ..Default::default() })));
        let expected = format!(
            "halectl   {OWN:18}\nhaled     1.2.3                CRI v1\n\
             crun      none                 {missing}\n\
             runc      runc version 1.3.3   /usr/bin/runc, the default\n"
        );
        let trimmed: Vec<&str> = expected.lines().map(str::trim_end).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), trimmed);
    }
}
