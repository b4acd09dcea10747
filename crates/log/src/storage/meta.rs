//! `log.meta`: who a log is. Small, replaced atomically, and written again from the journal if it
//! is lost.
//!
//! Bytes: magic, format version, length and CRC-32C (little-endian), then the body in bincode with
//! fixed-width integers. The version stands outside the body, so that any program can tell.

use std::borrow::Cow;
use std::path::Path;

use bincode::Options as _;
use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, StoreError, crc::crc32c, disk::Disk};
use crate::width::to_u32;
use tailmark_record::{
    FingerprintKey, Generation, GenerationEntry, GenerationTable, LogId, Seq, Timestamp,
};

/// Its name in the data directory.
pub const META_FILE: &str = "log.meta";
const MAGIC: &[u8; 8] = b"TMMETA\0\x01";
const HEADER_BYTES: usize = 20;
const MAX_BYTES: u64 = 16 << 20;

/// Identity and history of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Identity.
    pub log: LogId,
    /// Secret for telling repeats.
    pub key: FingerprintKey,
    /// History.
    pub generations: GenerationTable,
    /// When the log was created.
    pub created_at: Timestamp,
    /// Bytes of a slot; fixed at creation.
    pub slot_bytes: u64,
    /// Slot files that exist.
    pub slot_files: u32,
    /// How the last stop ended, if it was clean.
    pub clean_stop: Option<CleanStop>,
    /// Where it was when it was opened last, as its engine tells places apart; zeros = not known.
    pub whereabouts: [u8; 16],
    /// The shared journal that this is a copy of, as people call it; `None` = a log of its own. Programs that know of no
    /// copies take such a file for damaged, and so open none.
    pub copy_of: Option<String>,
}

/// Where the journal ended at a clean stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanStop {
    /// Number of the last slot.
    pub slot: u64,
    /// Offset after its last frame.
    pub end: u64,
    /// The head.
    pub head: u64,
}

#[derive(Serialize, Deserialize)]
struct Body {
    log: [u8; 16],
    key: [u8; 16],
    created_at: i64,
    slot_bytes: u64,
    slot_files: u32,
    clean_stop: Option<CleanStop>,
    generations: Vec<Row>,
    whereabouts: [u8; 16],
}

/// The body of a copy.
#[derive(Serialize, Deserialize)]
struct CopyBody {
    body: Body,
    copy_of: String,
}

#[derive(Serialize, Deserialize)]
struct Row {
    counter: u16,
    nonce: u32,
    first: u64,
    since: i64,
    cause: String,
}

fn codec() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_limit(MAX_BYTES)
        .with_fixint_encoding()
        .with_little_endian()
        .reject_trailing_bytes()
}

impl Meta {
    /// The bytes of the file.
    ///
    /// # Errors
    /// When the history is absurdly long.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let body = Body {
            log: *self.log.uuid().as_bytes(),
            key: *self.key.bytes(),
            created_at: self.created_at.as_nanos(),
            slot_bytes: self.slot_bytes,
            slot_files: self.slot_files,
            clean_stop: self.clean_stop,
            generations: self.generations.entries().iter().map(Row::of).collect(),
            whereabouts: self.whereabouts,
        };
        let body = match self.copy_of.clone() {
            None => codec().serialize(&body),
            Some(copy_of) => codec().serialize(&CopyBody { body, copy_of }),
        };
        let body =
            body.map_err(|_| StoreError::Invalid("the history of generations is too long"))?;
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&to_u32(body.len()).to_le_bytes());
        out.extend_from_slice(&crc32c(0, &body).to_le_bytes());
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// Reads the bytes of a file of this format, or of the one before, which does not say where the log was.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8], format: u32) -> Result<Meta, MetaProblem> {
        let header = bytes.get(..HEADER_BYTES).ok_or(MetaProblem::Damaged)?;
        if &header[..8] != MAGIC {
            return Err(MetaProblem::Damaged);
        }
        let u32_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if u32_at(8) != format {
            return Err(MetaProblem::Format(u32_at(8)));
        }
        let body = &bytes[HEADER_BYTES..];
        if u32_at(12) as usize != body.len() || u32_at(16) != crc32c(0, body) {
            return Err(MetaProblem::Damaged);
        }
        let nowhere = [0; 16];
        let body = if format == 1 { Cow::Owned([body, &nowhere].concat()) } else { body.into() };
        let (body, copy_of) = decode_body(&body).ok_or(MetaProblem::Damaged)?;
        let generations = body.generations.into_iter().map(Row::into_entry).collect();
        Ok(Meta {
            log: LogId::new(uuid::Uuid::from_bytes(body.log)),
            key: FingerprintKey::new(body.key),
            generations: GenerationTable::new(generations).ok_or(MetaProblem::Damaged)?,
            created_at: Timestamp::from_nanos(body.created_at),
            slot_bytes: body.slot_bytes,
            slot_files: body.slot_files,
            clean_stop: body.clean_stop,
            whereabouts: body.whereabouts,
            copy_of,
        })
    }

    /// Reads the file of a data directory; `None` when it is missing or damaged.
    ///
    /// # Errors
    /// I/O, or another format.
    pub fn load(disk: &Disk, dir: &Path, format: u32) -> Result<Option<Meta>, StoreError> {
        let path = dir.join(META_FILE);
        let Some(bytes) = disk.read(&path)? else { return Ok(None) };
        match Meta::decode(&bytes, format) {
            Ok(meta) => Ok(Some(meta)),
            Err(MetaProblem::Damaged) => {
                tracing::warn!(path = %path.display(), "log.meta is damaged; using the journal's copy");
                Ok(None)
            }
            Err(MetaProblem::Format(found)) => {
                Err(StoreError::Format { path: dir.to_owned(), found, supported: format })
            }
        }
    }

    /// Replaces the file of a data directory.
    ///
    /// # Errors
    /// I/O; the old file stays.
    pub fn store(&self, disk: &Disk, dir: &Path) -> Result<(), StoreError> {
        disk.replace(&dir.join(META_FILE), &self.encode()?)
    }
}

fn decode_body(bytes: &[u8]) -> Option<(Body, Option<String>)> {
    if let Ok(body) = codec().deserialize(bytes) {
        return Some((body, None));
    }
    let copy: CopyBody = codec().deserialize(bytes).ok()?;
    Some((copy.body, Some(copy.copy_of)))
}

/// Why bytes are not a `log.meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaProblem {
    /// Not what was written.
    Damaged,
    /// Of another format version.
    Format(u32),
}

impl Row {
    fn of(entry: &GenerationEntry) -> Row {
        Row {
            counter: entry.generation.counter,
            nonce: entry.generation.nonce,
            first: entry.first.get(),
            since: entry.since.as_nanos(),
            cause: entry.cause.clone(),
        }
    }

    fn into_entry(self) -> GenerationEntry {
        GenerationEntry {
            generation: Generation { counter: self.counter, nonce: self.nonce },
            first: Seq::new(self.first),
            since: Timestamp::from_nanos(self.since),
            cause: self.cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_of_what_and_a_log_of_its_own_has_no_word_for_it() {
        let own = Meta {
            log: LogId::new(uuid::Uuid::from_u128(1)),
            key: FingerprintKey::new([2; 16]),
            generations: GenerationTable::created(3, Timestamp::EPOCH),
            created_at: Timestamp::EPOCH,
            slot_bytes: 1 << 20,
            slot_files: 2,
            clean_stop: None,
            whereabouts: [0; 16],
            copy_of: None,
        };
        let copy = Meta { copy_of: Some("TM_orders".to_owned()), ..own.clone() };
        let (one, other) = (own.encode().unwrap(), copy.encode().unwrap());
        assert_eq!(other.len(), one.len() + 8 + "TM_orders".len());
        assert_eq!(Meta::decode(&one, FORMAT_VERSION), Ok(own));
        assert_eq!(Meta::decode(&other, FORMAT_VERSION), Ok(copy));
    }
}
