//! A memory budget for incoming messages: bytes of a long message or line that has begun and is not
//! whole yet.
//!
//! Bounded in bytes and in time. A short message needs no budget: streams are limited in number. A
//! message without budget waits, and HTTP/2 holds back its client. One that has budget and does not
//! arrive in time is refused, so nobody keeps it for ever. The budget for a message is taken all at
//! once: two half-received messages never wait for each other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::PollSemaphore;

/// A message of up to this many bytes needs no room.
pub(crate) const SMALL_BYTES: usize = 16 << 10;
/// What a permit stands for: a semaphore counts to 2^29 only on small machines.
const UNIT_BYTES: usize = 1 << 10;

/// The room of one server; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    room: Arc<Semaphore>,
    units: u32,
    patience: Duration,
}

impl Arrivals {
    /// `patience`: how long the rest of a message may be waited for in all.
    pub(crate) fn new(bytes: usize, patience: Duration) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1);
        let units = units.min(Semaphore::MAX_PERMITS.try_into().unwrap_or(u32::MAX));
        Arrivals { room: Arc::new(Semaphore::new(units as usize)), units, patience }
    }

    /// For one body.
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival {
            room: PollSemaphore::new(Arc::clone(&self.room)),
            units: self.units,
            taken: None,
            patience: self.patience,
            left: self.patience,
            since: None,
            timer: None,
        }
    }
}

/// What one body has of the room, and of its time.
#[derive(Debug)]
pub(crate) struct Arrival {
    room: PollSemaphore,
    /// All that there is.
    units: u32,
    taken: Option<OwnedSemaphorePermit>,
    patience: Duration,
    /// Time left for the rest of the message that has begun.
    left: Duration,
    /// Waiting since then.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The rest of a message did not come in its time, or there was no room for it all that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late;

impl Arrival {
    /// Takes room for a message of so many bytes, unless it has some already.
    pub(crate) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<Result<(), Late>> {
        if self.taken.is_some() || bytes <= SMALL_BYTES {
            return Poll::Ready(Ok(()));
        }
        // One that is larger than all the room may come alone.
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units);
        match self.room.poll_acquire_many(cx, units) {
            Poll::Ready(permit) => {
                self.taken = permit;
                self.moved();
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.poll_late(cx).map(Err),
        }
    }

    /// To be asked while the rest of a message is waited for.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let at = since + self.left;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| Late)
    }

    /// Something came. Time in which nobody asked for more counts for nobody.
    pub(crate) fn moved(&mut self) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
    }

    /// The message is whole, or given up.
    pub(crate) fn whole(&mut self) {
        self.taken = None;
        self.since = None;
        self.left = self.patience;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn room(arrival: &mut Arrival, bytes: usize) -> Result<(), Late> {
        poll_fn(|cx| arrival.poll_room(cx, bytes)).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_the_room_waits_until_there_is_some() {
        let arrivals = Arrivals::new(1 << 20, PATIENCE);
        let (mut first, mut second) = (arrivals.arrival(), arrivals.arrival());
        assert_eq!(room(&mut first, 1 << 20).await, Ok(()));
        // Small ones pass whatever there is.
        assert_eq!(room(&mut second, SMALL_BYTES).await, Ok(()));
        let waiting = tokio::spawn(async move {
            let begun = Instant::now();
            (room(&mut second, 1 << 19).await, begun.elapsed())
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        first.whole();
        assert_eq!(waiting.await.unwrap(), (Ok(()), Duration::from_secs(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_keeps_room_or_waits_for_it_for_ever() {
        let arrivals = Arrivals::new(1 << 20, PATIENCE);
        let (mut first, mut second) = (arrivals.arrival(), arrivals.arrival());
        assert_eq!(room(&mut first, 4 << 20).await, Ok(()), "larger than all the room");
        assert_eq!(room(&mut second, 1 << 20).await, Err(Late));
        // A little now and then does not help.
        let begun = Instant::now();
        loop {
            let late = poll_fn(|cx| first.poll_late(cx));
            if tokio::time::timeout(Duration::from_secs(7), late).await.is_ok() {
                break;
            }
            first.moved();
        }
        assert_eq!(begun.elapsed(), PATIENCE);
        // Time in which nobody asks, as while the disk is slow, does not count.
        first.whole();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let late = poll_fn(|cx| first.poll_late(cx));
        assert!(tokio::time::timeout(Duration::from_secs(29), late).await.is_err());
        drop(first);
        second.whole();
        assert_eq!(room(&mut second, 1 << 20).await, Ok(()));
    }
}
