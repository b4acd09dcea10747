//! The files of a segment's database, held against its footer.
//!
//! Writes nothing and deletes nothing: it looks at directories that are somebody else's.

use std::io;
use std::path::Path;

use super::database::Database;
use super::digest::{hash_file, hash_windows};
use super::dir::list_files;
use super::direct::{Locator, Places};
use super::index::Index;
use super::store::Store;
use super::{DB, Segment};
use crate::storage::StoreError;

/// Compares the files of a segment's database with its footer, and finds where its blocks lie in
/// them; `None` where that is not known of every block.
pub(super) fn locate(index: &Index) -> Result<Option<Places>, StoreError> {
    let mut locator = Locator::new(&index.rows);
    check_files(&index.segment, &index.segment.dir().join(DB), Some(&mut locator))?;
    Ok(locator.finish())
}

/// Compares the files of a segment's database with its footer.
pub(super) fn compare(segment: &Segment) -> Result<(), StoreError> {
    check_files(segment, &segment.dir().join(DB), None)
}

/// Compares the files of a database with the footer. Shows the bytes of its values on the way.
/// Writes nothing, deletes nothing: it looks at directories that are somebody else's.
pub(super) fn check_files(
    segment: &Segment,
    db_dir: &Path,
    mut locator: Option<&mut Locator<'_>>,
) -> Result<(), StoreError> {
    let gone = |path: &Path, error: StoreError| match &error {
        StoreError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            segment.damage_of_all(path, "it is missing").into()
        }
        _ => error,
    };
    let there = segment
        .disk
        .run("list", db_dir, || list_files(db_dir))
        .map_err(|error| gone(db_dir, error))?;
    for (name, path) in there.iter().filter(|(name, _)| !Database::is_leftover(name)) {
        if !segment.files.iter().any(|file| file.name == *name) {
            let detail = "it was not there when the segment was sealed";
            return Err(segment.damage_of_all(path, detail).into());
        }
    }
    for file in &segment.files {
        let path = db_dir.join(&file.name);
        let hashed = segment.disk.run("read", &path, || match &mut locator {
            Some(locator) if file.name == Database::VALUES_FILE => {
                hash_windows(&path, Locator::OVERLAP, |at, window| locator.see(at, window))
            }
            _ => hash_file(&path),
        });
        let (len, hash) = hashed.map_err(|error| gone(&path, error))?;
        if (len, hash) != (file.len, file.hash) {
            return Err(segment.damage_of_all(&path, "its bytes are not what was sealed").into());
        }
    }
    Ok(())
}
