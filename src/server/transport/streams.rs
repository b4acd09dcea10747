//! The task of each HTTP/2 stream and of each HTTP/1.1 connection, and the one way to cut it from
//! outside.
//!
//! HTTP/2 polls a body only while the client opens the window, HTTP/1.1 while the client reads. So
//! a body cannot notice that its deadline has passed while the client stalls; the task around it
//! can. A call without a deadline costs no timer, and no call costs an extra task.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// What the answer that is being polled asks of the task around it.
    static WISH: Wish;
}

/// What an answer wishes for its task, until the task looks.
#[derive(Debug, Default)]
struct Wish(Cell<Change>);

/// How the time at which a task is cut changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Change {
    /// It stays.
    #[default]
    None,
    /// It is cut then.
    CutAt(Instant),
    /// It is not cut.
    Spare,
}

impl Wish {
    fn ask(&self, change: Change) {
        self.0.set(change);
    }

    fn take(&self) -> Change {
        self.0.take()
    }
}

/// Resets the stream of the call that is being handled, or on HTTP/1.1 its connection, if it is
/// still open then. With it goes all that the call holds. `None` takes that back.
pub(crate) fn cut_at(at: Option<Instant>) {
    let change = at.map_or(Change::Spare, Change::CutAt);
    // Elsewhere there is nothing to cut.
    let _ = WISH.try_with(|wish| wish.ask(change));
}

/// Takes the cut back when the answer that it was for is over.
#[derive(Debug)]
pub(crate) struct Spare;

impl Drop for Spare {
    fn drop(&mut self) {
        cut_at(None);
    }
}

/// Runs the streams of HTTP/2 connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(cuttable(stream));
    }
}

/// Runs a future until it ends or is cut: then `None`.
pub(crate) fn cuttable<F: Future>(inner: F) -> Cuttable<F> {
    Cuttable { inner: Box::pin(inner), cut: None }
}

pub(crate) struct Cuttable<F> {
    inner: Pin<Box<F>>,
    cut: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Cuttable<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (polled, change) = WISH.sync_scope(Wish::default(), || {
            let polled = this.inner.as_mut().poll(cx);
            (polled, WISH.with(Wish::take))
        });
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        match change {
            Change::None => {}
            Change::CutAt(at) => this.cut = Some(Box::pin(sleep_until(at))),
            Change::Spare => this.cut = None,
        }
        match &mut this.cut {
            // Dropped with its stream open, the answer is reset with CANCEL.
            Some(cut) => cut.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    /// Sets a cut when it is polled first and lives for a second.
    fn work(cut: Option<Duration>, spare: bool) -> impl Future<Output = ()> {
        let mut life = Box::pin(sleep(Duration::from_secs(1)));
        let mut is_first = true;
        poll_fn(move |cx| {
            if std::mem::take(&mut is_first) {
                cut_at(cut.map(|after| Instant::now() + after));
                if spare {
                    drop(Spare);
                }
            }
            life.as_mut().poll(cx)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_cut_in_time_unless_its_answer_is_over() {
        let (early, late) = (Duration::from_millis(10), Duration::from_secs(10));
        assert_eq!(cuttable(work(None, false)).await, Some(()));
        assert_eq!(cuttable(work(Some(late), false)).await, Some(()));
        assert_eq!(cuttable(work(Some(early), false)).await, None);
        assert_eq!(cuttable(work(Some(early), true)).await, Some(()));
        // Outside of such a task there is nothing to cut.
        work(Some(early), false).await;
    }
}
