//! Where a migration that was cut has left a log.
//!
//! Knows the names beside a data directory, for whoever migrates it and whoever opens it.

use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::followed;

/// Refuses a directory that is away because a migration was cut while it was swapped: what is
/// missing there is not gone.
///
/// # Errors
/// [`StoreError::Unfinished`].
pub(crate) fn refuse_unfinished(dir: &Path) -> Result<(), StoreError> {
    // A link stays when what it names is away.
    let workspace = workspace_of(&followed(dir).unwrap_or_else(|_| dir.to_owned()));
    if !dir.exists() && workspace.join(READY).exists() {
        return Err(StoreError::Unfinished { path: dir.to_owned(), workspace });
    }
    Ok(())
}

pub(super) const READY: &str = "ready";
pub(super) const OLD: &str = "old";

pub(super) fn workspace_of(dir: &Path) -> PathBuf {
    beside(dir, ".migrating")
}

pub(super) fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}
