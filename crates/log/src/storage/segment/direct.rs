//! Blocks read straight from the files of a database that is not open.
//!
//! A database's file holds each block's bytes in one piece, behind a header that no other bytes can
//! be taken for. They are looked for when the files are compared with the footer anyway. What is
//! read there later is compared with the block's header and both its checksums, so that it is right
//! or refused; whoever is refused opens the database, which says what is wrong. Nothing is written.
//! Must not know the database's format. docs/decisions/0007 and 0010.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use memchr::memmem::Finder;

use super::DB;
use super::block::{self, CODEC_NONE, HEADER_BYTES, PART_BYTES, Row};
use super::blocks::Blocks;
use super::database::Database;
use super::footer;
use super::index::Index;
use super::store::Store;
use crate::storage::StoreError;
use crate::width::to_u32;

const NOWHERE: u64 = u64::MAX;

/// Where each part of each block lies in its file.
pub(super) struct Places {
    /// The first part of each block.
    first_parts: Vec<u32>,
    offsets: Vec<u64>,
}

impl Places {
    /// Of blocks whose parts lie at these offsets, in order.
    fn of(rows: &[Row], offsets: Vec<u64>) -> Self {
        let mut parts = 0;
        let first_part = |row: &Row| {
            let first = parts;
            parts += to_u32(row.parts());
            first
        };
        Places { first_parts: rows.iter().map(first_part).collect(), offsets }
    }

    /// Those of the footer; `None` where it has none that can be read.
    pub(super) fn noted(index: &Index) -> Option<Places> {
        let segment = &index.segment;
        if !segment.has_section(footer::kind::PLACES) {
            return None;
        }
        let bytes = segment.section(footer::kind::PLACES).ok()?;
        let parts = index.rows.iter().map(Row::parts).sum();
        Some(Places::of(&index.rows, footer::decode_places(&bytes, parts)?))
    }

    /// The offset of each part of each block, in order.
    pub(super) fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        (self.first_parts.len() * 4 + self.offsets.len() * 8) as u64
    }
}

/// Looks for blocks in the bytes of a file that goes by.
pub(super) struct Locator<'a> {
    rows: &'a [Row],
    finders: Vec<Finder<'static>>,
    places: Places,
}

impl<'a> Locator<'a> {
    /// Windows of the file must overlap by so much, that no header is seen twice or not at all.
    pub(super) const OVERLAP: usize = HEADER_BYTES - 1;

    pub(super) fn new(rows: &'a [Row]) -> Self {
        let mut parts = 0;
        let mut prefixes = BTreeSet::new();
        for row in rows {
            parts += row.parts();
            // The second and the last one stand for all between.
            for part in [0, 1, row.parts() - 1] {
                if part < row.parts() {
                    prefixes.insert(row.header_prefix(part));
                }
            }
        }
        let finders = prefixes.iter().map(|prefix| Finder::new(prefix).into_owned()).collect();
        Locator { rows, finders, places: Places::of(rows, vec![NOWHERE; parts]) }
    }

    /// Looks at the bytes from `offset` on.
    pub(super) fn see(&mut self, offset: u64, window: &[u8]) {
        for finder in &self.finders {
            for at in finder.find_iter(window) {
                // One that is cut is whole in the next window.
                let header = window.get(at..).and_then(|rest| rest.first_chunk());
                let Some(header) = header else { break };
                let (first, part) = block::place_of(header);
                let Ok(row) = self.rows.binary_search_by_key(&first, |row| row.first) else {
                    continue;
                };
                if part < self.rows[row].parts() && self.rows[row].header(part) == *header {
                    let place = self.places.first_parts[row] as usize + part;
                    self.places.offsets[place] = offset + at as u64;
                }
            }
        }
    }

    /// Where the blocks are, if each part of each was seen.
    pub(super) fn finish(self) -> Option<Places> {
        (!self.places.offsets.contains(&NOWHERE)).then_some(self.places)
    }
}

/// A segment that can be read directly.
pub(super) struct Located {
    pub(super) index: Arc<Index>,
    pub(super) places: Places,
}

impl Located {
    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.index.bytes() + self.places.bytes()
    }
}

/// Which blocks of a segment have been read, by whomever.
pub(super) struct Seen {
    /// A bit each.
    blocks: Box<[AtomicU64]>,
    left: AtomicUsize,
}

impl Seen {
    pub(super) fn new(blocks: usize) -> Self {
        let words = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0));
        Seen { blocks: words.collect(), left: AtomicUsize::new(blocks) }
    }

    /// Whether all have been.
    pub(super) fn is_whole(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    fn note(&self, at: usize) {
        let bit = 1 << (at % 64);
        if self.blocks[at / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One read from a segment's file.
pub(super) struct Direct {
    located: Arc<Located>,
    seen: Arc<Seen>,
    path: PathBuf,
    file: File,
    scratch: RefCell<Vec<u8>>,
}

impl Direct {
    pub(super) fn open(located: Arc<Located>, seen: Arc<Seen>) -> Result<Direct, StoreError> {
        let segment = &located.index.segment;
        let path = segment.dir().join(DB).join(Database::VALUES_FILE);
        let file = segment.disk.open_read(&path)?;
        Ok(Direct { located, seen, path, file, scratch: RefCell::default() })
    }

    /// Reads what was stored of a block, behind the header of its first part.
    fn stored(&self, at: usize, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let Located { index, places } = &*self.located;
        self.seen.note(at);
        let row = &index.rows[at];
        let stored_len = row.stored_len as usize;
        out.resize(HEADER_BYTES + stored_len, 0);
        // From the last part on: each header is overwritten by the end of the part before it.
        for part in (0..row.parts()).rev() {
            let start = part * PART_BYTES;
            let end = HEADER_BYTES + stored_len.min(start + PART_BYTES);
            let bytes = &mut out[start..end];
            let offset = places.offsets[places.first_parts[at] as usize + part];
            let read = || self.file.read_exact_at(bytes, offset);
            index.segment.disk.run("read", &self.path, read)?;
            if out[start..start + HEADER_BYTES] != row.header(part) {
                return Err(index.damage(at, "a block has another header"));
            }
        }
        Ok(())
    }
}

impl Blocks for Direct {
    fn index(&self) -> &Index {
        &self.located.index
    }

    fn block_into(&self, at: usize, out: &mut [u8]) -> Result<(), StoreError> {
        let mut scratch = self.scratch.borrow_mut();
        self.stored(at, &mut scratch)?;
        let unpacked = block::unpack(&self.index().rows[at], &scratch[HEADER_BYTES..], out);
        unpacked.map_err(|what| self.index().damage(at, what))
    }

    fn block(&self, at: usize) -> Result<Bytes, StoreError> {
        let row = &self.index().rows[at];
        if row.codec != CODEC_NONE {
            let mut raw = vec![0; row.raw_len as usize];
            self.block_into(at, &mut raw)?;
            return Ok(raw.into());
        }
        let mut stored = Vec::new();
        self.stored(at, &mut stored)?;
        let events = Bytes::from(stored).slice(HEADER_BYTES..);
        block::check_plain(row, &events).map_err(|what| self.index().damage(at, what))?;
        Ok(events)
    }
}
