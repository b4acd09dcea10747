//! The readiness probe: one look at the journal for all who ask whether appends would be refused.
//!
//! A look may hang with the disk. So it has the place to itself until it ends, also where nobody waits for it
//! any more, and it keeps one thread at most. Who waits too long is told so.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::AppendError;
use crate::storage::{Journal, StoreError};

/// How long what was seen holds.
const FRESH: Duration = Duration::from_secs(1);
/// For a look: a disk that does not answer in this time takes nothing either.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was seen last, which is locked while a look is under way.
#[derive(Debug, Default)]
pub(super) struct ReadinessProbe(Arc<Mutex<Option<Seen>>>);

#[derive(Debug)]
struct Seen {
    at: Instant,
    refusal: Option<AppendError>,
}

impl ReadinessProbe {
    /// What is to be seen now, or was within a second.
    pub(super) async fn refusal(&self, journal: &Arc<dyn Journal>) -> Option<AppendError> {
        let until = Instant::now() + PATIENCE;
        let Ok(mut last) = timeout_at(until, Arc::clone(&self.0).lock_owned()).await else {
            return Some(hanging());
        };
        if let Some(seen) = &*last
            && seen.at.elapsed() < FRESH
        {
            return seen.refusal.clone();
        }
        let journal = Arc::clone(journal);
        let probing = tokio::task::spawn_blocking(move || {
            let refusal = journal.refusal().map(refused);
            *last = Some(Seen { at: Instant::now(), refusal: refusal.clone() });
            refusal
        });
        match timeout(PATIENCE, probing).await {
            // An end of the runtime ends the question.
            Ok(refusal) => refusal.ok().flatten(),
            Err(_) => Some(hanging()),
        }
    }
}

fn hanging() -> AppendError {
    AppendError::Busy(Arc::new(StoreError::Hanging { seconds: PATIENCE.as_secs() }))
}

fn refused(error: StoreError) -> AppendError {
    match error {
        full @ StoreError::DiskFull { .. } => AppendError::DiskFull(Arc::new(full)),
        busy @ (StoreError::Busy { .. }
        | StoreError::Displaced { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Hanging { .. }) => AppendError::Busy(Arc::new(busy)),
        StoreError::Stopped { reason } => AppendError::Stopped(reason),
        fenced @ StoreError::Fenced { .. } => AppendError::NotWriter(fenced.to_string()),
        StoreError::Diverged { detail } => AppendError::Diverged(detail),
        other => AppendError::Refused(Arc::new(other)),
    }
}
