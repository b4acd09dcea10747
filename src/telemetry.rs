//! Logs on standard error, as text or as JSON, and traces to a collector.

mod fields;
mod flood;
#[cfg(feature = "otlp")]
mod traces;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::fields::{Shown, ShownJson};
use self::flood::Calm;

use crate::config::{LogFormat, Telemetry};

/// Reads a level or a filter.
///
/// # Errors
/// What is wrong with it.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    // A name alone would pass for a target and silence everything else.
    let is_known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        !level.is_empty() && level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
    };
    match text.split(',').find(|part| !is_known(part)) {
        Some(part) => {
            Err(format!("`{part}` is no level; expected error, warn, info, debug, trace"))
        }
        None => EnvFilter::try_new(text).map_err(|error| format!("`{text}`: {error}")),
    }
}

/// Whether this program can send traces to a collector.
pub const HAS_OTLP: bool = cfg!(feature = "otlp");

/// Keeps traces going to their collector. To be finished when the program ends.
#[derive(Debug, Default)]
#[must_use]
pub struct Traces {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Traces {
    /// Delivers what is left. Blocks, a few seconds at most; outside of the runtime.
    pub fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(provider) = &self.provider {
            traces::finish(provider);
        }
    }
}

/// Begins to log, for the rest of the process, and to trace as `instance`. Within a runtime. A
/// second call changes nothing.
///
/// # Errors
/// When the filter cannot be read, or the collector's address.
pub fn init(settings: &Telemetry, instance: &str) -> Result<Traces, String> {
    let has_colour = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
    let registry =
        tracing_subscriber::registry().with(logs(settings, std::io::stderr, has_colour)?);
    #[cfg(feature = "otlp")]
    if !settings.otlp_endpoint.is_empty() {
        let provider = traces::export(&settings.otlp_endpoint, instance)?;
        let _ = registry.with(traces::layer(&provider)).try_init();
        return Ok(Traces { provider: Some(provider) });
    }
    let _ = instance;
    // Refused only when another part of the process has set one up, which then stays.
    let _ = registry.try_init();
    Ok(Traces::default())
}

/// Lines as they are configured.
fn logs<S, W>(
    settings: &Telemetry,
    writer: W,
    has_colour: bool,
) -> Result<Box<dyn Layer<S> + Send + Sync>, String>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = filter(&settings.log_level)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(has_colour);
    Ok(match settings.log_format {
        LogFormat::Text => {
            let lines = lines.fmt_fields(Shown);
            lines.map_event_format(Calm::new).with_filter(filter).boxed()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            let lines = lines.map_event_format(|json| Calm::new(ShownJson(json)));
            lines.with_filter(filter).boxed()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(settings: &Telemetry, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let logs = logs(settings, move || writer.clone(), false).unwrap();
        let subscriber = tracing_subscriber::registry().with(logs);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_of_json_has_its_own_fields_and_those_of_its_span() {
        let settings = Telemetry { log_format: LogFormat::Json, ..Telemetry::default() };
        let text = written(&settings, || {
            let span = tracing::info_span!("watch", patterns = "a \"b\" \u{1b}[2J\n", start = 7);
            tracing::info!(parent: &span, events = 3, reason = "limit", "watch ended");
            tracing::debug!("not at this level");
        });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [line] = &lines[..] else { panic!("{text}") };
        assert_eq!((&line["message"], &line["level"]), (&"watch ended".into(), &"INFO".into()));
        assert_eq!((&line["events"], &line["reason"]), (&3.into(), &"limit".into()));
        assert_eq!(line["span"]["name"], "watch");
        assert_eq!(line["span"]["patterns"], "a \"b\" \u{1b}[2J\n");
        assert_eq!(line["span"]["start"], 7);
        assert!(line["timestamp"].is_string() && line["target"].is_string());
    }

    #[test]
    fn what_a_client_chose_neither_ends_a_line_nor_hides_in_it() {
        let odd = ['\n', '\r', '\u{1b}', '\u{9b}', '\u{202e}', '\u{200b}', '\u{3164}', '\u{2028}'];
        for odd in odd {
            let value = format!("a{odd}b\u{fe0f}");
            let work = || {
                let span = tracing::info_span!("watch", patterns = value, peer = %value);
                tracing::info!(parent: &span, key = %value, topic = value, "ended for {value}");
            };
            let text = written(&Telemetry::default(), work);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end().contains([odd, '\u{fe0f}']), "{text:?}");
            assert_eq!(text.matches("\\u{fe0f}").count(), 5, "{text:?}");
            let settings = Telemetry { log_format: LogFormat::Json, ..Telemetry::default() };
            let json = written(&settings, work);
            assert!(!json.trim_end().contains([odd, '\u{fe0f}']), "{json:?}");
            let line: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!([&line["topic"], &line["span"]["peer"]], [&value, &value]);
        }
    }

    #[test]
    fn a_field_reads_as_before() {
        let text = written(&Telemetry::default(), || {
            let span = tracing::info_span!("room", start = 7, cursor = tracing::field::Empty);
            span.record("cursor", "t1");
            tracing::info!(parent: &span, events = 3, r#type = "x y", "room ended");
        });
        assert!(text.ends_with("room ended events=3 type=\"x y\"\n"), "{text}");
        assert!(text.contains(" room{start=7 cursor=\"t1\"}: "), "{text}");
    }

    #[test]
    fn a_hot_error_does_not_fill_the_log_and_news_are_all_there() {
        let text = written(&Telemetry::default(), || {
            for n in 0..500 {
                tracing::error!(n, "cannot write");
                tracing::info!(n, "all is well");
            }
        });
        assert_eq!(text.matches("cannot write").count() as u64, flood::LINES);
        assert_eq!(text.matches("all is well").count(), 500);
    }

    #[test]
    fn levels_and_filters_are_told_from_typing_errors() {
        for good in ["info", "WARN", "off", "info,tailmark_log::storage=debug", "tailmark=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,tailmark_log::storage", "tailmark=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
