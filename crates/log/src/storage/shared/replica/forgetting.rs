//! Checkpoints, and giving back the journal's space.
//!
//! A journal of which the beginning is gone begins with a checkpoint: what the log is there, but for its events. So
//! whoever has nothing begins with that, and follows. A writer that forgets takes care of two things: that no event which
//! anybody may need was before the checkpoint, and that all that is there is at least what a daemon needs that has
//! nothing. Daemons that were away and are not yet at the checkpoint find that the journal begins behind their copy:
//! theirs are made anew.

use std::sync::Arc;

use super::{Body, Replica, writing::may_write};
use crate::storage::StoreError;
use crate::storage::shared::Checkpoint;
use tailmark_record::Seq;

impl Replica {
    /// Writes what the log is now, without its events, at the end of the journal; answers the slot of it. It takes as
    /// many bytes as the log's whole state.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where the state is larger than a commit may be; as an append.
    pub fn checkpoint(&self) -> Result<u64, StoreError> {
        let mut held = self.hold();
        may_write(&held)?;
        let recovered = self.recovered()?;
        let state = (self.state_of)(&recovered)?;
        if state.len() > self.journal.identity().max_commit_bytes {
            return Err(StoreError::Invalid("the state of the log is too large for a checkpoint"));
        }
        let (bounds, links) = (self.copy.bounds(), self.copy.links());
        let checkpoint = Checkpoint {
            next: bounds.next(),
            link: links.head,
            oldest: bounds.oldest,
            oldest_tag: links.oldest_tag,
            last_at: held.last_at,
            generations: bounds.generations,
            state,
        };
        self.put(&mut held, Body::Checkpoint(Arc::new(checkpoint)))?;
        Ok(held.slot())
    }

    /// Gives back the journal's space before the newest checkpoint that no event from `needed` on lies before, and
    /// answers the slot that the journal begins with then; `None` where this replica came by no such checkpoint. What is
    /// needed is what can be read, and what tells repeats ([`crate::eventlog::needed_from`]). Only who writes calls it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another writes; [`StoreError::Busy`] where the journal does not answer.
    pub fn forget(&self, needed: Seq) -> Result<Option<u64>, StoreError> {
        let mut held = self.hold();
        may_write(&held)?;
        let needed = needed.min(self.copy.bounds().oldest);
        let is_before = |it: &&(u64, Seq)| it.1 <= needed;
        let Some((slot, _)) = held.checkpoints.iter().rev().find(is_before).copied() else {
            return Ok(None);
        };
        // A writer that was relieved must not; and what is known to be stored is known of this connection.
        if !self.is_joined(&mut held) {
            return Err(StoreError::Busy { reason: "the journal does not answer".to_owned() });
        }
        self.journal.forget(slot, held.slot())?;
        held.checkpoints.retain(|it| it.0 > slot);
        Ok(Some(slot))
    }
}
