//! Open databases, shared by all readers.
//!
//! Owns which databases are open: each at most once, opened once for all who wait, bounded by
//! count and by the bytes that sled holds, the longest unused dropped first. A database in use
//! is never dropped, so the bounds can be passed by what the callers' threads hold at one time.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::open::Open;
use super::{Lease, Segment, dir};
use crate::record::Seq;
use crate::storage::{Chunk, Damage, StoreError};
use crate::topic::Filter;

/// Bounds on open databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Most databases open at one time.
    pub max_open: usize,
    /// Most bytes held by open databases: what they have read, and 2 MiB each.
    pub max_bytes: u64,
    /// sled's page cache, each.
    pub sled_cache_bytes: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions { max_open: 64, max_bytes: 128 << 20, sled_cache_bytes: 8 << 20 }
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
}

/// Open databases.
#[derive(Default)]
pub struct Cache {
    options: CacheOptions,
    slots: Mutex<HashMap<PathBuf, Arc<Slot>>>,
    damages: Mutex<HashMap<PathBuf, Damage>>,
    clock: AtomicU64,
    opens: AtomicU64,
}

/// The place of one database. Its lock is held while it is opened.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    used_at: AtomicU64,
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Open(Arc<Open>),
    /// Found damaged; nothing that would make it better happens while the program runs.
    Damaged(Damage),
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
        self.with(lease, |open| open.read(from, end, filter))
    }

    /// Figures.
    pub fn status(&self) -> CacheStatus {
        let mut status =
            CacheStatus { opens: self.opens.load(Ordering::Relaxed), ..CacheStatus::default() };
        let slots: Vec<_> = lock(&self.slots).values().cloned().collect();
        for slot in slots {
            // Not waiting for one that is being opened.
            if let Ok(state) = slot.state.try_lock()
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
            lock(&self.damages).iter().map(|(dir, damage)| (dir.clone(), damage.clone())).collect();
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
        let slot = lock(&self.slots).remove(segment.dir());
        drop(slot);
        lock(&self.damages).remove(segment.dir());
        dir::trash(segment.dir(), &segment.disk).map(Some)
    }

    /// Closes every database that is not in use.
    pub fn close_idle(&self) {
        self.shrink(CacheOptions { max_open: 0, max_bytes: 0, ..self.options });
    }

    /// Runs `read` on the segment's open database.
    pub(super) fn with<T>(
        &self,
        lease: &Lease,
        read: impl FnOnce(&Open) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let open = self.open(lease)?;
        let result = read(&open);
        drop(open);
        self.shrink(self.options);
        result
    }

    fn open(&self, lease: &Lease) -> Result<Arc<Open>, StoreError> {
        let slot = self.slot(lease.dir());
        slot.used_at.store(self.clock.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let mut state = lock(&slot.state);
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
                    lock(&self.damages).insert(lease.dir().to_owned(), damage.clone());
                }
                let open = Arc::new(open);
                *state = State::Open(Arc::clone(&open));
                Ok(open)
            }
            Err(StoreError::Damaged(damage)) => {
                lock(&self.damages).insert(lease.dir().to_owned(), damage.clone());
                *state = State::Damaged(damage.clone());
                Err(damage.into())
            }
            Err(other) => Err(other),
        }
    }

    fn slot(&self, dir: &Path) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        match slots.get(dir) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(slots.entry(dir.to_owned()).or_default()),
        }
    }

    fn make_room(&self) {
        let max_open = self.options.max_open.saturating_sub(1);
        self.shrink(CacheOptions { max_open, ..self.options });
    }

    /// Drops the longest unused until the bounds hold, as far as they are idle.
    fn shrink(&self, bounds: CacheOptions) {
        let slots: Vec<_> = lock(&self.slots).values().cloned().collect();
        let (mut open, mut bytes) = (0, 0);
        let mut idle = Vec::new();
        for slot in slots {
            let Ok(state) = slot.state.try_lock() else { continue };
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
            let Ok(mut state) = slot.state.try_lock() else { continue };
            // Somebody may have taken it in between.
            if matches!(&*state, State::Open(database) if Arc::strong_count(database) == 1) {
                // Closed under the slot's lock: whoever wants it next waits, then opens it again.
                *state = State::Closed;
                open -= 1;
                bytes -= held;
            }
        }
    }
}

/// What the locks protect is whole whenever they are released, panic or not.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
