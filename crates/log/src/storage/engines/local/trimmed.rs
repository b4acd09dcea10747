//! Fingerprints of events that are trimmed away: a repeat of them is still a repeat.
//!
//! Owns the files in `trimmed/`, one for each segment or slot that was dropped with named events in
//! it. A file is written and synced before what it stands for leaves the view, so a crash in
//! between leaves both, and nobody is told twice. Files beyond the newest `keep` events are
//! deleted. Those of events that are erased go from the files. Must not know how large the window of
//! repeats is now: whoever reads stops when it has enough.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::crc::crc32c;
use crate::storage::error::chain;
use crate::storage::{Damage, EraseOrder, StoreError, disk::Disk};
use crate::width::to_u32;
use tailmark_record::{Fingerprint, LogId, Seq};

/// Where what tells repeats of trimmed events is, within the data directory.
pub const TRIMMED_DIR: &str = "trimmed";
const MAGIC: &[u8; 8] = b"TMTRIM\0\x01";
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 20;

/// Named events, in order.
type Named = Vec<(Seq, Fingerprint)>;

/// The files, and what is in them.
pub(super) struct Trimmed {
    dir: PathBuf,
    disk: Disk,
    log: LogId,
    /// Events beyond so many newer ones are forgotten.
    keep: usize,
    /// In order of their ends.
    runs: Mutex<Vec<TrimmedRun>>,
    /// Of the files, by path.
    damages: Mutex<BTreeMap<PathBuf, Damage>>,
    /// What is being erased is not kept.
    left_out: Mutex<Option<Arc<EraseOrder>>>,
}

/// One file: the named events of `first..end`.
#[derive(Clone, Debug)]
pub(super) struct TrimmedRun {
    path: PathBuf,
    /// First seq that it stands for.
    pub first: Seq,
    /// Seq after the last.
    pub end: Seq,
    events: u64,
}

impl Trimmed {
    /// What is there.
    pub(super) fn open(
        root: &Path,
        disk: &Disk,
        log: LogId,
        keep: usize,
    ) -> Result<Trimmed, StoreError> {
        let dir = root.join(TRIMMED_DIR);
        let mut runs = Vec::new();
        for path in list(&dir, disk)? {
            let Some((first, end)) = parse_name(&path) else {
                if path.extension().is_some_and(|extension| extension == "new") && path.is_file() {
                    // Cut while it was written; what it was to stand for is still there.
                    disk.remove_file(&path)?;
                } else {
                    tracing::warn!(path = %path.display(), "not a file of ours; left alone");
                }
                continue;
            };
            let len = disk.run("stat", &path, || std::fs::metadata(&path))?.len();
            let events = len.saturating_sub(HEADER_BYTES as u64) / ENTRY_BYTES as u64;
            runs.push(TrimmedRun { path, first, end, events });
        }
        runs.sort_by_key(|run| (run.end, run.first));
        let (disk, runs) = (disk.clone(), Mutex::new(runs));
        let (damages, left_out) = (Mutex::default(), Mutex::default());
        Ok(Trimmed { dir, disk, log, keep, runs, damages, left_out })
    }

    /// Keeps the named events of `first..end`. Space must come free whatever happens to them, so
    /// what cannot be kept is said aloud and forgotten at the next start.
    pub(super) fn keep(&self, first: Seq, end: Seq, named: Result<Named, StoreError>) {
        if let Err(error) = named.and_then(|named| self.try_keep(first, end, named)) {
            tracing::error!(
                %first, last = %end.prev(), error = %chain(&error),
                "cannot keep what tells repeats of trimmed events; the next start will not know them"
            );
        }
    }

    /// The same where the events can stay if that fails.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn try_keep(
        &self,
        first: Seq,
        end: Seq,
        mut named: Named,
    ) -> Result<(), StoreError> {
        let mut runs = self.runs.lock();
        let is_there = runs.iter().any(|run| run.first <= first && end <= run.end);
        if self.keep == 0 || first >= end || is_there {
            return Ok(());
        }
        let left_out = self.left_out.lock().clone();
        named.retain(|(seq, _)| !left_out.as_ref().is_some_and(|order| order.contains(*seq)));
        let written = self.write(first, end, &named);
        if let Ok(Some(run)) = &written {
            let at = runs.partition_point(|other| (other.end, other.first) < (end, first));
            runs.insert(at, run.clone());
        }
        self.forget(&mut runs);
        written.map(drop)
    }

    fn write(&self, first: Seq, end: Seq, named: &Named) -> Result<Option<TrimmedRun>, StoreError> {
        if named.is_empty() {
            return Ok(None);
        }
        if !self.dir.is_dir() {
            self.disk.create_dir(&self.dir)?;
            self.disk.sync_dir(self.dir.parent().unwrap_or(Path::new(".")))?;
        }
        let path = self.dir.join(name(first, end));
        self.disk.replace(&path, &encode(self.log, first, end, named))?;
        Ok(Some(TrimmedRun { path, first, end, events: named.len() as u64 }))
    }

    /// Deletes what is beyond the newest events. Not synced: what comes back is deleted again.
    fn forget(&self, runs: &mut Vec<TrimmedRun>) {
        let (mut newer, mut lowest) = (0, Seq::MAX);
        let mut kept = runs.len();
        while kept > 0 && newer < self.keep as u64 {
            kept -= 1;
            let run = &runs[kept];
            // One of a part of what a newer one stands for tells the same events: segments that had become one.
            newer += if run.first < lowest { run.events } else { 0 };
            lowest = lowest.min(run.first);
        }
        for run in runs.drain(..kept) {
            self.damages.lock().remove(&run.path);
            if let Err(error) = self.disk.remove_file(&run.path) {
                tracing::warn!(error = %chain(&error), "cannot delete what is forgotten");
            }
        }
    }

    /// What is being erased: nothing of it is kept from here on.
    pub(super) fn leave_out(&self, order: Option<Arc<EraseOrder>>) {
        *self.left_out.lock() = order;
    }

    /// Takes what is erased out of the files.
    ///
    /// # Errors
    /// I/O; again, it does the rest.
    pub(super) fn erase(&self, order: &EraseOrder) -> Result<(), StoreError> {
        let mut runs = self.runs.lock();
        let mut at = 0;
        while let Some(run) = runs.get(at).cloned() {
            if order.parts(run.first..run.end).next().is_none() {
                at += 1;
                continue;
            }
            match self.without(&run, order)? {
                left if left == Some(run.events) => at += 1,
                Some(events) if events > 0 => {
                    runs[at].events = events;
                    at += 1;
                }
                _ => {
                    self.disk.remove_file(&run.path)?;
                    self.disk.sync_dir(&self.dir)?;
                    self.damages.lock().remove(&run.path);
                    runs.remove(at);
                }
            }
        }
        // One that was cut, or could not be put in place.
        for path in list(&self.dir, &self.disk)? {
            if path.extension().is_some_and(|extension| extension == "new") && path.is_file() {
                self.disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Writes a file anew without what is erased; answers how many events it tells of then. `None` of one
    /// that is damaged: it tells nothing, and nobody knows what it holds.
    fn without(&self, run: &TrimmedRun, order: &EraseOrder) -> Result<Option<u64>, StoreError> {
        let mut named = match read(&run.path, &self.disk, self.log) {
            Ok(named) => named,
            Err(StoreError::Damaged(damage)) => {
                tracing::error!(%damage, "deleted: it may hold what is erased");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let before = named.len();
        named.retain(|(seq, _)| !order.contains(*seq));
        if named.len() < before && !named.is_empty() {
            self.disk.replace(&run.path, &encode(self.log, run.first, run.end, &named))?;
        }
        Ok(Some(named.len() as u64))
    }

    /// The files now.
    pub(super) fn runs(&self) -> Vec<TrimmedRun> {
        self.runs.lock().clone()
    }

    /// What is wrong with files that were read since the start.
    pub(super) fn damages(&self) -> Vec<Damage> {
        self.damages.lock().values().cloned().collect()
    }

    /// Visits the events of one file from `from` on, newest first, until `visit` answers false; and
    /// then answers false. Of a damaged file none is told: no event is lost with it, and appends must
    /// not end with it. It is said, and stays where it is.
    pub(super) fn visit(
        &self,
        run: &TrimmedRun,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<bool, StoreError> {
        let named = match read(&run.path, &self.disk, self.log) {
            // Forgotten since, and all that is older too.
            Err(StoreError::Io { .. }) if !run.path.exists() => return Ok(false),
            // What cannot be read is no better, and must not end appends either.
            Err(error) if !passes(&error) => {
                let damage = match error {
                    StoreError::Damaged(damage) => damage,
                    other => Damage {
                        from: run.first,
                        to: run.end.prev(),
                        file: run.path.clone(),
                        detail: chain(&other),
                    },
                };
                let known = self.damages.lock().insert(run.path.clone(), damage.clone());
                if known.is_none() {
                    tracing::error!(%damage, "repeats of some trimmed events will be stored again");
                }
                return Ok(true);
            }
            named => named?,
        };
        let mut wanted = named.into_iter().rev().take_while(|(seq, _)| *seq >= from);
        Ok(wanted.all(|(seq, fingerprint)| visit(seq, fingerprint)))
    }
}

/// Whether another try may succeed: this process or the system is short of something.
fn passes(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged(_) => false,
        StoreError::Io { source, .. } => {
            let short =
                [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM];
            short.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
        }
        _ => true,
    }
}

/// What is wrong with the files in `trimmed/` of the log in `root`.
///
/// # Errors
/// I/O.
pub fn verify_trimmed(root: &Path, disk: &Disk, log: LogId) -> Result<Vec<Damage>, StoreError> {
    let mut damage = Vec::new();
    for path in list(&root.join(TRIMMED_DIR), disk)? {
        if parse_name(&path).is_none() {
            continue;
        }
        match read(&path, disk, log) {
            Err(StoreError::Damaged(found)) => damage.push(found),
            Err(error) if path.exists() => return Err(error),
            // A daemon has just forgotten it.
            _ => {}
        }
    }
    Ok(damage)
}

/// The files that tell repeats of trimmed events, in the data directory `root`.
///
/// # Errors
/// I/O.
pub fn trimmed_files(root: &Path, disk: &Disk) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = list(&root.join(TRIMMED_DIR), disk)?;
    paths.retain(|path| parse_name(path).is_some());
    Ok(paths)
}

/// Of which seqs a file of this name tells repeats. They were trimmed, or taken out so that a range without events took their
/// place.
pub fn trimmed_range(path: &Path) -> Option<Range<Seq>> {
    parse_name(path).map(|(first, end)| first..end)
}

fn list(dir: &Path, disk: &Disk) -> Result<Vec<PathBuf>, StoreError> {
    if dir.is_dir() { disk.list(dir) } else { Ok(Vec::new()) }
}

fn name(first: Seq, end: Seq) -> String {
    format!("{:020}-{:020}", first.get(), end.get())
}

fn parse_name(path: &Path) -> Option<(Seq, Seq)> {
    let text = path.file_name()?.to_str()?;
    let (first, end) = text.split_once('-')?;
    let parsed = (Seq::new(first.parse().ok()?), Seq::new(end.parse().ok()?));
    (name(parsed.0, parsed.1) == text && parsed.0 < parsed.1).then_some(parsed)
}

fn encode(log: LogId, first: Seq, end: Seq, named: &Named) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for (seq, fingerprint) in named {
        out.extend_from_slice(&to_u32(first.distance_to(*seq)).to_le_bytes());
        out.extend_from_slice(&fingerprint.0);
    }
    out[..8].copy_from_slice(MAGIC);
    out[8..24].copy_from_slice(&log.uuid().into_bytes());
    for (at, number) in (24..).step_by(8).zip([first.get(), end.get(), named.len() as u64]) {
        out[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c(0, &out[HEADER_BYTES..]);
    out[48..52].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c(0, &out[..60]);
    out[60..64].copy_from_slice(&crc.to_le_bytes());
    out
}

fn read(path: &Path, disk: &Disk, log: LogId) -> Result<Named, StoreError> {
    let range = parse_name(path).unwrap_or_default();
    let bytes = disk.run("read", path, || std::fs::read(path))?;
    decode(&bytes, log, range).ok_or_else(|| {
        let detail =
            "what tells repeats of these trimmed events is damaged; without this file they \
                      are not told"
                .to_owned();
        Damage { from: range.0, to: range.1.prev(), file: path.to_owned(), detail }.into()
    })
}

fn decode(bytes: &[u8], log: LogId, (first, end): (Seq, Seq)) -> Option<Named> {
    let (header, entries) = bytes.split_at_checked(HEADER_BYTES)?;
    let expected: Vec<u8> = [first.get(), end.get(), (entries.len() / ENTRY_BYTES) as u64]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let is_whole = header[..8] == *MAGIC
        && header[8..24] == log.uuid().into_bytes()
        && header[24..48] == expected
        && header[48..52] == crc32c(0, entries).to_le_bytes()
        && header[60..] == crc32c(0, &header[..60]).to_le_bytes()
        && entries.len().is_multiple_of(ENTRY_BYTES);
    let entry = |entry: &[u8]| {
        let (at, fingerprint) = entry.split_first_chunk::<4>()?;
        let seq = first.plus(u64::from(u32::from_le_bytes(*at)));
        Some((seq, Fingerprint(fingerprint.try_into().ok()?)))
    };
    if is_whole { entries.chunks_exact(ENTRY_BYTES).map(entry).collect() } else { None }
}
