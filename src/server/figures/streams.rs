//! Stream counters: how many are open, what they deliver, how far behind they are, why they end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Code;

use super::consumers::{Consumers, Member, WatchName};
use super::histogram::{Buckets, Histogram};
use crate::server::rpc::trace;
use tailmark_log::eventlog::Progress;
use tailmark_record::Seq;

/// From a tenth of a second to a day, in microseconds.
const BOUNDS: [u64; 9] = [
    100_000,
    1_000_000,
    10_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    7_200_000_000,
    28_800_000_000,
    86_400_000_000,
];

/// Why a stream ended, where nothing but its status tells.
pub(crate) fn ended_with(code: Code) -> &'static str {
    match code {
        Code::Ok => "done",
        Code::Cancelled => "client gone",
        Code::DeadlineExceeded => "deadline",
        Code::Unavailable => "stopping",
        Code::Internal | Code::Unknown | Code::DataLoss => "failed",
        _ => "refused",
    }
}

/// Why a stream ended that did not say why.
const DROPPED: &str = "client gone";

#[derive(Debug, Default)]
pub(super) struct Streams {
    kinds: Mutex<BTreeMap<&'static str, Arc<KindCounters>>>,
    positions: Mutex<Positions>,
    pub(super) consumers: Consumers,
}

/// The next seq of each stream that reads the log.
#[derive(Debug, Default)]
struct Positions {
    last_id: u64,
    open: HashMap<u64, Arc<Position>>,
}

#[derive(Debug)]
pub(super) struct Position {
    next: AtomicU64,
    /// Of its reader, which may sleep.
    progress: Mutex<Option<Arc<Progress>>>,
}

impl Position {
    pub(super) fn new(next: Seq) -> Position {
        Position { next: AtomicU64::new(next.get()), progress: Mutex::default() }
    }

    /// What comes after all that it has sent.
    pub(super) fn next(&self) -> Seq {
        Seq::new(self.next.load(Ordering::Relaxed))
    }

    /// What it had not looked at yet when it ended; a reader that sleeps has looked at all that it was not
    /// woken for.
    pub(super) fn left_at(&self) -> Seq {
        let next = self.next();
        match &*self.progress.lock() {
            Some(progress) if next >= progress.next() => {
                progress.quiet_upto().map_or(next, |quiet| next.max(quiet.next()))
            }
            _ => next,
        }
    }

    /// The first seq that it may have to do with; `None` where that is nothing.
    pub(super) fn waits_for(&self) -> Option<Seq> {
        let next = self.next();
        match &*self.progress.lock() {
            // What it has read and not sent yet comes first.
            Some(progress) if next >= progress.next() => {
                progress.waits_for().map(|it| it.max(next))
            }
            _ => Some(next),
        }
    }
}

#[derive(Debug)]
struct KindCounters {
    open: AtomicU64,
    delivered: AtomicU64,
    seconds: Histogram,
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

/// What one kind of stream has counted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KindCount {
    pub(super) kind: &'static str,
    pub(super) open: u64,
    pub(super) delivered: u64,
    pub(super) seconds: Buckets,
    pub(super) ended: Vec<(&'static str, u64)>,
}

/// A stream that is open. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct OpenStream {
    streams: Arc<Streams>,
    kind: Arc<KindCounters>,
    began: Instant,
    delivered: u64,
    /// Events that it stored.
    taken: u64,
    position: Option<(u64, Arc<Position>)>,
    /// Where it said what it is called.
    member: Option<Member>,
    reason: &'static str,
    span: tracing::Span,
}

impl OpenStream {
    /// How far it is: all events delivered so far, and the next seq that it looks at. Once a chunk,
    /// not once an event. From the first time on it has a place, and so a lag.
    pub(crate) fn reached(&mut self, delivered: u64, next: Seq) {
        let more = delivered.saturating_sub(self.delivered);
        if more > 0 {
            self.delivered = delivered;
            self.kind.delivered.fetch_add(more, Ordering::Relaxed);
            if let Some(member) = &self.member {
                member.handed(more);
            }
        }
        match &self.position {
            Some((_, position)) => position.next.store(next.get(), Ordering::Relaxed),
            None => self.position = Some(self.streams.positions.lock().add(next)),
        }
    }

    /// It has a place by its reader too, which may sleep through what does not concern it.
    pub(crate) fn follow(&mut self, progress: Option<Arc<Progress>>) {
        if let Some((_, position)) = &self.position {
            *position.progress.lock() = progress;
        }
    }

    /// It is one of the watches of that name. One without a place is not.
    pub(crate) fn is_called(&mut self, name: &WatchName) {
        if let Some((_, position)) = &self.position {
            self.member = Some(self.streams.consumers.join(name, Arc::clone(position)));
        }
    }

    /// Events that came over it so far, where it is one that brings them.
    pub(crate) fn took(&mut self, events: u64) {
        self.taken = events;
    }

    /// Why it ends, in one of a few words of this program.
    pub(crate) fn ends(&mut self, reason: &'static str) {
        self.reason = reason;
        if let Some(member) = &mut self.member {
            member.ends();
        }
    }

    /// Why it ends, as far as is known.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }

    /// How long it has been open.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some((id, _)) = &self.position {
            self.streams.positions.lock().open.remove(id);
        }
        self.kind.seconds.observe(self.age());
        *self.kind.ended.lock().entry(self.reason).or_default() += 1;
        self.kind.open.fetch_sub(1, Ordering::Relaxed);
        trace::finish(&self.span, self.delivered + self.taken, self.reason);
    }
}

impl Positions {
    fn add(&mut self, next: Seq) -> (u64, Arc<Position>) {
        let position = Arc::new(Position::new(next));
        self.last_id += 1;
        self.open.insert(self.last_id, Arc::clone(&position));
        (self.last_id, position)
    }
}

impl Streams {
    pub(super) fn open(
        streams: &Arc<Streams>,
        kind: &'static str,
        next: Option<Seq>,
        span: tracing::Span,
    ) -> OpenStream {
        let kind = Arc::clone(
            streams.kinds.lock().entry(kind).or_insert_with(|| Arc::new(KindCounters::new())),
        );
        kind.open.fetch_add(1, Ordering::Relaxed);
        let position = next.map(|next| streams.positions.lock().add(next));
        OpenStream {
            streams: Arc::clone(streams),
            kind,
            began: Instant::now(),
            delivered: 0,
            taken: 0,
            position,
            member: None,
            reason: DROPPED,
            span,
        }
    }

    pub(super) fn counts(&self) -> Vec<KindCount> {
        let kinds = self.kinds.lock();
        let count = |(name, kind): (&&'static str, &Arc<KindCounters>)| KindCount {
            kind: name,
            open: kind.open.load(Ordering::Relaxed),
            delivered: kind.delivered.load(Ordering::Relaxed),
            seconds: kind.seconds.buckets(),
            ended: kind.ended.lock().iter().map(|(reason, count)| (*reason, *count)).collect(),
        };
        kinds.iter().map(count).collect()
    }

    /// The next seq of the one that is farthest behind, if any has something to come.
    pub(super) fn slowest(&self) -> Option<Seq> {
        let positions = self.positions.lock();
        positions.open.values().filter_map(|position| position.waits_for()).min()
    }
}

impl KindCounters {
    fn new() -> Self {
        KindCounters {
            open: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            seconds: Histogram::new(&BOUNDS),
            ended: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_counted_while_it_is_open_and_when_it_ends() {
        let streams = Arc::new(Streams::default());
        let span = tracing::Span::none();
        let mut fast = Streams::open(&streams, "watch", Some(Seq::new(5)), span.clone());
        let slow = Streams::open(&streams, "watch", Some(Seq::new(3)), span.clone());
        let unplaced = Streams::open(&streams, "upload", None, span);
        fast.reached(4, Seq::new(9));
        fast.reached(6, Seq::new(11));
        assert_eq!(streams.slowest(), Some(Seq::new(3)));
        drop(slow);
        assert_eq!(streams.slowest(), Some(Seq::new(11)));
        fast.ends("limit");
        drop((fast, unplaced));
        assert_eq!(streams.slowest(), None);
        let counts = streams.counts();
        assert_eq!((counts[0].kind, counts[0].open, counts[0].delivered), ("upload", 0, 0));
        assert_eq!((counts[1].kind, counts[1].open, counts[1].delivered), ("watch", 0, 6));
        assert_eq!(counts[1].ended, [("client gone", 1), ("limit", 1)]);
        assert_eq!(counts[1].seconds.count(), 2);
    }
}
