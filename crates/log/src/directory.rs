//! A log in a directory of this machine, for a program that has no other engine to choose.

use std::path::Path;

use crate::eventlog::{EventLog, Options};
use crate::storage::{StoreError, local};

/// Opens the log in `dir`, or creates one there; blocks while it recovers. The directory is locked
/// for as long as the log is open, and has a format of its own: nothing else may write to it.
///
/// Of `disk`, [`DiskOptions::kept_fingerprints`](local::Options::kept_fingerprints) is set to the
/// window of repeats, so that a repeat is known as such over a restart as well.
///
/// # Errors
/// Locked, of another format, damaged, or I/O; see [`StoreError`].
pub fn open(
    dir: impl AsRef<Path>,
    disk: local::Options,
    options: Options,
) -> Result<EventLog, StoreError> {
    let disk = local::Options { kept_fingerprints: options.dedup_window, ..disk };
    let (engine, recovered) = local::open(dir.as_ref(), disk)?;
    EventLog::open(engine, recovered, options)
}
