//! Draining of request bodies that were answered early: the rest is read and discarded, within
//! bounds. So the connection can be reused, and a client that reads only after sending everything
//! gets the answer.
//!
//! What exceeds the bounds is left to the end of the connection (`linger.rs`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

const BYTES: usize = 16 << 20;
const TIME: Duration = Duration::from_secs(2);

/// A request's body. What is left of it when it is dropped is read and thrown away.
#[derive(Debug)]
pub(crate) struct Drained {
    /// Absent once it is over, or broken off.
    inner: Option<Incoming>,
    /// Whether somebody has asked for it, where its sender waits for that.
    asked: Option<Arc<AtomicBool>>,
}

impl Drained {
    pub(crate) fn new(inner: Incoming, head: &Parts) -> Self {
        let waits = head.version == Version::HTTP_11
            && !inner.is_end_stream()
            && head.headers.contains_key(header::EXPECT);
        Drained { inner: Some(inner), asked: waits.then(Arc::default) }
    }

    /// To be looked at when the request was answered; absent where its sender does not wait.
    pub(crate) fn asked(&self) -> Option<Arc<AtomicBool>> {
        self.asked.clone()
    }

    /// The body itself, to be left where it is when it is dropped.
    pub(crate) fn into_inner(mut self) -> Option<Incoming> {
        self.inner.take()
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(asked) = self.asked.take() {
            asked.store(true, Ordering::Relaxed);
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.inner = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if let Some(body) = self.inner.take()
            && self.asked.is_none()
            && !body.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(TIME, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut drained = 0;
    while drained < BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
}
