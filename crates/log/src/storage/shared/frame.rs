//! What a shared journal holds.

mod bytes;

pub use bytes::FrameProblem;
#[cfg(fuzzing)]
pub(crate) use bytes::with_its_chain;

use std::sync::Arc;

use ::bytes::Bytes;

use crate::chain::Link;
use crate::storage::Commit;
use crate::storage::place::FrameChain;
use tailmark_record::{ChainTag, GenerationTable, LogId, Seq, Timestamp};

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
    /// What the log is at this place, without its events: whoever has nothing can begin here, and what was before can be
    /// forgotten.
    Checkpoint(Arc<Checkpoint>),
}

/// A log at a place of its journal, but for its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The seq of the event that comes next.
    pub next: Seq,
    /// The chain over the events before it.
    pub link: Link,
    /// The trim mark.
    pub oldest: Seq,
    /// The chain at the event before that, if it is known.
    pub oldest_tag: Option<ChainTag>,
    /// Time of the last commit.
    pub last_at: Timestamp,
    /// All there were.
    pub generations: GenerationTable,
    /// What the log keeps about itself.
    pub state: Bytes,
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
