//! Notes of those who are at work in a place without locks.
//!
//! Whoever begins leaves his note first, and looks for those of the others then: of two that begin at once, one at least
//! sees the other. A note is written anew as long as its owner is at work, and counts for a day.

use std::time::{Duration, Instant, SystemTime};

use super::Error;
use super::place::{Listed, Place};

/// What is older is of one who was killed.
pub(super) const AT_WORK: Duration = Duration::from_secs(24 * 60 * 60);
/// A note is written anew after so long.
const RENEWAL: Duration = Duration::from_secs(60 * 60);

/// What somebody does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Takes a backup. Several may do so at once.
    Taking,
    /// Removes old backups.
    Pruning,
}

impl Work {
    fn folder(self) -> &'static str {
        match self {
            Work::Taking => "taking",
            Work::Pruning => "pruning",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Work::Taking => "a backup is under way here, or was killed within a day",
            Work::Pruning => "backups are being removed here, or that was killed within a day",
        }
    }
}

/// Says that somebody is at work. It goes by [`Note::remove`] alone; one that is left counts for a day.
#[derive(Debug)]
pub(super) struct Note {
    name: String,
    written: Instant,
}

impl Note {
    /// Leaves one, and takes away those that are too old to count.
    pub(super) fn leave(place: &dyn Place, work: Work) -> Result<Note, Error> {
        for old in place.list(work.folder()).map_err(Error::Place)? {
            if !is_young(&old) {
                place.remove(&old.name).map_err(Error::Place)?;
            }
        }
        let name = format!("{}/{:016x}", work.folder(), rand::random::<u64>());
        place.put_new(&name, b"").map_err(Error::Place)?;
        Ok(Note { name, written: Instant::now() })
    }

    /// Has it count for another day, now and then.
    pub(super) fn keep(&mut self, place: &dyn Place) -> Result<(), Error> {
        if self.written.elapsed() < RENEWAL {
            return Ok(());
        }
        let made = place.create(&self.name).and_then(|note| note.finish());
        self.written = Instant::now();
        made.map_err(Error::Place)
    }

    pub(super) fn remove(&self, place: &dyn Place) {
        // Where it cannot be removed it counts for a day.
        let _ = place.remove(&self.name);
    }
}

/// Refuses to begin what must not be done beside somebody's work.
pub(super) fn refuse_beside(place: &dyn Place, work: Work) -> Result<(), Error> {
    if place.has_locks() {
        return Ok(());
    }
    let notes = place.list(work.folder()).map_err(Error::Place)?;
    match notes.iter().find(|note| is_young(note)) {
        Some(note) => Err(Error::Busy { path: place.shown(&note.name), what: work.told() }),
        None => Ok(()),
    }
}

/// Whether what was written may be of one who is not through.
pub(super) fn is_young(file: &Listed) -> bool {
    let age = file.written_at.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_none_or(|age| age < AT_WORK)
}
