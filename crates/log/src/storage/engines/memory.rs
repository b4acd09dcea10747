//! An engine that keeps a log in memory: the reference for what an engine does, and a store for
//! tests and for logs that need not outlive their process.
//!
//! Owns the commits as they came. Nothing is indexed: every answer is read off the events
//! themselves, so that it is easy to see that it is right. "Durable" means completed: a commit that
//! was held back ([`Options::hold`]) is lost by [`Memory::crash`].

#[cfg(any(test, feature = "shared"))]
mod copy;
mod erase;
mod take_out;
mod topics;

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::chain::Link;
use crate::storage::{
    Chunk, Commit, Completion, Damage, EraseOrder, EraseProgress, Journal, Level, Links, LookBack,
    Receipt, Recovered, Removed, Sealed, Store, StoreError, StoreStatus, TakeOut, TakenOut,
    TopicPage, TopicQuery,
};
use tailmark_record::topic::Filter;
use tailmark_record::{
    Bounds, ChainTag, Event, EventError, Events, Fingerprint, FingerprintKey, GenerationTable,
    LogId, Seq, Timestamp,
};

/// Named events that are still known when they are trimmed.
const KEPT_FINGERPRINTS: usize = 1_000_000;

/// How the engine behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes of events in one commit.
    pub max_commit_bytes: usize,
    /// Bytes that one read looks at, but for an event that is larger.
    pub chunk_bytes: usize,
    /// A whole state is wanted after so many bytes of commits.
    pub state_every_bytes: usize,
    /// Commits wait for [`Memory::release`].
    pub hold: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_commit_bytes: 4 << 20,
            chunk_bytes: 64 << 10,
            state_every_bytes: 64 << 20,
            hold: false,
        }
    }
}

/// A log in memory.
pub struct Memory {
    id: LogId,
    key: FingerprintKey,
    generations: Mutex<GenerationTable>,
    options: Options,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// Commits with events, in order; those wholly below the oldest go when space is reclaimed.
    commits: VecDeque<Arc<StoredCommit>>,
    /// Ranges without events, in order; no commit has any of their seqs.
    removed: Vec<Removed>,
    oldest: Seq,
    head: Seq,
    links: Links,
    last_at: Timestamp,
    state: Option<Bytes>,
    deltas: Vec<(Seq, Seq, Bytes)>,
    bytes_since_state: usize,
    held: VecDeque<(Commit, Completion)>,
    /// Named events of commits that are gone.
    trimmed: Vec<(Seq, Fingerprint)>,
    stopped: Option<&'static str>,
    /// Not through.
    erasing: Option<Arc<EraseOrder>>,
}

struct StoredCommit {
    first: Seq,
    end: Seq,
    at: Timestamp,
    events: Bytes,
}

impl StoredCommit {
    /// The events that their senders named, in order.
    fn named(&self, key: &FingerprintKey) -> Result<Vec<(Seq, Fingerprint)>, StoreError> {
        let mut named = Vec::new();
        let mut seq = self.first;
        for event in Events::new(&self.events) {
            let event = event.map_err(|e| damage(self, &e))?;
            if Event::parse(event).map_err(|e| damage(self, &e))?.has_client_id {
                let part = Event::client_part(event).map_err(|e| damage(self, &e))?;
                named.push((seq, key.fingerprint(part)));
            }
            seq = seq.next();
        }
        Ok(named)
    }
}

impl Memory {
    /// An empty log.
    pub fn new(
        id: LogId,
        key: FingerprintKey,
        generations: GenerationTable,
        options: Options,
    ) -> Memory {
        let links = Links { head: Link::START, oldest_tag: Some(ChainTag::START) };
        let log = Mutex::new(Log { oldest: Seq::FIRST, links, ..Log::default() });
        let generations = Mutex::new(generations);
        Memory { id, key, generations, options, log }
    }

    /// Completes the commit that was held back longest; false when there is none.
    pub fn release(&self) -> bool {
        let held = self.log.lock().held.pop_front();
        held.map(|(commit, done)| self.store(commit, done)).is_some()
    }

    /// Commits held back now.
    pub fn held(&self) -> usize {
        self.log.lock().held.len()
    }

    /// The log as it is found after the process died: commits that did not complete are gone, and
    /// this engine takes no more of them.
    pub fn crash(&self) -> (Memory, Recovered) {
        let dropped = {
            let mut log = self.log.lock();
            log.stopped = Some("crashed");
            std::mem::take(&mut log.held)
        };
        // Completions may call back into this engine.
        drop(dropped);
        self.reopen()
    }

    /// A second engine over what is durable in this one.
    pub fn reopen(&self) -> (Memory, Recovered) {
        let log = self.log.lock();
        let recovered = log.recovered();
        let copy = Log {
            commits: log.commits.clone(),
            removed: log.removed.clone(),
            oldest: log.oldest,
            head: log.head,
            links: log.links,
            last_at: log.last_at,
            state: log.state.clone(),
            deltas: log.deltas.clone(),
            bytes_since_state: log.bytes_since_state,
            held: VecDeque::new(),
            trimmed: log.trimmed.clone(),
            stopped: None,
            erasing: log.erasing.clone(),
        };
        drop(log);
        let engine = Memory {
            id: self.id,
            key: self.key,
            generations: Mutex::new(self.generations.lock().clone()),
            options: self.options.clone(),
            log: Mutex::new(copy),
        };
        (engine, recovered)
    }

    fn store(&self, commit: Commit, done: Completion) {
        let wants_state = self.wants_state(commit.events.len() + commit.delta.len());
        let outcome = {
            let mut log = self.log.lock();
            log.check(&commit, self.options.max_commit_bytes, wants_state)
                .map(|()| log.apply(commit))
        };
        done(outcome);
    }

    fn readable(&self, seq: Seq) -> Result<Arc<StoredCommit>, StoreError> {
        let log = self.log.lock();
        if seq < log.oldest {
            return Err(StoreError::Trimmed { oldest: log.oldest });
        }
        log.commit_of(seq)
    }

    /// Readable commits, oldest first, and the oldest readable seq.
    fn snapshot(&self) -> (Vec<Arc<StoredCommit>>, Seq) {
        let log = self.log.lock();
        let at = log.commits.partition_point(|run| run.end <= log.oldest);
        (log.commits.range(at..).cloned().collect(), log.oldest)
    }
}

impl Log {
    fn recovered(&self) -> Recovered {
        Recovered {
            state: self.state.clone().unwrap_or_default(),
            deltas: self.deltas.clone(),
            last_at: self.last_at,
        }
    }

    fn check(
        &self,
        commit: &Commit,
        max_commit_bytes: usize,
        wants_state: bool,
    ) -> Result<(), StoreError> {
        if let Some(reason) = self.stopped {
            return Err(StoreError::Stopped { reason: reason.into() });
        }
        if commit.first != self.head.next() {
            let (expected, next) = (commit.first, self.head.next());
            return Err(StoreError::Conflict { expected, next });
        }
        let invalid = |what| Err(StoreError::Invalid(what));
        if commit.events.len() > max_commit_bytes {
            return invalid("the commit is too large");
        }
        if commit.oldest < self.oldest || commit.oldest > commit.first.plus(commit.count.into()) {
            return invalid("the trim mark goes back or beyond the end");
        }
        if commit.appended_at < self.last_at {
            return invalid("the time goes back");
        }
        if wants_state && commit.state.is_none() {
            return invalid("the state is missing");
        }
        if self.links.head.then_all(&commit.events) != Ok(commit.link) {
            return invalid("an event is malformed, or the chain does not join");
        }
        let mut seq = commit.first;
        for event in Events::new(&commit.events) {
            if event.and_then(Event::seq_of) != Ok(seq) {
                return invalid("an event is malformed or out of order");
            }
            seq = seq.next();
        }
        if seq != commit.first.plus(commit.count.into()) {
            return invalid("the count is wrong");
        }
        Ok(())
    }

    fn apply(&mut self, commit: Commit) -> Receipt {
        let (first, end) = (commit.first, commit.first.plus(commit.count.into()));
        self.bytes_since_state += commit.events.len() + commit.delta.len();
        if let Some(state) = commit.state {
            self.state = Some(state);
            self.deltas.clear();
            self.bytes_since_state = commit.events.len() + commit.delta.len();
        }
        if !commit.delta.is_empty() {
            self.deltas.push((first, end, commit.delta));
        }
        if commit.count > 0 {
            let at = commit.appended_at;
            self.commits.push_back(Arc::new(StoredCommit {
                first,
                end,
                at,
                events: commit.events,
            }));
        }
        self.head = end.prev();
        self.oldest = commit.oldest;
        self.links = Links { head: commit.link, oldest_tag: commit.oldest_tag };
        self.last_at = commit.appended_at;
        Receipt { first, last: end.prev(), level: Level::Fsync, term: 0 }
    }

    fn commit_of(&self, seq: Seq) -> Result<Arc<StoredCommit>, StoreError> {
        let at = self.commits.partition_point(|run| run.end <= seq);
        if let Some(run) = self.commits.get(at).filter(|run| run.first <= seq) {
            return Ok(Arc::clone(run));
        }
        let gone = self.removed.iter().find(|it| it.contains(seq));
        Err(gone.map_or(StoreError::Invalid("beyond the head"), |it| StoreError::Removed(*it)))
    }

    /// Seqs from the oldest on that have no events any more.
    fn removed_events(&self) -> u64 {
        let from = |it: &Removed| it.first.max(self.oldest).distance_to(it.end.max(self.oldest));
        self.removed.iter().map(from).sum()
    }

    /// Where a range without events begins that ends before a seq; else the seq.
    fn before_removed(&self, seq: Seq) -> Seq {
        self.removed.iter().find(|it| it.end == seq).map_or(seq, |it| it.first)
    }
}

impl Journal for Memory {
    fn id(&self) -> LogId {
        self.id
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        self.key
    }

    fn max_commit_bytes(&self) -> usize {
        self.options.max_commit_bytes
    }

    fn append(&self, commit: Commit, done: Completion) {
        if self.options.hold {
            let mut log = self.log.lock();
            if log.stopped.is_none() {
                log.held.push_back((commit, done));
                return;
            }
        }
        self.store(commit, done);
    }
}

impl Store for Memory {
    fn bounds(&self) -> Bounds {
        let log = self.log.lock();
        let generations = self.generations.lock().clone();
        Bounds { oldest: log.oldest, head: log.head, generations }
    }

    fn links(&self) -> Links {
        self.log.lock().links
    }

    fn wants_state(&self, bytes: usize) -> bool {
        let log = self.log.lock();
        log.state.is_none() || log.bytes_since_state + bytes > self.options.state_every_bytes
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        let run = {
            let log = self.log.lock();
            if from < log.oldest {
                return Err(StoreError::Trimmed { oldest: log.oldest });
            }
            if from >= end || end > log.head.next() {
                return Err(StoreError::Invalid("an empty range, or one beyond the head"));
            }
            match log.commit_of(from) {
                // Who asks for some topics need not hear of what was meant to go.
                Err(StoreError::Removed(range)) if range.is_intended() && !filter.is_all() => {
                    let (end, events) = (end.min(range.end), Bytes::new());
                    return Ok(Chunk { first: from, end, events, complete: false });
                }
                run => run?,
            }
        };
        read_commit(&run, from, end.min(run.end), self.options.chunk_bytes, filter)
            .map_err(|error| damage(&run, &error))
    }

    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError> {
        let log = self.log.lock();
        let at = log.commits.partition_point(|run| run.at < time);
        let first = log.commits.get(at).map_or(log.head.next(), |run| run.first);
        // What is gone before it may have been appended then.
        Ok(log.before_removed(first).max(log.oldest))
    }

    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        self.readable(seq).map(|run| run.at)
    }

    fn tag_of(&self, seq: Seq) -> Result<ChainTag, StoreError> {
        let run = match self.readable(seq) {
            Err(StoreError::Removed(range)) if range.end == seq.next() => {
                return range.link.known_tag().ok_or(StoreError::Removed(range));
            }
            run => run?,
        };
        run.tag_at(seq).map_err(|error| damage(&run, &error))
    }

    fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError> {
        Memory::topics(self, query)
    }

    fn topic_head(&self, topic: &str) -> Result<Option<Seq>, StoreError> {
        Memory::topic_head(self, topic).map(Some)
    }

    fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        Memory::look_back(self, range, filter, count)
    }

    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        let (commits, mut named, erasing) = {
            let log = self.log.lock();
            (log.commits.clone(), log.trimmed.clone(), log.erasing.clone())
        };
        for run in &commits {
            named.extend(run.named(&self.key)?);
        }
        named.retain(|(seq, _)| !erasing.as_ref().is_some_and(|order| order.contains(*seq)));
        // Those that were taken out lie between others.
        named.sort_by_key(|(seq, _)| *seq);
        let wanted = named.into_iter().rev().take_while(|(seq, _)| *seq >= from);
        for (seq, fingerprint) in wanted {
            if !visit(seq, fingerprint) {
                break;
            }
        }
        Ok(())
    }

    fn trim_point_for_size(&self, max_bytes: u64, limit: Seq) -> Seq {
        let log = self.log.lock();
        let commits = log.commits.iter().filter(|run| run.end > log.oldest);
        let needed: u64 = commits.clone().map(|run| run.events.len() as u64).sum();
        let excess = needed.saturating_sub(max_bytes);
        let (mut freed, mut point) = (0, log.oldest);
        for run in commits {
            if freed >= excess || run.end > limit {
                break;
            }
            freed += run.events.len() as u64;
            point = run.end.max(point);
        }
        point
    }

    fn trim_point_for_events(&self, max: u64, end: Seq) -> Seq {
        let log = self.log.lock();
        let mut rest = max;
        for run in log.commits.iter().rev().take_while(|run| run.end > log.oldest) {
            let (first, end) = (run.first.max(log.oldest), run.end.min(end));
            let events = first.distance_to(end);
            if events > rest {
                return Seq::new(end.get() - rest);
            }
            rest -= events;
        }
        log.oldest
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        let mut log = self.log.lock();
        let oldest = log.oldest;
        log.removed.retain(|it| it.end > oldest);
        while log.commits.front().is_some_and(|run| run.end <= log.oldest) {
            let Some(run) = log.commits.pop_front() else { break };
            let mut named = run.named(&self.key)?;
            let erasing = log.erasing.clone();
            named.retain(|(seq, _)| !erasing.as_ref().is_some_and(|order| order.contains(*seq)));
            log.keep_named(named);
        }
        Ok(())
    }

    fn has_gaps(&self) -> bool {
        !self.log.lock().removed.is_empty()
    }

    fn sealed(&self) -> Vec<Sealed> {
        Memory::sealed(self)
    }

    fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        Memory::take_out(self, order)
    }

    fn release(&self, _bytes: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        Memory::erase(self, order, watch)
    }

    fn erasing(&self) -> Option<Arc<EraseOrder>> {
        self.log.lock().erasing.clone()
    }

    fn erased(&self) -> Result<(), StoreError> {
        self.log.lock().erasing = None;
        Ok(())
    }

    fn status(&self) -> StoreStatus {
        let log = self.log.lock();
        StoreStatus {
            disk_bytes: log.commits.iter().map(|run| run.events.len() as u64).sum(),
            removed_events: log.removed_events(),
            trouble: log.stopped.map(str::to_owned),
            ..StoreStatus::default()
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        self.log.lock().stopped.get_or_insert("closed");
        Ok(())
    }
}

/// One chunk of a run: `from..end`, cut after `chunk_bytes`.
fn read_commit(
    run: &StoredCommit,
    from: Seq,
    end: Seq,
    chunk_bytes: usize,
    filter: &Filter,
) -> Result<Chunk, EventError> {
    let mut events = Events::new(&run.events);
    for _ in 0..run.first.distance_to(from) {
        events.next().transpose()?;
    }
    let start = run.events.len() - events.remaining();
    let mut stop = start;
    let mut seq = from;
    let mut matching = Vec::new();
    while seq < end && (stop == start || stop - start < chunk_bytes) {
        let Some(event) = events.next().transpose()? else { break };
        let after = run.events.len() - events.remaining();
        if !filter.is_all() && filter.matches(Event::topic_of(event)?) {
            matching.extend_from_slice(&run.events[stop..after]);
        }
        stop = after;
        seq = seq.next();
    }
    let complete = filter.is_all() || matching.len() == stop - start;
    let events = if complete { run.events.slice(start..stop) } else { Bytes::from(matching) };
    Ok(Chunk { first: from, end: seq, events, complete })
}

fn damage(run: &StoredCommit, error: &EventError) -> StoreError {
    let detail = error.what().to_owned();
    Damage { from: run.first, to: run.end.prev(), file: PathBuf::from("memory"), detail }.into()
}
