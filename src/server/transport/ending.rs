//! What ends a stream from outside: its deadline, or the server's stop.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The two of them, for one stream.
pub(crate) struct Endings {
    at: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
    stop: CancellationToken,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Endings {
    pub(crate) fn new(deadline: Option<Instant>, stop: &CancellationToken) -> Self {
        Endings {
            at: deadline,
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            stop: stop.clone(),
            stopping: Box::pin(stop.clone().cancelled_owned()),
        }
    }

    /// Whether the client's time is over, by the clock.
    pub(crate) fn is_late(&self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    /// Whether the server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for the client's time to be over; for ever without a deadline.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Waits for the server to stop.
    pub(crate) fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stopping.as_mut().poll(cx)
    }

    /// Why a stream is over that was dropped before its own end: cut by us, or left by its client.
    pub(crate) fn why_dropped(&self) -> &'static str {
        if self.is_late() {
            "cut after its deadline"
        } else if self.is_stopping() {
            "cut while stopping"
        } else {
            "client gone"
        }
    }
}
