//! A log that another daemon writes: its head is moved by who follows the shared journal.
//!
//! An event log is of one term. Where another takes over, or this daemon does, it is closed and
//! opened anew over the same copy: its watches go on by their cursors, as after any restart, and the
//! writer begins with what the copy recovers, as after any restart.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::core::Core;
use super::elsewhere::Elsewhere;
use super::log::{EventLog, Shared};
use super::producers::Producers;
use super::state::{Delta, LogState};
use super::{Options, open, recent};
use crate::storage::{Commit, Engine, Recovered, Store, StoreError};
use tailmark_record::Seq;

/// Moves the head of a log that is followed.
pub struct Following {
    core: Arc<Core>,
}

impl EventLog {
    /// Opens a log that is written elsewhere, over a copy that is kept up to date. Appends to it are
    /// refused as [`super::AppendError::NotWriter`].
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn follow(
        engine: Arc<dyn Engine>,
        recovered: &Recovered,
        options: &Options,
    ) -> Result<(EventLog, Following), StoreError> {
        Self::follow_with(engine, recovered, options, None)
    }

    /// The same, and what is appended to it goes to who writes it. Needs a tokio runtime for that.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn follow_with(
        engine: Arc<dyn Engine>,
        recovered: &Recovered,
        options: &Options,
        elsewhere: Option<Arc<dyn Elsewhere>>,
    ) -> Result<(EventLog, Following), StoreError> {
        let (core, threads) = open::follow(engine, recovered.last_at, options, elsewhere)?;
        let following = Following { core: Arc::clone(&core) };
        let shared = Shared { core, threads: Mutex::new(Some(threads)) };
        Ok((EventLog { shared: Arc::new(shared) }, following))
    }
}

impl Following {
    /// The store has a commit that is durable in the journal: readers see it.
    pub fn applied(&self, commit: &Commit) {
        let (first, at, tag) = (commit.first, commit.appended_at, commit.link.tag());
        let end = first.plus(commit.count.into());
        let reads = &self.core.reads;
        if commit.count > 0 {
            let events = commit.events.clone();
            reads.hot.recent.push(recent::Commit { first, end, at, tag, events });
        }
        reads.publish((end.prev(), at, tag), (commit.oldest, commit.oldest_tag));
        reads.interest.poke();
    }
}

/// The whole state that follows from what a copy was given: its newest whole state, and the deltas
/// after it.
///
/// # Errors
/// When they cannot be read.
pub fn whole_state(
    recovered: &Recovered,
    options: &Options,
    max_commit_bytes: usize,
) -> Result<Bytes, StoreError> {
    let (state, producers) = recover(recovered, options, max_commit_bytes)?;
    Ok(state.encode(&producers)?.into())
}

/// The same as a change: a copy that is given it has that state, whatever it had.
///
/// # Errors
/// As [`whole_state`].
pub fn restated(
    recovered: &Recovered,
    options: &Options,
    max_commit_bytes: usize,
) -> Result<Bytes, StoreError> {
    let (state, producers) = recover(recovered, options, max_commit_bytes)?;
    Ok(Delta::restate(&state, &producers, recovered.last_at)?.into())
}

fn recover(
    recovered: &Recovered,
    options: &Options,
    max_commit_bytes: usize,
) -> Result<(LogState, Producers), StoreError> {
    let (most, idle) = (options.producers, options.producer_idle);
    let mut producers = Producers::new(most, idle, max_commit_bytes / 2, recovered.last_at);
    let state = LogState::recover(recovered, &mut producers)?;
    Ok((state, producers))
}

/// The first seq that an empty daemon must find in a shared journal, so that it is what the others are: of what can be
/// read, and of the newest `window` events that their senders named, by which repeats are told
/// ([`Options::dedup_window`]). Reads back over those; blocking.
///
/// # Errors
/// As [`Store::fingerprints`].
pub fn needed_from(store: &dyn Store, window: usize) -> Result<Seq, StoreError> {
    let (mut from, mut left) = (store.bounds().oldest, window);
    store.fingerprints(Seq::FIRST, &mut |seq, _| {
        if left > 0 {
            from = from.min(seq);
        }
        left = left.saturating_sub(1);
        left > 0
    })?;
    Ok(from)
}
