//! Directories of segments: names, syncing, moving away, and what is there at start.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Segment;
use crate::storage::disk::Disk;
use crate::storage::{Damage, StoreError};
use tailmark_record::Seq;

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
pub(super) fn parse_name(dir: &Path) -> Option<(Seq, u32)> {
    let text = dir.file_name()?.to_str()?;
    let (first, revision) = text.split_once('-')?;
    let parsed = (Seq::new(first.parse().ok()?), revision.parse().ok()?);
    (name(parsed.0, parsed.1) == text).then_some(parsed)
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
    let mut removed = 0;
    for path in disk.list(parent)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(TMP) || name.starts_with(TRASH) {
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

/// What lies in a directory of segments.
#[derive(Debug, Default)]
pub struct Scan {
    /// The segments to read from, in order, none overlapping another.
    pub segments: Vec<Arc<Segment>>,
    /// Segments whose events are all in one of a higher revision; may be moved away.
    pub superseded: Vec<Arc<Segment>>,
    /// Segments that overlap another without either covering the other: never happens by itself.
    pub overlapping: Vec<Arc<Segment>>,
    /// Footers that cannot be read.
    pub damaged: Vec<Damage>,
    /// Ranges `from..end` between neighbours that no segment holds.
    pub holes: Vec<(Seq, Seq)>,
    /// Names that mean nothing here.
    pub unknown: Vec<PathBuf>,
}

/// Reads the footers of all segments in `parent`. Where two hold the same events, the highest valid
/// revision wins.
///
/// # Errors
/// I/O, and [`StoreError::Format`] when another version wrote one. A damaged footer is reported in
/// the answer.
pub fn scan(parent: &Path, disk: &Disk) -> Result<Scan, StoreError> {
    let mut scan = Scan::default();
    let mut found = Vec::new();
    for path in disk.list(parent)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(TMP) || name.starts_with(TRASH) {
            continue;
        }
        if parse_name(&path).is_none() {
            scan.unknown.push(path);
            continue;
        }
        match Segment::load(&path, disk) {
            Ok(segment) => found.push(Arc::new(segment)),
            // Trimmed or folded into another since it was listed.
            Err(_) if !path.exists() => {}
            Err(StoreError::Damaged(damage)) => scan.damaged.push(damage),
            Err(other) => return Err(other),
        }
    }
    // Newest first, and of equal revisions the longer, so that what covers comes before what it
    // covers.
    found.sort_by_key(|s| {
        (std::cmp::Reverse((s.revision(), s.first().distance_to(s.end()))), s.first())
    });
    let mut kept: BTreeMap<Seq, Arc<Segment>> = BTreeMap::new();
    for segment in found {
        // Those kept do not overlap each other: if one covers it, no other overlaps it.
        let before_its_end = kept.range(..segment.end()).next_back().map(|(_, other)| other);
        match before_its_end.filter(|other| other.end() > segment.first()) {
            None => {
                kept.insert(segment.first(), segment);
            }
            Some(other) if other.first() <= segment.first() && segment.end() <= other.end() => {
                scan.superseded.push(segment);
            }
            Some(_) => scan.overlapping.push(segment),
        }
    }
    scan.segments = kept.into_values().collect();
    scan.holes = scan
        .segments
        .windows(2)
        .filter(|pair| pair[0].end() < pair[1].first())
        .map(|pair| (pair[0].end(), pair[1].first()))
        .collect();
    Ok(scan)
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
