//! What this daemon measures of itself: the one place for `/metrics` and `StreamMetrics`.
//!
//! Requests and streams are counted here as they come and end; the log counts itself, and is asked
//! when somebody looks ([`Snapshot`]). Invariants: nothing here waits for the writer or opens a
//! segment; labels come from sets that this program fixes (methods, routes, codes, kinds, reasons)
//! and never from a topic, a room or a client's words; events cost one addition a chunk.

mod calls;
mod exposition;
mod histogram;
mod host;
mod rates;
mod snapshot;
mod streams;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(super) use calls::{Calls, count};
pub(crate) use exposition::{Format, text};
pub(super) use rates::{Figure, Rates};
pub(super) use snapshot::Snapshot;
use streams::Streams;
pub(super) use streams::{OpenStream, ended_with};

use crate::server::Shared;
use tailmark_record::Seq;

/// How often the daemon looks at itself, so that whoever asks first gets rates at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// All that is counted.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Requests.
    pub(super) calls: Arc<Calls>,
    streams: Arc<Streams>,
    looks: Mutex<Looks>,
}

/// The last two looks.
#[derive(Debug, Default)]
struct Looks {
    before: Option<Arc<Snapshot>>,
    last: Option<Arc<Snapshot>>,
}

impl Figures {
    /// Counts a stream from here to its end. `kind` is one of a few words of this program. One
    /// that begins to read the log at once tells where, so that its lag is known.
    pub(super) fn open(
        &self,
        kind: &'static str,
        next: Option<Seq>,
        span: &tracing::Span,
    ) -> OpenStream {
        Streams::open(&self.streams, kind, next, span.clone())
    }

    /// What the rates of a first sample count from: a look at least [`LOOK_INTERVAL`] ago, but for
    /// the first second of a server's life.
    pub(super) fn base(&self) -> Option<Arc<Snapshot>> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.before.clone().or_else(|| looks.last.clone())
    }

    fn looked(&self, snapshot: Snapshot) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.before = looks.last.replace(Arc::new(snapshot));
    }
}

/// Looks at intervals until the server stops.
pub(super) async fn look(shared: Arc<Shared>) {
    let mut due = tokio::time::interval(LOOK_INTERVAL);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = due.tick() => {}
        }
        if let Some(snapshot) = Snapshot::take(&shared).await {
            shared.figures.looked(snapshot);
        }
    }
}
