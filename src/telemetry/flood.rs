//! Keeps a log readable while something fails again and again: of warnings and errors, a few lines
//! a place in the code and a time, then how many were left out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines of one place that pass in one window.
pub(super) const LINES: u64 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// A format that leaves out warnings and errors of one place when there are too many of them. It
/// writes nothing for them: a filter that refused single events would disturb those of others.
#[derive(Debug)]
pub(super) struct Calm<F> {
    inner: F,
    flood: Flood,
}

/// How many lines came from where.
#[derive(Debug, Default)]
struct Flood(Mutex<HashMap<Identifier, Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u64,
}

impl Flood {
    /// Whether a line passes, and how many before it did not.
    fn admit(&self, place: Identifier, now: Instant) -> (bool, u64) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match windows.entry(place) {
            Entry::Vacant(none) => {
                none.insert(Window { began: now, lines: 1 });
                (true, 0)
            }
            Entry::Occupied(mut entry) => {
                let window = entry.get_mut();
                if now.saturating_duration_since(window.began) >= WINDOW {
                    let left_out = window.lines.saturating_sub(LINES);
                    *window = Window { began: now, lines: 1 };
                    return (true, left_out);
                }
                window.lines += 1;
                (window.lines <= LINES, 0)
            }
        }
    }
}

impl<F> Calm<F> {
    pub(super) fn new(inner: F) -> Self {
        Calm { inner, flood: Flood::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Calm<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'fields> FormatFields<'fields> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() <= Level::WARN {
            let (passes, left_out) = self.flood.admit(metadata.callsite(), Instant::now());
            if left_out > 0 {
                let place = metadata.target().to_owned();
                // Not from within a line that is being written; at most once a place and window.
                std::thread::spawn(move || {
                    tracing::warn!(left_out, place, "lines like the last were left out");
                });
            }
            if !passes {
                return Ok(());
            }
        }
        self.inner.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let flood = Flood::default();
        let subscriber = tracing_subscriber::registry();
        let span = tracing::subscriber::with_default(subscriber, || tracing::info_span!("any"));
        let place = span.metadata().unwrap().callsite();
        let now = Instant::now();
        let passed = (0..1_000).filter(|_| flood.admit(place.clone(), now).0).count();
        assert_eq!(passed as u64, LINES);
        assert_eq!(flood.admit(place.clone(), now + WINDOW), (true, 1_000 - LINES));
        assert_eq!(flood.admit(place.clone(), now + WINDOW), (true, 0));
        assert_eq!(flood.admit(place, now + 2 * WINDOW), (true, 0));
    }
}
