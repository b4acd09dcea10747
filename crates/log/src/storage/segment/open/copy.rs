//! Copies of databases: opening a sled database writes to it, so what must not change, because it
//! is being examined or is damaged, is opened as a copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::StoreError;
use crate::storage::segment::database::Database;
use crate::storage::segment::dir::{self, list_files};
use crate::storage::segment::store::Store;
use crate::storage::segment::{DB, Segment};

/// A copied database directory, deleted with this, or by [`super::super::clean`] after a crash.
pub(super) struct Copy(PathBuf);

impl Copy {
    pub(super) fn of(segment: &Segment, scratch: &Path) -> Result<Copy, StoreError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = dir::tmp_name(segment.first(), segment.revision());
        let name = format!("{name}.copy-{}-{number}", std::process::id());
        let copy = Copy(scratch.join(name));
        segment.disk.remove_tree(&copy.0)?;
        segment.disk.create_dir(&copy.0)?;
        let source = segment.dir().join(DB);
        let files = match segment.disk.run("list", &source, || list_files(&source)) {
            Err(StoreError::Io { source: error, .. })
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                return Err(segment.damage_of_all(&source, "it is missing").into());
            }
            listed => listed?,
        };
        // sled would trip over a half-written snapshot.
        for (name, path) in files.into_iter().filter(|(name, _)| !Database::is_leftover(name)) {
            segment.disk.run("copy", &path, || fs::copy(&path, copy.0.join(name)))?;
        }
        Ok(copy)
    }
}

impl Copy {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Nothing but a copy in a scratch directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
