//! PortForward: each pair of a data and an error stream is one connection in a pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::channel::{Incoming, Outgoing, PIECE};
use super::command::Future;
use super::spdy::connection::{Connection, Opened};

/// A connection's two directions.
pub type Joint = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);
/// Connects to a port in the pod; or says why that can't be.
pub type Connect = Arc<dyn Fn(u16) -> Future<Result<Joint, String>> + Send + Sync>;

/// A pair of which one stream has come.
struct Half {
    data: Option<(Incoming, Outgoing)>,
    error: Option<Outgoing>,
    since: Instant,
}

/// Serves until the client is gone. A pair must be whole within `limit`.
pub(super) async fn over_spdy(mut connection: Connection, connect: Connect, limit: Duration) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    // Dropped with the connection, they end.
    let mut running = JoinSet::new();
    let mut sweep = tokio::time::interval(limit.max(Duration::from_millis(1)));
    loop {
        tokio::select! {
            opened = connection.next() => match opened {
                Some(opened) => {
                    if let Some((port, data, error)) = pair(opened, &mut halves).await {
                        running.spawn(forward(port, connect.clone(), data, error));
                    }
                }
                None => break,
            },
            _ = sweep.tick() => {
                let late = halves.extract_if(|_, half| half.since.elapsed() >= limit);
                for (_, half) in late.collect::<Vec<_>>() {
                    if let Some(error) = half.error {
                        drop(error.send("the data stream did not come".into()).await);
                        error.end().await;
                    }
                }
            }
            Some(_) = running.join_next() => {}
        }
    }
    connection.close().await;
}

/// Takes a stream; the pair, where it is whole with it.
async fn pair(
    opened: Opened,
    halves: &mut HashMap<String, Half>,
) -> Option<(u16, (Incoming, Outgoing), Outgoing)> {
    let headers = &opened.headers;
    let port = headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    let is_data = match headers.get("streamtype") {
        Some("data") => true,
        Some("error") => false,
        _ => {
            opened.refuse().await;
            return None;
        }
    };
    let Some(port) = port else {
        opened.refuse().await;
        return None;
    };
    // Clients that number nothing open the error stream first, and the data stream next.
    let request = headers.get("requestid").map_or_else(
        || (if is_data { opened.id.saturating_sub(2) } else { opened.id }).to_string(),
        str::to_owned,
    );
    let half = halves.get(&request);
    if half.is_some_and(|half| if is_data { half.data.is_some() } else { half.error.is_some() }) {
        opened.refuse().await;
        return None;
    }
    let (incoming, outgoing) = opened.accept().await;
    let half = halves.entry(request.clone()).or_insert_with(|| Half {
        data: None,
        error: None,
        since: Instant::now(),
    });
    if is_data {
        half.data = Some((incoming, outgoing));
    } else {
        half.error = Some(outgoing);
    }
    if half.data.is_none() || half.error.is_none() {
        return None;
    }
    let half = halves.remove(&request)?;
    Some((port, half.data?, half.error?))
}

/// Joins a client's streams to a connection to a port, until either side is done.
pub(super) async fn forward(
    port: u16,
    connect: Connect,
    data: (Incoming, Outgoing),
    error: Outgoing,
) {
    let (mut incoming, outgoing) = data;
    let joined = tokio::select! {
        joined = connect(port) => joined,
        () = outgoing.gone() => return,
    };
    match joined {
        Ok((mut from, mut to)) => {
            let up = async {
                while let Some(piece) = incoming.next().await {
                    if to.write_all(&piece).await.is_err() {
                        break;
                    }
                }
                drop(to.shutdown().await);
                // Half-closed: the other direction says when it is over.
                std::future::pending::<()>().await;
            };
            let down = async {
                let mut buffer = BytesMut::new();
                loop {
                    buffer.reserve(PIECE);
                    let Ok(1..) = from.read_buf(&mut buffer).await else { break };
                    if outgoing.send(buffer.split().freeze()).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = up => {}
                () = down => {}
                () = outgoing.gone() => return,
            }
        }
        Err(why) => {
            tracing::info!(port, why, "a port can't be forwarded");
            drop(error.send(format!("error forwarding port {port}: {why}").into()).await);
        }
    }
    error.end().await;
    outgoing.end().await;
}
