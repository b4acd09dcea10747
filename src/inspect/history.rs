//! The events of a log in order, none missing, each proved by the chain: what copies are made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::cover::{bounds_of, look};
use super::walk::{Item, Walk};
use tailmark_log::chain::Link;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::local::{ERASING_FILE, Survey, order_of};
use tailmark_log::storage::meta::Meta;
use tailmark_log::storage::place::without_places;
use tailmark_log::storage::segment::Segment;
use tailmark_log::storage::{Chunk, Damage, EraseOrder, Removed, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Cursor, Event, EventError, Events, Facts, Seq, Timestamp};

/// Which part of a log; all that is readable by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    /// First seq; the oldest if that is higher.
    pub from: Option<Seq>,
    /// Last seq, inclusive; the head if that is lower.
    pub to: Option<Seq>,
}

/// What a log is beside its events.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The newest whole state that the log has written.
    pub state: Vec<u8>,
    /// What commits have changed after it: first seq, end, delta.
    pub deltas: Vec<(Seq, Seq, Vec<u8>)>,
    /// Time of the last commit.
    pub last_at: Timestamp,
}

/// A part of a log.
#[derive(Debug)]
pub enum Part {
    /// Events, each of them.
    Events(Chunk),
    /// Those that are gone.
    Removed(Removed),
}

/// A run of a log's events, read from its directory.
pub struct History {
    /// Who the log is.
    pub meta: Meta,
    /// What it knew at its head.
    pub state: State,
    /// The trim mark.
    pub oldest: Seq,
    /// The chain at the event before that, if it is known.
    pub oldest_tag: Option<ChainTag>,
    /// What is sealed of what is readable, in order.
    pub segments: Vec<Arc<Segment>>,
    /// Ranges without events, of what is readable, in order.
    pub removed: Vec<Removed>,
    /// First event.
    pub first: Seq,
    /// Seq after the last.
    pub end: Seq,
    /// An erasure that is not through: what it names may still be there.
    pub erasing: Option<Arc<EraseOrder>>,
    /// Whether the log goes no further.
    pub reaches_head: bool,
    /// The chain before the first event.
    pub link_before: Link,
    dir: PathBuf,
    walk: Walk,
    next: Seq,
    link: Link,
}

impl History {
    /// Looks at the log in `dir` as it is now; a daemon may have it open.
    ///
    /// # Errors
    /// No log, another format, damage at its beginning; no room for a copy of a segment.
    pub fn open(dir: &Path, range: Range) -> Result<History, Error> {
        let order = order_bytes(dir)?;
        History::of(dir, look(dir)?, order, range)
    }

    /// The same of what is readable and not in a segment.
    ///
    /// # Errors
    /// As [`History::open`].
    pub fn unsealed(dir: &Path) -> Result<History, Error> {
        let order = order_bytes(dir)?;
        let found = look(dir)?;
        let from = Some(found.sealed_end());
        History::of(dir, found, order, Range { from, to: None })
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn of(
        dir: &Path,
        found: Survey,
        order: Option<Vec<u8>>,
        range: Range,
    ) -> Result<History, Error> {
        let (Some(meta), Some(bounds)) = (found.meta.clone(), bounds_of(&found)) else {
            return Err(StoreError::Invalid("the log has no identity").into());
        };
        let order = order.map(|bytes| order_of(&bytes, meta.log, &dir.join(ERASING_FILE)));
        let erasing = order.transpose()?.map(Arc::new);
        // What is damaged may make the log look shorter than it is.
        let concerns = |damage: &&Damage| range.to.is_none_or(|to| damage.from <= to);
        if let Some(damage) = found.damage.iter().find(concerns) {
            return Err(StoreError::from(damage.clone()).into());
        }
        let newest = found.slots.last().map(|slot| &slot.scan);
        let known = newest.and_then(|scan| scan.state.clone()).unwrap_or_default();
        let after = newest.map(|scan| scan.deltas.clone()).unwrap_or_default();
        let deltas = known.deltas.into_iter().chain(after).collect();
        let (state, deltas) = match meta.copy_of {
            // What is made of a copy is a log of its own.
            Some(_) => without_places(&known.snapshot, deltas)?,
            None => (known.snapshot, deltas),
        };
        let meta = Meta { copy_of: None, ..meta };
        let state = State {
            state,
            deltas,
            last_at: newest.map_or(Timestamp::EPOCH, |scan| scan.last_at).max(Timestamp::EPOCH),
        };
        let (oldest, next) = (bounds.oldest, bounds.next());
        let oldest_tag = newest.and_then(|scan| scan.oldest_tag);
        let readable = found.segments.iter().filter(|segment| segment.end() > oldest);
        let segments = readable.cloned().collect();
        let gone = found.removed.iter().map(|it| it.range);
        let removed = gone.filter(|range| range.end > oldest).collect();
        let first = range.from.unwrap_or(Seq::FIRST).clamp(bounds.oldest, next);
        let end = range.to.map_or(next, Seq::next).min(next).max(first);
        let mut walk = Walk::over(dir, found, (first, end), Filter::ALL, (None, None))?;
        let link_before = match walk.link_before() {
            // What is readable begins amid those that rules took out: all of it begins behind them.
            Err(Error::Store(StoreError::Removed(run)))
                if first == oldest && run.is_intended() && run.end > first && run.end <= end =>
            {
                return History::open(dir, Range { from: Some(run.end), ..range });
            }
            link => link?,
        };
        Ok(History {
            meta,
            state,
            oldest,
            oldest_tag,
            segments,
            removed,
            first,
            end,
            erasing,
            reaches_head: end == next,
            link_before,
            dir: dir.to_owned(),
            walk,
            next: first,
            link: link_before,
        })
    }

    /// The chain at the last event that was read.
    pub fn link(&self) -> Link {
        self.link
    }

    /// What comes next; `None` after the last.
    ///
    /// # Errors
    /// Damage, also where the chain is not what the events say of it; [`StoreError::Trimmed`] where a daemon
    /// has trimmed what comes next; [`StoreError::Removed`] where it would end within a range without events.
    pub fn read(&mut self) -> Result<Option<Part>, Error> {
        let chunk = match self.walk.step()? {
            Some(Item::Events(chunk)) => chunk,
            Some(Item::Lost(damage)) => return Err(StoreError::from(damage).into()),
            // Behind those that are gone stands what the chain was there; in their middle nobody knows.
            Some(Item::Removed(range)) if range.link.known_tag().is_some() => {
                (self.next, self.link) = (range.end, range.link);
                return Ok(Some(Part::Removed(range)));
            }
            Some(Item::Removed(range)) => return Err(StoreError::Removed(range).into()),
            Some(Item::Trimmed { to, .. }) => {
                return Err(StoreError::Trimmed { oldest: to.next() }.into());
            }
            None if self.next == self.end => return Ok(None),
            None => return Err(self.damage("events are missing").into()),
        };
        self.prove(&chunk).map_err(|error| self.damage(error.what()))?;
        Ok(Some(Part::Events(chunk)))
    }

    fn prove(&mut self, chunk: &Chunk) -> Result<(), EventError> {
        for event in Events::new(&chunk.events) {
            let event = event?;
            let facts = Facts::scan(event)?;
            if facts.seq != self.next {
                return Err(EventError::new("another event than the next one"));
            }
            self.link = self.link.then_event(event, &facts);
            let place = Event::place_of(event)?;
            let cursor = std::str::from_utf8(place.cursor).ok().map(Cursor::parse);
            let tag = match cursor {
                Some(Ok(Cursor::Token { tag, .. })) => tag,
                _ => None,
            };
            if tag != Some(self.link.tag()) {
                return Err(EventError::new("the chain at an event is not what its cursor says"));
            }
            self.next = self.next.next();
        }
        match self.next == chunk.end {
            true => Ok(()),
            false => Err(EventError::MISSING),
        }
    }

    fn damage(&self, detail: &str) -> StoreError {
        let (from, to) = (self.next, self.end.prev());
        Damage { from, to, file: self.dir.clone(), detail: detail.to_owned() }.into()
    }
}

/// The order to erase that lies in a data directory. Before the look: one that is through by then does no harm, and one
/// that was missed would leave what it names to whoever copies the log.
fn order_bytes(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    Disk::real().read(&dir.join(ERASING_FILE))
}
