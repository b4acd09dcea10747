//! Keeps a log readable while something happens again and again: of each place in the code a few lines a
//! time, then how many were left out.
//!
//! A warning that repeats itself says no more than the first few did. A line at the end of each stream is
//! worth more, and comes as often as clients like: those have more room, and a bound all the same. Lines for
//! who debugs are asked for, and not counted here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Warnings and errors of one place that pass in one window.
pub(super) const LINES: u64 = 10;
/// Of what is no trouble.
pub(super) const INFO_LINES: u64 = 100;
const WINDOW: Duration = Duration::from_secs(10);

/// A format that leaves out lines of one place when there are too many of them. It writes nothing for
/// them: a filter that refused single events would disturb those of others.
#[derive(Debug)]
pub(super) struct Calm<F> {
    inner: F,
    flood: Flood,
}

/// How many lines came from where. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Flood(Arc<Mutex<HashMap<Identifier, Window>>>);

#[derive(Debug)]
struct Window {
    place: &'static Metadata<'static>,
    began: Instant,
    lines: u64,
    /// Of windows before, and not told yet.
    left_out: u64,
}

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub lines: u64,
    pub level: Level,
    /// Module of the place, and where in it.
    pub place: String,
}

fn most(level: Level) -> Option<u64> {
    match level {
        Level::ERROR | Level::WARN => Some(LINES),
        Level::INFO => Some(INFO_LINES),
        _ => None,
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= WINDOW
    }

    /// Ends the window.
    fn settle(&mut self, most: u64) {
        self.left_out += self.lines.saturating_sub(most);
        self.lines = 0;
    }
}

impl Flood {
    /// Whether a line passes.
    fn admit(&self, place: &'static Metadata<'static>, now: Instant) -> bool {
        let Some(most) = most(*place.level()) else { return true };
        let mut windows = self.0.lock();
        let new = || Window { place, began: now, lines: 0, left_out: 0 };
        let window = windows.entry(place.callsite()).or_insert_with(new);
        if window.is_over(now) {
            window.settle(most);
            window.began = now;
        }
        window.lines += 1;
        window.lines <= most
    }

    /// What was left out in windows that are over, once. Needs no further line of those places.
    pub(super) fn sweep(&self, now: Instant) -> Vec<LeftOut> {
        let mut told = Vec::new();
        self.0.lock().retain(|_, window| {
            if !window.is_over(now) && window.left_out == 0 {
                return true;
            }
            if window.is_over(now) {
                window.settle(most(*window.place.level()).unwrap_or(u64::MAX));
            }
            if window.left_out > 0 {
                let place = window.place;
                let line = place.line().map_or(String::new(), |line| format!(":{line}"));
                told.push(LeftOut {
                    lines: std::mem::take(&mut window.left_out),
                    level: *place.level(),
                    place: format!("{}{line}", place.target()),
                });
            }
            !window.is_over(now)
        });
        told
    }
}

impl<F> Calm<F> {
    pub(super) fn new(inner: F, flood: Flood) -> Self {
        Calm { inner, flood }
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
        if !self.flood.admit(event.metadata(), Instant::now()) {
            return Ok(());
        }
        self.inner.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place in the code.
    macro_rules! place {
        ($level:ident) => {{
            let subscriber = tracing_subscriber::registry();
            let span = || tracing::span!(Level::$level, "any");
            tracing::subscriber::with_default(subscriber, span).metadata().unwrap()
        }};
    }

    #[test]
    fn a_flood_is_cut_and_counted_whatever_its_level() {
        for (place, most) in
            [(place!(ERROR), LINES), (place!(WARN), LINES), (place!(INFO), INFO_LINES)]
        {
            let flood = Flood::default();
            let now = Instant::now();
            let passed = (0..1_000).filter(|_| flood.admit(place, now)).count();
            assert_eq!(passed as u64, most);
            assert_eq!(flood.sweep(now), []);
            // Told when the window is over, though no other line comes, and once.
            let told = flood.sweep(now + WINDOW);
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].lines, told[0].level), (1_000 - most, *place.level()));
            assert_eq!(flood.sweep(now + WINDOW), []);
        }
    }

    #[test]
    fn what_was_left_out_before_a_new_window_is_told_in_it() {
        let (flood, place, now) = (Flood::default(), place!(WARN), Instant::now());
        for _ in 0..15 {
            flood.admit(place, now);
        }
        assert!(flood.admit(place, now + WINDOW));
        assert_eq!(flood.sweep(now + WINDOW)[0].lines, 5);
        assert_eq!(flood.sweep(now + 2 * WINDOW), []);
    }

    #[test]
    fn who_debugs_gets_every_line() {
        let (flood, now) = (Flood::default(), Instant::now());
        for place in [place!(DEBUG), place!(TRACE)] {
            assert!((0..1_000).all(|_| flood.admit(place, now)));
        }
    }
}
