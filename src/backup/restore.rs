//! A log made of a backup: all of it, or as it was at a point in time.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::check::put_trimmed;
use super::earlier::Source;
use super::plan::{Plan, Since, TailFile, Upto};
use super::tail::Tail;
use super::target::{Damaged, refuse_log_within};
use super::{Error, Manifest, Progress, Target};
use crate::export::{self, Collector};
use tailmark_log::chain::Link;
use tailmark_log::storage::forward::{Forward, Start};
use tailmark_log::storage::segment::{OfflineReader, Segment};
use tailmark_log::storage::unfinished::Making;
use tailmark_log::storage::{Damage, EraseOrder, RemovedReason, StoreError, local};
use tailmark_record::topic::Filter;
use tailmark_record::{Events, GenerationTable, Seq, Timestamp};

/// What a directory says whose restore was cut.
const WHAT: &str = "restore";

/// What of a backup is put back, and how.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// What of that which had been trimmed.
    pub since: Since,
    /// How much.
    pub upto: Upto,
    /// Segments that are damaged are put in as they are, and those whose footer is lost are ranges of lost events. Else
    /// damage ends it.
    pub keeps_damage: bool,
}

impl From<(Since, Upto)> for Wanted {
    fn from((since, upto): (Since, Upto)) -> Wanted {
        Wanted { since, upto, keeps_damage: false }
    }
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// First readable seq.
    pub oldest: Seq,
    /// Last seq.
    pub head: Seq,
    /// The generation that begins after it.
    pub generation: u16,
    /// Segments that an attempt before this one had brought.
    pub kept_segments: u64,
    /// Events among them that had been trimmed when the backup was taken.
    pub untrimmed: u64,
    /// Seqs among them of which the events had been taken out by rules for topics when the backup was taken.
    pub taken_out: u64,
    /// An erasure that was not through when the backup was taken, as far as it concerns these: whoever opens the log goes
    /// on with it.
    pub erasing: Option<Arc<EraseOrder>>,
    /// What is damaged in it, and so in what was made. Empty but for [`Wanted::keeps_damage`].
    pub damage: Vec<Damage>,
}

/// Makes a log in `dir`, which must be empty or not there, of a backup. Every file is compared with its hashes
/// and the chain over the events joins. A generation, `restored`, begins after the last event. `watch` hears
/// how far it is and ends it with an error of its own; then the directory says that it is unfinished, and
/// another attempt goes on with the segments that are there.
///
/// # Errors
/// What is damaged, unless it is to be kept; a directory that is not empty; a point in time that the
/// backup does not have; [`Error::Removed`]; I/O.
pub fn restore(
    target: &Target,
    name: &str,
    manifest: &Manifest,
    wanted: impl Into<Wanted>,
    dir: &Path,
    options: local::Options,
    mut watch: impl FnMut(Progress) -> io::Result<()>,
) -> Result<Restored, Error> {
    let done = restore_all(target, name, manifest, wanted.into(), dir, options, &mut watch);
    target.unless_removed(name, done)
}

fn restore_all(
    target: &Target,
    name: &str,
    manifest: &Manifest,
    wanted: Wanted,
    dir: &Path,
    options: local::Options,
    watch: &mut dyn FnMut(Progress) -> io::Result<()>,
) -> Result<Restored, Error> {
    let Wanted { since, upto, keeps_damage } = wanted;
    refuse_log_within(dir)?;
    let mut progress = Progress { done_bytes: 0, total_bytes: manifest.bytes() };
    target.prove_tail(name, manifest, || {
        watch(progress).map_err(|error| export::Error::Output(error).into())
    })?;
    let mut plan = Plan::new(target, name, manifest, upto, keeps_damage)?;
    let mut damage = std::mem::take(&mut plan.damage);
    plan.reach_back(target, name, since, &mut || {
        watch(progress).map_err(|error| export::Error::Output(error).into())
    })?;
    progress.total_bytes = progress.total_bytes.max(plan.bytes() + manifest.tail_bytes);
    let disk = options.disk.clone();
    let mut making = Making::begin(dir, &disk, WHAT)?;
    let segments_dir = dir.join(local::SEGMENTS_DIR);
    let head = plan.end.prev();
    let mut meta = plan.origin.meta.clone();
    let begun = meta.generations.with_next(rand::random(), plan.end, Timestamp::now(), "restored");
    meta.generations = begun.ok_or(StoreError::Invalid("the log has used up its generations"))?;
    let generation = meta.generations.current().generation.counter;
    let ours = meta.generations.clone();
    let kept = kept(&making, &segments_dir, &plan, &ours)?;
    let (first, link) = plan.begin();
    let start = Start { first, link, oldest: plan.oldest };
    let mut forward = Forward::begin(dir, options, meta, start)?;
    let mut kept_segments = 0;
    for part in &plan.parts {
        if part.first >= plan.end {
            break;
        }
        let (segment, row) = match &part.source {
            Source::Segment(segment, row) => (segment, row),
            Source::Gone(range) => {
                forward.removed(range.end, range.reason, range.link)?;
                continue;
            }
            Source::Tail(other) => {
                let mut tail = plan.open_tail(target, other)?;
                let end = part.end.min(plan.end);
                let mut seen =
                    |bytes| watch(Progress { done_bytes: progress.done_bytes + bytes, ..progress });
                forward = events_of(&mut tail, end, forward, &mut seen)?;
                progress.done_bytes += tail.bytes();
                continue;
            }
        };
        if plan.takes_whole(part, segment, &ours) {
            if kept.contains(&segment.name()) {
                kept_segments += 1;
                progress.done_bytes += row.bytes;
                forward.adopt(&Segment::load(&segments_dir.join(segment.name()), &disk)?)?;
            } else {
                let mut copied = |bytes| {
                    progress.done_bytes += bytes;
                    watch(progress)
                };
                let mut written = |file: &Arc<File>, path: &Path| making.settle(file, path);
                let parent = &segments_dir;
                let mut damaged = |found: Damage| match keeps_damage {
                    true => {
                        damage.push(found);
                        Ok(())
                    }
                    false => Err(found.into()),
                };
                let how = (&mut copied as _, &mut written as _, &mut damaged as _);
                let copy = target.bring(segment, row, parent, &disk, how)?;
                forward.adopt(&copy)?;
            }
        } else {
            let mut damaged = |found: Damage| match keeps_damage {
                true => {
                    damage.push(found);
                    Ok(())
                }
                false => Err(found.into()),
            };
            let mut copied = |_| watch(progress);
            let here = target.fetch_noting(segment, row, &mut copied, &mut damaged)?;
            let range = part.first..part.end.min(plan.end);
            forward = part_of(&here, range, &segments_dir, forward, &mut damaged)?;
            progress.done_bytes += row.bytes;
        }
        watch(progress).map_err(export::Error::Output)?;
    }
    let mut tail = plan.open_tail(target, name)?;
    let mut seen = |bytes| watch(Progress { done_bytes: progress.done_bytes + bytes, ..progress });
    let forward = events_of(&mut tail, plan.end, forward, &mut seen)?;
    let reached = (tail.next, tail.link);
    // All of it was proved only at its end.
    while tail.read()?.is_some() {}
    if forward.next() != plan.end {
        let path = target.shown_manifest(name);
        return Err(Error::Damaged { path, what: "events are missing" });
    }
    // A point before what was not sealed has its own proof: each segment joins the one before.
    if reached.0 == plan.end && !reached.1.joins(forward.link()) {
        let path = target.shown_manifest(name);
        return Err(Error::Damaged { path, what: "the chain over its events is another" });
    }
    let trimmed = dir.join(local::TRIMMED_DIR);
    disk.create_dir(&trimmed)?;
    let gone = plan.gone();
    for name in &manifest.trimmed {
        put_trimmed(target, name, (plan.oldest, &gone), &trimmed, &disk)?;
    }
    if !damage.is_empty() {
        // What was removed is not damaged.
        target.backup(Some(name))?;
    }
    let taken_out = forward.taken_out();
    let order = plan.origin.erasing.clone();
    let erasing = forward.erasing(order).finish(plan.rest())?;
    making.finish()?;
    let untrimmed = plan.oldest.distance_to(Seq::new(manifest.oldest_seq).min(plan.end));
    let oldest = plan.oldest;
    Ok(Restored { oldest, head, generation, kept_segments, untrimmed, taken_out, erasing, damage })
}

/// Puts in the events below `end` of what was not sealed.
fn events_of<'a>(
    tail: &mut Tail<TailFile>,
    end: Seq,
    forward: Forward<'a>,
    seen: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Forward<'a>, Error> {
    let mut collector = Collector::new(forward);
    while tail.next < end {
        let Some(event) = tail.read()? else { break };
        collector.add(&event).map_err(export::Error::Store)?;
        seen(tail.bytes()).map_err(export::Error::Output)?;
    }
    Ok(collector.finish().map_err(export::Error::Store)?)
}

/// Segments that an attempt before this one has brought whole and that this one takes as they are; all else
/// of it goes. That attempt may have been up to another point.
fn kept(
    making: &Making,
    segments_dir: &Path,
    plan: &Plan,
    ours: &GenerationTable,
) -> Result<HashSet<String>, Error> {
    let mut kept = HashSet::new();
    making.clear_but(segments_dir, |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut taken = plan.segments().filter(|(part, it)| plan.takes_whole(part, it, ours));
        let from = taken.find(|(_, segment)| segment.name() == name);
        let is_whole = from.is_some_and(|(_, from)| {
            Segment::load(path, making.disk()).is_ok_and(|copy| {
                let is_same = from.digest().is_ok_and(|wanted| copy.digest().ok() == Some(wanted));
                is_same && copy.check_files().is_ok()
            })
        });
        if is_whole {
            kept.insert(name);
        }
        is_whole
    })?;
    Ok(kept)
}

/// The events of a part of a segment, stamped anew, with the runs of those that are gone in their places. What is damaged
/// of it is one, if `damaged` lets it be.
fn part_of<'a>(
    segment: &Arc<Segment>,
    range: Range<Seq>,
    scratch: &Path,
    forward: Forward<'a>,
    damaged: Damaged<'_>,
) -> Result<Forward<'a>, StoreError> {
    let (mut at, end) = (range.start, range.end.min(segment.end()));
    let mut collector = Collector::new(forward);
    let reader = match OfflineReader::of(Arc::clone(segment), scratch) {
        Err(StoreError::Damaged(damage)) => {
            damaged(damage)?;
            collector.remove((RemovedReason::Damaged, end, Link::UNKNOWN))?;
            return collector.finish();
        }
        reader => reader?,
    };
    // Of what is gone, too, repeats are told.
    let mut named = match segment.named() {
        Err(StoreError::Damaged(damage)) => {
            damaged(damage)?;
            Vec::new()
        }
        named => named?,
    };
    if at > segment.first() {
        named.retain(|(seq, _)| *seq >= at);
    }
    collector.named(named);
    while at < end {
        match reader.read(at, end, &Filter::ALL) {
            Ok(chunk) => {
                at = chunk.end;
                for event in Events::new(&chunk.events) {
                    let malformed = |_| StoreError::Invalid("an event is malformed");
                    collector.add(event.map_err(malformed)?)?;
                }
            }
            Err(StoreError::Removed(range)) if range.contains(at) && range.end <= end => {
                at = range.end;
                collector.remove((range.reason, range.end, range.link))?;
            }
            Err(StoreError::Damaged(damage)) => {
                // Never before what was asked for, or it would be asked for again.
                let behind = damage.to.next().max(at.next()).min(end);
                damaged(damage)?;
                collector.remove((RemovedReason::Damaged, behind, Link::UNKNOWN))?;
                at = behind;
            }
            Err(error) => return Err(error),
        }
    }
    collector.finish()
}
