//! Reading all of a backup, without putting it back.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::manifest::{joint_of, parted};
use super::tail::Tail;
use super::target::{TRIMMED, hash_of, part_of};
use super::{Error, Manifest, Progress, RemovedRow, SegmentRow, Target};
use crate::export;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::segment::{Segment, write_file};
use tailmark_log::storage::{Removed, StoreError, local};
use tailmark_record::Seq;

/// What was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// First readable seq.
    pub oldest: Seq,
    /// Last seq.
    pub head: Seq,
    /// Bytes read.
    pub bytes: u64,
}

/// Compares all that belongs to a backup with its hashes, and follows the chain over its events; last the file that says
/// whose backups the place has.
///
/// # Errors
/// What is wrong first; [`Error::Removed`]; [`Error::Mark`] where the backup itself is whole; I/O, and what `watch` answers.
pub fn check(
    target: &Target,
    name: &str,
    manifest: &Manifest,
    mut watch: impl FnMut(Progress) -> io::Result<()>,
) -> Result<Checked, Error> {
    target.unless_removed(name, check_all(target, name, manifest, &mut watch))
}

fn check_all(
    target: &Target,
    name: &str,
    manifest: &Manifest,
    watch: &mut dyn FnMut(Progress) -> io::Result<()>,
) -> Result<Checked, Error> {
    let mut progress = Progress { done_bytes: 0, total_bytes: manifest.bytes() };
    let removed = manifest.removed.iter().map(|row| joint_of(&row.range()));
    let mut parts: Vec<_> = removed.collect();
    for row in &manifest.segments {
        let segment = target.segment(row, manifest)?;
        let begin = progress.done_bytes;
        let mut seen = |bytes| {
            progress.done_bytes += bytes;
            watch(progress).map_err(|error| export::Error::Output(error).into())
        };
        check_files(target, &segment, row, &mut seen)?;
        parts.push((segment.first(), segment.end(), segment.link_before(), segment.link()));
        progress.done_bytes = begin + row.bytes;
    }
    target.prove_tail(name, manifest, || {
        watch(progress).map_err(|error| export::Error::Output(error).into())
    })?;
    let mut tail = Tail::open(target.open_tail(name)?)?;
    parts.push(tail.joint());
    if parted(parts).is_some() {
        return Err(damaged(target, name, "a part does not join the one before"));
    }
    tail.belongs_to(manifest).map_err(|what| damaged(target, name, what))?;
    let begin = progress.done_bytes;
    while tail.read()?.is_some() {
        progress.done_bytes = begin + tail.bytes();
        watch(progress).map_err(export::Error::Output)?;
    }
    if tail.next.prev() != Seq::new(manifest.head_seq) {
        return Err(damaged(target, name, "it has not the events that it says"));
    }
    for name in &manifest.trimmed {
        let (_, _, range) = trimmed(target, name)?;
        let gone: Vec<_> = manifest.removed.iter().map(RemovedRow::range).collect();
        if !tells_of_gone(&range, Seq::new(manifest.oldest_seq), &gone) {
            let path = target.place.shown(&format!("{TRIMMED}/{name}"));
            let what = "it tells of events that are there";
            return Err(Error::Damaged { path, what });
        }
    }
    target.check_mark()?;
    let (oldest, head) = (Seq::new(manifest.oldest_seq), Seq::new(manifest.head_seq));
    Ok(Checked { oldest, head, bytes: progress.done_bytes })
}

/// Whether what tells repeats of a range is of one that is trimmed, or that has no events because rules took them out: else
/// the log knows those itself.
pub(super) fn tells_of_gone(range: &Range<Seq>, oldest: Seq, gone: &[Removed]) -> bool {
    let has_it = |it: &Removed| it.first <= range.start && range.end <= it.end && it.is_intended();
    range.end <= oldest || gone.iter().any(has_it)
}

/// What tells repeats, which has the hash that its name ends with; with the name that it has in a log, and
/// the seqs of which it tells.
fn trimmed<'a>(target: &Target, name: &'a str) -> Result<(Vec<u8>, &'a str, Range<Seq>), Error> {
    let file = format!("{TRIMMED}/{name}");
    let damaged = |what| Error::Damaged { path: target.place.shown(&file), what };
    let (plain, hash) = name.rsplit_once('-').ok_or_else(|| damaged("its name makes no sense"))?;
    let bytes = target.read(&file)?.ok_or_else(|| damaged("it is missing"))?;
    let found = xxhash_rust::xxh3::xxh3_128(&bytes);
    if format!("{found:032x}") != hash || plain.contains('/') {
        return Err(damaged("it is not what was written"));
    }
    let range = local::trimmed_range(Path::new(plain));
    let range = range.ok_or_else(|| damaged("its name makes no sense"))?;
    Ok((bytes, plain, range))
}

/// Puts one back, unless it tells of events that the log has, or has not come to.
pub(super) fn put_trimmed(
    target: &Target,
    name: &str,
    (oldest, gone): (Seq, &[Removed]),
    to: &Path,
    disk: &Disk,
) -> Result<(), Error> {
    let (bytes, plain, range) = trimmed(target, name)?;
    if tells_of_gone(&range, oldest, gone) {
        let shown = target.place.shown(name);
        write_file(&mut &*bytes, &shown, &to.join(plain), disk, &mut |_| Ok(()))?;
    }
    Ok(())
}

/// Compares the files of a segment with its footer.
fn check_files(
    target: &Target,
    segment: &Segment,
    row: &SegmentRow,
    seen: &mut dyn FnMut(u64) -> Result<(), Error>,
) -> Result<(), Error> {
    for part in segment.parts()? {
        let name = part_of(&row.name, &part.name);
        let path = target.place.shown(&name);
        let mut file = match target.place.open(&name) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Damaged { path, what: "it is missing" });
            }
            opened => opened.map_err(Error::Place)?,
        };
        if hash_of(&mut file, &path, &mut *seen)? != (part.len, part.hash) {
            return Err(Error::Damaged { path, what: "its bytes are not what was sealed" });
        }
    }
    Ok(())
}

fn damaged(target: &Target, name: &str, what: &'static str) -> Error {
    Error::Damaged { path: target.shown_manifest(name), what }
}
