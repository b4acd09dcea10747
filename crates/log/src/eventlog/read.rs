//! Reading: from memory if it is there, else from the engine on a reader thread.
//!
//! Owns what is asked of the engine, and the check of what it answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use super::ReadError;
use super::error::{damage, damaged};
use super::fair_queue::Lane;
use super::hot::Hit;
use super::read_path::ReadPath;
use super::reader_pool::Asker;
use super::recent::Run;
use super::stretch::{Part, Stretch};
use crate::storage::{Chunk, Store, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, EventError, Events, Seq, Start, Timestamp};

/// Most runs that are gone, and events between two of them, read at once behind one.
const MOST_PARTS: usize = 64;
/// Most bytes of events.
const MOST_BYTES: usize = 8 << 10;
/// So many neighbours are read in the usual way.
const MOST_EVENTS: u64 = 64;

/// A read of no more events than that is a point.
const POINT_EVENTS: u64 = 1 << 10;

impl ReadPath {
    /// A chunk that begins exactly at `from` and ends at or below `end`, and whether that is among the
    /// newest commits, which memory holds, wherever it was read. `from <= head`. Where that fails because events are gone,
    /// what lies behind them may be in `ahead`.
    pub(crate) async fn read(
        &self,
        asker: &mut Asker,
        ahead: &mut Option<Box<Stretch>>,
        from: Seq,
        end: Seq,
        filter: &Arc<Filter>,
        at_most: Option<usize>,
    ) -> Result<(Chunk, bool), ReadError> {
        // Without a filter a hit tells.
        let is_recent = !filter.is_all() && self.hot.recent.holds(from);
        let hit = self.hot.read(filter, from, end, at_most.is_some());
        // What is trimmed is gone, wherever a copy may be left.
        let oldest = self.published.borrow().oldest;
        if from < oldest {
            return Err(ReadError::Trimmed { from, oldest });
        }
        let malformed = |error: EventError| damaged(from, end, error.what());
        if let Some(hit) = hit.map_err(malformed)? {
            self.metrics.reads_recent.fetch_add(1, Ordering::Relaxed);
            let chunk = match hit {
                Hit::Chunk(chunk) => chunk,
                Hit::Run(run) => {
                    let question = find(run, from, end, filter, at_most.is_some());
                    self.pool.ask(asker, lane(from, end), from, question).await?
                }
            };
            let chunk = filtered(chunk, filter, at_most).map_err(malformed)?;
            check(&chunk, from, end)?;
            return Ok((chunk, is_recent || filter.is_all()));
        }
        let erasures = self.hot.erasures();
        // Only who hears of each run reads them all.
        let behind = (filter.is_all() && at_most.is_none()).then(Behind::default);
        let chunk = loop {
            let question = going_on(question(from, end, filter, at_most), end, behind.clone());
            match self.pool.ask_chunk(asker, lane(from, end), from, question).await {
                Ok(Some(chunk)) => break chunk,
                Ok(None) => {}
                Err(error) => {
                    if let Some(behind) = behind {
                        let behind = std::mem::take(&mut *behind.lock());
                        *ahead =
                            (!behind.is_empty()).then(|| Box::new(Stretch::new(behind, erasures)));
                    }
                    return Err(error);
                }
            }
        };
        self.metrics.reads_stored.fetch_add(1, Ordering::Relaxed);
        check(&chunk, from, end)?;
        self.hot.keep(filter, &chunk, erasures);
        Ok((chunk, is_recent))
    }

    /// One event, encoded; `None` beyond the head.
    pub(crate) async fn event(&self, seq: Seq) -> Result<Option<Bytes>, ReadError> {
        let head = self.published.borrow().head;
        if seq == Seq::ZERO || seq > head {
            return Ok(None);
        }
        let all = Arc::new(Filter::ALL);
        let (chunk, _) =
            self.read(&mut Asker::default(), &mut None, seq, seq.next(), &all, None).await?;
        let mut events = Events::new(&chunk.events);
        match (chunk.first == seq, events.next()) {
            (true, Some(Ok(event))) => Ok(Some(chunk.events.slice_ref(event))),
            _ => Err(damage(seq, seq.next(), "the event is missing").into()),
        }
    }

    /// When a readable event was appended.
    pub(crate) async fn time_of(&self, seq: Seq) -> Result<Timestamp, ReadError> {
        let recent = self.hot.recent.time_of(seq);
        let oldest = self.published.borrow().oldest;
        match recent {
            _ if seq < oldest => Err(ReadError::Trimmed { from: seq, oldest }),
            Some(time) => Ok(time),
            None => {
                let asker = &mut Asker::default();
                self.pool.ask(asker, Lane::Point, seq, move |store| store.time_of(seq)).await
            }
        }
    }

    /// The seq a reader from `start` begins with. `has_gaps` tells whether counting seqs is not counting events.
    pub(crate) async fn start(
        &self,
        start: Start,
        filter: &Filter,
        has_gaps: impl FnOnce() -> bool,
    ) -> Result<Seq, ReadError> {
        let now = *self.published.borrow();
        match start {
            Start::Oldest => Ok(now.oldest),
            Start::Latest => Ok(now.head.next()),
            Start::Seq(seq) => {
                let from = seq.max(Seq::FIRST);
                if from < now.oldest {
                    return Err(ReadError::Trimmed { from, oldest: now.oldest });
                }
                Ok(from)
            }
            Start::Time(time) => self.seek_time(time).await,
            Start::Last(0) => Ok(now.head.next()),
            Start::Last(count) if filter.is_all() && !has_gaps() => {
                let end = now.head.next().get();
                Ok(Seq::new(end.saturating_sub(count)).max(now.oldest))
            }
            Start::Last(count) => {
                self.last_matching(count, now.oldest, now.head, Arc::new(filter.clone())).await
            }
        }
    }

    /// The first seq appended at or after `time`, as published.
    pub(crate) async fn seek_time(&self, time: Timestamp) -> Result<Seq, ReadError> {
        let asker = &mut Asker::default();
        let question = move |store: &dyn Store| store.seek_time(time);
        let seq = self.pool.ask(asker, Lane::Point, Seq::ZERO, question).await?;
        // The engine's head is published a moment after it is durable.
        let mut published = self.published.subscribe();
        let wait = published.wait_for(|now| now.head.next() >= seq || now.is_closed);
        wait.await.map_err(|_| ReadError::Closing)?;
        Ok(seq)
    }

    /// Looks back in steps, each a request of its own to the reader threads.
    async fn last_matching(
        &self,
        count: u64,
        oldest: Seq,
        head: Seq,
        filter: Arc<Filter>,
    ) -> Result<Seq, ReadError> {
        let asker = &mut Asker::default();
        let (mut missing, mut end) = (count, head.next());
        while end > oldest {
            let filter = filter.clone();
            let look = move |store: &dyn Store| store.look_back(oldest..end, &filter, missing);
            let found = match self.pool.ask(asker, Lane::Scan, oldest, look).await {
                Ok(found) => found,
                // Trimmed meanwhile: fewer are left than were wanted, so all of them.
                Err(ReadError::Trimmed { oldest, .. }) => return Ok(oldest),
                Err(error) => return Err(error),
            };
            if found.from < oldest || found.from >= end || found.events > missing {
                return Err(damaged(oldest, end, "a search that gets nowhere"));
            }
            (missing, end) = (missing - found.events, found.from);
            if missing == 0 {
                return Ok(found.from);
            }
        }
        Ok(if missing == count { head.next() } else { oldest })
    }
}

/// Whether a read is a point or a scan.
pub(super) fn lane(from: Seq, end: Seq) -> Lane {
    if from.distance_to(end) <= POINT_EVENTS { Lane::Point } else { Lane::Scan }
}

/// Looks through a run of the newest commits.
fn find(
    run: Run,
    from: Seq,
    end: Seq,
    filter: &Arc<Filter>,
    only_matching: bool,
) -> impl FnOnce(&dyn Store) -> Result<Chunk, StoreError> + Send + use<> {
    let filter = filter.clone();
    move |_| {
        run.find(&filter, only_matching).map_err(|error| damage(from, end, error.what()).into())
    }
}

/// What is asked of the engine for a chunk.
pub(super) fn question(
    from: Seq,
    end: Seq,
    filter: &Arc<Filter>,
    at_most: Option<usize>,
) -> impl FnOnce(&dyn Store) -> Result<Chunk, StoreError> + Send + use<> {
    let filter = filter.clone();
    move |store| {
        let chunk = store.read(from, end, &filter)?;
        let (first, end) = (chunk.first, chunk.end);
        let malformed = |what| StoreError::from(damage(first, end, what));
        check_events(&chunk).map_err(malformed)?;
        filtered(chunk, &filter, at_most).map_err(|error| malformed(error.what()))
    }
}

/// What a read finds behind a run that is gone.
type Behind = Arc<Mutex<VecDeque<Part>>>;

/// The same, and where events are gone, what lies behind them, if that is wanted.
fn going_on(
    question: impl FnOnce(&dyn Store) -> Result<Chunk, StoreError> + Send + 'static,
    end: Seq,
    behind: Option<Behind>,
) -> impl FnOnce(&dyn Store) -> Result<Chunk, StoreError> + Send + 'static {
    move |store| {
        let read = question(store);
        if let Err(StoreError::Removed(range)) = &read
            && range.is_intended()
            && let Some(behind) = behind
        {
            *behind.lock() = read_on(store, range.end, end);
        }
        read
    }
}

/// Reads on behind a run that is gone, as far as there are few events between two.
fn read_on(store: &dyn Store, from: Seq, end: Seq) -> VecDeque<Part> {
    let (mut parts, mut at, mut bytes) = (VecDeque::new(), from, 0);
    while at < end && parts.len() < MOST_PARTS {
        let most = at.plus(MOST_EVENTS);
        match store.read(at, end.min(most), &Filter::ALL) {
            Ok(chunk) if chunk.end < most && bytes + chunk.events.len() <= MOST_BYTES => {
                // What is wrong is told by the read that is about it.
                if chunk.first != at || chunk.end <= at || check_events(&chunk).is_err() {
                    break;
                }
                bytes += chunk.events.len();
                at = chunk.end;
                // Of its own: the rest of a block is not kept for it.
                let events = Bytes::copy_from_slice(&chunk.events);
                parts.push_back(Part::Events(Chunk { events, ..chunk }));
            }
            Err(StoreError::Removed(range)) if range.is_intended() && range.end > at => {
                at = range.end;
                parts.push_back(Part::Gone(range));
            }
            _ => break,
        }
    }
    parts
}

fn filtered(chunk: Chunk, filter: &Filter, at_most: Option<usize>) -> Result<Chunk, EventError> {
    match at_most {
        Some(bytes) => chunk.filtered(filter, bytes),
        None => Ok(chunk),
    }
}

/// In release builds too; never skip, never warn.
pub(super) fn check(chunk: &Chunk, next: Seq, end: Seq) -> Result<(), ReadError> {
    if chunk.first != next || chunk.end <= next || chunk.end > end {
        return Err(damaged(next, end, "a read that is not contiguous"));
    }
    Ok(())
}

/// Whether a complete chunk has exactly the events that it says. On a reader thread: it walks.
fn check_events(chunk: &Chunk) -> Result<(), &'static str> {
    if !chunk.complete {
        return Ok(());
    }
    let seq_of = |event| Event::seq_of(event).map_err(|error| error.what());
    let (mut count, mut last) = (0, None);
    for event in Events::new(&chunk.events) {
        let event = event.map_err(|error| error.what())?;
        if count == 0 && seq_of(event)? != chunk.first {
            return Err("the first event is not the one that was asked for");
        }
        (count, last) = (count + 1, Some(event));
    }
    let last = last.map(seq_of).transpose()?;
    if chunk.first.plus(count) != chunk.end || last != Some(chunk.end.prev()) {
        return Err("events are missing or out of order");
    }
    Ok(())
}
