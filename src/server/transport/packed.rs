//! Answers whose messages are compressed, for calls that compress their own (gRPC's compression.md). Each
//! message is compressed by itself, and only one that is worth it; what is ready goes out at once, so that a
//! watch that is live stays it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::coders::Coders;
use crate::server::coding::{Coding, Encoder, Unwritten, WORTHWHILE_BYTES};
use crate::server::quotas::Grant;
use crate::server::report;
use crate::server::rpc::classify::{Answering, GRPC_ENCODING};
use crate::server::rpc::frames::{self, FRAME_BYTES, PREFIX_BYTES, YIELD_BYTES};
use crate::server::rpc::status;

/// What is compressed before others have their turn.
const TURN_BYTES: usize = 64 << 10;

/// Compresses the messages of an answer, where it has any.
pub(super) fn pack(
    mut response: Response<Body>,
    coding: Coding,
    coders: Coders,
    answer: Answering,
) -> Response<Body> {
    if response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    response.headers_mut().insert(GRPC_ENCODING, HeaderValue::from_static(coding.name()));
    response.map(|inner| Body::new(Packed::new(inner, coding, coders, answer)))
}

struct Packed {
    inner: Body,
    coding: Coding,
    coders: Coders,
    /// Held while there is something to compress.
    encoder: Option<(Encoder, Grant)>,
    /// What came and was not looked at: whole messages, but for the last.
    rest: Bytes,
    /// The message in the works: what is left of it, and where in `out` it begins.
    under_way: Option<(Bytes, usize)>,
    /// The last message of `out`, where that is compressed.
    last: Option<(Bytes, usize)>,
    /// What is ready.
    out: Vec<u8>,
    /// What `out` was made of, where that counts itself as long as it is there.
    raw: Bytes,
    is_counted: bool,
    /// No frame of it may be small (`rpc/frames.rs`).
    is_stream: bool,
}

/// What goes out, and what it was made of, which is what is counted.
struct Counted {
    out: Vec<u8>,
    _raw: Bytes,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.out
    }
}

/// It is written into memory.
fn failed(_: Unwritten) -> Status {
    report::defect("a message cannot be compressed");
    status::internal().into()
}

impl Packed {
    fn new(inner: Body, coding: Coding, coders: Coders, answer: Answering) -> Packed {
        Packed {
            inner,
            coding,
            coders,
            encoder: None,
            rest: Bytes::new(),
            under_way: None,
            last: None,
            out: Vec::new(),
            raw: Bytes::new(),
            is_counted: answer == Answering::Watch,
            is_stream: matches!(answer, Answering::Watch | Answering::Stream),
        }
    }

    /// Takes what came; what can go out as it is, since nothing in it is worth it.
    fn take(&mut self, data: Bytes) -> Option<Bytes> {
        if self.rest.is_empty() {
            if !is_worthwhile(&data) {
                return Some(data);
            }
            if self.is_counted {
                self.raw = data.clone();
            }
            self.rest = data;
            return None;
        }
        // Bodies give out whole messages; one that does not is put together.
        let mut joined = BytesMut::with_capacity(self.rest.len() + data.len());
        joined.extend_from_slice(&self.rest);
        joined.extend_from_slice(&data);
        self.rest = joined.freeze();
        None
    }

    /// Works on what came, for a turn; whether there is something to send.
    fn work(&mut self) -> Result<Work, Unwritten> {
        let mut turn = 0;
        while turn < TURN_BYTES {
            if let Some((left, at)) = &mut self.under_way {
                let Some((encoder, _)) = &mut self.encoder else { return Err(Unwritten) };
                let piece = left.split_to(left.len().min(TURN_BYTES));
                turn += piece.len();
                encoder.write(&piece, &mut self.out)?;
                if left.is_empty() {
                    encoder.finish(&mut self.out)?;
                    frames::close(&mut self.out, *at);
                    self.under_way = None;
                }
                continue;
            }
            if self.out.len() >= YIELD_BYTES {
                return Ok(Work::Send);
            }
            let Some(len) = frames::first(&self.rest) else {
                return Ok(if self.out.is_empty() { Work::Done } else { Work::Send });
            };
            let message = self.rest.split_to(len);
            let is_worth_it = len - PREFIX_BYTES >= WORTHWHILE_BYTES && message[0] == 0;
            if is_worth_it && self.encoder.is_none() {
                self.encoder = self.coders.encoder(self.coding);
            }
            if is_worth_it && self.encoder.is_some() {
                let at = frames::open(&mut self.out);
                let message = message.slice(PREFIX_BYTES..);
                self.last = Some((message.clone(), at));
                self.under_way = Some((message, at));
            } else {
                self.out.extend_from_slice(&message);
                self.last = None;
                turn += len;
            }
        }
        Ok(Work::Rest)
    }

    /// What is ready, as a frame that is not small.
    fn ready(&mut self) -> Result<Bytes, Unwritten> {
        if self.is_stream && self.out.len() < FRAME_BYTES {
            match (self.last.take(), &mut self.encoder) {
                (Some((message, at)), Some((encoder, _))) => {
                    self.out.truncate(at);
                    let mut filler = Vec::new();
                    frames::fill_for_good(&mut filler);
                    encoder.write(&message, &mut self.out)?;
                    encoder.write(&filler, &mut self.out)?;
                    encoder.finish(&mut self.out)?;
                    frames::close(&mut self.out, at);
                }
                _ => frames::fill_up(&mut self.out),
            }
        }
        self.last = None;
        let out = std::mem::take(&mut self.out);
        if !self.is_counted {
            return Ok(out.into());
        }
        let is_over = self.rest.is_empty();
        let raw = if is_over { std::mem::take(&mut self.raw) } else { self.raw.clone() };
        Ok(Bytes::from_owner(Counted { out, _raw: raw }))
    }
}

/// How far a turn got.
enum Work {
    Send,
    Done,
    /// Others have their turn.
    Rest,
}

/// Whether one of these messages is long enough.
fn is_worthwhile(mut messages: &[u8]) -> bool {
    while let Some(len) = frames::first(messages) {
        if len - PREFIX_BYTES >= WORTHWHILE_BYTES {
            return true;
        }
        messages = &messages[len..];
    }
    !messages.is_empty()
}

impl http_body::Body for Packed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            match this.work().map_err(failed)? {
                Work::Send => {
                    let out = this.ready().map_err(failed)?;
                    return Poll::Ready(Some(Ok(Frame::data(out))));
                }
                Work::Rest => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Work::Done => {}
            }
            let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
                // Who waits holds none.
                this.encoder = None;
                return Poll::Pending;
            };
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => {
                    if let Some(data) = this.take(data) {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(other)) => return Poll::Ready(Some(Ok(other))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && self.out.is_empty()
            && self.under_way.is_none()
            && self.inner.is_end_stream()
    }
}
