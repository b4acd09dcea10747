//! A ring of the newest commits, in memory, for readers at the head.
//!
//! Bounded by bytes, which it shares with every reader. It is contiguous and ends at the published
//! head. The caller refuses what was trimmed.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;

use super::topic_index::{self, TopicIndex};
use crate::bounded::{Bounded, Dropped};
use crate::storage::{Chunk, part_of};
use crate::width::to_usize;
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Event, EventError, Events, Seq, Timestamp};

/// What one commit costs beside its events, and what each of those costs in its index.
const COMMIT_BYTES: usize = 224;
const INDEX_BYTES: usize = topic_index::BYTES_PER_EVENT;
/// Bytes of events found with which a read is content, and commits that it looks through: where there are more before
/// the end, the store has an index over all of them.
const FOUND_BYTES: usize = 256 << 10;
const COMMITS_PER_READ: u64 = 64;
/// A commit of which more than one event in so many is wanted is passed on as it is.
const DENSE: u64 = 4;
/// So many patterns are tried on each event, again, by who reads them.
const FEW_PATTERNS: usize = 4;
/// Verdicts on events or topics that take a thread that serves but a moment.
const QUICK: usize = 512;

/// A durable commit.
pub(super) struct Commit {
    pub(super) first: Seq,
    pub(super) end: Seq,
    pub(super) at: Timestamp,
    /// Of the chain at its last event.
    pub(super) tag: ChainTag,
    pub(super) events: Bytes,
}

/// A commit in the ring. Shared with who looks at it without the lock.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) first: Seq,
    pub(super) end: Seq,
    pub(super) events: Bytes,
    at: Timestamp,
    tag: ChainTag,
    /// Counted up from commit to commit.
    number: u64,
    /// Made when it is first asked for.
    topics: Arc<OnceLock<TopicIndex>>,
}

impl Held {
    /// Its index by topic. Walks it, the first time.
    pub(super) fn topics(&self) -> Result<&TopicIndex, EventError> {
        if let Some(topics) = self.topics.get() {
            return Ok(topics);
        }
        let topics = TopicIndex::of(&self.events)?;
        Ok(self.topics.get_or_init(|| topics))
    }

    /// Events to walk, or topics to judge by patterns, before it is known what of it matches.
    fn verdicts(&self, filter: &Filter) -> usize {
        let events = to_usize(self.first.distance_to(self.end));
        let patterns = filter.patterns().len();
        match (self.topics.get(), filter.exact()) {
            (None, Some(_)) => events.saturating_add(patterns),
            // Each may be of another topic.
            (None, None) => events.saturating_mul(patterns),
            (Some(_), Some(_)) => patterns,
            (Some(topics), None) => topics.len().saturating_mul(patterns),
        }
    }

    /// Adds the entries at these places, if they are wanted, until enough is found. The seq after the
    /// last event that is known to be in it, or not wanted.
    fn pick(
        &self,
        places: &[u32],
        wanted: Range<Seq>,
        found: &mut Vec<u8>,
    ) -> Result<Seq, EventError> {
        for &place in places {
            let (entry, event) = topic_index::entry(&self.events, place)?;
            let seq = Event::seq_of(event)?;
            if !wanted.contains(&seq) {
                continue;
            }
            if found.len() >= FOUND_BYTES {
                return Ok(seq);
            }
            found.extend_from_slice(self.events.get(entry).unwrap_or_default());
        }
        Ok(self.end.min(wanted.end))
    }

    /// All of it from `from` on, below `end`.
    fn part(&self, from: Seq, end: Seq) -> Result<Chunk, EventError> {
        let end = self.end.min(end);
        if self.first == from && self.end == end {
            return Ok(Chunk { first: from, end, events: self.events.clone(), complete: true });
        }
        let events = slice(&self.events, self.first.distance_to(from), from.distance_to(end))?;
        Ok(Chunk { first: from, end, events, complete: true })
    }
}

/// The commits of the ring that a filtered read looks through, not looked at yet.
pub(super) struct Run {
    commits: Vec<Held>,
    from: Seq,
    end: Seq,
    /// Whether that takes but a moment.
    pub(super) is_quick: bool,
}

impl Run {
    /// The events that match, as far as one read goes, and where most do perhaps others; not where only those
    /// that match are asked for.
    pub(super) fn find(self, filter: &Filter, only_matching: bool) -> Result<Chunk, EventError> {
        let (mut found, mut end) = (Vec::new(), self.from);
        for commit in &self.commits {
            let places = commit.topics()?.find(&commit.events, filter)?;
            // Most of it is wanted, and told apart by its reader as fast as here: nothing is won by copying.
            let is_dense = places.len() as u64 * DENSE > commit.first.distance_to(commit.end);
            let is_passed_on =
                is_dense && !only_matching && filter.patterns().len() <= FEW_PATTERNS;
            if end == self.from && is_passed_on {
                return commit.part(self.from, self.end);
            }
            end = commit.pick(&places, self.from..self.end, &mut found)?;
            if found.len() >= FOUND_BYTES {
                break;
            }
        }
        Ok(Chunk { first: self.from, end, events: found.into(), complete: false })
    }
}

pub(super) struct Recent {
    /// By the first seq; without a hole.
    ring: RwLock<Bounded<Seq, Held>>,
}

impl Recent {
    pub(super) fn new(max_bytes: usize) -> Recent {
        Recent { ring: RwLock::new(Bounded::new(max_bytes)) }
    }

    /// Bytes kept now.
    pub(super) fn bytes(&self) -> usize {
        self.ring.read().bytes()
    }

    /// Drops all. What comes next begins it anew.
    pub(super) fn clear(&self) {
        let dropped = self.ring.write().clear();
        drop(dropped);
    }

    /// Drops what lies before a seq.
    pub(super) fn forget_below(&self, end: Seq) {
        let mut ring = self.ring.write();
        let mut dropped = Vec::new();
        while let Some(first) = ring.first_key().copied().filter(|first| *first < end) {
            dropped.push(ring.remove(&first));
        }
        drop(ring);
        drop(dropped);
    }

    /// Adds the commit after the last one.
    pub(super) fn push(&self, commit: Commit) {
        let mut ring = self.ring.write();
        // Never a hole: rather forget what is before it.
        let is_next = ring.last().is_none_or(|last| last.end == commit.first);
        let cleared = if is_next { Dropped::default() } else { ring.clear() };
        debug_assert!(commit.first < commit.end, "a commit in the ring has events");
        debug_assert!(ring.last().is_none_or(|last| last.end == commit.first), "no hole");
        let Commit { first, end, at, tag, events } = commit;
        let count = to_usize(first.distance_to(end));
        let bytes = events.len() + COMMIT_BYTES + count.saturating_mul(INDEX_BYTES);
        let number = ring.last().map_or(0, |last| last.number + 1);
        let held = Held { first, end, events, at, tag, number, topics: Arc::default() };
        let dropped = ring.insert(first, held, bytes);
        drop(ring);
        // Freeing megabytes takes a while: not while readers wait for the lock.
        drop((cleared, dropped));
    }

    /// The events from `from` on that lie in one commit, cut at `end`; `None` when `from` is not
    /// here. `end` is above `from`.
    pub(super) fn read(&self, from: Seq, end: Seq) -> Result<Option<Chunk>, EventError> {
        // The walk is done without the lock.
        let commit = find(&self.ring.read(), from).cloned();
        commit.map(|commit| commit.part(from, end)).transpose()
    }

    /// The commits from `from` on, below `end`, that a read with a filter looks through; `None` when `from` is not
    /// here, or so many commits lie between that the store tells sooner.
    pub(super) fn run(&self, filter: &Filter, from: Seq, end: Seq) -> Option<Run> {
        let ring = self.ring.read();
        let first = find(&ring, from)?;
        let last = find(&ring, end.prev()).or_else(|| ring.last())?;
        if !is_near(first, last) {
            return None;
        }
        let mut verdicts = first.verdicts(filter);
        let is_quick = verdicts <= QUICK;
        let mut commits = vec![first.clone()];
        let (mut events, mut next) = (0, first.end);
        while next < end
            && events < 16 * FOUND_BYTES
            && let Some(commit) = find(&ring, next)
        {
            // More than that is a read of its own.
            verdicts = verdicts.saturating_add(commit.verdicts(filter));
            if verdicts > QUICK {
                break;
            }
            events += commit.events.len();
            next = commit.end;
            commits.push(commit.clone());
        }
        Some(Run { commits, from, end, is_quick })
    }

    /// The commit that holds `seq`.
    pub(super) fn held(&self, seq: Seq) -> Option<Held> {
        find(&self.ring.read(), seq).cloned()
    }

    /// The first seq that is here, if it lies behind `seq`.
    pub(super) fn first_from(&self, seq: Seq) -> Option<Seq> {
        self.ring.read().first_key().copied().filter(|first| *first > seq)
    }

    /// The chain at an event with which a commit ends, if it is here.
    pub(super) fn tag_of(&self, seq: Seq) -> Option<ChainTag> {
        find(&self.ring.read(), seq)
            .filter(|commit| commit.end == seq.next())
            .map(|commit| commit.tag)
    }

    /// Whether an event is here.
    pub(super) fn holds(&self, seq: Seq) -> bool {
        find(&self.ring.read(), seq).is_some()
    }

    /// Whether a read from `from` on, up to the newest event, would find something here.
    pub(super) fn has(&self, filter: &Filter, from: Seq) -> bool {
        let ring = self.ring.read();
        let (first, last) = (find(&ring, from), ring.last());
        first.zip(last).is_some_and(|(first, last)| filter.is_all() || is_near(first, last))
    }

    /// When an event was appended, if it is here.
    pub(super) fn time_of(&self, seq: Seq) -> Option<Timestamp> {
        find(&self.ring.read(), seq).map(|commit| commit.at)
    }
}

/// Whether so few commits lie between that a read looks through them.
fn is_near(first: &Held, last: &Held) -> bool {
    last.number.saturating_sub(first.number) < COMMITS_PER_READ
}

fn find(ring: &Bounded<Seq, Held>, seq: Seq) -> Option<&Held> {
    ring.at_or_below(&seq).filter(|commit| seq < commit.end)
}

/// The entries of `count` events after the first `skip`.
pub(super) fn slice(entries: &Bytes, skip: u64, count: u64) -> Result<Bytes, EventError> {
    let mut walk = Events::new(entries);
    let mut pass = |count: u64, entries: &Bytes| -> Result<usize, EventError> {
        for _ in 0..count {
            walk.next().transpose()?;
        }
        Ok(entries.len() - walk.remaining())
    };
    let start = pass(skip, entries)?;
    let end = pass(count, entries)?;
    Ok(part_of(entries, start..end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::topic::Pattern;
    use tailmark_record::{CursorMint, Generation, Limits, LogId, Stamp, write_entry};

    #[test]
    fn many_small_commits_are_left_to_the_store_and_few_are_not() {
        let recent = Recent::new(1 << 20);
        let commit = |seq: u64| Commit {
            first: Seq::new(seq),
            end: Seq::new(seq + 1),
            at: Timestamp::EPOCH,
            tag: ChainTag::START,
            events: Bytes::from_static(b"an event"),
        };
        (1..=1_000).for_each(|seq| recent.push(commit(seq)));
        let filter = Filter::new(vec![Pattern::parse("a.b", &Limits::default()).unwrap()]);
        let commits = |from, end| {
            let run = recent.run(&filter, Seq::new(from), Seq::new(end))?;
            Some(run.commits.len())
        };
        let most = COMMITS_PER_READ;
        assert_eq!(commits(1_001 - most, 1_001), Some(64));
        assert_eq!(commits(1_000 - most, 1_001), None);
        assert_eq!(commits(500, 500 + most), Some(64), "what lies beyond costs nothing");
        assert_eq!((commits(1, 1_001), commits(1_001, 1_002)), (None, None));
        let has = |filter, from| recent.has(filter, Seq::new(from));
        assert!(has(&filter, 1_001 - most) && !has(&filter, 1_000 - most) && !has(&filter, 1_001));
        assert!(has(&Filter::ALL, 1), "each commit is a read of its own");
        // Without a filter nothing is looked through.
        assert!(recent.read(Seq::new(1), Seq::new(2)).is_ok_and(|chunk| chunk.is_some()));
    }

    /// One commit of so many events, every other of which is on "a.b", the rest on a topic of its own.
    fn commit(count: u64) -> Recent {
        let log = LogId::new(uuid::Uuid::from_u128(1));
        let mint = CursorMint::new(log, Generation { counter: 1, nonce: 1 });
        let mut events = Vec::new();
        for seq in 1..=count {
            let topic = if seq % 2 == 0 { "a.b".to_owned() } else { format!("c.{seq}") };
            let mut client = Vec::new();
            Event { id: "x", topic: &topic, ..Event::default() }.write_client_part(&mut client);
            let appended_at = Timestamp::EPOCH.into();
            let seq = Seq::new(seq);
            let tag = ChainTag::START;
            let stamp = Stamp { seq, mint: &mint, tag, appended_at, fill_at: true, fill_id: None };
            write_entry(&mut events, &client, &stamp);
        }
        let recent = Recent::new(64 << 20);
        let (first, end) = (Seq::FIRST, Seq::new(count + 1));
        let (at, tag) = (Timestamp::EPOCH, ChainTag::START);
        recent.push(Commit { first, end, at, tag, events: events.into() });
        recent
    }

    #[test]
    fn a_read_ends_where_enough_is_found_within_a_commit_too() {
        const COUNT: u64 = 30_000;
        let recent = commit(COUNT);
        let filter = Filter::new(vec![Pattern::parse("a.b", &Limits::default()).unwrap()]);
        let (mut next, mut found, mut reads) = (Seq::FIRST, Vec::new(), 0);
        while next <= Seq::new(COUNT) {
            let run = recent.run(&filter, next, Seq::MAX).unwrap();
            let chunk = run.find(&filter, true).unwrap();
            assert!(chunk.first == next && chunk.end > next && !chunk.complete);
            assert!(chunk.events.len() < FOUND_BYTES + 200, "{}", chunk.events.len());
            for event in Events::new(&chunk.events) {
                let seq = Event::seq_of(event.unwrap()).unwrap();
                assert!(seq >= chunk.first && seq < chunk.end);
                found.push(seq.get());
            }
            (next, reads) = (chunk.end, reads + 1);
        }
        assert!(found.iter().copied().eq((1..=COUNT).filter(|seq| seq % 2 == 0)));
        assert!(reads > 2 && next == Seq::new(COUNT + 1), "{reads}");
        // Half of it is wanted, and passed on as it is to who does not mind.
        let run = recent.run(&filter, Seq::FIRST, Seq::MAX).unwrap();
        assert!(run.find(&filter, false).unwrap().complete);
    }

    #[test]
    fn many_patterns_on_many_events_are_not_for_a_thread_that_serves() {
        let parse = |text: String| Pattern::parse(&text, &Limits::default()).unwrap();
        let filter = Filter::new((0..64).map(|at| parse(format!("*.x{at}.>"))).collect());
        let is_quick = |count| {
            let recent = commit(count);
            recent.run(&filter, Seq::FIRST, Seq::MAX).unwrap().is_quick
        };
        assert!(is_quick(8) && !is_quick(9));
    }
}
