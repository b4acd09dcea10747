//! Events in order, as far as they can be read.

use std::io;
use std::path::Path;

use super::Error;
use super::walk::{Item, Walk};
use tailmark_log::storage::{Chunk, Damage, Removed};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Seq, Timestamp};

/// Which events to dump.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// First seq; the oldest if there is none.
    pub from: Option<Seq>,
    /// Last seq, inclusive; the head if there is none.
    pub to: Option<Seq>,
    /// Only events appended at or after it.
    pub since: Option<Timestamp>,
    /// Only events appended before it.
    pub until: Option<Timestamp>,
    /// Only events of these topics.
    pub filter: Filter,
}

/// What a dump comes across, in order.
#[derive(Debug)]
pub enum Found<'a> {
    /// An event that was selected.
    Event(&'a Event<'a>),
    /// A range that cannot be read, whether or not it had selected events.
    Lost(&'a Damage),
    /// A range that has no events any more.
    Removed(&'a Removed),
    /// A range that a running daemon trimmed before it was read.
    Trimmed {
        /// First seq.
        from: Seq,
        /// Last seq.
        to: Seq,
    },
}

/// What a dump came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// Events handed over.
    pub events: u64,
    /// Ranges that could not be read.
    pub damaged_ranges: u64,
}

/// Hands over the selected events of the log in `dir`, up to the head that it has now. What is
/// damaged is told and passed over. `take` ends the dump with an error of its own.
///
/// # Errors
/// No log, another format, no room for a copy; what `take` answers.
pub fn dump(
    dir: &Path,
    selection: &Selection,
    mut take: impl FnMut(Found<'_>) -> io::Result<()>,
) -> Result<Dumped, Error> {
    let from = selection.from.unwrap_or(Seq::FIRST);
    let end = selection.to.map_or(Seq::MAX, Seq::next);
    let times = (selection.since, selection.until);
    let mut walk = Walk::new(dir, from, end, selection.filter.clone(), times)?;
    let mut run = Run { selection, take: &mut take, done: Dumped::default(), is_over: false };
    while !run.is_over {
        match walk.step()? {
            Some(Item::Events(chunk)) => run.chunk(&chunk, dir)?,
            Some(Item::Lost(damage)) => run.lost(&damage)?,
            Some(Item::Removed(range)) => {
                (run.take)(Found::Removed(&range)).map_err(Error::Output)?;
            }
            Some(Item::Trimmed { from, to }) => {
                (run.take)(Found::Trimmed { from, to }).map_err(Error::Output)?;
            }
            None => break,
        }
    }
    for damage in walk.rest().filter(|damage| concerns(damage, from, end)) {
        run.lost(&damage)?;
    }
    Ok(run.done)
}

/// Whether a damage may concern an event in `from..end`.
fn concerns(damage: &Damage, from: Seq, end: Seq) -> bool {
    damage.from < end && (damage.to == Seq::ZERO || damage.to >= from)
}

struct Run<'a> {
    selection: &'a Selection,
    take: &'a mut dyn FnMut(Found<'_>) -> io::Result<()>,
    done: Dumped,
    /// All that follows is too late.
    is_over: bool,
}

impl Run<'_> {
    fn chunk(&mut self, chunk: &Chunk, dir: &Path) -> Result<(), Error> {
        let mut next = chunk.first;
        for event in Events::new(&chunk.events) {
            let event = event.and_then(Event::parse);
            // Its checksum fits, so it was stored like this; it is told all the same.
            let problem = match &event {
                Ok(event) if event.seq >= chunk.end => Some("an event has another seq"),
                Ok(event) if chunk.complete && event.seq != next => Some("an event is missing"),
                Ok(_) => None,
                Err(error) => Some(error.what()),
            };
            if let Some(problem) = problem {
                let (to, file) = (chunk.end.prev(), dir.to_owned());
                return self.lost(&Damage { from: next, to, file, detail: problem.to_owned() });
            }
            let Ok(event) = event else { continue };
            next = event.seq.next();
            self.event(&event)?;
            if self.is_over {
                break;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let at = event.appended_at.unwrap_or_default();
        if self.selection.until.is_some_and(|until| at >= until) {
            self.is_over = true;
            return Ok(());
        }
        let is_late_enough = self.selection.since.is_none_or(|since| at >= since);
        if is_late_enough && self.selection.filter.matches(event.topic) {
            self.done.events += 1;
            (self.take)(Found::Event(event)).map_err(Error::Output)?;
        }
        Ok(())
    }

    fn lost(&mut self, damage: &Damage) -> Result<(), Error> {
        self.done.damaged_ranges += 1;
        (self.take)(Found::Lost(damage)).map_err(Error::Output)
    }
}
