//! A daemon's part in a shared journal: it follows with a copy of its own, and writes while it holds
//! a term.
//!
//! It is an engine for the event log above. What that appends is published, and applied to the copy
//! when it is known to be stored; what is read is read from the copy. So an event log knows nothing
//! of slots, doubt or takeovers: it hears that a commit is durable, that nothing of it was stored,
//! or that the outcome is unknown. One commit is in flight at a time.

mod chains;
mod following;
mod forgetting;
mod writing;

use std::ops::{ControlFlow, Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

use self::chains::Chains;
use super::{
    Body, Checkpoint, Content, CopyStore, Frame, FrameChain, FrameProblem, Place, SharedJournal,
    Slot,
};
use crate::storage::error::chain;
use crate::storage::{
    Commit, Completion, Damage, Engine, EraseOrder, EraseProgress, Intercept, Level, Recovered,
    Sealed, StoreError, StoreStatus, TakeOut, TakenOut,
};
use tailmark_record::{ChainTag, GenerationEntry, GenerationTable, Seq, Timestamp};

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
    copy: Arc<dyn CopyStore>,
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
    slot: u64,
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
    chains: Chains,
    /// The last slot of the copy that is a frame; 0 = none.
    last_frame: u64,
    /// The last slot that the copy says it has, when it is opened again.
    kept: u64,
    /// Time of the copy's last commit.
    last_at: Timestamp,
    /// Its trim mark, and the chain before that.
    oldest: (Seq, Option<ChainTag>),
    /// Checkpoints that it came by, and the seqs that came next there.
    checkpoints: Vec<(u64, Seq)>,
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
        self.chains.slot()
    }

    fn seen(&self) -> Seen {
        let Held { role, term, writer, .. } = *self;
        let is_in_doubt = self.doubt.is_some();
        let (slot, trouble) = (self.slot(), self.trouble.clone());
        Seen { role, slot, term, writer, is_in_doubt, trouble, since: None }
    }

    fn chain(&self) -> FrameChain {
        self.chains.last()
    }

    /// Where the copy is now.
    fn place(&self) -> Place {
        let (term, writer) = (self.term, self.writer.unwrap_or_default());
        Place { slot: self.last_frame, chain: self.chain(), term, writer }
    }

    /// The next slot is there, and is nothing that counts.
    fn pass(&mut self) {
        self.chains.push(self.chain());
    }
}

impl Replica {
    /// A daemon that follows from where its copy is. `name` is its own among all that share the journal; `life` tells
    /// this run of it from those before and from those of others, so that no two have the same nonces: a random
    /// number. `state_of` is [`crate::whole_state`] with the options of the event log above. Of rules `without` which
    /// it is to go, tests alone name any.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where the copy is of another log, or takes less than the journal may bring; damage where it does
    /// not say where it is in the journal, or has more than it says.
    pub fn new(
        (name, life): (u64, u64),
        journal: Arc<dyn SharedJournal>,
        copy: Arc<dyn CopyStore>,
        state_of: StateOf,
        without: &[Rule],
    ) -> Result<Replica, StoreError> {
        let identity = journal.identity();
        if (copy.id(), copy.fingerprint_key()) != (identity.id, identity.key) {
            return Err(StoreError::Invalid("the copy is of another log than the journal"));
        }
        if copy.takes() < 2 * identity.max_commit_bytes {
            let what = "the slots of the copy are too small for the journal: slot_bytes must be 8 times its \
                        largest commit";
            return Err(StoreError::Invalid(what));
        }
        let recovered = copy.recovered();
        let place = place_of(&*copy, &recovered)?;
        let held = Held {
            role: Role::Following,
            chains: Chains::from(&place),
            last_frame: place.slot,
            kept: place.slot,
            last_at: recovered.last_at,
            oldest: (copy.bounds().oldest, copy.links().oldest_tag),
            checkpoints: Vec::new(),
            term: place.term,
            writer: (place.term > 0).then_some(place.writer),
            doubt: None,
            joined_on: None,
            trouble: None,
            nonces: Nonces { name, life, drawn: 0 },
        };
        let (without, seen) = (without.to_vec(), Mutex::new(held.seen()));
        Ok(Replica { name, journal, copy, state_of, without, held: Mutex::new(held), seen })
    }

    /// What it keeps what it followed in.
    pub fn copy(&self) -> &Arc<dyn CopyStore> {
        &self.copy
    }

    /// Where its copy is in the journal. Waits while a frame is under way.
    pub fn place(&self) -> Place {
        self.hold().place()
    }

    /// Waits until there may be something to follow, for so long at most; whether there may. Who follows calls it where
    /// [`Replica::follow`] answered `None`: nobody asks the journal again and again meanwhile.
    pub fn wait(&self, timeout: Duration) -> bool {
        let slot = self.seen.lock().slot;
        self.journal.wait(slot + 1, timeout)
    }

    /// Closes its copy, which marks a clean stop. The event log over it is closed before.
    ///
    /// # Errors
    /// I/O; what the copy has is durable all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        self.copy.close()
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

    /// The last slot that its copy has.
    pub fn slot(&self) -> u64 {
        self.seen.lock().slot
    }

    /// For how long a frame has been under way, if one is.
    pub fn under_way(&self) -> Option<Duration> {
        self.seen.lock().since.map(|since| since.elapsed())
    }

    /// What keeps it from going on, if something does.
    pub fn trouble(&self) -> Option<String> {
        self.seen.lock().trouble.clone()
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
    ///
    /// # Errors
    /// Damage where the copy is not what a replica wrote.
    pub fn recovered(&self) -> Result<Recovered, StoreError> {
        self.copy.recovered().without_places()
    }

    fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// The copy takes a frame that the journal has at the next slot. Where it cannot, it says why, and nothing has
    /// changed: it is tried again.
    fn apply(&self, held: &mut Held, frame: &Frame) -> Result<Followed, StoreError> {
        let applied = self.try_to_apply(held, frame);
        match &applied {
            Ok(_) => {
                held.chains.push(frame.chain());
                held.last_frame = held.slot();
                held.trouble = None;
                self.keep_place(held);
            }
            Err(error) if held.role != Role::Diverged => {
                held.trouble = Some(format!("{NO_ROOM}: {}", chain(error)));
            }
            Err(_) => {}
        }
        applied
    }

    fn try_to_apply(&self, held: &mut Held, frame: &Frame) -> Result<Followed, StoreError> {
        let mut place = Place { slot: held.slot() + 1, chain: frame.chain(), ..held.place() };
        match &frame.body {
            Body::Term(table) => {
                (place.term, place.writer) = (frame.term, frame.writer);
                if self.has(Rule::TermIsAGeneration) {
                    self.begin(held, table, place)?;
                }
                (held.term, held.writer) = (frame.term, Some(frame.writer));
                Ok(Followed::Term(table.current().clone()))
            }
            Body::Commit(commit) => {
                let mut commit = commit.clone();
                let own = held.oldest;
                if commit.oldest < own.0 {
                    // It began at a checkpoint, without what could still be read then.
                    (commit.oldest, commit.oldest_tag) = own;
                }
                self.keep(held, commit.clone(), place, None)?;
                held.last_at = commit.appended_at;
                held.oldest = (commit.oldest, commit.oldest_tag);
                Ok(Followed::Commit(commit))
            }
            Body::Empty => Ok(Followed::Nothing),
            Body::Checkpoint(it) => self.pass_checkpoint(held, it, place),
        }
    }

    /// A generation begins. Those before it must be those of the copy, which may have begun it already.
    fn begin(
        &self,
        held: &mut Held,
        table: &GenerationTable,
        place: Place,
    ) -> Result<(), StoreError> {
        let known = self.copy.bounds().generations;
        let is_next =
            table.entries().split_last().is_some_and(|(_, before)| before == known.entries());
        if !is_next && *table != known {
            return Err(self.diverges(held, "a takeover names other generations than the copy has"));
        }
        let commit = self.mark(held.last_at);
        self.keep(held, commit, place, is_next.then_some(table))
    }

    /// What the log is there must be what the copy is. It keeps that it was here: what was before may be forgotten.
    fn pass_checkpoint(
        &self,
        held: &mut Held,
        it: &Checkpoint,
        place: Place,
    ) -> Result<Followed, StoreError> {
        let bounds = self.copy.bounds();
        let own = (bounds.next(), self.copy.links().head, bounds.generations);
        if own != (it.next, it.link, it.generations.clone()) {
            return Err(self.diverges(held, "a checkpoint is of another log than the copy"));
        }
        let commit = self.mark(held.last_at);
        self.keep(held, commit, place, None)?;
        held.checkpoints.push((place.slot, it.next));
        Ok(Followed::Nothing)
    }

    /// A commit of nothing, behind what the copy has.
    fn mark(&self, appended_at: Timestamp) -> Commit {
        let (bounds, links) = (self.copy.bounds(), self.copy.links());
        Commit {
            first: bounds.next(),
            count: 0,
            appended_at,
            events: Bytes::new(),
            delta: Bytes::new(),
            state: None,
            link: links.head,
            oldest: bounds.oldest,
            oldest_tag: links.oldest_tag,
        }
    }

    /// The copy takes a commit, with where it is then.
    fn keep(
        &self,
        held: &mut Held,
        mut commit: Commit,
        place: Place,
        generations: Option<&GenerationTable>,
    ) -> Result<(), StoreError> {
        commit.delta = place.before(&commit.delta);
        if self.copy.wants_state(commit.events.len() + commit.delta.len()) {
            let recovered = self.copy.recovered().without_places()?;
            commit.state = Some(held.place().before(&(self.state_of)(&recovered)?));
        }
        self.copy.take(commit, generations)?;
        held.kept = place.slot;
        Ok(())
    }

    /// Frames that change nothing are read again when the copy is opened: not too many.
    fn keep_place(&self, held: &mut Held) {
        if held.last_frame.saturating_sub(held.kept) < READ_AGAIN {
            return;
        }
        let (commit, place) = (self.mark(held.last_at), held.place());
        if let Err(error) = self.keep(held, commit, place, None) {
            tracing::warn!(error = %chain(&error), "the copy does not keep how far it is");
        }
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

/// Frames without a commit after which a copy keeps how far it is.
const READ_AGAIN: u64 = 1_000;

/// What a copy is called that does not take what it must.
const NO_ROOM: &str = "the copy here does not take what the journal has";
/// What a loss of the journal's is called.
const LOST: &str = "its copy has commits that the journal does not have";
/// What a journal is called that does not begin where the copy ends.
const GONE: &str = "the journal begins behind what its copy has: it was purged from outside";
/// What frames are called that do not join the copy's.
const APART: &str = "the frames of the journal do not join those of its copy";

/// Where a copy is, which must be all that it has.
fn place_of(copy: &dyn CopyStore, recovered: &Recovered) -> Result<Place, StoreError> {
    let (place, end) = Place::of(recovered)?;
    let next = copy.bounds().next();
    let is_all = match end {
        Some(end) => end == next,
        None => place.slot > 0 || next == Seq::FIRST,
    };
    if is_all {
        return Ok(place);
    }
    let (from, to, file) = (end.unwrap_or(Seq::FIRST), next.prev(), "the copy".into());
    let detail = format!(
        "it has events that are not of the journal up to slot {}: where it goes on is not known",
        place.slot
    );
    Err(Damage { from, to, file, detail }.into())
}

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

    fn max_commit_bytes(&self) -> usize {
        self.journal.identity().max_commit_bytes
    }

    fn level(&self) -> Level {
        self.journal.identity().level
    }

    /// Each copy makes its own.
    fn wants_state(&self, _: usize) -> bool {
        false
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
            Role::Writing => under_way.map(|time| {
                let reason = format!("a commit has been under way for {} s", time.as_secs());
                StoreError::Unreachable { reason }
            }),
            Role::Following => Some(StoreError::Fenced { term: seen.term }),
            Role::Diverged => Some(seen.diverged()),
        }
    }

    fn status(&self) -> StoreStatus {
        let seen = self.seen.lock().clone();
        let is_diverged = seen.role == Role::Diverged;
        let trouble = if is_diverged { Some(seen.diverged().to_string()) } else { seen.trouble };
        let copy = self.copy.status();
        StoreStatus { trouble: trouble.or(copy.trouble), ..copy }
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

    /// It outlives the event logs over it: each is of one term. See [`Replica::close`].
    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
