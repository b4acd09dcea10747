//! The last seq of each topic of which somebody expects one.
//!
//! A topic is looked up in the engine when it is first asked for, and kept from then on within a
//! bound; what belongs to a commit that is not durable is staged. A topic whose events are all
//! trimmed has none, as after a restart. Invariants: while anything is kept, each commit's topics
//! are staged; what is kept is what the engine would answer.

use std::collections::HashMap;

use crate::bounded::Bounded;
use crate::storage::{Store, StoreError};
use tailmark_record::{Event, Seq};

/// Room for the topics that are kept: some ten thousand.
const KEPT_BYTES: usize = 4 << 20;
/// What one takes beside its name.
const ENTRY_BYTES: usize = 128;
/// Commits without a question after which nobody pays for it any more.
const IDLE_COMMITS: u32 = 256;

pub(super) struct TopicHeads {
    known: Bounded<Box<str>, Seq>,
    staged: HashMap<Box<str>, Seq>,
    /// Commits since the last question; `None` = topics are not staged.
    idle: Option<u32>,
    /// As of so many times that events were taken out.
    as_of: u64,
}

impl Default for TopicHeads {
    fn default() -> Self {
        TopicHeads { known: Bounded::new(KEPT_BYTES), staged: HashMap::new(), idle: None, as_of: 0 }
    }
}

impl TopicHeads {
    /// Whether the topics of a commit are to be staged.
    pub(super) fn is_kept(&self) -> bool {
        self.idle.is_some()
    }

    /// The last readable seq of `topic`, that of the commit being made included; 0 = none. Looked up
    /// before by [`TopicHeads::look_up`].
    pub(super) fn get(&self, topic: &str, oldest: Seq) -> Seq {
        let seq = self.staged.get(topic).or_else(|| self.known.get(topic));
        let seq = seq.copied().unwrap_or_default();
        if seq < oldest { Seq::ZERO } else { seq }
    }

    /// Events were taken out so many times: what was known before that may have gone.
    pub(super) fn note_removals(&mut self, removals: u64) {
        if std::mem::replace(&mut self.as_of, removals) != removals {
            drop(self.known.clear());
        }
    }

    /// Makes sure that the head of a topic is known, and has the topics of commits staged from now on:
    /// unless that is so, only between two commits.
    pub(super) fn look_up(&mut self, topic: &str, store: &dyn Store) -> Result<(), StoreError> {
        self.idle = Some(0);
        if self.staged.contains_key(topic) {
            return Ok(());
        }
        if self.known.get(topic).is_some() {
            self.known.touch(topic);
            return Ok(());
        }
        // All of the engine is older than the commit that is being made. Who expects a head has had what
        // was there before indexed: it is a step or two.
        let head = loop {
            if let Some(head) = store.topic_head(topic)? {
                break head;
            }
        };
        drop(self.known.insert(topic.into(), head, topic.len() + ENTRY_BYTES));
        Ok(())
    }

    /// Notes an event of the commit that is being made.
    pub(super) fn stage(&mut self, client_part: &[u8], seq: Seq) {
        // Encoded by us a moment ago: it has a topic.
        let Ok(topic) = Event::topic_of(client_part) else { return };
        match self.staged.get_mut(topic) {
            Some(last) => *last = seq,
            None => {
                self.staged.insert(topic.into(), seq);
            }
        }
    }

    pub(super) fn promote(&mut self) {
        let Some(idle) = &mut self.idle else { return };
        *idle += 1;
        if *idle > IDLE_COMMITS {
            // Nobody keeps it right from here on.
            self.idle = None;
            drop(self.known.clear());
        }
        for (topic, seq) in self.staged.drain() {
            if let Some(known) = self.known.get_mut(&topic) {
                *known = seq;
            }
        }
    }

    pub(super) fn roll_back(&mut self) {
        self.staged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::{Memory, Options};
    use tailmark_record::{FingerprintKey, GenerationTable, LogId, Timestamp};

    fn part(topic: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Event { topic, ..Event::default() }.write_client_part(&mut out);
        out
    }

    #[test]
    fn what_is_kept_is_bounded_and_nobody_pays_for_what_nobody_asks() {
        let key = FingerprintKey::new([1; 16]);
        let log = LogId::new(uuid::Uuid::from_u128(1));
        let generations = GenerationTable::created(1, Timestamp::EPOCH);
        let engine = Memory::new(log, key, generations, Options::default());
        let mut heads = TopicHeads::default();
        assert!(!heads.is_kept());
        for n in 0..100_000 {
            heads.look_up(&format!("topic.{n}"), &engine).unwrap();
        }
        assert!(heads.known.bytes() <= KEPT_BYTES && heads.known.len() > 10_000);
        // Topics that nobody asked for leave no trace.
        let known = heads.known.len();
        heads.stage(&part("topic.99999"), Seq::new(7));
        heads.stage(&part("other"), Seq::new(8));
        assert_eq!(heads.get("other", Seq::FIRST), Seq::new(8));
        heads.promote();
        assert_eq!((heads.known.len(), heads.staged.len()), (known, 0));
        assert_eq!(heads.get("topic.99999", Seq::FIRST), Seq::new(7));
        assert_eq!(heads.get("topic.99999", Seq::new(8)), Seq::ZERO, "trimmed");
        heads.stage(&part("topic.99999"), Seq::new(9));
        heads.roll_back();
        assert_eq!(heads.get("topic.99999", Seq::FIRST), Seq::new(7));
        (0..=IDLE_COMMITS).for_each(|_| heads.promote());
        assert!(!heads.is_kept() && heads.known.is_empty());
    }
}
