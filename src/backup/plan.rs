//! What a log is put together of, up to a point in time.

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::earlier::{self, Part, Source, tag_at};
use super::manifest::{Joint, joint_of, parted};
use super::tail::Tail;
use super::target::footer_of;
use super::{Error, Manifest, SegmentRow, Target};
use crate::export::Origin;
use tailmark_log::chain::Link;
use tailmark_log::storage::forward::Rest;
use tailmark_log::storage::segment::{OfflineReader, Segment};
use tailmark_log::storage::{Damage, Removed, RemovedReason, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Events, Facts, GenerationTable, Seq, Timestamp};

pub(super) type TailFile = BufReader<Box<dyn Read + Send>>;

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

/// The newest backup of the same log that has a point in time, other than this one.
///
/// # Errors
/// I/O.
pub fn reaching(
    target: &Target,
    (but, manifest): (&str, &Manifest),
    upto: Upto,
) -> Result<Option<String>, Error> {
    for name in target.names()?.into_iter().rev().filter(|name| name != but) {
        // One that cannot be read is none to name.
        let Ok((name, other)) = target.backup(Some(&name)) else { continue };
        let has_it = other.log_id == manifest.log_id
            && match upto {
                Upto::Head => false,
                Upto::Seq(seq) => {
                    other.oldest_seq <= seq.next().get() && seq.get() <= other.head_seq
                }
                Upto::Time(_) => Plan::new(target, &name, &other, upto, false).is_ok(),
            };
        if has_it {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What becomes of a file that is not what was sealed.
fn damaged_if(keeps_damage: bool) -> impl FnMut(Damage) -> Result<(), StoreError> {
    move |damage| if keeps_damage { Ok(()) } else { Err(damage.into()) }
}

fn joint_of_segment((segment, _): &(Arc<Segment>, SegmentRow)) -> Joint {
    (segment.first(), segment.end(), segment.link_before(), segment.link())
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
pub(super) struct Plan {
    /// All but what was not sealed, in order.
    pub(super) parts: Vec<Part>,
    pub(super) origin: Origin,
    pub(super) oldest: Seq,
    oldest_tag: Option<ChainTag>,
    /// The seq after the last that is put back.
    pub(super) end: Seq,
    head: Seq,
    /// Segments of which nothing can be told.
    pub(super) damage: Vec<Damage>,
}

impl Plan {
    /// With `keeps_damage` a segment whose footer is lost is a range of lost events.
    pub(super) fn new(
        target: &Target,
        name: &str,
        manifest: &Manifest,
        upto: Upto,
        keeps_damage: bool,
    ) -> Result<Plan, Error> {
        let (mut segments, mut lost) = (Vec::new(), Vec::new());
        for row in &manifest.segments {
            match target.segment(row, manifest) {
                Ok(segment) => segments.push((Arc::new(segment), row.clone())),
                Err(error) if keeps_damage && error.is_damage() => lost.push((row, error)),
                Err(error) => return Err(error),
            }
        }
        let tail = Tail::open(target.open_tail(name)?)?;
        let damaged = |what| Error::Damaged { path: target.shown_manifest(name), what };
        let mut gone: Vec<_> = manifest.removed.iter().map(|row| row.range()).collect();
        let mut damage = Vec::new();
        for (row, error) in lost {
            let (first, to) = (Seq::new(row.first_seq), Seq::new(row.last_seq));
            let known = gone.iter().map(joint_of);
            let known: Vec<_> = known.chain(segments.iter().map(joint_of_segment)).collect();
            let known = || known.iter().copied().chain([tail.joint()]);
            let link_before = known().find(|it| it.1 == first).map_or(Link::UNKNOWN, |it| it.3);
            let link = known().find(|it| it.0 == to.next()).map_or(Link::UNKNOWN, |it| it.2);
            let (end, reason) = (to.next(), RemovedReason::Damaged);
            gone.push(Removed { first, end, reason, link_before, link });
            let file = target.place.shown(&footer_of(&row.name));
            damage.push(Damage { from: first, to, file, detail: error.to_string() });
        }
        let ranges = gone.iter().map(joint_of);
        let sealed = segments.iter().map(joint_of_segment);
        if parted(ranges.chain(sealed).chain([tail.joint()]).collect()).is_some() {
            return Err(damaged("a part does not join the one before"));
        }
        tail.belongs_to(manifest).map_err(damaged)?;
        let (oldest, head) = (Seq::new(manifest.oldest_seq), Seq::new(manifest.head_seq));
        let gone = gone.into_iter().map(Part::gone);
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
            damage,
        };
        plan.end = match upto {
            Upto::Head => head.next(),
            Upto::Seq(seq) if seq > head => return Err(Error::TooLate { head }),
            Upto::Seq(seq) => seq.next(),
            Upto::Time(time) => plan.end_at(time, target, name, keeps_damage)?,
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
            let mut damaged = damaged_if(keeps_damage);
            let here = target.fetch_noting(segment, row, &mut |_| Ok(()), &mut damaged)?;
            let run = match run_over(&here, plan.end) {
                // Where it lies is not known any more, and what is put in says so.
                Err(StoreError::Damaged(_)) if keeps_damage => None,
                run => run?,
            };
            plan.end = run.map_or(plan.end, |run| run.first);
        }
        // Before all that is readable nothing is known.
        if plan.end < oldest {
            return Err(Error::TooEarly { oldest });
        }
        Ok(plan)
    }

    /// Puts what was trimmed before the backup in front of it.
    pub(super) fn reach_back(
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

    pub(super) fn segments(&self) -> impl Iterator<Item = (&Part, &Arc<Segment>)> {
        self.parts.iter().filter_map(|part| match &part.source {
            Source::Segment(segment, _) => Some((part, segment)),
            Source::Tail(_) | Source::Gone(_) => None,
        })
    }

    /// Ranges without events.
    pub(super) fn gone(&self) -> Vec<Removed> {
        let gone = self.parts.iter().filter_map(|part| match &part.source {
            Source::Gone(range) if part.first < self.end => Some(*range),
            _ => None,
        });
        gone.collect()
    }

    /// Of all segments.
    pub(super) fn bytes(&self) -> u64 {
        let rows = self.parts.iter().map(|part| match &part.source {
            Source::Segment(_, row) => row.bytes,
            Source::Tail(_) | Source::Gone(_) => 0,
        });
        rows.sum()
    }

    /// Whether a segment becomes part of the log as it is.
    pub(super) fn takes_whole(
        &self,
        part: &Part,
        segment: &Segment,
        ours: &GenerationTable,
    ) -> bool {
        // Sealed in a generation that begins later than the log now does: it is told anew.
        let entries = segment.generations().entries();
        let is_ours = entries.iter().all(|row| ours.entries().contains(row));
        part.first == segment.first() && segment.end() <= part.end.min(self.end) && is_ours
    }

    pub(super) fn begin(&self) -> (Seq, Link) {
        let tail = (self.origin.first, self.origin.link_before);
        self.parts.first().map_or(tail, |part| (part.first, part.link_before))
    }

    /// The seq after the last event that was appended up to `time`, as far as that is known.
    fn end_at(
        &self,
        time: Timestamp,
        target: &Target,
        name: &str,
        keeps_damage: bool,
    ) -> Result<Seq, Error> {
        for part in &self.parts {
            let Source::Segment(segment, row) = &part.source else { continue };
            if segment.last_at() <= time {
                continue;
            }
            if segment.first_at() > time {
                return Ok(segment.first());
            }
            let mut damaged = damaged_if(keeps_damage);
            let here = target.fetch_noting(segment, row, &mut |_| Ok(()), &mut damaged)?;
            let scratch = here.dir().parent().unwrap_or(Path::new("."));
            let reader = match OfflineReader::of(Arc::clone(&here), scratch) {
                Err(StoreError::Damaged(_)) if keeps_damage => return Ok(segment.first()),
                reader => reader?,
            };
            let mut at = segment.first();
            // Where what is damaged begins, until an event behind it is known to be early enough.
            let mut unknown = None;
            while at < segment.end() {
                let chunk = match reader.read(at, segment.end(), &Filter::ALL) {
                    Err(StoreError::Removed(range)) if range.contains(at) => {
                        at = range.end;
                        continue;
                    }
                    Err(StoreError::Damaged(damage)) if keeps_damage => {
                        unknown.get_or_insert(at);
                        at = damage.to.next().max(at.next());
                        continue;
                    }
                    chunk => chunk?,
                };
                for event in Events::new(&chunk.events) {
                    let later = event.and_then(Facts::scan).map(|facts| facts.appended_at > time);
                    match later {
                        Ok(true) => return Ok(unknown.unwrap_or(at)),
                        Ok(false) => (at, unknown) = (at.next(), None),
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

    pub(super) fn open_tail(&self, target: &Target, name: &str) -> Result<Tail<TailFile>, Error> {
        Ok(Tail::open(target.open_tail(name)?)?)
    }

    pub(super) fn rest(&self) -> Rest {
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
