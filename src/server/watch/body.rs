//! A watch as a response body that bypasses tonic's encoder.
//!
//! tonic copies each message of a stream into that stream's buffer, and keeps the buffer. A watch's
//! messages are framed already, often by another watch, and most of many watches are idle. So its
//! body goes to the connection as it is. tonic still decodes the request and makes the response;
//! the body travels as its extension, and [`Bodies`] puts it in place.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::{Request, Response};
use http_body::Frame;
use parking_lot::Mutex;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::stream::{Item, WatchStream};
use crate::server::rpc::frames::{self, YIELD_BYTES};
use tailmark_wire::feed_v1 as pb;

/// What is so long goes out as it is, where nothing waits before it; what is shorter is worth a copy
/// if it can share a frame with more.
const ALONE_BYTES: usize = 4 << 10;

/// What tonic believes a watch to answer.
pub(crate) type NoStream = tokio_stream::Empty<Result<Infallible, Status>>;

/// The answer to a watch, for tonic.
pub(super) fn answer(stream: WatchStream, framing: Framing) -> tonic::Response<NoStream> {
    let mut response = tonic::Response::new(tokio_stream::empty());
    let body = WatchBody { stream, framing, out: Vec::new(), last: None, is_over: false };
    response.extensions_mut().insert(Handed(Arc::new(Mutex::new(Some(body)))));
    response
}

/// What messages a watch is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Event`s, which the machine has framed.
    Events,
    /// `EventBatch`es of the entries that the machine gives out.
    Batches,
}

impl Framing {
    /// An item as whole messages with their prefixes.
    fn write(self, item: Item) -> Bytes {
        match (item, self) {
            (Item::Events { bytes, .. }, Framing::Events) => bytes,
            (Item::Events { bytes, .. }, Framing::Batches) => framed(&bytes),
            (Item::Marker(marker), Framing::Events) => {
                let (cursor, marker) = (marker.cursor.clone(), Some((*marker).into()));
                let event = pb::Event { cursor, marker, ..pb::Event::default() };
                framed(&event.encode_to_vec())
            }
            (Item::Marker(marker), Framing::Batches) => {
                let marker = Some((*marker).into());
                framed(&pb::EventBatch { events: Vec::new(), marker }.encode_to_vec())
            }
        }
    }
}

/// One message, framed.
fn framed(message: &[u8]) -> Bytes {
    let mut frames = Vec::with_capacity(frames::PREFIX_BYTES + message.len());
    frames::push(&mut frames, message);
    frames.into()
}

/// A body on its way. Extensions have to be `Clone`; it is taken once.
#[derive(Clone)]
struct Handed(Arc<Mutex<Option<WatchBody>>>);

/// Gives answers the bodies that belong to them.
#[derive(Clone, Debug)]
pub(crate) struct Bodies<S>(pub(crate) S);

impl<S: NamedService> NamedService for Bodies<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Bodies<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let handed = response.extensions_mut().remove::<Handed>();
            let body = handed.and_then(|handed| handed.0.lock().take());
            Ok(match body {
                Some(body) => response.map(|_| Body::new(body)),
                None => response,
            })
        })
    }
}

/// The messages of a watch, then its last status. Invariant: what is handed over is never small,
/// and nothing is kept while there is nothing to send.
struct WatchBody {
    stream: WatchStream,
    framing: Framing,
    /// What is ready and waits for what else is.
    out: Vec<u8>,
    /// How it ends, once `out` has gone.
    last: Option<Status>,
    is_over: bool,
}

impl WatchBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while self.last.is_none() {
            match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Ready(Some(Ok(item))) => {
                    let is_shared = matches!(item, Item::Events { is_shared: true, .. });
                    let messages = self.framing.write(item);
                    if self.out.is_empty() && messages.len() >= ALONE_BYTES {
                        self.stream.gone();
                        let messages = self.stream.count(messages, is_shared);
                        return Poll::Ready(Some(Ok(Frame::data(messages))));
                    }
                    self.out.extend_from_slice(&messages);
                    if self.out.len() >= YIELD_BYTES {
                        break;
                    }
                }
                Poll::Ready(Some(Err(last))) => self.last = Some(last),
                Poll::Ready(None) => self.last = Some(Status::ok("")),
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !self.out.is_empty() {
            let mut out = std::mem::take(&mut self.out);
            frames::fill_up(&mut out);
            let out = self.stream.count(frames::finished(out), false);
            return Poll::Ready(Some(Ok(Frame::data(out))));
        }
        let Some(last) = self.last.take() else { return Poll::Pending };
        self.is_over = true;
        let mut trailers = http::HeaderMap::new();
        last.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.is_over { Poll::Ready(None) } else { this.poll(cx) }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}
