//! Carrying a segment elsewhere: its files as they are, proved on the way.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::database::Database;
use super::digest::hash_file;
use super::store::Store;
use super::{DB, FOOTER, Segment, dir, files};
use crate::chain::Hash;
use crate::storage::StoreError;
use crate::storage::disk::Disk;

/// One read of a file that is copied.
const READ_BYTES: usize = 1 << 20;

/// Hears how many bytes more are copied; ends the copying with an error of its own.
pub type Copied<'a> = &'a mut dyn FnMut(u64) -> io::Result<()>;

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

    /// Whether its files are there, as long as its footer says. Nothing of them is read.
    pub fn has_its_files(&self) -> bool {
        let db = self.dir().join(DB);
        self.files.iter().all(|file| {
            let there = std::fs::symlink_metadata(db.join(&file.name));
            there.is_ok_and(|there| there.is_file() && there.len() == file.len)
        })
    }

    /// What it is called by within `segments/`.
    pub fn name(&self) -> String {
        dir::name(self.first(), self.revision())
    }

    /// Copies it into `parent`, under `name`. What has that name then was compared with the footer as it was
    /// read, and is synced; what is cut is a `.tmp-` directory, which the next attempt replaces.
    ///
    /// # Errors
    /// Damage where the files are not what was sealed; I/O, and what `copied` answers.
    pub fn copy_into(
        &self,
        parent: &Path,
        name: &str,
        disk: &Disk,
        copied: Copied<'_>,
    ) -> Result<Segment, StoreError> {
        let tmp = parent.join(dir::tmp_name(self.first(), self.revision()));
        disk.remove_tree(&tmp)?;
        let db = tmp.join(DB);
        disk.create_dir(&db)?;
        for inner in Database::EMPTY_DIRS {
            disk.create_dir(&db.join(inner))?;
        }
        for file in &self.files {
            let (from, to) = (self.dir().join(DB).join(&file.name), db.join(&file.name));
            if copy_file(&from, &to, disk, copied)? != (file.len, file.hash) {
                return Err(self.damage_of_all(&from, "its bytes are not what was sealed").into());
            }
        }
        let (from, to) = (self.dir().join(FOOTER), tmp.join(FOOTER));
        copy_file(&from, &to, disk, copied)?;
        // Its checksums are looked at, and that it is of this segment.
        let copy = Segment::load(&tmp, disk)?;
        if (copy.identity.log_id, copy.first(), copy.end(), copy.link())
            != (self.identity.log_id, self.first(), self.end(), self.link())
        {
            return Err(self.damage_of_all(&from, "its footer is that of another segment").into());
        }
        for inner in Database::EMPTY_DIRS {
            disk.sync_dir(&db.join(inner))?;
        }
        disk.sync_dir(&db)?;
        disk.sync_dir(&tmp)?;
        let target = parent.join(name);
        disk.remove_tree(&target)?;
        disk.rename(&tmp, &target)?;
        disk.sync_dir(parent)?;
        Segment::load(&target, disk)
    }
}

/// Copies a file and syncs the copy; answers length and hash of what was read.
///
/// # Errors
/// I/O, and what `copied` answers.
pub fn copy_file(
    from: &Path,
    to: &Path,
    disk: &Disk,
    copied: Copied<'_>,
) -> Result<(u64, Hash), StoreError> {
    let mut source = disk.open_read(from)?;
    disk.write_new(to, &[])?;
    let target = disk.open(to)?;
    let (mut hash, mut len) = (Xxh3::new(), 0u64);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = disk.run("read", from, || read_some(&mut source, &mut buffer))?;
        let Some(part) = buffer.get(..n).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        disk.write_at(&target, to, &[part], len)?;
        len += n as u64;
        copied(n as u64).map_err(StoreError::io("copy", from))?;
    }
    disk.sync_data(&target, to)?;
    Ok((len, hash.digest128().to_be_bytes()))
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
