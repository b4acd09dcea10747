//! Compacting a log that no process has open: all of it is copied forward into a new directory, and there neighbours
//! become one, as many as one segment has room for, without what is trimmed.
//!
//! ```text
//! from                 is read, and not changed but for its lock file
//! to.compacting/       the copy, until all is done; thrown away by the next attempt
//! to                   the log, whole
//! ```

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, is_at};
use super::local::{self, Claim, LocalEngine, Options, load_order};
use super::meta::META_FILE;
use super::salvage::{COMPACTION, Progress, Salvaged, copy_forward};
use super::unfinished::{beside, refuse_unfinished};
use super::{RemovedReason, Sealed, Store, StoreError, TakeOut};
use tailmark_record::Seq;

/// Segments that become one, and the seqs from the first of them to the last.
const MOST_SEGMENTS: usize = 256;
const MOST_SEQS: u64 = 1 << 30;

/// What it came to.
#[derive(Clone, Debug)]
pub struct Compacted {
    /// What was copied.
    pub copied: Salvaged,
    /// Segments there were, and those there are.
    pub segments: (u64, u64),
    /// Bytes of all files there were, and of those there are.
    pub bytes: (u64, u64),
}

/// Makes a log in `to`, which must be empty or not there, of the log in `from`. Seqs, cursors, ids and times stay, and what
/// tells repeats; a generation, `compacted`, begins after the last event. `watch` hears how far it is and ends it with an
/// error of its own; then there is nothing in `to`, and another attempt begins anew.
///
/// # Errors
/// No log, or one of another format; one that a process has open, or that has an erasure to finish; damage; a directory that is
/// not empty; I/O, a full disk.
pub fn compact(
    from: &Path,
    to: &Path,
    options: Options,
    watch: &mut dyn FnMut(Progress) -> std::io::Result<()>,
) -> Result<Compacted, StoreError> {
    refuse_unfinished(from)?;
    if !from.join(META_FILE).exists() {
        return Err(StoreError::Missing { path: from.to_owned() });
    }
    let disk = options.disk.clone();
    let to = &place(to, &disk)?;
    let claim = Claim::take(from, &disk)?;
    let found = local::survey(from, &disk)?;
    if let Some(damage) = found.damage.first() {
        return Err(damage.clone().into());
    }
    if let Some(journal) = found.meta.as_ref().and_then(|meta| meta.copy_of.clone()) {
        return Err(StoreError::IsCopy { path: from.to_owned(), journal });
    }
    let log = found.meta.as_ref().map(|meta| meta.log);
    if let Some(log) = log
        && load_order(from, &disk, log)?.is_some()
    {
        let what = "an erasure is not through: start the daemon, and let it finish";
        return Err(StoreError::Invalid(what));
    }
    let before = (found.segments.len() as u64, bytes_of(from));
    drop(found);
    let workspace = beside(to, ".compacting");
    let held = hold(&workspace, to, &disk)?;
    let made = make(from, &workspace, options, watch);
    let (copied, segments) = match made {
        Ok(made) => made,
        Err(error) => {
            // Gives the space back; if that fails too, the next attempt does.
            let _ = disk.remove_tree(&workspace);
            return Err(error);
        }
    };
    if let Err(error) = disk.rename(&workspace, to) {
        let _ = disk.remove_tree(&workspace);
        return Err(error);
    }
    disk.sync_names(to)?;
    drop((claim, held));
    Ok(Compacted { copied, segments: (before.0, segments), bytes: (before.1, bytes_of(to)) })
}

/// An empty directory to work in, which nobody else works in meanwhile: another log may be compacted to the same place.
fn hold(workspace: &Path, to: &Path, disk: &Disk) -> Result<File, StoreError> {
    disk.create_dir(workspace)?;
    let held = disk.open_read(workspace)?;
    let locked = || StoreError::Locked { path: workspace.to_owned(), owner: None };
    // Some file systems lock no directories: there nobody is kept away.
    if matches!(disk.lock(&held, workspace), Ok(false)) {
        return Err(locked());
    }
    // The other may just have been through with it.
    if !is_at(&held, workspace).map_err(StoreError::io("examine", workspace))? {
        return Err(locked());
    }
    if to.exists() && !disk.list(to)?.is_empty() {
        return Err(StoreError::NotEmpty { path: to.to_owned() });
    }
    for path in disk.list(workspace)? {
        match path.is_dir() {
            true => disk.remove_tree(&path)?,
            false => disk.remove_file(&path)?,
        }
    }
    Ok(held)
}

/// Where the log is to lie, by a name that another can be put beside: nothing, or an empty directory that can be
/// replaced.
fn place(to: &Path, disk: &Disk) -> Result<PathBuf, StoreError> {
    if !to.exists() {
        return Ok(to.to_owned());
    }
    let whole = to.canonicalize().map_err(StoreError::io("examine", to))?;
    if !disk.list(&whole)?.is_empty() {
        return Err(StoreError::NotEmpty { path: to.to_owned() });
    }
    let parent = whole.parent().unwrap_or(&whole);
    let device = |path: &Path| {
        let found = std::fs::metadata(path).map_err(StoreError::io("examine", path))?;
        Ok::<_, StoreError>(found.dev())
    };
    if whole == parent || device(&whole)? != device(parent)? {
        let what = "a mount point cannot be replaced by it; name a directory within it that is not there yet";
        return Err(StoreError::Unsuitable { path: to.to_owned(), what });
    }
    Ok(whole)
}

fn make(
    from: &Path,
    to: &Path,
    options: Options,
    watch: &mut dyn FnMut(Progress) -> std::io::Result<()>,
) -> Result<(Salvaged, u64), StoreError> {
    let copied = copy_forward(from, to, options.clone(), COMPACTION, watch)?;
    // What is damaged is for a salvage.
    if let Some(damage) = copied.damage.first() {
        return Err(damage.clone().into());
    }
    // Nothing is sealed, trimmed or forgotten meanwhile.
    let (engine, recovered) = local::open(to, options)?;
    drop(recovered);
    let joined = join(&engine, &mut |done, total| {
        watch(Progress::Joining(done, total)).map_err(StoreError::io("compact", from))
    });
    let closed = engine.close();
    joined?;
    closed?;
    Ok((copied, engine.status().segments))
}

/// Makes one of neighbours, and takes out what is trimmed.
fn join(
    engine: &Arc<LocalEngine>,
    watch: &mut dyn FnMut(u64, u64) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (all, oldest) = (engine.sealed(), engine.bounds().oldest);
    let total = all.iter().map(|it| it.raw_bytes).sum();
    let mut done = 0;
    for group in groups(&all) {
        let bytes: u64 = group.iter().map(|it| it.raw_bytes).sum();
        let first = group.first().map_or(oldest, |it| it.first);
        let trimmed = (first < oldest).then_some((first..oldest, RemovedReason::Expired));
        if group.len() > 1 || trimmed.is_some() {
            let seqs = trimmed.into_iter().collect();
            let order = TakeOut { sealed: group, seqs, named_from: Seq::FIRST };
            if engine.take_out(&order)?.is_none() {
                return Err(StoreError::Invalid("a segment is not what it was"));
            }
        }
        done += bytes;
        watch(done, total)?;
    }
    Ok(())
}

/// Neighbours that have room in one.
fn groups(all: &[Sealed]) -> Vec<Vec<Sealed>> {
    let mut groups: Vec<Vec<Sealed>> = Vec::new();
    for one in all {
        let has_room = |group: &&mut Vec<Sealed>| {
            let bytes: u64 = group.iter().map(|it| it.raw_bytes).sum();
            let seqs = group.first().map_or(0, |first| first.first.distance_to(one.end));
            bytes + one.raw_bytes <= one.full_bytes
                && seqs <= MOST_SEQS
                && group.len() < MOST_SEGMENTS
        };
        match groups.last_mut().filter(has_room) {
            Some(group) => group.push(*one),
            None => groups.push(vec![*one]),
        }
    }
    groups
}

fn bytes_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_of(&entry.path()),
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    });
    bytes.sum()
}
