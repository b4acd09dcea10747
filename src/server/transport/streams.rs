//! The task of each HTTP/2 stream and of each HTTP/1.1 connection, and the one way to cut it from
//! outside.
//!
//! HTTP/2 polls a body only while the client opens the window, HTTP/1.1 while the client reads. So
//! a body cannot notice that its deadline has passed while the client stalls; the task around it
//! can. A call without a deadline costs no timer, and no call costs an extra task.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

tokio::task_local! {
    /// What the answer that is being polled asks of the task around it.
    static WISH: Wish;
}

/// What an answer wishes for its task, until the task looks.
#[derive(Debug, Default)]
struct Wish {
    change: Cell<Change>,
    over: RefCell<Option<CancellationToken>>,
}

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
        self.change.set(change);
    }

    fn take(&self) -> (Change, Option<CancellationToken>) {
        (self.change.take(), self.over.take())
    }
}

/// Resets the stream of the call that is being handled, or on HTTP/1.1 its connection, if it is
/// still open then. With it goes all that the call holds. `None` takes that back.
pub(crate) fn cut_at(at: Option<Instant>) {
    let change = at.map_or(Change::Spare, Change::CutAt);
    // Elsewhere there is nothing to cut.
    let _ = WISH.try_with(|wish| wish.ask(change));
}

/// The same, some time after `over` was cancelled: what was begun with a credential is told that it is
/// not in force any more, and who does not take that has no more of it all the same.
pub(crate) fn cut_after(over: &CancellationToken) {
    let _ = WISH.try_with(|wish| wish.over.replace(Some(over.clone())));
}

/// For a client to take the status that ends a stream whose credential is not in force any more.
const TELLING: Duration = Duration::from_secs(4);

/// Takes the cut back when the answer that it was for is over.
#[derive(Debug)]
pub(crate) struct Spare;

impl Drop for Spare {
    fn drop(&mut self) {
        cut_at(None);
    }
}

/// Runs a future until it ends or is cut: then `None`.
pub(crate) fn cuttable<F: Future + ?Sized>(inner: Pin<Box<F>>) -> Cuttable<F> {
    Cuttable { inner, over: None, cut: None }
}

pub(crate) struct Cuttable<F: ?Sized> {
    inner: Pin<Box<F>>,
    over: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    cut: Option<Pin<Box<Sleep>>>,
}

impl<F: Future + ?Sized> Future for Cuttable<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (polled, (change, over)) = WISH.sync_scope(Wish::default(), || {
            let polled = this.inner.as_mut().poll(cx);
            (polled, WISH.with(Wish::take))
        });
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        match change {
            Change::None => {}
            Change::CutAt(at) => this.cut = Some(Box::pin(sleep_until(at))),
            Change::Spare => (this.cut, this.over) = (None, None),
        }
        if let Some(over) = over {
            this.over = Some(Box::pin(over.cancelled_owned()));
        }
        if let Some(over) = &mut this.over
            && over.as_mut().poll(cx).is_ready()
        {
            this.over = None;
            this.cut = Some(Box::pin(sleep_until(Instant::now() + TELLING)));
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
    async fn a_task_outlives_its_credential_by_little() {
        let long = |token: CancellationToken| {
            let mut life = Box::pin(sleep(Duration::from_secs(60)));
            let mut is_first = true;
            poll_fn(move |cx| {
                if std::mem::take(&mut is_first) {
                    cut_after(&token);
                }
                life.as_mut().poll(cx)
            })
        };
        let over = CancellationToken::new();
        assert_eq!(cuttable(Box::pin(long(over.clone()))).await, Some(()), "it stays in force");
        let ends = over.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            ends.cancel();
        });
        let began = Instant::now();
        assert_eq!(cuttable(Box::pin(long(over.clone()))).await, None);
        assert_eq!(began.elapsed(), Duration::from_secs(1) + TELLING);
        assert_eq!(cuttable(Box::pin(work(None, false))).await, Some(()), "another's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_cut_in_time_unless_its_answer_is_over() {
        let (early, late) = (Duration::from_millis(10), Duration::from_secs(10));
        assert_eq!(cuttable(Box::pin(work(None, false))).await, Some(()));
        assert_eq!(cuttable(Box::pin(work(Some(late), false))).await, Some(()));
        assert_eq!(cuttable(Box::pin(work(Some(early), false))).await, None);
        assert_eq!(cuttable(Box::pin(work(Some(early), true))).await, Some(()));
        // Outside of such a task there is nothing to cut.
        work(Some(early), false).await;
    }
}
