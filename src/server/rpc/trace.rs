//! Distributed tracing: adopts the parent that a client names (W3C `traceparent`), and records what
//! is known only at the end. Without the feature `otlp` there is no parent to adopt.

/// Lets `span` go on the trace that the request belongs to, if it names one.
#[cfg(not(feature = "otlp"))]
pub(crate) fn adopt(_span: &tracing::Span, _metadata: &tonic::metadata::MetadataMap) {}

/// Tells what became of a stream, in the fields that its span has for it.
pub(crate) fn finish(span: &tracing::Span, events: u64, reason: &'static str) {
    // Signed, for traces have no other numbers.
    span.record("events", i64::try_from(events).unwrap_or(i64::MAX));
    span.record("reason", reason);
}

#[cfg(feature = "otlp")]
pub(crate) use with_otlp::adopt;

#[cfg(feature = "otlp")]
mod with_otlp {
    use opentelemetry::propagation::{Extractor, TextMapPropagator};
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tonic::metadata::{KeyRef, MetadataMap};
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    struct Metadata<'a>(&'a MetadataMap);

    impl Extractor for Metadata<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }

        fn keys(&self) -> Vec<&str> {
            let name = |key| match key {
                KeyRef::Ascii(key) => Some(key.as_str()),
                KeyRef::Binary(_) => None,
            };
            self.0.keys().filter_map(name).collect()
        }
    }

    /// Lets `span` go on the trace that the request belongs to, if it names one.
    pub(crate) fn adopt(span: &Span, metadata: &MetadataMap) {
        if metadata.contains_key("traceparent") {
            let context = TraceContextPropagator::new().extract(&Metadata(metadata));
            // Fails where nobody collects traces.
            let _ = span.set_parent(context);
        }
    }
}
