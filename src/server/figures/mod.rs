//! The daemon's metrics: the one source for `/metrics` and `StreamMetrics`.
//!
//! Requests and streams are counted here as they begin and end; the log counts for itself and is
//! asked when a [`Snapshot`] is taken. Invariants: nothing here waits for the writer or opens a
//! segment; labels come from fixed sets (methods, routes, codes, kinds, reasons) and never from a
//! topic, a room or a client's words, but for the names of consumers, of which there are so many at most;
//! events cost one addition a chunk.

mod calls;
mod consumers;
mod exposition;
mod histogram;
mod history;
mod host;
mod rates;
mod snapshot;
mod streams;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub(super) use calls::{Calls, Expected, UnderWay, count};
pub(crate) use consumers::{ConsumerCount, Reported, WatchName};
pub(crate) use exposition::{Format, text};
use history::History;
pub(super) use rates::{Figure, Rates};
pub(super) use snapshot::Snapshot;
use streams::Streams;
pub(super) use streams::{OpenStream, ended_with};

use crate::server::peers::Peers;
use crate::server::served::Served;
use crate::server::{Certificates, Gauges, Options};
use tailmark_record::Seq;

/// How often the daemon looks at itself, so that whoever asks first gets rates at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// All that is counted, and who is asked for the rest.
pub(crate) struct Figures {
    /// Requests.
    pub(super) calls: Arc<Calls>,
    streams: Arc<Streams>,
    looks: Mutex<Looks>,
    sources: Sources,
    /// Lines of the program's log that nobody took, where the program counts them.
    dropped_log_lines: OnceLock<Arc<AtomicU64>>,
}

/// Who knows what is not counted here.
pub(super) struct Sources {
    pub(super) log: Served,
    /// Where several daemons share it.
    pub(super) peers: Option<Arc<dyn Peers>>,
    pub(super) gauges: Gauges,
    pub(super) options: Arc<Options>,
    pub(super) certificates: Option<Certificates>,
    /// Whether something keeps newer credentials from coming into force.
    pub(super) are_credentials_in_trouble: Arc<AtomicBool>,
    pub(super) started: Instant,
    /// What memory is held for, and who knows how much.
    pub(super) memory: Vec<(&'static str, Held)>,
}

/// How many bytes are held.
pub(super) type Held = Box<dyn Fn() -> usize + Send + Sync>;

/// The last two looks, and what there was before.
#[derive(Debug, Default)]
struct Looks {
    before: Option<Arc<Snapshot>>,
    last: Option<Arc<Snapshot>>,
    history: History,
}

impl Figures {
    pub(super) fn new(sources: Sources) -> Figures {
        Figures {
            calls: Arc::default(),
            streams: Arc::default(),
            looks: Mutex::default(),
            sources,
            dropped_log_lines: OnceLock::new(),
        }
    }

    /// Shows how many lines of the program's log nobody took, which somebody else counts.
    pub(super) fn show_dropped_log_lines(&self, count: Arc<AtomicU64>) {
        // Shown already: then that is the one.
        let _ = self.dropped_log_lines.set(count);
    }

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

    /// What is told of each consumer, with the head as it is.
    pub(super) fn consumers(&self, head: Seq) -> Vec<ConsumerCount> {
        let mut counts = self.streams.consumers.counts(head);
        let looks = self.looks.lock();
        if let (Some(last), Some(before)) = (&looks.last, &looks.before) {
            let rates = Rates::new(last, before);
            counts.iter_mut().for_each(|count| count.rate = rates.of_consumer(&count.name));
        }
        counts
    }

    /// The id under which the client of a watch may report, where it said that it will.
    pub(super) fn reported_as(&self, watch: &WatchName) -> Option<String> {
        self.streams.consumers.reported_as(watch)
    }

    /// So many events of the watch that goes by that id are done.
    pub(super) fn progress(&self, watch: &str, done: u64) -> Reported {
        self.streams.consumers.progress(watch, done)
    }

    /// What the rates of a first sample count from: a look at least [`LOOK_INTERVAL`] ago, but for
    /// the first second of a server's life.
    pub(super) fn base(&self) -> Option<Arc<Snapshot>> {
        let looks = self.looks.lock();
        looks.before.clone().or_else(|| looks.last.clone())
    }

    /// The last minutes, as JSON.
    pub(super) fn history(&self) -> Vec<u8> {
        self.looks.lock().history.json()
    }

    fn looked(&self, snapshot: Snapshot) {
        let mut looks = self.looks.lock();
        if let Some(last) = looks.last.clone() {
            looks.history.add(&Rates::new(&snapshot, &last));
        }
        looks.before = looks.last.replace(Arc::new(snapshot));
    }
}

/// Looks at intervals until the server stops.
pub(super) async fn look(figures: Arc<Figures>, stop: CancellationToken) {
    let mut due = tokio::time::interval(LOOK_INTERVAL);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = due.tick() => {}
        }
        if let Some(snapshot) = Snapshot::take(&figures).await {
            figures.looked(snapshot);
        }
    }
}
