//! The contract of an engine.
//!
//! ```text
//!   1 ........ oldest ..................... head  next
//!   | trimmed  | readable, immutable        |     | appended here
//! ```
//!
//! One writer, many readers. Invariants every engine keeps, and the conformance suite checks:
//! a commit is whole or absent; `bounds().head` covers durable events only; (generation, seq) is
//! never reused; what is damaged is an error with its range and never a shorter answer.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::{EraseOrder, EraseProgress, Sealed, StoreError, TakeOut, TakenOut};
use crate::chain::Link;
use tailmark_record::topic::Filter;
use tailmark_record::{
    Bounds, ChainTag, Event, EventError, Events, Fingerprint, FingerprintKey, LogId, Seq, Timestamp,
};

/// One group commit: whole or absent.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Must be `bounds().next()`.
    pub first: Seq,
    /// Events in it; 0 for a commit of state or a trim mark alone.
    pub count: u32,
    /// The `appended_at` of all its events; not before that of any earlier commit.
    pub appended_at: Timestamp,
    /// `EventBatch.events` entries, one after the other; at most [`Engine::max_commit_bytes`].
    pub events: Bytes,
    /// Change of the caller's state that commits with the events; opaque here.
    pub delta: Bytes,
    /// The caller's whole state before this commit. Needed when [`Engine::wants_state`] says so.
    pub state: Option<Bytes>,
    /// The chain at its last event; without one, as it was before.
    pub link: Link,
    /// The trim mark from this commit on: the first seq that stays readable. Never goes down;
    /// at most `first + count`.
    pub oldest: Seq,
    /// The chain at the event before that; `None` where it could not be read.
    pub oldest_tag: Option<ChainTag>,
}

/// What an engine knows of the chain over its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// At the last durable event.
    pub head: Link,
    /// At the event before the oldest that is readable, if that is known.
    pub oldest_tag: Option<ChainTag>,
}

/// A durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// First seq of it.
    pub first: Seq,
    /// Last seq of it; `first - 1` for a commit without events.
    pub last: Seq,
    /// What durable means of it.
    pub level: Level,
    /// Election term; 0 on a single machine.
    pub term: u64,
}

/// What an engine has done when it calls a commit durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// fdatasync has returned on this machine; an engine in memory promises as much of itself.
    #[default]
    Fsync,
    /// A quorum of machines has it.
    Replicated,
}

/// Receives the outcome of one append.
pub type Completion = Box<dyn FnOnce(Result<Receipt, StoreError>) + Send>;

/// A run of events. `end > first`.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// First seq covered.
    pub first: Seq,
    /// Seq after the last covered.
    pub end: Seq,
    /// `EventBatch.events` entries of the events in `first..end`, in order: all of them, or, in a
    /// filtered read, at least those that match. Empty = known that none matches.
    pub events: Bytes,
    /// Every event of `first..end` is there.
    pub complete: bool,
}

impl Chunk {
    /// The part of it from `from` on and below `end`, which may lie beyond it. A chunk that left
    /// events out can't be cut by counting: it must be `complete`, empty, or not need cutting.
    ///
    /// # Errors
    /// When the entries are not events, or not as many as the range says.
    pub fn cut(self, from: Seq, end: Seq) -> Result<Chunk, EventError> {
        let (first, last) = (from.max(self.first), end.min(self.end));
        if (first, last) == (self.first, self.end) {
            return Ok(self);
        }
        if self.events.is_empty() {
            return Ok(Chunk { first, end: last, ..self });
        }
        let mut entries = Events::new(&self.events);
        let total = entries.remaining();
        let mut skip = |count: u64| -> Result<usize, EventError> {
            for _ in 0..count {
                entries.next().transpose()?.ok_or(EventError::MISSING)?;
            }
            Ok(total - entries.remaining())
        };
        let start = skip(self.first.distance_to(first))?;
        let stop = if last == self.end { total } else { skip(first.distance_to(last))? };
        Ok(Chunk { first, end: last, events: part_of(&self.events, start..stop), ..self })
    }

    /// The events of its beginning that match, at most so many bytes of them, but one at least: of
    /// their own, so that the rest need not stay in memory. It ends before the first that was left
    /// out.
    ///
    /// # Errors
    /// When the entries are not events.
    pub fn filtered(self, filter: &Filter, max_bytes: usize) -> Result<Chunk, EventError> {
        let (mut entries, mut kept, mut start) = (Events::new(&self.events), Vec::new(), 0);
        let mut end = self.end;
        while let Some(event) = entries.next() {
            let event = event?;
            let stop = self.events.len() - entries.remaining();
            if filter.is_all() || filter.matches(Event::topic_of(event)?) {
                if !kept.is_empty() && kept.len() + stop - start > max_bytes {
                    end = Event::seq_of(event)?;
                    break;
                }
                kept.extend_from_slice(&self.events[start..stop]);
            }
            start = stop;
        }
        Ok(Chunk { end, events: kept.into(), complete: false, ..self })
    }
}

/// A part of some events, of its own where it is less than half: who keeps it would keep all.
pub fn part_of(events: &Bytes, range: Range<usize>) -> Bytes {
    match range.len() < events.len() / 2 {
        true => Bytes::copy_from_slice(&events[range]),
        false => events.slice(range),
    }
}

/// What an engine hands back when it is opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The newest whole state that a caller gave ([`Commit::state`]); empty = none yet.
    pub state: Bytes,
    /// The deltas that were committed after it, in order, each with the commit's range
    /// `first..end`.
    pub deltas: Vec<(Seq, Seq, Bytes)>,
    /// Time of the last commit.
    pub last_at: Timestamp,
}

/// Readable events of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// How many.
    pub events: u64,
    /// The last one.
    pub last_seq: Seq,
    /// When the last one was appended.
    pub last_at: Timestamp,
}

/// Asks for topics, in the order of their names (bytes of UTF-8).
#[derive(Clone, Copy, Debug)]
pub struct TopicQuery<'a> {
    /// No name below this. Empty = from the first on.
    pub from: &'a str,
    /// What names begin with.
    pub prefix: &'a str,
    /// What selects them, beside that.
    pub filter: &'a Filter,
    /// At most so many.
    pub limit: usize,
}

/// Topics that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPage {
    /// In the order of their names. May be fewer than asked for, or none, though there are more: the
    /// work for one page is bounded.
    pub topics: Vec<(Box<str>, TopicStats)>,
    /// [`TopicQuery::from`] of the next page; `None` = there are no more.
    pub next: Option<Box<str>>,
}

/// What was found by looking back from the end of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookBack {
    /// How far it was looked: from here on to the end of the range there are exactly `events` that
    /// match. The seq of the first of them where that is as many as were wanted.
    pub from: Seq,
    /// How many were found; at most as many as were wanted.
    pub events: u64,
}

impl LookBack {
    /// Takes the newest of these into account, as far as they are wanted: they lie before what was
    /// looked at so far, and there are no others from `from` on.
    pub(crate) fn take(&mut self, seqs: &[Seq], wanted: u64) {
        let found = seqs.len() as u64;
        match found.checked_sub(wanted.saturating_sub(self.events)) {
            Some(too_many) => {
                let first = usize::try_from(too_many).ok().and_then(|at| seqs.get(at));
                self.from = first.copied().unwrap_or(self.from);
                self.events = wanted;
            }
            None => self.events += found,
        }
    }
}

/// Figures for operators.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// Bytes taken on disk.
    pub disk_bytes: u64,
    /// Those of them that the journal's slots take, empty ones included.
    pub journal_bytes: u64,
    /// Seqs between the oldest and the head that have no events any more.
    pub removed_events: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Journal slots that hold unsealed events.
    pub unsealed_slots: u64,
    /// Databases open now.
    pub open_segments: u64,
    /// Readers holding a slot or segment now.
    pub leases: u64,
    /// A segment is being built.
    pub is_sealing: bool,
    /// Why appends or sealing have stopped, if they have.
    pub trouble: Option<String>,
}

impl StoreStatus {
    /// Bytes that sealed segments take.
    pub fn segment_bytes(&self) -> u64 {
        self.disk_bytes.saturating_sub(self.journal_bytes)
    }
}

/// Stores one log. Blocking: callers bring their own threads.
pub trait Engine: Send + Sync + 'static {
    /// Identity of the log.
    fn id(&self) -> LogId;

    /// Secret for telling repeats.
    fn fingerprint_key(&self) -> FingerprintKey;

    /// Durable bounds, as of now. Cheap.
    fn bounds(&self) -> Bounds;

    /// The chain at both ends of [`Engine::bounds`], as of now. Cheap.
    fn links(&self) -> Links;

    /// Most bytes of events in one commit.
    fn max_commit_bytes(&self) -> usize;

    /// Whether a commit of `bytes` (events and delta) must bring the caller's whole state.
    fn wants_state(&self, bytes: usize) -> bool;

    /// Makes a commit durable, then moves the bounds, then completes. The caller waits for one
    /// commit's completion before it appends the next.
    ///
    /// Completes with [`StoreError::Conflict`], [`StoreError::DiskFull`], [`StoreError::Busy`] or
    /// [`StoreError::Invalid`] when nothing was stored; any other error means that the outcome is
    /// unknown and that the engine has stopped for appends.
    fn append(&self, commit: Commit, done: Completion);

    /// Reads from `from` on, in `oldest <= from < end <= head + 1`: a chunk that begins exactly at
    /// `from` and ends at or before `end`. With a filter, runs that are known not to match may come
    /// as an empty chunk, and chunks may leave out events that do not match.
    ///
    /// # Errors
    /// [`StoreError::Trimmed`] below the oldest, [`StoreError::Damaged`] with the range.
    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError>;

    /// The first readable seq appended at or after `time`; `head + 1` if there is none.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError>;

    /// The time at which a readable event was appended.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError>;

    /// The chain at a readable event.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn tag_of(&self, seq: Seq) -> Result<ChainTag, StoreError>;

    /// A page of topics that have readable events, with exact figures as of now. The work is bounded,
    /// and so a page may be short: see [`TopicPage`].
    ///
    /// # Errors
    /// As [`Engine::read`]; a damaged table of topics with the range of the events that it is of.
    fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError>;

    /// The last readable event of a topic, as of now; 0 if it has none. `None` while there is more to be
    /// indexed of what is not sealed than one question does: ask again.
    ///
    /// # Errors
    /// As [`Engine::topics`].
    fn topic_head(&self, topic: &str) -> Result<Option<Seq>, StoreError>;

    /// Looks back from the end of a range, in `oldest <= start < end <= head + 1`, for the newest
    /// `count` events that match, at least 1. The work is bounded: it may stop before it has them,
    /// but has always come nearer to the start; go on below [`LookBack::from`].
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError>;

    /// Visits the events that their senders named, newest first, until `visit` answers false or
    /// `from` is reached. Those that are trimmed count too, as far as the engine is told to keep
    /// them: a repeat of one is still a repeat.
    ///
    /// # Errors
    /// As [`Engine::read`].
    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError>;

    /// The seq to trim to so that what the log needs on disk is at most `max_bytes`, if trimming can do
    /// that, and no further than `limit`; whole units of storage only. What is trimmed already is not
    /// needed, also where its space is not given back yet.
    fn trim_point_for_size(&self, max_bytes: u64, limit: Seq) -> Seq;

    /// Gives back the space below the durable trim mark that no reader holds. Called after a commit
    /// that moved it.
    ///
    /// # Errors
    /// I/O; the trim mark stays.
    fn reclaim(&self) -> Result<(), StoreError>;

    /// Gives back up to about `bytes` on disk that hold nothing of the log, beside what
    /// [`Engine::reclaim`] does; answers how many came free.
    ///
    /// # Errors
    /// I/O.
    fn release(&self, bytes: u64) -> Result<u64, StoreError>;

    /// Leaves shells of events, and nothing of what they said in anything that the store keeps; those that are
    /// trimmed and are still there go too. What was read before may still be held by who read it. Blocks, and one at
    /// a time. From when it has begun the order is kept, see [`Engine::erasing`]; given again, it goes on.
    /// `watch` hears how far it is, and may stop it. Answers how many segments were written anew.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where another order is not through, or this engine cannot erase;
    /// [`StoreError::Stopped`] where `watch` said so; as [`Engine::read`]; I/O.
    fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        let _ = (order, watch);
        Err(StoreError::Invalid("this engine cannot erase"))
    }

    /// The order that is not through, also one from before a restart.
    fn erasing(&self) -> Option<Arc<EraseOrder>> {
        None
    }

    /// The order is through, with all that its caller had to do: it is kept no more.
    ///
    /// # Errors
    /// I/O; it stays.
    fn erased(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether some readable seqs have no events any more. Cheap.
    fn has_gaps(&self) -> bool {
        false
    }

    /// What events can be taken out of, oldest first. An engine without such has none.
    fn sealed(&self) -> Vec<Sealed> {
        Vec::new()
    }

    /// Takes events out: from then on a read of everything that comes to them answers [`StoreError::Removed`], and one
    /// of some topics passes over them. Their space comes free when nobody reads it any more. Blocks; beside appends
    /// and reads. `None` where that run is there no more as it was.
    ///
    /// # Errors
    /// As [`Engine::read`]; [`StoreError::DiskFull`]; [`StoreError::Busy`] where nothing can be written anew now; I/O.
    fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        let _ = order;
        Err(StoreError::Invalid("this engine cannot take events out"))
    }

    /// Why every commit would be refused now; `None` when a small one would be tried. Looks at the disk, and
    /// waits for no commit; one that is under way for too long is a reason ([`StoreError::Hanging`]).
    fn refusal(&self) -> Option<StoreError> {
        None
    }

    /// What was there when, at the latest, of what is stamped later than `wall`: heads and times up to
    /// then, both only going up. What the store cannot tell, or what cannot be, is left out.
    fn seen(&self, wall: Timestamp) -> Vec<(Seq, Timestamp)> {
        let _ = wall;
        Vec::new()
    }

    /// Figures for operators.
    fn status(&self) -> StoreStatus;

    /// Finishes background work and marks a clean stop. Appends after it fail.
    ///
    /// # Errors
    /// I/O; what was acked is durable all the same.
    fn close(&self) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::topic::Pattern;
    use tailmark_record::{ChainTag, CursorMint, Generation, Limits, Stamp, write_entry};

    const TOPICS: [&str; 3] = ["a", "b", "a.c"];

    fn chunk(first: u64, count: u64) -> Chunk {
        let log = LogId::new(uuid::Uuid::from_u128(1));
        let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
        let mut events = Vec::new();
        for seq in first..first + count {
            let mut client = Vec::new();
            let topic = TOPICS[seq as usize % TOPICS.len()];
            Event { id: "x", topic, ..Event::default() }.write_client_part(&mut client);
            let appended_at = Timestamp::EPOCH.into();
            let seq = Seq::new(seq);
            let stamp = Stamp {
                seq,
                mint: &mint,
                tag: ChainTag::START,
                appended_at,
                fill_at: true,
                fill_id: None,
            };
            write_entry(&mut events, &client, &stamp);
        }
        let (first, end) = (Seq::new(first), Seq::new(first + count));
        Chunk { first, end, events: events.into(), complete: true }
    }

    fn seqs(chunk: &Chunk) -> Vec<u64> {
        let events = Events::new(&chunk.events).map(Result::unwrap);
        events.map(|event| Event::seq_of(event).unwrap().get()).collect()
    }

    #[test]
    fn a_chunk_taken_a_little_at_a_time_has_every_event_that_matches() {
        let a = Filter::new(vec![Pattern::parse("a", &Limits::default()).unwrap()]);
        let none = Filter::new(vec![Pattern::parse("z", &Limits::default()).unwrap()]);
        let whole = chunk(10, 50);
        for filter in [&Filter::ALL, &a, &none] {
            let expected: Vec<_> =
                (10..60).filter(|seq| filter.matches(TOPICS[*seq as usize % 3])).collect();
            for max_bytes in [0, 1, 100, 300, 1 << 20] {
                let (mut next, mut found) = (Seq::new(10), Vec::new());
                while next < whole.end {
                    let rest = whole.clone().cut(next, whole.end).unwrap();
                    let part = rest.filtered(filter, max_bytes).unwrap();
                    let some = seqs(&part);
                    assert!(part.first == next && part.end > next && !part.complete);
                    assert!(part.events.len() <= max_bytes || some.len() == 1, "{some:?}");
                    found.extend(some);
                    next = part.end;
                }
                assert_eq!((next, &found), (whole.end, &expected), "{max_bytes}");
            }
        }
        let cut = Chunk { events: whole.events.slice(..whole.events.len() - 1), ..whole };
        assert!(cut.filtered(&Filter::ALL, 1 << 20).is_err());
    }

    #[test]
    fn a_small_part_does_not_keep_the_whole() {
        let all = Bytes::from(vec![7; 100]);
        for (range, is_shared) in
            [(0..100, true), (10..60, true), (10..59, false), (100..100, false)]
        {
            let part = part_of(&all, range.clone());
            assert_eq!(part, all.slice(range.clone()));
            let lies_in = part.as_ptr() == all[range.clone()].as_ptr();
            assert_eq!(lies_in && !part.is_empty(), is_shared, "{range:?}");
        }
    }
}
