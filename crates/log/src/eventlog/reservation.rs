//! Room among the bytes in flight, for batches that are still being made.

use tokio::sync::OwnedSemaphorePermit;

/// Bytes of the room in flight that somebody has; given back when dropped. Nobody may wait for more of it
/// while he has some, for all could be with those who wait.
#[derive(Debug, Default)]
pub struct Reservation(Option<OwnedSemaphorePermit>);

impl Reservation {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Reservation {
        Reservation(Some(permit))
    }

    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Adds another of the same log.
    pub fn add(&mut self, more: Reservation) {
        match (&mut self.0, more.0) {
            (Some(own), Some(more)) => own.merge(more),
            (own @ None, more) => *own = more,
            (Some(_), None) => {}
        }
    }

    /// So much of it, and gives the rest back; `None` where it is less.
    pub(super) fn exactly(self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let mut permit = self.0?;
        let surplus = permit.num_permits().checked_sub(bytes)?;
        drop(permit.split(surplus));
        Some(permit)
    }
}
