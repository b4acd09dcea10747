//! Comparing the files of segments with their footers as a whole, behind the readers' backs.
//!
//! Reads check what they read; rot in bytes that hold no block would not be told before the database
//! has to be opened. So a segment of which all blocks have been read is compared, once after a
//! start, by a thread that nobody waits for. An error of the operating system says nothing about
//! the segment: it is told for as long as it lasts, and tried again.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::files;
use super::open::DatabaseSlot;
use super::{Lease, Segment};
use crate::storage::error::chain;
use crate::storage::{Damage, StoreError};

/// Between two tries at a segment whose files could not be read.
const RETRY: Duration = Duration::from_secs(60);

/// Segments to compare, and those that could not be.
#[derive(Default)]
pub(super) struct Comparisons {
    due: Mutex<VecDeque<Due>>,
    /// Why, by directory.
    failed: Mutex<BTreeMap<PathBuf, String>>,
}

struct Due {
    database: Arc<DatabaseSlot>,
    segment: Arc<Segment>,
    not_before: Option<Instant>,
}

impl Comparisons {
    /// A segment is to be compared; each once.
    pub(super) fn add(&self, database: &Arc<DatabaseSlot>, segment: &Arc<Segment>) {
        let (database, segment) = (Arc::clone(database), Arc::clone(segment));
        self.due.lock().push_back(Due { database, segment, not_before: None });
    }

    /// Compares the next one whose time has come. What is wrong with it is noted while it cannot be
    /// discarded, which would forget the note.
    pub(super) fn next(&self, now: Instant, note: impl FnOnce(Damage)) {
        let Some((due, _lease)) = self.take(now) else { return };
        let segment = &due.segment;
        let mut compared = Ok(());
        // Opened in between it would be compared, too, and must not be at the same time.
        due.database.while_closed(|| compared = files::compare(segment));
        let dir = segment.dir().to_owned();
        match compared {
            Ok(()) => self.forget(&dir),
            Err(StoreError::Damaged(damage)) => {
                self.forget(&dir);
                note(damage);
            }
            Err(error) => {
                let why = format!("files cannot be compared, tried again: {}", chain(&error));
                if self.failed.lock().insert(dir, why.clone()).is_none() {
                    tracing::warn!(segment = %segment.dir().display(), "{why}");
                }
                self.due.lock().push_back(Due { not_before: Some(now + RETRY), ..due });
            }
        }
    }

    /// The next whose time has come. Those that were trimmed or folded since nobody reads any more.
    fn take(&self, now: Instant) -> Option<(Due, Lease)> {
        let mut due = self.due.lock();
        loop {
            let at = due.iter().position(|one| one.not_before.is_none_or(|at| at <= now))?;
            let one = due.remove(at)?;
            if let Some(lease) = one.segment.lease() {
                return Some((one, lease));
            }
        }
    }

    /// Why a segment could not be compared when it was last tried.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().values().next().cloned()
    }

    /// Nothing is to be told of a segment any more.
    pub(super) fn forget(&self, dir: &Path) {
        self.failed.lock().remove(dir);
    }
}
