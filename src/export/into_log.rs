//! From a file into a new data directory, in which every event has the place that it had.

use std::io::{self, BufRead};
use std::path::Path;

use super::header::Origin;
use super::{Error, Reader, Record};
use tailmark_log::storage::forward::{Forward, Rest, Start};
use tailmark_log::storage::unfinished::Making;
use tailmark_log::storage::{Chunk, StoreError, local};
use tailmark_record::{Seq, Timestamp, put_varint};

/// What a directory says whose import was cut.
const WHAT: &str = "import";
/// Events of so many bytes are put into a segment together.
const SEGMENT_BYTES: usize = 32 << 20;
/// Of an event in `EventBatch.events`.
const ENTRY_TAG: u8 = 0x0a;

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// First seq; what lies before it is trimmed.
    pub first: Seq,
    /// Last seq; the one before the first where there is none.
    pub last: Seq,
    /// How many.
    pub events: u64,
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
    let Origin { mut meta, first, end, link_before, state } = origin;
    let begun = meta.generations.with_next(rand::random(), end, Timestamp::now(), "imported");
    meta.generations = begun.ok_or(StoreError::Invalid("the log has used up its generations"))?;
    let start = Start { first, link: link_before, oldest: first };
    let forward = Forward::begin(dir, options, meta, start)?;
    let mut pending = Collector::new(forward);
    let end_of = loop {
        match reader.read()? {
            Some(Record::Event(event)) => pending.add(&event)?,
            Some(Record::End(end)) => break end,
            Some(Record::Header(_)) | None => return Err(Error::Cut { records: 0 }),
        }
        watch(reader.bytes()).map_err(Error::Output)?;
    };
    let forward = pending.finish()?;
    let events = first.distance_to(end);
    if forward.next() != end || end_of.events != events {
        return Err(Error::Altered { what: "it has not the events that it says" });
    }
    if end_of.link != forward.link().bytes()[..] {
        return Err(Error::Altered { what: "the chain over its events is another" });
    }
    forward.finish(Rest {
        slot_number: 1,
        last_at: state.last_at,
        state: state.state.into(),
        deltas: state.deltas,
        oldest_tag: None,
    })?;
    making.finish()?;
    Ok(Imported { first, last: end.prev(), events })
}

/// Events on their way into a segment.
pub(crate) struct Collector<'a> {
    forward: Forward<'a>,
    /// The seq after the last of them.
    next: Seq,
    entries: Vec<u8>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(forward: Forward<'a>) -> Collector<'a> {
        Collector { next: forward.next(), forward, entries: Vec::new() }
    }

    /// A stored event, the next one.
    pub(crate) fn add(&mut self, event: &[u8]) -> Result<(), StoreError> {
        self.entries.push(ENTRY_TAG);
        put_varint(&mut self.entries, event.len() as u64);
        self.entries.extend_from_slice(event);
        self.next = self.next.next();
        if self.entries.len() >= SEGMENT_BYTES { self.put() } else { Ok(()) }
    }

    fn put(&mut self) -> Result<(), StoreError> {
        let (first, end) = (self.forward.next(), self.next);
        let events = std::mem::take(&mut self.entries).into();
        let chunk = Chunk { first, end, events, complete: true };
        self.forward.segment(end, std::iter::once(Ok(chunk)))
    }

    pub(crate) fn finish(mut self) -> Result<Forward<'a>, StoreError> {
        if !self.entries.is_empty() {
            self.put()?;
        }
        Ok(self.forward)
    }
}
