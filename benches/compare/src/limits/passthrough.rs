//! tonic as a server that passes encoded messages through, with no log behind it.
//!
//! Every call is a stream both ways of raw messages, of the service `limit.Limit`: `Upload` counts
//! what comes, `Watch` sends stored events again and again, `Follow` sends them live as `Burst`
//! tells it to, `Echo` sends one back; `Own` is a watch with a place, to which `Round` brings events. `Publish` alone
//! is unary, and answers with what came.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tailmark_client::raw::Raw;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};

use crate::fan::BURST;
use crate::sample;

/// As the daemon's.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME_BYTES: u32 = 64 << 10;
const BATCH_BYTES: usize = 64 << 10;
const MAX_STREAMS: u32 = 1_100;

/// Batches of stored events, each with how many it has.
static BATCHES: LazyLock<Vec<(u64, Bytes)>> = LazyLock::new(|| {
    let mut batches = Vec::new();
    let (mut count, mut bytes) = (0, BytesMut::new());
    for event in sample::STORED.iter() {
        put_entry(&mut bytes, event);
        count += 1;
        if bytes.len() >= BATCH_BYTES {
            batches.push((count, bytes.split().freeze()));
            count = 0;
        }
    }
    batches
});

/// An entry of `EventBatch.events`.
pub(super) fn put_entry(out: &mut BytesMut, event: &[u8]) {
    out.put_u8(0x0a);
    prost::encoding::encode_varint(event.len() as u64, out);
    out.put_slice(event);
}

/// What a watch asks for: a message an event, or batches; and how many events.
pub(crate) fn request(in_batches: bool, events: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(in_batches.into());
    out.put_u64(events);
    out.freeze()
}

/// Before an event that goes to one watch: whose it is.
const PLACE_BYTES: usize = 8;

/// A place, and what goes there.
pub(crate) fn to_place(place: u64, event: &[u8]) -> Bytes {
    [&place.to_be_bytes(), event].concat().into()
}

fn place(message: &[u8]) -> Result<u64, Status> {
    let place = message.first_chunk::<PLACE_BYTES>();
    place
        .map(|place| u64::from_be_bytes(*place))
        .ok_or_else(|| Status::invalid_argument("no place"))
}

fn parse(request: &[u8]) -> Result<(bool, u64), Status> {
    let bad = || Status::invalid_argument("expected 9 bytes");
    let (kind, events) = request.split_first().ok_or_else(bad)?;
    Ok((*kind > 0, u64::from_be_bytes(events.try_into().map_err(|_| bad())?)))
}

/// Serves until the process is ended; says where on standard output.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let mut out = std::io::stdout();
    writeln!(out, "ready on {}", listener.local_addr()?)?;
    out.flush()?;
    serve_on(listener).await
}

/// Serves what comes here.
pub(crate) async fn serve_on(listener: TcpListener) -> Result<()> {
    let limit = Limit { head: Arc::new(watch::channel(0).0), own: Arc::default() };
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        std::io::Result::Ok(stream)
    });
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(limit)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

/// The service: all that it has is how many events there are live.
#[derive(Clone)]
struct Limit {
    head: Arc<watch::Sender<u64>>,
    /// Watches that each have a place of their own.
    own: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Bytes>>>>,
}

impl NamedService for Limit {
    const NAME: &'static str = "limit.Limit";
}

type Answer = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl tower::Service<http::Request<Body>> for Limit {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let limit = self.clone();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            if method == "Publish" {
                // Answers with what it was asked.
                let echo = tower::service_fn(|request: Request<Bytes>| async move {
                    Ok(Response::new(request.into_inner()))
                });
                return Ok(Grpc::new(Raw).unary(echo, request).await);
            }
            let handler = tower::service_fn(move |request: Request<Streaming<Bytes>>| {
                let (limit, method) = (limit.clone(), method.clone());
                async move { limit.answer(&method, request.into_inner()).await.map(Response::new) }
            });
            Ok(Grpc::new(Raw).streaming(handler, request).await)
        })
    }
}

impl Limit {
    async fn answer(&self, method: &str, mut messages: Streaming<Bytes>) -> Result<Answer, Status> {
        match method {
            "Upload" => {
                let mut count = 0u64;
                while let Some(message) = messages.next().await {
                    count += u64::from(!message?.is_empty());
                }
                let count = Bytes::copy_from_slice(&count.to_be_bytes());
                Ok(Box::pin(tokio_stream::once(Ok(count))))
            }
            "Watch" => {
                let (in_batches, events) = first(&mut messages).await?;
                Ok(match in_batches {
                    true => Box::pin(Batches { left: events, at: 0 }),
                    false => {
                        let event = |at| Ok(sample::pick(&sample::STORED, at).clone());
                        Box::pin(tokio_stream::iter((0..events).map(event)))
                    }
                })
            }
            "Follow" => {
                let (in_batches, _) = first(&mut messages).await?;
                let from = *self.head.borrow();
                let heads = WatchStream::from_changes(self.head.subscribe());
                Ok(Box::pin(Follow { heads, in_batches, at: from, ready: VecDeque::new() }))
            }
            "Burst" => {
                let mut count = 0u64;
                while let Some(message) = messages.next().await {
                    message?;
                    count += 1;
                    if count.is_multiple_of(BURST) {
                        self.head.send_modify(|head| *head += BURST);
                    }
                }
                Ok(Box::pin(tokio_stream::once(Ok(Bytes::from_static(b"all")))))
            }
            "Echo" => Ok(Box::pin(messages)),
            "Own" => {
                let place = place(&messages.message().await?.unwrap_or_default())?;
                let (send, receive) = mpsc::unbounded_channel();
                self.own.lock().insert(place, send);
                Ok(Box::pin(UnboundedReceiverStream::new(receive).map(Ok)))
            }
            "Round" => {
                while let Some(message) = messages.next().await {
                    let message = message?;
                    if let Some(watch) = self.own.lock().get(&place(&message)?) {
                        // Its watch may have ended.
                        let _ = watch.send(message.slice(PLACE_BYTES..));
                    }
                }
                Ok(Box::pin(tokio_stream::once(Ok(Bytes::from_static(b"all")))))
            }
            _ => Err(Status::unimplemented("no such method")),
        }
    }
}

async fn first(messages: &mut Streaming<Bytes>) -> Result<(bool, u64), Status> {
    let message = messages.message().await?;
    parse(&message.unwrap_or_default())
}

/// Batches of so many events in all.
struct Batches {
    left: u64,
    at: u64,
}

impl Stream for Batches {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (count, batch) = sample::pick(&BATCHES, self.at);
        self.at += 1;
        if *count <= self.left {
            self.left -= count;
            return Poll::Ready(Some(Ok(batch.clone())));
        }
        let mut last = BytesMut::new();
        for at in 0..self.left {
            let event: &Bytes = sample::pick(&sample::STORED, at);
            put_entry(&mut last, event);
        }
        self.left = 0;
        Poll::Ready(Some(Ok(last.freeze())))
    }
}

/// Events as the head moves.
struct Follow {
    heads: WatchStream<u64>,
    in_batches: bool,
    at: u64,
    ready: VecDeque<Bytes>,
}

impl Stream for Follow {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(message) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            let Some(head) = ready!(Pin::new(&mut this.heads).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let events = (this.at..head).map(|at| sample::pick(&sample::STORED, at));
            this.at = head;
            if this.in_batches {
                let mut batch = BytesMut::with_capacity(BATCH_BYTES / 8);
                events.for_each(|event| put_entry(&mut batch, event));
                this.ready.extend((!batch.is_empty()).then(|| batch.freeze()));
            } else {
                this.ready.extend(events.cloned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tailmark_wire::feed_v1::EventBatch;

    use super::*;

    #[test]
    fn a_request_says_what_it_said() {
        assert_eq!(parse(&request(true, 7)).unwrap(), (true, 7));
        assert_eq!(parse(&request(false, u64::MAX)).unwrap(), (false, u64::MAX));
        assert!(parse(b"").is_err() && parse(b"1234").is_err());
    }

    #[test]
    fn an_event_goes_to_its_place() {
        let message = to_place(1 << 40, b"event");
        assert_eq!(place(&message).unwrap(), 1 << 40);
        assert_eq!(&message[PLACE_BYTES..], b"event");
        assert!(place(b"1234567").is_err());
    }

    #[tokio::test]
    async fn batches_hold_as_many_events_as_were_asked_for() {
        for events in [1, 1_000, 10_007] {
            let batches: Vec<_> = Batches { left: events, at: 0 }.collect().await;
            let held = batches.into_iter().map(|batch| {
                let batch = EventBatch::decode(batch.unwrap()).unwrap();
                assert!(batch.events.iter().all(|event| event.topic == sample::TOPIC));
                batch.events.len() as u64
            });
            assert_eq!(held.sum::<u64>(), events);
        }
    }
}
