//! A wrapper around some response bodies: it ends them from outside, and keeps their connection
//! open once they are over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;

use super::ending::Endings;
use super::streams::Spare;
use crate::server::rpc::status;
use crate::server::unsent::{Line, Reserved, Sending};

/// Ends the endless streams of health and reflection at the client's deadline, and when the server
/// stops, once they have said what they had to say.
pub(crate) struct Ends {
    pub(crate) endings: Endings,
    /// What a client is told to wait before it comes back.
    pub(crate) retry_delay: Duration,
}

/// A body with what is around it.
pub(crate) struct Answer {
    inner: Body,
    ends: Option<Ends>,
    weight: Option<Weight>,
    _spare: Option<Spare>,
}

/// Counts an answer among what waits to be sent: as much as was reserved for it until it is made, then
/// what it is.
pub(crate) struct Weight {
    reserved: Option<Reserved>,
    sending: Sending,
    /// It comes piece by piece, and is asked for more only when there is room.
    is_stream: bool,
}

impl Weight {
    /// Waits until an answer of so many bytes may be made; `None` when it is too late for one then.
    pub(crate) async fn reserve(line: &Line, bytes: usize, by: Instant) -> Option<Weight> {
        let reserved = timeout_at(by, line.reserve(bytes)).await.ok()?;
        Some(Weight { reserved: Some(reserved), sending: line.sending(), is_stream: false })
    }

    /// Of a stream of messages.
    pub(crate) fn of_stream(line: &Line) -> Weight {
        Weight { reserved: None, sending: line.sending(), is_stream: true }
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        frame.map_data(|data| self.sending.hand_over(data, false))
    }
}

impl Answer {
    /// Puts around an answer what there is to put.
    pub(crate) fn wrap(
        response: Response<Body>,
        ends: Option<Ends>,
        weight: Option<Weight>,
        spare: Option<Spare>,
    ) -> Response<Body> {
        if ends.is_none() && weight.is_none() && spare.is_none() {
            return response;
        }
        response.map(|inner| Body::new(Answer { inner, ends, weight, _spare: spare }))
    }
}

impl Ends {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<status::Failure> {
        if self.endings.poll_deadline(cx).is_ready() {
            return Poll::Ready(status::deadline());
        }
        if let Poll::Ready(failure) = self.endings.poll_revoked(cx) {
            return Poll::Ready(failure);
        }
        self.endings.poll_stop(cx).map(|()| status::stopping(self.retry_delay))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(weight) = &mut self.weight
            && weight.is_stream
        {
            ready!(weight.sending.poll_may(cx));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            let is_over = self.inner.is_end_stream();
            let Some(weight) = &mut self.weight else { return Poll::Ready(frame) };
            let frame = frame.map(|frame| frame.map(|frame| weight.count(frame)));
            if is_over || frame.is_none() {
                weight.reserved = None;
            }
            return Poll::Ready(frame);
        }
        let Some(ends) = &mut self.ends else { return Poll::Pending };
        let failure = ready!(ends.poll(cx));
        self.inner = Body::empty();
        let mut trailers = HeaderMap::new();
        Status::from(failure).add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
