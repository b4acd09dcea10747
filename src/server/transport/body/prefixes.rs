//! The length prefixes in a stream of messages.

use super::{Framing, Refusal};
use crate::server::rpc::classify::Asking;
use crate::server::rpc::frames::{COMPRESSED, PREFIX_BYTES};
use crate::server::transport::arrivals::SMALL_BYTES;

/// So much longer a message may be when it is compressed: some bytes, and one of so many.
const CODED_SLACK_BYTES: usize = 128;
const CODED_SLACK: usize = 256;

/// Where in a stream of messages we are. Long ones that are gathered are none of its business.
#[derive(Debug)]
pub(super) struct Prefixes {
    limit: usize,
    asks: Asking,
    /// Messages over this many bytes are gathered.
    long_from: usize,
    /// There must be exactly one.
    one: bool,
    /// They may be compressed.
    may_be_coded: bool,
    /// Messages that have begun.
    pub(super) messages: u64,
    /// Bytes of the current message, and of them those still to come.
    len: usize,
    pub(super) skip: usize,
}

/// Where a walk ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the end of the data, or in the middle of a prefix.
    More,
    /// Before a long message.
    Long(usize),
    /// Before one that is compressed.
    Coded(usize),
    /// Before a message that must not pass.
    Refused(Refusal),
}

impl Prefixes {
    pub(super) fn new(framing: Framing) -> Self {
        Prefixes {
            limit: framing.message_bytes,
            asks: framing.asks,
            long_from: if framing.is_ours { SMALL_BYTES } else { usize::MAX },
            one: framing.one_by.is_some(),
            may_be_coded: false,
            messages: 0,
            len: 0,
            skip: 0,
        }
    }

    /// From now on they may be compressed; the longest that one may become.
    pub(super) fn allow_coded(&mut self) -> usize {
        self.may_be_coded = true;
        self.limit
    }

    /// How much of the data belongs to messages that pass as they come, and what is behind it.
    pub(super) fn walk(&mut self, data: &[u8]) -> (usize, Stop) {
        let mut at = 0;
        loop {
            let step = self.skip.min(data.len() - at);
            self.skip -= step;
            at += step;
            let Some(prefix) = data[at..].first_chunk() else { return (at, Stop::More) };
            match self.look(*prefix) {
                Err(why) => return (at, Stop::Refused(why)),
                Ok((true, len)) => return (at, Stop::Coded(len)),
                Ok((false, len)) if len > self.long_from => return (at, Stop::Long(len)),
                Ok((false, len)) => (self.len, self.skip) = (len, len),
            }
            self.messages += 1;
            at += PREFIX_BYTES;
        }
    }

    /// The message before which the walk ended, long or compressed, is somebody else's.
    pub(super) fn pass_long(&mut self) {
        self.messages += 1;
        (self.len, self.skip) = (0, 0);
    }

    /// Looks at a whole prefix: is the message compressed, and how long is it?
    fn look(&self, [flag, a, b, c, d]: [u8; PREFIX_BYTES]) -> Result<(bool, usize), Refusal> {
        if self.one && self.messages > 0 {
            return Err(Refusal::Framing("this call takes one message, and a second one came"));
        }
        let is_coded = match flag {
            0 => false,
            COMPRESSED if self.may_be_coded => true,
            COMPRESSED => return Err(Refusal::Compressed),
            _ => return Err(Refusal::Framing("a message begins with a flag that is not 0 or 1")),
        };
        let actual = u32::from_be_bytes([a, b, c, d]) as usize;
        // What cannot be compressed becomes a little longer by it.
        let slack = if is_coded { CODED_SLACK_BYTES + self.limit / CODED_SLACK } else { 0 };
        if actual > self.limit.saturating_add(slack) {
            return Err(Refusal::TooLong { asks: self.asks, limit: self.limit, actual });
        }
        Ok((is_coded, actual))
    }

    /// Bytes that have come of the message that is not whole.
    pub(super) fn begun(&self) -> usize {
        if self.skip > 0 { self.len - self.skip } else { 0 }
    }

    /// What is wrong if nothing more comes, between two messages.
    pub(super) fn end(&self) -> Option<Refusal> {
        let is_missing = self.one && self.messages == 0;
        is_missing.then_some(Refusal::Framing("the request has no message"))
    }
}
