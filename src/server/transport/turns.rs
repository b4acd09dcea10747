//! Turns of the streams of one HTTP/2 connection: how many of them begin at a time.
//!
//! A request that begins is the dearest step of most: its head is looked at, who asks is found out, a
//! handler is made. The scheduler runs tasks in the order in which they became ready, so a thousand
//! requests that one client writes together would all come before the next one of anybody else. Here
//! a few of a connection begin, and each lets the next one in when it has begun: the others wait in
//! the connection's own queue, and whoever else is ready comes in between.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::streams::{Cuttable, cuttable};

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams of a connection that begin at a time: what keeps the threads of a small machine at work. The
/// scheduler lets up to three follow each at once, before it looks at its queue.
const AT_ONCE: usize = 4;

/// Runs the streams of a connection, each in a task of its own.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// Spawned, and not polled for the first time.
    beginning: usize,
    /// Bounded by the streams that a connection may have, and those of its budget that were reset.
    waiting: VecDeque<Stream>,
    /// The connection has ended.
    is_over: bool,
}

impl<F> hyper::rt::Executor<F> for Turns
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut queue = self.0.lock();
        if queue.is_over {
            return;
        }
        if queue.beginning == AT_ONCE {
            queue.waiting.push_back(Box::pin(stream));
            return;
        }
        queue.beginning += 1;
        drop(queue);
        self.spawn(Box::pin(stream));
    }
}

impl Turns {
    fn spawn(&self, stream: Stream) {
        let place = Some(Place { turns: self.clone(), is_polled: false });
        tokio::spawn(Turn { stream: cuttable(stream), place });
    }

    /// Lets go of those that have not begun: nobody waits for them.
    pub(crate) fn end(&self) {
        let waiting = {
            let mut queue = self.0.lock();
            queue.is_over = true;
            std::mem::take(&mut queue.waiting)
        };
        drop(waiting);
    }
}

/// The task of a stream.
struct Turn {
    stream: Cuttable<dyn Future<Output = ()> + Send>,
    /// Until it was polled.
    place: Option<Place>,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The next one comes in also where this one panics.
        let mut place = self.place.take();
        if let Some(place) = &mut place {
            place.is_polled = true;
        }
        Pin::new(&mut self.stream).poll(cx).map(drop)
    }
}

/// A place among those that begin: the next one's, once who has it was polled.
struct Place {
    turns: Turns,
    /// Else there is no scheduler any more, and nobody to come next.
    is_polled: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.turns.0.lock();
        if !self.is_polled {
            queue.beginning -= 1;
            // Each of them has the executor, and so this queue.
            let waiting = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(waiting);
            return;
        }
        match queue.waiting.pop_front() {
            None => queue.beginning -= 1,
            Some(next) => {
                drop(queue);
                self.turns.spawn(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use hyper::rt::Executor as _;

    use super::*;

    /// Streams that say when they begin, and never end.
    fn stream(begun: &Arc<AtomicUsize>) -> impl Future<Output = ()> + use<> {
        let begun = Arc::clone(begun);
        async move {
            begun.fetch_add(1, Relaxed);
            std::future::pending().await
        }
    }

    async fn rest() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn others_come_in_between_and_all_have_their_turn() {
        let (turns, begun) = (Turns::default(), Arc::default());
        for _ in 0..1_000 {
            turns.execute(stream(&begun));
        }
        // The null control: what is spawned at once is before whoever comes later.
        let control = Arc::default();
        for _ in 0..1_000 {
            tokio::spawn(stream(&control));
        }
        let before = Arc::clone(&begun);
        let seen = tokio::spawn(async move { before.load(Relaxed) }).await.unwrap();
        assert!(seen <= 2 * AT_ONCE, "{seen} came first");
        assert_eq!(control.load(Relaxed), 1_000);
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.load(Relaxed), 1_000);
        assert_eq!(turns.0.lock().beginning, 0);
    }

    #[tokio::test]
    async fn one_that_panics_or_ends_at_once_keeps_nobody_out() {
        let (turns, begun) = (Turns::default(), Arc::default());
        for _ in 0..AT_ONCE {
            turns.execute(async { panic!("as it begins") });
            turns.execute(async {});
            turns.execute(stream(&begun));
        }
        rest().await;
        assert_eq!(begun.load(Relaxed), AT_ONCE);
        assert_eq!(turns.0.lock().beginning, 0);
    }

    #[tokio::test]
    async fn who_has_not_begun_when_the_connection_ends_never_does() {
        let (turns, begun) = (Turns::default(), Arc::default());
        for _ in 0..100 {
            turns.execute(stream(&begun));
        }
        turns.end();
        turns.execute(stream(&begun));
        rest().await;
        assert_eq!(begun.load(Relaxed), AT_ONCE);
        assert_eq!(Arc::strong_count(&begun), 1 + AT_ONCE);
    }

    #[test]
    fn a_scheduler_that_ends_takes_all_of_them_along() {
        let (turns, begun) = (Turns::default(), Arc::default());
        let scheduler = tokio::runtime::Builder::new_current_thread().build().unwrap();
        scheduler.block_on(async {
            for _ in 0..100_000 {
                // As hyper's do, each has the executor.
                let (stream, executor) = (stream(&begun), turns.clone());
                turns.execute(async move {
                    stream.await;
                    drop(executor);
                });
            }
        });
        drop(scheduler);
        assert_eq!(turns.0.lock().beginning, 0);
        assert_eq!(Arc::strong_count(&begun), 1, "nobody waits, though the executor is there");
    }
}
