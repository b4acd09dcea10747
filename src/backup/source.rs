//! Reading a log for a backup, beside the daemon that has it open.
//!
//! The head is that of one look. Segments never change; what is not sealed is read up to that head. Where a
//! daemon moved or trimmed meanwhile what was to be read, another look is taken; what was copied by then is
//! there.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use xxhash_rust::xxh3::Xxh3;

use super::check::tells_of_gone;
use super::manifest::{RemovedRow, joint_of, parted};
use super::sink::{Hash, Look, Sink, TAIL};
use super::target::{FOOTER, TRIMMED, hex, name_of, part_of};
use super::{Error, SegmentRow};
use crate::export::{self, Format};
use crate::inspect::History;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::journal::is_slot_file;
use tailmark_log::storage::segment::{Part, Segment};
use tailmark_log::storage::{Damage, Removed, StoreError, local};
use tailmark_record::Seq;

/// Looks that find that something has moved.
const LOOKS: usize = 64;
/// No more than the smallest piece that is synced.
const READ_BYTES: usize = 256 << 10;

/// Reads the log in `dir` into `sink`.
///
/// # Errors
/// No log; damage where it is read: no backup is taken of a log that is not whole. What `sink` answers.
pub fn read(dir: &Path, sink: &mut dyn Sink) -> Result<(), Error> {
    let mut looks = 0;
    loop {
        looks += 1;
        let history = History::unsealed(dir)?;
        match attempt(dir, history, sink) {
            Err(Stop::Source(error)) if looks < LOOKS && error.has_moved() => {}
            Err(Stop::Source(error) | Stop::Sink(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// Whose an error is.
enum Stop {
    Source(Error),
    Sink(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Source(error.into())
    }
}

fn attempt(dir: &Path, history: History, sink: &mut dyn Sink) -> Result<(), Stop> {
    let segments = history.segments.clone();
    joins(&segments, &history)?;
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    for segment in &segments {
        let parts = segment.parts()?;
        let name = parts.last().map(|footer| name_of(segment, footer)).unwrap_or_default();
        rows.push(SegmentRow {
            name,
            first_seq: segment.first().get(),
            last_seq: segment.end().prev().get(),
            bytes: segment.disk_bytes(),
        });
    }
    let oldest = history.oldest;
    let look = Look {
        log_id: history.meta.log.to_string(),
        oldest,
        oldest_tag: history.oldest_tag,
        head: history.end.prev(),
        segments: rows.clone(),
        removed: history.removed.iter().map(RemovedRow::of).collect(),
    };
    sink.begin(look).map_err(Stop::Sink)?;
    missing.extend(segments.iter().zip(&rows).filter(|(_, row)| !sink.has(row)));
    let gone = history.removed.clone();
    // First what may move soonest.
    tail(history, sink)?;
    for (segment, row) in missing {
        for part in segment.parts()? {
            let path = segment.dir().join(&part.name);
            let found = file(&path, &part_of(&row.name, &part.name), sink)
                .map_err(|stop| lost(stop, segment, &path))?;
            expect(segment, &path, &part, found)?;
            sink.close(found.0, found.1).map_err(Stop::Sink)?;
        }
    }
    trimmed(dir, (oldest, &gone), sink)?;
    sink.end().map_err(Stop::Sink)
}

/// Of a segment that has gone all is gone, its footer too; where that is left, a file was lost.
fn lost(stop: Stop, segment: &Segment, path: &Path) -> Stop {
    match stop {
        Stop::Source(error) if error.is_missing() && segment.dir().join(FOOTER).exists() => {
            let (from, to) = (segment.first(), segment.end().prev());
            let detail = "it is missing".to_owned();
            StoreError::from(Damage { from, to, file: path.to_owned(), detail }).into()
        }
        stop => stop,
    }
}

/// That a file of a segment was what was sealed. A footer that is another one now belongs to another look.
fn expect(
    segment: &Segment,
    path: &Path,
    part: &Part,
    found: (u64, Hash),
) -> Result<(), StoreError> {
    if found == (part.len, part.hash) {
        return Ok(());
    }
    let (from, to) = (segment.first(), segment.end().prev());
    let detail = "its bytes are not what was sealed".to_owned();
    Err(Damage { from, to, file: path.to_owned(), detail }.into())
}

/// Passes a file on; it is closed by who knows what it was to be.
fn file(path: &Path, name: &str, sink: &mut dyn Sink) -> Result<(u64, Hash), Stop> {
    let mut source = Disk::real().open_read(path)?;
    sink.file(name).map_err(Stop::Sink)?;
    let (mut hash, mut len) = (Xxh3::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(super::place::failed("read", path))?,
        };
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        len += n as u64;
        sink.data(bytes).map_err(Stop::Sink)?;
    }
    Ok((len, hash.digest128().to_be_bytes()))
}

/// What is not sealed, as an export.
fn tail(history: History, sink: &mut dyn Sink) -> Result<(), Stop> {
    sink.file(TAIL).map_err(Stop::Sink)?;
    let mut out = Out { sink, hash: Xxh3::new(), len: 0, refused: None };
    let exported = export::export_history(history, Format::Protobuf, &mut out, |_, _| Ok(()));
    // What the sink said is what ended it.
    if let Some(error) = out.refused {
        return Err(Stop::Sink(error));
    }
    exported?;
    let (len, hash) = (out.len, out.hash.digest128().to_be_bytes());
    sink.close(len, hash).map_err(Stop::Sink)
}

/// What tells repeats of events that were trimmed at the look, or whose place a range without events had taken.
/// What is trimmed since is among the events of the backup, or comes after its head and is no repeat for who puts
/// it back.
fn trimmed(dir: &Path, (oldest, gone): (Seq, &[Removed]), sink: &mut dyn Sink) -> Result<(), Stop> {
    let disk = Disk::real();
    let all = local::trimmed_files(dir, &disk)?;
    let is_told = |path: &PathBuf| {
        local::trimmed_range(path).is_some_and(|range| tells_of_gone(&range, oldest, gone))
    };
    for path in all.into_iter().filter(is_told) {
        let plain = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Its name has the hash. It is small: 16 bytes for each event that it tells of.
        let Some(bytes) = disk.read(&path)? else { continue };
        let (len, hash) = (bytes.len() as u64, xxhash_rust::xxh3::xxh3_128(&bytes).to_be_bytes());
        sink.file(&format!("{TRIMMED}/{plain}-{}", hex(hash))).map_err(Stop::Sink)?;
        for part in bytes.chunks(READ_BYTES) {
            sink.data(part).map_err(Stop::Sink)?;
        }
        sink.close(len, hash).map_err(Stop::Sink)?;
    }
    Ok(())
}

/// That the chain goes on from each segment or range to the next, and to what is not sealed.
fn joins(segments: &[Arc<Segment>], history: &History) -> Result<(), StoreError> {
    let sealed = segments.iter().map(|it| (it.first(), it.end(), it.link_before(), it.link()));
    let link = history.link_before;
    let tail = (history.first, history.end, link, link);
    let parts = sealed.chain(history.removed.iter().map(joint_of)).chain([tail]);
    match parted(parts.collect()) {
        None => Ok(()),
        Some(from) => {
            let detail = "the chain over the events does not join".to_owned();
            let (to, file) = (Seq::ZERO, history.dir().to_owned());
            Err(Damage { from, to, file, detail }.into())
        }
    }
}

/// What is exported, on its way.
struct Out<'a> {
    sink: &'a mut dyn Sink,
    hash: Xxh3,
    len: u64,
    refused: Option<Error>,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.data(bytes).map_err(|error| {
            self.refused = Some(error);
            io::Error::from(io::ErrorKind::Other)
        })?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// When a commit was written last to the log in `dir`, by the times of its slots; `None` if it has none.
///
/// # Errors
/// I/O.
pub fn last_written(dir: &Path) -> io::Result<Option<SystemTime>> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir.join("journal"))? {
        let entry = entry?;
        if is_slot_file(&entry.path()) {
            newest = newest.max(Some(entry.metadata()?.modified()?));
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_write_to_a_slot_is_seen_and_one_to_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        std::fs::create_dir(&journal).unwrap();
        assert_eq!(last_written(dir.path()).unwrap(), None);
        let slot = journal.join("slot-0001");
        std::fs::write(&slot, b"a").unwrap();
        let first = last_written(dir.path()).unwrap();
        assert!(first.is_some());
        std::fs::write(journal.join("tip"), b"a").unwrap();
        assert_eq!(last_written(dir.path()).unwrap(), first);
        let later = first.unwrap() + Duration::from_secs(5);
        std::fs::File::options().write(true).open(&slot).unwrap().set_modified(later).unwrap();
        assert_eq!(last_written(dir.path()).unwrap(), Some(later));
    }
}
