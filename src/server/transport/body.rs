//! Checks on request bodies: refuses what gRPC's framing forbids and what exceeds our limits. A
//! message over the limit is refused by its length prefix, before a byte of it is kept. So are none
//! or two messages where there must be one, and one that is late or cut short. No byte of a long
//! message is kept before there is budget for all of it.
//!
//! tonic has some of these checks but answers OUT_OF_RANGE or INTERNAL, in words only. Knows gRPC's
//! framing (a flag byte and four bytes of length before each message) and nothing of the messages.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use crate::server::rpc::frames::PREFIX_BYTES;
use crate::server::rpc::status::{self, Failure};
use crate::server::transport::arrivals::Arrival;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a body is framed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    /// Longest message.
    pub(crate) message_bytes: usize,
    /// Set where there must be exactly one message: when the body must be whole.
    pub(crate) one_by: Option<Instant>,
}

/// A request body whose messages, if it has any, are as they should be.
#[derive(Debug)]
pub(crate) struct Limited<B = Incoming> {
    inner: B,
    prefixes: Prefixes,
    arrival: Arrival,
    /// What came and waits for room.
    held: Option<Bytes>,
    /// Until when it must be whole.
    by: Option<Instant>,
    /// Set once there was something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    refused: Option<Refusal>,
}

/// Why no more of a body is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    TooLong { limit: usize, actual: usize },
    Framing(&'static str),
    Compressed,
    Late,
}

impl Refusal {
    fn failure(self) -> Failure {
        match self {
            Refusal::TooLong { limit, actual } => {
                status::over_limit("message_bytes", limit, actual)
            }
            Refusal::Framing(problem) => status::bad_framing(problem),
            Refusal::Compressed => status::compressed_message(),
            Refusal::Late => status::deadline(),
        }
    }
}

impl<B> Limited<B> {
    pub(crate) fn new(inner: B, framing: Framing, arrival: Arrival) -> Self {
        let prefixes = Prefixes::new(framing);
        let by = framing.one_by;
        Limited { inner, prefixes, arrival, held: None, by, timer: None, refused: None }
    }

    /// Lets data through once there is room for the message that it begins.
    fn poll_pass(&mut self, cx: &mut Context<'_>, data: Bytes) -> Poll<Result<Bytes, Refusal>> {
        match self.arrival.poll_room(cx, self.prefixes.unfinished()) {
            Poll::Ready(room) => Poll::Ready(room.map(|()| data).map_err(|_| Refusal::Late)),
            Poll::Pending => {
                self.held = Some(data);
                self.poll_late(cx).map(|()| Err(Refusal::Late))
            }
        }
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.prefixes.skip > 0 && self.arrival.poll_late(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(by) = self.by else { return Poll::Pending };
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(by))).as_mut().poll(cx)
    }
}

type Answer = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl<B> Limited<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn answer(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        passed: Result<Bytes, Refusal>,
    ) -> Answer {
        match passed {
            Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Err(refusal) => {
                self.refused = Some(refusal);
                self.poll_frame(cx)
            }
        }
    }
}

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Answer {
        if let Some(refusal) = self.refused {
            return Poll::Ready(Some(Err(Status::from(refusal.failure()).into())));
        }
        if let Some(held) = self.held.take() {
            let passed = std::task::ready!(self.poll_pass(cx, held));
            return self.answer(cx, passed);
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                self.refused = self.prefixes.end();
                return if self.refused.is_some() {
                    self.poll_frame(cx)
                } else {
                    Poll::Ready(None)
                };
            }
            Poll::Pending => {
                std::task::ready!(self.poll_late(cx));
                self.refused = Some(Refusal::Late);
                return self.poll_frame(cx);
            }
        };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return Poll::Ready(Some(Ok(other))),
        };
        self.arrival.moved();
        let before = self.prefixes.messages;
        let walked = self.prefixes.walk(&data);
        if self.prefixes.messages > before || self.prefixes.skip == 0 {
            self.arrival.whole();
        }
        if let Err(refused) = walked {
            self.refused = Some(refused.why);
            data.truncate(refused.at);
            if !data.has_remaining() {
                return self.poll_frame(cx);
            }
        }
        let passed = std::task::ready!(self.poll_pass(cx, data));
        self.answer(cx, passed)
    }

    fn is_end_stream(&self) -> bool {
        let is_good = || self.prefixes.end().is_none();
        self.refused.is_none() && self.held.is_none() && self.inner.is_end_stream() && is_good()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// Where in a stream of messages we are.
#[derive(Debug)]
struct Prefixes {
    limit: usize,
    /// There must be exactly one.
    one: bool,
    /// A message has begun.
    any: bool,
    /// Messages that have begun.
    messages: u64,
    /// Bytes of the current message, and of them those still to come.
    len: usize,
    skip: usize,
    /// The part of a prefix that came so far.
    prefix: [u8; PREFIX_BYTES],
    filled: usize,
}

/// A message that must not pass.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    /// Where the data that belongs to messages before it ends.
    at: usize,
    why: Refusal,
}

impl Prefixes {
    fn new(framing: Framing) -> Self {
        Prefixes {
            limit: framing.message_bytes,
            one: framing.one_by.is_some(),
            any: false,
            messages: 0,
            len: 0,
            skip: 0,
            prefix: [0; PREFIX_BYTES],
            filled: 0,
        }
    }

    fn walk(&mut self, data: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while at < data.len() {
            if self.skip > 0 {
                let step = self.skip.min(data.len() - at);
                self.skip -= step;
                at += step;
                continue;
            }
            let step = (PREFIX_BYTES - self.filled).min(data.len() - at);
            let begin = at;
            self.prefix[self.filled..self.filled + step].copy_from_slice(&data[at..at + step]);
            self.filled += step;
            at += step;
            if self.filled == PREFIX_BYTES {
                self.filled = 0;
                self.len = self.enter().map_err(|why| Refused { at: begin, why })?;
                self.skip = self.len;
                self.messages += 1;
            }
        }
        Ok(())
    }

    /// Looks at a whole prefix: how long is the message?
    fn enter(&mut self) -> Result<usize, Refusal> {
        let [flag, a, b, c, d] = self.prefix;
        if self.one && self.any {
            return Err(Refusal::Framing("this call takes one message, and a second one came"));
        }
        self.any = true;
        match flag {
            0 => {}
            1 => return Err(Refusal::Compressed),
            _ => return Err(Refusal::Framing("a message begins with a flag that is not 0 or 1")),
        }
        let actual = u32::from_be_bytes([a, b, c, d]) as usize;
        if actual > self.limit {
            return Err(Refusal::TooLong { limit: self.limit, actual });
        }
        Ok(actual)
    }

    /// Bytes of the message that has begun and is not whole.
    fn unfinished(&self) -> usize {
        if self.skip > 0 { self.len } else { 0 }
    }

    /// What is wrong if nothing more comes.
    fn end(&self) -> Option<Refusal> {
        if self.skip > 0 || self.filled > 0 {
            return Some(Refusal::Framing("the request ends in the middle of a message"));
        }
        (self.one && !self.any).then_some(Refusal::Framing("the request has no message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(one_by: Option<Instant>) -> Prefixes {
        Prefixes::new(Framing { message_bytes: 16, one_by })
    }

    #[test]
    fn one_message_is_neither_none_nor_two_nor_half_of_one() {
        let is_framing = |refusal| matches!(refusal, Some(Refusal::Framing(_)));
        let mut one = prefixes(Some(Instant::now()));
        assert!(is_framing(one.end()));
        assert_eq!(one.walk(&message(3)[..7]), Ok(()));
        assert!(is_framing(one.end()));
        assert_eq!(one.walk(&[7]), Ok(()));
        assert_eq!(one.end(), None);
        assert!(is_framing(one.walk(&message(0)).err().map(|refused| refused.why)));

        let mut many = prefixes(None);
        assert_eq!(many.end(), None);
        assert_eq!(many.walk(&message(3)), Ok(()));
        assert_eq!(many.walk(&message(3)[..2]), Ok(()));
        assert!(is_framing(many.end()));
        for flag in [2, 255] {
            let refused = prefixes(None).walk(&[flag, 0, 0, 0, 0]);
            assert!(is_framing(refused.err().map(|refused| refused.why)), "{flag}");
        }
        let refused = prefixes(None).walk(&[1, 0, 0, 0, 0]).map_err(|refused| refused.why);
        assert_eq!(refused, Err(Refusal::Compressed));
    }

    fn message(len: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        bytes.resize(PREFIX_BYTES + len, 7);
        bytes
    }

    #[test]
    fn the_first_message_over_the_limit_is_found_however_the_data_is_cut() {
        let mut stream = message(10);
        stream.extend(message(0));
        stream.extend(message(16));
        let good = stream.len();
        stream.extend(message(17));
        for cut in 1..stream.len() {
            let mut prefixes = prefixes(None);
            let mut seen = 0;
            let mut over = None;
            for part in stream.chunks(cut) {
                match prefixes.walk(part) {
                    Ok(()) => seen += part.len(),
                    Err(found) => {
                        over = Some((seen + found.at, found.why));
                        break;
                    }
                }
            }
            let (at, why) = over.unwrap();
            assert_eq!(why, Refusal::TooLong { limit: 16, actual: 17 });
            // Part of the prefix may have passed already, never a byte of the message.
            assert!((good..good + PREFIX_BYTES).contains(&at), "cut {cut}: {at}");
        }
    }

    /// What a body of these pieces lets through, and how it ends.
    async fn pass(pieces: Vec<&[u8]>, is_one: bool) -> (Vec<u8>, Option<Refusal>) {
        let frames: Vec<Result<_, std::convert::Infallible>> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let inner = http_body_util::StreamBody::new(tokio_stream::iter(frames));
        let wait = std::time::Duration::from_secs(1);
        let one_by = is_one.then(|| Instant::now() + wait);
        let arrival = crate::server::transport::arrivals::Arrivals::new(1 << 20, wait).arrival();
        let mut body = Limited::new(inner, Framing { message_bytes: 16, one_by }, arrival);
        let mut passed = Vec::new();
        while let Some(Ok(frame)) = http_body_util::BodyExt::frame(&mut body).await {
            passed.extend_from_slice(&frame.into_data().unwrap());
        }
        (passed, body.refused)
    }

    #[tokio::test]
    async fn messages_are_the_same_however_they_are_cut() {
        let good = [message(3), message(0), message(16)].concat();
        let long = [message(3), message(17)].concat();
        let flag = [message(3), vec![2, 0, 0, 0, 0]].concat();
        for (stream, is_one) in [
            (&good, false),
            (&good[..good.len() - 1].to_vec(), false),
            (&good, true),
            (&message(5), true),
            (&long, false),
            (&flag, false),
            (&Vec::new(), true),
        ] {
            let whole = pass(vec![stream], is_one).await;
            for at in 0..=stream.len() {
                let (begin, end) = stream.split_at(at);
                let cut = pass(vec![begin, end], is_one).await;
                assert_eq!(cut.1, whole.1, "{stream:?} at {at}");
                // What of a bad message's prefix passed nobody takes for a message.
                assert!(cut.0.starts_with(&whole.0), "{stream:?} at {at}");
                assert!(cut.0.len() < whole.0.len() + PREFIX_BYTES, "{stream:?} at {at}");
            }
        }
    }

    #[test]
    fn messages_at_the_limit_pass() {
        let mut prefixes = prefixes(None);
        assert_eq!(prefixes.walk(&message(16)), Ok(()));
        assert_eq!(prefixes.walk(&message(16)), Ok(()));
    }
}
