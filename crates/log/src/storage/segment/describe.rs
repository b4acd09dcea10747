//! Looking at every event once, while a segment is built: block table, topics, fingerprints, chain.
//!
//! Must not know files, databases or compression. Invariant: what it describes is in order and
//! without a hole, by the events' own seqs and append times.

use super::block::{self, Row};
use super::digest::{Chain, Hash, hash};
use super::footer::TopicEntry;
use crate::storage::TopicStats;
use crate::width::to_u32;
use tailmark_record::{Events, Facts, Fingerprint, FingerprintKey, Seq, Timestamp};

/// A block before it is encoded.
pub(super) struct Plan {
    pub(super) first: Seq,
    pub(super) count: u32,
    pub(super) raw_len: usize,
}

/// What the footer says of the events.
pub(super) struct Described {
    pub(super) rows: Vec<Row>,
    pub(super) topics: Vec<TopicEntry>,
    pub(super) fingerprints: Vec<(Seq, Fingerprint)>,
    pub(super) chain_end: Hash,
    /// Of the raw bytes of each block, to tell whether the database gives them back.
    pub(super) hashes: Vec<Hash>,
}

/// Looks at every event once.
pub(super) struct Describer<'a> {
    key: &'a FingerprintKey,
    next: Seq,
    last_at: Timestamp,
    rows: Vec<Row>,
    hashes: Vec<Hash>,
    chain: Chain,
    places: hashbrown::HashMap<Box<[u8]>, usize>,
    topics: Vec<TopicEntry>,
    last_topic: usize,
    fingerprints: Vec<(Seq, Fingerprint)>,
}

impl<'a> Describer<'a> {
    pub(super) fn new(first: Seq, key: &'a FingerprintKey) -> Self {
        Describer {
            key,
            next: first,
            last_at: Timestamp { seconds: i64::MIN, nanos: 0 },
            rows: Vec::new(),
            hashes: Vec::new(),
            chain: Chain::new(Hash::default()),
            places: hashbrown::HashMap::new(),
            topics: Vec::new(),
            last_topic: usize::MAX,
            fingerprints: Vec::new(),
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
            ..Row::default()
        };
        row.crc_stored =
            if codec == block::CODEC_NONE { row.crc_raw } else { crc32c::crc32c(stored) };
        for event in Events::new(raw) {
            let event = event.map_err(|error| error.what())?;
            let at = self.event(event)?;
            if row.first.next() == self.next {
                row.first_at = at;
            }
            row.last_at = at;
        }
        if row.end() != self.next {
            return Err("the source changed while it was read");
        }
        self.rows.push(row);
        self.hashes.push(hash(raw));
        Ok(row)
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
        self.chain.push(event, &facts);
        if facts.has_client_id {
            let client_part = event.get(..facts.client_len).unwrap_or_default();
            self.fingerprints.push((facts.seq, self.key.fingerprint(client_part)));
        }
        let block = to_u32(self.rows.len());
        let place = self.place(facts.topic)?;
        let topic = &mut self.topics[place];
        topic.stats = TopicStats {
            events: topic.stats.events + 1,
            last_seq: facts.seq,
            last_at: facts.appended_at,
        };
        if topic.blocks.last() != Some(&block) {
            topic.blocks.push(block);
        }
        Ok(facts.appended_at)
    }

    /// The topic's place in `topics`.
    fn place(&mut self, name: &[u8]) -> Result<usize, &'static str> {
        if self.topics.get(self.last_topic).is_some_and(|topic| topic.name.as_bytes() == name) {
            return Ok(self.last_topic);
        }
        let place = match self.places.get(name) {
            Some(&place) => place,
            None => {
                let text = std::str::from_utf8(name).map_err(|_| "a topic is not UTF-8")?;
                let (name, stats) = (text.to_owned(), TopicStats::default());
                self.topics.push(TopicEntry { name, stats, blocks: Vec::new() });
                self.places.insert(text.as_bytes().into(), self.topics.len() - 1);
                self.topics.len() - 1
            }
        };
        self.last_topic = place;
        Ok(place)
    }

    pub(super) fn finish(mut self) -> Described {
        self.topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Described {
            rows: self.rows,
            topics: self.topics,
            fingerprints: self.fingerprints,
            chain_end: self.chain.end(),
            hashes: self.hashes,
        }
    }
}
