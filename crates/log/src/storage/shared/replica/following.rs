//! Following, and what is done where the journal lost something.

use std::sync::Arc;

use super::{
    APART, Body, Content, Followed, Frame, GONE, Held, LOST, Replica, Role, Rule, Slot, diverged,
};
use crate::storage::StoreError;
use crate::storage::shared::{FrameChain, Published};

impl Replica {
    /// Takes the next slot of the journal; `None` where there is none yet, or it cannot be read. Who
    /// writes looks whether another does.
    ///
    /// # Errors
    /// [`StoreError::Diverged`].
    pub fn follow(&self) -> Result<Option<Followed>, StoreError> {
        let mut held = self.hold();
        if held.role == Role::Diverged {
            return Err(diverged(&held));
        }
        if !self.is_joined(&mut held) {
            let is_diverged = held.role == Role::Diverged;
            return if is_diverged { Err(diverged(&held)) } else { Ok(None) };
        }
        let next = held.slot() + 1;
        let frame = match self.next(&held, next) {
            None => return Ok(None),
            Some(Slot::Foreign) => {
                held.pass();
                return Ok(Some(Followed::Nothing));
            }
            Some(Slot::Unreadable(problem)) => {
                return Err(self.cannot_read(&mut held, next, &problem));
            }
            Some(Slot::Gone) => return Err(self.diverges(&mut held, GONE)),
            Some(Slot::Frame(frame)) => frame,
        };
        if held.doubt.as_ref().is_some_and(|it| it.nonce == frame.nonce) {
            // It is answered by `resolve`.
            return Ok(None);
        }
        if frame.previous != held.chain() && self.has(Rule::FramesJoin) {
            return Err(self.diverges(&mut held, APART));
        }
        if held.role == Role::Writing && matches!(frame.body, Body::Term(_)) {
            if !self.has(Rule::FencedByTerm) {
                return Ok(None);
            }
            held.role = Role::Following;
        }
        // It was staged behind what is here now: it never will be stored.
        held.doubt = None;
        let applied = self.apply(&mut held, &frame);
        applied.map(Some)
    }

    /// What is at the next slot. A replica of the journal may keep what the others lost, or hold damage: what
    /// does not fit is asked for again, of whoever orders the journal.
    fn next(&self, held: &Held, next: u64) -> Option<Slot> {
        match self.journal.read(next)? {
            Slot::Frame(frame) if frame.previous == held.chain() => Some(Slot::Frame(frame)),
            _ => self.journal.read_back(next),
        }
    }

    /// Whether its copy is a beginning of the journal. On each new connection it is looked at again: the
    /// frame at its last place must be there with the own chain.
    pub(super) fn is_joined(&self, held: &mut Held) -> bool {
        let now = self.journal.connection();
        if held.joined_on == Some(now) || !self.has(Rule::RejoinByChain) {
            return true;
        }
        if held.last_frame == 0 {
            held.joined_on = Some(now);
            return true;
        }
        match self.journal.read_back(held.last_frame) {
            Some(Slot::Frame(frame)) if frame.chain() == held.chain() => {
                held.joined_on = Some(now);
            }
            Some(Slot::Unreadable(problem)) => {
                self.cannot_read(held, held.last_frame, &problem);
            }
            Some(Slot::Gone) => {
                self.diverges(held, GONE);
            }
            Some(Slot::Frame(_) | Slot::Foreign) => {
                self.diverges(held, LOST);
            }
            None => {
                if let Some(end) = self.journal.end().filter(|end| *end < held.slot()) {
                    self.suspects_a_loss(held, end);
                }
            }
        }
        held.joined_on == Some(now)
    }

    /// The journal ends before the copy does, by the word of somebody who may be an old leader: a quorum
    /// is asked, by a commit without events behind that end.
    pub(super) fn suspects_a_loss(&self, held: &mut Held, end: u64) {
        if !self.has(Rule::LossIsProven) {
            return self.has_lost(held, end);
        }
        // What it goes on from must be there, and be the own.
        let mut slots = (1..=end).rev().map(|slot| self.journal.read_back(slot));
        let previous = match slots.find(|it| !matches!(it, Some(Slot::Foreign))) {
            Some(Some(Slot::Frame(frame))) if self.is_own(held, end, &frame) => frame.chain(),
            Some(Some(Slot::Frame(_))) => {
                self.diverges(held, LOST);
                return;
            }
            Some(_) => return,
            // There is nothing before it.
            None => FrameChain::default(),
        };
        let content = Content { previous, ..self.content(held, Body::Empty) };
        let proof = Arc::new(Frame::new(content));
        if let Published::Stored(_) = self.journal.publish(end, &proof) {
            self.has_lost(held, end);
        }
    }

    /// Whether a frame, the last up to a slot, is of the copy. Of slots before it was opened that is told by what the frame
    /// says, as far as the copy has it still.
    fn is_own(&self, held: &Held, slot: u64, frame: &Frame) -> bool {
        if let Some(own) = held.chains.at(slot) {
            return own == frame.chain();
        }
        match &frame.body {
            Body::Term(table) => {
                self.copy.bounds().generations.entries().starts_with(table.entries())
            }
            Body::Commit(commit) if commit.count > 0 => {
                let last = commit.first.plus(commit.count.into()).prev();
                match self.copy.tag_of(last) {
                    Ok(tag) => tag == commit.link.tag(),
                    Err(error) => matches!(error, StoreError::Trimmed { .. }),
                }
            }
            Body::Checkpoint(it) => {
                let known = self.copy.bounds().generations;
                known.entries().starts_with(it.generations.entries())
            }
            Body::Commit(_) | Body::Empty => true,
        }
    }

    fn has_lost(&self, held: &mut Held, end: u64) {
        if self.has(Rule::DivergedStops) {
            self.diverges(held, LOST);
            return;
        }
        // As if nothing was: the next frame goes behind what is there.
        held.chains.truncate(end);
        held.last_frame = held.last_frame.min(end);
        if self.has(Rule::LossIsProven) {
            held.pass();
        }
    }
}
