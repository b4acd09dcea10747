//! A segment's database while it is open, in place or as a copy: checked files, block table, reads;
//! and how many are open, for how long. Invariants: no file of the database differs
//! from the footer when sled first sees it; a block's bytes pass the CRC of what was stored and the
//! CRC of its events before anybody gets them.

mod copy;
mod databases;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use self::copy::Copy;
pub(super) use self::databases::{Bounds, DatabaseSlot, OpenDatabases};
use super::block::{self, CODEC_NONE};
use super::blocks::Blocks;
use super::database::Database;
use super::files::check_files;
use super::footer::FileEntry;
use super::index::Index;
use super::store::{Fault, Store};
use super::{DB, Segment};
use crate::storage::{Damage, StoreError};

/// An open database.
pub(super) struct Open {
    index: Arc<Index>,
    db: Database,
    /// Blocks that sled has read, which is memory that it may hold.
    pulled: Box<[AtomicBool]>,
    pulled_bytes: AtomicU64,
    /// What is wrong with the segment's files, where this is a copy of altered ones.
    pub(super) altered: Option<Damage>,
    // After the database, so that it is closed before the copy is deleted.
    _copy: Option<Copy>,
}

impl Open {
    /// Memory that the database may take for one that is read.
    pub(super) const CACHE_BYTES: u64 = 8 << 20;

    /// Checks the segment's database against its footer and opens it in place. Where a file was
    /// altered, a copy is opened: what it says of each block is proved by the block's checksums, so
    /// the damage costs no more events than it must.
    pub(super) fn in_place(segment: Arc<Segment>, cache_bytes: u64) -> Result<Open, StoreError> {
        let index = Arc::new(Index::load(Arc::clone(&segment))?);
        let db_dir = segment.dir().join(DB);
        let checked = check_files(&segment, &db_dir, None);
        let altered = match checked {
            Ok(()) => {
                let remove = || Database::remove_leftovers(&db_dir);
                segment.disk.run("clean", &db_dir, remove)?;
                return Self::start(index, &db_dir, cache_bytes);
            }
            Err(StoreError::Damaged(damage)) => damage,
            Err(other) => return Err(other),
        };
        let scratch = segment.dir().parent().map(Path::to_owned).unwrap_or_default();
        // Whatever keeps the copy from being read, a full disk too: the damage is what counts.
        match Self::copied(segment, &scratch, cache_bytes) {
            Ok(open) => Ok(open),
            Err(_) => Err(altered.into()),
        }
    }

    /// Opens a copy made below `scratch`; not a byte of the segment changes.
    pub(super) fn copied(
        segment: Arc<Segment>,
        scratch: &Path,
        cache_bytes: u64,
    ) -> Result<Open, StoreError> {
        let copy = Copy::of(&segment, scratch)?;
        let altered = match check_files(&segment, copy.path(), None) {
            Ok(()) => None,
            Err(StoreError::Damaged(mut damage)) => {
                // sled would make a fresh database where there is none.
                let is_missing = |file: &FileEntry| !copy.path().join(&file.name).exists();
                if segment.files.iter().any(is_missing) {
                    return Err(damage.into());
                }
                if let Some(name) = damage.file.file_name() {
                    damage.file = segment.dir().join(DB).join(name);
                }
                Some(damage)
            }
            Err(other) => return Err(other),
        };
        let index = Index::load(segment).map(Arc::new);
        match index.and_then(|index| Self::start(index, copy.path(), cache_bytes)) {
            Ok(open) => Ok(Open { altered, _copy: Some(copy), ..open }),
            Err(error) => Err(altered.map_or(error, StoreError::from)),
        }
    }

    fn start(index: Arc<Index>, db_dir: &Path, cache_bytes: u64) -> Result<Open, StoreError> {
        let unit_bytes = index.segment.identity.unit_bytes;
        let opened = Database::open(db_dir, unit_bytes, cache_bytes);
        let db = opened.map_err(|fault| match fault {
            Fault::Io(source) => StoreError::Io { action: "open", path: db_dir.to_owned(), source },
            Fault::Corrupt(detail) => index.segment.damage_of_all(db_dir, &detail).into(),
        })?;
        let pulled = index.rows.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Open { index, db, pulled, pulled_bytes: AtomicU64::new(0), altered: None, _copy: None })
    }

    /// Bytes that it is taken to hold: what sled has read since it was opened, because
    /// `cache_capacity` does not bound it.
    pub(super) fn held_bytes(&self) -> u64 {
        Database::OPEN_BYTES + Database::COPIES * self.pulled_bytes.load(Ordering::Relaxed)
    }

    fn pull(&self, at: usize) {
        if !self.pulled[at].swap(true, Ordering::Relaxed) {
            let bytes = u64::from(self.index.rows[at].stored_len);
            self.pulled_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn failed(&self, at: usize, fault: Fault) -> StoreError {
        match fault {
            // sled reads beyond the end of a file that was cut.
            Fault::Io(error) if self.altered.is_some() => self.index.damage(at, &error.to_string()),
            Fault::Io(source) => {
                StoreError::Io { action: "read", path: self.index.segment.dir().join(DB), source }
            }
            Fault::Corrupt(detail) => self.index.damage(at, &detail),
        }
    }
}

impl Blocks for Open {
    fn index(&self) -> &Index {
        &self.index
    }

    fn block_into(&self, at: usize, out: &mut [u8]) -> Result<(), StoreError> {
        self.pull(at);
        let fetched = self.db.fetch(&self.index.rows[at], out);
        fetched.map_err(|fault| self.failed(at, fault))
    }

    fn block(&self, at: usize) -> Result<Bytes, StoreError> {
        let row = &self.index.rows[at];
        if row.codec == CODEC_NONE && row.parts() == 1 {
            self.pull(at);
            let events = self.db.plain(row).map_err(|fault| self.failed(at, fault))?;
            block::check_plain(row, &events).map_err(|what| self.index.damage(at, what))?;
            return Ok(events);
        }
        let mut raw = vec![0; row.raw_len as usize];
        self.block_into(at, &mut raw)?;
        Ok(raw.into())
    }
}
