//! A bounded cache of chunks whose watches wait for their clients.
//!
//! A watch whose client does not read may not be polled for hours. It parks the rest of its chunk
//! here; its read-ahead is kept here from the start. A full cache evicts the chunk parked longest
//! ago, and its watch reads it again from exactly where it was. Knows nothing of events.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use tailmark_log::bounded::Bounded;
use tailmark_log::eventlog::Delivery;

/// The chunks of all watches that wait, by their tickets.
#[derive(Clone, Debug)]
pub(crate) struct Parking(Arc<Mutex<Lot>>);

#[derive(Debug)]
struct Lot {
    next_ticket: u64,
    chunks: Bounded<u64, Delivery>,
}

/// The right to what was parked, if it is still there. Dropped, it gives it up.
#[derive(Debug)]
pub(crate) struct Ticket {
    parking: Parking,
    number: u64,
}

impl Parking {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let chunks = Bounded::new(max_bytes);
        Parking(Arc::new(Mutex::new(Lot { next_ticket: 0, chunks })))
    }

    pub(crate) fn park(&self, chunk: Delivery) -> Ticket {
        self.put(self.0.lock(), chunk)
    }

    fn put(&self, mut lot: MutexGuard<'_, Lot>, chunk: Delivery) -> Ticket {
        let number = lot.next_ticket;
        lot.next_ticket += 1;
        let bytes = bytes(&chunk);
        let evicted = lot.chunks.insert(number, chunk, bytes);
        drop(lot);
        // Freed without the lock.
        drop(evicted);
        Ticket { parking: self.clone(), number }
    }

    /// Parks what nobody has asked for yet, if half of the room stays free: it must not take the place
    /// of what is needed.
    pub(crate) fn park_spare(&self, chunk: Delivery) -> Option<Ticket> {
        let lot = self.0.lock();
        let has_room = lot.chunks.bytes() + bytes(&chunk) <= lot.chunks.max_bytes() / 2;
        has_room.then(|| self.put(lot, chunk))
    }

    /// Gives up everything: its watches read it again.
    pub(crate) fn forget(&self) {
        let mut lot = self.0.lock();
        let empty = Bounded::new(lot.chunks.max_bytes());
        let chunks = std::mem::replace(&mut lot.chunks, empty);
        drop(lot);
        // Freed without the lock.
        drop(chunks);
    }

    /// Bytes parked now.
    pub(crate) fn bytes(&self) -> usize {
        self.0.lock().chunks.bytes()
    }

    /// Whether it is worth while to read ahead.
    pub(crate) fn has_spare_room(&self) -> bool {
        let lot = self.0.lock();
        lot.chunks.bytes() < lot.chunks.max_bytes() / 2
    }

    fn take(&self, number: u64) -> Option<Delivery> {
        self.0.lock().chunks.remove(&number)
    }
}

impl Ticket {
    /// What was parked; `None` when there was no room for it any more.
    pub(crate) fn redeem(self) -> Option<Delivery> {
        self.parking.take(self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.parking.take(self.number);
    }
}

/// Bytes of a chunk: at least half of what it keeps in memory (`storage::part_of`).
fn bytes(delivery: &Delivery) -> usize {
    delivery.chunk.events.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_log::storage::Chunk;
    use tailmark_record::Seq;

    fn chunk(bytes: usize) -> Delivery {
        let (first, end) = (Seq::FIRST, Seq::new(2));
        let chunk = Chunk { first, end, events: vec![0; bytes].into(), complete: true };
        Delivery { chunk, is_recent: false, erasures: 0 }
    }

    fn kept(parking: &Parking) -> (usize, usize) {
        let lot = parking.0.lock();
        (lot.chunks.bytes(), lot.chunks.len())
    }

    #[test]
    fn what_is_forgotten_is_read_again_and_there_is_room() {
        let parking = Parking::new(100);
        let (first, second) = (parking.park(chunk(40)), parking.park(chunk(50)));
        parking.forget();
        assert_eq!(kept(&parking), (0, 0));
        let third = parking.park(chunk(100));
        assert!(first.redeem().is_none() && second.redeem().is_none());
        assert_eq!(third.redeem().as_ref().map(bytes), Some(100));
    }

    #[test]
    fn what_was_left_longest_ago_makes_room() {
        let parking = Parking::new(100);
        let first = parking.park(chunk(40));
        assert!(parking.has_spare_room() && parking.park_spare(chunk(11)).is_none());
        drop(parking.park_spare(chunk(10)).unwrap());
        let second = parking.park(chunk(50));
        assert_eq!(kept(&parking), (90, 2));
        assert!(!parking.has_spare_room() && parking.park_spare(chunk(0)).is_none());
        let third = parking.park(chunk(30));
        assert_eq!(kept(&parking), (80, 2));
        assert!(first.redeem().is_none());
        assert_eq!(second.redeem().as_ref().map(bytes), Some(50));
        assert_eq!(kept(&parking), (30, 1));
        // One that never fits is not kept at all, and takes nothing else along in vain.
        let large = parking.park(chunk(101));
        assert_eq!(kept(&parking), (0, 0));
        assert!(large.redeem().is_none() && third.redeem().is_none());
        drop(parking.park(chunk(10)));
        assert_eq!(kept(&parking), (0, 0));
    }
}
