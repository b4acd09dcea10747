//! Files of a log that others may read are closed to them when it is opened.
//!
//! What older versions made, and what a copy brought, has the modes of a umask, and slots are used
//! again for ever. Only files that are ours, by their names; directories keep what they have.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::trimmed::TRIMMED_DIR;
use super::{JOURNAL_DIR, LOCK_FILE, QUARANTINE_DIR, SEGMENTS_DIR};
use crate::storage::disk::make_private;
use crate::storage::journal::{TIP_FILE, is_slot_name};
use crate::storage::meta::META_FILE;

/// Below `segments/`: a segment, its database, and what that has below it.
const DEPTH: usize = 3;

/// Called by who has the claim. What fails is said and harms nothing else.
pub(super) fn close_to_others(dir: &Path) {
    let mut files = vec![dir.join(LOCK_FILE), dir.join(META_FILE)];
    files.push(dir.join(JOURNAL_DIR).join(TIP_FILE));
    let slots = entries(&dir.join(JOURNAL_DIR));
    files.extend(slots.into_iter().filter(|path| is_slot_name(path)));
    files.extend([QUARANTINE_DIR, TRIMMED_DIR].iter().flat_map(|name| entries(&dir.join(name))));
    add_below(&dir.join(SEGMENTS_DIR), DEPTH, &mut files);
    let mut closed = 0;
    for path in files.iter().filter(|path| is_open(path)) {
        match make_private(path) {
            Ok(()) => closed += 1,
            Err(error) => tracing::warn!(
                path = %path.display(), %error, "others may read this file, and it cannot be changed"
            ),
        }
    }
    if closed > 0 {
        tracing::info!(dir = %dir.display(), files = closed, "files that others could read are closed to them");
    }
}

fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o077 != 0)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(dir).into_iter().flatten();
    read.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}

fn add_below(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for path in entries(dir) {
        if depth > 0 && path.is_dir() && !path.is_symlink() {
            add_below(&path, depth - 1, files);
        } else {
            files.push(path);
        }
    }
}
