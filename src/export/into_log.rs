//! From a file into a new data directory, in which every event has the place that it had.

use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;

use super::header::{self, Origin};
use super::{Error, Reader, Record};
use tailmark_log::chain::Link;
use tailmark_log::storage::entries::{Run, write_run};
use tailmark_log::storage::forward::{Forward, Rest, Start};
use tailmark_log::storage::segment::MANY_EVENTS;
use tailmark_log::storage::unfinished::Making;
use tailmark_log::storage::{Chunk, EraseOrder, RemovedReason, StoreError, local};
use tailmark_record::{Fingerprint, Seq, Timestamp, put_varint};

/// What a directory says whose import was cut.
const WHAT: &str = "import";
/// Events of so many bytes are put into a segment together.
const SEGMENT_BYTES: usize = 32 << 20;
/// Of an event in `EventBatch.events`.
const ENTRY_TAG: u8 = 0x0a;

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// First seq; what lies before it is trimmed.
    pub first: Seq,
    /// Last seq; the one before the first where there is none.
    pub last: Seq,
    /// How many.
    pub events: u64,
    /// Seqs between them whose events are gone.
    pub removed: u64,
    /// An erasure that was not through, as far as it concerns these: whoever opens the log goes on with it.
    pub erasing: Option<Arc<EraseOrder>>,
}

/// Makes a log in `dir`, which must be empty or not there, of the export in `input`: with its id, seqs, times,
/// ids and generations, and so with its cursors. A generation begins after the last event, for what comes
/// then may be another history than the first log's. `watch` hears how many bytes are read and ends the
/// import with an error of its own.
///
/// # Errors
/// What is wrong with the export; a directory that is not empty; I/O. The directory is marked as unfinished
/// then, and another import begins anew in it.
pub fn import(
    input: impl BufRead,
    dir: &Path,
    options: local::Options,
    mut watch: impl FnMut(u64) -> io::Result<()>,
) -> Result<Imported, Error> {
    let mut reader = Reader::new(input)?;
    let origin = match reader.read()? {
        Some(Record::Header(header)) => Origin::of(*header)?,
        _ => return Err(Error::Cut { records: 0 }),
    };
    let making = Making::begin(dir, &options.disk, WHAT)?;
    making.clear()?;
    let Origin { mut meta, first, end, link_before, state, erasing } = origin;
    let begun = meta.generations.with_next(rand::random(), end, Timestamp::now(), "imported");
    meta.generations = begun.ok_or(StoreError::Invalid("the log has used up its generations"))?;
    let start = Start { first, link: link_before, oldest: first };
    let forward = Forward::begin(dir, options, meta, start)?;
    let mut pending = Collector::new(forward);
    let (mut records, mut removed) = (1, 0);
    let end_of = loop {
        records += 1;
        match reader.read()? {
            Some(Record::Event(event)) => pending.add(&event)?,
            Some(Record::Removed(range)) => {
                let malformed =
                    |what: &str| Error::Malformed { record: records, what: what.to_owned() };
                let range = header::understood(&range, pending.next).map_err(malformed)?;
                removed += pending.next.distance_to(range.1);
                pending.remove(range)?;
            }
            Some(Record::End(end)) => break end,
            Some(Record::Header(_)) | None => return Err(Error::Cut { records: 0 }),
        }
        watch(reader.bytes()).map_err(Error::Output)?;
    };
    let forward = pending.finish()?;
    let events = first.distance_to(end).saturating_sub(removed);
    if forward.next() != end || end_of.events != events || end_of.removed != removed {
        return Err(Error::Altered { what: "it has not the events that it says" });
    }
    if end_of.link != forward.link().bytes()[..] {
        return Err(Error::Altered { what: "the chain over its events is another" });
    }
    let erasing = forward.erasing(erasing).finish(Rest {
        slot_number: 1,
        last_at: state.last_at,
        state: state.state.into(),
        deltas: state.deltas,
        oldest_tag: None,
    })?;
    making.finish()?;
    Ok(Imported { first, last: end.prev(), events, removed, erasing })
}

/// Events on their way into a segment.
pub(crate) struct Collector<'a> {
    forward: Forward<'a>,
    /// The seq after the last that came.
    next: Seq,
    /// Those before `gone`, or before `next`.
    entries: Vec<u8>,
    /// What came last: neighbours that were meant to go.
    gone: Option<Gone>,
}

/// Neighbours that are gone, up to the last that came.
struct Gone {
    first: Seq,
    reason: RemovedReason,
    link: Link,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(forward: Forward<'a>) -> Collector<'a> {
        Collector { next: forward.next(), forward, entries: Vec::new(), gone: None }
    }

    /// What tells repeats of events that are gone, among others, in order: of what comes up to the next segment.
    pub(crate) fn named(&mut self, named: Vec<(Seq, Fingerprint)>) {
        self.forward.named(named);
    }

    /// Whether all that came, gone or not, has its place in one segment.
    fn has_place(&self) -> bool {
        self.forward.next().distance_to(self.next) <= MANY_EVENTS
    }

    /// A stored event, the next one.
    pub(crate) fn add(&mut self, event: &[u8]) -> Result<(), StoreError> {
        if let Some(gone) = self.gone.take() {
            let count = u32::try_from(gone.first.distance_to(self.next));
            match count {
                // Between events of a segment they are a part of it.
                Ok(count) if !self.entries.is_empty() && self.has_place() => {
                    let Gone { reason, link, .. } = gone;
                    write_run(&mut self.entries, &Run { count, reason, link });
                }
                _ => self.put_gone(gone)?,
            }
        }
        self.entries.push(ENTRY_TAG);
        put_varint(&mut self.entries, event.len() as u64);
        self.entries.extend_from_slice(event);
        self.next = self.next.next();
        if self.entries.len() >= SEGMENT_BYTES { self.put(self.next) } else { Ok(()) }
    }

    /// Those up to a seq are gone, with the chain at the last of them.
    pub(crate) fn remove(
        &mut self,
        (reason, end, link): (RemovedReason, Seq, Link),
    ) -> Result<(), StoreError> {
        let first = std::mem::replace(&mut self.next, end);
        let before = self.gone.take();
        if reason == RemovedReason::Damaged {
            // Told by itself.
            let upto = before.as_ref().map_or(first, |gone| gone.first);
            self.put(upto)?;
            if let Some(gone) = before {
                self.forward.removed(first, gone.reason, gone.link)?;
            }
            return self.forward.removed(end, reason, link);
        }
        self.gone = Some(match before {
            // Neighbours are one.
            Some(gone) if gone.reason == RemovedReason::Compacted => Gone { link, ..gone },
            Some(gone) => Gone { reason, link, ..gone },
            None => Gone { first, reason, link },
        });
        Ok(())
    }

    /// Puts in the events before a seq.
    fn put(&mut self, end: Seq) -> Result<(), StoreError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let first = self.forward.next();
        let events = std::mem::take(&mut self.entries).into();
        let chunk = Chunk { first, end, events, complete: true };
        self.forward.segment(end, std::iter::once(Ok(chunk)))
    }

    fn put_gone(&mut self, gone: Gone) -> Result<(), StoreError> {
        self.put(gone.first)?;
        self.forward.removed(self.next, gone.reason, gone.link)
    }

    pub(crate) fn finish(mut self) -> Result<Forward<'a>, StoreError> {
        match self.gone.take() {
            Some(gone) => self.put_gone(gone)?,
            None => self.put(self.next)?,
        }
        Ok(self.forward)
    }
}
