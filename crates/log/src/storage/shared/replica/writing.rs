//! Appending, and taking over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{APART, Body, Content, Frame, GONE, Held, Replica, Role, Rule, Slot, diverged, fenced};
use crate::storage::shared::Published;
use crate::storage::{Commit, Receipt, StoreError};
use tailmark_record::Timestamp;

/// How often a frame is published, at least, before its caller hears that the outcome is unknown. It stays in
/// doubt then, and is published again until something is known.
const TRIES: usize = 4;
/// Between tries, where the journal has patience.
const PAUSE: Duration = Duration::from_millis(50);

fn away(held: &Held) -> StoreError {
    let reason = held.trouble.clone();
    StoreError::Unreachable { reason: reason.unwrap_or_else(|| "nobody answers".to_owned()) }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It is in the journal, at the next slot.
    Stored,
    /// It is not, and never will be.
    NotStored,
    /// Not known yet.
    Doubt,
    /// It was not published now: the journal does not answer, or its end is not the copy's.
    NotTried,
}

impl Replica {
    /// Publishes a commit, and answers when it is known what became of it.
    pub(super) fn publish(&self, mut commit: Commit) -> Result<Receipt, StoreError> {
        let mut held = self.hold();
        may_write(&held)?;
        // Each copy makes its own.
        commit.state = None;
        if commit.delta.len() > self.journal.identity().max_commit_bytes {
            return Err(StoreError::Invalid(
                "a commit changes more of the log's state than it may",
            ));
        }
        // What the copy would refuse must not get into the journal.
        let delta = held.place().before(&commit.delta);
        self.copy.would_take(&Commit { delta, ..commit.clone() })?;
        let (first, end) = (commit.first, commit.first.plus(commit.count.into()));
        let (level, term) = (self.journal.identity().level, held.term);
        self.put(&mut held, Body::Commit(commit))?;
        Ok(Receipt { first, last: end.prev(), level, term })
    }

    pub(super) fn put(&self, held: &mut Held, body: Body) -> Result<(), StoreError> {
        let mut frame = Arc::new(Frame::new(self.content(held, body)));
        match self.settle(held, &mut frame) {
            Settled::Stored => self.take_own(held, &frame),
            other => Err(self.not_stored(held, other, frame)),
        }
    }

    /// The copy takes a frame of its own that is stored. Where it does not, the term ends here: the frame is followed as
    /// any other, once the copy takes it, and its caller does not hear that it is not stored.
    fn take_own(&self, held: &mut Held, frame: &Frame) -> Result<(), StoreError> {
        let Err(error) = self.apply(held, frame) else { return Ok(()) };
        if held.role == Role::Writing {
            held.role = Role::Following;
        }
        let reason = held.trouble.clone().unwrap_or_else(|| error.to_string());
        Err(StoreError::Stopped { reason })
    }

    /// What is said of a frame that is not known to be stored.
    fn not_stored(&self, held: &mut Held, settled: Settled, frame: Arc<Frame>) -> StoreError {
        let is_diverged = held.role == Role::Diverged;
        match settled {
            Settled::NotStored if is_diverged => diverged(held),
            Settled::NotStored => fenced(held),
            Settled::NotTried => away(held),
            Settled::Doubt if !self.has(Rule::NoAnswerIsDoubt) => away(held),
            Settled::Doubt | Settled::Stored => {
                // Who diverged asks no more.
                held.doubt = (!is_diverged).then_some(frame);
                StoreError::InDoubt
            }
        }
    }

    pub(super) fn content(&self, held: &mut Held, body: Body) -> Content {
        let (log, previous, term) = (self.journal.identity().id, held.chain(), held.term);
        Content { log, previous, term, writer: self.name, nonce: held.nonces.draw(), body }
    }

    /// Publishes a frame at the next slot until it is known what became of it, or often enough.
    fn settle(&self, held: &mut Held, frame: &mut Arc<Frame>) -> Settled {
        let (patience, begun) = (self.journal.patience(), Instant::now());
        let mut now = Settled::NotTried;
        let mut tries = 0;
        while tries < TRIES || begun.elapsed() < patience {
            tries += 1;
            if tries > 1 && !patience.is_zero() {
                std::thread::sleep(PAUSE);
            }
            if !self.is_joined(held) {
                if held.role == Role::Diverged {
                    return Settled::NotStored;
                }
                continue;
            }
            let published = self.journal.publish(held.slot(), frame);
            if let Published::NotTaken { reason } = published {
                // What became of an earlier try is not known by that.
                held.trouble = Some(reason);
                continue;
            }
            now = Settled::Doubt;
            match published {
                // Of a new connection it may be said of another history of the journal.
                Published::Stored(_) if !self.is_same_connection(held) => {}
                Published::Stored(slot) if slot == held.slot() + 1 => return Settled::Stored,
                Published::Stored(_) => {
                    self.diverges(held, "an ack names another slot than was asked for");
                    return Settled::Doubt;
                }
                Published::NoAnswer | Published::NotTaken { .. } => {}
                Published::Refused { end } if end < held.slot() => {
                    self.suspects_a_loss(held, end);
                    if held.role == Role::Diverged {
                        return Settled::NotStored;
                    }
                }
                Published::Refused { .. } if !self.has(Rule::ReadWhoseItIs) => {
                    held.role = Role::Following;
                    return Settled::NotStored;
                }
                Published::Refused { .. } => match self.reads_whose_it_is(held, frame) {
                    Settled::Doubt if held.role != Role::Diverged => {}
                    known => return known,
                },
            }
        }
        now
    }

    fn is_same_connection(&self, held: &Held) -> bool {
        held.joined_on == Some(self.journal.connection()) || !self.has(Rule::RejoinByChain)
    }

    /// Something is at the next slot: the frame itself from an earlier try, or another's.
    fn reads_whose_it_is(&self, held: &mut Held, own: &mut Arc<Frame>) -> Settled {
        loop {
            let next = held.slot() + 1;
            let there = match self.journal.read_back(next) {
                // Still in doubt, or behind what was passed: it is published again.
                None => return Settled::Doubt,
                Some(Slot::Foreign) => {
                    held.pass();
                    continue;
                }
                Some(Slot::Unreadable(problem)) => {
                    self.cannot_read(held, next, &problem);
                    return Settled::Doubt;
                }
                // It may have been the frame itself, and others may have seen it.
                Some(Slot::Gone) => {
                    self.diverges(held, GONE);
                    return Settled::Doubt;
                }
                Some(Slot::Frame(there)) => there,
            };
            if there.nonce == own.nonce {
                return Settled::Stored;
            }
            if there.previous != held.chain() {
                self.diverges(held, APART);
                return Settled::NotStored;
            }
            let is_term = matches!(there.body, Body::Term(_));
            let is_attempt = matches!(own.body, Body::Term(_));
            if is_attempt || is_term && self.has(Rule::FencedByTerm) {
                held.role = Role::Following;
                return Settled::NotStored;
            }
            // A proof of another's, or what ends no term: the frame goes behind it.
            let is_empty = matches!(there.body, Body::Empty);
            if !(is_empty || is_term) || self.apply(held, &there).is_err() {
                self.diverges(held, APART);
                return Settled::NotStored;
            }
            *own = Arc::new(own.behind(held.chain()));
        }
    }

    /// Begins a term: it writes from here on, unless another was first. It follows to the end before.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another was first, [`StoreError::InDoubt`] while that is not known,
    /// [`StoreError::Unreachable`] where the journal does not answer, [`StoreError::Diverged`].
    pub fn take_over(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.resolve()?;
        while self.follow()?.is_some() {}
        self.begin_term(now)
    }

    /// The same right behind what the copy has: where the journal has more, it is [`StoreError::Fenced`], and the
    /// writer lives. For who takes over because of a silence, which a frame ends that came meanwhile.
    ///
    /// # Errors
    /// As [`Replica::take_over`]; [`StoreError::InDoubt`] also while it is not known what became of an earlier frame.
    pub fn begin_term(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut held = self.hold();
        match held.role {
            Role::Diverged => return Err(diverged(&held)),
            _ if held.doubt.is_some() => return Err(StoreError::InDoubt),
            Role::Following | Role::Writing => {}
        }
        // Who could keep nothing of what it writes does not begin.
        let delta = held.place().before(&[]);
        self.copy.would_take(&Commit { delta, ..self.mark(held.last_at) })?;
        let bounds = self.copy.bounds();
        let used_up = || StoreError::Invalid("the log has used up its generations");
        let term = held.term + 1;
        let nonce = held.nonces.draw_short();
        let table = bounds.generations.with_next(nonce, bounds.next(), now, "taken over");
        let table = table.ok_or_else(used_up)?;
        // What the copy ends with may be of a replica that keeps what the others lost: it is read back first.
        held.joined_on = None;
        let content = Content { term, ..self.content(&mut held, Body::Term(table)) };
        let mut frame = Arc::new(Frame::new(content));
        match self.settle(&mut held, &mut frame) {
            Settled::Stored => self.begins(&mut held, &frame),
            other => Err(self.not_stored(&mut held, other, frame)),
        }
    }

    fn begins(&self, held: &mut Held, frame: &Frame) -> Result<u64, StoreError> {
        self.take_own(held, frame)?;
        held.role = Role::Writing;
        Ok(held.term)
    }

    /// Asks again what became of the frame in doubt, if there is one. Its callers have been told that
    /// nobody knows.
    ///
    /// # Errors
    /// [`StoreError::InDoubt`] while it is not known.
    pub fn resolve(&self) -> Result<(), StoreError> {
        let mut held = self.hold();
        let Some(mut frame) = held.doubt.take() else { return Ok(()) };
        match self.settle(&mut held, &mut frame) {
            Settled::Stored if matches!(frame.body, Body::Term(_)) => {
                self.begins(&mut held, &frame).map(drop)
            }
            Settled::Stored => self.take_own(&mut held, &frame),
            Settled::NotStored => Ok(()),
            Settled::Doubt | Settled::NotTried => {
                held.doubt = Some(frame);
                Err(StoreError::InDoubt)
            }
        }
    }

    /// Proves that the journal ends where the copy does: true of the moment at which a frame of its own
    /// was stored behind it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another writes; as an append.
    pub fn confirm(&self) -> Result<(), StoreError> {
        if !self.has(Rule::ConfirmedByCommit) {
            return Ok(());
        }
        let mut held = self.hold();
        may_write(&held)?;
        self.put(&mut held, Body::Empty)
    }
}

pub(super) fn may_write(held: &Held) -> Result<(), StoreError> {
    match held.role {
        Role::Following => Err(fenced(held)),
        Role::Diverged => Err(diverged(held)),
        Role::Writing if held.doubt.is_some() => {
            let reason = "it is not known yet what became of an earlier commit".to_owned();
            Err(StoreError::Unreachable { reason })
        }
        Role::Writing => Ok(()),
    }
}
