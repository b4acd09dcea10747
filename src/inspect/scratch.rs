//! Where copies of sealed databases are made: opening one writes to it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Error;
use tailmark_log::storage::StoreError;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::segment::{OfflineReader, Segment};

/// Left to others in the scratch directory, beside what sled itself writes when it opens a copy.
const MARGIN_BYTES: u64 = 16 << 20;

/// What the name of one begins with; the process and a random number follow.
const NAME: &str = "tailmark-";
/// Names to try where others take each away again.
const ATTEMPTS: usize = 16;

/// A directory that only its owner can read, made when it is first needed, deleted with this. Of a process that was
/// killed it stays, with what was copied: the next one deletes it.
#[derive(Debug)]
pub(crate) struct Scratch {
    parent: PathBuf,
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    dir: PathBuf,
    /// Locked as long as somebody uses it; `None` where the file system has no locks.
    _lock: Option<File>,
}

impl Scratch {
    /// In `TMPDIR`, else in `/tmp`. Deletes what processes that are no more have left there.
    pub(crate) fn new() -> Scratch {
        Scratch::within(std::env::temp_dir())
    }

    fn within(parent: PathBuf) -> Scratch {
        delete_left(&parent);
        Scratch { parent, made: None }
    }

    /// A directory with room for a copy of `segment`.
    pub(crate) fn for_copy_of(&mut self, segment: &Segment) -> Result<&Path, Error> {
        let available_bytes = Disk::real().available(&self.parent)?;
        let needed_bytes = segment.disk_bytes() + MARGIN_BYTES;
        if available_bytes < needed_bytes {
            let dir = self.parent.clone();
            return Err(Error::NoScratch { dir, available_bytes, needed_bytes });
        }
        self.dir()
    }

    /// The directory, for what takes little room.
    pub(crate) fn dir(&mut self) -> Result<&Path, Error> {
        if self.made.is_none() {
            self.made = Some(Made::within(&self.parent)?);
        }
        Ok(self.made.as_ref().map_or(&self.parent, |made| &made.dir))
    }

    /// Opens a copy of `segment`.
    pub(crate) fn open(&mut self, segment: &Segment) -> Result<OfflineReader, Error> {
        let scratch = self.for_copy_of(segment)?;
        Ok(OfflineReader::open(segment.dir(), scratch)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // Nothing but copies; what stays behind is deleted by the next one.
            let _ = std::fs::remove_dir_all(&made.dir);
        }
    }
}

impl Made {
    fn within(parent: &Path) -> Result<Made, Error> {
        let mut failed = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let dir =
                parent.join(format!("{NAME}{}-{:08x}", std::process::id(), rand::random::<u32>()));
            match Made::of(dir) {
                Ok(Some(made)) => return Ok(made),
                // Taken for one that was left, before it could be locked.
                Ok(None) => {}
                Err(error) => {
                    failed = error;
                    break;
                }
            }
        }
        Err(StoreError::Io { action: "create", path: parent.to_owned(), source: failed }.into())
    }

    fn of(dir: PathBuf) -> io::Result<Option<Made>> {
        DirBuilder::new().mode(0o700).create(&dir)?;
        let lock = match File::open(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(_)) => return Ok(Some(Made { dir, _lock: None })),
            Ok(()) => {}
        }
        let held = lock.metadata()?;
        let is_there = std::fs::metadata(&dir)
            .is_ok_and(|it| (it.dev(), it.ino()) == (held.dev(), held.ino()));
        Ok(is_there.then_some(Made { dir, _lock: Some(lock) }))
    }
}

/// Deletes what is left of processes that were killed, as far as it is this user's. What cannot be looked at is not ours.
/// A process that is there may be one that took no lock; one that others number differently has its lock.
fn delete_left(parent: &Path) {
    let owner = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let process = entry.file_name().to_str().and_then(process_of);
        let is_gone = process.is_some_and(|it| !Path::new("/proc").join(it.to_string()).exists());
        let is_one = is_gone && entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == owner);
        let lock = is_one.then(|| File::open(entry.path()).ok()).flatten();
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whose it is, by its name.
fn process_of(name: &str) -> Option<u32> {
    let (process, random) = name.strip_prefix(NAME)?.split_once('-')?;
    let is_random = random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    process.parse().ok().filter(|_| is_random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_has_left_goes_with_the_next_one_and_nothing_else_does() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let fill = |dir: &Path| {
            std::fs::create_dir_all(dir.join(".tmp-1/db")).unwrap();
            std::fs::write(dir.join(".tmp-1/db/db"), "what was said").unwrap();
        };
        let left = at("tailmark-4194305-0a1b2c3d");
        fill(&left);
        for other in ["tailmark-data", "tailmark-1-x", "tailmark-1-0a1b2c3g", "other", "target"] {
            fill(&at(other));
        }
        let link = at("tailmark-1-0a1b2c3e");
        std::os::unix::fs::symlink(at("target"), &link).unwrap();
        let mut one = Scratch::within(parent.path().to_owned());
        assert!(!left.exists());
        let used = one.dir().unwrap().to_owned();
        fill(&used);
        // One that is in use stays.
        let mut two = Scratch::within(parent.path().to_owned());
        let second = two.dir().unwrap().to_owned();
        assert!(used.join(".tmp-1/db/db").exists() && second != used);
        drop(one);
        assert!(!used.exists() && second.exists());
        drop(two);
        for other in ["tailmark-data", "tailmark-1-x", "tailmark-1-0a1b2c3g", "other", "target"] {
            assert!(at(other).join(".tmp-1/db/db").exists(), "{other}");
        }
        assert!(link.symlink_metadata().is_ok());
    }
}
