//! What makes a journal that of a copy: generations begin while it is open, and what it would recover is asked of it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Failure, Slot, SlotJournal};
use crate::storage::error::chain;
use crate::storage::{Commit, Recovered};
use tailmark_record::Generation;

impl SlotJournal {
    /// Events are of another generation from the next frame on, by `meta`: it is in the head of a new slot, which is
    /// written with that frame, so that both are durable or neither. Answers the slot that ends here.
    ///
    /// # Errors
    /// See [`Failure`]; without [`Failure::Broken`] all is as it was.
    pub fn begin_generation(
        &mut self,
        meta: Vec<u8>,
        generation: Generation,
    ) -> Result<Arc<Slot>, Failure> {
        self.refusal_if_broken()?;
        if !self.slots.can_take() {
            return Err(Failure::NoSlot);
        }
        if !self.is_begun() {
            // The next slot names this one as the one before it.
            let begun = self.rewrite(&[]);
            if let Err(Failure::Broken(error)) = &begun {
                self.broken = Some(chain(error));
            }
            begun?;
        }
        let before = (std::mem::replace(&mut self.origin.meta, meta), self.origin.generation);
        self.origin.generation = generation;
        let rolled = self.check_room(None, 0).and_then(|()| self.roll(None));
        if rolled.is_err() {
            (self.origin.meta, self.origin.generation) = before;
        }
        rolled
    }

    /// What opening it would give back.
    pub fn recovered(&self) -> Recovered {
        let deltas = self.origin.deltas.iter();
        Recovered {
            state: Bytes::from(self.origin.snapshot.clone()),
            deltas: deltas
                .map(|(first, end, delta)| (*first, *end, Bytes::from(delta.clone())))
                .collect(),
            last_at: self.origin.last_at,
        }
    }

    /// Why a commit could not be taken now, whatever the disk says to it.
    ///
    /// # Errors
    /// As [`SlotJournal::append`], but for [`Failure::Broken`].
    pub fn would_take(&self, commit: &Commit) -> Result<(), Failure> {
        self.check(commit)?;
        let body = (commit.events.len() + commit.delta.len()) as u64;
        self.refusal(body).map_or(Ok(()), Err)
    }
}
