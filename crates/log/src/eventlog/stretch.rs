//! What lies ahead of a reader among runs of events that are gone, read at once.
//!
//! Of a compacted log there may be a run for each event that is left. Who reads everything hears of each run, and a
//! request to the reader threads for each of them, and for each event between two, would be most of what it costs.

use std::collections::VecDeque;

use crate::storage::{Chunk, Removed};
use tailmark_record::Seq;

/// What is known of what comes next, in order and without a hole.
pub(super) struct Stretch {
    parts: VecDeque<Part>,
    /// How often events had been erased or taken out before it was read.
    erasures: u64,
}

pub(super) enum Part {
    Events(Chunk),
    Gone(Removed),
}

impl Part {
    fn end(&self) -> Seq {
        match self {
            Part::Events(chunk) => chunk.end,
            Part::Gone(range) => range.end,
        }
    }
}

impl Stretch {
    /// What lies at a position, up to `end`: events, or the run that is gone. `None` where it is not known, or is not
    /// to be shown any more.
    pub(super) fn at(
        &mut self,
        next: Seq,
        end: Seq,
        oldest: Seq,
        erasures: u64,
    ) -> Option<Result<Chunk, Removed>> {
        if self.erasures != erasures || next < oldest {
            self.parts.clear();
        }
        while self.parts.front().is_some_and(|part| part.end() <= next) {
            self.parts.pop_front();
        }
        match self.parts.front()? {
            Part::Gone(range) if range.first <= next => Some(Err(*range)),
            Part::Events(chunk) if chunk.first <= next => {
                chunk.clone().cut(next, end.min(chunk.end)).ok().map(Ok)
            }
            _ => None,
        }
    }

    /// Whether it knows what lies at a position.
    pub(super) fn has(&self, next: Seq) -> bool {
        self.parts.iter().any(|part| part.end() > next)
    }

    /// What was read after so many erasures.
    pub(super) fn new(parts: VecDeque<Part>, erasures: u64) -> Stretch {
        Stretch { parts, erasures }
    }
}
