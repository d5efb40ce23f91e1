//! Pods: apply and delete, and which pods a command is about.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;
use tonic::Code;

use crate::proto::haled::applied_pod::Result as Applied;
use crate::proto::haled::{ApplyRequest, DeleteRequest, ListPodsRequest, ListPodsResponse, Pod};

use super::client::{self, Address};
use super::options::{Among, ApplyArgs, DEFAULT_NAMESPACE, DeleteArgs};
use super::output::{complain, print};
use super::{Failure, Outcome, names};

/// The longest manifest that is sent, in bytes; what haled takes may be less.
const MANIFEST_LIMIT: u64 = 8 << 20;

/// `halectl apply -f`.
pub(super) async fn apply(address: &Address, namespace: Option<&str>, args: ApplyArgs) -> Outcome {
    refuse_namespace(namespace)?;
    for file in &args.filename {
        let (manifest, source) = read_manifest(file).await?;
        let mut haled = client::haled(address).await?;
        let request = ApplyRequest { manifest: manifest.into(), source };
        for pod in haled.apply(request).await?.into_inner().pods {
            let result = match pod.result() {
                Applied::Unchanged => "unchanged",
                Applied::Created => "created",
                Applied::Replaced => "replaced",
            };
            print(format!("{} {result}\n", object(&pod.namespace, &pod.name)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every pod now, and again whenever anything has changed.
pub(super) async fn watching(
    address: &Address,
    request: ListPodsRequest,
) -> Result<tonic::Streaming<ListPodsResponse>, Failure> {
    Ok(client::haled(address).await?.watch_pods(request).await?.into_inner())
}

/// Where pods were looked for, for a sentence that ends with it.
pub(super) fn place(namespace: &str, among: &Among) -> String {
    let with = if among.selector.is_some() { " with these labels" } else { "" };
    if among.all_namespaces {
        with.to_owned()
    } else {
        format!("{with} in namespace \"{namespace}\"")
    }
}

/// `halectl delete`. Every pod is tried; one that fails doesn't save the others.
pub(super) async fn delete(
    address: &Address,
    namespace: Option<&str>,
    args: DeleteArgs,
) -> Outcome {
    let mut failed = false;
    let mut targets = Vec::new();
    if args.filename.is_empty() {
        let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
        let names = args.kind.map(|kind| kind.with(args.names)).unwrap_or_default();
        if names.is_empty() && args.among.selector.is_none() && !args.all {
            let why = "which pods? Name them, or say -l LABELS, --all or -f FILE";
            return Err(Failure::Usage(why.to_owned()));
        }
        let pods = list(address).await?;
        if names.is_empty() {
            targets.extend(pods.iter().filter(|pod| fits(pod, namespace, &args.among)).map(key));
            if targets.is_empty() {
                complain(&format!("there are no pods{}", place(namespace, &args.among)));
            }
        }
        for name in &names {
            match names::pod(&pods, namespace, name) {
                Ok(pod) => targets.push(key(pod)),
                Err(_) if args.ignore_not_found => {}
                Err(why) => {
                    complain(&why);
                    failed = true;
                }
            }
        }
    } else {
        refuse_namespace(namespace)?;
        for file in &args.filename {
            let (manifest, source) = read_manifest(file).await?;
            targets.extend(named_pods(&manifest, &source)?);
        }
    }
    // kubectl's users write --force --grace-period=0.
    let by_flag = args.force.then_some(0).or(args.now.then_some(1));
    let grace_seconds = args.grace_period.or(by_flag);
    let mut haled = client::haled(address).await?;
    for (namespace, name) in targets {
        let told = object(&namespace, &name);
        let request = DeleteRequest { namespace, name, grace_seconds };
        let deleted = match haled.delete(request).await {
            Err(status) if args.ignore_not_found && status.code() == Code::NotFound => continue,
            answer => answer.map_err(Failure::from),
        };
        match deleted {
            Ok(_) => print(format!("{told} deleted\n"))?,
            Err(Failure::Message(message)) => {
                complain(&message);
                failed = true;
            }
            Err(other) => return Err(other),
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The pod that is meant, which must be there.
pub(super) async fn one(address: &Address, namespace: &str, name: &str) -> Result<Pod, Failure> {
    let pods = list(address).await?;
    names::pod(&pods, namespace, name).cloned().map_err(Failure::Message)
}

/// The pods that a command is about.
pub(super) struct Chosen {
    pub(super) pods: Vec<Pod>,
    /// What is said of each name that is no pod's.
    pub(super) missing: Vec<String>,
}

impl Chosen {
    /// Says what is missing, and what that makes the process's exit code.
    pub(super) fn end(self) -> ExitCode {
        self.missing.iter().for_each(|why| complain(why));
        if self.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Of all pods those that are named, else those that fit.
pub(super) fn chosen(
    mut pods: Vec<Pod>,
    namespace: &str,
    names: &[String],
    among: &Among,
) -> Chosen {
    let mut missing = Vec::new();
    if names.is_empty() {
        pods.retain(|pod| fits(pod, namespace, among));
        return Chosen { pods, missing };
    }
    let mut found: Vec<Pod> = Vec::new();
    for name in names {
        match names::pod(&pods, namespace, name) {
            // A pod that is named twice is one.
            Ok(pod) if found.iter().any(|there| key(there) == key(pod)) => {}
            Ok(pod) => found.push(pod.clone()),
            Err(why) => missing.push(why),
        }
    }
    Chosen { pods: found, missing }
}

/// Whether a pod is one of those meant where none is named.
pub(super) fn fits(pod: &Pod, namespace: &str, among: &Among) -> bool {
    (among.all_namespaces || pod.namespace == namespace)
        && among.selector.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
}

/// What a pod goes by.
pub(super) fn key(pod: &Pod) -> (String, String) {
    (pod.namespace.clone(), pod.name.clone())
}

/// Every pod, sorted.
pub(super) async fn list(address: &Address) -> Result<Vec<Pod>, Failure> {
    asked(address, ListPodsRequest::default()).await
}

/// The same, also with what is known of the spec of those that came through the CRI.
pub(super) async fn list_with_specs(address: &Address) -> Result<Vec<Pod>, Failure> {
    asked(address, ListPodsRequest { specs: true, ..ListPodsRequest::default() }).await
}

async fn asked(address: &Address, request: ListPodsRequest) -> Result<Vec<Pod>, Failure> {
    let mut pods = client::haled(address).await?.list_pods(request).await?.into_inner().pods;
    pods.sort_by_cached_key(key);
    Ok(pods)
}

/// A pod as messages name it: its namespace only where it isn't the usual one.
fn object(namespace: &str, name: &str) -> String {
    match namespace {
        "" | DEFAULT_NAMESPACE => format!("pod/{name}"),
        _ => format!("pod/{name} in namespace {namespace}"),
    }
}

fn refuse_namespace(namespace: Option<&str>) -> Result<(), Failure> {
    match namespace {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(
            "--namespace says nothing about a manifest: set metadata.namespace in it".to_owned(),
        )),
    }
}

/// The text and what to call it in errors.
pub(super) async fn read_manifest(file: &Path) -> Result<(Vec<u8>, String), Failure> {
    let owned = file.to_owned();
    let is_stdin = file == Path::new("-");
    let source = if is_stdin { "stdin".to_owned() } else { file.display().to_string() };
    let read = move || {
        let mut bytes = Vec::new();
        if is_stdin {
            std::io::stdin().lock().take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes)?;
        } else {
            std::fs::File::open(owned)?.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes)?;
        }
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = tokio::task::spawn_blocking(read).await.expect("reading doesn't panic");
    match bytes {
        Ok(bytes) if bytes.len() as u64 > MANIFEST_LIMIT => Err(Failure::Message(format!(
            "{source} is longer than {} MiB: that is no manifest",
            MANIFEST_LIMIT >> 20
        ))),
        Ok(bytes) => Ok((bytes, source)),
        Err(error) => Err(Failure::Message(format!("cannot read {source}: {error}"))),
    }
}

/// What `delete -f` needs of a manifest, and no more.
#[derive(Deserialize)]
struct Document {
    kind: Option<String>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

/// Namespace and name of every pod in a manifest.
pub(super) fn named_pods(manifest: &[u8], source: &str) -> Result<Vec<(String, String)>, Failure> {
    let failed = |why: String| Failure::Message(format!("{source}: {why}"));
    let text = std::str::from_utf8(manifest).map_err(|error| failed(error.to_string()))?;
    let documents: Vec<Option<Document>> =
        serde_saphyr::from_multiple(text).map_err(|error| failed(error.to_string()))?;
    let mut pods = Vec::new();
    for document in documents.into_iter().flatten() {
        if document.kind.as_deref() != Some("Pod") {
            continue;
        }
        let metadata = document.metadata.ok_or_else(|| failed("metadata is missing".into()))?;
        let name = metadata.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| failed("metadata.name is missing".into()))?;
        pods.push((metadata.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.into()), name));
    }
    if pods.is_empty() {
        return Err(failed("there is no document of kind Pod in it".into()));
    }
    Ok(pods)
}
