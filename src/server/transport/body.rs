//! Checks on request bodies: refuses what gRPC's framing forbids and what exceeds our limits. A
//! message over the limit is refused by its length prefix, before a byte of it is kept. So are none
//! or two messages where there must be one, and one that is late or cut short.
//!
//! A long message is gathered here, within the budget for such (`arrivals.rs`), and handed over whole;
//! its room is kept until the next one is asked for or, of a call with one message, until the call
//! is answered. What is short passes as it comes. What is compressed is made what it was, within the same
//! budget and limits (`body/unpacking.rs`), and handed over like a long one.
//!
//! tonic has some of these checks but answers OUT_OF_RANGE or INTERNAL, in words only. Knows gRPC's
//! framing (a flag byte and four bytes of length before each message) and nothing of the messages.

mod prefixes;
mod unpacking;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use crate::server::coding::{Coding, Problem, Swells};
use crate::server::permits::OverLimit;
use crate::server::rpc::classify::Asking;
use crate::server::rpc::codec;
use crate::server::rpc::frames::{self, PREFIX_BYTES};
use crate::server::rpc::status::{self, Failure};
use crate::server::transport::arrivals::{Arrival, Lost, Room};
use crate::server::transport::coders::Coders;
use prefixes::{Prefixes, Stop};
use unpacking::Unpacking;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a body is framed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    /// Longest message, and what it holds.
    pub(crate) message_bytes: usize,
    pub(crate) asks: Asking,
    /// Set where there must be exactly one message: when the body must be whole.
    pub(crate) one_by: Option<Instant>,
    /// The codecs of `rpc/codec.rs` decode it.
    pub(crate) is_ours: bool,
}

/// Keeps the room of a call's one message for as long as its request is there; travels as a request
/// extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<Option<Room>>>);

/// A request body whose messages, if it has any, are as they should be.
#[derive(Debug)]
pub(crate) struct Limited<B = Incoming> {
    inner: B,
    prefixes: Prefixes,
    arrival: Arrival,
    /// What came and was not looked at.
    rest: Bytes,
    /// What passes once there is room for it.
    passing: Bytes,
    /// The message that is gathered.
    long: Option<Long>,
    /// Of a call whose messages may be compressed.
    unpacking: Option<Box<Unpacking>>,
    /// The codecs of `rpc/codec.rs` decode it.
    is_ours: bool,
    /// The last one was handed over.
    is_handed: bool,
    kept: Option<Kept>,
    /// Until when it must be whole.
    by: Option<Instant>,
    /// Set once there was something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    refused: Option<Refusal>,
}

/// A long message, as far as it has come.
#[derive(Debug)]
struct Long {
    len: usize,
    bytes: Vec<u8>,
}

impl Long {
    /// What has to be allocated so that `more` fits: twice as much each time, and no more than there
    /// will be.
    fn capacity_with(&self, more: usize) -> usize {
        let (needed, capacity) = (self.bytes.len() + more, self.bytes.capacity());
        if needed <= capacity { capacity } else { needed.max((2 * capacity).min(self.len)) }
    }
}

/// Why no more of a body is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    TooLong {
        asks: Asking,
        limit: usize,
        actual: usize,
    },
    Framing(&'static str),
    Compressed,
    /// Not what it is said to be.
    Uncoded(Coding, Problem),
    /// It becomes longer than a message may be: the limit, and what was made.
    Swollen(Coding, usize, usize),
    /// Far more is made of all that came than came.
    Swells(Coding, Swells),
    TooMany(OverLimit),
    Late,
    GaveWay(OverLimit),
}

impl Refusal {
    fn failure(self) -> Failure {
        match self {
            Refusal::TooLong { asks, limit, actual } => asks.too_long(limit, actual),
            Refusal::Framing(problem) => status::bad_framing(problem),
            Refusal::Compressed => status::compressed_message(),
            Refusal::Uncoded(coding, problem) => status::uncoded_message(coding, problem),
            Refusal::Swollen(coding, limit, made) => status::swollen_message(coding, limit, made),
            Refusal::Swells(coding, over) => status::swells(coding, over),
            Refusal::TooMany(over) => status::too_many(over),
            Refusal::Late => status::deadline(),
            Refusal::GaveWay(over) => status::gave_way(over),
        }
    }
}

impl From<Lost> for Refusal {
    fn from(lost: Lost) -> Refusal {
        match lost {
            Lost::Late => Refusal::Late,
            Lost::GaveWay(over) => Refusal::GaveWay(over),
        }
    }
}

impl<B> Limited<B> {
    /// `kept` takes the room of the message, where there is but one.
    pub(crate) fn new(inner: B, framing: Framing, arrival: Arrival, kept: Option<Kept>) -> Self {
        Limited {
            inner,
            prefixes: Prefixes::new(framing),
            arrival,
            rest: Bytes::new(),
            passing: Bytes::new(),
            long: None,
            unpacking: None,
            is_ours: framing.is_ours,
            is_handed: false,
            kept,
            by: framing.one_by,
            timer: None,
            refused: None,
        }
    }

    /// Its messages may be in this coding.
    pub(crate) fn unpacked(mut self, coding: Coding, coders: Coders) -> Self {
        let limit = self.prefixes.allow_coded();
        self.unpacking = Some(Box::new(Unpacking::new(coding, coders, limit)));
        self
    }

    /// Puts what came behind what is left.
    fn take(&mut self, data: Bytes) {
        self.arrival.moved();
        if self.rest.is_empty() {
            self.rest = data;
            return;
        }
        // A prefix that was cut.
        let mut joined = BytesMut::with_capacity(self.rest.len() + data.len());
        joined.extend_from_slice(&self.rest);
        joined.extend_from_slice(&data);
        self.rest = joined.freeze();
    }

    /// What can be let through, once there is room for it; nothing where more has to come first.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Refusal>> {
        loop {
            if self.long.is_some() {
                return self.poll_gather(cx);
            }
            if let Some(unpacking) = self.unpacking.as_mut().filter(|it| it.is_begun()) {
                let whole = ready!(unpacking.poll(cx, &mut self.rest, &mut self.arrival))?;
                return Poll::Ready(Ok(whole.map_or_else(Bytes::new, |it| self.pass_whole(it))));
            }
            if !self.passing.is_empty() {
                ready!(self.arrival.poll_room(cx, self.prefixes.begun()))?;
                return Poll::Ready(Ok(std::mem::take(&mut self.passing)));
            }
            let before = self.prefixes.messages;
            let (pass, stop) = self.prefixes.walk(&self.rest);
            if self.prefixes.messages > before || self.prefixes.skip == 0 {
                self.arrival.release();
            }
            if pass > 0 {
                self.passing = self.rest.split_to(pass);
                continue;
            }
            match stop {
                Stop::More => return Poll::Ready(Ok(Bytes::new())),
                Stop::Refused(why) => return Poll::Ready(Err(why)),
                Stop::Coded(len) => {
                    self.prefixes.pass_long();
                    self.rest.advance(PREFIX_BYTES);
                    if let Some(unpacking) = &mut self.unpacking {
                        unpacking.begin(len)?;
                    }
                }
                Stop::Long(len) => {
                    self.prefixes.pass_long();
                    self.rest.advance(PREFIX_BYTES);
                    self.long = Some(Long { len, bytes: Vec::new() });
                }
            }
        }
    }

    /// Gathers the long message, and hands it over when it is whole.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Refusal>> {
        let Some(long) = &mut self.long else { return Poll::Ready(Ok(Bytes::new())) };
        let step = self.rest.len().min(long.len - long.bytes.len());
        if step > 0 {
            let capacity = long.capacity_with(step);
            ready!(self.arrival.poll_room(cx, capacity))?;
            long.bytes.reserve_exact(capacity - long.bytes.len());
            long.bytes.extend_from_slice(&self.rest[..step]);
            self.rest.advance(step);
        }
        if long.bytes.len() < long.len {
            return Poll::Ready(Ok(Bytes::new()));
        }
        let message = std::mem::take(&mut long.bytes);
        self.long = None;
        Poll::Ready(Ok(self.pass_whole(message)))
    }

    /// A message that is whole, as it is let through.
    fn pass_whole(&mut self, message: Vec<u8>) -> Bytes {
        self.is_handed = true;
        self.arrival.whole();
        if !self.is_ours {
            let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
            frames::push(&mut framed, &message);
            return framed.into();
        }
        if let Some(kept) = &self.kept {
            *kept.0.lock() = self.arrival.take_room();
        }
        codec::hand_over(message.into())
    }

    /// Whether a message has begun and is not whole.
    fn is_begun(&self) -> bool {
        let is_unpacked = self.unpacking.as_ref().is_some_and(|it| it.is_begun());
        self.long.is_some() || is_unpacked || self.prefixes.skip > 0
    }

    /// Why the rest is not waited for any more.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if self.is_begun()
            && let Poll::Ready(lost) = self.arrival.poll_lost(cx)
        {
            return Poll::Ready(lost.into());
        }
        self.poll_late(cx)
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let Some(by) = self.by else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(by)));
        timer.as_mut().poll(cx).map(|()| Refusal::Late)
    }

    /// What is wrong if nothing more comes.
    fn end(&self) -> Option<Refusal> {
        if self.is_begun() || !self.rest.is_empty() {
            return Some(Refusal::Framing("the request ends in the middle of a message"));
        }
        self.prefixes.end()
    }

    /// Nothing more of the message is wanted.
    fn refuse(&mut self, why: Refusal) {
        self.refused = Some(why);
        (self.long, self.rest, self.passing) = (None, Bytes::new(), Bytes::new());
        if let Some(unpacking) = &mut self.unpacking {
            unpacking.give_up();
        }
        self.arrival.release();
    }
}

type Answer = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Answer {
        let this = self.get_mut();
        if std::mem::take(&mut this.is_handed) {
            this.arrival.release();
        }
        loop {
            if let Some(refusal) = this.refused {
                return Poll::Ready(Some(Err(Status::from(refusal.failure()).into())));
            }
            match this.poll_pass(cx) {
                Poll::Ready(Ok(more)) if more.is_empty() => {}
                Poll::Ready(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Poll::Ready(Err(why)) => {
                    this.refuse(why);
                    continue;
                }
                Poll::Pending => {
                    let why = ready!(this.poll_late(cx));
                    this.refuse(why);
                    continue;
                }
            }
            let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => match this.end() {
                    Some(why) => {
                        this.refuse(why);
                        continue;
                    }
                    None => return Poll::Ready(None),
                },
                Poll::Pending => {
                    let why = ready!(this.poll_lost(cx));
                    this.refuse(why);
                    continue;
                }
            };
            match frame.into_data() {
                Ok(data) => this.take(data),
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.refused.is_none()
            && self.passing.is_empty()
            && self.inner.is_end_stream()
            && self.end().is_none()
    }
}

#[cfg(test)]
mod tests;
