//! Running a network probe once: connecting from inside the pod's network namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Handler, Outcome, Probe, Target, grpc, http};
use crate::sys::netns;

/// How often a probe is tried, where it isn't the container's fault that it can't be run.
pub const TRIES: u32 = 3;
/// Between two tries.
pub const PAUSE: Duration = Duration::from_millis(50);

/// The prober itself could not work: out of descriptors or memory. It says nothing of the
/// container.
#[derive(Debug, thiserror::Error)]
#[error("no socket for a probe: {0}")]
pub struct ProberFault(io::Error);

/// Why a connection was not made.
pub(super) enum NoConnection {
    Fault(ProberFault),
    Failed(String),
}

/// Runs a network probe once, within its timeout. An exec probe is its container's own to
/// run, and is a failure here.
pub async fn run(probe: &Probe, target: &Target) -> Result<Outcome, ProberFault> {
    let work = async {
        match &probe.handler {
            Handler::Exec { .. } => {
                Err(NoConnection::Failed("an exec probe is run in its container".to_owned()))
            }
            Handler::TcpSocket { port, host } => connect(target, host.as_deref(), *port)
                .await
                .map(|_| Outcome::passed(String::new())),
            Handler::HttpGet { .. } => http::get(&probe.handler, target).await,
            Handler::Grpc { port, service } => grpc::check(*port, service, target).await,
        }
    };
    let failed = |output| Ok(Outcome::failed(output));
    match timeout(probe.timeout, work).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(NoConnection::Failed(why))) => failed(why),
        Ok(Err(NoConnection::Fault(fault))) => Err(fault),
        Err(_) => {
            failed(format!("{}: no answer within {} s", probe.handler, probe.timeout.as_secs_f64()))
        }
    }
}

/// Runs a network hook once. Any answer is good, as it is to the kubelet. Its caller bounds
/// the time.
pub async fn call(handler: &Handler, target: &Target) -> Result<(), String> {
    match http::get(handler, target).await {
        Ok(_) => Ok(()),
        Err(NoConnection::Failed(why)) => Err(why),
        Err(NoConnection::Fault(fault)) => Err(fault.to_string()),
    }
}

/// A connection to the pod, or to `host`. Its close is a reset, so that neither side keeps
/// the connection's port for a minute: the pod's own ports, as it is made from inside. The
/// kubelet lingers for a second instead, which leaves the port taken (TIME_WAIT) all the same on
/// Linux, and would block a thread of the daemon for as long as the pod doesn't acknowledge.
pub(super) async fn connect(
    target: &Target,
    host: Option<&str>,
    port: u16,
) -> Result<TcpStream, NoConnection> {
    let mut last = None;
    for address in addresses(target, host, port).await? {
        let socket = socket(target, address.ip()).await.map_err(NoConnection::Fault)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(format!("dial tcp {address}: {error}")),
        }
    }
    let why = last.unwrap_or_else(|| format!("{} has no address", host.unwrap_or_default()));
    Err(NoConnection::Failed(why))
}

async fn addresses(
    target: &Target,
    host: Option<&str>,
    port: u16,
) -> Result<Vec<SocketAddr>, NoConnection> {
    let Some(host) = host else { return Ok(vec![SocketAddr::new(target.address, port)]) };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // By the node's resolver, as the kubelet does; it runs on a thread that may block.
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| NoConnection::Failed(format!("lookup {host}: {error}")))?;
    Ok(found.collect())
}

/// A socket that belongs to the pod's network namespace.
async fn socket(target: &Target, to: IpAddr) -> Result<TcpSocket, ProberFault> {
    let mut tries = 0;
    loop {
        let netns = target.netns.clone();
        let made = tokio::task::spawn_blocking(move || {
            let make = || {
                let socket = match to {
                    IpAddr::V4(_) => TcpSocket::new_v4(),
                    IpAddr::V6(_) => TcpSocket::new_v6(),
                }?;
                socket.set_zero_linger()?;
                Ok(socket)
            };
            match netns {
                Some(path) => netns::within(&path, make),
                None => make(),
            }
        });
        let made = made.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        tries += 1;
        match made {
            Ok(socket) => return Ok(socket),
            Err(error) if tries == TRIES => return Err(ProberFault(error)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
