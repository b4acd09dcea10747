//! Questions about a segment other than "what is in it": by time, by topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Cache, Lease};
use crate::storage::{StoreError, TopicStats};
use tailmark_record::{Seq, Timestamp};

impl Cache {
    /// The first seq of the segment appended at or after `time`; its end if there is none.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn seek_time(&self, lease: &Lease, time: Timestamp) -> Result<Seq, StoreError> {
        if time <= lease.first_at() {
            return Ok(lease.first());
        }
        if time > lease.last_at() {
            return Ok(lease.end());
        }
        self.with(lease, |blocks| {
            let rows = &blocks.index().rows;
            let at = rows.partition_point(|row| row.last_at < time);
            let Some(row) = rows.get(at) else { return Ok(lease.end()) };
            if time <= row.first_at {
                return Ok(row.first);
            }
            let mut found = row.end();
            blocks.visit(at, &mut |facts| {
                if facts.appended_at >= time {
                    found = facts.seq;
                }
                facts.appended_at < time
            })?;
            Ok(found)
        })
    }

    /// When the event `seq` of the segment was appended.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn time_of(&self, lease: &Lease, seq: Seq) -> Result<Timestamp, StoreError> {
        if !lease.contains(seq) {
            return Err(StoreError::Invalid("the seq is not in the segment"));
        }
        if seq == lease.first() {
            return Ok(lease.first_at());
        }
        if seq.next() == lease.end() {
            return Ok(lease.last_at());
        }
        self.with(lease, |blocks| {
            let at = blocks.index().block_of(seq);
            let mut found = None;
            blocks.visit(at, &mut |facts| {
                if facts.seq == seq {
                    found = Some(facts.appended_at);
                }
                facts.seq < seq
            })?;
            found.ok_or_else(|| blocks.index().damage(at, "an event is missing"))
        })
    }

    /// Events by topic from `from` on, exact. Free for a whole segment; else reads the blocks
    /// before `from` or those after it, whichever are fewer.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn topics_from(
        &self,
        lease: &Lease,
        from: Seq,
    ) -> Result<BTreeMap<Arc<str>, TopicStats>, StoreError> {
        let topics = || -> BTreeMap<_, _> { lease.topics().iter().cloned().collect() };
        if from <= lease.first() {
            return Ok(topics());
        }
        if from >= lease.end() {
            return Ok(BTreeMap::new());
        }
        self.with(lease, |blocks| {
            let (index, mut topics) = (blocks.index(), topics());
            let at = index.block_of(from);
            let before_is_less = at * 2 < index.rows.len();
            let range = if before_is_less { 0..at + 1 } else { at..index.rows.len() };
            if !before_is_less {
                for stats in topics.values_mut() {
                    stats.events = 0;
                }
            }
            for block in range {
                let mut unknown = false;
                blocks.visit(block, &mut |facts| {
                    if (facts.seq < from) == before_is_less {
                        let topic = std::str::from_utf8(facts.topic).ok();
                        match topic.and_then(|topic| topics.get_mut(topic)) {
                            Some(stats) if before_is_less => {
                                unknown |= stats.events == 0;
                                stats.events = stats.events.saturating_sub(1);
                            }
                            Some(stats) => stats.events += 1,
                            None => unknown = true,
                        }
                    }
                    true
                })?;
                if unknown {
                    return Err(index.damage(block, "its topics are not those of the footer"));
                }
            }
            topics.retain(|_, stats| stats.events > 0);
            Ok(topics)
        })
    }
}
