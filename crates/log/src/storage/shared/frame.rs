//! What a shared journal holds.

mod bytes;

pub use bytes::FrameProblem;
#[cfg(fuzzing)]
pub(crate) use bytes::with_its_chain;

use ::bytes::Bytes;

use crate::storage::Commit;
use tailmark_record::{GenerationTable, LogId};

/// The hash of all frames up to one; of none it is 0. It tells histories of a journal apart also where no
/// event was appended, which the chain over the events cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameChain([u8; 16]);

/// One commit or takeover: stored whole, or not at all. What it says and its bytes are one.
#[derive(Clone, Debug)]
pub struct Frame {
    content: Content,
    chain: FrameChain,
    bytes: Bytes,
}

/// What a frame says.
#[derive(Clone, Debug)]
pub struct Content {
    /// Whose journal it is for.
    pub log: LogId,
    /// The chain before it.
    pub previous: FrameChain,
    /// Goes up by one a takeover.
    pub term: u64,
    /// The daemon that wrote it.
    pub writer: u64,
    /// Tells it from all others.
    pub nonce: u64,
    /// What it carries.
    pub body: Body,
}

/// What a frame carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// A takeover: from here on its daemon writes, and events are of the newest of these generations. Who has
    /// nothing from before learns all of them.
    Term(GenerationTable),
    /// A commit, without the state of whoever made it.
    Commit(Commit),
    /// Nothing: that it is stored proves where the journal ended.
    Empty,
}

impl Frame {
    /// A frame, with its bytes.
    pub fn new(content: Content) -> Frame {
        let (bytes, chain) = content.encode();
        Frame { content, chain, bytes }
    }

    /// The same behind another.
    #[must_use]
    pub fn behind(&self, previous: FrameChain) -> Frame {
        Frame::new(Content { previous, ..self.content.clone() })
    }

    /// The chain up to and with this frame.
    pub fn chain(&self) -> FrameChain {
        self.chain
    }

    /// What the journal stores.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl std::ops::Deref for Frame {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.content
    }
}
