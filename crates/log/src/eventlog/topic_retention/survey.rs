//! Going through the events that rules concern, the newest first, and telling which are dead.
//!
//! Memory is bounded: of newer events only hashes of topics and keys are known, and so many. Where there are more, a
//! pass is about a share of them, told apart by the hashes, and the next one about another.

use std::num::NonZeroU128;
use std::ops::Range;

use hashbrown::HashMap;

use crate::eventlog::topic_rules::{Keep, RuleFound, TopicRules};
use crate::storage::{RemovedReason, Store, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, FingerprintKey, Seq, Timestamp};

/// Topics and keys that one pass knows: as many as a table of 2^21 places takes before it grows. With what a table
/// takes while it grows that is 54 MiB of keys, or 104 MiB of topics.
pub(super) const ROOM: usize = (1 << 21) / 8 * 7;
/// Topics of which the rule is remembered.
const TOPICS: usize = 64 << 10;

/// Which of the hashes one pass is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) nth: u32,
    pub(super) of: u32,
}

impl Share {
    pub(super) const ALL: Share = Share { nth: 0, of: 1 };

    /// The next one, of more if one was too much.
    pub(super) fn next(self, was_too_much: bool) -> Share {
        let of = if was_too_much { self.of.saturating_mul(2).min(1 << 16) } else { self.of };
        Share { nth: (self.nth + 1) % of, of }
    }

    /// All others had their turn.
    pub(super) fn is_first(self) -> bool {
        self.nth == 0
    }

    fn has(self, hash: u128) -> bool {
        hash % u128::from(self.of) == u128::from(self.nth)
    }
}

/// Something that may go.
struct Candidate {
    seq: Seq,
    rule: u16,
    bytes: u32,
    topic: u128,
    key: Option<NonZeroU128>,
    /// Its rule has to do with keys.
    is_of_keys: bool,
    /// What is left of an event that was erased, or tells of that.
    is_of_erasure: bool,
}

/// Events of a topic that are newer and stay.
#[derive(Clone, Copy, Default)]
struct Newer {
    events: u64,
    /// What is left of erased ones, and notices: as many as events, and in the place of none. Who has an old event
    /// erased must not lose a new one for it.
    of_erasures: u64,
}

impl Newer {
    fn of(&mut self, it: &Candidate) -> &mut u64 {
        if it.is_of_erasure { &mut self.of_erasures } else { &mut self.events }
    }
}

/// What is dead of one run of events.
#[derive(Default)]
pub(super) struct Dead {
    /// In order.
    pub(super) seqs: Vec<(Range<Seq>, RemovedReason)>,
    /// Of the events, not compressed.
    pub(super) bytes: u64,
    /// All of a rule's events that are in there are too old.
    pub(super) has_aged: bool,
}

impl Dead {
    fn push(&mut self, seq: Seq, reason: RemovedReason) {
        match self.seqs.last_mut() {
            Some((range, last)) if range.end == seq && *last == reason => range.end = seq.next(),
            _ => self.seqs.push((seq..seq.next(), reason)),
        }
    }

    /// How many events.
    pub(super) fn events(&self) -> u64 {
        self.seqs.iter().map(|(range, _)| range.start.distance_to(range.end)).sum()
    }
}

/// What is known on the way from the newest event to the oldest.
pub(super) struct Surveyor<'a> {
    rules: &'a TopicRules,
    filter: Filter,
    /// Of each rule: events before this one are too old.
    aged: Vec<Seq>,
    key: FingerprintKey,
    share: Share,
    room: usize,
    counts: HashMap<u128, Newer>,
    /// Keys that newer events have.
    keys: HashMap<u128, ()>,
    /// Rules of topics.
    known: HashMap<Box<str>, Option<u16>>,
    pub(super) found: Vec<RuleFound>,
    /// There were more than it has room for.
    pub(super) is_full: bool,
}

impl<'a> Surveyor<'a> {
    /// # Errors
    /// As a read.
    pub(super) fn new(
        store: &dyn Store,
        key: FingerprintKey,
        rules: &'a TopicRules,
        aged_to: Option<Timestamp>,
        wall: Timestamp,
        share: Share,
        room: usize,
    ) -> Result<Surveyor<'a>, StoreError> {
        let seen = store.seen(wall);
        let aged = rules.as_slice().iter().map(|rule| {
            let Some((age, now)) = rule.max_age.zip(aged_to) else { return Ok(Seq::ZERO) };
            let until = now.before(age);
            // What is stamped ahead of the clock ages by when it was seen.
            let old = seen.partition_point(|(_, at)| *at <= until);
            let old = old.checked_sub(1).and_then(|last| seen.get(last));
            let by_seen = old.map_or(Seq::ZERO, |(last, _)| last.next());
            Ok(store.seek_time(until)?.max(by_seen))
        });
        let aged = aged.collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Surveyor {
            rules,
            filter: rules.filter(),
            aged,
            key,
            share,
            room,
            counts: HashMap::new(),
            keys: HashMap::new(),
            known: HashMap::new(),
            found: vec![RuleFound::default(); rules.as_slice().len()],
            is_full: false,
        })
    }

    /// Goes through the events of a range, which lie before all that it has gone through. `step` hears the seqs and the
    /// bytes that were read, and ends it with an error.
    ///
    /// # Errors
    /// As a read, and those of `step`.
    pub(super) fn dead(
        &mut self,
        store: &dyn Store,
        range: Range<Seq>,
        step: &mut dyn FnMut(u64, u64) -> Result<(), StoreError>,
    ) -> Result<Dead, StoreError> {
        let mut candidates = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let chunk = match store.read(at, range.end, &self.filter) {
                // Nothing goes that is damaged, and nothing stays for it.
                Err(StoreError::Damaged(damage)) if damage.from <= at && at <= damage.to => {
                    at = damage.to.next().min(range.end);
                    continue;
                }
                Err(StoreError::Removed(gone)) => {
                    at = gone.end.min(range.end);
                    continue;
                }
                Err(StoreError::Trimmed { oldest }) if oldest > at => {
                    at = oldest.min(range.end);
                    continue;
                }
                chunk => chunk?,
            };
            self.candidates(&chunk.events, at..chunk.end, &mut candidates)?;
            step(at.distance_to(chunk.end), chunk.events.len() as u64)?;
            at = chunk.end;
        }
        Ok(self.judge(&candidates, range.end))
    }

    fn candidates(
        &mut self,
        events: &[u8],
        range: Range<Seq>,
        out: &mut Vec<Candidate>,
    ) -> Result<(), StoreError> {
        let malformed = |error: tailmark_record::EventError| {
            StoreError::from(super::super::error::damage(range.start, range.end, error.what()))
        };
        for event in Events::new(events) {
            let event = event.map_err(malformed)?;
            let topic = Event::topic_of(event).map_err(malformed)?;
            let Some(rule) = self.rule_of(topic) else { continue };
            let Some(it) = self.rules.as_slice().get(usize::from(rule)) else { continue };
            let seq = Event::seq_of(event).map_err(malformed)?;
            let hash = |parts: [&[u8]; 2]| {
                // The length keeps the border between both.
                let len = (parts[0].len() as u64).to_le_bytes();
                let all = [&len[..], parts[0], parts[1]].concat();
                u128::from_le_bytes(self.key.fingerprint(&all).0)
            };
            let key = match it.keep {
                Keep::All => None,
                Keep::LatestPerKey => {
                    let key = Event::parse(event).map_err(malformed)?.key;
                    let hash = || hash([topic.as_bytes(), key.as_bytes()]);
                    if key.is_empty() { None } else { NonZeroU128::new(hash()) }
                }
            };
            let (topic, is_of_erasure) = match it.max_events {
                Some(_) => {
                    let event = Event::parse(event).map_err(malformed)?;
                    (hash([topic.as_bytes(), b""]), event.is_erased() || event.is_notice())
                }
                None => (0, false),
            };
            let bytes = u32::try_from(event.len()).unwrap_or(u32::MAX);
            let is_of_keys = it.keep == Keep::LatestPerKey;
            out.push(Candidate { seq, rule, bytes, topic, key, is_of_keys, is_of_erasure });
        }
        Ok(())
    }

    /// The rule of a topic, if it is one that removes anything.
    fn rule_of(&mut self, topic: &str) -> Option<u16> {
        if let Some(known) = self.known.get(topic) {
            return *known;
        }
        let rules = self.rules.as_slice();
        let rule = self.rules.of(topic).filter(|at| rules.get(*at).is_some_and(|it| it.removes()));
        let rule = rule.and_then(|at| u16::try_from(at).ok());
        if self.known.len() >= TOPICS {
            self.known.clear();
        }
        self.known.insert(topic.into(), rule);
        rule
    }

    /// Tells which go, the newest first.
    fn judge(&mut self, candidates: &[Candidate], end: Seq) -> Dead {
        let mut dead = Dead::default();
        let mut gone: Vec<(Seq, RemovedReason)> = Vec::new();
        for it in candidates.iter().rev() {
            let reason = self.verdict(it);
            let Some(found) = self.found.get_mut(usize::from(it.rule)) else { continue };
            found.events += 1;
            found.bytes += u64::from(it.bytes);
            let Some(reason) = reason else { continue };
            found.dead_bytes += u64::from(it.bytes);
            dead.bytes += u64::from(it.bytes);
            match reason {
                RemovedReason::Expired => found.expired += 1,
                _ => found.compacted += 1,
            }
            let aged = self.aged.get(usize::from(it.rule)).copied().unwrap_or_default();
            dead.has_aged |= end <= aged;
            gone.push((it.seq, reason));
        }
        for (seq, reason) in gone.into_iter().rev() {
            dead.push(seq, reason);
        }
        dead
    }

    fn verdict(&mut self, it: &Candidate) -> Option<RemovedReason> {
        let at = usize::from(it.rule);
        if self.aged.get(at).is_some_and(|aged| it.seq < *aged) {
            return Some(RemovedReason::Expired);
        }
        let max = self.rules.as_slice().get(at).and_then(|rule| rule.max_events);
        let key = it.key.map(NonZeroU128::get);
        // Where both count, all keys of a topic are judged in one pass, or none of it is.
        if !self.share.has(if max.is_some() { it.topic } else { key? }) {
            return None;
        }
        if let Some(key) = key {
            if self.keys.contains_key(&key) {
                return Some(RemovedReason::Compacted);
            }
            if self.has_room() {
                self.keys.insert(key, ());
            }
        }
        let max = max?;
        if let Some(count) = self.counts.get_mut(&it.topic).map(|newer| newer.of(it)) {
            // A key that found no room may be counted twice: then nothing is known to be too many.
            if *count >= max && !(self.is_full && it.is_of_keys) {
                return Some(RemovedReason::Expired);
            }
            *count += 1;
        } else if self.has_room() {
            let mut newer = Newer::default();
            *newer.of(it) += 1;
            self.counts.insert(it.topic, newer);
        }
        None
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.keys.len() + self.counts.len() < self.room;
        self.is_full |= !has_room;
        has_room
    }
}
