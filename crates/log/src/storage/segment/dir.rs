//! Directories of segments: names, moving away, deleting.

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::StoreError;
use crate::storage::disk::Disk;
use tailmark_record::Seq;

/// What is known of a segment without opening its database.
pub(super) const FOOTER: &str = "footer";
/// The directory of its database.
pub(super) const DB: &str = "db";

const TMP: &str = ".tmp-";
const TRASH: &str = "trash-";

/// `<first seq, 20 digits>-<revision>`.
pub(super) fn name(first: Seq, revision: u32) -> String {
    format!("{:020}-{revision}", first.get())
}

/// The name of the directory in which that segment is built.
pub(super) fn tmp_name(first: Seq, revision: u32) -> String {
    format!("{TMP}{}", name(first, revision))
}

/// What a segment's directory is called by; `None` for any other name.
pub fn parse_name(dir: &Path) -> Option<(Seq, u32)> {
    let text = dir.file_name()?.to_str()?;
    let (first, revision) = text.split_once('-')?;
    let parsed = (Seq::new(first.parse().ok()?), revision.parse().ok()?);
    (name(parsed.0, parsed.1) == text).then_some(parsed)
}

/// Whether a directory is being built, or was moved away.
pub(super) fn is_passing(name: &str) -> bool {
    name.starts_with(TMP) || name.starts_with(TRASH)
}

/// Moves a segment's directory away for good: after this it is never read again, not even after a
/// power loss. Answers where it is now, for [`delete`]. The caller makes sure that nobody reads it
/// ([`super::Cache::discard`] does).
///
/// # Errors
/// I/O.
pub fn trash(dir: &Path, disk: &Disk) -> Result<PathBuf, StoreError> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(StoreError::Invalid("a segment's directory has a parent and a name"));
    };
    let mut attempt = 0u32;
    let target = loop {
        let target = parent.join(format!("{TRASH}{}.{attempt}", name.to_string_lossy()));
        if !target.exists() {
            break target;
        }
        attempt += 1;
    };
    disk.rename(dir, &target)?;
    disk.sync_dir(parent)?;
    Ok(target)
}

/// Deletes what [`trash`] moved away.
///
/// # Errors
/// I/O; [`clean`] deletes it at the next start.
pub fn delete(trashed: &Path, disk: &Disk) -> Result<(), StoreError> {
    disk.remove_tree(trashed)
}

/// Deletes what was half built or half deleted at a crash; answers how many directories.
///
/// # Errors
/// I/O.
pub fn clean(parent: &Path, disk: &Disk) -> Result<usize, StoreError> {
    clean_but(parent, disk, |_| false)
}

/// The same, but for names that are kept.
///
/// # Errors
/// I/O.
pub fn clean_but(
    parent: &Path,
    disk: &Disk,
    keep: impl Fn(&str) -> bool,
) -> Result<usize, StoreError> {
    let mut removed = 0;
    for path in disk.list(parent)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_passing(&name) && !keep(&name) {
            disk.remove_tree(&path)?;
            removed += 1;
        }
    }
    if removed > 0 {
        disk.sync_dir(parent)?;
    }
    Ok(removed)
}

/// The directories in `parent` that have a segment's name, in order.
///
/// # Errors
/// I/O.
pub fn names(parent: &Path, disk: &Disk) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = disk.list(parent)?;
    paths.retain(|path| parse_name(path).is_some());
    Ok(paths)
}

/// The files of a database by name, in order. Directories, sled's `blobs`, are left out.
pub(super) fn list_files(db_dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(db_dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// The revision in the name of a segment's directory.
pub fn revision_of(dir: &Path) -> u32 {
    parse_name(dir).map_or(0, |(_, revision)| revision)
}
