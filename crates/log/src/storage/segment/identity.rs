//! The first section of a footer: what a segment is.
//!
//! The one thing that bincode writes: numbers and short texts of our own, under a CRC, read from a
//! slice with a limit.

use bincode::Options;
use serde::{Deserialize, Serialize};

use super::digest::XXH3_128;
use super::problem::{FORMAT, Problem, Result};
use crate::chain::{Hash, Link};
use tailmark_record::{Generation, GenerationEntry, GenerationTable, LogId, Seq, Timestamp};

/// Identities are some hundred bytes; each generation adds less than 300.
const MAX_IDENTITY_BYTES: u64 = 64 << 20;

/// What a segment is. Written by bincode: fixed-width little-endian integers in this order, lengths
/// as u64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredIdentity {
    log_id: [u8; 16],
    first: u64,
    end: u64,
    revision: u32,
    first_at: (i64, i32),
    last_at: (i64, i32),
    raw_bytes: u64,
    stored_bytes: u64,
    blocks: u32,
    unit_bytes: u32,
    digest_algorithm: u8,
    chain_start: Hash,
    chain_end: Hash,
    generations: Vec<StoredGeneration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredGeneration {
    counter: u16,
    nonce: u32,
    first: u64,
    since: (i64, i32),
    cause: String,
}

/// What a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) log_id: LogId,
    pub(super) first: Seq,
    pub(super) end: Seq,
    pub(super) revision: u32,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
    /// Bytes of all events.
    pub(super) raw_bytes: u64,
    /// The same as compressed.
    pub(super) stored_bytes: u64,
    pub(super) blocks: u32,
    /// [`super::store::Store::UNIT_BYTES`] of its database.
    pub(super) unit_bytes: u32,
    /// The chain before its first event.
    pub(super) link_before: Link,
    /// The chain at its last event.
    pub(super) link: Link,
    /// The log's whole history when the segment was sealed.
    pub(super) generations: GenerationTable,
}

fn bincode_options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(MAX_IDENTITY_BYTES)
        .reject_trailing_bytes()
}

fn pair(t: Timestamp) -> (i64, i32) {
    (t.seconds, t.nanos)
}

fn time((seconds, nanos): (i64, i32)) -> Timestamp {
    Timestamp { seconds, nanos }
}

impl Identity {
    pub(super) fn encode(&self) -> Vec<u8> {
        let stored = StoredIdentity {
            log_id: *self.log_id.uuid().as_bytes(),
            first: self.first.get(),
            end: self.end.get(),
            revision: self.revision,
            first_at: pair(self.first_at),
            last_at: pair(self.last_at),
            raw_bytes: self.raw_bytes,
            stored_bytes: self.stored_bytes,
            blocks: self.blocks,
            unit_bytes: self.unit_bytes,
            digest_algorithm: XXH3_128,
            chain_start: self.link_before.bytes(),
            chain_end: self.link.bytes(),
            generations: self
                .generations
                .entries()
                .iter()
                .map(|entry| StoredGeneration {
                    counter: entry.generation.counter,
                    nonce: entry.generation.nonce,
                    first: entry.first.get(),
                    since: pair(entry.since),
                    cause: entry.cause.clone(),
                })
                .collect(),
        };
        // Writing plain numbers and short strings to memory cannot fail; an empty section would be
        // refused by the check that follows every build.
        bincode_options().serialize(&stored).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Identity> {
        let stored: StoredIdentity =
            bincode_options().deserialize(bytes).map_err(|_| "its identity cannot be read")?;
        if stored.first == 0 || stored.first >= stored.end || stored.blocks == 0 {
            return Err("its identity makes no sense".into());
        }
        if stored.digest_algorithm != XXH3_128 {
            return Err(Problem::Version(FORMAT));
        }
        let generations = stored
            .generations
            .into_iter()
            .map(|entry| GenerationEntry {
                generation: Generation { counter: entry.counter, nonce: entry.nonce },
                first: Seq::new(entry.first),
                since: time(entry.since),
                cause: entry.cause,
            })
            .collect();
        Ok(Identity {
            log_id: LogId::new(uuid::Uuid::from_bytes(stored.log_id)),
            first: Seq::new(stored.first),
            end: Seq::new(stored.end),
            revision: stored.revision,
            first_at: time(stored.first_at),
            last_at: time(stored.last_at),
            raw_bytes: stored.raw_bytes,
            stored_bytes: stored.stored_bytes,
            blocks: stored.blocks,
            unit_bytes: stored.unit_bytes,
            link_before: Link::new(stored.chain_start),
            link: Link::new(stored.chain_end),
            generations: GenerationTable::new(generations)
                .ok_or(Problem::Damaged("its generations make no sense"))?,
        })
    }
}
