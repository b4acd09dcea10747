//! Everything around the daemons: clients, the network, the journal's servers and their faults.
//! Whatever can happen next, does, in every order; a scene bounds how often.

mod model;
mod steps;

use crate::daemon::Daemon;
use crate::frame::{Cursor, Nonce, Op, Slot};
use crate::journal::{Journal, Publish};
use crate::rules::Rules;

/// The model: the protocol in a scene.
#[derive(Clone, Debug, Default)]
pub struct Protocol {
    /// The rules in force.
    pub rules: Rules,
    /// What may happen, and how often.
    pub scene: Scene,
    /// The one property that is looked at, if not all: its path is then the shortest.
    pub only: Option<&'static str>,
}

/// How often things may happen. What is not counted here may happen as often as it likes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scene {
    /// Events that clients want stored, each with an idempotent id.
    pub ops: u8,
    /// Times that each is sent.
    pub sends: u8,
    /// Takeovers that are tried.
    pub takeovers: u8,
    /// Questions that depend on the head.
    pub asks: u8,
    /// Daemons killed.
    pub crashes: u8,
    /// Leaders of the journal lost with what they had only proposed.
    pub elections: u8,
    /// Daemons whose connection is to a leader that was cut off and does not know it.
    pub cuts: u8,
    /// Snapshots put back. With it go so many proofs of a loss.
    pub rollbacks: u8,
    /// Proofs of a loss that are tried.
    pub proofs: u8,
    /// Times that what was lost is appended again.
    pub repairs: u8,
    /// Whether a replica keeps what was rolled back, and serves it to who follows.
    pub has_stray_replica: bool,
    /// Messages of others.
    pub foreign: u8,
    /// Purges beyond the end.
    pub purges: u8,
    /// Daemons beside the first writer.
    pub followers: u8,
    /// Commits that a writer has in flight at most.
    pub in_flight: usize,
}

/// Everything that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The stream.
    pub journal: Journal,
    /// What a replica that was not put back holds.
    pub stray: Vec<Slot>,
    /// Publishes under way, in order of no meaning.
    pub network: Vec<Publish>,
    /// The daemons.
    pub daemons: Vec<Daemon>,
    /// For each daemon the old leader that it is connected to, if it is.
    pub links: Vec<Option<OldLeader>>,
    /// What the client of each event knows.
    pub clients: Vec<Client>,
    /// A question under way: the head when it began.
    pub asked: Option<u8>,
    /// What has happened so often already.
    pub spent: Spent,
    /// The commits whose callers were told that they are not stored and will not be.
    pub denied: Vec<Nonce>,
    /// A head was told that the log did not have at any moment of the question.
    pub has_lied: bool,
    /// Questions that were answered.
    pub answers: u8,
}

/// A leader that a majority has left. It goes on believing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OldLeader {
    /// What it can read.
    stored: usize,
    /// What it says that the end is: it counts what it proposes to nobody.
    end: usize,
}

/// The client of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Times that it has sent it.
    pub sends: u8,
    /// What it knows.
    pub knows: Knows,
}

/// What a client knows of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Knows {
    /// It is not stored; it may be sent.
    Nothing,
    /// It was sent, and no answer is there.
    Waits,
    /// It heard that the outcome is unknown. It may send it again, to any daemon.
    Unknown,
    /// It is stored. `is_lost`: the journal was rolled back to before it, after that.
    Acked {
        /// Where it is.
        cursor: Cursor,
        /// Whether it was lost with the journal's tail.
        is_lost: bool,
    },
}

/// How often what a scene bounds has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    /// Takeovers that were tried.
    pub takeovers: u8,
    asks: u8,
    crashes: u8,
    elections: u8,
    cuts: u8,
    /// Snapshots that were put back.
    pub rollbacks: u8,
    proofs: u8,
    repairs: u8,
    /// Acked events that were lost and are there again.
    pub regained: u8,
    foreign: u8,
    /// Purges beyond the end.
    pub purges: u8,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client sends its event; it reaches a daemon that believes to be the writer, directly or
    /// forwarded by another.
    Send(Op, usize),
    /// Somebody asks for what depends on the head: HEAD_MOVED, a hole, AHEAD, CAUGHT_UP.
    Ask,
    /// A daemon answers with the head that it has.
    Answer(usize),
    /// A writer appends an empty commit to answer.
    Confirm(usize),
    /// No answer to a publish: once more.
    Retry(usize),
    /// A caller's deadline is over.
    Deadline(usize),
    /// A daemon appends a TERM frame, or tries to.
    TakeOver(usize),
    /// A second passes.
    Age(usize),
    /// The tail of a daemon brings a message.
    Tail(usize, usize),
    /// The same from the replica that was not put back.
    TailOfStray(usize),
    /// A daemon reads back its own last frame.
    Rejoin(usize),
    /// A daemon tries to prove that the journal has lost something.
    Prove(usize),
    /// A publish arrives. A refusal is answered, or its answer is lost.
    Arrive(usize, bool),
    /// A quorum has the oldest proposal; the ack arrives, or is lost.
    Store(bool),
    /// The journal elects another leader.
    Elect,
    /// A daemon is killed and started again, with its copy or without.
    Crash(usize, bool),
    /// A daemon finds itself with a leader that was cut off so many messages before the end.
    Cut(usize, usize),
    /// That leader hears that it is none.
    Heal(usize),
    /// All servers of the journal come back with a snapshot that goes up to here.
    RollBack(usize),
    /// Somebody else publishes to the subject.
    Foreign,
    /// Somebody else purges beyond the end.
    Purge,
    /// `journal repair --accept` at a daemon.
    Accept(usize),
    /// `journal repair --reappend` at a daemon.
    Reappend(usize),
}
