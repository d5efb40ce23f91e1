//! Pods: apply, get, describe, delete.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;

use crate::proto::haled::applied_pod::Result as Applied;
use crate::proto::haled::{ApplyRequest, DeleteRequest, ListPodsRequest, ListPodsResponse, Pod};

use super::age::{now, since};
use super::client::{self, Address};
use super::options::{
    ApplyArgs, DEFAULT_NAMESPACE, DeleteArgs, DescribeArgs, Format, GetArgs, Kind,
};
use super::output::{complain, print};
use super::table::table;
use super::{Failure, Outcome, describe, events, json, status};

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

/// `halectl get pods`.
pub(super) async fn get(address: &Address, namespace: &str, args: GetArgs) -> Outcome {
    let Kind::Pods = args.kind;
    if args.watch {
        return watch(address, namespace, args).await;
    }
    let pods = match &args.name {
        Some(name) => vec![one(address, namespace, name).await?],
        None if args.all_namespaces => list(address, "", "").await?,
        None => list(address, namespace, "").await?,
    };
    show(&pods, namespace, &args)?;
    Ok(ExitCode::SUCCESS)
}

/// `halectl get pods --watch`: until it is interrupted.
async fn watch(address: &Address, namespace: &str, args: GetArgs) -> Outcome {
    let namespace = if args.all_namespaces { "" } else { namespace };
    let mut lists = watching(address, namespace, args.name.as_deref().unwrap_or("")).await?;
    while let Some(list) = lists.message().await? {
        show(&list.pods, namespace, &args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pods of a namespace now, and again whenever they have changed.
pub(super) async fn watching(
    address: &Address,
    namespace: &str,
    name: &str,
) -> Result<tonic::Streaming<ListPodsResponse>, Failure> {
    let request = ListPodsRequest { namespace: namespace.to_owned(), name: name.to_owned() };
    Ok(client::haled(address).await?.watch_pods(request).await?.into_inner())
}

fn show(pods: &[Pod], namespace: &str, args: &GetArgs) -> Result<(), Failure> {
    match args.output {
        Some(Format::Json) => return print(json::pods(pods, args.name.is_some())),
        Some(Format::Yaml) => return print(json::yaml(pods, args.name.is_some())?),
        Some(Format::Name) => {
            let names: Vec<String> = pods.iter().map(|pod| format!("pod/{}\n", pod.name)).collect();
            return print(names.concat());
        }
        None | Some(Format::Wide) => {}
    }
    if pods.is_empty() {
        // To stderr, as kubectl has it: a script that counts lines counts none.
        let place = format!(" in namespace \"{namespace}\"");
        complain(&format!("there are no pods{}", if args.all_namespaces { "" } else { &place }));
    } else {
        let wide = args.output == Some(Format::Wide);
        print(pod_table(pods, args.all_namespaces, wide, now()))?;
    }
    Ok(())
}

/// `halectl describe pod`.
pub(super) async fn describe(address: &Address, namespace: &str, args: DescribeArgs) -> Outcome {
    let Kind::Pods = args.kind;
    let pod = one(address, namespace, &args.name).await?;
    let events = events::of_pod(address, &pod.namespace, &pod.name).await?;
    print(describe::describe(&pod, &events, now()))?;
    Ok(ExitCode::SUCCESS)
}

/// `halectl delete`. Every pod is tried; one that fails doesn't save the others.
pub(super) async fn delete(
    address: &Address,
    namespace: Option<&str>,
    args: DeleteArgs,
) -> Outcome {
    let mut pods = Vec::new();
    if args.filename.is_empty() {
        let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
        pods.extend(args.names.into_iter().map(|name| (namespace.to_owned(), name)));
    } else {
        refuse_namespace(namespace)?;
        for file in &args.filename {
            let (manifest, source) = read_manifest(file).await?;
            pods.extend(named_pods(&manifest, &source)?);
        }
    }
    let mut haled = client::haled(address).await?;
    let mut code = ExitCode::SUCCESS;
    for (namespace, name) in pods {
        let told = object(&namespace, &name);
        let request = DeleteRequest { namespace, name, grace_seconds: args.grace_period };
        match haled.delete(request).await.map_err(Failure::from) {
            Ok(_) => print(format!("{told} deleted\n"))?,
            Err(Failure::Message(message)) => {
                complain(&message);
                code = ExitCode::FAILURE;
            }
            Err(gone) => return Err(gone),
        }
    }
    Ok(code)
}

/// The pod of this name, which must be there.
pub(super) async fn one(address: &Address, namespace: &str, name: &str) -> Result<Pod, Failure> {
    let none = || Failure::Message(format!("there is no pod {namespace}/{name}"));
    if name.is_empty() {
        // An empty name would ask for every pod.
        return Err(none());
    }
    list(address, namespace, name).await?.into_iter().next().ok_or_else(none)
}

pub(super) async fn list(
    address: &Address,
    namespace: &str,
    name: &str,
) -> Result<Vec<Pod>, Failure> {
    let request = ListPodsRequest { namespace: namespace.to_owned(), name: name.to_owned() };
    let mut pods = client::haled(address).await?.list_pods(request).await?.into_inner().pods;
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(pods)
}

/// The table of `get pods`. `now` is nanoseconds since the epoch.
pub(super) fn pod_table(pods: &[Pod], namespaces: bool, wide: bool, now: i64) -> String {
    let mut heading = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
    if namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if wide {
        heading.extend(["IP", "ORIGIN", "SANDBOX"]);
    }
    let row = |pod: &Pod| {
        let restarts = match (status::restarts(pod), status::last_restart(pod)) {
            (count, Some(at)) if count > 0 => format!("{count} ({} ago)", since(at, now)),
            (count, _) => count.to_string(),
        };
        let age = since(pod.created_at, now);
        let mut row =
            vec![pod.name.clone(), status::ready(pod), status::status(pod), restarts, age];
        if namespaces {
            row.insert(0, pod.namespace.clone());
        }
        if wide {
            let or_none = |text: String| if text.is_empty() { "<none>".into() } else { text };
            let sandbox = pod.sandbox_id.get(..13).unwrap_or(&pod.sandbox_id);
            row.push(or_none(pod.ips.join(",")));
            row.push(or_none(pod.origin.clone()));
            row.push(or_none(sandbox.to_owned()));
        }
        row
    };
    table(&heading, &pods.iter().map(row).collect::<Vec<_>>())
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
        Some(_) => Err(Failure::Message(
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
