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
//! the slot that its writer expects, or not at all. No daemon runs on any of it yet (decisions 0034
//! and 0037).

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod copy;
mod frame;
mod repair;
mod replica;
#[cfg(any(test, feature = "testing"))]
mod stream;

pub use super::place::{FrameChain, Place};
pub use copy::{CopyStore, copy_in_memory, has_log, open_copy};
pub use frame::{Body, Checkpoint, Content, Frame, FrameProblem};
pub use repair::{Compared, PutBack, Relation, State, compare, prove, put_back};
pub use replica::{Followed, Replica, Role, Rule, StateOf};
#[cfg(any(test, feature = "testing"))]
pub use stream::{Connection, Fault, Stream};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Level, StoreError};

use tailmark_record::{FingerprintKey, LogId, Timestamp};

/// A way for the fuzzer (`fuzz/`) past the chain of a frame. In no other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    use tailmark_record::LogId;

    /// A message as it would be with the log and the chain that a frame needs.
    pub fn with_its_chain(bytes: &[u8], log: LogId) -> Vec<u8> {
        super::frame::with_its_chain(bytes, log)
    }
}

/// Whose journal it is, and what it takes. The same for all who share it.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The log.
    pub id: LogId,
    /// Secret for telling repeats.
    pub key: FingerprintKey,
    /// Most bytes of events in one commit.
    pub max_commit_bytes: usize,
    /// What a stored frame has been given, by what is known of the journal.
    pub level: Level,
    /// When the log was created.
    pub created_at: Timestamp,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The journal has it, at this slot.
    Stored(u64),
    /// It was not stored: the journal ended here, by the word of whoever answered.
    Refused {
        /// The last slot.
        end: u64,
    },
    /// This one was not stored, and never will be, wherever the journal ends. Says nothing of an earlier
    /// publish of the same frame.
    NotTaken {
        /// Why.
        reason: String,
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
    /// What is, or was, a frame, and cannot be read here.
    Unreadable(FrameProblem),
    /// Gone: the journal begins behind it.
    Gone,
}

impl Slot {
    /// What a message of the journal of a log is.
    pub fn of(message: &Bytes, log: LogId) -> Slot {
        match Frame::decode(message, log) {
            Ok(frame) => Slot::Frame(Arc::new(frame)),
            Err(FrameProblem::Foreign) => Slot::Foreign,
            Err(problem) => Slot::Unreadable(problem),
        }
    }
}

/// A daemon's connection to a journal that others append to as well. Blocking.
pub trait SharedJournal: Send + Sync + 'static {
    /// Whose it is.
    fn identity(&self) -> Identity;

    /// What people call it.
    fn name(&self) -> String;

    /// Stores a frame at the slot after `after`, counted from 1, or nowhere.
    fn publish(&self, after: u64, frame: &Arc<Frame>) -> Published;

    /// What is at a slot, if that can be read. That nothing is there proves nothing.
    fn read(&self, slot: u64) -> Option<Slot>;

    /// The same from whoever takes himself for the one that orders the journal: not from a replica that may
    /// lag, or that keeps what the others have lost.
    fn read_back(&self, slot: u64) -> Option<Slot> {
        self.read(slot)
    }

    /// Waits until there may be something at a slot, for so long at most; whether there may. Who follows waits between two
    /// reads that found nothing; what has come is kept for [`SharedJournal::read`].
    fn wait(&self, slot: u64, timeout: Duration) -> bool;

    /// The last slot, by the word of whoever answers. Proves nothing.
    fn end(&self) -> Option<u64>;

    /// The first slot that is left, by the word of whoever answers; 1 or less where nothing was forgotten.
    fn first(&self) -> Option<u64>;

    /// Goes up each time that the connection is made anew: what was known of the journal may not be
    /// true any more.
    fn connection(&self) -> u64;

    /// For how long a frame is published again and again, at least, before its caller hears that nobody
    /// knows.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Gives back the space of the slots before one, which is not behind `acked`: a slot that is known to
    /// be stored. For what is behind the end would move the end.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where it would; [`StoreError::Busy`] where the journal does not answer.
    fn forget(&self, before: u64, acked: u64) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests;
