//! One journal that several daemons share, and the copy that each of them keeps to read from.
//!
//! Owns the protocol between them: takeover, the fence, commits in doubt, following, and what is
//! done where the journal has lost something. `tests/replication` is its specification, and the
//! names of the rules are those of it. Must not know of clients, nor how a journal is reached.
//!
//! ```text
//! event log -> Replica (Journal + Store) -> publish after slot N -> the shared journal
//!                  |                                                     |
//!                  +--- applied: the copy  <--- follow, slot by slot <---+
//! ```
//!
//! One commit is one frame, and a takeover is one too. The only fence is that a frame is stored at
//! the slot that its writer expects, or not at all. No build for users has any of it yet: only a
//! journal in memory is shared so far (decision 0033).

mod frame;
mod replica;
mod stream;

pub use frame::{Body, Frame, FrameChain};
pub use replica::{Followed, Replica, Role, Rule, StateOf};
pub use stream::{Connection, Fault, Stream};

use std::sync::Arc;

use tailmark_record::{FingerprintKey, LogId};

/// Whose journal it is, and what it takes. The same for all who share it.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The log.
    pub id: LogId,
    /// Secret for telling repeats.
    pub key: FingerprintKey,
    /// Most bytes of events in one commit.
    pub max_commit_bytes: usize,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// A quorum has it, at this slot.
    Stored(u64),
    /// It was not stored: the journal ended here, by the word of whoever answered.
    Refused {
        /// The last slot.
        end: u64,
    },
    /// No answer in time: stored, or not, or later.
    NoAnswer,
}

/// What is at a place of the journal.
#[derive(Clone, Debug)]
pub enum Slot {
    /// A commit or a takeover.
    Frame(Arc<Frame>),
    /// Somebody else's message.
    Foreign,
}

/// A daemon's connection to a journal that others append to as well. Blocking.
pub trait SharedJournal: Send + Sync + 'static {
    /// Whose it is.
    fn identity(&self) -> Identity;

    /// Stores a frame at the slot after `after`, counted from 1, or nowhere.
    fn publish(&self, after: u64, frame: &Arc<Frame>) -> Published;

    /// What is at a slot, if that can be read. That nothing is there proves nothing.
    fn read(&self, slot: u64) -> Option<Slot>;

    /// The last slot, by the word of whoever answers. Proves nothing.
    fn end(&self) -> Option<u64>;

    /// Goes up each time that the connection is made anew: what was known of the journal may not be
    /// true any more.
    fn connection(&self) -> u64;
}
