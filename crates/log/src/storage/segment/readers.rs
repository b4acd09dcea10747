//! Readers of sealed segments: directly from the file, or from the open database.
//!
//! Owns how a segment is read: directly, unless where its blocks lie is not known. A direct read that
//! meets anything unexpected is done again on the open database, which says what is wrong. Owns also
//! the cache of tables for direct reads, and what was found wrong with files.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::blocks::Blocks;
use super::direct::{Direct, Located, Places, Seen};
use super::files::{self, locate};
use super::index::Index;
use super::store::{Bounds, Open, OpenDatabases, Place};
use super::{Lease, Segment, dir};
use crate::storage::{Chunk, Damage, StoreError};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

/// Bounds on open databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Most databases open at one time.
    pub max_open: usize,
    /// Most bytes held by open databases: twice what they have read, and 6 MiB each.
    pub max_bytes: u64,
    /// The database's own cache, each.
    pub db_cache_bytes: u64,
    /// Most bytes of tables by which blocks are read directly, about 80 KB for a segment of 64 MiB.
    /// With 0 every read opens the database.
    pub max_table_bytes: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions {
            max_open: 64,
            max_bytes: 64 << 20,
            db_cache_bytes: Open::CACHE_BYTES,
            max_table_bytes: 16 << 20,
        }
    }
}

/// Figures for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Databases open now.
    pub open: u64,
    /// Bytes that they hold, by the same count as [`CacheOptions::max_bytes`].
    pub bytes: u64,
    /// Databases opened since the start.
    pub opens: u64,
    /// Reads that were answered directly since the start.
    pub direct_reads: u64,
}

/// Readers of segments, and what they share.
///
/// Order of its locks: `slots` and `damages` are held for a few instructions, and nothing is taken
/// under them. A slot's `tables` are locked while its blocks are located; under it only `located`
/// is taken. A place of `databases` is locked while it is opened or compared; under it only
/// `damages` is taken. The locks of other slots are tried, never waited for.
#[derive(Default)]
pub struct Cache {
    options: CacheOptions,
    slots: Mutex<HashMap<PathBuf, Arc<Slot>>>,
    databases: OpenDatabases,
    /// Those of `slots` that can be read directly, and the bytes of their tables.
    located: Mutex<Vec<(Arc<Slot>, u64)>>,
    damages: Mutex<HashMap<PathBuf, Damage>>,
    clock: AtomicU64,
    direct_reads: AtomicU64,
}

/// What is known of one segment.
#[derive(Default)]
struct Slot {
    database: Arc<Place>,
    /// Locked while its files are searched for a direct read.
    tables: Mutex<Tables>,
    seen: OnceLock<Arc<Seen>>,
    /// Its files are being compared, or were.
    is_compared: AtomicBool,
}

/// What direct reads need to know.
#[derive(Default)]
enum Tables {
    /// Nothing yet, or not any more.
    #[default]
    Unknown,
    Located(Arc<Located>),
    /// Not to be read directly: a file was altered, or its blocks were not found in it.
    Refused,
}

impl Slot {
    /// Which of its blocks have been read.
    fn seen(&self, lease: &Lease) -> &Arc<Seen> {
        self.seen.get_or_init(|| Arc::new(Seen::new(lease.identity.blocks as usize)))
    }
}

impl Cache {
    /// An empty one.
    pub fn new(options: CacheOptions) -> Self {
        let databases = OpenDatabases::new(Bounds {
            max_open: options.max_open,
            max_bytes: options.max_bytes,
            cache_bytes: options.db_cache_bytes,
        });
        Cache { options, databases, ..Cache::default() }
    }

    /// As [`crate::storage::Engine::read`], within one segment: `from` lies in it, and an `end`
    /// beyond its own counts as that.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the range of the block, or of the segment where its database
    /// cannot be opened at all; I/O.
    pub fn read(
        &self,
        lease: &Lease,
        from: Seq,
        end: Seq,
        filter: &Filter,
    ) -> Result<Chunk, StoreError> {
        let end = end.min(lease.end());
        if from < lease.first() || from >= end {
            return Err(StoreError::Invalid("the range is not in the segment"));
        }
        if !lease.may_match(filter) {
            let events = bytes::Bytes::new();
            return Ok(Chunk { first: from, end, events, complete: false });
        }
        self.with(lease, |blocks| blocks.read(from, end, filter))
    }

    /// Figures.
    pub fn status(&self) -> CacheStatus {
        let (open, bytes) = self.databases.held();
        CacheStatus {
            open,
            bytes,
            opens: self.databases.opens(),
            direct_reads: self.direct_reads.load(Ordering::Relaxed),
        }
    }

    /// What was found wrong with the files of segments that were read since the start; a read that
    /// met only intact blocks of them succeeded all the same.
    pub fn damages(&self) -> Vec<Damage> {
        let found: BTreeMap<_, _> =
            self.damages.lock().iter().map(|(dir, damage)| (dir.clone(), damage.clone())).collect();
        found.into_values().collect()
    }

    /// Retires a segment and moves its directory away once nobody reads it: answers where it is,
    /// for [`super::delete`], or `None` while a lease is held; call again later.
    ///
    /// # Errors
    /// I/O.
    pub fn discard(&self, segment: &Segment) -> Result<Option<PathBuf>, StoreError> {
        if !segment.retire() {
            return Ok(None);
        }
        let slot = self.slots.lock().remove(segment.dir());
        if let Some(slot) = slot {
            self.databases.forget(&slot.database);
            self.located.lock().retain(|(other, _)| !Arc::ptr_eq(other, &slot));
        }
        self.damages.lock().remove(segment.dir());
        dir::trash(segment.dir(), &segment.disk).map(Some)
    }

    #[cfg(test)]
    pub(super) fn tables_kept(&self) -> usize {
        self.located.lock().len()
    }

    /// Closes every database that is not in use.
    pub fn close_idle(&self) {
        self.databases.close_idle();
    }

    /// Runs `read` on the segment's blocks, perhaps twice.
    pub(super) fn with<T>(
        &self,
        lease: &Lease,
        read: impl Fn(&dyn Blocks) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let slot = self.slot(lease);
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        slot.database.touch(now);
        if let Some(located) = self.tables(&slot, lease) {
            let seen = slot.seen(lease);
            let direct = Direct::open(Arc::clone(&located), Arc::clone(seen));
            if let Ok(result) = direct.and_then(|direct| read(&direct)) {
                self.direct_reads.fetch_add(1, Ordering::Relaxed);
                if seen.is_whole() {
                    self.compare(&slot, &located.index);
                }
                return Ok(result);
            }
        }
        let open = self.open(&slot, lease)?;
        let result = read(&*open);
        drop(open);
        self.databases.shrink();
        result
    }

    /// Compares a segment's files as a whole when all its blocks have been read, once: else rot in bytes
    /// that hold no block would not be told before the database has to be opened.
    fn compare(&self, slot: &Slot, index: &Index) {
        if slot.is_compared.swap(true, Ordering::Relaxed) {
            return;
        }
        // Opened in between it would be compared, too, and must not be at the same time.
        slot.database.while_closed(|| {
            let damage = match files::compare(index) {
                Ok(()) => return,
                Err(StoreError::Damaged(damage)) => damage,
                // Told, and not tried at each read again: every block of it could be read.
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    let cause = cause.unwrap_or_default();
                    let what = format!("its files cannot be compared: {error}: {cause}");
                    index.segment.damage_of_all(index.segment.dir(), &what)
                }
            };
            self.damages.lock().insert(index.segment.dir().to_owned(), damage);
        });
    }

    /// Compares the segment with its footer unless that was done, and finds its blocks.
    fn tables(&self, slot: &Arc<Slot>, lease: &Lease) -> Option<Arc<Located>> {
        if self.options.max_table_bytes == 0 {
            return None;
        }
        let mut tables = slot.tables.lock();
        match &*tables {
            Tables::Located(located) => return Some(Arc::clone(located)),
            Tables::Refused => return None,
            Tables::Unknown => {}
        }
        let index = Index::load(Arc::clone(lease.segment())).map(Arc::new);
        let located = index.and_then(|index| {
            let places = match Places::noted(&index) {
                Some(places) => Some(places),
                None => locate(&index)?,
            };
            Ok(places.map(|places| Located { index, places }))
        });
        match located {
            Ok(Some(located)) => {
                let located = Arc::new(located);
                *tables = Tables::Located(Arc::clone(&located));
                drop(tables);
                self.keep_tables(slot, located.bytes());
                Some(located)
            }
            // Opening it tells what is wrong.
            Ok(None) | Err(StoreError::Damaged(_)) => {
                *tables = Tables::Refused;
                None
            }
            Err(_) => None,
        }
    }

    /// Counts the tables of a slot; forgets those of the longest unused if they are too many.
    fn keep_tables(&self, slot: &Arc<Slot>, bytes: u64) {
        let mut located = self.located.lock();
        located.push((Arc::clone(slot), bytes));
        let mut total: u64 = located.iter().map(|(_, bytes)| bytes).sum();
        while total > self.options.max_table_bytes {
            let others = (0..located.len()).filter(|&at| !Arc::ptr_eq(&located[at].0, slot));
            let used_at = |at: &usize| located[*at].0.database.used_at();
            let Some(oldest) = others.min_by_key(used_at) else { break };
            {
                // Whoever holds the lock is about to read directly: it is in use after all.
                let Some(mut tables) = located[oldest].0.tables.try_lock() else { break };
                *tables = Tables::Unknown;
            }
            total -= located.swap_remove(oldest).1;
        }
    }

    /// The open database of a slot. What is wrong with it is kept for operators.
    fn open(&self, slot: &Arc<Slot>, lease: &Lease) -> Result<Arc<Open>, StoreError> {
        match self.databases.get(&slot.database, lease.segment()) {
            Ok((open, is_new)) => {
                if let Some(damage) = open.altered.as_ref().filter(|_| is_new) {
                    self.damages.lock().insert(lease.dir().to_owned(), damage.clone());
                    *slot.tables.lock() = Tables::Refused;
                    self.located.lock().retain(|(other, _)| !Arc::ptr_eq(other, slot));
                }
                Ok(open)
            }
            Err(StoreError::Damaged(damage)) => {
                self.damages.lock().insert(lease.dir().to_owned(), damage.clone());
                Err(damage.into())
            }
            Err(other) => Err(other),
        }
    }

    fn slot(&self, lease: &Lease) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(lease.dir()) {
            return Arc::clone(slot);
        }
        Arc::clone(slots.entry(lease.dir().to_owned()).or_default())
    }
}
