//! A directory: a file has its name when it is whole and synced.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{Listed, Making, Place, failed};
use tailmark_log::storage::StoreError;
use tailmark_log::storage::disk::Disk;

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
}

impl Directory {
    pub(super) fn open(dir: &Path) -> Directory {
        Directory { dir: dir.to_owned(), disk: Disk::real(), lock: None }
    }

    /// Makes it if it is not there.
    pub(super) fn for_writing(dir: &Path) -> Result<Directory, StoreError> {
        let disk = Disk::real();
        disk.create_dir(dir)?;
        Ok(Directory { dir: dir.to_owned(), disk, lock: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The directory in which a file is to lie, with all above it.
    fn make_room(&self, path: &Path) -> Result<(), StoreError> {
        let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) else { return Ok(()) };
        self.make_room(parent)?;
        self.disk.create_dir(parent)?;
        self.disk.sync_dir(parent.parent().unwrap_or(Path::new(".")))
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
        Ok(Box::new(FileMade { file, beside, path, disk: self.disk.clone() }))
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
}

struct FileMade {
    file: File,
    beside: PathBuf,
    path: PathBuf,
    disk: Disk,
}

impl Write for FileMade {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Making for FileMade {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.disk.sync_data(&self.file, &self.beside)?;
        self.disk.rename(&self.beside, &self.path)?;
        self.disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }
}
