//! Readers of sealed segments: directly from the file, or through the open database.
//!
//! A segment is read directly if it is known where its blocks lie. A direct read that meets
//! anything unexpected is done again through the database, which says what is wrong. Owns the LRU
//! cache of tables for direct reads, and what was found wrong with files.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::blocks::Blocks;
use super::comparing::Comparisons;
use super::direct::{Direct, Located, Places, Seen};
use super::files::locate;
use super::filter_room::FilterRoom;
use super::index::Index;
use super::open::{Bounds, DatabaseSlot, Open, OpenDatabases};
use super::run_block::RunBlocks;
use super::{DB, Lease, Segment, dir};
use crate::bounded::Bounded;
use crate::storage::{Chunk, Damage, StoreError};
use tailmark_record::Seq;
use tailmark_record::topic::{self, Filter};

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
    /// Most bytes of filters that tell which topics are not in a segment, 1.5 bytes a topic. Where
    /// one has no room, the table of topics is searched: some pages of 2 KB.
    pub max_filter_bytes: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions {
            max_open: 64,
            max_bytes: 64 << 20,
            db_cache_bytes: Open::CACHE_BYTES,
            max_table_bytes: 16 << 20,
            max_filter_bytes: 32 << 20,
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
    /// Bytes of filters of topics, see [`CacheOptions::max_filter_bytes`].
    pub filter_bytes: u64,
}

/// Readers of segments, and what they share.
///
/// Order of its locks: `entries`, `tables` and `damages` are held for a few instructions, and
/// nothing is taken under them. An entry's `search` is held while its blocks are located; under it
/// only `tables` is taken. A slot of `databases` is locked while it is opened or compared; under it
/// only `damages` is taken.
pub struct Cache {
    options: CacheOptions,
    entries: Mutex<HashMap<PathBuf, Arc<Entry>>>,
    databases: OpenDatabases,
    /// Of segments that can be read directly, by their directory.
    tables: Mutex<Bounded<PathBuf, Arc<Located>>>,
    damages: Mutex<HashMap<PathBuf, Damage>>,
    filter_room: Arc<FilterRoom>,
    /// Blocks with runs that were read lately.
    run_blocks: RunBlocks,
    comparisons: Comparisons,
    clock: AtomicU64,
    direct_reads: AtomicU64,
}

/// What is known of one segment.
#[derive(Default)]
struct Entry {
    database: Arc<DatabaseSlot>,
    search: Mutex<Search>,
    seen: OnceLock<Arc<Seen>>,
    /// Its files have been compared, or are to be.
    is_compared: AtomicBool,
}

/// The search for a segment's blocks in its file; one at a time.
#[derive(Default)]
struct Search {
    /// Not to be read directly: a file was altered, or its blocks were not found in it.
    is_refused: bool,
}

impl Entry {
    /// Which of its blocks have been read.
    fn seen(&self, lease: &Lease) -> &Arc<Seen> {
        self.seen.get_or_init(|| Arc::new(Seen::new(lease.identity.blocks as usize)))
    }
}

impl Default for Cache {
    fn default() -> Self {
        Cache::new(CacheOptions::default())
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
        let max_table_bytes = usize::try_from(options.max_table_bytes).unwrap_or(usize::MAX);
        Cache {
            options,
            entries: Mutex::default(),
            databases,
            tables: Mutex::new(Bounded::new(max_table_bytes)),
            damages: Mutex::default(),
            filter_room: Arc::new(FilterRoom::new(options.max_filter_bytes)),
            run_blocks: RunBlocks::default(),
            comparisons: Comparisons::default(),
            clock: AtomicU64::new(0),
            direct_reads: AtomicU64::new(0),
        }
    }

    /// As [`crate::storage::Store::read`], within one segment: `from` lies in it, and an `end`
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
        if !self.may_match(lease, filter) {
            let events = bytes::Bytes::new();
            return Ok(Chunk { first: from, end, events, complete: false });
        }
        if filter.is_all() && lease.removed().runs > 0 {
            return self.read_runs(lease, from, end);
        }
        self.with(lease, |blocks| blocks.read(from, end, filter))
    }

    /// The same of everything in a segment with runs: whoever reads it asks for one part of a block after the other.
    fn read_runs(&self, lease: &Lease, from: Seq, end: Seq) -> Result<Chunk, StoreError> {
        let block = match self.run_blocks.get(lease.dir(), from) {
            Some(block) => block,
            None => match self.with(lease, |blocks| blocks.run_block(from))? {
                Some(block) => {
                    let block = Arc::new(block);
                    self.run_blocks.keep(lease.dir(), Arc::clone(&block));
                    block
                }
                None => return self.with(lease, |blocks| blocks.read(from, end, &Filter::ALL)),
            },
        };
        block.read(from, end).map_err(|error| {
            StoreError::from(lease.damage_of_all(&lease.dir().join(DB), error.what()))
        })?
    }

    /// The events of one segment from `from` on, where a block begins, and runs in place of those that are gone: for
    /// who writes them anew.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn entries(&self, lease: &Lease, from: Seq) -> Result<Chunk, StoreError> {
        if !lease.contains(from) {
            return Err(StoreError::Invalid("the range is not in the segment"));
        }
        self.with(lease, |blocks| blocks.entries(from))
    }

    /// Whether any event of a segment may match, by what is in memory.
    pub fn may_match(&self, segment: &Segment, filter: &Filter) -> bool {
        filter.ranges().iter().any(|range| segment.may_have(range, &self.filter_room))
    }

    /// Whether a segment may have topics in a range, by what is in memory.
    pub fn may_have(&self, segment: &Segment, range: &topic::Range<'_>) -> bool {
        segment.may_have(range, &self.filter_room)
    }

    /// Figures.
    pub fn status(&self) -> CacheStatus {
        let (open, bytes) = self.databases.held();
        CacheStatus {
            open,
            bytes,
            opens: self.databases.opens(),
            direct_reads: self.direct_reads.load(Ordering::Relaxed),
            filter_bytes: self.filter_room.bytes(),
        }
    }

    /// What was found wrong with the files of segments that were read since the start; a read that
    /// met only intact blocks of them succeeded all the same.
    pub fn damages(&self) -> Vec<Damage> {
        let found: BTreeMap<_, _> =
            self.damages.lock().iter().map(|(dir, damage)| (dir.clone(), damage.clone())).collect();
        found.into_values().collect()
    }

    /// Compares the files of one segment, if one is due: all of its blocks have been read. Nobody else
    /// waits for it.
    pub fn compare_next(&self, now: Instant) {
        self.comparisons.next(now, |damage| {
            let mut dirs = damage.file.ancestors();
            if let Some(dir) = dirs.find(|dir| dir::parse_name(dir).is_some()) {
                self.damages.lock().insert(dir.to_owned(), damage.clone());
            }
        });
    }

    /// Why the files of a segment could not be compared when it was last tried; says nothing about its
    /// events.
    pub fn uncompared(&self) -> Option<String> {
        self.comparisons.failure()
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
        let entry = self.entries.lock().remove(segment.dir());
        if let Some(entry) = entry {
            self.databases.forget(&entry.database);
            let forgotten = self.tables.lock().remove(segment.dir());
            drop(forgotten);
        }
        self.damages.lock().remove(segment.dir());
        self.run_blocks.forget(segment.dir());
        self.comparisons.forget(segment.dir());
        dir::trash(segment.dir(), &segment.disk).map(Some)
    }

    #[cfg(test)]
    pub(super) fn tables_kept(&self) -> usize {
        self.tables.lock().len()
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
        let entry = self.entry(lease);
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        entry.database.touch(now);
        if let Some(located) = self.tables(&entry, lease) {
            let seen = entry.seen(lease);
            let direct = Direct::open(Arc::clone(&located), Arc::clone(seen));
            let result = direct.and_then(|direct| read(&direct));
            // That events are gone is an answer.
            if let Ok(_) | Err(StoreError::Removed(_)) = result {
                self.direct_reads.fetch_add(1, Ordering::Relaxed);
                self.note_table(&located.index);
                if seen.is_whole() && !entry.is_compared.swap(true, Ordering::Relaxed) {
                    self.comparisons.add(&entry.database, &located.index.segment);
                }
                return result;
            }
        }
        let open = self.open(&entry, lease)?;
        let result = read(&*open);
        self.note_table(open.index());
        drop(open);
        self.databases.shrink();
        result
    }

    /// Keeps for operators what a read has met in a segment's table of topics.
    fn note_table(&self, index: &Index) {
        if let Some(damage) = index.table_damage.get() {
            let dir = index.segment.dir().to_owned();
            self.damages.lock().entry(dir).or_insert_with(|| damage.clone());
        }
    }

    /// The tables for direct reads; finds its blocks unless that was done.
    fn tables(&self, entry: &Entry, lease: &Lease) -> Option<Arc<Located>> {
        if self.options.max_table_bytes == 0 {
            return None;
        }
        if let Some(located) = self.known_tables(lease) {
            return Some(located);
        }
        let mut search = entry.search.lock();
        if search.is_refused {
            return None;
        }
        // Found by whoever searched before.
        if let Some(located) = self.known_tables(lease) {
            return Some(located);
        }
        let index = Index::load(Arc::clone(lease.segment())).map(Arc::new);
        let located = index.and_then(|index| {
            let places = match Places::noted(&index) {
                Some(places) => Some(places),
                None => locate(&index)?,
            };
            Ok(places.map(|places| Arc::new(Located { index, places })))
        });
        match located {
            Ok(Some(located)) => {
                // The newest are kept even if they alone are too large.
                let bytes = usize::try_from(located.bytes()).unwrap_or(usize::MAX);
                let key = lease.dir().to_owned();
                let mut tables = self.tables.lock();
                let bytes = bytes.min(tables.max_bytes());
                let dropped = tables.insert(key, Arc::clone(&located), bytes);
                drop(tables);
                drop(dropped);
                Some(located)
            }
            // Opening it tells what is wrong.
            Ok(None) | Err(StoreError::Damaged(_)) => {
                search.is_refused = true;
                None
            }
            Err(_) => None,
        }
    }

    fn known_tables(&self, lease: &Lease) -> Option<Arc<Located>> {
        let mut tables = self.tables.lock();
        let located = tables.get(lease.dir()).cloned()?;
        tables.touch(lease.dir());
        Some(located)
    }

    /// The open database of a entry. What is wrong with it is kept for operators.
    fn open(&self, entry: &Arc<Entry>, lease: &Lease) -> Result<Arc<Open>, StoreError> {
        match self.databases.get(&entry.database, lease.segment()) {
            Ok((open, is_new)) => {
                if let Some(damage) = open.altered.as_ref().filter(|_| is_new) {
                    self.damages.lock().insert(lease.dir().to_owned(), damage.clone());
                    entry.search.lock().is_refused = true;
                    let forgotten = self.tables.lock().remove(lease.dir());
                    drop(forgotten);
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

    fn entry(&self, lease: &Lease) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(lease.dir()) {
            return Arc::clone(entry);
        }
        Arc::clone(entries.entry(lease.dir().to_owned()).or_default())
    }
}
