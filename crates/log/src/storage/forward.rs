//! Copying a log forward: the events of any directory into a new one of this format.
//!
//! Owns how such a directory is put together: every event goes into a segment, stamped anew, with
//! its seq, its times and its id as they were; the journal begins with an empty slot that has all
//! state which is not events. Nothing in the new directory counts before whoever asked for it says
//! so, so that nothing here has an order that a crash could disturb.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::entries::{Entries, Entry, Run, write_run};
use super::journal::{Origin, Previous};
use super::local::{self, Options, SEGMENTS_DIR};
use super::meta::Meta;
use super::segment::{self, BLOCK_BYTES, BuildSpec, DB_CACHE_BYTES, RemovedRange, Segment, Source};
use super::{Chunk, Damage, EraseOrder, Removed, RemovedReason, StoreError};
use crate::chain::{Digests, Link, tag_in};
use tailmark_record::{
    ChainTag, CursorMint, Event, EventError, Facts, Fingerprint, GenerationTable, LogId, Seq,
    Stamp, Timestamp, write_entry, write_shell_entry,
};

/// A new directory, while events are put into it.
pub struct Forward<'a> {
    dir: &'a Path,
    options: Options,
    meta: Meta,
    /// The seq after the last event that was put in.
    next: Seq,
    link: Link,
    last_at: Timestamp,
    oldest: Seq,
    oldest_tag: Option<ChainTag>,
    /// Names of the segments that were put in.
    segments: HashSet<OsString>,
    /// Readable seqs of which the events were taken out.
    taken_out: u64,
    /// For the next segment, see [`Forward::named`].
    named: Vec<(Seq, Fingerprint)>,
    is_exact: bool,
    erasing: Option<Arc<EraseOrder>>,
}

/// Where a log begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Its first event.
    pub first: Seq,
    /// The chain before that.
    pub link: Link,
    /// The trim mark: events before it are put in where they are there, for what tells repeats of them.
    pub oldest: Seq,
}

/// What a log is beside its events.
#[derive(Debug)]
pub struct Rest {
    /// Above the number of every slot that there was.
    pub slot_number: u64,
    /// Time of the last commit.
    pub last_at: Timestamp,
    /// The caller's newest whole state.
    pub state: Bytes,
    /// What was changed after it: the first seq and the end of a commit, and its delta.
    pub deltas: Vec<(Seq, Seq, Vec<u8>)>,
    /// The chain at the event before the trim mark, where it is known from elsewhere.
    pub oldest_tag: Option<ChainTag>,
}

impl<'a> Forward<'a> {
    /// Begins, in an empty directory. The slots are as large as `meta` says that those of the log were, where it does:
    /// they are the units in which it is sealed, and which its limits are set for.
    ///
    /// # Errors
    /// I/O, a full disk.
    pub fn begin(
        dir: &'a Path,
        mut options: Options,
        meta: Meta,
        start: Start,
    ) -> Result<Forward<'a>, StoreError> {
        if meta.slot_bytes > 0 {
            options.slot_bytes = meta.slot_bytes;
        }
        local::prepare(dir, &options)?;
        let Start { first, link, oldest } = start;
        let oldest_tag = link.known_tag().filter(|_| oldest <= first);
        let last_at = Timestamp::EPOCH;
        let (next, segments, is_exact) = (first, HashSet::new(), false);
        Ok(Forward {
            dir,
            options,
            meta,
            next,
            link,
            last_at,
            oldest,
            oldest_tag,
            segments,
            taken_out: 0,
            named: Vec::new(),
            is_exact,
            erasing: None,
        })
    }

    /// The same, but what comes out otherwise than it was is damage: its cursor or the chain before it is not
    /// of this history.
    #[must_use]
    pub fn exact(self) -> Forward<'a> {
        Forward { is_exact: true, ..self }
    }

    /// An erasure was ordered and is not through: whoever opens the log goes on with what of it is put in.
    #[must_use]
    pub fn erasing(self, order: Option<Arc<EraseOrder>>) -> Forward<'a> {
        Forward { erasing: order, ..self }
    }

    /// The seq of the event that comes next.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The chain at the event before that.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Takes in a segment that was put into the directory as it is.
    ///
    /// # Errors
    /// Damage where it does not go on where the last one ended.
    pub fn adopt(&mut self, segment: &Segment) -> Result<(), StoreError> {
        if (segment.log_id(), segment.first()) != (self.meta.log, self.next)
            || !segment.link_before().joins(self.link)
        {
            let (from, to) = (segment.first(), segment.end().prev());
            let detail = "it does not join the events before it".to_owned();
            return Err(Damage { from, to, file: segment.dir().to_owned(), detail }.into());
        }
        self.count(segment.dir());
        let all = segment.removed().events();
        self.taken_out += match segment.first() < self.oldest && all > 0 {
            true => segment::removed_from(segment, self.oldest, &self.options.disk)?,
            false => all,
        };
        (self.next, self.link) = (segment.end(), segment.link());
        self.last_at = segment.last_at();
        Ok(())
    }

    /// Puts in that the events up to `end` are gone. `link` is the chain at the last of them, as far as what
    /// comes after tells it.
    ///
    /// # Errors
    /// I/O.
    pub fn removed(
        &mut self,
        end: Seq,
        reason: RemovedReason,
        link: Link,
    ) -> Result<(), StoreError> {
        let range = Removed { first: self.next, end, reason, link_before: self.link, link };
        let parent = self.dir.join(SEGMENTS_DIR);
        let stored = RemovedRange::store(&parent, self.meta.log, 1, range, &self.options.disk)?;
        self.count(&stored.dir);
        if range.is_intended() {
            let readable = range.first.max(self.oldest).distance_to(end.max(self.oldest));
            self.taken_out += readable;
        }
        if end == self.oldest {
            self.oldest_tag = link.known_tag();
        }
        (self.next, self.link) = (end, link);
        Ok(())
    }

    /// What tells repeats of events that the next segment has as runs only, in order; others may be among them.
    pub fn named(&mut self, named: Vec<(Seq, Fingerprint)>) {
        self.named = named;
    }

    /// Puts in the events up to `end`, as a segment.
    ///
    /// # Errors
    /// What `chunks` says; damage where they are not these events; I/O.
    pub fn segment(
        &mut self,
        end: Seq,
        chunks: impl Iterator<Item = Result<Chunk, StoreError>>,
    ) -> Result<(), StoreError> {
        self.segment_to(end, None, chunks)
    }

    /// The same where the chain at the last of them is known from elsewhere.
    ///
    /// # Errors
    /// As [`Forward::segment`]; damage where the chain over the events is another.
    pub fn segment_to(
        &mut self,
        end: Seq,
        link: Option<Link>,
        chunks: impl Iterator<Item = Result<Chunk, StoreError>>,
    ) -> Result<(), StoreError> {
        let stamps = Stamps::new(&self.meta, self.next, self.link, self.oldest);
        let (chunks, is_exact) = (RefCell::new(Some(chunks)), self.is_exact);
        let source = Stamped { chunks, stamps, origin: self.dir, is_exact };
        let spec = BuildSpec {
            log_id: self.meta.log,
            generations: self.meta.generations.clone(),
            fingerprint_key: self.meta.key,
            first: self.next,
            end,
            named_before: std::mem::take(&mut self.named),
            link_before: self.link,
            link,
            revision: 1,
            compression: self.options.compression,
            block_bytes: BLOCK_BYTES,
            db_cache_bytes: DB_CACHE_BYTES,
            progress: Arc::default(),
            disk: self.options.disk.clone(),
        };
        let built = segment::build(&self.dir.join(SEGMENTS_DIR), &spec, &source)?;
        self.count(built.dir());
        self.taken_out += source.stamps.taken_out.get();
        (self.next, self.link, self.last_at) = (end, built.link(), built.last_at());
        self.oldest_tag = self.oldest_tag.or(source.stamps.oldest_tag.get());
        Ok(())
    }

    /// Readable seqs of which the events were taken out.
    pub fn taken_out(&self) -> u64 {
        self.taken_out
    }

    fn count(&mut self, dir: &Path) {
        self.segments.extend(dir.file_name().map(OsString::from));
    }

    /// That what is opened as this log is what was put in, and nothing that was there before.
    fn has_no_others(&self) -> Result<(), StoreError> {
        let disk = &self.options.disk;
        let there = segment::names(&self.dir.join(SEGMENTS_DIR), disk)?;
        let is_ours =
            |path: &&PathBuf| path.file_name().is_some_and(|name| self.segments.contains(name));
        if let Some(file) = there.iter().find(|path| !is_ours(path)) {
            let detail = "it is no part of what was put in here".to_owned();
            let at = self.next;
            return Err(Damage { from: at, to: at, file: file.clone(), detail }.into());
        }
        if there.len() != self.segments.len() {
            return Err(StoreError::Invalid("a segment that was put in is not there"));
        }
        Ok(())
    }

    /// What of an order to erase concerns what was put in; other events will have the seqs behind that.
    fn order(&self, order: &EraseOrder) -> Option<EraseOrder> {
        let here = order.seqs.iter().map(|range| range.start..range.end.min(self.next));
        let seqs: Vec<_> = here.filter(|range| !range.is_empty()).collect();
        (!seqs.is_empty()).then(|| EraseOrder { seqs, ..order.clone() })
    }

    /// Writes the journal and the identity: from here on it is a log. Answers what is left to be erased in it.
    ///
    /// # Errors
    /// Damage where there are segments that nobody put in; I/O.
    pub fn finish(self, rest: Rest) -> Result<Option<Arc<EraseOrder>>, StoreError> {
        self.has_no_others()?;
        let erasing = self.erasing.as_deref().and_then(|order| self.order(order));
        if let Some(order) = &erasing {
            local::store_order(self.dir, &self.options.disk, self.meta.log, order)?;
        }
        let origin = Origin {
            log: self.meta.log,
            meta: Vec::new(),
            generation: self.meta.generations.current().generation,
            previous: Previous::default(),
            number: rest.slot_number,
            next: self.next,
            link: self.link,
            oldest: self.oldest,
            oldest_tag: self.oldest_tag.or(rest.oldest_tag),
            last_at: self.last_at.max(rest.last_at),
            snapshot: rest.state.to_vec(),
            deltas: rest.deltas,
        };
        local::begin(self.dir, &self.options, self.meta, origin, true)?;
        Ok(erasing.map(Arc::new))
    }
}

/// Stamps events as they come.
struct Stamps {
    log: LogId,
    generations: GenerationTable,
    mint: Cell<CursorMint>,
    next: Cell<Seq>,
    link: Cell<Link>,
    oldest: Seq,
    oldest_tag: Cell<Option<ChainTag>>,
    /// Readable seqs of runs.
    taken_out: Cell<u64>,
}

impl Stamps {
    fn new(meta: &Meta, next: Seq, link: Link, oldest: Seq) -> Stamps {
        let (log, generations) = (meta.log, meta.generations.clone());
        let mint = Cell::new(CursorMint::new(log, generations.of(next).generation));
        let (next, link) = (Cell::new(next), Cell::new(link));
        Stamps {
            log,
            generations,
            mint,
            next,
            link,
            oldest,
            oldest_tag: Cell::default(),
            taken_out: Cell::default(),
        }
    }

    /// The same run. What it says of the chain counts: nobody can compute it.
    fn pass_over(&self, run: &Run, out: &mut Vec<u8>) -> Result<(), EventError> {
        let end = self.next.get().plus(u64::from(run.count));
        let readable = self.next.get().max(self.oldest).distance_to(end.max(self.oldest));
        self.taken_out.set(self.taken_out.get() + readable);
        if self.next.get() < self.oldest && self.oldest <= end {
            self.oldest_tag.set(run.link.known_tag().filter(|_| self.oldest == end));
        }
        self.next.set(end);
        self.link.set(run.link);
        write_run(out, run);
        Ok(())
    }

    /// The same event, with a cursor of this log and of the chain so far.
    fn stamp(&self, event: &[u8], out: &mut Vec<u8>) -> Result<(), EventError> {
        let (facts, view) = (Facts::scan(event)?, Event::parse(event)?);
        let seq = self.next.get();
        if facts.seq != seq {
            return Err(EventError::new("another event than the next one"));
        }
        let client_part = event.get(..facts.client_len).unwrap_or_default();
        let given_id = std::str::from_utf8(facts.given_id);
        let given_id = given_id.map_err(|_| EventError::new("an id is not text"))?;
        let link = match self.link.get() {
            before if before.is_whole() => {
                before.then(seq, facts.appended_at, Digests::of_event(event, &facts).said())
            }
            // Nobody can compute it: what it was told then is kept.
            _ => Link::of_tag(tag_in(event)?),
        };
        let generation = self.generations.of(seq).generation;
        if self.mint.get().generation() != generation {
            self.mint.set(CursorMint::new(self.log, generation));
        }
        let stamp = Stamp {
            seq,
            mint: &self.mint.get(),
            tag: link.tag(),
            appended_at: facts.appended_at.into(),
            fill_at: !view.has_client_at,
            fill_id: (!given_id.is_empty()).then_some(given_id),
        };
        match &facts.erased {
            None => write_entry(out, client_part, &stamp),
            Some(erased) => write_shell_entry(out, client_part, &stamp, erased)?,
        }
        if seq.next() == self.oldest {
            self.oldest_tag.set(Some(link.tag()));
        }
        self.next.set(seq.next());
        self.link.set(link);
        Ok(())
    }
}

/// The events of a segment in the making. They are walked once.
struct Stamped<'a, I> {
    chunks: RefCell<Option<I>>,
    stamps: Stamps,
    origin: &'a Path,
    is_exact: bool,
}

impl<I: Iterator<Item = Result<Chunk, StoreError>>> Stamped<'_, I> {
    fn stamped(&self, chunk: Chunk) -> Result<Chunk, StoreError> {
        let mut events = Vec::with_capacity(chunk.events.len() + chunk.events.len() / 16);
        for entry in Entries::new(&chunk.events) {
            let stamped = entry.and_then(|entry| match entry {
                Entry::Event(event) => self.stamps.stamp(event, &mut events),
                Entry::Run(run) => self.stamps.pass_over(&run, &mut events),
            });
            stamped.map_err(|error| {
                let (from, file) = (self.stamps.next.get(), self.origin.to_owned());
                Damage { from, to: chunk.end.prev(), file, detail: error.what().to_owned() }
            })?;
        }
        if self.is_exact && chunk.events != events {
            let detail = "its events are of another history, or have cursors of one".to_owned();
            let (from, to, file) = (chunk.first, chunk.end.prev(), self.origin.to_owned());
            return Err(Damage { from, to, file, detail }.into());
        }
        Ok(Chunk { events: events.into(), ..chunk })
    }
}

impl<I: Iterator<Item = Result<Chunk, StoreError>>> Source for Stamped<'_, I> {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        let chunks = self.chunks.borrow_mut().take();
        let chunks = chunks.into_iter().flatten();
        Box::new(chunks.map(|chunk| self.stamped(chunk?)))
    }

    fn origin(&self) -> PathBuf {
        self.origin.to_owned()
    }
}
