//! Why an append would be refused, told without one: a daemon that nobody is sent to gets no appends that
//! could show that it takes them again.

use std::time::{Duration, Instant};

use super::LocalEngine;
use crate::storage::StoreError;
use crate::storage::journal::Failure;

/// What a small event needs. Never what a client was refused last: whoever sends what is too large for the
/// room that is left would have everyone turned away.
const SMALL_COMMIT: u64 = 4 << 10;
/// For a commit under way, which holds the journal while it is synced.
const PATIENCE: Duration = Duration::from_millis(50);
/// A commit that is under way for longer is not being written: the disk does not answer.
const LONGEST_COMMIT: Duration = Duration::from_secs(10);

impl LocalEngine {
    /// As of `now`.
    pub(super) fn refusal_at(&self, now: Instant) -> Option<StoreError> {
        if self.work.is_closing() {
            return Some(StoreError::Stopped { reason: "closed".to_owned() });
        }
        if let Some(reason) = self.work.broken.lock().clone() {
            return Some(StoreError::Stopped { reason });
        }
        // Before any look at a disk that may hang.
        let begun = *self.work.commit_begun.lock();
        let under_way = begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        if under_way >= LONGEST_COMMIT {
            return Some(StoreError::Hanging { seconds: under_way.as_secs() });
        }
        if let Err(error) = self.check_claim().and_then(|()| self.check_parts()) {
            return Some(error);
        }
        // What is being written is not being refused.
        let mut journal = self.journal.try_lock_for(PATIENCE)?;
        match journal.refusal(SMALL_COMMIT)? {
            // As an append does before it gives up.
            Failure::NoSlot if self.free_retired(&mut journal) => None,
            Failure::NoSlot => self.sealing_trouble(),
            Failure::Refused(error) | Failure::Broken(error) => Some(error),
        }
    }
}
