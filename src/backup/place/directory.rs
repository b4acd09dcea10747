//! A directory: a file has its name when it is whole and synced.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Listed, Making, Place, failed};
use tailmark_log::storage::StoreError;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::piece_size::PieceSize;
use tailmark_log::storage::syncer::Growing;

/// What a file is called by until then.
const UNFINISHED: &str = "new";
/// What a file system has in it from the beginning.
const NOBODYS: &str = "lost+found";

/// A directory.
#[derive(Debug)]
pub(super) struct Directory {
    dir: PathBuf,
    disk: Disk,
    /// Keeps others away that write here.
    lock: Option<File>,
    size: Arc<PieceSize>,
    /// Directories of which the names are durable, so that what is put there is.
    made: Mutex<HashSet<PathBuf>>,
}

impl Directory {
    pub(super) fn open(dir: &Path) -> Directory {
        Directory::on(dir, Disk::real())
    }

    fn on(dir: &Path, disk: Disk) -> Directory {
        let (size, made) = (Arc::default(), Mutex::default());
        Directory { dir: dir.to_owned(), disk, lock: None, size, made }
    }

    /// Makes it if it is not there; its name is durable then.
    pub(super) fn for_writing(dir: &Path) -> Result<Directory, StoreError> {
        Directory::made_on(dir, Disk::real())
    }

    fn made_on(dir: &Path, disk: Disk) -> Result<Directory, StoreError> {
        disk.create_dir(dir)?;
        // Of another run that was cut, too.
        disk.sync_names(dir)?;
        Ok(Directory::on(dir, disk))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The directory in which a file is to lie, with all above it.
    fn make_room(&self, path: &Path) -> Result<(), StoreError> {
        let is_known = |parent: &&Path| *parent == self.dir || self.made.lock().contains(*parent);
        let Some(parent) = path.parent().filter(|parent| !is_known(parent)) else {
            return Ok(());
        };
        self.make_room(parent)?;
        self.disk.create_dir(parent)?;
        // Also where it is there: whoever made it may have been killed before this.
        self.disk.sync_dir(parent.parent().unwrap_or(Path::new(".")))?;
        self.made.lock().insert(parent.to_owned());
        Ok(())
    }

    fn list_below(&self, folder: &str, all: &mut Vec<Listed>) -> Result<(), StoreError> {
        let path = self.path(folder);
        let entries = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed("list", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", &path))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{folder}/{name}");
            let facts = match entry.metadata() {
                // Somebody tidies up.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                facts => facts.map_err(failed("examine", &entry.path()))?,
            };
            if facts.is_dir() {
                self.list_below(&name, all)?;
            } else {
                all.push(Listed { name, len: facts.len(), written_at: None });
            }
        }
        Ok(())
    }
}

impl Place for Directory {
    fn shown(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.path(name) }
    }

    fn local(&self, name: &str) -> Option<PathBuf> {
        Some(self.path(name))
    }

    fn is_blank(&self) -> Result<bool, StoreError> {
        // What was cut while the first file was written is nothing.
        let is_nothing = |path: &PathBuf| {
            path.ends_with(NOBODYS) || path.extension().is_some_and(|it| it == UNFINISHED)
        };
        Ok(self.disk.list(&self.dir)?.iter().all(is_nothing))
    }

    fn claim(&mut self, mark: &str) -> Result<(), StoreError> {
        let path = self.path(mark);
        let lock = self.disk.open(&path)?;
        if !self.disk.lock(&lock, &path)? {
            return Err(StoreError::Locked { path: self.dir.clone(), owner: None });
        }
        self.lock = Some(lock);
        Ok(())
    }

    fn is_claimed(&self, mark: &str) -> Result<bool, StoreError> {
        let Some(lock) = &self.lock else { return Ok(true) };
        let path = self.path(mark);
        let held = lock.metadata().map_err(failed("examine", &path))?;
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            there => {
                let there = there.map_err(failed("examine", &path))?;
                Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
            }
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let mut all = Vec::new();
        self.list_below(folder, &mut all)?;
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(self.disk.open_read(&self.path(name))?))
    }

    fn create(&self, name: &str) -> Result<Box<dyn Making>, StoreError> {
        let path = self.path(name);
        self.make_room(&path)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".");
        beside.push(UNFINISHED);
        let beside = PathBuf::from(beside);
        self.disk.write_new(&beside, &[])?;
        let file = self.disk.open(&beside)?;
        let (disk, shown) = (self.disk.clone(), beside.clone());
        let file = Growing::new(Arc::new(file), shown, &disk, &self.size);
        Ok(Box::new(FileMade { file, beside, path, disk }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let path = self.path(name);
        if path.exists() {
            return Ok(false);
        }
        self.make_room(&path)?;
        self.disk.replace(&path, bytes)?;
        Ok(true)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.disk.remove_file(&self.path(name))
    }

    fn remove_folder(&self, folder: &str) -> Result<(), StoreError> {
        let path = self.path(folder);
        self.made.lock().retain(|made| !made.starts_with(&path));
        self.disk.remove_tree(&path)
    }

    fn settle(&self, folder: &str) -> Result<(), StoreError> {
        match self.path(folder) {
            path if path.is_dir() => self.disk.sync_dir(&path),
            _ => Ok(()),
        }
    }
}

struct FileMade {
    file: Growing,
    beside: PathBuf,
    path: PathBuf,
    disk: Disk,
}

impl Write for FileMade {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.file().write(bytes)?;
        self.file.wrote(written)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Making for FileMade {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.file.finish()?;
        self.disk.rename(&self.beside, &self.path)?;
        self.disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tailmark_log::storage::disk::Faults;
    use tailmark_log::storage::piece_size::LEAST_BYTES;

    use super::*;

    const PARTS: u8 = 9;

    fn make(dir: &Path, disk: &Disk) -> Result<(), StoreError> {
        let place = Directory::on(dir, disk.clone());
        let mut made = place.create("segments/a/db")?;
        for part in 0..PARTS {
            let bytes = vec![part; LEAST_BYTES];
            made.write_all(&bytes).map_err(failed("write", dir))?;
        }
        made.finish()
    }

    fn expect_whole(dir: &Path) {
        let bytes = std::fs::read(dir.join("segments/a/db")).unwrap();
        let parts: Vec<_> = bytes.chunks(LEAST_BYTES).map(|part| (part[0], part.len())).collect();
        let wanted: Vec<_> = (0..PARTS).map(|part| (part, LEAST_BYTES)).collect();
        assert_eq!(parts, wanted);
    }

    #[test]
    fn a_large_file_is_synced_as_it_grows_and_has_its_name_when_all_of_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&seen);
        let watcher = move |action, path: &Path| {
            let len = std::fs::metadata(path).map_or(0, |it| it.len());
            sees.lock().unwrap().push((action, len));
        };
        make(dir.path(), &Disk::watched(Arc::new(watcher))).unwrap();
        expect_whole(dir.path());
        let seen = seen.lock().unwrap();
        let at = seen.iter().position(|(action, _)| *action == "rename").unwrap();
        let whole = (usize::from(PARTS) * LEAST_BYTES) as u64;
        let syncs = seen[..at]
            .iter()
            .filter(|(action, len)| *action == "sync" && *len >= LEAST_BYTES as u64);
        assert!(syncs.count() >= usize::from(PARTS) / 2, "{seen:?}");
        assert_eq!(seen[at - 1], ("sync", whole));
    }

    /// A power cut takes every name of which the directory was not synced since it is there: of the place, too, which may
    /// be new, and of what a run that was killed has made and not synced.
    #[test]
    fn a_power_cut_takes_nothing_of_a_new_place_that_is_said_to_be_there() {
        for nth in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let top = dir.path().canonicalize().unwrap();
            let to = top.join("mnt/backups/log");
            let put = |disk: Disk, name: &str| {
                let place = Directory::made_on(&to, disk)?;
                place.put_new("tailmark-backup", b"l\n")?;
                place.put_new(name, b"it")
            };
            let killed = Faults::nth(nth, io::ErrorKind::Other, true);
            let first = put(Disk::with_faults(Arc::clone(&killed)), "backups/1-1.backup");
            assert_eq!(first.is_err(), killed.has_struck(), "{nth}");
            // What this run has synced; of the one before nothing is known.
            let kept = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
            let keeps = Arc::clone(&kept);
            let watcher = move |action, path: &Path| {
                if action == "sync" && path.is_dir() {
                    let entries = std::fs::read_dir(path).unwrap();
                    keeps.lock().unwrap().extend(entries.map(|entry| entry.unwrap().path()));
                }
            };
            assert!(put(Disk::watched(Arc::new(watcher)), "backups/2-2.backup").unwrap());
            let kept = kept.lock().unwrap();
            for file in ["tailmark-backup", "backups/2-2.backup"] {
                for path in to.join(file).ancestors().take_while(|path| **path != *top) {
                    assert!(kept.contains(path), "{nth}: {path:?} is gone");
                }
            }
            if !killed.has_struck() {
                assert!(nth > 8, "{nth}");
                break;
            }
        }
    }

    #[test]
    fn what_could_not_be_written_or_synced_has_no_name() {
        let mut nth = 0;
        loop {
            nth += 1;
            let dir = tempfile::tempdir().unwrap();
            let faults = Faults::nth(nth, io::ErrorKind::StorageFull, false);
            let made = make(dir.path(), &Disk::with_faults(Arc::clone(&faults)));
            if !faults.has_struck() {
                made.unwrap();
                expect_whole(dir.path());
                break;
            }
            let error = made.unwrap_err();
            let is_it = matches!(&error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
            assert!(is_it, "{nth}: {error}");
            // The last step makes the name durable.
            let has_name = dir.path().join("segments/a/db").exists();
            assert!(!has_name || faults.seen() == nth, "{nth}");
        }
        assert!(nth > 8, "{nth}");
    }
}
