//! Readers of sealed segments, and the databases that they share.
//!
//! Owns which databases are open: each at most once, opened once for all who wait, bounded by
//! count and by the bytes that sled holds, the longest unused dropped first. A database in use
//! is never dropped, so the bounds can be passed by what the callers' threads hold at one time.
//!
//! Owns also how a segment is read: directly from its file, unless where its blocks lie is not known. A
//! direct read that meets anything unexpected is done again on the open database, which says what
//! is wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::blocks::Blocks;
use super::direct::{Direct, Located, Places, Seen};
use super::index::Index;
use super::sled::open::{self, Open, locate};
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
    /// sled's page cache, each.
    pub sled_cache_bytes: u64,
    /// Most bytes of tables by which blocks are read directly, about 80 KB for a segment of 64 MiB.
    /// With 0 every read opens the database.
    pub max_table_bytes: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions {
            max_open: 64,
            max_bytes: 128 << 20,
            sled_cache_bytes: 8 << 20,
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

/// Open databases.
#[derive(Default)]
pub struct Cache {
    options: CacheOptions,
    slots: Mutex<HashMap<PathBuf, Arc<Slot>>>,
    /// Those of `slots` whose database may be open: a read must not look at all segments.
    open_slots: Mutex<Vec<Arc<Slot>>>,
    /// Those of `slots` that can be read directly, and the bytes of their tables.
    located: Mutex<Vec<(Arc<Slot>, u64)>>,
    damages: Mutex<HashMap<PathBuf, Damage>>,
    clock: AtomicU64,
    opens: AtomicU64,
    direct_reads: AtomicU64,
}

/// The place of one database. The lock of `state` is held while it is opened, that of `tables`
/// while its files are compared with the footer for a direct read. `tables` comes second.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    tables: Mutex<Tables>,
    used_at: AtomicU64,
    seen: OnceLock<Arc<Seen>>,
    /// Its files are being compared, or were.
    is_compared: AtomicBool,
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Open(Arc<Open>),
    /// Found damaged; nothing that would make it better happens while the program runs.
    Damaged(Damage),
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
        Cache { options, ..Cache::default() }
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
        let mut status = CacheStatus {
            opens: self.opens.load(Ordering::Relaxed),
            direct_reads: self.direct_reads.load(Ordering::Relaxed),
            ..CacheStatus::default()
        };
        let slots = self.open_slots.lock().clone();
        for slot in slots {
            // Not waiting for one that is being opened.
            if let Some(state) = slot.state.try_lock()
                && let State::Open(open) = &*state
            {
                status.open += 1;
                status.bytes += open.held_bytes();
            }
        }
        status
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
            self.open_slots.lock().retain(|other| !Arc::ptr_eq(other, &slot));
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
        self.shrink(CacheOptions { max_open: 0, max_bytes: 0, ..self.options });
    }

    /// Runs `read` on the segment's blocks, perhaps twice.
    pub(super) fn with<T>(
        &self,
        lease: &Lease,
        read: impl Fn(&dyn Blocks) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let slot = self.slot(lease);
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        slot.used_at.store(now, Ordering::Relaxed);
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
        self.shrink(self.options);
        result
    }

    /// Compares a segment's files as a whole when all its blocks have been read, once: else rot in bytes
    /// that hold no block would not be told before the database has to be opened.
    fn compare(&self, slot: &Slot, index: &Index) {
        if slot.is_compared.swap(true, Ordering::Relaxed) {
            return;
        }
        // Opened in between it would be compared, too, and must not be at the same time.
        let state = slot.state.lock();
        if !matches!(*state, State::Closed) {
            return;
        }
        let damage = match open::compare(index) {
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
            let used_at = |at: &usize| located[*at].0.used_at.load(Ordering::Relaxed);
            let Some(oldest) = others.min_by_key(used_at) else { break };
            {
                // Whoever holds the lock is about to read directly: it is in use after all.
                let Some(mut tables) = located[oldest].0.tables.try_lock() else { break };
                *tables = Tables::Unknown;
            }
            total -= located.swap_remove(oldest).1;
        }
    }

    fn open(&self, slot: &Arc<Slot>, lease: &Lease) -> Result<Arc<Open>, StoreError> {
        let mut state = slot.state.lock();
        match &*state {
            State::Open(open) => return Ok(Arc::clone(open)),
            State::Damaged(damage) => return Err(damage.clone().into()),
            State::Closed => {}
        }
        self.make_room();
        self.opens.fetch_add(1, Ordering::Relaxed);
        match Open::in_place(Arc::clone(lease.segment()), self.options.sled_cache_bytes) {
            Ok(open) => {
                if let Some(damage) = &open.altered {
                    self.damages.lock().insert(lease.dir().to_owned(), damage.clone());
                    *slot.tables.lock() = Tables::Refused;
                    self.located.lock().retain(|(other, _)| !Arc::ptr_eq(other, slot));
                }
                let open = Arc::new(open);
                *state = State::Open(Arc::clone(&open));
                drop(state);
                self.open_slots.lock().push(Arc::clone(slot));
                Ok(open)
            }
            Err(StoreError::Damaged(damage)) => {
                self.damages.lock().insert(lease.dir().to_owned(), damage.clone());
                *state = State::Damaged(damage.clone());
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

    fn make_room(&self) {
        let max_open = self.options.max_open.saturating_sub(1);
        self.shrink(CacheOptions { max_open, ..self.options });
    }

    /// Drops the longest unused until the bounds hold, as far as they are idle.
    fn shrink(&self, bounds: CacheOptions) {
        let slots = self.open_slots.lock().clone();
        let (mut open, mut bytes) = (0, 0);
        let mut idle = Vec::new();
        for slot in slots {
            let Some(state) = slot.state.try_lock() else { continue };
            let State::Open(database) = &*state else { continue };
            let held = database.held_bytes();
            open += 1;
            bytes += held;
            if Arc::strong_count(database) == 1 {
                idle.push((slot.used_at.load(Ordering::Relaxed), held, Arc::clone(&slot)));
            }
        }
        if open <= bounds.max_open && bytes <= bounds.max_bytes {
            return;
        }
        idle.sort_by_key(|(used_at, ..)| *used_at);
        for (_, held, slot) in idle {
            if open <= bounds.max_open && bytes <= bounds.max_bytes {
                break;
            }
            let Some(mut state) = slot.state.try_lock() else { continue };
            // Somebody may have taken it in between.
            if matches!(&*state, State::Open(database) if Arc::strong_count(database) == 1) {
                // Closed under the slot's lock: whoever wants it next waits, then opens it again.
                *state = State::Closed;
                self.open_slots.lock().retain(|other| !Arc::ptr_eq(other, &slot));
                open -= 1;
                bytes -= held;
            }
        }
    }
}
