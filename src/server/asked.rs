//! What the calls of administrators have in common of which a thread makes the answer: who may ask, and the stream of
//! what the thread says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::figures::OpenStream;
use super::principal::Caller;
use super::quotas::Peer;
use super::rpc::status::{self, Failure};
use super::rpc::{deadline, trace};
use super::transport::ending::Endings;
use super::{Shared, report};

/// A part of an answer.
pub(crate) type Part<P> = Result<P, Failure>;

/// A call that may be answered.
pub(crate) struct Asked {
    pub(crate) caller: Caller,
    pub(crate) peer: Option<Peer>,
    deadline: Option<Instant>,
    metadata: MetadataMap,
}

impl Asked {
    /// Lets in who may do what the call is about, while there is time for it.
    ///
    /// # Errors
    /// What it is refused with.
    pub(crate) fn new<M>(
        shared: &Shared,
        request: Request<M>,
        act: &'static str,
    ) -> Result<(Asked, M), Failure> {
        let (metadata, extensions, message) = request.into_parts();
        if shared.stop.is_cancelled() {
            return Err(status::stopping(shared.options.retry_delay));
        }
        let caller = shared.auth.caller(&extensions)?;
        caller.admin(act)?;
        let deadline = deadline::of(&extensions);
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(status::deadline());
        }
        let peer = extensions.get::<Peer>().cloned();
        Ok((Asked { caller, peer, deadline, metadata }, message))
    }

    /// The answer, of which the thread sends the parts; `is_last` tells a part after which it may end. `kind` is what
    /// the stream counts as, `span` what it is traced as.
    pub(crate) fn answered<P>(
        self,
        shared: &Arc<Shared>,
        kind: &'static str,
        span: &tracing::Span,
        parts: mpsc::Receiver<Part<P>>,
        is_last: impl Fn(&P) -> bool + Send + 'static,
    ) -> PartStream<P> {
        trace::adopt(span, &self.metadata);
        PartStream {
            parts,
            is_last: Box::new(is_last),
            is_whole: false,
            is_over: false,
            endings: Endings::new(self.deadline, &shared.stop, self.caller),
            open: shared.figures.open(kind, None, span),
            retry_delay: shared.options.retry_delay,
        }
    }
}

/// What one client gets.
pub(crate) struct PartStream<P> {
    parts: mpsc::Receiver<Part<P>>,
    is_last: Box<dyn Fn(&P) -> bool + Send>,
    is_whole: bool,
    is_over: bool,
    endings: Endings,
    open: OpenStream,
    retry_delay: Duration,
}

impl<P> PartStream<P> {
    /// For how long it has been open, and how it ended.
    pub(crate) fn open(&self) -> &OpenStream {
        &self.open
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<P, Status>>> {
        if self.endings.poll_stop(cx).is_ready() {
            return self.fail("stopping", status::stopping(self.retry_delay));
        }
        if self.endings.poll_deadline(cx).is_ready() {
            return self.fail("deadline", status::deadline());
        }
        if let Poll::Ready(failure) = self.endings.poll_revoked(cx) {
            return self.fail("token ended", failure);
        }
        match ready!(self.parts.poll_recv(cx)) {
            Some(Ok(part)) => {
                self.is_whole = (self.is_last)(&part);
                Poll::Ready(Some(Ok(part)))
            }
            Some(Err(failure)) => self.fail("failed", failure),
            None if self.is_whole => {
                self.is_over = true;
                self.open.ends("done");
                Poll::Ready(None)
            }
            None if self.endings.is_stopping() => {
                self.fail("stopping", status::stopping(self.retry_delay))
            }
            None => {
                report::defect("a thread that makes an answer ended without a word");
                self.fail("failed", status::internal())
            }
        }
    }

    fn fail(&mut self, reason: &'static str, failure: Failure) -> Poll<Option<Result<P, Status>>> {
        self.is_over = true;
        self.open.ends(reason);
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl<P> Stream for PartStream<P> {
    type Item = Result<P, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over { Poll::Ready(None) } else { this.poll(cx) }
    }
}
