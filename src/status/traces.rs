//! Traces of calls for a collector, by OTLP.
//!
//! The spans are those of `meter`, whichever room they are made in; only here they become
//! OpenTelemetry's. Without a collector nothing of this is started.

use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::meter;

/// How long one delivery to the collector may take; what can't be delivered is dropped.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);
/// How long the end of the daemon waits for the last delivery.
const LAST_LIMIT: Duration = Duration::from_secs(2);

/// The traces of this process; see [`Traces::end`].
pub struct Traces(SdkTracerProvider);

/// Begins to send traces to a collector at `endpoint` (`http://HOST:PORT`), of `percent` in a
/// hundred calls whose client says nothing. Within a tokio runtime. Gives a layer for the
/// subscriber as well.
pub fn begin<S>(
    endpoint: &str,
    percent: usize,
    node: &str,
) -> Result<(Traces, impl Layer<S> + Send + Sync + use<S>), String>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_LIMIT)
        .build()
        .map_err(|error| format!("cannot send traces to {endpoint}: {error}"))?;
    let resource = Resource::builder_empty()
        .with_service_name("haled")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", node.to_owned()),
        ])
        .build();
    let ratio = Sampler::TraceIdRatioBased(percent as f64 / 100.0);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_resource(resource)
        .build();
    let propagator = TraceContextPropagator::new();
    meter::adopt_by(move |span, headers| {
        let headers =
            Headers { traceparent: headers("traceparent"), tracestate: headers("tracestate") };
        let parent = propagator.extract_with_context(&Context::new(), &headers);
        // A span that nobody takes has no parent either.
        drop(span.set_parent(parent));
    });
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("haled"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(meter::TARGET, LevelFilter::TRACE));
    Ok((Traces(provider), layer))
}

impl Traces {
    /// Delivers what is left. Blocks.
    pub fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_LIMIT) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// A call's headers, as far as they tell of a trace.
struct Headers {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent.as_deref(),
            "tracestate" => self.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}
