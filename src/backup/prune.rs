//! Removing old backups, and what no other needs.
//!
//! A backup is gone when its last file is: that goes first, and durably, so that nothing that is listed ever lacks a part.
//! What is cut leaves parts that belong to nothing, and the next run removes them. Where there are no locks whoever prunes
//! leaves a note while he does it: a backup that ends meanwhile may count on a segment that has just gone, and is none then.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::place::{self, Listed, Place, Use};
use super::target::{
    BACKUPS, SEGMENTS, TRIMMED, footer_of, manifest, named_tail, segment_of, stamp_of, tail,
};
use super::{Error, Manifest, Progress, Target};
use crate::export;
use tailmark_record::Timestamp;

/// Notes of those who prune a place without locks.
const PRUNING: &str = "pruning";
/// What is older is of one who was killed.
const AT_WORK: Duration = Duration::from_secs(24 * 60 * 60);

/// Which backups stay. The newest always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many, the newest.
    Newest(usize),
    /// Those that were taken at this time or later.
    Since(Timestamp),
}

/// What was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Backups that went, the oldest first.
    pub removed: Vec<String>,
    /// Backups that stay.
    pub kept: Vec<String>,
    /// Segments that went: no backup that stays has them.
    pub segments: u64,
    /// Bytes of all files that went.
    pub freed_bytes: u64,
}

/// Removes the backups that are not to be kept from a place, and all that no other needs; what attempts that were cut
/// have left goes, too. `watch` hears how far it is and ends it with an error of its own; another run goes on.
///
/// # Errors
/// [`Error::Busy`], and a lock that is held, where a backup is under way; [`Error::OneBackup`] of a file; a backup that
/// is to be kept and cannot be read, for nobody knows what it needs; [`Error::Mark`]; I/O. Nothing was removed then, but
/// for I/O.
pub fn prune(
    path: &Path,
    keep: Keep,
    is_dry_run: bool,
    mut watch: impl FnMut(Progress) -> io::Result<()>,
) -> Result<Pruned, Error> {
    let mut target = Target::of(place::at(path, Use::Read)?)?;
    if target.place.holds_one() {
        return Err(Error::OneBackup { path: path.to_owned() });
    }
    target.check_mark()?;
    if !is_dry_run {
        target.claim()?;
    }
    let _note = match is_dry_run || target.place.has_locks() {
        true => None,
        false => Some(Note::leave(&*target.place)?),
    };
    if !target.place.has_locks() {
        refuse_beside_a_backup(&target)?;
    }
    let plan = Plan::new(&target, keep)?;
    if !is_dry_run {
        let total_bytes = plan.pruned.freed_bytes;
        let mut done_bytes = 0;
        plan.carry_out(&*target.place, &mut |bytes| {
            done_bytes += bytes;
            let told = watch(Progress { done_bytes, total_bytes });
            told.map_err(|error| export::Error::Output(error).into())
        })?;
    }
    Ok(plan.pruned)
}

/// Refuses to begin a backup beside one who prunes.
pub(super) fn refuse_beside_pruning(place: &dyn Place) -> Result<(), Error> {
    if place.has_locks() {
        return Ok(());
    }
    let notes = place.list(PRUNING).map_err(Error::Place)?;
    match notes.iter().find(|note| is_young(note)) {
        Some(note) => {
            let path = place.shown(&note.name);
            Err(Error::Busy { path, what: "backups are being removed here" })
        }
        None => Ok(()),
    }
}

/// A backup that counts on a segment which one who pruned has removed is none: it goes again.
pub(super) fn withdraw_if_pruned(
    target: &Target,
    name: &str,
    manifest: &Manifest,
) -> Result<(), Error> {
    if target.place.has_locks() {
        return Ok(());
    }
    let is_pruned = || -> Result<bool, Error> {
        refuse_beside_pruning(&*target.place)?;
        let listed = target.place.list(SEGMENTS).map_err(Error::Place)?;
        let there: HashSet<_> = listed.iter().map(|file| file.name.as_str()).collect();
        let is_gone = |name: &String| !there.contains(footer_of(name).as_str());
        Ok(manifest.segments.iter().any(|row| is_gone(&row.name)))
    };
    let error = match is_pruned() {
        Ok(false) => return Ok(()),
        Ok(true) => {
            let path = target.place.shown("");
            Error::Busy { path, what: "backups were removed while this one was taken" }
        }
        Err(error) => error,
    };
    for file in [super::target::manifest(name), tail(name)] {
        target.place.remove(&file).map_err(Error::Place)?;
    }
    Err(error)
}

fn is_young(file: &Listed) -> bool {
    let age = file.written_at.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_none_or(|age| age < AT_WORK)
}

/// Says that somebody prunes, for as long as he does.
struct Note<'a> {
    place: &'a dyn Place,
    name: String,
}

impl Note<'_> {
    fn leave(place: &dyn Place) -> Result<Note<'_>, Error> {
        for old in place.list(PRUNING).map_err(Error::Place)? {
            if !is_young(&old) {
                place.remove(&old.name).map_err(Error::Place)?;
            }
        }
        let name = format!("{PRUNING}/{:016x}", rand::random::<u64>());
        place.put_new(&name, b"").map_err(Error::Place)?;
        Ok(Note { place, name })
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        // Where it cannot be removed it counts for a day.
        let _ = self.place.remove(&self.name);
    }
}

/// A backup that is under way has its unsealed part there, and no manifest yet.
fn refuse_beside_a_backup(target: &Target) -> Result<(), Error> {
    let listed = target.place.list(BACKUPS).map_err(Error::Place)?;
    let names: HashSet<_> = target.names()?.into_iter().collect();
    let begun = listed
        .iter()
        .find(|file| named_tail(file).is_some_and(|name| !names.contains(name)) && is_young(file));
    match begun {
        Some(file) => {
            let path = target.place.shown(&file.name);
            Err(Error::Busy {
                path,
                what: "a backup is under way here, or was killed within a day",
            })
        }
        None => Ok(()),
    }
}

/// What goes.
struct Plan {
    pruned: Pruned,
    /// Files of backups that go.
    tails: Vec<Listed>,
    manifests: Vec<Listed>,
    segments: Vec<(String, Vec<Listed>)>,
    trimmed: Vec<Listed>,
}

impl Plan {
    fn new(target: &Target, keep: Keep) -> Result<Plan, Error> {
        let place = &*target.place;
        let names = target.names()?;
        let (removed, kept) = split(target, names, keep)?;
        let (mut segments_kept, mut trimmed_kept) = (HashSet::new(), HashSet::new());
        for name in &kept {
            // What it needs nobody knows if it cannot be read.
            let (_, manifest) = target.backup(Some(name))?;
            segments_kept.extend(manifest.segments.into_iter().map(|row| row.name));
            trimmed_kept.extend(manifest.trimmed);
        }
        let backups = place.list(BACKUPS).map_err(Error::Place)?;
        if !removed.is_empty() {
            expect_whole(target, &kept, &segments_kept, &backups)?;
        }
        let is_kept: HashSet<_> = kept.iter().map(String::as_str).collect();
        let of_them: HashSet<_> = removed.iter().map(|name| manifest(name)).collect();
        let (manifests, others): (Vec<_>, Vec<_>) =
            backups.into_iter().partition(|file| of_them.contains(&file.name));
        let is_left = |file: &Listed| named_tail(file).is_some_and(|name| !is_kept.contains(name));
        let tails: Vec<_> = others.into_iter().filter(is_left).collect();
        let mut segments: HashMap<String, Vec<Listed>> = HashMap::new();
        for file in place.list(SEGMENTS).map_err(Error::Place)? {
            let Some(name) = segment_of(&file.name) else { continue };
            if !segments_kept.contains(name) {
                segments.entry(name.to_owned()).or_default().push(file);
            }
        }
        // What is young and belongs to nothing may be of a backup that has just begun.
        let of_removed = match place.has_locks() {
            true => None,
            false => Some(parts_of(target, &removed)?),
        };
        let goes = |name: &str, file: &Listed| {
            of_removed.as_ref().is_none_or(|known| known.contains(name) || !is_young(file))
        };
        segments.retain(|name, files| files.iter().all(|file| goes(name, file)));
        let mut segments: Vec<_> = segments.into_iter().collect();
        segments.sort_by(|one, other| one.0.cmp(&other.0));
        let trimmed = place.list(TRIMMED).map_err(Error::Place)?.into_iter();
        let of_trimmed = |file: &Listed| {
            let name = file.name.strip_prefix(TRIMMED).and_then(|name| name.strip_prefix('/'));
            name.is_some_and(|name| !trimmed_kept.contains(name) && goes(name, file))
        };
        let trimmed: Vec<_> = trimmed.filter(of_trimmed).collect();
        let of_segments = segments.iter().flat_map(|(_, files)| files);
        let all = manifests.iter().chain(&tails).chain(of_segments).chain(&trimmed);
        let freed_bytes = all.map(|file| file.len).sum();
        let pruned = Pruned { removed, kept, segments: segments.len() as u64, freed_bytes };
        Ok(Plan { pruned, tails, manifests, segments, trimmed })
    }

    fn carry_out(
        &self,
        place: &dyn Place,
        freed: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let remove = |file: &Listed| place.remove(&file.name).map_err(Error::Place);
        for file in &self.manifests {
            freed(file.len)?;
            remove(file)?;
        }
        // Before anything goes that such a backup names.
        place.settle(BACKUPS).map_err(Error::Place)?;
        for file in &self.tails {
            freed(file.len)?;
            remove(file)?;
        }
        for (name, files) in &self.segments {
            // It counts by its footer.
            let (footer, others): (Vec<_>, Vec<_>) =
                files.iter().partition(|file| file.name == footer_of(name));
            for file in footer.into_iter().chain(others) {
                freed(file.len)?;
                remove(file)?;
            }
            place.remove_folder(&format!("{SEGMENTS}/{name}")).map_err(Error::Place)?;
        }
        for file in &self.trimmed {
            freed(file.len)?;
            remove(file)?;
        }
        for folder in [BACKUPS, SEGMENTS, TRIMMED] {
            place.settle(folder).map_err(Error::Place)?;
        }
        Ok(())
    }
}

/// What stays must be a backup: else one that can be restored goes, and one that cannot stays.
fn expect_whole(
    target: &Target,
    kept: &[String],
    segments: &HashSet<String>,
    backups: &[Listed],
) -> Result<(), Error> {
    let damaged = |name: String| {
        let what = "a backup that stays needs it; nothing was removed";
        Err(Error::Damaged { path: target.place.shown(&name), what })
    };
    for name in kept {
        let tail = tail(name);
        if !backups.iter().any(|file| file.name == tail) {
            return damaged(tail);
        }
    }
    let whole = target.whole_segments(|name| segments.contains(name))?;
    match segments.iter().filter(|name| !whole.contains(*name)).min() {
        Some(name) => damaged(footer_of(name)),
        None => Ok(()),
    }
}

/// Names of the segments, and of what tells repeats, that some backups have.
fn parts_of(target: &Target, names: &[String]) -> Result<HashSet<String>, Error> {
    let mut parts = HashSet::new();
    for name in names {
        match target.backup(Some(name)) {
            Ok((_, manifest)) => {
                parts.extend(manifest.segments.into_iter().map(|row| row.name));
                parts.extend(manifest.trimmed);
            }
            Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

/// Those that go, and those that stay.
fn split(
    target: &Target,
    mut names: Vec<String>,
    keep: Keep,
) -> Result<(Vec<String>, Vec<String>), Error> {
    let count = match keep {
        Keep::Newest(count) => names.len().saturating_sub(count.max(1)),
        Keep::Since(time) => {
            let (mut removed, mut kept) = (Vec::new(), Vec::new());
            let newest = names.pop();
            for name in names {
                let taken_at = match target.backup(Some(&name)) {
                    Ok((_, manifest)) => manifest.taken_at,
                    // Its name tells it too.
                    Err(Error::Damaged { .. }) => {
                        stamp_of(&name).map_or(i64::MAX, |stamp| stamp.cast_signed())
                    }
                    Err(error) => return Err(error),
                };
                let list = if taken_at < time.seconds { &mut removed } else { &mut kept };
                list.push(name);
            }
            kept.extend(newest);
            return Ok((removed, kept));
        }
    };
    let kept = names.split_off(count);
    Ok((names, kept))
}

#[cfg(test)]
mod tests;
