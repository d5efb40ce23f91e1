//! The grpc probe: one Check of the gRPC health protocol, plaintext, on a connection of its own.

use std::net::SocketAddr;
use std::sync::Mutex;

use hyper_util::rt::TokioIo;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::http::AGENT;
use super::run::{NoConnection, connect};
use super::{Outcome, Target};

/// The longest answer taken, in bytes: it is one number.
const MAX_ANSWER: usize = 1024;

/// Asks once. Its caller bounds the time.
pub(super) async fn check(
    port: u16,
    service: &str,
    target: &Target,
) -> Result<Outcome, NoConnection> {
    let failed = |output: String| Ok(Outcome::failed(output));
    let address = SocketAddr::new(target.address, port);
    let stream = connect(target, None, port).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent(AGENT))
        .map_err(|error| NoConnection::Failed(error.to_string()))?;
    // The connection that was made inside the pod is the only one: there is no second try.
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("the connection broke off")))
    });
    let channel = match endpoint.connect_with_connector(connector).await {
        Ok(channel) => channel,
        Err(error) => {
            return failed(format!("error: failed to connect service at \"{address}\": {error}"));
        }
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    match client.check(HealthCheckRequest { service: service.to_owned() }).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(Outcome::passed("service healthy".to_owned())),
            other => {
                failed(format!("service unhealthy (responded with \"{}\")", other.as_str_name()))
            }
        },
        Err(status) => failed(words(&status)),
    }
}

/// A refusal in the kubelet's words.
fn words(status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        ),
        code => format!("error: health rpc probe failed: {code:?}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;
    use tonic_health::ServingStatus as Set;

    use super::*;
    use crate::health::{Handler, Probe, run};

    const HERE: Target = Target { netns: None, address: IpAddr::V4(Ipv4Addr::LOCALHOST) };

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    async fn probe(port: u16, service: &str) -> Outcome {
        let probe = Probe {
            handler: Handler::Grpc { port, service: service.to_owned() },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            success_threshold: 1,
            failure_threshold: 1,
            termination_grace: None,
        };
        run(&probe, &HERE).await.unwrap()
    }

    #[tokio::test]
    async fn only_serving_passes() {
        let (listener, port) = listen().await;
        let (reporter, service) = tonic_health::server::health_reporter();
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        reporter.set_service_status("db", Set::NotServing).await;
        assert_eq!(probe(port, "").await, Outcome::passed("service healthy".into()));
        let db = probe(port, "db").await;
        assert!(!db.success);
        assert_eq!(db.output, "service unhealthy (responded with \"NOT_SERVING\")");
        let unknown = probe(port, "no-such").await;
        assert!(!unknown.success);
        assert!(unknown.output.contains("NotFound"), "{}", unknown.output);
        reporter.set_service_status("db", Set::Serving).await;
        assert!(probe(port, "db").await.success);
    }

    #[tokio::test]
    async fn what_speaks_no_grpc_fails_in_words() {
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            // Accepts and closes.
            while listener.accept().await.is_ok() {}
        });
        let closed = probe(port, "").await;
        assert!(!closed.success && closed.output.starts_with("error: "), "{}", closed.output);

        let (listener, port) = listen().await;
        drop(listener);
        let refused = probe(port, "").await;
        assert!(!refused.success && refused.output.contains("refused"), "{}", refused.output);

        let (listener, port) = listen().await;
        let other = no_service();
        tokio::spawn(other.serve_with_incoming(TcpListenerStream::new(listener)));
        let other = probe(port, "").await;
        assert!(other.output.contains("does not implement"), "{}", other.output);
    }

    /// A gRPC server with no service.
    fn no_service() -> tonic::transport::server::Router {
        Server::builder().add_routes(tonic::service::Routes::default())
    }
}
