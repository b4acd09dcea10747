//! From format 1 to format 2: every event gets its link and a cursor that tells of it.
//!
//! All that a client may hold stays good: seqs, times, ids, the log's id and its generations, what
//! tells repeats, producers, and cursors of version 1. A log that was killed is copied with what
//! of its last write is valid; what is torn is kept in `quarantine/`, as a start does it.

use std::path::Path;
use std::sync::Arc;

use super::{Progress, Step};
use crate::chain::Link;
use crate::storage::disk::Disk;
use crate::storage::forward::{Forward, Rest, Start};
use crate::storage::journal::{Slot, Tail};
use crate::storage::local::{
    Options, QUARANTINE_DIR, Survey, TRIMMED_DIR, keep_trimmed_slots, survey, survey_of,
};
use crate::storage::meta::Meta;
use crate::storage::segment::{OfflineReader, Segment};
use crate::storage::{Chunk, Damage, StoreError};
use crate::width::to_usize;
use tailmark_record::topic::Filter;
use tailmark_record::{Event, EventError, Events, Facts, Seq, Timestamp};

const FROM: u32 = 1;
/// Events compared between two words of it.
const TOLD_EVENTS: u64 = 4_096;
/// Most bytes of a torn write that are kept, as at a start.
const KEPT_BYTES: u64 = 32 << 20;

/// The step.
pub(super) struct History;

impl Step for History {
    fn from(&self) -> u32 {
        FROM
    }

    fn recognises(&self, _: &Path) -> bool {
        // `log.meta` and the slots say it.
        false
    }

    fn copy(
        &self,
        from: &Path,
        to: &Path,
        disk: &Disk,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let old = Old::look(from, disk, FROM)?;
        let torn = old.torn_bytes()?;
        let meta = old.meta(old.is_torn())?;
        let options = Options {
            slot_bytes: meta.slot_bytes,
            min_free_bytes: 0,
            disk: disk.clone(),
            ..Options::default()
        };
        let first = old.first();
        let of = first.distance_to(old.next());
        let start = Start { first, link: Link::START, oldest: old.oldest() };
        let mut new = Forward::begin(to, options, meta, start)?;
        for part in &old.parts {
            let end = part.end().min(old.next());
            if new.next() >= end {
                continue;
            }
            let reader = part.open(&to.join(super::super::local::SEGMENTS_DIR))?;
            let mut at = new.next();
            let chunks = std::iter::from_fn(|| {
                if at >= end {
                    return None;
                }
                let chunk = reader.read(at, end);
                at = chunk.as_ref().map_or(Seq::MAX, |chunk| chunk.end);
                if let Ok(chunk) = &chunk {
                    progress(Progress { done: first.distance_to(chunk.end), of });
                }
                Some(chunk)
            });
            new.segment(end, chunks)?;
        }
        new.finish(old.rest())?;
        copy_files(&from.join(TRIMMED_DIR), &to.join(TRIMMED_DIR), disk)?;
        copy_files(&from.join(QUARANTINE_DIR), &to.join(QUARANTINE_DIR), disk)?;
        for (name, bytes) in torn {
            disk.write_new(&to.join(QUARANTINE_DIR).join(name), &bytes)?;
        }
        old.keep_trimmed(to, disk)
    }

    fn verify(
        &self,
        from: &Path,
        to: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let disk = Disk::real();
        let (old, new) = (Old::look(from, &disk, FROM)?, Old::new(survey(to, &disk)?, &disk)?);
        let differs = |from: Seq, detail: &str| -> StoreError {
            Damage { from, to: Seq::ZERO, file: to.to_owned(), detail: detail.to_owned() }.into()
        };
        let (before, after) = (old.meta(false)?, new.meta(false)?);
        let rows = before.generations.entries();
        if (before.log, before.key, before.created_at) != (after.log, after.key, after.created_at)
            || after.generations.entries().get(..rows.len()) != Some(rows)
        {
            return Err(differs(Seq::ZERO, "the copy has another identity"));
        }
        if (old.oldest(), old.first(), old.next()) != (new.oldest(), new.first(), new.next()) {
            return Err(differs(Seq::ZERO, "the copy has other bounds"));
        }
        let scratch = to.join(super::super::local::SEGMENTS_DIR);
        let (mut ours, mut theirs) = (old.walk(&scratch), new.walk(&scratch));
        let mut seq = old.first();
        let of = seq.distance_to(old.next());
        while seq < old.next() {
            let done = old.first().distance_to(seq);
            if done.is_multiple_of(TOLD_EVENTS) {
                progress(Progress { done, of });
            }
            let (one, two) = (ours.next().transpose()?, theirs.next().transpose()?);
            let is_same = match (&one, &two) {
                (Some(one), Some(two)) => same(one, two).unwrap_or(false),
                _ => false,
            };
            if !is_same {
                return Err(differs(seq, "the copy has another event"));
            }
            seq = seq.next();
        }
        Ok(())
    }
}

/// Whether two stored events are the same but for their cursors.
fn same(one: &[u8], two: &[u8]) -> Result<bool, EventError> {
    let (one, two) =
        ((Event::parse(one)?, Facts::scan(one)?), (Event::parse(two)?, Facts::scan(two)?));
    Ok(Event { cursor: "", ..one.0 } == Event { cursor: "", ..two.0 }
        && (one.1.client_len, one.1.given_id) == (two.1.client_len, two.1.given_id))
}

/// A directory as it is found.
struct Old {
    found: Survey,
    parts: Vec<Part>,
    /// Slots whose events are all trimmed and never were sealed.
    trimmed: Vec<Slot>,
    disk: Disk,
}

/// What holds events, in order.
enum Part {
    Segment(Arc<Segment>),
    Slot(Arc<Slot>),
}

/// A part that can be read.
enum Reader {
    Segment(Box<OfflineReader>),
    Slot(Arc<Slot>),
}

impl Part {
    fn first(&self) -> Seq {
        match self {
            Part::Segment(segment) => segment.first(),
            Part::Slot(slot) => slot.first(),
        }
    }

    fn end(&self) -> Seq {
        match self {
            Part::Segment(segment) => segment.end(),
            Part::Slot(slot) => slot.end(),
        }
    }

    /// `scratch` takes the copy that a database is opened as.
    fn open(&self, scratch: &Path) -> Result<Reader, StoreError> {
        match self {
            Part::Slot(slot) => Ok(Reader::Slot(Arc::clone(slot))),
            Part::Segment(segment) => {
                let reader = OfflineReader::of(Arc::clone(segment), scratch)?;
                match reader.altered() {
                    Some(damage) => Err(damage.clone().into()),
                    None => Ok(Reader::Segment(Box::new(reader))),
                }
            }
        }
    }
}

impl Reader {
    fn read(&self, at: Seq, end: Seq) -> Result<Chunk, StoreError> {
        match self {
            Reader::Segment(reader) => reader.read(at, end, &Filter::ALL),
            Reader::Slot(slot) => slot.read(at, end),
        }
    }
}

impl Old {
    fn look(dir: &Path, disk: &Disk, format: u32) -> Result<Old, StoreError> {
        Old::new(survey_of(dir, disk, format)?, disk)
    }

    fn new(mut found: Survey, disk: &Disk) -> Result<Old, StoreError> {
        if let Some(damage) = found.damage.first() {
            return Err(damage.clone().into());
        }
        let mut parts: Vec<_> = found.segments.iter().cloned().map(Part::Segment).collect();
        for slot in &found.slots {
            let file = disk.open_read(&slot.path)?;
            let (path, header) = (slot.path.clone(), slot.header.clone());
            let frames = slot.scan.frames.clone();
            let slot = Slot::new(path, file, disk.clone(), header, Link::START, frames);
            parts.push(Part::Slot(Arc::new(slot)));
        }
        let mut trimmed = Vec::new();
        for slot in std::mem::take(&mut found.trimmed) {
            let file = disk.open_read(&slot.path)?;
            let frames = slot.scan.frames;
            trimmed.push(Slot::new(
                slot.path,
                file,
                disk.clone(),
                slot.header,
                Link::START,
                frames,
            ));
        }
        Ok(Old { found, parts, trimmed, disk: disk.clone() })
    }

    /// The first event that is there; those before the trim mark tell repeats.
    fn first(&self) -> Seq {
        let first = self.parts.iter().find(|part| part.end() > part.first()).map(Part::first);
        first.unwrap_or(self.next())
    }

    fn oldest(&self) -> Seq {
        self.found.oldest()
    }

    fn next(&self) -> Seq {
        self.found.next()
    }

    /// Who the log is. One whose end may be lost begins a generation.
    fn meta(&self, is_torn: bool) -> Result<Meta, StoreError> {
        let meta = self.found.meta.clone();
        let mut meta = meta.ok_or(StoreError::Invalid("the log has no identity"))?;
        meta.whereabouts = [0; 16];
        if is_torn {
            let (next, now) = (self.next(), Timestamp::now());
            let begun = meta.generations.with_next(rand::random(), next, now, "quarantined");
            meta.generations =
                begun.ok_or(StoreError::Invalid("the log has used up its generations"))?;
        }
        Ok(meta)
    }

    /// Whether something was being written that did not survive. What a segment holds was durable: a torn end
    /// of its slot has lost nothing.
    fn is_torn(&self) -> bool {
        let newest = self.found.slots.last().map(|slot| slot.scan.tail);
        let has_torn = matches!(newest, Some(Tail::Torn { .. })) || self.found.unbegun.is_some();
        has_torn && self.found.sealed_end() <= self.found.journal_next()
    }

    /// The bytes of it, by the name that they are kept under.
    fn torn_bytes(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let newest = self.found.slots.last().map(|slot| (&slot.path, slot.scan.tail));
        let unbegun = self.found.unbegun.as_ref().map(|(path, tail)| (path, *tail));
        let mut kept = Vec::new();
        for (path, tail) in newest.into_iter().chain(unbegun) {
            let Tail::Torn { from, to } = tail else { continue };
            let mut bytes = vec![0; to_usize((to - from).min(KEPT_BYTES))];
            self.disk.read_at(&self.disk.open_read(path)?, path, &mut bytes, from)?;
            let slot = path.file_name().unwrap_or_default().to_string_lossy();
            kept.push((format!("{}-{slot}-{from}.bin", Timestamp::now().seconds), bytes));
        }
        Ok(kept)
    }

    fn rest(&self) -> Rest {
        let newest = self.found.slots.last().map(|slot| &slot.scan);
        let state = newest.and_then(|scan| scan.state.clone()).unwrap_or_default();
        let after = newest.map(|scan| scan.deltas.clone()).unwrap_or_default();
        Rest {
            slot_number: self.found.last_number + 1,
            last_at: newest.map_or(Timestamp::EPOCH, |scan| scan.last_at),
            state: state.snapshot.into(),
            deltas: state.deltas.into_iter().chain(after).collect(),
            oldest_tag: None,
        }
    }

    fn keep_trimmed(&self, to: &Path, disk: &Disk) -> Result<(), StoreError> {
        let meta = self.meta(false)?;
        keep_trimmed_slots(to, disk, &meta, &self.trimmed, self.found.sealed_end())
    }

    /// All events, in order.
    fn walk<'a>(
        &'a self,
        scratch: &'a Path,
    ) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> + 'a {
        let mut at = self.first();
        self.parts.iter().flat_map(move |part| {
            let (from, end) = (at.max(part.first()), part.end().min(self.next()));
            at = at.max(end);
            let reader = part.open(scratch);
            PartEvents { reader: Some(reader), at: from, end, events: Vec::new().into_iter() }
        })
    }
}

/// The events of a part.
struct PartEvents {
    reader: Option<Result<Reader, StoreError>>,
    at: Seq,
    end: Seq,
    events: std::vec::IntoIter<Vec<u8>>,
}

impl Iterator for PartEvents {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.next() {
                return Some(Ok(event));
            }
            if self.at >= self.end {
                return None;
            }
            let read = match self.reader.as_ref()? {
                Ok(reader) => reader.read(self.at, self.end),
                Err(_) => return self.reader.take()?.err().map(Err),
            };
            let chunk = match read {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.reader = None;
                    return Some(Err(error));
                }
            };
            self.at = chunk.end;
            let events = Events::new(&chunk.events).map(|event| event.map(<[u8]>::to_vec));
            match events.collect::<Result<Vec<_>, _>>() {
                Ok(events) => self.events = events.into_iter(),
                Err(_) => return Some(Err(StoreError::Invalid("an event is malformed"))),
            }
        }
    }
}

/// Copies the files of a directory, if it is there.
fn copy_files(from: &Path, to: &Path, disk: &Disk) -> Result<(), StoreError> {
    if !from.is_dir() {
        return Ok(());
    }
    disk.create_dir(to)?;
    for path in disk.list(from)? {
        if let (Some(bytes), Some(name)) = (disk.read(&path)?, path.file_name()) {
            disk.write_new(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}
