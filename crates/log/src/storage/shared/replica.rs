//! A daemon's part in a shared journal: it follows with a copy of its own, and writes while it holds
//! a term.
//!
//! It is an engine for the event log above. What that appends is published, and applied to the copy
//! when it is known to be stored; what is read is read from the copy. So an event log knows nothing
//! of slots, doubt or takeovers: it hears that a commit is durable, that nothing of it was stored,
//! or that the outcome is unknown. One commit is in flight at a time.

mod following;
mod writing;

use std::ops::{ControlFlow, Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

use super::{Body, Content, Frame, FrameChain, FrameProblem, SharedJournal, Slot};
use crate::storage::memory::Memory;
use crate::storage::{
    Commit, Completion, Damage, Engine, EraseOrder, EraseProgress, Intercept, Recovered, Sealed,
    Store, StoreError, StoreStatus, TakeOut, TakenOut,
};
use tailmark_record::{GenerationEntry, GenerationTable, Seq};

/// Makes the whole state out of what a copy was given: what a copy needs now and then, and only the
/// layer above knows how to write.
pub type StateOf = Box<dyn Fn(&Recovered) -> Result<Bytes, StoreError> + Send + Sync>;

/// A rule of the protocol that tests take out to see what it is for. By the names of
/// `tests/replication`, where each is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No answer in time is no answer.
    NoAnswerIsDoubt,
    /// A refusal says nothing before N+1 was read.
    ReadWhoseItIs,
    /// What depends on the end of the log is told only behind a commit of one's own.
    ConfirmedByCommit,
    /// Another's TERM frame ends a term.
    FencedByTerm,
    /// Each term is a generation of its own.
    TermIsAGeneration,
    /// A frame is taken only if it joins.
    FramesJoin,
    /// On a new connection the own last frame is read back before anything else.
    RejoinByChain,
    /// An end before N is a loss only once an empty commit behind it is stored.
    LossIsProven,
    /// Who found a loss appends nothing until somebody decides.
    DivergedStops,
}

/// What a daemon takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows.
    Following,
    /// It writes, or believes so.
    Writing,
    /// Its copy is of another history than the journal. It takes nothing in either way, and reads of
    /// its copy go on.
    Diverged,
}

/// What a step of following came upon.
#[derive(Clone, Debug)]
pub enum Followed {
    /// A commit, which the copy has now.
    Commit(Commit),
    /// A takeover: from here on this generation is written.
    Term(GenerationEntry),
    /// Nothing that concerns the log.
    Nothing,
}

/// A daemon's copy and its place in the journal.
pub struct Replica {
    name: u64,
    journal: Arc<dyn SharedJournal>,
    copy: Arc<Memory>,
    state_of: StateOf,
    /// In tests only: rules that do not count.
    without: Vec<Rule>,
    /// Held while a frame is published, so that one is in flight at a time: for as long as the journal does
    /// not answer.
    held: Mutex<Held>,
    /// What it said when it was let go last: nobody waits for the journal to hear that.
    seen: Mutex<Seen>,
}

/// How long a frame may be under way before the journal is said not to answer.
const HANGING: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Seen {
    role: Role,
    term: u64,
    writer: Option<u64>,
    is_in_doubt: bool,
    trouble: Option<String>,
    /// Since when it is held.
    since: Option<Instant>,
}

/// Holds a replica, and says at its end what it is then.
struct Holding<'a> {
    held: MutexGuard<'a, Held>,
    seen: &'a Mutex<Seen>,
}

impl Deref for Holding<'_> {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl DerefMut for Holding<'_> {
    fn deref_mut(&mut self) -> &mut Held {
        &mut self.held
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        *self.seen.lock() = self.held.seen();
    }
}

struct Held {
    role: Role,
    /// The chain at each slot that the copy has, from the first on.
    chains: Vec<FrameChain>,
    /// The last of them that is a frame; 0 = none.
    last_frame: u64,
    /// The newest term that was seen, and whose it is.
    term: u64,
    writer: Option<u64>,
    /// What was published, and nobody knows what became of it.
    doubt: Option<Arc<Frame>>,
    /// The connection on which the copy was seen to be a beginning of the journal.
    joined_on: Option<u64>,
    /// What keeps it from going on.
    trouble: Option<String>,
    nonces: Nonces,
}

/// Draws what tells one frame from all others.
struct Nonces {
    name: u64,
    life: u64,
    drawn: u64,
}

impl Nonces {
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        let numbers = [self.name, self.life, self.drawn].map(u64::to_le_bytes);
        xxh3_64(numbers.as_flattened())
    }

    /// For a generation, which has room for 32 bits.
    fn draw_short(&mut self) -> u32 {
        let [a, b, c, d, ..] = xxh3_64(&self.draw().to_le_bytes()).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl Held {
    /// The last slot that the copy has.
    fn slot(&self) -> u64 {
        self.chains.len() as u64
    }

    fn seen(&self) -> Seen {
        let Held { role, term, writer, .. } = *self;
        let is_in_doubt = self.doubt.is_some();
        Seen { role, term, writer, is_in_doubt, trouble: self.trouble.clone(), since: None }
    }

    fn chain(&self) -> FrameChain {
        self.chains.last().copied().unwrap_or_default()
    }

    /// The next slot is there, and is nothing that counts.
    fn pass(&mut self) {
        self.chains.push(self.chain());
    }
}

impl Replica {
    /// A daemon that holds nothing yet. `life` tells this run of it from those before and from those of
    /// others, so that no two have the same nonces: a random number.
    pub fn new(
        (name, life): (u64, u64),
        journal: Arc<dyn SharedJournal>,
        copy: Arc<Memory>,
        state_of: StateOf,
        without: &[Rule],
    ) -> Replica {
        let held = Held {
            role: Role::Following,
            chains: Vec::new(),
            last_frame: 0,
            term: 0,
            writer: None,
            doubt: None,
            joined_on: None,
            trouble: None,
            nonces: Nonces { name, life, drawn: 0 },
        };
        let (without, seen) = (without.to_vec(), Mutex::new(held.seen()));
        Replica { name, journal, copy, state_of, without, held: Mutex::new(held), seen }
    }

    /// The same daemon after it died: it has its copy, and nothing that was under way.
    pub fn restarted(
        &self,
        journal: Arc<dyn SharedJournal>,
        life: u64,
        state_of: StateOf,
    ) -> Replica {
        let it = Replica::new(
            (self.name, life),
            journal,
            Arc::clone(&self.copy),
            state_of,
            &self.without,
        );
        let held = self.hold();
        {
            let mut new = it.hold();
            new.chains.clone_from(&held.chains);
            (new.last_frame, new.term, new.writer) = (held.last_frame, held.term, held.writer);
        }
        it
    }

    /// What it takes itself for. Of this and what follows: as of when it last was through with a frame.
    pub fn role(&self) -> Role {
        self.seen.lock().role
    }

    /// Who writes, as far as it has followed.
    pub fn writer(&self) -> Option<u64> {
        self.seen.lock().writer
    }

    /// The newest term that it has seen.
    pub fn term(&self) -> u64 {
        self.seen.lock().term
    }

    /// Whether it waits to hear what became of a frame.
    pub fn is_in_doubt(&self) -> bool {
        self.seen.lock().is_in_doubt
    }

    fn hold(&self) -> Holding<'_> {
        let held = self.held.lock();
        self.seen.lock().since = Some(Instant::now());
        Holding { held, seen: &self.seen }
    }

    /// What its copy has to say to whoever opens an event log over it.
    pub fn recovered(&self) -> Recovered {
        self.copy.recovered()
    }

    fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// The copy takes a frame that the journal has at the next slot.
    fn apply(&self, held: &mut Held, frame: &Frame) -> Result<Followed, StoreError> {
        let followed = match &frame.body {
            Body::Term(table) => {
                if self.has(Rule::TermIsAGeneration) {
                    self.begin(held, table)?;
                }
                (held.term, held.writer) = (frame.term, Some(frame.writer));
                Followed::Term(table.current().clone())
            }
            Body::Commit(commit) => {
                self.store(commit.clone())?;
                Followed::Commit(commit.clone())
            }
            Body::Empty => Followed::Nothing,
        };
        held.chains.push(frame.chain());
        held.last_frame = held.slot();
        held.trouble = None;
        Ok(followed)
    }

    /// A generation begins. Those before it must be those of the copy.
    fn begin(&self, held: &mut Held, table: &GenerationTable) -> Result<(), StoreError> {
        let known = self.copy.bounds().generations;
        match table.entries().split_last() {
            Some((row, before)) if before == known.entries() => self.copy.begin(row.clone()),
            _ => Err(self.diverges(held, "a takeover names other generations than the copy has")),
        }
    }

    fn store(&self, mut commit: Commit) -> Result<(), StoreError> {
        if self.copy.lacks_state(&commit) {
            commit.state = Some((self.state_of)(&self.copy.recovered())?);
        }
        self.copy.append_now(commit).map(drop)
    }

    fn diverges(&self, held: &mut Held, why: &str) -> StoreError {
        held.role = Role::Diverged;
        held.doubt = None;
        held.trouble = Some(why.to_owned());
        diverged(held)
    }

    /// A slot cannot be read. It is tried again: another replica of the journal, or another version of this
    /// program, may read it.
    fn cannot_read(&self, held: &mut Held, slot: u64, problem: &FrameProblem) -> StoreError {
        let (from, to) = (self.copy.bounds().next(), Seq::ZERO);
        let file = format!("slot {slot} of the journal").into();
        let damage = Damage { from, to, file, detail: problem.to_string() };
        held.trouble = Some(damage.to_string());
        damage.into()
    }
}

/// What a loss of the journal's is called.
const LOST: &str = "its copy has commits that the journal does not have";
/// What a journal is called that does not begin where the copy ends.
const GONE: &str = "the journal begins behind what its copy has: it was purged from outside";
/// What frames are called that do not join the copy's.
const APART: &str = "the frames of the journal do not join those of its copy";

fn fenced(held: &Held) -> StoreError {
    StoreError::Fenced { term: held.term }
}

fn diverged(held: &Held) -> StoreError {
    held.seen().diverged()
}

impl Seen {
    fn diverged(&self) -> StoreError {
        StoreError::Diverged { detail: self.trouble.clone().unwrap_or_default() }
    }
}

impl Intercept for Replica {
    fn inner(&self) -> &dyn Engine {
        &*self.copy
    }

    fn append(&self, commit: Commit, done: Completion) {
        let outcome = self.publish(commit);
        done(outcome);
    }

    fn confirm(&self) -> Result<(), StoreError> {
        Replica::confirm(self)
    }

    fn refusal(&self) -> Option<StoreError> {
        let seen = self.seen.lock();
        let under_way = seen.since.map(|since| since.elapsed()).filter(|time| *time > HANGING);
        match seen.role {
            Role::Writing => under_way.map(|time| StoreError::Hanging { seconds: time.as_secs() }),
            Role::Following => Some(StoreError::Fenced { term: seen.term }),
            Role::Diverged => Some(seen.diverged()),
        }
    }

    fn status(&self) -> StoreStatus {
        let seen = self.seen.lock().clone();
        let is_diverged = seen.role == Role::Diverged;
        let trouble = if is_diverged { Some(seen.diverged().to_string()) } else { seen.trouble };
        StoreStatus { trouble, ..Store::status(&*self.copy) }
    }

    // An order to erase, or to take out, is not in the journal: copies would differ.

    fn erase(
        &self,
        _: &Arc<EraseOrder>,
        _: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        Err(StoreError::Invalid("a log that is shared cannot be erased from"))
    }

    fn sealed(&self) -> Vec<Sealed> {
        Vec::new()
    }

    fn take_out(&self, _: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        Err(StoreError::Invalid("events cannot be taken out of a log that is shared"))
    }

    /// It outlives the event logs over it: each is of one term.
    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
