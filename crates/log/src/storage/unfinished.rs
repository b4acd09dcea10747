//! Logs that are not whole yet: what a cut has left, told from a log.
//!
//! Knows the names beside a data directory, for whoever migrates it and whoever opens it, and the
//! mark in a directory that a log is being put into. Nothing there counts before the mark is gone, so
//! that what is done meanwhile has no order that a crash could disturb.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use super::disk::{Disk, followed};
use super::syncer::Syncer;

/// The mark in a directory that a log is being put into.
pub(super) const UNFINISHED: &str = "unfinished";
/// What a file system has in it from the beginning.
const NOBODYS: &str = "lost+found";

/// Refuses a directory that is away because a migration was cut while it was swapped: what is
/// missing there is not gone.
///
/// # Errors
/// [`StoreError::Unfinished`], [`StoreError::Partial`].
pub(crate) fn refuse_unfinished(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir()
        && let Some(what) = Disk::real().read(&dir.join(UNFINISHED))?
    {
        let what = String::from_utf8_lossy(&what).trim().to_owned();
        return Err(StoreError::Partial { path: dir.to_owned(), what });
    }
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

/// A log in the making. It is one when [`Making::finish`] has returned.
#[derive(Debug)]
pub struct Making {
    dir: PathBuf,
    disk: Disk,
    /// Once there is something to sync.
    syncer: Option<Syncer>,
    /// Keeps others away that make a log here.
    _mark: File,
}

impl Making {
    /// Marks an empty directory, made if it is missing, or one where the same was cut: what it has
    /// come to stays. `what` is a word for people: "import".
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], [`StoreError::Partial`] where something else was cut,
    /// [`StoreError::Locked`], I/O.
    pub fn begin(dir: &Path, disk: &Disk, what: &str) -> Result<Making, StoreError> {
        disk.create_dir(dir)?;
        let path = dir.join(UNFINISHED);
        match disk.read(&path)? {
            None => {
                // The mark itself, cut while it was written.
                let is_nothing =
                    |path: &PathBuf| path.ends_with(NOBODYS) || path.ends_with("unfinished.new");
                if !disk.list(dir)?.iter().all(is_nothing) {
                    return Err(StoreError::NotEmpty { path: dir.to_owned() });
                }
                disk.replace(&path, format!("{what}\n").as_bytes())?;
            }
            Some(there) if String::from_utf8_lossy(&there).trim() == what => {}
            Some(there) => {
                let what = String::from_utf8_lossy(&there).trim().to_owned();
                return Err(StoreError::Partial { path: dir.to_owned(), what });
            }
        }
        let mark = disk.open(&path)?;
        if !disk.lock(&mark, &path)? {
            return Err(StoreError::Locked { path: dir.to_owned(), owner: None });
        }
        Ok(Making { dir: dir.to_owned(), disk: disk.clone(), syncer: None, _mark: mark })
    }

    /// What it touches files by.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Removes what an earlier attempt has come to.
    ///
    /// # Errors
    /// I/O.
    pub fn clear(&self) -> Result<(), StoreError> {
        self.clear_but(Path::new(""), |_| false)
    }

    /// The same, but for what of the directory `inner` is to be kept.
    ///
    /// # Errors
    /// I/O.
    pub fn clear_but(
        &self,
        inner: &Path,
        mut keep: impl FnMut(&Path) -> bool,
    ) -> Result<(), StoreError> {
        let is_apart = |path: &Path| path.ends_with(UNFINISHED) || path.ends_with(NOBODYS);
        for path in self.disk.list(&self.dir)?.into_iter().filter(|path| !is_apart(path)) {
            if path == inner && path.is_dir() {
                for path in self.disk.list(&path)? {
                    if !keep(&path) {
                        self.remove(&path)?;
                    }
                }
            } else {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        if path.is_dir() { self.disk.remove_tree(path) } else { self.disk.remove_file(path) }
    }

    /// Has what was written to a file made durable while more is written elsewhere, so that little is left to do
    /// at the end. Waits while the disk is behind.
    ///
    /// # Errors
    /// I/O, also of a file that came before: then nothing is finished.
    pub fn settle(&mut self, file: &Arc<File>, path: &Path) -> Result<(), StoreError> {
        let syncer = match &mut self.syncer {
            Some(syncer) => syncer,
            none => {
                none.insert(Syncer::start(&self.disk, None).map_err(StoreError::io("sync", path))?)
            }
        };
        syncer.sync(file, path, 0)
    }

    /// Makes all that is there durable, and takes the mark away.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(self) -> Result<(), StoreError> {
        if let Some(syncer) = self.syncer {
            syncer.finish()?;
        }
        sync_tree(&self.dir, &self.disk)?;
        self.disk.remove_file(&self.dir.join(UNFINISHED))?;
        self.disk.sync_dir(&self.dir)
    }
}

/// Makes a directory and all below it durable.
pub(super) fn sync_tree(dir: &Path, disk: &Disk) -> Result<(), StoreError> {
    for entry in disk.list(dir)? {
        if entry.is_dir() {
            sync_tree(&entry, disk)?;
        } else {
            let file = File::open(&entry).map_err(StoreError::io("open", &entry))?;
            disk.sync_data(&file, &entry)?;
        }
    }
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_the_making_is_none_and_whoever_made_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, disk) = (dir.path().join("a/b"), Disk::real());
        let making = Making::begin(&dir, &disk, "import").unwrap();
        disk.write_new(&dir.join("part"), b"1").unwrap();
        let partial = |error: StoreError| matches!(error, StoreError::Partial { what, .. } if what == "import");
        assert!(partial(refuse_unfinished(&dir).unwrap_err()));
        let second = Making::begin(&dir, &disk, "import").unwrap_err();
        assert!(matches!(second, StoreError::Locked { .. }), "{second}");
        drop(making);
        assert!(partial(Making::begin(&dir, &disk, "restore").unwrap_err()));
        let making = Making::begin(&dir, &disk, "import").unwrap();
        assert!(dir.join("part").exists());
        making.clear().unwrap();
        assert!(!dir.join("part").exists());
        making.finish().unwrap();
        refuse_unfinished(&dir).unwrap();
        disk.write_new(&dir.join("part"), b"1").unwrap();
        let error = Making::begin(&dir, &disk, "import").unwrap_err();
        assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    }
}
