//! Appending from a thread that may block.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::oneshot;

use crate::eventlog::core::Core;
use crate::eventlog::queue::{Pending, Work};
use crate::eventlog::repeats_ready::RepeatsReady;
use crate::eventlog::{Answer, AppendError, AppendOptions, Appended, Batch};

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future that needs nothing of a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

/// Appends a batch, but for what of it is there already, as far as that can be told.
pub(super) fn append(core: &Core, batch: Batch) -> Result<Appended, AppendError> {
    block_on(async {
        let dedup = {
            let mut ready = core.repeats_ready.subscribe();
            let ready = ready.wait_for(|ready| !matches!(ready, RepeatsReady::NotYet)).await;
            match ready.as_deref() {
                Ok(RepeatsReady::Failed(_)) => false,
                Ok(_) => true,
                Err(_) => return Err(AppendError::Closing),
            }
        };
        let bytes = batch.stored_bytes().clamp(1, core.in_flight_bytes);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let share = core.room.clone().acquire_many_owned(permits).await;
        let share = share.map_err(|_| AppendError::Closing)?;
        let (reply, answer) = oneshot::channel();
        let options = AppendOptions { dedup, ..AppendOptions::default() };
        let pending = Pending::new(batch, options, None, share, reply);
        core.queue.push(Work::Append(Box::new(pending)))?;
        Answer::new(answer).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_another_thread_completes_is_waited_for() {
        let (sender, receiver) = oneshot::channel();
        let other = thread::spawn(move || sender.send(7));
        assert_eq!(block_on(receiver), Ok(7));
        assert_eq!(other.join().unwrap(), Ok(()));
    }
}
