//! Removing old backups, and what no other needs.
//!
//! A backup is gone when its last file is: that goes first, and durably, so that nothing that is listed ever lacks a part.
//! What is cut leaves parts that belong to nothing, and the next run removes them. Where there are no locks whoever prunes
//! leaves a note while he does it ([`super::notes`]), and so does whoever takes a backup: neither begins beside the other.
//! A backup of which a part has gone all the same, as by a note that was too old, is none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::notes::{Note, Work, is_young, refuse_beside};
use super::place::{self, Listed, Place, Use};
use super::target::{
    BACKUPS, SEGMENTS, TRIMMED, footer_of, is_unfinished, manifest, named_tail, segment_of,
    stamp_of, tail,
};
use super::{Error, Progress, Target};
use crate::export;
use tailmark_record::Timestamp;

/// Which backups stay. The newest always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many, the newest.
    Newest(usize),
    /// Those that were taken at this time or later, by any of the clocks that tell it: that of the machine on which it was
    /// taken, those of the backups before it, that of the store of a cloud.
    Since(Timestamp),
}

/// What was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Backups that went, the oldest first.
    pub removed: Vec<String>,
    /// Backups that stay.
    pub kept: Vec<String>,
    /// Those of them that are too old by the clock of the machine on which they were taken, and not by another.
    pub doubtful: Vec<String>,
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
    let target = Target::of(place::at(path, Use::Read)?)?;
    if target.place.holds_one() {
        return Err(Error::OneBackup { path: path.to_owned() });
    }
    prune_in(target, keep, is_dry_run, &mut watch)
}

fn prune_in(
    mut target: Target,
    keep: Keep,
    is_dry_run: bool,
    watch: &mut dyn FnMut(Progress) -> io::Result<()>,
) -> Result<Pruned, Error> {
    target.check_mark()?;
    if !is_dry_run {
        target.claim()?;
    }
    let mut note = match is_dry_run || target.place.has_locks() {
        true => None,
        false => Some(Note::leave(&*target.place, Work::Pruning)?),
    };
    let done = prune_noted(&target, keep, is_dry_run, note.as_mut(), watch);
    if let Some(note) = note {
        note.remove(&*target.place);
    }
    done
}

fn prune_noted(
    target: &Target,
    keep: Keep,
    is_dry_run: bool,
    mut note: Option<&mut Note>,
    watch: &mut dyn FnMut(Progress) -> io::Result<()>,
) -> Result<Pruned, Error> {
    let place = &*target.place;
    refuse_beside(place, Work::Taking)?;
    if !place.has_locks() {
        refuse_beside_a_backup(target)?;
    }
    let plan = Plan::new(target, keep)?;
    if !is_dry_run {
        let total_bytes = plan.pruned.freed_bytes;
        let mut done_bytes = 0;
        plan.carry_out(place, &mut |bytes| {
            done_bytes += bytes;
            if let Some(note) = &mut note {
                note.keep(place)?;
            }
            let told = watch(Progress { done_bytes, total_bytes });
            told.map_err(|error| export::Error::Output(error).into())
        })?;
    }
    Ok(plan.pruned)
}

/// A backup of which a part is not there any more, because one who pruned has removed it, is none: it goes again.
pub(super) fn withdraw_if_pruned(
    target: &Target,
    name: &str,
    files: &BTreeMap<String, u64>,
) -> Result<(), Error> {
    if target.place.has_locks() {
        return Ok(());
    }
    let found = refuse_beside(&*target.place, Work::Pruning)
        .and_then(|()| expect_files(&*target.place, files));
    if let Err(error) = found {
        for file in [manifest(name), tail(name)] {
            target.place.remove(&file).map_err(Error::Place)?;
        }
        return Err(error);
    }
    Ok(())
}

/// That all files that a backup counts on are there, as long as they were.
pub(super) fn expect_files(place: &dyn Place, files: &BTreeMap<String, u64>) -> Result<(), Error> {
    let mut there = HashMap::new();
    for folder in [BACKUPS, SEGMENTS, TRIMMED] {
        let listed = place.list(folder).map_err(Error::Place)?.into_iter();
        there.extend(listed.map(|file| (file.name, file.len)));
    }
    match files.iter().find(|(name, len)| there.get(*name) != Some(len)) {
        Some((name, _)) => {
            let path = place.shown(name);
            Err(Error::Busy { path, what: "it was removed while this backup was taken" })
        }
        None => Ok(()),
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
        let Split { removed, kept, doubtful } = split(target, names, keep)?;
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
        // Where there are locks nobody is writing what has no name yet.
        let is_left = |file: &Listed| {
            is_unfinished(file) || named_tail(file).is_some_and(|name| !is_kept.contains(name))
        };
        let mut tails: Vec<_> = others.into_iter().filter(is_left).collect();
        let mut segments: HashMap<String, Vec<Listed>> = HashMap::new();
        for file in place.list(SEGMENTS).map_err(Error::Place)? {
            let Some(name) = segment_of(&file.name) else { continue };
            if !segments_kept.contains(name) {
                segments.entry(name.to_owned()).or_default().push(file);
            } else if is_unfinished(&file) {
                tails.push(file);
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
        let count = segments.len() as u64;
        let pruned = Pruned { removed, kept, doubtful, segments: count, freed_bytes };
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

/// What goes and what stays, as in [`Pruned`].
struct Split {
    removed: Vec<String>,
    kept: Vec<String>,
    doubtful: Vec<String>,
}

fn split(target: &Target, mut names: Vec<String>, keep: Keep) -> Result<Split, Error> {
    let (mut removed, mut kept, mut doubtful) = (Vec::new(), Vec::new(), Vec::new());
    let time = match keep {
        Keep::Newest(count) => {
            let kept = names.split_off(names.len().saturating_sub(count.max(1)));
            return Ok(Split { removed: names, kept, doubtful });
        }
        Keep::Since(time) => time.seconds,
    };
    let listed = target.place.list(BACKUPS).map_err(Error::Place)?;
    let newest = names.pop();
    for name in names {
        // A clock that was behind makes one older than it is, and what was wrong for a time is right again. Each name says
        // at least the second of the one before.
        let stamp =
            stamp_of(&name).map_or(i64::MAX, |stamp| i64::try_from(stamp).unwrap_or(i64::MAX));
        let taken_at = match target.backup(Some(&name)) {
            Ok((_, manifest)) => manifest.taken_at,
            Err(Error::Damaged { .. }) => stamp,
            Err(error) => return Err(error),
        };
        let file = manifest(&name);
        let written = listed.iter().find(|it| it.name == file).and_then(|it| it.written_at);
        let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let written = written.map_or(i64::MIN, |since| since.as_secs().cast_signed());
        if taken_at.max(stamp).max(written) < time {
            removed.push(name);
            continue;
        }
        if taken_at < time {
            doubtful.push(name.clone());
        }
        kept.push(name);
    }
    kept.extend(newest);
    Ok(Split { removed, kept, doubtful })
}

#[cfg(test)]
mod tests;
