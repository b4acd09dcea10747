//! The cache of open databases: each is opened once for all who wait.
//!
//! Bounded by count and by the bytes that sled holds, LRU. A database in use is never closed, so
//! the bounds can be passed by what the callers' threads hold at one time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Open;
use crate::storage::segment::Segment;
use crate::storage::{Damage, StoreError};

/// Bounds on open databases.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::storage::segment) struct Bounds {
    pub(in crate::storage::segment) max_open: usize,
    pub(in crate::storage::segment) max_bytes: u64,
    /// sled's page cache, each.
    pub(in crate::storage::segment) cache_bytes: u64,
}

#[derive(Default)]
pub(in crate::storage::segment) struct OpenDatabases {
    bounds: Bounds,
    /// Slots whose database may be open: a read must not look at all segments. Locked last.
    open: Mutex<Vec<Arc<DatabaseSlot>>>,
    opens: AtomicU64,
}

/// The slot of one database.
#[derive(Default)]
pub(in crate::storage::segment) struct DatabaseSlot {
    /// Held while it is opened.
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

impl DatabaseSlot {
    /// It is used now, by the clock of whoever counts uses.
    pub(in crate::storage::segment) fn touch(&self, now: u64) {
        self.used_at.store(now, Ordering::Relaxed);
    }

    /// When it was used last.
    pub(in crate::storage::segment) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// Runs `work` unless the database is open, or was found damaged; it is not opened meanwhile.
    pub(in crate::storage::segment) fn while_closed(&self, work: impl FnOnce()) {
        let state = self.state.lock();
        if matches!(*state, State::Closed) {
            work();
        }
    }
}

impl OpenDatabases {
    pub(in crate::storage::segment) fn new(bounds: Bounds) -> Self {
        OpenDatabases { bounds, ..OpenDatabases::default() }
    }

    /// The database of `segment`, opened if it is not; and whether it was opened for this.
    pub(in crate::storage::segment) fn get(
        &self,
        slot: &Arc<DatabaseSlot>,
        segment: &Arc<Segment>,
    ) -> Result<(Arc<Open>, bool), StoreError> {
        let mut state = slot.state.lock();
        match &*state {
            State::Open(open) => return Ok((Arc::clone(open), false)),
            State::Damaged(damage) => return Err(damage.clone().into()),
            State::Closed => {}
        }
        let max_open = self.bounds.max_open.saturating_sub(1);
        self.shrink_to(Bounds { max_open, ..self.bounds });
        self.opens.fetch_add(1, Ordering::Relaxed);
        match Open::in_place(Arc::clone(segment), self.bounds.cache_bytes) {
            Ok(open) => {
                let open = Arc::new(open);
                *state = State::Open(Arc::clone(&open));
                drop(state);
                self.open.lock().push(Arc::clone(slot));
                Ok((open, true))
            }
            Err(StoreError::Damaged(damage)) => {
                *state = State::Damaged(damage.clone());
                Err(damage.into())
            }
            Err(other) => Err(other),
        }
    }

    /// Drops the longest unused until the bounds hold, as far as they are idle.
    pub(in crate::storage::segment) fn shrink(&self) {
        self.shrink_to(self.bounds);
    }

    /// Closes every database that is not in use.
    pub(in crate::storage::segment) fn close_idle(&self) {
        self.shrink_to(Bounds { max_open: 0, max_bytes: 0, ..self.bounds });
    }

    /// Forgets a slot that nobody comes to any more.
    pub(in crate::storage::segment) fn forget(&self, slot: &Arc<DatabaseSlot>) {
        self.open.lock().retain(|other| !Arc::ptr_eq(other, slot));
    }

    /// How many are open, and the bytes that they hold.
    pub(in crate::storage::segment) fn held(&self) -> (u64, u64) {
        let slots = self.open.lock().clone();
        let (mut count, mut bytes) = (0, 0);
        for slot in slots {
            // Not waiting for one that is being opened.
            if let Some(state) = slot.state.try_lock()
                && let State::Open(open) = &*state
            {
                count += 1;
                bytes += open.held_bytes();
            }
        }
        (count, bytes)
    }

    /// How many were opened since the start.
    pub(in crate::storage::segment) fn opens(&self) -> u64 {
        self.opens.load(Ordering::Relaxed)
    }

    fn shrink_to(&self, bounds: Bounds) {
        let slots = self.open.lock().clone();
        let (mut open, mut bytes) = (0, 0);
        let mut idle = Vec::new();
        for slot in slots {
            let Some(state) = slot.state.try_lock() else { continue };
            let State::Open(database) = &*state else { continue };
            let held = database.held_bytes();
            open += 1;
            bytes += held;
            if Arc::strong_count(database) == 1 {
                idle.push((slot.used_at(), held, Arc::clone(&slot)));
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
                self.open.lock().retain(|other| !Arc::ptr_eq(other, &slot));
                open -= 1;
                bytes -= held;
            }
        }
    }
}
