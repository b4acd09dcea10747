//! Commits: what an engine is given to make durable, and what it says of it.

use bytes::Bytes;

use super::StoreError;
use crate::chain::Link;
use tailmark_record::{ChainTag, Seq, Timestamp};

/// One group commit: whole or absent.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Must be `bounds().next()`.
    pub first: Seq,
    /// Events in it; 0 for a commit of state or a trim mark alone.
    pub count: u32,
    /// The `appended_at` of all its events; not before that of any earlier commit.
    pub appended_at: Timestamp,
    /// `EventBatch.events` entries, one after the other; at most [`super::Journal::max_commit_bytes`].
    pub events: Bytes,
    /// Change of the caller's state that commits with the events; opaque here.
    pub delta: Bytes,
    /// The caller's whole state before this commit. Needed when [`super::Store::wants_state`] says so.
    pub state: Option<Bytes>,
    /// The chain at its last event; without one, as it was before.
    pub link: Link,
    /// The trim mark from this commit on: the first seq that stays readable. Never goes down;
    /// at most `first + count`.
    pub oldest: Seq,
    /// The chain at the event before that; `None` where it could not be read.
    pub oldest_tag: Option<ChainTag>,
}

/// What an engine knows of the chain over its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// At the last durable event.
    pub head: Link,
    /// At the event before the oldest that is readable, if that is known.
    pub oldest_tag: Option<ChainTag>,
}

/// A durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// First seq of it.
    pub first: Seq,
    /// Last seq of it; `first - 1` for a commit without events.
    pub last: Seq,
    /// What durable means of it.
    pub level: Level,
    /// Election term; 0 on a single machine.
    pub term: u64,
}

/// What an engine has done when it calls a commit durable. Weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A shared journal has it, and does not promise to have it still when its machines lose power.
    Unsynced,
    /// fdatasync has returned on this machine; an engine in memory promises as much of itself.
    #[default]
    Fsync,
    /// A quorum of machines has it, synced.
    Replicated,
}

/// Receives the outcome of one append.
pub type Completion = Box<dyn FnOnce(Result<Receipt, StoreError>) + Send>;

/// What an engine hands back when it is opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The newest whole state that a caller gave ([`Commit::state`]); empty = none yet.
    pub state: Bytes,
    /// The deltas that were committed after it, in order, each with the commit's range
    /// `first..end`.
    pub deltas: Vec<(Seq, Seq, Bytes)>,
    /// Time of the last commit.
    pub last_at: Timestamp,
}
