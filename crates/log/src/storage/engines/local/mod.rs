//! The engine of one machine: commits land in the journal and rest in sled segments.
//!
//! Owns the data directory: its lock, identity, journal, segments, and the threads that mark, seal
//! and reclaim. Must not know of clients, topics' meaning or configuration.
//!
//! Invariants:
//! - Segments, then slots, cover `segments[0].first .. next` without a hole; the last slot is the
//!   one that takes commits.
//! - The head moves after fdatasync has returned, never before; readers see nothing beyond it.
//! - A slot is reused only when its events are sealed or trimmed, the newer slot's head is on disk,
//!   and nobody reads it.

mod append;
mod claim;
mod create;
mod lookup;
mod open;
mod read;
mod release;
mod seal;
mod survey;
mod threads;
mod trimmed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

pub(in crate::storage) use claim::Claim;
pub use create::create_with;
pub use survey::{Survey, SurveyedSlot, survey};
pub use trimmed::verify_trimmed;

use crate::storage::disk::Disk;
use crate::storage::journal::{Journal, JournalOptions, Slot};
use crate::storage::meta::Meta;
use crate::storage::segment::{self, Segment};
use crate::storage::{
    Chunk, Commit, Completion, Engine, Recovered, StoreError, StoreStatus, TopicStats,
};
use tailmark_record::topic::Filter;
use tailmark_record::{Bounds, Fingerprint, FingerprintKey, LogId, Seq, Timestamp};

/// How a log lies on disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// Create a log where there is none.
    pub create: bool,
    /// Bytes of a journal slot, and so of a segment; fixed when the log is created. 256 KiB to
    /// 1 GiB.
    pub slot_bytes: u64,
    /// Most slots that may wait to be sealed, the active one included. At least 3.
    pub max_slots: usize,
    /// How sealed blocks are compressed.
    pub compression: segment::Compression,
    /// Unsealed events older than this are sealed even if their slot is not full.
    pub seal_after: Duration,
    /// Bytes of the file system that are left to others.
    pub min_free_bytes: u64,
    /// A pause of this length is marked in the journal, which tells later that all was synced.
    pub mark_after: Duration,
    /// Sealing that makes no progress for so long hangs: nothing is sealed any more until the log is
    /// opened again.
    pub seal_timeout: Duration,
    /// Memory that open sealed databases may take, as far as it can be told.
    pub open_bytes: u64,
    /// Sealed databases that may stay open.
    pub open_segments: usize,
    /// Named events that are still known as such when they are trimmed, over a restart too: the window
    /// of repeats. 20 bytes on disk each.
    pub kept_fingerprints: usize,
    /// File operations; real, but in tests.
    pub disk: Disk,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create: true,
            slot_bytes: 64 << 20,
            max_slots: 4,
            compression: segment::Compression::default(),
            seal_after: Duration::from_secs(3600),
            min_free_bytes: 256 << 20,
            mark_after: Duration::from_millis(50),
            seal_timeout: Duration::from_secs(60),
            open_bytes: 64 << 20,
            open_segments: 64,
            kept_fingerprints: 1_000_000,
            disk: Disk::real(),
        }
    }
}

impl Options {
    fn journal(&self, slot_bytes: u64) -> JournalOptions {
        JournalOptions {
            slot_bytes,
            max_slots: self.max_slots,
            min_free_bytes: self.min_free_bytes,
        }
    }
}

/// Opens a log on this machine's disk.
///
/// # Errors
/// Locked, missing (without `create`), of another format, damaged, or I/O. Nothing is changed by a
/// failed open but a created lock file.
pub fn open(dir: &Path, options: Options) -> Result<(Arc<LocalEngine>, Recovered), StoreError> {
    open::open(dir, options)
}

/// Segments and slots in order; replaced as a whole.
#[derive(Clone, Debug, Default)]
struct View {
    segments: Vec<Arc<Segment>>,
    slots: Vec<Arc<Slot>>,
}

impl View {
    /// Seq after the last sealed event, if any is sealed.
    fn sealed_end(&self) -> Option<Seq> {
        self.segments.last().map(|segment| segment.end())
    }
}

/// See the module.
pub struct LocalEngine {
    dir: PathBuf,
    options: Options,
    meta: Mutex<Meta>,
    /// Held while the number of slot files is read and stored.
    storing_slot_files: Mutex<()>,
    log: LogId,
    key: FingerprintKey,
    journal: Mutex<Journal>,
    /// A slot came free, or sealing failed: whoever waits for one looks again.
    slot_freed: Condvar,
    view: RwLock<Arc<View>>,
    bounds: RwLock<Bounds>,
    cache: segment::Cache,
    /// Filled, sealed or trimmed slots that wait for their last reader.
    retired: Mutex<Vec<Arc<Slot>>>,
    /// Trimmed or superseded segments that wait for their last reader.
    discarded: Mutex<Vec<Arc<Segment>>>,
    /// Directories that are moved away and can be deleted.
    trash: Mutex<Vec<PathBuf>>,
    work: Arc<Work>,
    /// What is known of trimmed events.
    trimmed: trimmed::Trimmed,
    summaries: lookup::Summaries,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Keeps the log ours for as long as the engine lives.
    claim: claim::Claim,
}

/// What the background threads are told.
#[derive(Default)]
struct Work {
    closing: AtomicBool,
    /// Appends so far; the marker sees a pause when it stands still.
    appends: AtomicU64,
    signals: Mutex<Signals>,
    changed: Condvar,
    /// Why sealing does not go on.
    trouble: Mutex<Option<Trouble>>,
    /// Slot files that exist, as of the last append.
    slot_files: AtomicU64,
    /// Why appends have stopped for good.
    broken: Mutex<Option<String>>,
    /// What the last look found in the log's place, if that is not the log.
    displaced: Mutex<Option<String>>,
    /// The build under way.
    sealing: Mutex<Option<Arc<segment::Progress>>>,
}

/// Why sealing does not go on. Appends go on while there are slots.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// It hangs, after so many steps. Never tried again: sled cannot be told to let go of what it
    /// holds, and another attempt would hang as well.
    Hangs { step: u64, timeout: Duration },
    /// No room for another segment.
    DiskFull { available_bytes: u64, needed_bytes: u64 },
    /// Anything else, in words.
    Other(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::DiskFull { available_bytes, needed_bytes } => {
                write!(f, "sealing needs {needed_bytes} bytes, {available_bytes} are free")
            }
            Trouble::Hangs { step, timeout } => write!(
                f,
                "sealing has stopped until the log is opened again: no progress for {} s after step \
                 {step}",
                timeout.as_secs_f32()
            ),
            Trouble::Other(reason) => write!(f, "sealing: {reason}"),
        }
    }
}

#[derive(Default)]
struct Signals {
    /// There may be something to seal or free.
    seal: bool,
    /// Something was appended after the last mark.
    mark: bool,
}

impl Work {
    fn signal(&self, set: impl FnOnce(&mut Signals)) {
        set(&mut lock(&self.signals));
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.signal(|_| {});
    }

    /// Whether sealing hangs, and so has stopped for good.
    fn has_given_up_sealing(&self) -> bool {
        matches!(*lock(&self.trouble), Some(Trouble::Hangs { .. }))
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalEngine {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_view(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = View::clone(&view);
        change(&mut next);
        *view = Arc::new(next);
    }

    fn current_bounds(&self) -> Bounds {
        self.bounds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `attempt` on the present view, again if a segment was folded into another meanwhile.
    fn on_view<T>(
        &self,
        mut attempt: impl FnMut(&View) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let view = self.view();
            let result = attempt(&view);
            let has_moved = || !Arc::ptr_eq(&view, &self.view());
            if !matches!(result, Err(StoreError::Retired)) || !has_moved() {
                return result;
            }
        }
    }

    /// A lease on a segment of a view.
    fn lease(&self, segment: &Arc<Segment>) -> Result<segment::Lease, StoreError> {
        segment.lease().ok_or(StoreError::Retired)
    }

    fn segments_dir(&self) -> PathBuf {
        self.dir.join(SEGMENTS_DIR)
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

const JOURNAL_DIR: &str = "journal";
const SEGMENTS_DIR: &str = "segments";
const QUARANTINE_DIR: &str = "quarantine";
const LOCK_FILE: &str = "LOCK";

impl Engine for LocalEngine {
    fn id(&self) -> LogId {
        self.log
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        self.key
    }

    fn bounds(&self) -> Bounds {
        self.current_bounds()
    }

    fn max_commit_bytes(&self) -> usize {
        crate::storage::journal::max_body_bytes(self.options.slot_bytes) as usize
    }

    fn wants_state(&self, bytes: usize) -> bool {
        lock(&self.journal).wants_state(bytes as u64)
    }

    fn append(&self, commit: Commit, done: Completion) {
        done(self.append_now(&commit));
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        self.read_chunk(from, end, filter)
    }

    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError> {
        self.find_time(time)
    }

    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        self.find_time_of(seq)
    }

    fn topics(&self) -> Result<BTreeMap<Arc<str>, TopicStats>, StoreError> {
        self.count_topics()
    }

    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        self.visit_fingerprints(from, visit)
    }

    fn trim_point_for_bytes(&self, bytes: u64, limit: Seq) -> Seq {
        self.find_trim_point(bytes, limit)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.reclaim_space()
    }

    fn release(&self, bytes: u64) -> Result<u64, StoreError> {
        self.release_spare_slots(bytes)
    }

    fn status(&self) -> StoreStatus {
        let view = self.view();
        let sealed: u64 = view.segments.iter().map(|segment| segment.disk_bytes()).sum();
        // Not from the journal itself: its lock is held during fdatasync, and callers may not wait.
        let files = self.work.slot_files.load(Ordering::Relaxed);
        let journal_bytes = files * self.options.slot_bytes;
        let trouble = lock(&self.work.broken)
            .clone()
            .or_else(|| lock(&self.work.displaced).clone())
            .or_else(|| lock(&self.work.trouble).as_ref().map(Trouble::to_string))
            .or_else(|| self.cache.damages().first().map(ToString::to_string));
        StoreStatus {
            disk_bytes: sealed + journal_bytes,
            journal_bytes,
            segments: view.segments.len() as u64,
            unsealed_slots: view.slots.len() as u64,
            open_segments: self.cache.status().open,
            leases: view.segments.iter().map(|segment| segment.leases()).sum(),
            is_sealing: lock(&self.work.sealing).is_some(),
            trouble,
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        self.close_now()
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        self.work.stop();
    }
}

#[cfg(test)]
mod tests;
