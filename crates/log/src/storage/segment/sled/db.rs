//! The one place that calls sled.
//!
//! Owns: opening, filling and reading a sled 0.34.7 database whose keys and values are opaque
//! here. Must not know events, blocks or footers. Invariants: only `insert`, `get`, `flush` and
//! `drop` are ever called; every call is behind `catch_unwind`, because sled panics on damage; no
//! background flusher runs; a database that may have been damaged is never repaired here.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::storage::segment::store::Fault;

/// sled frees its lock some time after the last handle is dropped.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(1);

/// How a database is laid out and how much of it sled may cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// sled's unit of log space, a power of two, at most 16 MiB. Fixed when a database is created.
    pub(super) segment_bytes: usize,
    /// sled's page cache; a hint, RSS is not bounded by it.
    pub(super) cache_bytes: u64,
}

impl From<::sled::Error> for Fault {
    fn from(error: ::sled::Error) -> Self {
        match error {
            ::sled::Error::Io(error) => Fault::Io(error),
            other => Fault::Corrupt(other.to_string()),
        }
    }
}

/// A value as sled's cache holds it; cheap to clone.
pub(super) type Value = ::sled::IVec;

/// An open database. Dropping it closes it.
pub(in crate::storage::segment) struct Database {
    // An option so that drop can put the destructor behind `catch_unwind`.
    db: Option<::sled::Db>,
}

impl Database {
    /// Opens the database in `dir`, which sled creates if nothing is there.
    pub(super) fn open_or_create(dir: &Path, layout: Layout) -> Result<Database, Fault> {
        let config = || {
            ::sled::Config::new()
                .path(dir)
                .segment_size(layout.segment_bytes)
                .cache_capacity(layout.cache_bytes)
                .flush_every_ms(None)
        };
        let patience_ends = Instant::now() + LOCK_PATIENCE;
        loop {
            match guarded(|| config().open()) {
                Ok(db) => return Ok(Database { db: Some(db) }),
                Err(Fault::Io(error)) if is_locked(&error) && Instant::now() < patience_ends => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    pub(super) fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let db = self.handle()?;
        guarded(|| db.insert(key, value).map(drop))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        let db = self.handle()?;
        guarded(|| db.get(key))
    }

    pub(super) fn flush(&self) -> Result<(), Fault> {
        let db = self.handle()?;
        guarded(|| db.flush().map(drop))
    }

    /// Drops the database and tells whether sled panicked over it.
    pub(super) fn drop_now(mut self) -> Result<(), Fault> {
        let db = self.db.take();
        guarded(move || {
            drop(db);
            Ok(())
        })
    }

    fn handle(&self) -> Result<&::sled::Db, Fault> {
        self.db.as_ref().ok_or_else(|| Fault::Corrupt("the database is closed".into()))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            // Nothing was written since it was opened, so nothing is lost with the answer.
            let _ = guarded(move || {
                drop(db);
                Ok(())
            });
        }
    }
}

fn guarded<T>(call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Fault::Corrupt(format!("sled panicked: {text}")))
        }
    }
}

fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Waits until sled has let go of a closed database: only then is no task left that could write.
pub(super) fn wait_released(dir: &Path) -> io::Result<()> {
    let file = fs::File::open(dir.join("db"))?;
    let patience_ends = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock(),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < patience_ends => {
                std::thread::sleep(LOCK_POLL);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a file is a half-written snapshot, which a crash during an open leaves. It is no part of
/// the database.
pub(super) fn is_half_snapshot(name: &str) -> bool {
    name.starts_with("snap.") && name.ends_with(".generating")
}

/// Deletes half-written snapshots; sled would take one for the newest and refuse to open for ever.
/// Only for whoever is about to hand the directory to sled, which writes to it: checks pass over
/// them.
pub(super) fn remove_half_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if is_half_snapshot(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sled says it in words alone: should it ever say it in others, this tells.
    #[test]
    fn a_database_that_is_open_elsewhere_is_known_by_its_error() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { segment_bytes: 1 << 20, cache_bytes: 1 << 20 };
        let open = Database::open_or_create(dir.path(), layout).unwrap();
        let config = ::sled::Config::new().path(dir.path()).segment_size(1 << 20);
        match guarded(|| config.flush_every_ms(None).open()) {
            Err(Fault::Io(error)) => assert!(is_locked(&error), "{error}"),
            other => panic!("{:?}", other.map(drop)),
        }
        assert!(!is_locked(&io::Error::from(io::ErrorKind::PermissionDenied)));
        open.drop_now().unwrap();
        wait_released(dir.path()).unwrap();
    }
}
