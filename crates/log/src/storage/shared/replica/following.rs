//! Following, and what is done where the journal lost something.

use std::sync::Arc;

use super::{Body, Followed, Frame, Held, Replica, Role, Rule, Slot, diverged};
use crate::storage::StoreError;
use crate::storage::shared::{FrameChain, Published};
use crate::width::to_usize;

impl Replica {
    /// Takes the next slot of the journal; `None` where there is none yet, or it cannot be read. Who
    /// writes looks whether another does.
    ///
    /// # Errors
    /// [`StoreError::Diverged`].
    pub fn follow(&self) -> Result<Option<Followed>, StoreError> {
        let mut held = self.held.lock();
        if held.role == Role::Diverged {
            return Err(diverged());
        }
        if !self.is_joined(&mut held) {
            return if held.role == Role::Diverged { Err(diverged()) } else { Ok(None) };
        }
        let frame = match self.journal.read(held.slot() + 1) {
            None => return Ok(None),
            Some(Slot::Foreign) => {
                held.pass();
                return Ok(Some(Followed::Nothing));
            }
            Some(Slot::Frame(frame)) => frame,
        };
        if held.doubt.as_ref().is_some_and(|it| it.nonce == frame.nonce) {
            // It is answered by `resolve`.
            return Ok(None);
        }
        if frame.previous != held.chain() && self.has(Rule::FramesJoin) {
            self.diverges(&mut held);
            return Err(diverged());
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
        match self.journal.read(held.last_frame) {
            Some(Slot::Frame(frame)) if frame.chain() == chain_at(held, held.last_frame) => {
                held.joined_on = Some(now);
            }
            Some(_) => self.diverges(held),
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
        let mut slots = (1..=end).rev().map(|slot| self.journal.read(slot));
        match slots.find(|it| !matches!(it, Some(Slot::Foreign))) {
            Some(Some(Slot::Frame(frame))) if frame.chain() != chain_at(held, end) => {
                return self.diverges(held);
            }
            Some(None) => return,
            _ => {}
        }
        let (nonce, body) = (held.nonces.draw(), Body::Empty);
        let (previous, term, writer) = (chain_at(held, end), held.term, self.name);
        let proof = Arc::new(Frame { previous, term, writer, nonce, body });
        if let Published::Stored(_) = self.journal.publish(end, &proof) {
            self.has_lost(held, end);
        }
    }

    fn has_lost(&self, held: &mut Held, end: u64) {
        if self.has(Rule::DivergedStops) {
            return self.diverges(held);
        }
        // As if nothing was: the next frame goes behind what is there.
        held.chains.truncate(to_usize(end));
        held.last_frame = held.last_frame.min(end);
        if self.has(Rule::LossIsProven) {
            held.pass();
        }
    }
}

fn chain_at(held: &Held, slot: u64) -> FrameChain {
    let at = to_usize(slot).checked_sub(1);
    at.and_then(|at| held.chains.get(at)).copied().unwrap_or_default()
}
