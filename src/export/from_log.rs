//! From a data directory into a file.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::write::Writer;
use super::{Error, Format, header};
use crate::inspect::{History, Part, Range};
use tailmark_log::storage::{Damage, EraseOrder, StoreError};
use tailmark_record::{Events, Seq};

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// First seq.
    pub first: Seq,
    /// Last seq; the one before the first where there is none.
    pub last: Seq,
    /// How many.
    pub events: u64,
    /// Seqs between them whose events are gone.
    pub removed: u64,
    /// An erasure that is not through: what it names may be among them, and whoever imports them goes on with it.
    pub erasing: Option<Arc<EraseOrder>>,
}

/// Writes the events of the log in `dir`, up to the head that it has now. `watch` hears how many seqs are
/// written of how many, and ends the export with an error of its own.
///
/// # Errors
/// No log, damage where it is read, what `to` and `watch` answer. What was written then has no end.
pub fn export(
    dir: &Path,
    range: Range,
    format: Format,
    to: impl Write,
    watch: impl FnMut(u64, u64) -> io::Result<()>,
) -> Result<Exported, Error> {
    export_history(History::open(dir, range)?, format, to, watch)
}

/// The same of a log that was looked at.
///
/// # Errors
/// As [`export`].
pub fn export_history(
    mut history: History,
    format: Format,
    to: impl Write,
    mut watch: impl FnMut(u64, u64) -> io::Result<()>,
) -> Result<Exported, Error> {
    let mut writer = Writer::new(format, to);
    writer.header(header::of(&history)).map_err(Error::Output)?;
    let total = history.first.distance_to(history.end);
    let (mut events, mut removed) = (0, 0);
    while let Some(part) = history.read()? {
        let chunk = match part {
            Part::Events(chunk) => chunk,
            Part::Removed(range) => {
                writer.removed(&range).map_err(Error::Output)?;
                removed += range.events();
                watch(events + removed, total).map_err(Error::Output)?;
                continue;
            }
        };
        for event in Events::new(&chunk.events) {
            let written = event.and_then(|event| writer.event(event)).map_err(|error| {
                let (file, detail) = (history.dir().to_owned(), error.what().to_owned());
                StoreError::from(Damage { from: chunk.first, to: chunk.end.prev(), file, detail })
            })?;
            written.map_err(Error::Output)?;
            events += 1;
        }
        watch(events + removed, total).map_err(Error::Output)?;
    }
    writer.end(events, removed, history.link().bytes()).map_err(Error::Output)?;
    let (first, last, erasing) = (history.first, history.end.prev(), history.erasing);
    Ok(Exported { first, last, events, removed, erasing })
}
