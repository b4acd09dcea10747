//! Why an append would be refused, told without one: a daemon that nobody is sent to gets no appends that
//! could show that it takes them again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::LocalEngine;
use crate::storage::journal::Failure;
use crate::storage::{Commit, StoreError};

/// What one small event needs at least.
const SMALL_COMMIT: u64 = 512;
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
        if let Err(error) = self.check_claim() {
            return Some(error);
        }
        // What is being written is not being refused.
        let mut journal = self.journal.try_lock_for(PATIENCE)?;
        let refused = self.work.refused_bytes.load(Ordering::Relaxed);
        let body = if refused == 0 { SMALL_COMMIT } else { refused };
        match journal.refusal(body)? {
            // As an append does before it gives up.
            Failure::NoSlot if self.free_retired(&mut journal) => None,
            Failure::NoSlot => self.sealing_trouble(),
            Failure::Refused(error) | Failure::Broken(error) => Some(error),
        }
    }

    /// Keeps what became of a commit: of those that were refused since one was stored, the smallest.
    pub(super) fn note_outcome(&self, commit: &Commit, is_stored: bool) {
        let refused = &self.work.refused_bytes;
        if is_stored {
            // A trim is stored where events are not.
            if commit.count > 0 {
                refused.store(0, Ordering::Relaxed);
            }
            return;
        }
        let bytes = (commit.events.len() + commit.delta.len()).max(1) as u64;
        let smaller = |before| (before == 0 || bytes < before).then_some(bytes);
        // There already, or another appended meanwhile, of which there is none.
        let _ = refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, smaller);
    }
}
