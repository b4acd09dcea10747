//! Carrying a segment elsewhere: its files as they are, proved on the way.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::database::Database;
use super::digest::hash_file;
use super::store::Store;
use super::{DB, FOOTER, Segment, dir, files};
use crate::chain::Hash;
use crate::storage::disk::Disk;
use crate::storage::{Damage, StoreError};

/// One read of a file that is copied.
const READ_BYTES: usize = 1 << 20;
/// Of a file that is copied so many bytes are handed over at once to be made durable.
const SYNC_BYTES: u64 = 8 << 20;

/// Hears how many bytes more are copied; ends the copying with an error of its own.
pub type Copied<'a> = &'a mut dyn FnMut(u64) -> io::Result<()>;

/// Gets a file of which more was written since it came last, and what it is called until the segment is whole; at
/// the latest when all of it is written. Whoever wants it durable syncs it.
pub type Written<'a> = &'a mut dyn FnMut(&Arc<File>, &Path) -> Result<(), StoreError>;

/// Opens a file of a segment by its name, as [`Part`] has it, wherever it is; with it comes what errors name.
pub type Opened<'a> =
    &'a mut dyn FnMut(&str) -> Result<(PathBuf, Box<dyn Read + Send>), StoreError>;

/// A file of a segment, as it is carried elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Within the segment's directory.
    pub name: String,
    /// Its bytes.
    pub len: u64,
    /// What they are.
    pub hash: Hash,
}

impl Segment {
    /// The hash of its footer, which has the hashes of all its other files: two segments that have it in
    /// common are the same, byte for byte.
    ///
    /// # Errors
    /// I/O.
    pub fn digest(&self) -> Result<Hash, StoreError> {
        let path = self.dir().join(FOOTER);
        Ok(self.disk.run("read", &path, || hash_file(&path))?.1)
    }

    /// Compares all its files with its footer.
    ///
    /// # Errors
    /// Damage, or I/O.
    pub fn check_files(&self) -> Result<(), StoreError> {
        files::compare(self)
    }

    /// Its files in the order in which they are carried: the footer comes last, and says what the others are.
    ///
    /// # Errors
    /// I/O.
    pub fn parts(&self) -> Result<Vec<Part>, StoreError> {
        let of_db = self.files.iter().map(|file| Part {
            name: format!("{DB}/{}", file.name),
            len: file.len,
            hash: file.hash,
        });
        let path = self.dir().join(FOOTER);
        let (len, hash) = self.disk.run("read", &path, || hash_file(&path))?;
        let footer = Part { name: FOOTER.to_owned(), len, hash };
        Ok(of_db.chain(std::iter::once(footer)).collect())
    }

    /// What it is called by within `segments/`.
    pub fn name(&self) -> String {
        dir::name(self.first(), self.revision())
    }

    /// Brings its files, which lie elsewhere, into `parent`, under `name`. What has that name then was
    /// compared with the footer as it was read. It is not durable: nothing may count on it before its files and
    /// directories are synced; `written` gets its files, so that they are synced while others are copied. What is cut is a
    /// `.tmp-` directory, which the next attempt replaces.
    ///
    /// # Errors
    /// Damage where the files are not what was sealed; I/O, and what `open`, `copied` and `written` answer.
    pub fn bring(
        &self,
        open: Opened<'_>,
        parent: &Path,
        name: &str,
        disk: &Disk,
        copied: Copied<'_>,
        written: Written<'_>,
    ) -> Result<Segment, StoreError> {
        self.bring_noting((open, parent, name), disk, copied, written, &mut |damage| {
            Err(damage.into())
        })
    }

    /// The same of one that may be damaged: `damaged` hears of each file that is missing or not what was sealed, and ends
    /// it with an error of its own, or lets it be put in as it is.
    ///
    /// # Errors
    /// I/O, and what `open`, `copied`, `written` and `damaged` answer.
    pub fn bring_noting(
        &self,
        (open, parent, name): (Opened<'_>, &Path, &str),
        disk: &Disk,
        copied: Copied<'_>,
        written: Written<'_>,
        damaged: &mut dyn FnMut(Damage) -> Result<(), StoreError>,
    ) -> Result<Segment, StoreError> {
        let tmp = parent.join(dir::tmp_name(self.first(), self.revision()));
        disk.remove_tree(&tmp)?;
        let db = tmp.join(DB);
        disk.create_dir(&db)?;
        for inner in Database::EMPTY_DIRS {
            disk.create_dir(&db.join(inner))?;
        }
        for part in self.parts()? {
            let (from, mut source) = match open(&part.name) {
                Err(StoreError::Damaged(damage)) => {
                    damaged(damage)?;
                    continue;
                }
                opened => opened?,
            };
            let to = tmp.join(&part.name);
            let found = copy_file(&mut source, (&from, &to), disk, copied, written)?;
            if found != (part.len, part.hash) {
                damaged(self.damage_of_all(&from, "its bytes are not what was sealed"))?;
            }
        }
        let target = parent.join(name);
        disk.remove_tree(&target)?;
        disk.rename(&tmp, &target)?;
        Segment::load(&target, disk)
    }
}

/// Writes what is read, and syncs it; answers length and hash.
///
/// # Errors
/// I/O, and what `copied` answers.
pub fn write_file(
    source: &mut dyn Read,
    from: &Path,
    to: &Path,
    disk: &Disk,
    copied: Copied<'_>,
) -> Result<(u64, Hash), StoreError> {
    copy_file(source, (from, to), disk, copied, &mut |file, path| disk.sync_data(file, path))
}

/// The same, where `written` syncs.
fn copy_file(
    source: &mut dyn Read,
    (from, to): (&Path, &Path),
    disk: &Disk,
    copied: Copied<'_>,
    written: Written<'_>,
) -> Result<(u64, Hash), StoreError> {
    disk.write_new(to, &[])?;
    let target = Arc::new(disk.open(to)?);
    let (mut hash, mut len, mut handed_over) = (Xxh3::new(), 0u64, 0);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = disk.run("read", from, || read_some(source, &mut buffer))?;
        let Some(part) = buffer.get(..n).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        disk.write_at(&target, to, &[part], len)?;
        len += n as u64;
        copied(n as u64).map_err(StoreError::io("copy", from))?;
        if len - handed_over >= SYNC_BYTES {
            written(&target, to)?;
            handed_over = len;
        }
    }
    written(&target, to)?;
    Ok((len, hash.digest128().to_be_bytes()))
}

/// One read, which a signal does not end; 0 at the end.
fn read_some(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
