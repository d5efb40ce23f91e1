//! Each call measured: how long it took and what its code was; and a span of it, below the
//! client's own where it sent one (W3C trace context, in the call's metadata).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span, field};

use crate::meter::{self, Measured, TARGET};

/// Answers a call.
pub(super) async fn call(
    routes: Routes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let span = span(&path);
    if !span.is_disabled() {
        meter::adopt(&span, &|name| request.headers().get(name)?.to_str().ok());
    }
    let mut call = Call { path, began: Instant::now(), span: span.clone(), over: false };
    let response = routes.oneshot(request).instrument(span).await?;
    // An answer that is only an error has its code here, others have it at their end.
    if let Some(code) = code(response.headers()) {
        call.ended(code);
    }
    Ok(response.map(|inner| Body::new(Measuring { inner, call })))
}

fn span(path: &str) -> Span {
    let name = path.trim_start_matches('/');
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    tracing::trace_span!(
        target: TARGET,
        "call",
        otel.name = %name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = field::Empty,
    )
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// A call that goes on until its answer has been sent.
struct Call {
    path: String,
    began: Instant,
    span: Span,
    over: bool,
}

impl Call {
    fn ended(&mut self, code: Code) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let number = i32::from(code);
        self.span.record("rpc.grpc.status_code", number);
        if code != Code::Ok {
            self.span.record("otel.status_code", "error");
        }
        // Whoever asks for what isn't served doesn't get to name it.
        let path = if code == Code::Unimplemented { "" } else { &self.path };
        let code = number.unsigned_abs();
        meter::record(&Measured::Call { path, code, took: self.began.elapsed() });
    }
}

impl Drop for Call {
    /// The client has gone before the end.
    fn drop(&mut self) {
        self.ended(Code::Cancelled);
    }
}

/// The body of an answer, until its end.
struct Measuring {
    inner: Body,
    call: Call,
}

impl hyper::body::Body for Measuring {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.call.span.clone();
        let polled = span.in_scope(|| Pin::new(&mut self.inner).poll_frame(context));
        if let Poll::Ready(frame) = &polled {
            match frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.call.ended(code(trailers).unwrap_or(Code::Unknown));
                    }
                }
                Some(Err(status)) => self.call.ended(status.code()),
                None => self.call.ended(Code::Unknown),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
