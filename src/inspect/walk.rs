//! Walking the events of a data directory in order, past what is damaged.

use std::path::{Path, PathBuf};

use super::Error;
use super::cover::{Cover, Place, PlaceKey, is_not_found, look};
use super::scratch::Scratch;
use tailmark_log::chain::Link;
use tailmark_log::storage::local::Survey;
use tailmark_log::storage::segment::OfflineReader;
use tailmark_log::storage::{Chunk, Damage, Removed, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Cursor, Event, EventError, Events, Seq, Timestamp};

/// Beside a daemon a place may move again and again; this often for one event is not that.
const MOVES: usize = 64;

/// What comes next.
#[derive(Debug)]
pub(super) enum Item {
    /// Events, beginning where the walk stands. Those that do not match may be among them.
    Events(Chunk),
    /// A range that cannot be read.
    Lost(Damage),
    /// A range that has no events any more.
    Removed(Removed),
    /// A range that a daemon trimmed while we walked.
    Trimmed {
        /// First seq.
        from: Seq,
        /// Last seq.
        to: Seq,
    },
}

/// What of a range lies within other bounds. In the middle of it the chain is not known.
fn part_of(range: Removed, first: Seq, end: Seq) -> Removed {
    let link_before = if first == range.first { range.link_before } else { Link::UNKNOWN };
    let link = if end == range.end { range.link } else { Link::UNKNOWN };
    Removed { first, end, link_before, link, ..range }
}

/// A walk from one seq to another.
pub(super) struct Walk {
    dir: PathBuf,
    filter: Filter,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    cover: Cover,
    scratch: Scratch,
    open: Option<(PathBuf, OfflineReader)>,
    at: Seq,
    end: Seq,
    moves: usize,
    /// Damage of the first look, and whether the walk has told it.
    found: Vec<(Damage, bool)>,
}

impl Walk {
    /// From `from` to below `end`, within what the log has now. Runs that the filter or the times
    /// leave out are passed over without being read.
    pub(super) fn new(
        dir: &Path,
        from: Seq,
        end: Seq,
        filter: Filter,
        times: (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Walk, Error> {
        Walk::over(dir, look(dir)?, (from, end), filter, times)
    }

    /// The same of a look that was taken.
    pub(super) fn over(
        dir: &Path,
        found: Survey,
        (from, end): (Seq, Seq),
        filter: Filter,
        times: (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Walk, Error> {
        let cover = Cover::new(found)?;
        Ok(Walk {
            dir: dir.to_owned(),
            filter,
            since: times.0,
            until: times.1,
            at: from.max(cover.oldest),
            end: end.min(cover.next),
            found: cover.damage.iter().map(|damage| (damage.clone(), false)).collect(),
            cover,
            scratch: Scratch::new(),
            open: None,
            moves: 0,
        })
    }

    /// The next item; `None` at the end.
    pub(super) fn step(&mut self) -> Result<Option<Item>, Error> {
        while self.at < self.end {
            if self.at < self.cover.oldest {
                let (from, to) = (self.at, self.cover.oldest.min(self.end).prev());
                self.at = self.cover.oldest;
                return Ok(Some(Item::Trimmed { from, to }));
            }
            let place = self.cover.locate(self.at);
            let key = place.key();
            let (read, place_end) = match place {
                Place::Hole { end } => (Err(StoreError::from(self.hole(end)).into()), end),
                Place::Removed(range) => {
                    let (first, end) = (self.at, range.end.min(self.end));
                    self.at = end;
                    return Ok(Some(Item::Removed(part_of(range, first, end))));
                }
                Place::Segment(segment) => {
                    let end = segment.end();
                    if self.until.is_some_and(|until| segment.first_at() >= until) {
                        return Ok(None);
                    }
                    if !segment.may_match(&self.filter)
                        || self.since.is_some_and(|since| segment.last_at() < since)
                    {
                        self.at = end;
                        continue;
                    }
                    (self.read_segment(), end)
                }
                Place::Frame(part, frame) => {
                    if self.until.is_some_and(|until| frame.appended_at >= until) {
                        return Ok(None);
                    }
                    if self.since.is_some_and(|since| frame.appended_at < since) {
                        self.at = frame.end();
                        continue;
                    }
                    let end = frame.end();
                    (part.slot.read(self.at, end.min(self.end)).map_err(Error::from), end)
                }
            };
            let error = match read {
                Ok(chunk) => {
                    (self.at, self.moves) = (chunk.end, 0);
                    return Ok(Some(Item::Events(chunk)));
                }
                // Within a segment.
                Err(Error::Store(StoreError::Removed(range))) if range.contains(self.at) => {
                    let (first, end) = (self.at, range.end.min(self.end));
                    (self.at, self.moves) = (end, 0);
                    return Ok(Some(Item::Removed(part_of(range, first, end))));
                }
                Err(error) => error,
            };
            let Some(damage) = self.judge(error, &key, place_end)? else { continue };
            self.at = damage.to.next();
            return Ok(Some(Item::Lost(damage)));
        }
        Ok(None)
    }

    /// The range without events that a seq lies in, whole as far as its segment has it.
    fn removed_at(&mut self, seq: Seq) -> Option<Removed> {
        match self.cover.locate(seq) {
            Place::Removed(range) => Some(range),
            Place::Segment(segment) if segment.removed().runs > 0 => {
                let (at, end) = (self.at, self.end);
                (self.at, self.end) = (seq, seq.next());
                let read = self.read_segment();
                (self.at, self.end) = (at, end);
                match read {
                    Err(Error::Store(StoreError::Removed(range))) => Some(range),
                    // Who reads there is told.
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The chain at an event, as its cursor says it; `None` where that is trimmed, gone or beyond the head.
    pub(super) fn tag_of(&mut self, seq: Seq) -> Result<Option<ChainTag>, Error> {
        if let Some(range) = self.removed_at(seq) {
            return Ok(range.link.known_tag().filter(|_| range.end == seq.next()));
        }
        (self.at, self.end) = (seq, seq.next().min(self.cover.next));
        let chunk = match self.step()? {
            Some(Item::Events(chunk)) => chunk,
            Some(Item::Lost(damage)) => return Err(StoreError::from(damage).into()),
            Some(Item::Trimmed { .. } | Item::Removed(_)) | None => return Ok(None),
        };
        let event = Events::new(&chunk.events).next().transpose().ok().flatten();
        let place = event.and_then(|event| Event::place_of(event).ok());
        let cursor = place.and_then(|place| std::str::from_utf8(place.cursor).ok());
        match cursor.map(Cursor::parse) {
            Some(Ok(Cursor::Token { tag: Some(tag), .. })) => Ok(Some(tag)),
            _ => {
                let (file, detail) = (self.dir.clone(), "its cursor cannot be read".to_owned());
                Err(StoreError::from(Damage { from: seq, to: seq, file, detail }).into())
            }
        }
    }

    /// The last seq up to this one at which the chain is known: not within a range without events.
    pub(super) fn known_upto(&mut self, seq: Seq) -> Seq {
        let mut at = seq;
        while let Some(range) = self.removed_at(at)
            && (at.next() != range.end || range.link.known_tag().is_none())
        {
            at = range.first.prev();
        }
        at
    }

    /// The chain before an event that is there, or before the next one that is not.
    pub(super) fn link_before_seq(&mut self, seq: Seq) -> Result<Link, Error> {
        (self.at, self.end) = (seq, self.cover.next);
        self.link_before()
    }

    /// The chain before the event where the walk stands.
    pub(super) fn link_before(&mut self) -> Result<Link, Error> {
        loop {
            if let Some(link) = self.cover.link_before(self.at) {
                return Ok(link);
            }
            let (key, place_end) = match self.cover.locate(self.at) {
                Place::Hole { end } => return Err(StoreError::from(self.hole(end)).into()),
                Place::Removed(range) => return Err(StoreError::Removed(range).into()),
                place @ Place::Segment(segment) => (place.key(), segment.end()),
                place @ Place::Frame(_, frame) => (place.key(), frame.end()),
            };
            match self.read_link_before() {
                Ok(link) => return Ok(link),
                Err(error) => {
                    if let Some(damage) = self.judge(error, &key, place_end)? {
                        return Err(StoreError::from(damage).into());
                    }
                }
            }
        }
    }

    /// The same, computed from the events before it in the same segment or commit.
    fn read_link_before(&mut self) -> Result<Link, Error> {
        let (first, mut link) = match self.cover.locate(self.at) {
            Place::Segment(segment) => (segment.first(), Some(segment.link_before())),
            Place::Frame(part, frame) => (frame.first, part.slot.link_before(frame.first)),
            Place::Hole { .. } | Place::Removed(_) => (self.at, None),
        };
        let (upto, end) = (self.at, self.end);
        (self.at, self.end) = (first, upto);
        let mut read = Ok(());
        while read.is_ok() && self.at < upto {
            let chunk = match self.cover.locate(self.at) {
                Place::Frame(part, _) => part.slot.read(self.at, upto).map_err(Error::from),
                _ => self.read_segment(),
            };
            // Behind those that are gone stands what the chain was there.
            if let Err(Error::Store(StoreError::Removed(range))) = &chunk
                && range.contains(self.at)
                && range.end <= upto
            {
                link = range.link.known_tag().map(|_| range.link);
                self.at = range.end;
                continue;
            }
            read = chunk.and_then(|chunk| {
                let events = |error: EventError| {
                    let (file, detail) = (self.dir.clone(), error.what().to_owned());
                    StoreError::from(Damage {
                        from: chunk.first,
                        to: chunk.end.prev(),
                        file,
                        detail,
                    })
                };
                let next = link.map(|link| link.then_all(&chunk.events)).transpose();
                link = next.map_err(events)?;
                self.at = chunk.end;
                Ok(())
            });
        }
        (self.at, self.end) = (upto, end);
        read?;
        link.ok_or_else(|| StoreError::Invalid("the chain is not known there").into())
    }

    /// Damage that the first look found and that the walk did not come across.
    pub(super) fn rest(self) -> impl Iterator<Item = Damage> {
        self.found.into_iter().filter(|(_, told)| !told).map(|(damage, _)| damage)
    }

    fn read_segment(&mut self) -> Result<Chunk, Error> {
        let Place::Segment(segment) = self.cover.locate(self.at) else {
            return Err(StoreError::Invalid("no segment there").into());
        };
        let reader = match self.open.take() {
            Some((dir, reader)) if dir == segment.dir() => reader,
            other => {
                // One copy at a time.
                drop(other);
                self.scratch.open(segment)?
            }
        };
        let result = reader.read(self.at, self.end.min(segment.end()), &self.filter);
        self.open = Some((segment.dir().to_owned(), reader));
        Ok(result?)
    }

    fn hole(&self, end: Seq) -> Damage {
        let (from, to) = (self.at, end.min(self.end).prev());
        match self.cover.damage_at(from).map(|at| &self.cover.damage[at]) {
            Some(known) => Damage { from, to, ..known.clone() },
            None => {
                let detail = "no segment or slot holds these events".to_owned();
                Damage { from, to, file: self.dir.clone(), detail }
            }
        }
    }

    /// What an error at `self.at` means: the range to pass over, or `None` to look there again
    /// because a daemon moved what was there.
    fn judge(
        &mut self,
        error: Error,
        key: &PlaceKey,
        place_end: Seq,
    ) -> Result<Option<Damage>, Error> {
        let damage = match error {
            Error::Store(StoreError::Damaged(damage)) => damage,
            Error::Store(error) if is_not_found(&error) => Damage {
                from: self.at,
                to: place_end.prev(),
                file: self.dir.clone(),
                detail: error.to_string(),
            },
            other => return Err(other),
        };
        self.open = None;
        let cover = Cover::new(look(&self.dir)?)?;
        let has_moved = cover.oldest > self.at || cover.locate(self.at).key() != *key;
        self.cover = cover;
        self.moves += 1;
        if has_moved && self.moves < MOVES {
            return Ok(None);
        }
        if has_moved {
            return Err(StoreError::Unsettled { path: self.dir.clone() }.into());
        }
        self.moves = 0;
        let last = place_end.min(self.end).prev();
        let is_known = damage.from <= self.at && self.at <= damage.to;
        let to = if is_known { damage.to.min(last) } else { last };
        for (found, told) in &mut self.found {
            let is_this = found.file == damage.file && found.detail == damage.detail;
            *told |= is_this || (found.from == self.at && found.to == to);
        }
        Ok(Some(Damage { from: self.at, to: to.max(self.at), ..damage }))
    }
}
