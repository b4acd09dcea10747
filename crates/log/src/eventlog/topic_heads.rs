//! The last seq of each topic, for appends that expect one.
//!
//! Read from the engine when it is first asked for, kept from then on; what belongs to a commit
//! that is not durable is staged. A topic whose events are all trimmed has none, as after a
//! restart.

use std::collections::HashMap;

use crate::storage::{Engine, StoreError};
use tailmark_record::{Event, Seq};

#[derive(Default)]
pub(super) struct TopicHeads {
    durable: Option<HashMap<Box<str>, Seq>>,
    staged: HashMap<Box<str>, Seq>,
}

impl TopicHeads {
    /// Whether anybody has asked.
    pub(super) fn is_kept(&self) -> bool {
        self.durable.is_some()
    }

    /// The last readable seq of `topic`, that of the commit being made included; 0 = none.
    pub(super) fn get(&self, topic: &str, oldest: Seq) -> Seq {
        let durable = || self.durable.as_ref().and_then(|heads| heads.get(topic));
        let seq = self.staged.get(topic).or_else(durable).copied().unwrap_or_default();
        if seq < oldest { Seq::ZERO } else { seq }
    }

    /// Reads all heads. Only between two commits.
    pub(super) fn load(&mut self, engine: &dyn Engine) -> Result<(), StoreError> {
        let heads = engine.topics()?.into_iter();
        self.durable = Some(heads.map(|(topic, s)| (Box::from(&*topic), s.last_seq)).collect());
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
        if let Some(durable) = &mut self.durable {
            durable.extend(self.staged.drain());
        }
    }

    pub(super) fn roll_back(&mut self) {
        self.staged.clear();
    }
}
