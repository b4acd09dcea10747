//! Taking a backup, beside the daemon that has the log open.
//!
//! The head is that of one look. Segments never change; what is not sealed is read up to that head. Where a
//! daemon moved or trimmed meanwhile what was to be read, another look is taken; what was copied by then is
//! there.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::target::hex;
use super::{Error, Manifest, SegmentRow, Target};
use crate::export::{self, Format};
use crate::inspect::{self, History};
use tailmark_log::storage::segment::{Segment, copy_file};
use tailmark_log::storage::{Damage, StoreError, local};
use tailmark_record::Seq;

/// Looks that find that something has moved.
const LOOKS: usize = 64;

/// How far a backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written.
    pub done_bytes: u64,
    /// Bytes to write, as far as is known.
    pub total_bytes: u64,
}

/// What was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its name.
    pub name: String,
    /// What belongs to it.
    pub manifest: Manifest,
    /// Bytes that were written for it.
    pub written_bytes: u64,
    /// Segments that were there already.
    pub reused_segments: u64,
}

/// Adds a backup of the log in `dir` to those in `to`. `watch` hears how far it is and ends it with an
/// error of its own.
///
/// # Errors
/// No log; damage where it is read: no backup is taken of a log that is not whole. A directory that holds
/// something else, or backups of another log. I/O.
pub fn take(
    dir: &Path,
    to: &Path,
    mut watch: impl FnMut(Progress) -> io::Result<()>,
) -> Result<Taken, Error> {
    let mut run = Run { progress: Progress::default(), reused: 0, watch: &mut watch };
    let mut looks = 0;
    loop {
        looks += 1;
        let history = History::unsealed(dir)?;
        let target = Target::for_log(to, &history.meta.log.to_string())?;
        match run.attempt(dir, history, &target) {
            Err(error) if looks < LOOKS && has_moved(&error) => {}
            done => return done,
        }
    }
}

/// Whether a daemon at work explains it.
fn has_moved(error: &Error) -> bool {
    match error {
        Error::Store(error)
        | Error::Inspect(inspect::Error::Store(error))
        | Error::Tail(export::Error::Store(error))
        | Error::Tail(export::Error::Inspect(inspect::Error::Store(error))) => match error {
            StoreError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            StoreError::Trimmed { .. } | StoreError::Unsettled { .. } => true,
            _ => false,
        },
        _ => false,
    }
}

struct Run<'a> {
    progress: Progress,
    reused: u64,
    watch: &'a mut dyn FnMut(Progress) -> io::Result<()>,
}

impl Run<'_> {
    fn attempt(&mut self, dir: &Path, history: History, target: &Target) -> Result<Taken, Error> {
        let disk = &target.disk;
        let (oldest, oldest_tag) = (history.oldest, history.oldest_tag);
        let segments = history.segments.clone();
        let head = history.end.prev();
        joins(&segments, &history)?;
        target.tidy()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut seconds = now.map_or(0, |since| since.as_secs());
        let name_at = |seconds| format!("{:020}-{seconds}", head.get());
        // What is there is never written again.
        while target.manifest(&name_at(seconds)).exists() {
            seconds += 1;
        }
        let name = name_at(seconds);
        self.progress.total_bytes = self.progress.done_bytes;
        let mut rows = Vec::new();
        let mut missing = Vec::new();
        for segment in &segments {
            let row = SegmentRow {
                name: format!("{}-{}", segment.name(), hex(segment.digest()?)),
                first_seq: segment.first().get(),
                last_seq: segment.end().prev().get(),
                bytes: segment.disk_bytes(),
            };
            if !target.has_segment(&row.name) {
                self.progress.total_bytes += row.bytes;
                missing.push((segment, row.name.clone()));
            }
            rows.push(row);
        }
        self.reused = (segments.len() - missing.len()) as u64;
        // First what may move soonest.
        let tail_bytes = self.tail(history, &target.tail(&name), target)?;
        for (segment, name) in missing {
            self.segment(segment, &name, target)?;
        }
        let trimmed = self.trimmed(dir, oldest, target)?;
        let manifest = Manifest {
            version: Manifest::VERSION,
            log_id: target.log().to_owned(),
            oldest_seq: oldest.get(),
            oldest_tag: oldest_tag.map(|tag| tag.get()),
            head_seq: head.get(),
            taken_at: seconds.cast_signed(),
            segments: rows,
            trimmed,
            tail_bytes,
        };
        manifest.store(&target.manifest(&name), disk)?;
        let (written_bytes, reused_segments) = (self.progress.done_bytes, self.reused);
        Ok(Taken { name, manifest, written_bytes, reused_segments })
    }

    fn copied(&mut self, bytes: u64) -> io::Result<()> {
        self.progress.done_bytes += bytes;
        self.progress.total_bytes = self.progress.total_bytes.max(self.progress.done_bytes);
        (self.watch)(self.progress)
    }

    fn segment(&mut self, segment: &Segment, name: &str, target: &Target) -> Result<(), Error> {
        let parent = target.segments();
        segment.copy_into(&parent, name, &target.disk, &mut |bytes| self.copied(bytes))?;
        Ok(())
    }

    /// What is not sealed, as an export; answers its bytes.
    fn tail(&mut self, history: History, path: &Path, target: &Target) -> Result<u64, Error> {
        let disk = &target.disk;
        disk.write_new(path, &[])?;
        let file = disk.open(path)?;
        let written = Cell::new(0);
        let mut out = Counted { file: &file, written: &written };
        let mut told = 0;
        let mut copied = || {
            let more = written.get() - told;
            told = written.get();
            self.copied(more)
        };
        export::export_history(history, Format::Protobuf, &mut out, |_, _| copied())?;
        copied().map_err(export::Error::Output)?;
        disk.sync_data(&file, path)?;
        disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(written.get())
    }

    /// What tells repeats of events that were trimmed at the look: what is trimmed since is among the events
    /// of the backup, or comes after its head and is no repeat for who puts it back.
    fn trimmed(&mut self, dir: &Path, oldest: Seq, target: &Target) -> Result<Vec<String>, Error> {
        let (disk, mut names) = (&target.disk, Vec::new());
        let all = local::trimmed_files(dir, disk)?;
        let is_before = |path: &PathBuf| local::trimmed_end(path).is_some_and(|end| end <= oldest);
        for path in all.into_iter().filter(is_before) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let new = target.trimmed(&format!("{name}.new"));
            let (_, hash) = copy_file(&path, &new, disk, &mut |bytes| self.copied(bytes))?;
            let name = format!("{name}-{}", hex(hash));
            disk.rename(&new, &target.trimmed(&name))?;
            names.push(name);
        }
        disk.sync_dir(&target.trimmed(""))?;
        Ok(names)
    }
}

/// That the chain goes on from each segment to the next, and to what is not sealed.
fn joins(segments: &[std::sync::Arc<Segment>], history: &History) -> Result<(), StoreError> {
    let ends = segments.iter().map(|segment| (segment.end(), segment.link()));
    let begins = segments.iter().skip(1).map(|segment| (segment.first(), segment.link_before()));
    let tail = std::iter::once((history.first, history.link_before));
    for ((end, link), (first, before)) in ends.zip(begins.chain(tail)) {
        if end != first || link != before {
            let detail = "the chain over the events does not join".to_owned();
            return Err(
                Damage { from: end, to: first, file: history.dir().to_owned(), detail }.into()
            );
        }
    }
    Ok(())
}

struct Counted<'a> {
    file: &'a std::fs::File,
    written: &'a Cell<u64>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written.set(self.written.get() + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
