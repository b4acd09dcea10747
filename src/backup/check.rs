//! Reading all of a backup, without putting it back.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::restore::{READ_BYTES, Tail};
use super::{Error, Manifest, Progress, Target};
use tailmark_log::chain::Link;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::local;
use tailmark_log::storage::segment::{Segment, copy_file};
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

/// Compares all that belongs to a backup with its hashes, and follows the chain over its events.
///
/// # Errors
/// What is wrong first; I/O, and what `watch` answers.
pub fn check(
    target: &Target,
    name: &str,
    manifest: &Manifest,
    mut watch: impl FnMut(Progress) -> io::Result<()>,
) -> Result<Checked, Error> {
    let mut progress = Progress { done_bytes: 0, total_bytes: manifest.bytes() };
    let mut at: Option<(Seq, Link)> = None;
    for row in &manifest.segments {
        let segment = load(target, row, manifest)?;
        segment.check_files()?;
        let joins = at.is_none_or(|at| at == (segment.first(), segment.link_before()));
        if !joins {
            return Err(damaged(target, name, "a segment does not join the one before"));
        }
        at = Some((segment.end(), segment.link()));
        progress.done_bytes += row.bytes;
        watch(progress).map_err(crate::export::Error::Output)?;
    }
    let path = target.tail(name);
    let file = File::open(&path).map_err(crate::export::Error::Input)?;
    let mut tail = Tail::open(BufReader::with_capacity(READ_BYTES, file))?;
    if at.is_some_and(|at| at != (tail.next, tail.link)) {
        return Err(damaged(target, name, "what was not sealed does not join the segments"));
    }
    let begin = progress.done_bytes;
    while tail.read()?.is_some() {
        progress.done_bytes = begin + tail.bytes();
        watch(progress).map_err(crate::export::Error::Output)?;
    }
    if tail.next.prev() != Seq::new(manifest.head_seq) {
        return Err(damaged(target, name, "it has not the events that it says"));
    }
    for name in &manifest.trimmed {
        let (_, end) = check_trimmed(target, name)?;
        if end > Seq::new(manifest.oldest_seq) {
            let (path, what) = (target.trimmed(name), "it tells of events that were not trimmed");
            return Err(Error::Damaged { path, what });
        }
    }
    let (oldest, head) = (Seq::new(manifest.oldest_seq), Seq::new(manifest.head_seq));
    Ok(Checked { oldest, head, bytes: progress.done_bytes })
}

/// The segment of a row, which has the footer that the row names.
pub(super) fn load(
    target: &Target,
    row: &super::SegmentRow,
    manifest: &Manifest,
) -> Result<Segment, Error> {
    let path = target.segment(&row.name);
    let segment = Segment::load(&path, &target.disk)?;
    let named = format!("{}-{}", segment.name(), super::target::hex(segment.digest()?));
    let range = (segment.first().get(), segment.end().prev().get());
    if named != row.name
        || range != (row.first_seq, row.last_seq)
        || segment.log_id().to_string() != manifest.log_id
    {
        return Err(Error::Damaged { path, what: "it is another segment than its name says" });
    }
    Ok(segment)
}

/// That a file has the hash that its name ends with; answers the name that it has in a log, and the seq
/// after the last event that it tells repeats of.
fn check_trimmed<'a>(target: &Target, name: &'a str) -> Result<(&'a str, Seq), Error> {
    let path = target.trimmed(name);
    let damaged = |what| Error::Damaged { path: path.clone(), what };
    let (plain, hash) = name.rsplit_once('-').ok_or_else(|| damaged("its name makes no sense"))?;
    let bytes = target.disk.read(&path)?.ok_or_else(|| damaged("it is missing"))?;
    let found = xxhash_rust::xxh3::xxh3_128(&bytes);
    if format!("{found:032x}") != hash || plain.contains('/') {
        return Err(damaged("it is not what was written"));
    }
    let end = local::trimmed_end(Path::new(plain));
    Ok((plain, end.ok_or_else(|| damaged("its name makes no sense"))?))
}

/// Puts one back, unless it tells of events from `oldest` on: the log knows those itself, or has none such.
pub(super) fn copy_trimmed(
    target: &Target,
    name: &str,
    oldest: Seq,
    to: &Path,
    disk: &Disk,
) -> Result<(), Error> {
    let (plain, end) = check_trimmed(target, name)?;
    if end > oldest {
        return Ok(());
    }
    copy_file(&target.trimmed(name), &to.join(plain), disk, &mut |_| Ok(()))?;
    Ok(())
}

fn damaged(target: &Target, name: &str, what: &'static str) -> Error {
    Error::Damaged { path: target.manifest(name), what }
}
