//! A log made of a backup: all of it, or as it was at a point in time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::check::put_trimmed;
use super::earlier::{self, Part, Source, tag_at};
use super::manifest::{joint_of, parted};
use super::tail::Tail;
use super::target::refuse_log_within;
use super::{Error, Manifest, Progress, Target};
use crate::export::{self, Collector, Origin};
use tailmark_log::chain::Link;
use tailmark_log::storage::forward::{Forward, Rest, Start};
use tailmark_log::storage::segment::{OfflineReader, Segment};
use tailmark_log::storage::unfinished::Making;
use tailmark_log::storage::{EraseOrder, Removed, StoreError, local};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Events, Facts, GenerationTable, Seq, Timestamp};

/// What a directory says whose restore was cut.
const WHAT: &str = "restore";

type TailFile = BufReader<Box<dyn Read + Send>>;

/// How much of a backup is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upto {
    /// All.
    Head,
    /// Up to this event, inclusive.
    Seq(Seq),
    /// What was appended up to this time, inclusive.
    Time(Timestamp),
}

/// What is put back of what had been trimmed when the backup was taken, as far as it and others of the same place
/// have that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Since {
    /// Nothing: the log begins where it began then.
    #[default]
    Trimmed,
    /// From this event on.
    Seq(Seq),
    /// All.
    Oldest,
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
}

/// Makes a log in `dir`, which must be empty or not there, of a backup. Every file is compared with its hashes
/// and the chain over the events joins. A generation, `restored`, begins after the last event. `watch` hears
/// how far it is and ends it with an error of its own; then the directory says that it is unfinished, and
/// another attempt goes on with the segments that are there.
///
/// # Errors
/// What is damaged; a directory that is not empty; a point in time that the backup does not have; I/O.
pub fn restore(
    target: &Target,
    name: &str,
    manifest: &Manifest,
    (since, upto): (Since, Upto),
    dir: &Path,
    options: local::Options,
    mut watch: impl FnMut(Progress) -> io::Result<()>,
) -> Result<Restored, Error> {
    refuse_log_within(dir)?;
    let mut progress = Progress { done_bytes: 0, total_bytes: manifest.bytes() };
    target.prove_tail(name, manifest, || {
        watch(progress).map_err(|error| export::Error::Output(error).into())
    })?;
    let mut plan = Plan::new(target, name, manifest, upto)?;
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
                let copy = target.bring(segment, row, parent, &disk, &mut copied, &mut written)?;
                forward.adopt(&copy)?;
            }
        } else {
            let here = target.fetch(segment, row, &mut |_| watch(progress))?;
            let range = part.first..part.end.min(plan.end);
            forward = part_of(&here, range, &segments_dir, forward)?;
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
    let taken_out = forward.taken_out();
    let order = plan.origin.erasing.clone();
    let erasing = forward.erasing(order).finish(plan.rest())?;
    making.finish()?;
    let untrimmed = plan.oldest.distance_to(Seq::new(manifest.oldest_seq).min(plan.end));
    let oldest = plan.oldest;
    Ok(Restored { oldest, head, generation, kept_segments, untrimmed, taken_out, erasing })
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

/// The events of a part of a segment, stamped anew, with the runs of those that are gone in their places.
fn part_of<'a>(
    segment: &Arc<Segment>,
    range: Range<Seq>,
    scratch: &Path,
    forward: Forward<'a>,
) -> Result<Forward<'a>, StoreError> {
    let reader = OfflineReader::of(Arc::clone(segment), scratch)?;
    let (mut at, end) = (range.start, range.end.min(segment.end()));
    let mut collector = Collector::new(forward);
    // Of what is gone, too, repeats are told.
    let mut named = segment.named()?;
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
            Err(error) => return Err(error),
        }
    }
    collector.finish()
}

/// The run of those that are gone from a segment in which a seq lies.
fn run_at(segment: &Arc<Segment>, seq: Seq) -> Result<Option<Removed>, StoreError> {
    let scratch = segment.dir().parent().unwrap_or(Path::new("."));
    let reader = OfflineReader::of(Arc::clone(segment), scratch)?;
    match reader.read(seq, seq.next(), &Filter::ALL) {
        Err(StoreError::Removed(range)) => Ok(Some(range)),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, if the seq does not begin one.
fn run_over(segment: &Arc<Segment>, seq: Seq) -> Result<Option<Removed>, StoreError> {
    Ok(run_at(segment, seq.prev())?.filter(|range| range.contains(seq)))
}

/// What is to be put together.
struct Plan {
    /// All but what was not sealed, in order.
    parts: Vec<Part>,
    origin: Origin,
    oldest: Seq,
    oldest_tag: Option<ChainTag>,
    /// The seq after the last that is put back.
    end: Seq,
    head: Seq,
}

impl Plan {
    fn new(target: &Target, name: &str, manifest: &Manifest, upto: Upto) -> Result<Plan, Error> {
        let rows = manifest.segments.iter();
        let segments = rows.map(|row| Ok((Arc::new(target.segment(row, manifest)?), row.clone())));
        let segments: Vec<_> = segments.collect::<Result<_, Error>>()?;
        let tail = Tail::open(target.open_tail(name)?)?;
        let damaged = |what| Error::Damaged { path: target.shown_manifest(name), what };
        let gone = manifest.removed.iter().map(|row| joint_of(&row.range()));
        let sealed =
            segments.iter().map(|(it, _)| (it.first(), it.end(), it.link_before(), it.link()));
        if parted(gone.chain(sealed).chain([tail.joint()]).collect()).is_some() {
            return Err(damaged("a part does not join the one before"));
        }
        tail.belongs_to(manifest).map_err(damaged)?;
        let (oldest, head) = (Seq::new(manifest.oldest_seq), Seq::new(manifest.head_seq));
        let gone = manifest.removed.iter().map(|row| Part::gone(row.range()));
        let parts = segments.into_iter().map(|(segment, row)| Part::segment(segment, row));
        let mut parts: Vec<_> = parts.chain(gone).collect();
        parts.sort_by_key(|part| part.first);
        let mut plan = Plan {
            parts,
            origin: tail.origin,
            oldest,
            oldest_tag: manifest.oldest_tag.map(ChainTag::new),
            end: head.next(),
            head,
        };
        plan.end = match upto {
            Upto::Head => head.next(),
            Upto::Seq(seq) if seq > head => return Err(Error::TooLate { head }),
            Upto::Seq(seq) => seq.next(),
            Upto::Time(time) => plan.end_at(time, target, name)?,
        };
        let is_gone = |part: &&Part| matches!(part.source, Source::Gone(_));
        let mut gone = plan.parts.iter().filter(is_gone);
        if let Some(range) = gone.find(|it| it.first < plan.end && plan.end < it.end) {
            // The chain within it is not known.
            plan.end = range.first;
        }
        let cut = plan.parts.iter().find(|it| it.first < plan.end && plan.end < it.end);
        if let Some(Part { source: Source::Segment(segment, row), .. }) = cut
            && segment.removed().runs > 0
        {
            let here = target.fetch(segment, row, &mut |_| Ok(()))?;
            let run = run_over(&here, plan.end)?;
            plan.end = run.map_or(plan.end, |run| run.first);
        }
        // Before all that is readable nothing is known.
        if plan.end < oldest {
            return Err(Error::TooEarly { oldest });
        }
        Ok(plan)
    }

    /// Puts what was trimmed before the backup in front of it.
    fn reach_back(
        &mut self,
        target: &Target,
        name: &str,
        since: Since,
        seen: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let from = match since {
            Since::Seq(seq) if seq < self.oldest => seq.max(Seq::FIRST),
            Since::Oldest => Seq::FIRST,
            Since::Seq(_) | Since::Trimmed => return Ok(()),
        };
        let mut earlier = match self.trimmed_run(target)? {
            // What was trimmed has gone out of the segment since; before that it was there.
            Some(run) if from < run.end => {
                let earlier = earlier::before(target, name, (run.end, run.link), from, seen)?;
                if earlier.is_empty() {
                    earlier::before(target, name, self.begin(), from, seen)?
                } else {
                    self.parts.retain(|part| part.end > run.end);
                    if let Some(first) = self.parts.first_mut() {
                        (first.first, first.link_before) = (run.end, run.link);
                    }
                    earlier
                }
            }
            _ => earlier::before(target, name, self.begin(), from, seen)?,
        };
        earlier.append(&mut self.parts);
        self.parts = earlier;
        let (reached, _) = self.begin();
        if from < reached && since != Since::Oldest {
            return Err(Error::NotKept { from, reached });
        }
        self.oldest = from.max(reached);
        self.oldest_tag = self.tag_before(self.oldest, target)?;
        Ok(())
    }

    /// Those at the beginning of what there is, up to the first that is readable or beyond it, of which no event is left.
    fn trimmed_run(&self, target: &Target) -> Result<Option<Removed>, Error> {
        let Some(part) = self.parts.first() else { return Ok(None) };
        let run = match &part.source {
            Source::Gone(range) => Some(*range),
            Source::Segment(segment, row) if segment.removed().runs > 0 => {
                let here = target.fetch(segment, row, &mut |_| Ok(()))?;
                run_at(&here, segment.first())?
            }
            _ => None,
        };
        Ok(run.filter(|run| run.is_intended() && run.first < self.oldest && self.oldest <= run.end))
    }

    /// The chain's tag at the event before this one, if that is in a segment; of all else it becomes known as it
    /// is put in.
    fn tag_before(&self, seq: Seq, target: &Target) -> Result<Option<ChainTag>, Error> {
        let mut segments = self.segments();
        let of = segments.find(|(part, _)| part.first < seq && seq <= part.end);
        let Some((part, segment)) = of else { return Ok(None) };
        match &part.source {
            _ if segment.end() == seq => Ok(segment.link().known_tag()),
            Source::Segment(_, row) => {
                let here = target.fetch(segment, row, &mut |_| Ok(()))?;
                match tag_at(&here, seq.prev()) {
                    // In the midst of those that are gone.
                    Err(Error::Store(StoreError::Removed(_))) => Ok(None),
                    tag => tag.map(Some),
                }
            }
            _ => Ok(None),
        }
    }

    fn segments(&self) -> impl Iterator<Item = (&Part, &Arc<Segment>)> {
        self.parts.iter().filter_map(|part| match &part.source {
            Source::Segment(segment, _) => Some((part, segment)),
            Source::Tail(_) | Source::Gone(_) => None,
        })
    }

    /// Ranges without events.
    fn gone(&self) -> Vec<Removed> {
        let gone = self.parts.iter().filter_map(|part| match &part.source {
            Source::Gone(range) if part.first < self.end => Some(*range),
            _ => None,
        });
        gone.collect()
    }

    /// Of all segments.
    fn bytes(&self) -> u64 {
        let rows = self.parts.iter().map(|part| match &part.source {
            Source::Segment(_, row) => row.bytes,
            Source::Tail(_) | Source::Gone(_) => 0,
        });
        rows.sum()
    }

    /// Whether a segment becomes part of the log as it is.
    fn takes_whole(&self, part: &Part, segment: &Segment, ours: &GenerationTable) -> bool {
        // Sealed in a generation that begins later than the log now does: it is told anew.
        let entries = segment.generations().entries();
        let is_ours = entries.iter().all(|row| ours.entries().contains(row));
        part.first == segment.first() && segment.end() <= part.end.min(self.end) && is_ours
    }

    fn begin(&self) -> (Seq, Link) {
        let tail = (self.origin.first, self.origin.link_before);
        self.parts.first().map_or(tail, |part| (part.first, part.link_before))
    }

    /// The seq after the last event that was appended up to `time`.
    fn end_at(&self, time: Timestamp, target: &Target, name: &str) -> Result<Seq, Error> {
        for part in &self.parts {
            let Source::Segment(segment, row) = &part.source else { continue };
            if segment.last_at() <= time {
                continue;
            }
            if segment.first_at() > time {
                return Ok(segment.first());
            }
            let here = target.fetch(segment, row, &mut |_| Ok(()))?;
            let scratch = here.dir().parent().unwrap_or(Path::new("."));
            let reader = OfflineReader::of(Arc::clone(&here), scratch)?;
            let mut at = segment.first();
            while at < segment.end() {
                let chunk = match reader.read(at, segment.end(), &Filter::ALL) {
                    Err(StoreError::Removed(range)) if range.contains(at) => {
                        at = range.end;
                        continue;
                    }
                    chunk => chunk?,
                };
                for event in Events::new(&chunk.events) {
                    let later = event.and_then(Facts::scan).map(|facts| facts.appended_at > time);
                    match later {
                        Ok(true) => return Ok(at),
                        Ok(false) => at = at.next(),
                        Err(_) => return Err(StoreError::Invalid("an event is malformed").into()),
                    }
                }
            }
        }
        let mut tail = self.open_tail(target, name)?;
        loop {
            let at = tail.next;
            match tail.read()? {
                Some(_) if tail.last_at > time => return Ok(at),
                Some(_) => {}
                None => return Ok(at),
            }
        }
    }

    fn open_tail(&self, target: &Target, name: &str) -> Result<Tail<TailFile>, Error> {
        Ok(Tail::open(target.open_tail(name)?)?)
    }

    fn rest(&self) -> Rest {
        let state = &self.origin.state;
        // By then producers may have sent less than the state knows of.
        let is_whole = self.end > self.head;
        Rest {
            slot_number: 1,
            last_at: if is_whole { state.last_at } else { Timestamp::EPOCH },
            state: if is_whole { state.state.clone().into() } else { bytes::Bytes::new() },
            deltas: if is_whole { state.deltas.clone() } else { Vec::new() },
            oldest_tag: self.oldest_tag,
        }
    }
}
