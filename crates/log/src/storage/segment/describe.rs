//! Looking at every event once, while a segment is built: block table, topics, fingerprints, chain.
//!
//! Must not know files, databases or compression. Invariant: what it describes is in order and
//! without a hole, by the events' own seqs and append times, and by what runs say.

use super::block::{self, Row};
use super::footer::RunTotals;
use super::topics::{Collector, Origin};
use crate::chain::{Hash, Link, hash};
use crate::storage::entries::{Entries, Entry, Run};
use crate::width::to_u32;
use tailmark_record::{Facts, Fingerprint, FingerprintKey, Seq, Timestamp};

/// A block before it is encoded.
pub(super) struct Plan {
    pub(super) first: Seq,
    pub(super) count: u32,
    pub(super) raw_len: usize,
}

/// What the footer says of the events.
pub(super) struct Described {
    pub(super) rows: Vec<Row>,
    pub(super) topics: Collector,
    /// What numbers in the table of topics count from.
    pub(super) origin: Origin,
    pub(super) fingerprints: Vec<(Seq, Fingerprint)>,
    pub(super) link: Link,
    /// Of the raw bytes of each block, to tell whether the database gives them back.
    pub(super) hashes: Vec<Hash>,
    pub(super) runs: RunTotals,
}

/// Looks at every event once.
pub(super) struct Describer<'a> {
    key: &'a FingerprintKey,
    next: Seq,
    last_at: Timestamp,
    rows: Vec<Row>,
    hashes: Vec<Hash>,
    link: Link,
    first: Seq,
    topics: Collector,
    fingerprints: Vec<(Seq, Fingerprint)>,
    /// Of events that are gone, and perhaps of others: repeats of them are still repeats. In order.
    named_before: &'a [(Seq, Fingerprint)],
    runs: RunTotals,
}

impl<'a> Describer<'a> {
    /// Begins with the event `first`, before which the chain has this link. `named_before` are the named
    /// events of runs, in order.
    pub(super) fn new(
        first: Seq,
        link: Link,
        key: &'a FingerprintKey,
        named_before: &'a [(Seq, Fingerprint)],
    ) -> Self {
        Describer {
            key,
            next: first,
            last_at: Timestamp { seconds: i64::MIN, nanos: 0 },
            rows: Vec::new(),
            hashes: Vec::new(),
            link,
            first,
            topics: Collector::default(),
            fingerprints: Vec::new(),
            named_before,
            runs: RunTotals::default(),
        }
    }

    /// The seq of the event that it looks at next.
    pub(super) fn next(&self) -> Seq {
        self.next
    }

    /// Looks at the events of the next block.
    pub(super) fn block(
        &mut self,
        plan: &Plan,
        raw: &[u8],
        codec: u8,
        stored: &[u8],
    ) -> Result<Row, &'static str> {
        let mut row = Row {
            first: plan.first,
            count: plan.count,
            raw_len: to_u32(raw.len()),
            stored_len: to_u32(stored.len()),
            crc_raw: crc32c::crc32c(raw),
            codec,
            tag_before: self.link.tag(),
            ..Row::default()
        };
        row.crc_stored =
            if codec == block::CODEC_NONE { row.crc_raw } else { crc32c::crc32c(stored) };
        let mut has_events = false;
        for entry in Entries::new(raw) {
            let event = match entry.map_err(|error| error.what())? {
                Entry::Event(event) => event,
                Entry::Run(run) => {
                    row.has_runs = true;
                    self.run(&run);
                    continue;
                }
            };
            let at = self.event(event)?;
            if !has_events {
                row.first_at = at;
            }
            row.last_at = at;
            has_events = true;
        }
        if row.end() != self.next || !has_events {
            return Err("the source changed while it was read");
        }
        self.rows.push(row);
        self.hashes.push(hash(raw));
        Ok(row)
    }

    fn run(&mut self, run: &Run) {
        let first = self.next;
        self.next = first.plus(u64::from(run.count));
        self.link = run.link;
        self.runs.add(run);
        // Those of events come from the events.
        let from = self.named_before.partition_point(|(seq, _)| *seq < first);
        let upto = self.named_before.partition_point(|(seq, _)| *seq < self.next);
        self.fingerprints.extend_from_slice(self.named_before.get(from..upto).unwrap_or_default());
    }

    fn event(&mut self, event: &[u8]) -> Result<Timestamp, &'static str> {
        let facts = Facts::scan(event).map_err(|error| error.what())?;
        if facts.seq != self.next {
            return Err("an event has another seq");
        }
        if facts.appended_at < self.last_at {
            return Err("the append time goes back");
        }
        self.last_at = facts.appended_at;
        self.next = self.next.next();
        self.link = self.link.then_event(event, &facts);
        if facts.has_client_id {
            let client_part = event.get(..facts.client_len).unwrap_or_default();
            self.fingerprints.push((facts.seq, self.key.fingerprint(client_part)));
        }
        let block = to_u32(self.rows.len());
        self.topics.note(facts.topic, facts.seq, facts.appended_at, block)?;
        Ok(facts.appended_at)
    }

    /// `None` if there was no event.
    pub(super) fn finish(self) -> Option<Described> {
        let first_at = self.rows.first()?.first_at;
        Some(Described {
            topics: self.topics,
            origin: Origin { first: self.first, first_at },
            rows: self.rows,
            fingerprints: self.fingerprints,
            link: self.link,
            hashes: self.hashes,
            runs: self.runs,
        })
    }
}
