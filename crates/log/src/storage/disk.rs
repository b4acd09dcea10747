//! File operations: the one way the journal, the metadata and the segments touch the disk, but for
//! what sled does by itself.
//!
//! Owns nothing but the rules: every write is positioned, every sync is explicit, every error names
//! what was tried on which path. A test can make the n-th operation fail, or be told of each before
//! it happens; what fails after a real write or sync stays as the operating system left it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::buffer::spare_capacity;

use super::StoreError;

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

    /// The real file system with somebody who is told of every operation: its name, as in errors, and
    /// on what.
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

    /// Creates a directory and its missing parents.
    pub fn create_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.run("create", path, || std::fs::create_dir_all(path))
    }

    /// Makes names in a directory durable.
    pub fn sync_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.run("sync", path, || File::open(path)?.sync_all())
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
        use rustix::io::Errno;
        self.run("swap", one, || match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
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

    /// Replaces a small file: written beside it, synced, renamed over it, the name synced.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let beside = with_suffix(path, ".new");
        self.run("write", &beside, || {
            let file = File::create(&beside)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        })?;
        self.rename(&beside, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Creates a file of `len` bytes whose blocks are taken from the disk at once.
    pub fn allocate(&self, path: &Path, len: u64) -> Result<(), StoreError> {
        let beside = with_suffix(path, ".new");
        let result = self.run("allocate", &beside, || {
            let file = File::create(&beside)?;
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len) {
                Ok(()) => {}
                // A file system without fallocate: take the blocks by writing them.
                Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&file, len)?,
                Err(errno) => return Err(errno.into()),
            }
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
                    Err(rustix::io::Errno::INTR) => continue,
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
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // The allocator may have given more room than was asked for.
            bytes.truncate(len);
            Ok(bytes)
        })
    }

    /// Bytes that an ordinary user may still take on the file system of `path`.
    pub fn available(&self, path: &Path) -> Result<u64, StoreError> {
        self.run("stat", path, || {
            let stat = rustix::fs::statvfs(path)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        })
    }
}

fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0u8; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let part = (len - offset).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}
