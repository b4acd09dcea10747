//! What a daemon does: the protocol itself. `appending.rs` is the writer, and who would be it;
//! `reading.rs` is what every daemon does. `world/` decides when, and what arrives.

mod appending;
mod reading;

use crate::frame::{Chain, Cursor, Frame, Generation, Id, Nonce, Op, Slot};
use crate::journal::Publish;

/// A daemon: a reader always, a writer while it holds a term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Daemon {
    id: Id,
    /// Its local copy, slot by slot. What its watchers were shown are the events in it.
    pub copy: Vec<Slot>,
    /// What it takes itself for.
    pub role: Role,
    /// The commits that are in flight or in doubt, each staged behind the one before it.
    pub staged: Vec<Staged>,
    /// The oldest commit goes alone: it was refused.
    is_alone: bool,
    /// An empty commit that is to prove that the log ends before the own copy does.
    pub proof: Option<Publish>,
    /// Whether it has seen, on this connection, that its copy is a beginning of the journal.
    pub is_joined: bool,
    /// Whether a commit of its own was stored so lately that nobody can have taken over since.
    pub is_fresh: bool,
    /// How many nonces it has drawn.
    drawn: u8,
}

/// What a daemon takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It follows. With a TERM frame staged it is taking over.
    Following,
    /// It writes in this generation, or believes so.
    Writing(Generation),
    /// Its copy is of another history than the journal. It appends and takes nothing until
    /// somebody decides, and its watches beyond what both share end with LOG_DIVERGED.
    Diverged,
}

/// A commit whose outcome is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Staged {
    /// The bytes, and N.
    pub publish: Publish,
    /// Who waits for it.
    pub caller: Caller,
    /// Acked, but behind one that is not.
    pub is_acked: bool,
}

/// Who waits for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Nobody, or nobody any more.
    Nobody,
    /// A client, to hear that its event is stored.
    Client(Op),
    /// Somebody who wants to know the head.
    Confirm,
}

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable; where its event is.
    Stored(Cursor),
    /// This commit is not stored, and never will be.
    NotStored(Nonce),
    /// It may be stored now, later, or never.
    Unknown,
}

/// What a step of a daemon asks of the world.
#[derive(Default)]
pub struct Effects {
    /// Sent to the journal.
    pub published: Vec<Publish>,
    /// Told to callers.
    pub told: Vec<(Caller, Outcome)>,
}

impl Daemon {
    /// One that holds these slots.
    pub fn new(id: Id, copy: Vec<Slot>, role: Role, drawn: u8) -> Daemon {
        let (staged, is_alone, proof) = (Vec::new(), false, None);
        Daemon { id, copy, role, staged, is_alone, proof, is_joined: true, is_fresh: false, drawn }
    }

    fn draw(&mut self) -> Nonce {
        self.drawn += 1;
        Nonce { by: self.id, count: self.drawn }
    }
}

/// Whether a frame goes on from this history.
pub fn joins(frame: &Frame, history: Chain) -> bool {
    frame.previous == history
}

fn stored(frame: &Frame) -> Outcome {
    Outcome::Stored(Cursor { generation: frame.generation, seq: frame.first })
}
