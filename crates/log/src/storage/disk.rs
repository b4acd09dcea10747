//! File operations: the one way the journal, the metadata and the segments touch the disk, but for
//! what sled does by itself.
//!
//! Owns nothing but the rules: every write is positioned, every sync is explicit, every error names
//! what was tried on which path. Files and directories are made for their owner alone, whatever the
//! umask. What some file systems, containers and seccomp profiles refuse is done another way where
//! there is one that promises as much, and said. A link to a file is followed, never replaced. A
//! test can make the n-th operation fail, or be told of each before it happens; what fails after a
//! real write or sync stays as the operating system left it.

mod platform;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::StoreError;
use platform::{
    DIR_MODE, FILE_MODE, allocate_blocks, create, has_no_locks, is_not_for_dirs, room, say_once,
};
pub(in crate::storage) use platform::{followed, is_at, make_private};

/// Access to the file system, with an optional planned failure.
#[derive(Clone, Default)]
pub struct Disk {
    faults: Option<Arc<Faults>>,
    watcher: Option<Watcher>,
}

/// Is told of every operation before it happens, and may hold it up.
pub type Watcher = Arc<dyn Fn(&'static str, &Path) + Send + Sync>;

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("faults", &self.faults).finish_non_exhaustive()
    }
}

/// Makes one file operation fail, counted from now.
#[derive(Debug)]
pub struct Faults {
    remaining: AtomicI64,
    /// Operations seen so far.
    seen: AtomicI64,
    kind: io::ErrorKind,
    /// Whether all later operations fail too, as on a dead disk.
    sticky: bool,
}

impl Faults {
    /// Fails the `nth` operation (from 1) with `kind`; every later one too if `sticky`.
    pub fn nth(nth: i64, kind: io::ErrorKind, sticky: bool) -> Arc<Faults> {
        Arc::new(Faults { remaining: AtomicI64::new(nth), seen: AtomicI64::new(0), kind, sticky })
    }

    /// Counts operations and fails none.
    pub fn none() -> Arc<Faults> {
        Faults::nth(i64::MAX, io::ErrorKind::Other, false)
    }

    /// Operations seen so far.
    pub fn seen(&self) -> i64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Whether the planned failure has happened.
    pub fn has_struck(&self) -> bool {
        self.remaining.load(Ordering::SeqCst) <= 0
    }

    fn strike(&self) -> io::Result<()> {
        self.seen.fetch_add(1, Ordering::SeqCst);
        let left = self.remaining.fetch_sub(1, Ordering::SeqCst);
        if left == 1 || (self.sticky && left < 1) {
            return Err(io::Error::new(self.kind, "injected failure"));
        }
        Ok(())
    }
}

impl Disk {
    /// The real file system.
    pub fn real() -> Disk {
        Disk::default()
    }

    /// The real file system with a planned failure.
    pub fn with_faults(faults: Arc<Faults>) -> Disk {
        Disk { faults: Some(faults), watcher: None }
    }

    /// The real file system with somebody who is told of every operation: its name, as in errors,
    /// and on what.
    pub fn watched(watcher: Watcher) -> Disk {
        Disk { faults: None, watcher: Some(watcher) }
    }

    fn strike(&self) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.strike())
    }

    /// Any other operation, as one.
    pub(in crate::storage) fn run<T>(
        &self,
        action: &'static str,
        path: &Path,
        op: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StoreError> {
        if let Some(watcher) = &self.watcher {
            watcher(action, path);
        }
        self.strike().and_then(|()| op()).map_err(StoreError::io(action, path))
    }

    /// Opens for reading and writing.
    pub fn open(&self, path: &Path) -> Result<File, StoreError> {
        self.run("open", path, || OpenOptions::new().read(true).write(true).open(path))
    }

    /// Opens for reading only; what offline tools use.
    pub fn open_read(&self, path: &Path) -> Result<File, StoreError> {
        self.run("open", path, || File::open(path))
    }

    /// A whole small file; `None` when there is none.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        self.run("read", path, || match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Creates a directory that only its owner can enter, and its missing parents, which are as the
    /// umask has them. One that is there stays as it is.
    pub fn create_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.run("create", path, || {
            if path.is_dir() {
                return Ok(());
            }
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            match DirBuilder::new().mode(DIR_MODE).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                    Ok(())
                }
                created => created,
            }
        })
    }

    /// Opens a small file for writing, made if it is missing; what it holds stays.
    pub fn open_or_create(&self, path: &Path) -> Result<File, StoreError> {
        self.run("open", path, || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
        })
    }

    /// Writes a new file, not synced.
    pub fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.run("write", path, || create(path)?.write_all_at(bytes, 0))
    }

    /// Takes the lock of an open file, which is held until it is closed; `false` when somebody else
    /// has it.
    ///
    /// # Errors
    /// [`StoreError::Unlockable`] where the file system has no locks.
    pub fn lock(&self, file: &File, path: &Path) -> Result<bool, StoreError> {
        let locked = self.run("lock", path, || match file.try_lock() {
            Ok(()) => Ok(Ok(true)),
            Err(TryLockError::WouldBlock) => Ok(Ok(false)),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(Err(error)),
            Err(TryLockError::Error(error)) => Err(error),
        })?;
        locked.map_err(|source| StoreError::Unlockable { path: path.to_owned(), source })
    }

    /// Makes names in a directory durable.
    pub fn sync_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.run("sync", path, || match File::open(path)?.sync_all() {
            // There is nothing to call: such a file system keeps names by itself, or not at all.
            Err(error) if is_not_for_dirs(&error) => {
                static SAID: AtomicBool = AtomicBool::new(false);
                say_once(
                    &SAID,
                    path,
                    "the file system cannot sync directories: names of new files \
                     are durable when it makes them so by itself",
                );
                Ok(())
            }
            synced => synced,
        })
    }

    /// Makes the name of a directory durable, and those of all above it: some may have been made with it.
    pub fn sync_names(&self, path: &Path) -> Result<(), StoreError> {
        let whole = path.canonicalize().map_err(StoreError::io("find", path))?;
        for parent in whole.ancestors().skip(1) {
            match self.sync_dir(parent) {
                // Not to be read by us (`/var/lib/private` is not), so that what we have made is not in it.
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        Ok(())
    }

    /// Makes a closed file durable.
    pub fn sync_file(&self, path: &Path) -> Result<(), StoreError> {
        self.run("sync", path, || File::open(path)?.sync_all())
    }

    /// What a directory holds, by name.
    pub fn list(&self, path: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let mut paths: Vec<PathBuf> = self.run("list", path, || {
            std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect()
        })?;
        paths.sort();
        Ok(paths)
    }

    /// Renames within one file system.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.run("rename", from, || std::fs::rename(from, to))
    }

    /// Swaps two names at once; `false` where the file system cannot.
    pub fn exchange(&self, one: &Path, other: &Path) -> Result<bool, StoreError> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        self.run("swap", one, || match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            // What is really forbidden is told by the renames that take its place.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(false),
            Err(errno) => Err(errno.into()),
        })
    }

    /// Removes a directory and all below it; that it is gone already is no error.
    pub fn remove_tree(&self, path: &Path) -> Result<(), StoreError> {
        self.run("remove", path, || match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Removes a file; that it is gone already is no error.
    pub fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        self.run("remove", path, || match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Replaces a small file: written beside it, synced, renamed over it, the name synced. Of a
    /// link it replaces what the link names.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let path = &self.followed(path)?;
        let beside = with_suffix(path, ".new");
        self.run("write", &beside, || {
            let file = create(&beside)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        })?;
        self.rename(&beside, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Creates a file of `len` bytes whose blocks are taken from the disk at once. Of a link it
    /// replaces what the link names.
    pub fn allocate(&self, path: &Path, len: u64) -> Result<(), StoreError> {
        let path = &self.followed(path)?;
        let beside = with_suffix(path, ".new");
        let result = self.run("allocate", &beside, || {
            let file = create(&beside)?;
            allocate_blocks(&file, &beside, len)?;
            file.sync_all()
        });
        if let Err(error) = result {
            // Gives back what was taken; the error that matters is the first.
            let _ = std::fs::remove_file(&beside);
            return Err(error);
        }
        self.rename(&beside, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Writes all of `parts`, one after the other, at `offset`.
    pub fn write_at(
        &self,
        file: &File,
        path: &Path,
        parts: &[&[u8]],
        offset: u64,
    ) -> Result<(), StoreError> {
        self.run("write", path, || {
            let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
            let mut rest = &mut slices[..];
            let mut offset = offset;
            while !rest.is_empty() {
                let written = match rustix::io::pwritev(file, rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => written,
                    Err(Errno::INTR) => continue,
                    // Never carried out, so that nothing was written: one part at a time.
                    Err(Errno::NOSYS) => match rest.iter().find(|part| !part.is_empty()) {
                        Some(part) => file.write_at(part, offset)?,
                        None => return Ok(()),
                    },
                    Err(errno) => return Err(errno.into()),
                };
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Ok(())
        })
    }

    /// Makes a file's bytes durable: fdatasync.
    pub fn sync_data(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        self.run("sync", path, || file.sync_data())
    }

    /// Lets the system's cache go of what a file has on disk: who wrote it does not read it soon, and others have
    /// use for the room.
    pub fn forget_cached(&self, file: &File) {
        // A file system that has no such cache refuses it, and nothing is lost.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Reads exactly `buffer.len()` bytes.
    pub fn read_at(
        &self,
        file: &File,
        path: &Path,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<(), StoreError> {
        self.run("read", path, || file.read_exact_at(buffer, offset))
    }

    /// Reads `len` bytes into memory of their own, which nobody fills with zeros before.
    ///
    /// # Errors
    /// As the operating system says; the end of the file before `len` bytes.
    pub fn read_new(
        &self,
        file: &File,
        path: &Path,
        len: usize,
        offset: u64,
    ) -> Result<Vec<u8>, StoreError> {
        self.run("read", path, || {
            let mut bytes = Vec::with_capacity(len);
            while bytes.len() < len {
                let at = offset + bytes.len() as u64;
                match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // The allocator may have given more room than was asked for.
            bytes.truncate(len);
            Ok(bytes)
        })
    }

    /// Bytes that an ordinary user may still take on the file system of `path`. What does not tell
    /// is taken to have room: a write that finds none says so.
    pub fn available(&self, path: &Path) -> Result<u64, StoreError> {
        static SAID: AtomicBool = AtomicBool::new(false);
        self.run("stat", path, || {
            let stat = match rustix::fs::statvfs(path) {
                Ok(stat) => stat,
                Err(Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => {
                    say_once(&SAID, path, "the file system does not tell how much room it has");
                    return Ok(u64::MAX);
                }
                Err(errno) => return Err(errno.into()),
            };
            Ok(room(stat.f_blocks, stat.f_bavail, stat.f_frsize, stat.f_bsize).unwrap_or_else(
                || {
                    say_once(&SAID, path, "the file system does not tell how much room it has");
                    u64::MAX
                },
            ))
        })
    }

    /// What `path` names if it is a link, however long the chain; else itself.
    fn followed(&self, path: &Path) -> Result<PathBuf, StoreError> {
        followed(path).map_err(StoreError::io("follow", path))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}
