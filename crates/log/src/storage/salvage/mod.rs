//! Salvage: what is whole of a damaged log, in a new directory, and what is lost said of each event.
//!
//! Reads the damaged directory and never writes to it. A segment that is whole is taken as it is; of others
//! the blocks and commits that prove themselves are put into new ones. What no part has becomes a range
//! without events, so that readers hear of it and every other seq stays what it was. The chain goes on over
//! such a range where what comes after says its link; within a damaged segment only tags are known, and events
//! keep what their cursors say.

mod found;
mod parts;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::found::{Found, find};
use self::parts::Part;
use super::forward::{Forward, Rest, Start};
use super::local::{self, JOURNAL_DIR, Options, SEGMENTS_DIR};
use super::meta::META_FILE;
use super::segment::{Segment, write_file};
use super::unfinished::Making;
use super::{Damage, EraseOrder, RemovedReason, StoreError};
use crate::chain::Link;
use tailmark_record::{LogId, Seq, Timestamp};

/// What a copy is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    /// What a directory says where it was cut.
    what: &'static str,
    /// Why a generation begins.
    cause: &'static str,
    /// A survey has found the log whole: it ends where it ends.
    is_whole: bool,
}

const SALVAGE: Purpose = Purpose { what: "salvage", cause: "salvaged", is_whole: false };
pub(super) const COMPACTION: Purpose =
    Purpose { what: "compaction", cause: "compacted", is_whole: true };
/// Events of so many bytes are put into a segment together.
const SEGMENT_BYTES: u64 = 32 << 20;

/// How far a salvage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the damaged log that were looked through.
    Looking(u64),
    /// Bytes that were copied, and about how many there are.
    Copying(u64, u64),
    /// Bytes of events of which neighbours were made one, and how many there are.
    Joining(u64, u64),
}

/// A range of events that could not be brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// First seq.
    pub from: Seq,
    /// Last seq, inclusive.
    pub to: Seq,
    /// It was lost before: an earlier salvage has said it.
    pub is_old: bool,
    /// What was found that explains it.
    pub causes: Vec<Damage>,
}

/// What a salvage came to.
#[derive(Clone, Debug)]
pub struct Salvaged {
    /// Whose log.
    pub log: LogId,
    /// First readable seq.
    pub oldest: Seq,
    /// Last seq.
    pub head: Seq,
    /// The generation that begins: after the last event, or with the first that is lost at the end.
    pub generation: u16,
    /// Where it begins.
    pub generation_first: Seq,
    /// Readable events that were brought.
    pub events: u64,
    /// What was not, in order.
    pub lost: Vec<Lost>,
    /// Nobody knows where the log ended, and why: events behind the last seq may have been acknowledged, and are lost.
    pub unknown_end: Option<Damage>,
    /// The newest trim mark is known. Without it events may be readable again that had been trimmed.
    pub keeps_trim_mark: bool,
    /// Everything that is damaged, whether or not events are lost by it.
    pub damage: Vec<Damage>,
    /// What is known of producers and of the window of repeats came along. Without it producers are told
    /// that they are not known.
    pub keeps_state: bool,
    /// What tells repeats came along: the log's secret.
    pub keeps_key: bool,
    /// An erasure that is not through, as far as there is something to erase: whoever opens the new log goes on with it.
    pub erasing: Option<Arc<EraseOrder>>,
}

/// Makes a log in `to`, which must be empty or not there, of what is whole in `from`. `watch` hears how far it
/// is and ends it with an error of its own; then the directory says that it is unfinished, and another
/// attempt begins anew.
///
/// # Errors
/// No log, or one of another format; a directory that is not empty; I/O, a full disk.
pub fn salvage(
    from: &Path,
    to: &Path,
    options: Options,
    watch: &mut dyn FnMut(Progress) -> std::io::Result<()>,
) -> Result<Salvaged, StoreError> {
    copy_forward(from, to, options, SALVAGE, watch)
}

/// The same, for this or another purpose.
pub(super) fn copy_forward(
    from: &Path,
    to: &Path,
    options: Options,
    purpose: Purpose,
    watch: &mut dyn FnMut(Progress) -> std::io::Result<()>,
) -> Result<Salvaged, StoreError> {
    super::unfinished::refuse_unfinished(from)?;
    let is_log = [META_FILE, JOURNAL_DIR, SEGMENTS_DIR].iter().any(|name| from.join(name).exists());
    if !is_log {
        return Err(StoreError::Missing { path: from.to_owned() });
    }
    refuse_within(from, to)?;
    let making = Making::begin(to, &options.disk, purpose.what)?;
    making.clear()?;
    let mut looked = 0;
    let found = find(from, &options.disk, purpose.is_whole, &mut |bytes| {
        looked += bytes;
        watch(Progress::Looking(looked)).map_err(StoreError::io(purpose.what, from))
    })?;
    let (done, total, lost) = (0, 0, Vec::new());
    let run = Run { from, to, options, purpose, found, watch, done, total, lost };
    let salvaged = run.copy()?;
    making.finish()?;
    Ok(salvaged)
}

/// A salvage changes nothing in the log that it reads.
fn refuse_within(from: &Path, to: &Path) -> Result<(), StoreError> {
    let whole = from.canonicalize().map_err(StoreError::io("find", from))?;
    let there = to.ancestors().find_map(|it| it.canonicalize().ok());
    let here = || std::env::current_dir().ok().and_then(|it| it.canonicalize().ok());
    if there.or_else(here).is_some_and(|it| it.starts_with(&whole)) {
        let (path, what) = (to.to_owned(), "it lies within the log that is read");
        return Err(StoreError::Unsuitable { path, what });
    }
    Ok(())
}

struct Run<'a> {
    from: &'a Path,
    to: &'a Path,
    options: Options,
    purpose: Purpose,
    found: Found,
    watch: &'a mut dyn FnMut(Progress) -> std::io::Result<()>,
    done: u64,
    total: u64,
    lost: Vec<Lost>,
}

impl Run<'_> {
    fn copy(mut self) -> Result<Salvaged, StoreError> {
        let disk = self.options.disk.clone();
        let oldest = self.found.oldest(self.from, &disk)?;
        let first = self.found.beginning(oldest);
        self.total = self.found.parts.bytes_from(first);
        self.check_room()?;
        let last = self.found.parts.end().max(first);
        let end = self.found.next.max(last);
        let mut meta = self.found.meta.clone();
        // What is lost at the end may have been more than is known: whoever has seen any of it is told that
        // this is another continuation.
        let cause = self.purpose.cause;
        let begun = meta.generations.with_next(rand::random(), last, Timestamp::now(), cause);
        meta.generations =
            begun.ok_or(StoreError::Invalid("the log has used up its generations"))?;
        // Of a copy too: nobody gives it what is missing.
        meta.copy_of = None;
        let generation = meta.generations.current().generation.counter;
        // A segment that was sealed in a generation which began behind that is told anew.
        self.found.meta.generations = meta.generations.clone();
        let log = meta.log;
        let options = self.options.clone();
        let start = Start { first, link: self.link_at(first), oldest };
        let mut forward = Forward::begin(self.to, options, meta, start)?.exact();
        while forward.next() < end {
            match self.found.parts.at(forward.next(), &disk)? {
                Some(Part::Segment(segment)) if self.takes_whole(&segment, &forward) => {
                    self.segment(&segment, &mut forward)?;
                }
                Some(Part::Segment(segment)) => {
                    self.found.parts.take_apart(&segment, &disk)?;
                }
                Some(Part::Removed(range)) if range.is_intended() => {
                    forward.removed(range.end, range.reason, range.link)?;
                }
                Some(Part::Removed(range)) => {
                    let upto = self.found.parts.after(forward.next());
                    let upto = upto.map_or(range.end, |next| next.min(range.end));
                    self.gone(upto, true, &mut forward)?;
                }
                Some(_) => self.events(end, &mut forward)?,
                None => {
                    let upto = self.found.parts.after(forward.next()).unwrap_or(end);
                    self.gone(upto, false, &mut forward)?;
                }
            }
        }
        self.copy_trimmed(oldest, log)?;
        let order = self.order(log)?;
        let gone = self.lost_from(oldest).saturating_add(forward.taken_out());
        let events = oldest.distance_to(end).saturating_sub(gone);
        let Run { found, lost, .. } = self;
        let keeps_state = found.state.is_some();
        let keeps_trim_mark = found.knows_trim_mark();
        let unknown_end = found.unknown_end.map(|it| Damage { from: end, ..it });
        let state = found.state.unwrap_or_default();
        let erasing = forward.erasing(order).finish(Rest {
            slot_number: found.slot_number,
            last_at: found.last_at,
            state: state.state.into(),
            deltas: state.deltas,
            oldest_tag: found.oldest_tag.filter(|_| found.trim_mark == oldest),
        })?;
        Ok(Salvaged {
            log,
            oldest,
            head: end.prev(),
            generation,
            generation_first: last,
            events,
            lost,
            unknown_end,
            keeps_trim_mark,
            damage: found.damage,
            keeps_state,
            keeps_key: found.has_key,
            erasing,
        })
    }

    /// That of the log, where it is known and can be.
    fn slot_bytes(&self) -> u64 {
        match self.found.meta.slot_bytes {
            0 => self.options.slot_bytes,
            known => known,
        }
    }

    fn check_room(&self) -> Result<(), StoreError> {
        let available_bytes = self.options.disk.available(self.to)?;
        let slots = 2 * self.slot_bytes();
        let needed_bytes = self.total.saturating_add(slots + self.options.min_free_bytes);
        if available_bytes < needed_bytes {
            return Err(StoreError::DiskFull { available_bytes, needed_bytes });
        }
        Ok(())
    }

    fn copied(&mut self, bytes: u64) -> std::io::Result<()> {
        self.done += bytes;
        self.total = self.total.max(self.done);
        (self.watch)(Progress::Copying(self.done, self.total))
    }

    /// The chain before a seq, as far as it is known.
    fn link_at(&self, seq: Seq) -> Link {
        let whole = self.found.links.get(&seq).copied();
        let tag = || self.found.tags.get(&seq).copied().map(Link::of_tag);
        let start = (seq == Seq::FIRST).then_some(Link::START);
        whole.or(start).or_else(tag).unwrap_or(Link::UNKNOWN)
    }

    /// Whether a segment becomes part of the log as it is.
    fn takes_whole(&self, segment: &Segment, forward: &Forward<'_>) -> bool {
        let ours = self.found.meta.generations.entries();
        let is_ours = segment.generations().entries().iter().all(|row| ours.contains(row));
        // Its tables are made with the log's secret.
        is_ours && self.found.has_key && segment.link_before().joins(forward.link())
    }

    fn segment(&mut self, segment: &Segment, forward: &mut Forward<'_>) -> Result<(), StoreError> {
        let (parent, disk) = (self.to.join(SEGMENTS_DIR), self.options.disk.clone());
        let mut open = |part: &str| -> Result<(PathBuf, Box<dyn Read + Send>), StoreError> {
            let path = segment.dir().join(part);
            let file = disk.open_read(&path)?;
            Ok((path, Box::new(file)))
        };
        let mut copied = |bytes| self.copied(bytes);
        // All of it is synced at the end.
        let mut written = |_: &Arc<File>, _: &Path| Ok(());
        let name = segment.name();
        let copy = segment.bring(&mut open, &parent, &name, &disk, &mut copied, &mut written)?;
        forward.adopt(&copy)
    }

    /// Puts in events that follow on from part to part, as a segment.
    fn events(&mut self, end: Seq, forward: &mut Forward<'_>) -> Result<(), StoreError> {
        let disk = self.options.disk.clone();
        let (mut at, mut bytes, mut pieces) = (forward.next(), 0, Vec::new());
        // A segment that is whole is not read for what others have of it.
        let end = self.found.parts.next_segment(at).map_or(end, |first| first.min(end));
        while at < end && bytes < SEGMENT_BYTES {
            let part = match self.found.parts.at(at, &disk)? {
                Some(part @ (Part::Block(..) | Part::Frame(..))) => part,
                _ => break,
            };
            let upto = part.end().min(end);
            bytes += part.bytes();
            pieces.push((part, at, upto));
            at = upto;
            // From there on the chain is known whole again.
            if !forward.link().is_whole() && self.found.links.contains_key(&at) {
                break;
            }
        }
        match self.put(&pieces, forward) {
            Err(StoreError::Damaged(damage)) => {
                // What comes before it is good. Where nothing does, it is not of this history.
                let at = pieces.iter().position(|(_, _, upto)| damage.from < *upto).unwrap_or(0);
                let good = if at > 0 { at } else { 1 };
                match self.put(&pieces[..good], forward) {
                    Err(StoreError::Damaged(damage)) => {
                        let (part, from, upto) = &pieces[0];
                        let (from, to, file) = (*from, upto.prev(), part.path());
                        self.found.damage.push(Damage { from, to, file, ..damage });
                        self.found.parts.refuse(part);
                    }
                    done => done?,
                }
            }
            done => done?,
        }
        self.copied(bytes).map_err(StoreError::io(self.purpose.what, self.from))
    }

    fn put(
        &self,
        pieces: &[(Part, Seq, Seq)],
        forward: &mut Forward<'_>,
    ) -> Result<(), StoreError> {
        let Some((.., end)) = pieces.last() else { return Ok(()) };
        let link = self.found.links.get(end).copied();
        let disk = &self.options.disk;
        let chunks = pieces.iter().map(|(part, from, upto)| part.read(*from, *upto, disk));
        forward.segment_to(*end, link, chunks)
    }

    /// Puts in that what comes up to `end` is lost.
    fn gone(
        &mut self,
        end: Seq,
        is_old: bool,
        forward: &mut Forward<'_>,
    ) -> Result<(), StoreError> {
        let (from, to) = (forward.next(), end.prev());
        let is_last = end == self.found.next && end > self.found.parts.end();
        let link = match self.link_at(end) {
            // Whatever comes after the end of a log goes on from what is known.
            link if is_last && !link.is_whole() => forward.link(),
            link => link,
        };
        let explains =
            |damage: &&Damage| damage.from <= to && (damage.to == Seq::ZERO || damage.to >= from);
        let causes = self.found.damage.iter().filter(explains).cloned().collect();
        self.lost.push(Lost { from, to, is_old, causes });
        forward.removed(end, RemovedReason::Damaged, link)
    }

    fn lost_from(&self, oldest: Seq) -> u64 {
        let readable = |it: &Lost| it.from.max(oldest).distance_to(it.to.next().max(oldest));
        self.lost.iter().map(readable).sum()
    }

    /// What was ordered to be erased is erased in the new log, too. An order that cannot be read is damage.
    fn order(&mut self, log: LogId) -> Result<Option<Arc<EraseOrder>>, StoreError> {
        match local::load_order(self.from, &self.options.disk, log) {
            Err(StoreError::Damaged(damage)) => {
                self.found.damage.push(damage);
                Ok(None)
            }
            order => order,
        }
    }

    /// What tells repeats of events that are trimmed, as far as it is whole.
    fn copy_trimmed(&mut self, oldest: Seq, log: LogId) -> Result<(), StoreError> {
        if !self.found.has_key {
            return Ok(());
        }
        let disk = self.options.disk.clone();
        let damage = local::verify_trimmed(self.from, &disk, log)?;
        let bad: HashSet<_> = damage.iter().map(|damage| &damage.file).collect();
        let target = self.to.join(local::TRIMMED_DIR);
        disk.create_dir(&target)?;
        for path in local::trimmed_files(self.from, &disk)? {
            // Of others the events themselves are there.
            let is_needed = local::trimmed_range(&path)
                .is_some_and(|range| range.end <= oldest || self.found.parts.is_gone(&range));
            if let Some(name) = path.file_name().filter(|_| is_needed && !bad.contains(&path)) {
                let mut source = disk.open_read(&path)?;
                write_file(&mut source, &path, &target.join(name), &disk, &mut |_| Ok(()))?;
            }
        }
        self.found.damage.extend(damage);
        Ok(())
    }
}
