//! The directory that backups lie in.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Error, Manifest};
use tailmark_log::storage::StoreError;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::segment::{self, Segment};

const MARK: &str = "tailmark-backup";
const SEGMENTS: &str = "segments";
const TRIMMED: &str = "trimmed";
const BACKUPS: &str = "backups";
const MANIFEST: &str = "backup";
const TAIL: &str = "tail";

/// The directory that backups lie in.
#[derive(Debug)]
pub struct Target {
    dir: PathBuf,
    pub(super) disk: Disk,
    /// Whose backups.
    log: String,
    /// Keeps others away that write here.
    _lock: Option<File>,
}

impl Target {
    /// Opens a directory of backups for reading.
    ///
    /// # Errors
    /// [`Error::NoBackups`], I/O.
    pub fn open(dir: &Path) -> Result<Target, Error> {
        let disk = Disk::real();
        let mark = if dir.is_dir() { disk.read(&dir.join(MARK))? } else { None };
        let mark = mark.ok_or_else(|| Error::NoBackups { path: dir.to_owned() })?;
        let log = String::from_utf8_lossy(&mark).trim().to_owned();
        Ok(Target { dir: dir.to_owned(), disk, log, _lock: None })
    }

    /// Opens it for another backup of this log; an empty or missing directory becomes one.
    pub(super) fn for_log(dir: &Path, log: &str) -> Result<Target, Error> {
        let disk = Disk::real();
        disk.create_dir(dir)?;
        let path = dir.join(MARK);
        if !path.exists() {
            let is_nothing = |path: &PathBuf| {
                path.ends_with("lost+found") || path.ends_with(format!("{MARK}.new"))
            };
            if !disk.list(dir)?.iter().all(is_nothing) {
                return Err(Error::Foreign { path: dir.to_owned() });
            }
            disk.replace(&path, format!("{log}\n").as_bytes())?;
        }
        let target = Target::open(dir)?;
        if target.log != log {
            return Err(Error::OtherLog { path: dir.to_owned(), log: target.log });
        }
        let lock = disk.open(&path)?;
        if !disk.lock(&lock, &path)? {
            return Err(StoreError::Locked { path: dir.to_owned(), owner: None }.into());
        }
        for inner in [SEGMENTS, TRIMMED, BACKUPS] {
            disk.create_dir(&dir.join(inner))?;
        }
        disk.sync_dir(dir)?;
        Ok(Target { _lock: Some(lock), ..target })
    }

    /// Removes what backups that were cut have left and the next one does not go on with.
    pub(super) fn tidy(&self) -> Result<(), Error> {
        segment::clean(&self.segments(), &self.disk)?;
        for path in self.disk.list(&self.dir.join(BACKUPS))? {
            let is_tail = path.extension().is_some_and(|extension| extension == TAIL);
            if is_tail && !path.with_extension(MANIFEST).exists() {
                self.disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Whose backups these are.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Names of all whole backups, the oldest first.
    ///
    /// # Errors
    /// I/O.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for path in self.disk.list(&self.dir.join(BACKUPS))? {
            let is_manifest = path.extension().is_some_and(|extension| extension == MANIFEST);
            let name = path.file_stem().and_then(|name| name.to_str());
            names.extend(name.filter(|_| is_manifest).map(str::to_owned));
        }
        // By when they were taken: a log that was put back has a lower head.
        names.sort_by_key(|name| {
            let taken = name.rsplit_once('-').and_then(|(_, taken)| taken.parse::<i64>().ok());
            (taken, name.clone())
        });
        Ok(names)
    }

    /// One backup, the newest without a name.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`].
    pub fn backup(&self, name: Option<&str>) -> Result<(String, Manifest), Error> {
        let names = self.names()?;
        let found = match name {
            Some(name) => names.iter().find(|it| *it == name),
            None => names.last(),
        };
        let missing =
            || Error::Missing { path: self.dir.clone(), name: name.unwrap_or("at all").to_owned() };
        let name = found.ok_or_else(missing)?;
        Ok((name.clone(), Manifest::load(&self.manifest(name), &self.disk)?))
    }

    pub(super) fn manifest(&self, name: &str) -> PathBuf {
        self.dir.join(BACKUPS).join(format!("{name}.{MANIFEST}"))
    }

    pub(super) fn tail(&self, name: &str) -> PathBuf {
        self.dir.join(BACKUPS).join(format!("{name}.{TAIL}"))
    }

    pub(super) fn segments(&self) -> PathBuf {
        self.dir.join(SEGMENTS)
    }

    pub(super) fn segment(&self, name: &str) -> PathBuf {
        self.segments().join(name)
    }

    /// Whether the segment of that name is there as it was copied: the footer that the name says, and files
    /// of the lengths that the footer says.
    pub(super) fn has_segment(&self, name: &str) -> bool {
        Segment::load(&self.segment(name), &self.disk).is_ok_and(|there| {
            let digest = there.digest();
            let is_named = digest.is_ok_and(|it| format!("{}-{}", there.name(), hex(it)) == name);
            is_named && there.has_its_files()
        })
    }

    pub(super) fn trimmed(&self, name: &str) -> PathBuf {
        self.dir.join(TRIMMED).join(name)
    }
}

/// Bytes as text, for names.
pub(super) fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}
