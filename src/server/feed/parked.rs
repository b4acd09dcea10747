//! Chunks of watches whose clients do not take more: as many as there is room for.
//!
//! A watch hands over what it has buffered and may then not be asked for more for hours. So it
//! leaves the rest of its chunk here, and what it has read ahead is kept here from the first. When
//! there is no more room, what was left longest ago is dropped: a watch that finds its chunk
//! gone reads it again, exactly where it was. Knows nothing of events. Invariant: what is parked is never more than the limit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::machine::Run;

/// The chunks of all watches that wait.
#[derive(Clone, Debug)]
pub(crate) struct Parking(Arc<Mutex<Lot>>);

#[derive(Debug)]
struct Lot {
    max_bytes: usize,
    bytes: usize,
    next_ticket: u64,
    /// Oldest first.
    runs: BTreeMap<u64, Run>,
}

/// The right to what was parked, if it is still there. Dropped, it gives it up.
#[derive(Debug)]
pub(crate) struct Ticket {
    parking: Parking,
    number: u64,
}

impl Parking {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let runs = BTreeMap::new();
        Parking(Arc::new(Mutex::new(Lot { max_bytes, bytes: 0, next_ticket: 0, runs })))
    }

    pub(crate) fn park(&self, run: Run) -> Ticket {
        self.put(self.lock(), run)
    }

    fn put(&self, mut lot: MutexGuard<'_, Lot>, run: Run) -> Ticket {
        let mut dropped = Vec::new();
        let number = lot.next_ticket;
        lot.next_ticket += 1;
        lot.bytes += run.bytes();
        lot.runs.insert(number, run);
        while lot.bytes > lot.max_bytes
            && let Some((_, oldest)) = lot.runs.pop_first()
        {
            lot.bytes -= oldest.bytes();
            dropped.push(oldest);
        }
        // Freed without the lock.
        drop(lot);
        Ticket { parking: self.clone(), number }
    }

    /// Parks what nobody has asked for yet, if half of the lot stays free: it must not take the place of
    /// what is needed.
    pub(crate) fn park_spare(&self, run: Run) -> Option<Ticket> {
        let lot = self.lock();
        let has_room = lot.bytes + run.bytes() <= lot.max_bytes / 2;
        has_room.then(|| self.put(lot, run))
    }

    /// Whether it is worth while to read ahead.
    pub(crate) fn has_spare_room(&self) -> bool {
        let lot = self.lock();
        lot.bytes < lot.max_bytes / 2
    }

    fn take(&self, number: u64) -> Option<Run> {
        let mut lot = self.lock();
        let run = lot.runs.remove(&number)?;
        lot.bytes -= run.bytes();
        Some(run)
    }

    fn lock(&self) -> MutexGuard<'_, Lot> {
        // Nothing in here can panic half way but an allocation that fails.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// What was parked; `None` when there was no room for it any more.
    pub(crate) fn redeem(self) -> Option<Run> {
        self.parking.take(self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.parking.take(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_log::eventlog::Delivery;
    use tailmark_log::storage::Chunk;
    use tailmark_record::Seq;

    fn run(bytes: usize) -> Run {
        let (first, end) = (Seq::FIRST, Seq::new(2));
        let chunk = Chunk { first, end, events: vec![0; bytes].into(), complete: true };
        Run::of(Delivery { chunk, is_recent: false })
    }

    fn bytes(parking: &Parking) -> (usize, usize) {
        let lot = parking.lock();
        (lot.bytes, lot.runs.len())
    }

    #[test]
    fn what_was_left_longest_ago_makes_room() {
        let parking = Parking::new(100);
        let first = parking.park(run(40));
        assert!(parking.has_spare_room() && parking.park_spare(run(11)).is_none());
        drop(parking.park_spare(run(10)).unwrap());
        let second = parking.park(run(50));
        assert_eq!(bytes(&parking), (90, 2));
        assert!(!parking.has_spare_room() && parking.park_spare(run(0)).is_none());
        let third = parking.park(run(30));
        assert_eq!(bytes(&parking), (80, 2));
        assert!(first.redeem().is_none());
        assert_eq!(second.redeem().unwrap().bytes(), 50);
        assert_eq!(bytes(&parking), (30, 1));
        // One that never fits is not kept at all, and takes nothing else along in vain.
        let large = parking.park(run(101));
        assert_eq!(bytes(&parking), (0, 0));
        assert!(large.redeem().is_none() && third.redeem().is_none());
        drop(parking.park(run(10)));
        assert_eq!(bytes(&parking), (0, 0));
    }
}
