//! Bringing a data directory of an older format up to date: copy forward, verify, swap.
//!
//! Owns the order of things; what a format looks like is known to its [`Step`] alone. Formats are
//! described in `migrations/`.
//!
//! ```text
//! data                 the log; always whole, of the old or of the new format
//! data.migrating/      step-N (a copy of format N), ready (all copies are verified and synced)
//! data.format-N        the log as it was, when all is done; deleted by nobody but its owner
//! ```
//!
//! Invariants: the old directory is not written to but for its lock file; nothing is swapped that
//! was not verified and synced; a migration that was cut is recognised by what it left: before the
//! swap it begins anew, after it is finished. Where the file system can't exchange two names at
//! once there is a moment without `data`; a daemon that finds it then refuses to begin a new log.

use std::path::{Path, PathBuf};

use super::disk::{Disk, followed};
use super::local::{Claim, survey};
use super::unfinished::{OLD, READY, beside, refuse_unfinished, sync_tree, workspace_of};
use super::{Damage, FORMAT_VERSION, StoreError};
use tailmark_record::Seq;

/// Beside the bytes of a copy.
const MARGIN_BYTES: u64 = 8 << 20;
/// Where the version stands in `log.meta` and in the head of a slot, in every format.
const VERSION_AT: std::ops::Range<usize> = 8..12;

/// One step from a format to the next. Lives with the description of the newer one.
pub trait Step: Sync {
    /// The format that it reads; it writes the next one.
    fn from(&self) -> u32;

    /// Whether a directory that says no version is of the format that this reads.
    fn recognises(&self, dir: &Path) -> bool;

    /// Writes to the empty directory `to` what `from` has, and tells how far it is.
    ///
    /// # Errors
    /// I/O or damage; `to` is thrown away.
    fn copy(
        &self,
        from: &Path,
        to: &Path,
        disk: &Disk,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError>;

    /// Reads both, and compares every event, the identity and the bounds; tells how far it is.
    ///
    /// # Errors
    /// What differs, as damage; I/O.
    fn verify(
        &self,
        from: &Path,
        to: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError>;
}

/// All steps of this program, each beside the description of the format that it brings a log to.
pub const STEPS: &[&dyn Step] = &[&to_format_2::History];

#[path = "../../../../migrations/0002_history/step.rs"]
mod to_format_2;

/// Why a migration did not happen. The log is whole, and where it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No log, a newer format, in use, damage, I/O.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This program cannot read a format that old.
    #[error("{} has format {found}, from which this program has no way to {wanted}", path.display())]
    NoWay {
        /// The data directory.
        path: PathBuf,
        /// What it has.
        found: u32,
        /// What this program writes.
        wanted: u32,
    },
}

/// What is to be done.
pub struct Plan<'s> {
    /// The format of the directory.
    pub found: u32,
    /// The format that it will have.
    pub wanted: u32,
    /// Bytes that a copy may take.
    pub needed_bytes: u64,
    steps: Vec<&'s dyn Step>,
}

impl Plan<'_> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The formats to go through, the last one included.
    pub fn formats(&self) -> Vec<u32> {
        self.steps.iter().map(|step| step.from() + 1).collect()
    }
}

/// Events, of all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done: u64,
    /// In all.
    pub of: u64,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Copying to a format.
    Copying {
        /// To which.
        to: u32,
        /// Events copied.
        progress: Progress,
    },
    /// Comparing the copy with what it was made from.
    Verifying {
        /// The copy's format.
        to: u32,
        /// Events compared.
        progress: Progress,
    },
    /// Making the copy survive a power loss, and putting it in place.
    Swapping,
}

/// What a migration came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to do.
    UpToDate {
        /// The format.
        version: u32,
    },
    /// The directory has the new format.
    Migrated {
        /// What it had.
        from: u32,
        /// What it has.
        to: u32,
        /// Where it is as it was.
        kept: PathBuf,
    },
}

/// The format of the log in `dir`, damaged or not.
///
/// # Errors
/// [`StoreError::Missing`] if there is none; I/O.
pub fn detect(dir: &Path, steps: &[&dyn Step]) -> Result<u32, StoreError> {
    let disk = Disk::real();
    let mut files = vec![(dir.join("log.meta"), *b"TMMETA\0\x01")];
    if let Ok(entries) = std::fs::read_dir(dir.join("journal")) {
        let mut slots: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        slots.sort();
        files.extend(slots.into_iter().map(|path| (path, *b"TMSLOT\0\x01")));
    }
    for (path, magic) in files {
        if let Some(version) = version_of(&disk, &path, &magic)? {
            return Ok(version);
        }
    }
    let step = steps.iter().find(|step| dir.is_dir() && step.recognises(dir));
    step.map(|step| step.from()).ok_or_else(|| StoreError::Missing { path: dir.to_owned() })
}

fn version_of(disk: &Disk, path: &Path, magic: &[u8; 8]) -> Result<Option<u32>, StoreError> {
    if !path.is_file() {
        return Ok(None);
    }
    let file = disk.open_read(path)?;
    let mut head = [0; 12];
    if file.metadata().map_err(StoreError::io("stat", path))?.len() < head.len() as u64 {
        return Ok(None);
    }
    disk.read_at(&file, path, &mut head, 0)?;
    let mut version = [0; 4];
    version.copy_from_slice(&head[VERSION_AT]);
    Ok((head[..8] == magic[..]).then_some(u32::from_le_bytes(version)))
}

/// Says what is to be done so that the log in `dir` has the format `wanted`; changes nothing.
///
/// # Errors
/// No log, a newer format, or no way.
pub fn plan<'s>(dir: &Path, steps: &'s [&dyn Step], wanted: u32) -> Result<Plan<'s>, Error> {
    refuse_unfinished(dir)?;
    let found = detect(dir, steps)?;
    let path = dir.to_owned();
    if found > wanted {
        return Err(StoreError::Format { path, found, supported: wanted }.into());
    }
    let way = (found..wanted)
        .map(|from| steps.iter().copied().find(|step| step.from() == from))
        .collect::<Option<Vec<_>>>();
    let steps = way.ok_or(Error::NoWay { path, found, wanted })?;
    let needed_bytes = if steps.is_empty() { 0 } else { needed_bytes(dir)? };
    Ok(Plan { found, wanted, needed_bytes, steps })
}

/// The most that a copy of `dir` takes: what is there, and what lies in its journal once more. A copy has whole slots too, one
/// of them more than the log while its last events are sealed, and then these events as a segment beside them.
fn needed_bytes(dir: &Path) -> Result<u64, StoreError> {
    let journal = dir.join("journal");
    let journal_bytes = if journal.is_dir() { tree_bytes(&journal)? } else { 0 };
    Ok(tree_bytes(dir)? + journal_bytes + MARGIN_BYTES)
}

/// Brings the log in `dir` to the format `wanted`.
///
/// # Errors
/// The log is whole: as it was, or, where only tidying failed, in the new format.
pub fn migrate(
    dir: &Path,
    steps: &[&dyn Step],
    wanted: u32,
    disk: &Disk,
    mut progress: impl FnMut(Stage),
) -> Result<Outcome, Error> {
    // Beside what a link names, and on its disk: the link stays as it is.
    let dir = followed(dir).map_err(StoreError::io("follow", dir))?;
    // A name that can be put another beside.
    let dir = match dir.file_name() {
        Some(_) => dir,
        None => dir.canonicalize().map_err(StoreError::io("examine", &dir))?,
    };
    let swap = Swap { workspace: workspace_of(&dir), dir: &dir, disk };
    if let Some(outcome) = swap.finish_cut(steps)? {
        return Ok(outcome);
    }
    let plan = plan(&dir, steps, wanted)?;
    if plan.is_empty() {
        swap.discard()?;
        return Ok(Outcome::UpToDate { version: plan.found });
    }
    let _claim = Claim::take(&dir, disk)?;
    let parent = parent_of(&dir);
    let available_bytes = disk.available(parent)?;
    if available_bytes < plan.needed_bytes {
        let needed_bytes = plan.needed_bytes;
        return Err(StoreError::DiskFull { available_bytes, needed_bytes }.into());
    }
    let copied = swap.copy(&plan, &mut progress);
    if let Err(error) = copied {
        // Gives the space back; if that fails too, the next attempt does.
        let _ = swap.discard();
        return Err(error.into());
    }
    progress(Stage::Swapping);
    swap.swap(wanted)?;
    let kept = swap.finish(plan.found, wanted)?;
    Ok(Outcome::Migrated { from: plan.found, to: wanted, kept })
}

struct Swap<'a> {
    dir: &'a Path,
    workspace: PathBuf,
    disk: &'a Disk,
}

impl Swap<'_> {
    fn step_dir(&self, version: u32) -> PathBuf {
        self.workspace.join(format!("step-{version}"))
    }

    /// Copies step by step, verifies each copy, and syncs the last.
    fn copy(&self, plan: &Plan<'_>, progress: &mut dyn FnMut(Stage)) -> Result<(), StoreError> {
        self.discard()?;
        self.disk.create_dir(&self.workspace)?;
        let mut from = self.dir.to_owned();
        for step in &plan.steps {
            let version = step.from() + 1;
            let to = self.step_dir(version);
            self.disk.create_dir(&to)?;
            step.copy(&from, &to, self.disk, &mut |events| {
                progress(Stage::Copying { to: version, progress: events });
            })?;
            step.verify(&from, &to, &mut |events| {
                progress(Stage::Verifying { to: version, progress: events });
            })?;
            if from != self.dir {
                self.disk.remove_tree(&from)?;
            }
            from = to;
        }
        if plan.wanted == FORMAT_VERSION
            && let Some(damage) = survey(&from, self.disk)?.damage.first()
        {
            return Err(damage.clone().into());
        }
        sync_tree(&from, self.disk)?;
        self.disk.sync_dir(&self.workspace)?;
        self.disk.sync_dir(parent_of(self.dir))?;
        let ready = format!("{} {}\n", plan.found, plan.wanted);
        self.disk.replace(&self.workspace.join(READY), ready.as_bytes())
    }

    /// Puts the copy in place; the old directory is in the workspace then.
    fn swap(&self, to: u32) -> Result<(), StoreError> {
        let copy = self.step_dir(to);
        if !self.disk.exchange(&copy, self.dir)? {
            self.disk.rename(self.dir, &self.workspace.join(OLD))?;
            self.disk.rename(&copy, self.dir)?;
        }
        self.disk.sync_dir(&self.workspace)?;
        self.disk.sync_dir(parent_of(self.dir))
    }

    /// Puts the old directory beside the new one, and tidies.
    fn finish(&self, from: u32, to: u32) -> Result<PathBuf, StoreError> {
        let mut kept = beside(self.dir, &format!(".format-{from}"));
        let mut number = 1;
        while kept.exists() {
            number += 1;
            kept = beside(self.dir, &format!(".format-{from}.{number}"));
        }
        let old = self.workspace.join(OLD);
        let old = if old.exists() { old } else { self.step_dir(to) };
        self.disk.rename(&old, &kept)?;
        self.disk.sync_dir(&self.workspace)?;
        self.disk.sync_dir(parent_of(self.dir))?;
        self.discard()?;
        Ok(kept)
    }

    /// Finishes a migration that was cut after its swap had begun. One that was cut before begins
    /// anew: an older program may have written to the log since.
    fn finish_cut(&self, steps: &[&dyn Step]) -> Result<Option<Outcome>, Error> {
        let Some((from, to)) = self.ready()? else { return Ok(None) };
        let copy = self.step_dir(to);
        if !self.dir.exists() {
            self.disk.rename(&copy, self.dir)?;
            self.disk.sync_dir(parent_of(self.dir))?;
        } else if detect(self.dir, steps)? != to {
            return Ok(None);
        }
        if !self.workspace.join(OLD).exists() && !copy.exists() {
            // All but the tidying was done.
            return Ok(None);
        }
        let kept = self.finish(from, to)?;
        Ok(Some(Outcome::Migrated { from, to, kept }))
    }

    /// What the note says that is written when all copies are verified and synced.
    fn ready(&self) -> Result<Option<(u32, u32)>, StoreError> {
        let path = self.workspace.join(READY);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(from)), Some(Ok(to))) => Ok(Some((from, to))),
            _ => Err(Damage {
                from: Seq::ZERO,
                to: Seq::ZERO,
                file: path,
                detail: "the note of a migration cannot be read".to_owned(),
            }
            .into()),
        }
    }

    /// Deletes the workspace, the note first: without it nothing there counts.
    fn discard(&self) -> Result<(), StoreError> {
        if !self.workspace.exists() {
            return Ok(());
        }
        self.disk.remove_file(&self.workspace.join(READY))?;
        self.disk.sync_dir(&self.workspace)?;
        self.disk.remove_tree(&self.workspace)?;
        self.disk.sync_dir(parent_of(self.dir))
    }
}

fn parent_of(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(dir).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    entries.map_err(StoreError::io("list", dir))
}

fn tree_bytes(dir: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for path in list(dir)? {
        bytes += if path.is_dir() {
            tree_bytes(&path)?
        } else {
            path.metadata().map_err(StoreError::io("stat", &path))?.len()
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
