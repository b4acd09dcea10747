//! What ends a stream from outside: its deadline, the server's stop, or the end of the credential that
//! it was opened with.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::server::principal::{Caller, Session};
use crate::server::rpc::status::Failure;

/// All of them, for one stream.
pub(crate) struct Endings {
    at: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
    stop: CancellationToken,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Where somebody had to say who they are.
    session: Option<(Arc<Session>, Pin<Box<WaitForCancellationFutureOwned>>)>,
}

impl Endings {
    pub(crate) fn new(deadline: Option<Instant>, stop: &CancellationToken, caller: Caller) -> Self {
        let session = caller.into_session().map(|session| {
            let over = Box::pin(session.over().clone().cancelled_owned());
            (session, over)
        });
        Endings {
            at: deadline,
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            stop: stop.clone(),
            stopping: Box::pin(stop.clone().cancelled_owned()),
            session,
        }
    }

    /// Whether the credential is not in force any more, and what the stream ends with then.
    pub(crate) fn revoked(&self) -> Option<Failure> {
        self.session.as_ref().and_then(|(session, _)| session.ended())
    }

    /// Waits for that; for ever where nobody had to say who they are.
    pub(crate) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        match &mut self.session {
            Some((session, over)) => over.as_mut().poll(cx).map(|()| session.failure()),
            None => Poll::Pending,
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
        } else if self.revoked().is_some() {
            "cut after its token ended"
        } else {
            "client gone"
        }
    }
}
