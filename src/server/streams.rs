//! The task of each HTTP/2 stream, and the one way to end it from outside.
//!
//! HTTP/2 asks an answer for more only while its client opens the window, so nothing in the answer
//! itself can notice that its time is over while the client stalls. The task around it can. A call
//! without a deadline costs no timer, and none costs a task of its own.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    static CUT_AT: Cell<Option<Instant>>;
}

/// Resets the stream of the call that is being handled, if it is still open then. With it goes all
/// that the call holds.
pub(super) fn cut_at(at: Instant) {
    // Not on a stream of HTTP/2: nothing to cut.
    let _ = CUT_AT.try_with(|cut_at| cut_at.set(Some(at)));
}

/// Runs the streams of HTTP/2 connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Task { stream: Box::pin(stream), cut: None });
    }
}

struct Task<F> {
    stream: Pin<Box<F>>,
    cut: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (polled, cut_at) = CUT_AT.sync_scope(Cell::new(None), || {
            let polled = this.stream.as_mut().poll(cx);
            (polled, CUT_AT.with(Cell::take))
        });
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if let Some(at) = cut_at {
            this.cut = Some(Box::pin(sleep_until(at)));
        }
        match &mut this.cut {
            // Dropped with its stream open, the answer is reset with CANCEL.
            Some(cut) => cut.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
