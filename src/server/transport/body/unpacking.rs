//! Compressed messages become what they were before anybody sees them: a little at a time, as they come,
//! within the room for messages that arrive and within the limit for what they become.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::Refusal;
use crate::server::coding::{Coding, Decoder, Problem, Swelling};
use crate::server::quotas::Grant;
use crate::server::transport::arrivals::Arrival;
use crate::server::transport::coders::Coders;

/// What is made in one step.
const PIECE_BYTES: usize = 16 << 10;
/// What is made before others have their turn.
const TURN_BYTES: usize = 256 << 10;
/// A step that makes nothing counts as so much of that.
const STEP_BYTES: usize = 1 << 10;
/// Members of gzip, or frames of zstd, of one message. Nobody needs two; empty ones make nothing that a limit would
/// see, and each costs.
const MOST_PARTS: u32 = 16;

/// The compressed messages of one call.
#[derive(Debug)]
pub(super) struct Unpacking {
    coding: Coding,
    coders: Coders,
    swelling: Swelling,
    /// Longest message.
    limit: usize,
    message: Option<Message>,
}

/// One that has begun. Its decoder lasts as long as it: between messages a call holds none.
struct Message {
    decoder: Decoder,
    _grant: Grant,
    /// Compressed bytes that are still to come.
    left: usize,
    /// What was made, and room for more.
    made: Vec<u8>,
    filled: usize,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Unpacking {
    pub(super) fn new(coding: Coding, coders: Coders, limit: usize) -> Unpacking {
        Unpacking { coding, coders, swelling: Swelling::new(limit), limit, message: None }
    }

    /// A message begins that has so many bytes compressed.
    pub(super) fn begin(&mut self, len: usize) -> Result<(), Refusal> {
        // All that is to come of it: what one becomes has a limit of its own.
        self.swelling.came(len);
        let (decoder, grant) = self.coders.decoder(self.coding).map_err(Refusal::TooMany)?;
        self.message =
            Some(Message { decoder, _grant: grant, left: len, made: Vec::new(), filled: 0 });
        Ok(())
    }

    pub(super) fn is_begun(&self) -> bool {
        self.message.is_some()
    }

    pub(super) fn give_up(&mut self) {
        self.message = None;
    }

    /// Takes what came of the message; what it was, once it is whole; `None` where more has to come.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        rest: &mut Bytes,
        arrival: &mut Arrival,
    ) -> Poll<Result<Option<Vec<u8>>, Refusal>> {
        let Some(message) = &mut self.message else { return Poll::Ready(Ok(None)) };
        let not = |problem| Refusal::Uncoded(self.coding, problem);
        let mut turn = 0;
        while turn < TURN_BYTES {
            let before = message.filled;
            if before == message.made.len() {
                // One byte more than may be, so that too much is seen.
                let len = (2 * before).max(PIECE_BYTES).min(self.limit.saturating_add(1));
                ready!(arrival.poll_room(cx, len))?;
                message.made.reserve_exact(len - before);
                message.made.resize(len, 0);
            }
            let input = &rest[..rest.len().min(message.left)];
            let end = message.made.len().min(before + PIECE_BYTES);
            let room = &mut message.made[before..end];
            let (taken, made) = message.decoder.step(input, room).map_err(not)?;
            message.filled += made;
            if message.decoder.parts() > MOST_PARTS {
                return Poll::Ready(Err(not(Problem::ManyParts)));
            }
            let is_idle = (taken, made) == (0, 0);
            if is_idle && !input.is_empty() {
                return Poll::Ready(Err(not(Problem::Deflate)));
            }
            rest.advance(taken);
            message.left -= taken;
            let swells = self.swelling.made(made);
            swells.map_err(|over| Refusal::Swells(self.coding, over))?;
            if message.filled > self.limit {
                let made = message.filled;
                return Poll::Ready(Err(Refusal::Swollen(self.coding, self.limit, made)));
            }
            if is_idle && message.left > 0 {
                return Poll::Ready(Ok(None));
            }
            if is_idle {
                if !message.decoder.is_between() {
                    return Poll::Ready(Err(not(Problem::Cut)));
                }
                let mut made = std::mem::take(&mut message.made);
                made.truncate(message.filled);
                self.message = None;
                return Poll::Ready(Ok(Some(made)));
            }
            turn += made.max(STEP_BYTES);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
