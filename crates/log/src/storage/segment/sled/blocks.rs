//! Blocks as sled takes them well: their keys, the fillers between them, the padding at the end.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::db::{self, Database, Layout, Value};
use crate::storage::segment::block::{self, HEADER_BYTES, PART_BYTES, Row, part_number};
use crate::storage::segment::store::{Fault, Store};
use tailmark_record::Seq;

/// sled moves a leaf or value over a quarter of this into `blobs/`, which it never syncs. A leaf
/// holds at most 17 keys, hence 3 parts of 64 KB beside their fillers: 192 KB.
const SEGMENT_BYTES: u32 = 1 << 20;
/// Keys with empty values beside each part, so that a leaf holds few parts.
const FILLERS: u8 = 7;
/// Written last, more than a segment of sled's: of damage in its last one sled says that it was
/// torn off, or does not open at all.
const PADDING_VALUES: u8 = 17;

/// The key of a part, or of one of the fillers (from 1) behind it.
fn key(first: Seq, part: usize, filler: u8) -> [u8; 11] {
    let mut key = [0; 11];
    key[..8].copy_from_slice(&first.get().to_be_bytes());
    key[8..10].copy_from_slice(&part_number(part).to_be_bytes());
    key[10] = filler;
    key
}

impl Store for Database {
    const VALUES_FILE: &'static str = "db";
    /// Where sled would put values that are too large for it, and never sync them.
    const EMPTY_DIRS: &'static [&'static str] = &["blobs"];
    const UNIT_BYTES: u32 = SEGMENT_BYTES;
    /// Its log buffers and tables. Measured as resident memory over many open ones;
    /// docs/performance.md.
    const OPEN_BYTES: u64 = 6 << 20;
    /// As the page that it pulled and as the leaf made of it.
    const COPIES: u64 = 2;

    fn open(dir: &Path, unit_bytes: u32, cache_bytes: u64) -> Result<Self, Fault> {
        Self::open_or_create(dir, Layout { segment_bytes: unit_bytes as usize, cache_bytes })
    }

    /// Keys first, without values, so that sled splits its leaves while they are empty.
    fn reserve(&self, first: Seq, parts: usize) -> Result<(), Fault> {
        for part in 0..parts {
            for filler in 0..=FILLERS {
                self.insert(&key(first, part, filler), &[])?;
            }
        }
        Ok(())
    }

    fn put(&self, row: &Row, stored: &[u8], value: &mut Vec<u8>) -> Result<(), Fault> {
        for (part, bytes) in stored.chunks(PART_BYTES).enumerate() {
            value.clear();
            value.extend_from_slice(&row.header(part));
            value.extend_from_slice(bytes);
            self.insert(&key(row.first, part, 0), value)?;
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Fault> {
        self.reserve(Seq::MAX, usize::from(PADDING_VALUES))?;
        for part in 0..PADDING_VALUES {
            self.insert(&key(Seq::MAX, usize::from(part), 0), &[part | 0x80; PART_BYTES])?;
        }
        self.flush()
    }

    fn release(dir: &Path) -> io::Result<()> {
        db::wait_released(dir)?;
        Self::remove_leftovers(dir)
    }

    fn fetch(&self, row: &Row, out: &mut [u8]) -> Result<(), Fault> {
        let first = fetch_part(self, row, 0)?;
        let joined;
        let stored = if row.parts() == 1 {
            first.get(HEADER_BYTES..).unwrap_or_default()
        } else {
            let mut all = Vec::with_capacity(row.stored_len as usize);
            all.extend_from_slice(first.get(HEADER_BYTES..).unwrap_or_default());
            for part in 1..row.parts() {
                let value = fetch_part(self, row, part)?;
                all.extend_from_slice(value.get(HEADER_BYTES..).unwrap_or_default());
            }
            joined = all;
            &joined
        };
        block::unpack(row, stored, out).map_err(|what| Fault::Corrupt(what.to_owned()))
    }

    fn plain(&self, row: &Row) -> Result<Bytes, Fault> {
        let value = fetch_part(self, row, 0)?;
        Ok(Bytes::from_owner(value).slice(HEADER_BYTES..))
    }

    fn close(self) -> Result<(), Fault> {
        self.drop_now()
    }

    fn is_leftover(name: &str) -> bool {
        db::is_half_snapshot(name)
    }

    fn remove_leftovers(dir: &Path) -> io::Result<()> {
        db::remove_half_snapshots(dir)
    }
}

/// Reads one part: its header is what it must be, its bytes are not checked yet.
fn fetch_part(db: &Database, row: &Row, part: usize) -> Result<Value, Fault> {
    let value = db.get(&key(row.first, part, 0))?;
    let value = value.ok_or_else(|| Fault::Corrupt("a block is missing".into()))?;
    if value.get(..HEADER_BYTES) != Some(&row.header(part)[..]) {
        return Err(Fault::Corrupt("a block has another header".into()));
    }
    Ok(value)
}
