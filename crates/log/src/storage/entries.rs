//! What a sealed block has: events, and runs of events that are gone.
//!
//! An event is an `EventBatch.events` entry. A run takes the place of events that retention by topic has taken
//! out. It begins with another byte, so that whoever knows of events only refuses it instead of counting wrong.
//! `migrations/0002_history/FORMAT.md` freezes this. Chunks that leave an engine have no runs.

use std::ops::Range;

use bytes::Bytes;

use super::{Removed, RemovedReason};
use crate::chain::Link;
use crate::width::to_u32;
use tailmark_record::{EventError, Events, Seq, put_varint, take_varint, varint_len};

/// The tag of field 2, length-delimited.
const RUN_TAG: u8 = 0x12;
/// Of a run: reason and link.
const FIXED_BYTES: usize = 1 + 16;
/// Longest of a run: tag, length, count, and those.
pub(crate) const RUN_BYTES: usize = 2 + 5 + FIXED_BYTES;
const REASON_EXPIRED: u8 = 1;
const REASON_COMPACTED: u8 = 2;

/// Events that are gone, within a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many; at least 1.
    pub count: u32,
    /// Why. Never damage, which is told by a directory of its own.
    pub reason: RemovedReason,
    /// The chain at the last of them.
    pub link: Link,
}

impl Run {
    /// As it is told to who comes across it: it begins with `first`, before which the chain has `link_before`.
    pub fn removed(&self, first: Seq, link_before: Link) -> Removed {
        let end = first.plus(u64::from(self.count));
        Removed { first, end, reason: self.reason, link_before, link: self.link }
    }
}

/// One of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// An encoded event.
    Event(&'a [u8]),
    /// Events that are gone.
    Run(Run),
}

impl Entry<'_> {
    /// How many seqs it takes.
    pub fn seqs(&self) -> u64 {
        match self {
            Entry::Event(_) => 1,
            Entry::Run(run) => u64::from(run.count),
        }
    }
}

/// Walks the entries of a block.
#[derive(Clone, Copy)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Over entries and nothing else.
    pub fn new(entries: &'a [u8]) -> Self {
        Entries { rest: entries }
    }

    /// Bytes not walked yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match self.rest.first()? {
            &RUN_TAG => match read_run(self.rest) {
                Some((run, rest)) => {
                    self.rest = rest;
                    Ok(Entry::Run(run))
                }
                None => Err(EventError::new("a run of removed events is malformed")),
            },
            _ => {
                let mut events = Events::new(self.rest);
                let event = events.next()?;
                let len = self.rest.len() - events.remaining();
                self.rest = self.rest.get(len..).unwrap_or_default();
                event.map(Entry::Event)
            }
        };
        if entry.is_err() {
            // After a malformed entry there is no telling where the next begins.
            self.rest = &[];
        }
        Some(entry)
    }
}

/// The entries of `range` out of those that begin with `first` and end before `end`. Of a run that is cut at its end
/// the chain is not known.
///
/// # Errors
/// When they are not that many.
pub fn cut(entries: &Bytes, all: Range<Seq>, range: Range<Seq>) -> Result<Bytes, EventError> {
    if range.start <= all.start && all.end <= range.end {
        return Ok(entries.clone());
    }
    let (mut walk, mut seq, mut out) = (Entries::new(entries), all.start, Vec::new());
    let mut start = 0;
    while seq < range.end.min(all.end) {
        let entry = walk.next().ok_or(EventError::MISSING)??;
        let (next, stop) = (seq.plus(entry.seqs()), entries.len() - walk.remaining());
        match entry {
            Entry::Event(_) if seq >= range.start => {
                out.extend_from_slice(entries.get(start..stop).unwrap_or_default());
            }
            Entry::Event(_) => {}
            Entry::Run(run) => {
                let (from, upto) = (seq.max(range.start), next.min(range.end));
                let count = to_u32(upto.get().saturating_sub(from.get()));
                let link = if upto == next { run.link } else { Link::UNKNOWN };
                if count > 0 {
                    write_run(&mut out, &Run { count, link, ..run });
                }
            }
        }
        (seq, start) = (next, stop);
    }
    Ok(out.into())
}

/// Appends a run.
pub fn write_run(out: &mut Vec<u8>, run: &Run) {
    let count = u64::from(run.count);
    out.push(RUN_TAG);
    put_varint(out, (varint_len(count) + FIXED_BYTES) as u64);
    put_varint(out, count);
    out.push(match run.reason {
        RemovedReason::Expired => REASON_EXPIRED,
        RemovedReason::Compacted | RemovedReason::Damaged => REASON_COMPACTED,
    });
    out.extend_from_slice(&run.link.bytes());
}

fn read_run(bytes: &[u8]) -> Option<(Run, &[u8])> {
    let mut rest = bytes.get(1..)?;
    let len = usize::try_from(take_varint(&mut rest)?).ok()?;
    let (mut body, rest) = rest.split_at_checked(len)?;
    let count = take_varint(&mut body)?;
    let (&reason, link) = body.split_first()?;
    let reason = match reason {
        REASON_EXPIRED => RemovedReason::Expired,
        REASON_COMPACTED => RemovedReason::Compacted,
        _ => return None,
    };
    let link = Link::new(link.try_into().ok()?);
    let count_is_minimal = varint_len(count) + FIXED_BYTES == len;
    let count = u32::try_from(count).ok().filter(|count| *count > 0 && count_is_minimal)?;
    Some((Run { count, reason, link }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(count: u32) -> Run {
        let link = Link::new([7; 16]);
        Run { count, reason: RemovedReason::Expired, link }
    }

    #[test]
    fn runs_come_back_as_they_were_written_and_take_their_place_between_events() {
        let event = [0x0a, 2, 0x28, 5];
        for count in [1, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut bytes = event.to_vec();
            write_run(&mut bytes, &run(count));
            bytes.extend_from_slice(&event);
            assert!(bytes.len() <= 2 * event.len() + RUN_BYTES);
            let found: Vec<_> = Entries::new(&bytes).map(Result::unwrap).collect();
            let expected =
                [Entry::Event(&event[2..]), Entry::Run(run(count)), Entry::Event(&event[2..])];
            assert_eq!(found, expected);
            // Who knows of events only stops there.
            assert!(Events::new(&bytes).nth(1).is_some_and(|entry| entry.is_err()));
        }
    }

    #[test]
    fn what_is_no_run_is_refused_and_never_read_beyond_its_end() {
        let mut good = Vec::new();
        write_run(&mut good, &run(300));
        for cut in 1..good.len() {
            assert!(Entries::new(&good[..cut]).next().is_some_and(|it| it.is_err()), "{cut}");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Entries::new(&bytes).next().is_some_and(|it| it.is_ok())
        };
        assert!(with(2, 0x81), "another count");
        assert!(!with(2, 0x01), "a count that ends early");
        assert!(!with(3, 0x00), "a count that is longer than it needs to be");
        assert!(!with(4, 3), "damage is told elsewhere");
        assert!(!with(1, 16), "no room for a count");
    }
}
