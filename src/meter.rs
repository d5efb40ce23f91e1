//! What is counted and timed, for whoever listens.
//!
//! Every room may say what it did and how long that took; where the words go is decided once, by
//! the daemon, with [`listen`]. Without a listener nothing is kept. Each [`timed`] piece of work
//! is a span too, for traces: spans of [`TARGET`] are made only where something takes them.
//! Never here: the names of metrics, Prometheus, OpenTelemetry.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing::{Instrument as _, Span, field};

/// Of every span made here, at the level `TRACE`.
pub const TARGET: &str = "haled::meter";

/// Something that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measured<'a> {
    /// Another program, or the kernel, was asked for something.
    Operation {
        /// Who.
        system: System,
        /// For what: `run`, `ADD`, `overlay`.
        name: &'static str,
        /// Until its answer.
        took: Duration,
        /// It answered with an error.
        failed: bool,
    },
    /// A call on haled's own socket was answered.
    Call {
        /// `/runtime.v1.RuntimeService/Version`; a path that is served.
        path: &'a str,
        /// gRPC's.
        code: u32,
        /// Until the end of the answer, also where that streams.
        took: Duration,
    },
    /// A probe was run.
    Probe {
        /// The pod's namespace.
        namespace: &'a str,
        /// The pod's name.
        pod: &'a str,
        /// The container's name.
        container: &'a str,
        /// `Startup`, `Liveness`, `Readiness`.
        kind: &'static str,
        /// `None`: it could not be run, through no fault of the container's.
        success: Option<bool>,
        /// Until its outcome.
        took: Duration,
    },
    /// A container that had failed runs again.
    Healed {
        /// How it had ended: `LivenessProbeFailed`, `OOMKilled`, `Error`, …
        reason: &'a str,
        /// From the failure that decided to the new process.
        took: Duration,
        /// It was haled that started it, and not an orchestrator.
        by_haled: bool,
    },
    /// A container waits before it is started again.
    BackedOff {
        /// For how long.
        wait: Duration,
    },
}

/// Who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum System {
    /// runc, crun, youki.
    Oci,
    /// A network plugin.
    Cni,
    /// The kernel, for mounts.
    Mount,
    /// haled-monitor, for its start.
    Monitor,
}

/// Where what is measured goes. Called wherever something was measured: it must not wait.
type Listener = Box<dyn Fn(&Measured<'_>) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Hands everything that is measured from now on to `listener`. Once in a process: a second
/// one is not taken, and `false` says so.
pub fn listen(listener: impl Fn(&Measured<'_>) + Send + Sync + 'static) -> bool {
    LISTENER.set(Box::new(listener)).is_ok()
}

/// Puts a span below the one that a client has told of in headers, which are asked for by name.
type Adopt = Box<dyn Fn(&Span, &dyn Fn(&str) -> Option<String>) + Send + Sync>;

static ADOPT: OnceLock<Adopt> = OnceLock::new();

/// Has `adopt` put spans below those of clients. Once in a process, as [`listen`].
pub fn adopt_by(
    adopt: impl Fn(&Span, &dyn Fn(&str) -> Option<String>) + Send + Sync + 'static,
) -> bool {
    ADOPT.set(Box::new(adopt)).is_ok()
}

/// Puts a span that has not been entered yet below the client's own, if `headers` tell of one.
pub fn adopt<'a>(span: &Span, headers: &dyn Fn(&str) -> Option<&'a str>) {
    if let Some(adopt) = ADOPT.get() {
        adopt(span, &|name| headers(name).map(str::to_owned));
    }
}

/// Says that something was measured.
pub fn record(measured: &Measured<'_>) {
    if let Some(listener) = LISTENER.get() {
        listener(measured);
    }
}

/// Measures one piece of work, which is a span `subject name` (`runc delete`) below the current
/// one.
pub async fn timed<T, E: Display>(
    system: System,
    subject: &str,
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let began = Instant::now();
    let span = span(subject, name);
    let result = work.instrument(span.clone()).await;
    end(system, name, began, &span, result.as_ref().err());
    result
}

/// The same for work that blocks.
pub fn timed_blocking<T, E: Display>(
    system: System,
    subject: &str,
    name: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let began = Instant::now();
    let span = span(subject, name);
    let result = span.in_scope(work);
    end(system, name, began, &span, result.as_ref().err());
    result
}

fn end<E: Display>(
    system: System,
    name: &'static str,
    began: Instant,
    span: &Span,
    error: Option<&E>,
) {
    if let Some(error) = error {
        span.record("otel.status_code", "error");
        span.record("otel.status_description", field::display(error));
    }
    let (took, failed) = (began.elapsed(), error.is_some());
    record(&Measured::Operation { system, name, took, failed });
}

fn span(subject: &str, name: &str) -> Span {
    tracing::trace_span!(
        target: TARGET,
        "operation",
        otel.name = %format_args!("{subject} {name}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn work_is_measured_with_its_outcome_and_given_as_it_is() {
        static HEARD: Mutex<Vec<(System, &str, bool)>> = Mutex::new(Vec::new());
        let hear = |measured: &Measured<'_>| {
            if let Measured::Operation { system, name, failed, .. } = measured {
                HEARD.lock().unwrap().push((*system, name, *failed));
            }
        };
        assert!(listen(hear));
        assert!(!listen(hear), "only one listens");
        let good = timed(System::Oci, "runc", "test", async { Ok::<_, String>(5) }).await;
        assert_eq!(good, Ok(5));
        let bad = timed_blocking(System::Mount, "x", "test", || Err::<(), _>("no".to_owned()));
        assert_eq!(bad, Err("no".to_owned()));
        let heard = HEARD.lock().unwrap();
        let heard: Vec<_> = heard.iter().filter(|(_, name, _)| *name == "test").collect();
        assert_eq!(heard, [&(System::Oci, "test", false), &(System::Mount, "test", true)]);
    }
}
