//! Which pods a command is about.

use std::process::ExitCode;

use crate::proto::haled::{ListPodsRequest, ListPodsResponse, Pod};

use super::client::{self, Address};
use super::options::{Among, DEFAULT_NAMESPACE};
use super::output::complain;
use super::{Failure, names};

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

/// The pods that a request asks for, sorted.
pub(super) async fn asked(
    address: &Address,
    request: ListPodsRequest,
) -> Result<Vec<Pod>, Failure> {
    let mut pods = client::haled(address).await?.list_pods(request).await?.into_inner().pods;
    pods.sort_by_cached_key(key);
    Ok(pods)
}

/// A pod as messages name it: its namespace only where it isn't the usual one.
pub(super) fn object(namespace: &str, name: &str) -> String {
    match namespace {
        "" | DEFAULT_NAMESPACE => format!("pod/{name}"),
        _ => format!("pod/{name} in namespace {namespace}"),
    }
}
