//! Questions about a segment other than "what is in it": by time, by topic.

use std::ops::Range;

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_128;

use super::{Cache, Lease};
use crate::storage::{LookBack, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Seq, Timestamp};

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
            // What is gone before it may have been appended then: it begins behind the last event that was not.
            let (mut found, mut at) = (row.first, at);
            if time <= row.first_at {
                match at.checked_sub(1).filter(|before| rows[*before].has_runs) {
                    Some(before) => at = before,
                    None => return Ok(found),
                }
            }
            blocks.visit(at, &mut |facts| {
                let is_before = facts.appended_at < time;
                found = if is_before { facts.seq.next() } else { found };
                is_before
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
        if lease.removed().runs == 0 {
            if seq == lease.first() {
                return Ok(lease.first_at());
            }
            if seq.next() == lease.end() {
                return Ok(lease.last_at());
            }
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
            match found {
                Some(time) => Ok(time),
                None if blocks.index().rows[at].has_runs => {
                    // Says which are gone.
                    blocks.read(seq, seq.next(), &Filter::ALL)?;
                    Err(blocks.index().damage(at, "an event has another seq"))
                }
                None => Err(blocks.index().damage(at, "an event is missing")),
            }
        })
    }

    /// The chain at the event `seq` of the segment, where a block ends with it.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn tag_beside(&self, lease: &Lease, seq: Seq) -> Result<Option<ChainTag>, StoreError> {
        if seq.next() == lease.end() {
            return Ok(Some(lease.link().tag()));
        }
        self.with(lease, |blocks| {
            let rows = &blocks.index().rows;
            let at = rows.partition_point(|row| row.first <= seq);
            Ok(rows.get(at).filter(|row| row.first == seq.next()).map(|row| row.tag_before))
        })
    }

    /// Counts the events of a part of the segment by topic, up to the end of the block in which
    /// `max_bytes` of them are reached; answers the seq after the last that it counted.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn count_topics(
        &self,
        lease: &Lease,
        range: Range<Seq>,
        max_bytes: usize,
    ) -> Result<(TopicCounts, Seq), StoreError> {
        self.with(lease, |blocks| {
            let (index, mut counts) = (blocks.index(), TopicCounts::default());
            let (mut bytes, mut next) = (0, range.start);
            while next < range.end && bytes < max_bytes {
                let at = index.block_of(next);
                blocks.visit(at, &mut |facts| {
                    if range.contains(&facts.seq) && facts.seq >= next {
                        *counts.0.entry(xxh3_128(facts.topic)).or_default() += 1;
                    }
                    facts.seq < range.end
                })?;
                let row = &index.rows[at];
                bytes += row.raw_len as usize;
                next = row.end().min(range.end);
            }
            Ok((counts, next))
        })
    }

    /// Looks for the newest events of the segment below `end` that match: at most `count` of them,
    /// and none below `oldest`. Goes back until it has them or has looked through so many bytes.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn look_back(
        &self,
        lease: &Lease,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        let range = range.start.max(lease.first())..range.end.min(lease.end());
        if range.is_empty() || count == 0 {
            return Err(StoreError::Invalid("the range is not in the segment"));
        }
        if !self.may_match(lease, filter) {
            return Ok(LookBack { from: range.start, events: 0 });
        }
        self.with(lease, |blocks| blocks.look_back(range.clone(), filter, count))
    }
}

/// How many events there are of each topic, by the hash of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicCounts(HashMap<u128, u64>);

impl TopicCounts {
    /// Of one topic.
    pub fn of(&self, topic: &str) -> u64 {
        self.0.get(&xxh3_128(topic.as_bytes())).copied().unwrap_or_default()
    }

    /// Adds others.
    pub fn add(&mut self, others: &TopicCounts) {
        for (topic, count) in &others.0 {
            *self.0.entry(*topic).or_default() += count;
        }
    }
}
