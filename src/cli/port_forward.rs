//! `halectl port-forward`: ports of this machine that lead into a pod.
//!
//! Every connection is a session of its own to the pod's sandbox of that moment: a slow one
//! holds up no other, and a pod or a haled that was started again is reached again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::proto::cri::PortForwardRequest;
use crate::proto::haled::Pod;

use super::client::{self, Address};
use super::options::PortForwardArgs;
use super::output::{complain, print};
use super::session::forward;
use super::{Failure, Outcome, pods};

/// `LOCAL:REMOTE`, `REMOTE` for the same on both sides, `:REMOTE` for any local port that is
/// free. The remote one may be the name of a port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    /// 0: any.
    local: Option<u16>,
    remote: Remote,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Remote {
    Number(u16),
    Name(String),
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str, least: u16| {
            let number = text.parse::<u16>().ok().filter(|number| *number >= least);
            number.ok_or_else(|| format!("\"{text}\" is no port: {least} to 65535 are"))
        };
        let (local, remote) = match text.split_once(':') {
            None => (None, text),
            Some(("", remote)) => (Some(0), remote),
            Some((local, remote)) => (Some(number(local, 0)?), remote),
        };
        let named = remote.starts_with(|c: char| c.is_ascii_alphabetic());
        let remote = if named {
            Remote::Name(remote.to_owned())
        } else {
            Remote::Number(number(remote, 1)?)
        };
        Ok(Self { local, remote })
    }
}

/// Where to listen: an address, or `localhost` for both of its families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listen {
    Localhost,
    Address(IpAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "localhost" => Ok(Self::Localhost),
            _ => text
                .parse()
                .map(Self::Address)
                .map_err(|_| "an IP address of this machine, or localhost, is wanted".to_owned()),
        }
    }
}

/// `halectl port-forward`: until it is interrupted.
pub(super) async fn port_forward(
    address: &Address,
    namespace: &str,
    args: PortForwardArgs,
) -> Outcome {
    let pod = pods::one(address, namespace, &args.pod).await?;
    if pod.sandbox_id.is_empty() {
        let why = format!("pod {}/{} has no sandbox yet", pod.namespace, pod.name);
        return Err(Failure::Message(why));
    }
    let mut listeners = Vec::new();
    for ports in &args.ports {
        let remote = remote(&pod, &ports.remote)?;
        let wanted = ports.local.unwrap_or(remote);
        for listener in bind(&args.addresses, wanted).await? {
            let local = listener.local_addr().map_err(|error| cannot(wanted, &error))?;
            print(format!("Forwarding from {local} -> {remote}\n"))?;
            listeners.push((listener, remote));
        }
    }
    let mut serving = JoinSet::new();
    for (listener, port) in listeners {
        let way = Way {
            address: address.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            port,
        };
        serving.spawn(serve(listener, way));
    }
    match serving.join_next().await {
        Some(Ok(Err(failure))) => Err(failure),
        Some(Err(panic)) => Err(Failure::Message(panic.to_string())),
        Some(Ok(Ok(()))) | None => Ok(ExitCode::SUCCESS),
    }
}

/// The number of a port of the pod.
fn remote(pod: &Pod, remote: &Remote) -> Result<u16, Failure> {
    let name = match remote {
        Remote::Number(number) => return Ok(*number),
        Remote::Name(name) => name,
    };
    let manifest: Value = serde_json::from_str(&pod.manifest).unwrap_or_default();
    let ports: Vec<(&str, u64)> = ["containers", "initContainers"]
        .iter()
        .filter_map(|list| manifest.get("spec")?.get(list)?.as_array())
        .flatten()
        .filter_map(|container| container.get("ports")?.as_array())
        .flatten()
        .filter_map(|port| {
            Some((port.get("name")?.as_str()?, port.get("containerPort")?.as_u64()?))
        })
        .collect();
    let found = ports.iter().find(|(known, _)| known == name);
    let number = found.and_then(|(_, number)| u16::try_from(*number).ok());
    number.ok_or_else(|| {
        let names: Vec<&str> = ports.iter().map(|(name, _)| *name).collect();
        let has = match names.as_slice() {
            [] => "it names none: give a number".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        let (namespace, pod) = (&pod.namespace, &pod.name);
        Failure::Message(format!("pod {namespace}/{pod} has no port named \"{name}\": {has}"))
    })
}

/// Listens on every address, all on one port.
async fn bind(addresses: &[Listen], port: u16) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let (all, needed): (&[IpAddr], _) = match address {
            Listen::Localhost => {
                // As with kubectl, one of the two is enough: not every machine has IPv6.
                (&[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)], false)
            }
            Listen::Address(address) => (std::slice::from_ref(address), true),
        };
        let (mut bound, mut last, mut taken) = (0, None, false);
        for ip in all {
            // Of any free port, the first that was given is everyone's.
            let first = listeners.first().and_then(|first| first.local_addr().ok());
            let chosen = match (port, first) {
                (0, Some(first)) => first.port(),
                (port, _) => port,
            };
            match TcpListener::bind(SocketAddr::new(*ip, chosen)).await {
                Ok(listener) => {
                    bound += 1;
                    listeners.push(listener);
                }
                Err(error) => {
                    taken |= error.kind() == std::io::ErrorKind::AddrInUse;
                    last = Some(cannot(chosen, &format!("{ip}: {error}")));
                }
            }
        }
        match last {
            Some(failure) if needed || bound == 0 => return Err(failure),
            // A taken port is someone else's there: who connects to it doesn't reach the pod.
            Some(Failure::Message(why)) if taken => complain(&why),
            _ => {}
        }
    }
    Ok(listeners)
}

fn cannot(port: u16, why: &dyn std::fmt::Display) -> Failure {
    Failure::Message(format!("cannot listen on port {port}: {why}"))
}

/// Where connections lead.
#[derive(Clone)]
struct Way {
    address: Address,
    namespace: String,
    name: String,
    port: u16,
}

async fn serve(listener: TcpListener, way: Way) -> Result<(), Failure> {
    // Dropped with the process.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted
                    .map_err(|error| Failure::Message(format!("cannot accept a connection: {error}")))?;
                let local = listener.local_addr().map_or(0, |address| address.port());
                print(format!("Handling connection for {local}\n"))?;
                connections.spawn(carry(stream, way.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. What goes wrong with it is told, and nobody else's concern.
async fn carry(stream: TcpStream, way: Way) {
    let carried = async {
        let pod = pods::one(&way.address, &way.namespace, &way.name).await?;
        let request =
            PortForwardRequest { pod_sandbox_id: pod.sandbox_id, port: vec![way.port.into()] };
        let mut runtime = client::runtime(&way.address).await?;
        let url = runtime.port_forward(request).await?.into_inner().url;
        forward::forward(&url, way.port, stream).await
    };
    if let Err(Failure::Message(why)) = carried.await {
        complain(&why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_for_kubectl() {
        let read = |text: &str| text.parse::<Ports>();
        let ports = |local, remote| Ok(Ports { local, remote: Remote::Number(remote) });
        assert_eq!(read("80"), ports(None, 80));
        assert_eq!(read("8080:80"), ports(Some(8080), 80));
        assert_eq!(read(":80"), ports(Some(0), 80));
        assert_eq!(read("0:80"), ports(Some(0), 80));
        let named = Ports { local: Some(1), remote: Remote::Name("http".into()) };
        assert_eq!(read("1:http"), Ok(named));
        for bad in ["", ":", "0", "80:", "a:80", "65536", "1:2:3", "-1"] {
            read(bad).expect_err(bad);
        }
        "::1".parse::<Listen>().unwrap();
        "example".parse::<Listen>().unwrap_err();
    }

    #[test]
    fn a_named_port_is_looked_up_in_the_manifest() {
        let pod = Pod {
            name: "web".into(),
            namespace: "default".into(),
            manifest: r#"{"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 1}]}]}}"#.into(),
            ..Pod::default()
        };
        assert_eq!(remote(&pod, &Remote::Name("http".into())).unwrap(), 8080);
        let told = |pod: &Pod| match remote(pod, &Remote::Name("x".into())) {
            Err(Failure::Message(told)) => told,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(&pod), "pod default/web has no port named \"x\": it has http");
        assert!(told(&Pod::default()).ends_with("it names none: give a number"));
    }
}
