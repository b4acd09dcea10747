//! The parts that are whole, and which of them has an event.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::storage::disk::Disk;
use crate::storage::journal::{FrameRef, Slot};
use crate::storage::segment::{self, Segment, Unit};
use crate::storage::{Chunk, Damage, Removed, StoreError, entries};
use tailmark_record::{EventError, Seq};

/// A run of events that proves itself, or a range that has none.
#[derive(Clone)]
pub(super) enum Part {
    /// All of a segment.
    Segment(Arc<Segment>),
    /// A block, and the revision of the segment that it is of.
    Block(Unit, u32),
    /// A commit.
    Frame(Arc<Slot>, FrameRef),
    /// What was gone before.
    Removed(Removed),
}

impl Part {
    /// First seq.
    pub(super) fn first(&self) -> Seq {
        match self {
            Part::Segment(segment) => segment.first(),
            Part::Block(unit, _) => unit.first(),
            Part::Frame(_, frame) => frame.first,
            Part::Removed(range) => range.first,
        }
    }

    /// Seq after the last.
    pub(super) fn end(&self) -> Seq {
        match self {
            Part::Segment(segment) => segment.end(),
            Part::Block(unit, _) => unit.end(),
            Part::Frame(_, frame) => frame.end(),
            Part::Removed(range) => range.end,
        }
    }

    /// Whether both lie in the same place.
    fn is(&self, other: &Part) -> bool {
        match (self, other) {
            (Part::Block(one, _), Part::Block(two, _)) => one.is(two),
            (Part::Frame(one, at), Part::Frame(two, there)) => {
                Arc::ptr_eq(one, two) && at.offset == there.offset
            }
            _ => false,
        }
    }

    /// The file that it is in.
    pub(super) fn path(&self) -> std::path::PathBuf {
        match self {
            Part::Frame(slot, _) => slot.path().to_owned(),
            Part::Segment(segment) => segment.dir().to_owned(),
            Part::Block(unit, _) => unit.path().to_owned(),
            Part::Removed(_) => std::path::PathBuf::new(),
        }
    }

    /// Bytes of its events, about.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Part::Segment(segment) => segment.disk_bytes(),
            Part::Block(unit, _) => unit.raw_bytes(),
            Part::Frame(_, frame) => u64::from(frame.len),
            Part::Removed(_) => 0,
        }
    }

    /// Which of two that have an event is taken: the higher. What is lost only where nothing else has it.
    fn rank(&self) -> (u8, u64, Seq) {
        match self {
            Part::Segment(segment) => (3, u64::from(segment.revision()), segment.end()),
            Part::Block(_, revision) => (2, u64::from(*revision), self.end()),
            Part::Frame(slot, _) => (1, slot.header().number, self.end()),
            // Left over from before they were meant to go, others may still be there.
            Part::Removed(range) if range.is_intended() => (4, 0, self.end()),
            Part::Removed(_) => (0, 0, self.end()),
        }
    }

    /// Its events from `from` on and below `end`, and runs in place of those that are gone. Not of a segment.
    ///
    /// # Errors
    /// Damage, I/O.
    pub(super) fn read(&self, from: Seq, end: Seq, disk: &Disk) -> Result<Chunk, StoreError> {
        let malformed = |error: EventError| {
            let (file, detail) = (self.path(), error.what().to_owned());
            StoreError::from(Damage { from, to: end.prev(), file, detail })
        };
        let whole = match self {
            Part::Block(unit, _) => {
                let (all, entries) = (unit.first()..unit.end(), unit.read(disk)?);
                let range = all.start.max(from)..all.end.min(end);
                let events = entries::cut(&entries, all, range.clone()).map_err(malformed)?;
                return Ok(Chunk { first: range.start, end: range.end, events, complete: true });
            }
            Part::Frame(slot, frame) => slot.read(frame.first, frame.end())?,
            Part::Segment(_) | Part::Removed(_) => {
                let (first, end, events) = (from, end, Bytes::new());
                Chunk { first, end, events, complete: false }
            }
        };
        whole.cut(from, end).map_err(malformed)
    }
}

/// All parts, by their first event; asked in the order of events.
#[derive(Default)]
pub(super) struct Parts {
    all: Vec<Part>,
    /// How many of them begin at or before what was asked last.
    passed: usize,
    /// Those of them that end after it.
    open: Vec<Part>,
}

impl Parts {
    pub(super) fn push(&mut self, part: Part) {
        self.all.push(part);
    }

    pub(super) fn extend(&mut self, parts: impl Iterator<Item = Part>) {
        self.all.extend(parts);
    }

    /// After the last one was added.
    pub(super) fn sort(&mut self) {
        self.all.sort_by_key(|part| (part.first(), part.end()));
        (self.passed, self.open) = (0, Vec::new());
    }

    /// Seq after the last event of all.
    pub(super) fn end(&self) -> Seq {
        self.all.iter().map(Part::end).max().unwrap_or_default()
    }

    /// Bytes of those that end after a seq, about.
    pub(super) fn bytes_from(&self, seq: Seq) -> u64 {
        self.all.iter().filter(|part| part.end() > seq).map(Part::bytes).sum()
    }

    /// The first seq of a segment that has a seq, and is whole.
    pub(super) fn segment_with(&self, seq: Seq) -> Option<Seq> {
        let holds = |part: &&Part| {
            matches!(part, Part::Segment(_)) && part.first() <= seq && seq < part.end()
        };
        self.all.iter().filter(holds).map(Part::first).min()
    }

    /// Whether events of a range were taken out, so that what tells repeats of them does not tell of a trim.
    pub(super) fn has_runs_over(&self, range: &Range<Seq>) -> bool {
        self.all.iter().any(|part| {
            let has_runs = match part {
                Part::Removed(it) => it.is_intended(),
                Part::Segment(segment) => segment.removed().runs > 0,
                Part::Block(..) | Part::Frame(..) => false,
            };
            has_runs && part.first() <= range.start && range.end <= part.end()
        })
    }

    /// Whether a range lies in one that was meant to go.
    pub(super) fn is_gone(&self, range: &Range<Seq>) -> bool {
        let is_it = |part: &&Part| matches!(part, Part::Removed(it) if it.is_intended());
        let mut gone = self.all.iter().filter(is_it);
        gone.any(|part| part.first() <= range.start && range.end <= part.end())
    }

    /// The first seq of the next segment that is whole.
    pub(super) fn next_segment(&self, after: Seq) -> Option<Seq> {
        let is_later = |part: &&Part| matches!(part, Part::Segment(_)) && part.first() > after;
        self.all.iter().find(is_later).map(Part::first)
    }

    /// Where a block or commit begins that has the event before a seq.
    pub(super) fn before(&self, seq: Seq) -> Option<Seq> {
        let holds = |part: &&Part| {
            matches!(part, Part::Block(..) | Part::Frame(..))
                && part.first() < seq
                && seq <= part.end()
        };
        self.all.iter().filter(holds).map(Part::first).min()
    }

    /// First seq of all.
    pub(super) fn first(&self) -> Option<Seq> {
        self.all.first().map(Part::first)
    }

    /// The best part that has an event; never an earlier event than before.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn at(&mut self, seq: Seq, disk: &Disk) -> Result<Option<Part>, StoreError> {
        loop {
            while let Some(part) = self.all.get(self.passed).filter(|part| part.first() <= seq) {
                self.open.push(part.clone());
                self.passed += 1;
            }
            self.open.retain(|part| part.end() > seq);
            let best = self.open.iter().max_by_key(|part| part.rank()).cloned();
            match best {
                // Another one has its beginning: it is not taken whole, but block by block.
                Some(Part::Segment(segment)) if segment.first() < seq => {
                    self.take_apart(&segment, disk)?;
                }
                best => return Ok(best),
            }
        }
    }

    /// Has the blocks of a segment in its place.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn take_apart(
        &mut self,
        segment: &Arc<Segment>,
        disk: &Disk,
    ) -> Result<(), StoreError> {
        let units = segment::units(segment, disk)?;
        let is_it = |part: &Part| matches!(part, Part::Segment(it) if Arc::ptr_eq(it, segment));
        self.all.retain(|part| !is_it(part));
        let revision = segment.revision();
        self.all.extend(units.into_iter().map(|unit| Part::Block(unit, revision)));
        self.sort();
        Ok(())
    }

    /// Takes one away that is not of this history.
    pub(super) fn refuse(&mut self, part: &Part) {
        self.all.retain(|it| !it.is(part));
        self.sort();
    }

    /// Where the next part begins, after a seq that none has.
    pub(super) fn after(&self, seq: Seq) -> Option<Seq> {
        self.all.get(self.passed..)?.iter().map(Part::first).find(|first| *first > seq)
    }
}
