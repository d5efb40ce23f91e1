//! PortForward: a URL at which a pod's ports can be reached.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tonic::Status;

use super::Face;
use super::status::{of_pod, of_stream, wrong_state};
use crate::oci::model::Sharing;
use crate::proto::cri;
use crate::stream::{Connect, Joint};
use crate::sys::netns;

/// How long a port on loopback may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

impl Face {
    /// The ports are those the client asks for on its connection. Those in the request are
    /// for old clients over WebSocket, that can't ask: a kubelet passes theirs on.
    pub(super) fn port_forward(
        &self,
        request: &cri::PortForwardRequest,
    ) -> Result<cri::PortForwardResponse, Status> {
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(of_pod)?;
        if !pod.ready() {
            let why = format!("pod sandbox {} is not ready, so no port is forwarded", pod.id);
            return Err(wrong_state(why));
        }
        let netns = (pod.config.network == Sharing::Pod).then(|| pod.dir.join("pins/net"));
        let connect: Connect = Arc::new(move |port| Box::pin(connect(netns.clone(), port)));
        // The kubelet has refused what is no port; what it lets through is not forwarded.
        let ports = request.port.iter().filter_map(|port| u16::try_from(*port).ok());
        let ports = ports.filter(|port| *port > 0).collect();
        let url = self.streams.port_forward(ports, connect).map_err(of_stream)?;
        Ok(cri::PortForwardResponse { url })
    }
}

/// Connects to a port on the pod's loopback, whichever family it listens on.
async fn connect(netns: Option<PathBuf>, port: u16) -> Result<Joint, String> {
    let mut failed = Vec::new();
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ] {
        let connected = tokio::time::timeout(CONNECT_LIMIT, connect_to(netns.clone(), address));
        match connected.await {
            Ok(Ok(stream)) => {
                let (from, to) = stream.into_split();
                return Ok((Box::new(from), Box::new(to)));
            }
            Ok(Err(error)) => failed.push(format!("{address}: {error}")),
            Err(_) => failed.push(format!("{address}: no answer in {CONNECT_LIMIT:?}")),
        }
    }
    Err(failed.join("; "))
}

async fn connect_to(netns: Option<PathBuf>, address: SocketAddr) -> io::Result<TcpStream> {
    let make = move || match &netns {
        Some(path) => netns::within(path, || socket(address)),
        None => socket(address),
    };
    let made = tokio::task::spawn_blocking(make).await.map_err(io::Error::other)??;
    let stream = made.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}
