//! One look at the engine for all who ask whether appends would be refused.
//!
//! A look may hang with the disk. So it has the place to itself until it ends, also where nobody waits for it
//! any more, and it keeps one thread at most. Who waits too long is told so.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::AppendError;
use crate::storage::{Engine, StoreError};

/// How long what was seen holds.
const FRESH: Duration = Duration::from_secs(1);
/// For a look: a disk that does not answer in this time takes nothing either.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last look, which is locked while another is under way.
#[derive(Debug, Default)]
pub(super) struct Looking(Arc<Mutex<Option<Look>>>);

#[derive(Debug)]
struct Look {
    at: Instant,
    seen: Option<AppendError>,
}

impl Looking {
    /// What is to be seen now, or was within a second.
    pub(super) async fn look(&self, engine: &Arc<dyn Engine>) -> Option<AppendError> {
        let until = Instant::now() + PATIENCE;
        let Ok(mut last) = timeout_at(until, Arc::clone(&self.0).lock_owned()).await else {
            return Some(hanging());
        };
        if let Some(look) = &*last
            && look.at.elapsed() < FRESH
        {
            return look.seen.clone();
        }
        let engine = Arc::clone(engine);
        let looking = tokio::task::spawn_blocking(move || {
            let seen = engine.refusal().map(refused);
            *last = Some(Look { at: Instant::now(), seen: seen.clone() });
            seen
        });
        match timeout(PATIENCE, looking).await {
            // An end of the runtime ends the question.
            Ok(seen) => seen.ok().flatten(),
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
        | StoreError::Hanging { .. }) => AppendError::Busy(Arc::new(busy)),
        StoreError::Stopped { reason } => AppendError::Stopped(reason),
        other => AppendError::Refused(Arc::new(other)),
    }
}
