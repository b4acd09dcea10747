//! Logs on standard error, as text or as JSON, and traces to a collector.

mod fields;
mod flood;
mod lines;
#[cfg(feature = "otlp")]
mod traces;

use std::backtrace::BacktraceStatus;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, reload};

use self::fields::{Shown, ShownJson};
use self::flood::{Calm, Flood, LeftOut};
use self::lines::{Lines, Upkeep};
use crate::escape;

/// What is logged and traced, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A level, or a filter: levels by target.
    pub log_level: String,
    /// How lines are written.
    pub log_format: Format,
    /// Where traces go, over gRPC; empty = nowhere.
    pub otlp_endpoint: String,
}

impl Default for Options {
    fn default() -> Self {
        let log_level = "info".to_owned();
        Options { log_level, log_format: Format::Text, otlp_endpoint: String::new() }
    }
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Reads a level or a filter.
///
/// # Errors
/// What is wrong with it.
pub fn filter(text: &str) -> Result<Targets, String> {
    // A name alone would pass for a target and silence everything else.
    let is_known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        !level.is_empty() && level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
    };
    match text.split(',').find(|part| !is_known(part)) {
        Some(part) => {
            Err(format!("`{part}` is no level; expected error, warn, info, debug, trace"))
        }
        None => text.parse::<Targets>().map_err(|error| format!("`{text}`: {error}")),
    }
}

/// Whether this program can send traces to a collector.
pub const HAS_OTLP: bool = cfg!(feature = "otlp");

/// The log and the traces of this process. To be finished when the program ends.
#[must_use]
pub struct Telemetry {
    lines: Lines,
    level: LogLevel,
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// What is logged, to be changed while the program runs.
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }

    /// Counts the lines that nobody took in time.
    pub fn dropped_lines(&self) -> Arc<AtomicU64> {
        self.lines.dropped()
    }

    /// Delivers what is left, a few seconds at most. Outside of the runtime, and last: whatever is logged
    /// later may be lost.
    pub fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(provider) = &self.provider {
            traces::finish(provider);
        }
    }
}

/// What is logged. Clones are the same.
#[derive(Clone)]
pub struct LogLevel(Arc<dyn Fn(Targets) -> Result<(), String> + Send + Sync>);

impl LogLevel {
    /// Logs by another level or filter from now on.
    ///
    /// # Errors
    /// When it cannot be read; then nothing changes.
    pub fn set(&self, text: &str) -> Result<(), String> {
        (self.0)(filter(text)?)
    }
}

/// Also when a panic ends the program.
impl Drop for Telemetry {
    fn drop(&mut self) {
        self.lines.flush(PATIENCE);
    }
}

/// For standard error to take the last lines. A reader that sleeps must not keep a program that ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// Begins to log on standard error, for the rest of the process, and to trace as `instance`. Within a
/// runtime. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read, or the collector's address, or there can be no thread.
pub fn init(options: &Options, instance: &str) -> Result<Telemetry, String> {
    let has_colour = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
    // Not by the handle that everybody shares: whoever waited in there would hold its lock.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let stderr = stderr.map_err(|error| format!("standard error: {error}"))?;
    let flood = Flood::default();
    let lines = Lines::start(File::from(stderr), Teller(flood.clone()))
        .map_err(|error| format!("the log: {error}"))?;
    let (filter, handle) = reload::Layer::new(filter(&options.log_level)?);
    let layer = logs(options.log_format, filter, lines.clone(), has_colour, flood);
    let registry = tracing_subscriber::registry().with(layer);
    let level = move |filter| handle.reload(filter).map_err(|error| error.to_string());
    let level = LogLevel(Arc::new(level));
    #[cfg(feature = "otlp")]
    let provider = match options.otlp_endpoint.as_str() {
        "" => None,
        endpoint => Some(traces::export(endpoint, instance)?),
    };
    // Refused only when another part of the process has set one up, which then stays.
    #[cfg(feature = "otlp")]
    let _ = registry.with(provider.as_ref().map(traces::layer)).try_init();
    #[cfg(not(feature = "otlp"))]
    let _ = (registry.try_init(), instance);
    log_panics(lines.clone());
    let _ = OF_PROCESS.set(lines.clone());
    Ok(Telemetry {
        lines,
        level,
        #[cfg(feature = "otlp")]
        provider,
    })
}

/// Where this process logs, for an end that drops nothing.
static OF_PROCESS: OnceLock<Lines> = OnceLock::new();

/// Lets standard error take the last lines, a second at most.
pub fn flush() {
    if let Some(lines) = OF_PROCESS.get() {
        lines.flush(PATIENCE);
    }
}

/// A panic is logged like everything else, and also where the level hides all else: as it comes it would be
/// written to standard error by the thread that panics, which has others to serve.
fn log_panics(lines: Lines) {
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("of a kind that has no words");
        let place = panic.location().map_or(String::new(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
        if !tracing::enabled!(Level::ERROR) {
            write_panic(&lines, message, &place, &thread);
            return;
        }
        let backtrace = std::backtrace::Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => {
                tracing::error!(panic = message, place, thread, %backtrace, "a thread panicked");
            }
            _ => tracing::error!(panic = message, place, thread, "a thread panicked"),
        }
    }));
}

/// Past the level, but by the same way as all lines: bounded, and never waited for.
fn write_panic(mut lines: impl Write, message: &str, place: &str, thread: &str) {
    let text = format!("a thread panicked: {message} place={place} thread={thread}");
    let line = format!("{}\n", escape::line(&text));
    // Whole, as a line is taken.
    let _ = lines.write_all(line.as_bytes());
}

/// Tells in the log what is missing there.
struct Teller(Flood);

impl Upkeep for Teller {
    fn dropped(&mut self, lines: u64) {
        tracing::warn!(lines, "lines of the log were dropped: standard error did not take them");
    }

    fn look(&mut self) {
        for LeftOut { lines, level, place } in self.0.sweep(Instant::now()) {
            if level == Level::INFO {
                tracing::info!(left_out = lines, place, "lines of this place were left out");
            } else {
                tracing::warn!(left_out = lines, place, "lines of this place were left out");
            }
        }
    }
}

/// Lines as they are configured.
fn logs<S, W, F>(
    format: Format,
    filter: F,
    writer: W,
    has_colour: bool,
    flood: Flood,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
    F: Filter<S> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(has_colour)
        // To standard error, by the thread that logs.
        .log_internal_errors(false);
    match format {
        Format::Text => {
            let lines = lines.fmt_fields(Shown);
            lines.map_event_format(|inner| Calm::new(inner, flood)).with_filter(filter).boxed()
        }
        Format::Json => {
            let lines = lines.json().flatten_event(true);
            let lines = lines.map_event_format(|json| Calm::new(ShownJson(json), flood));
            lines.with_filter(filter).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    // Not the ones of the program.
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

    fn written(options: &Options, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = filter(&options.log_level).unwrap();
        let writer = move || writer.clone();
        let logs = logs(options.log_format, filter, writer, false, Flood::default());
        let subscriber = tracing_subscriber::registry().with(logs);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_of_json_has_its_own_fields_and_those_of_its_span() {
        let options = Options { log_format: Format::Json, ..Options::default() };
        let text = written(&options, || {
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
            let text = written(&Options::default(), work);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end().contains([odd, '\u{fe0f}']), "{text:?}");
            assert_eq!(text.matches("\\u{fe0f}").count(), 5, "{text:?}");
            let options = Options { log_format: Format::Json, ..Options::default() };
            let json = written(&options, work);
            assert!(!json.trim_end().contains([odd, '\u{fe0f}']), "{json:?}");
            let line: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!([&line["topic"], &line["span"]["peer"]], [&value, &value]);
        }
    }

    #[test]
    fn a_field_reads_as_before() {
        let text = written(&Options::default(), || {
            let span = tracing::info_span!("room", start = 7, cursor = tracing::field::Empty);
            span.record("cursor", "t1");
            tracing::info!(parent: &span, events = 3, r#type = "x y", "room ended");
        });
        assert!(text.ends_with("room ended events=3 type=\"x y\"\n"), "{text}");
        assert!(text.contains(" room{start=7 cursor=\"t1\"}: "), "{text}");
    }

    #[test]
    fn what_comes_again_and_again_does_not_fill_the_log_and_other_places_are_all_there() {
        let text = written(&Options::default(), || {
            for n in 0..500 {
                tracing::error!(n, "cannot write");
                tracing::info!(n, "a stream ended");
                if n % 10 == 0 {
                    tracing::info!(n, "all is well");
                }
            }
        });
        assert_eq!(text.matches("cannot write").count() as u64, flood::LINES);
        assert_eq!(text.matches("a stream ended").count() as u64, flood::INFO_LINES);
        assert_eq!(text.matches("all is well").count(), 50);
    }

    #[test]
    fn a_level_changes_while_lines_are_written() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (filter, handle) = reload::Layer::new(filter("warn").unwrap());
        let writer = move || writer.clone();
        let logs = logs(Format::Text, filter, writer, false, Flood::default());
        let subscriber = tracing_subscriber::registry().with(logs);
        tracing::subscriber::with_default(subscriber, || {
            let speak = |n: u64| {
                tracing::debug!(n, "quiet");
                tracing::info!(n, "plain");
            };
            speak(1);
            handle.reload(super::filter("info").unwrap()).unwrap();
            speak(2);
            handle.reload(super::filter("debug").unwrap()).unwrap();
            speak(3);
            handle.reload(super::filter("off").unwrap()).unwrap();
            speak(4);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let said: Vec<_> = text.lines().map(|line| line.split(": ").last().unwrap()).collect();
        assert_eq!(said, ["plain n=2", "quiet n=3", "plain n=3"]);
    }

    #[test]
    fn a_panic_past_the_level_is_one_line() {
        let mut out = Vec::new();
        write_panic(&mut out, "one\ntwo\u{1b}[2J", "a.rs:1:2", "worker");
        let line = String::from_utf8(out).unwrap();
        assert!(line.starts_with("a thread panicked: one") && line.ends_with("thread=worker\n"));
        assert!(line.matches('\n').count() == 1 && !line.contains('\u{1b}'), "{line:?}");
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
