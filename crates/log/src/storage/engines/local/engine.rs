//! The engine's state, and which file answers what.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, RwLock};
use uuid::Uuid;

use super::claim::Claim;
use super::options::Options;
use super::topics::Cut;
use super::unsealed::Unsealed;
use super::view::View;
use super::work::{Trouble, Work};
use super::{SEGMENTS_DIR, trimmed};
use crate::storage::journal::{self, Slot, SlotJournal};
use crate::storage::meta::Meta;
use crate::storage::segment::{self, Segment};
use crate::storage::{
    Chunk, Commit, Completion, EraseOrder, EraseProgress, Journal, Links, LookBack, Sealed, Store,
    StoreError, StoreStatus, TakeOut, TakenOut, TopicPage, TopicQuery,
};
use crate::width::to_usize;
use tailmark_record::topic::Filter;
use tailmark_record::{Bounds, ChainTag, Fingerprint, FingerprintKey, LogId, Seq, Timestamp};

/// The engine of one machine; see the module.
///
/// Order of its locks: whoever holds one takes only those to the right of it.
///
/// ```text
/// storing_slot_files > journal > meta
///                      journal > retired
///                      journal > view, bounds > links, work.{broken, displaced, trouble, signals}
/// building > discarded, journal, work.sealing, the cache's locks
/// erasing > journal, trimmed
/// discarded > the cache's locks, trash
/// cut > bounds, the cache's locks
/// unsealed > view
/// ```
///
/// `journal` is held during fdatasync, so that nothing that must answer at once may wait for it.
/// `view`, `bounds` and those of `work` are held for a few instructions, and nothing is taken
/// under them.
pub struct LocalEngine {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) meta: Mutex<Meta>,
    /// Held while the number of slot files is read and stored.
    pub(super) storing_slot_files: Mutex<()>,
    pub(super) log: LogId,
    pub(super) key: FingerprintKey,
    pub(super) journal: Mutex<SlotJournal>,
    /// A slot came free, or sealing failed: whoever waits for one looks again.
    pub(super) slot_freed: Condvar,
    pub(super) view: RwLock<Arc<View>>,
    pub(super) bounds: RwLock<Bounds>,
    /// Of the same moment as `bounds`, which is locked while it changes.
    pub(super) links: RwLock<Links>,
    pub(super) cache: segment::Cache,
    /// Filled, sealed or trimmed slots that wait for their last reader.
    pub(super) retired: Mutex<Vec<Arc<Slot>>>,
    /// Trimmed or superseded segments that wait for their last reader.
    pub(super) discarded: Mutex<Vec<Arc<Segment>>>,
    /// Held while a segment is built: the sealer, an erasure and retention by topic take turns.
    pub(super) building: Mutex<()>,
    /// What is to be erased, and is not through.
    pub(super) erasing: Mutex<Option<Arc<EraseOrder>>>,
    /// Directories that are moved away and can be deleted.
    pub(super) trash: Mutex<Vec<PathBuf>>,
    pub(super) work: Arc<Work>,
    /// What is known of trimmed events.
    pub(super) trimmed: trimmed::Trimmed,
    pub(super) cut: Cut,
    /// Where the events of each topic lie in the slots.
    pub(super) unsealed: Unsealed,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    /// Keeps the log ours for as long as the engine lives.
    pub(super) claim: Claim,
}

impl LocalEngine {
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    pub(super) fn change_view(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.write();
        let mut next = View::clone(&view);
        change(&mut next);
        debug_assert!(next.is_whole(), "no hole between what can be read");
        *view = Arc::new(next);
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds.read().clone()
    }

    /// Runs `attempt` on the present view, again if a segment was folded into another meanwhile.
    pub(super) fn on_view<T>(
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
    pub(super) fn lease(&self, segment: &Arc<Segment>) -> Result<segment::Lease, StoreError> {
        segment.lease().ok_or(StoreError::Retired)
    }

    pub(super) fn segments_dir(&self) -> PathBuf {
        self.dir.join(SEGMENTS_DIR)
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

// What takes more than a line lies in the file of its question, under the same name.
impl Journal for LocalEngine {
    fn id(&self) -> LogId {
        self.log
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        self.key
    }

    fn max_commit_bytes(&self) -> usize {
        to_usize(journal::max_body_bytes(self.options.slot_bytes))
    }

    fn append(&self, commit: Commit, done: Completion) {
        LocalEngine::append(self, commit, done);
    }

    fn refusal(&self) -> Option<StoreError> {
        self.refusal_at(Instant::now())
    }
}

impl Store for LocalEngine {
    fn bounds(&self) -> Bounds {
        LocalEngine::bounds(self)
    }

    fn links(&self) -> Links {
        *self.links.read()
    }

    fn wants_state(&self, bytes: usize) -> bool {
        self.journal.lock().wants_state(bytes as u64)
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        LocalEngine::read(self, from, end, filter)
    }

    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError> {
        LocalEngine::seek_time(self, time)
    }

    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        LocalEngine::time_of(self, seq)
    }

    fn tag_of(&self, seq: Seq) -> Result<ChainTag, StoreError> {
        LocalEngine::tag_of(self, seq)
    }

    fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError> {
        LocalEngine::topics(self, query)
    }

    fn topic_head(&self, topic: &str) -> Result<Option<Seq>, StoreError> {
        LocalEngine::topic_head(self, topic)
    }

    fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        LocalEngine::look_back(self, range, filter, count)
    }

    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        LocalEngine::fingerprints(self, from, visit)
    }

    fn trim_point_for_size(&self, max_bytes: u64, limit: Seq) -> Seq {
        LocalEngine::trim_point_for_size(self, max_bytes, limit)
    }

    fn trim_point_for_events(&self, max: u64, end: Seq) -> Seq {
        LocalEngine::trim_point_for_events(self, max, end)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        LocalEngine::reclaim(self)
    }

    fn release(&self, bytes: u64) -> Result<u64, StoreError> {
        LocalEngine::release(self, bytes)
    }

    fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        LocalEngine::erase(self, order, watch)
    }

    fn erasing(&self) -> Option<Arc<EraseOrder>> {
        LocalEngine::erasing(self)
    }

    fn erased(&self) -> Result<(), StoreError> {
        LocalEngine::erased(self)
    }

    fn cancel_erasing(&self, id: Uuid) -> Result<bool, StoreError> {
        LocalEngine::cancel_erasing(self, id)
    }

    fn has_gaps(&self) -> bool {
        let view = self.view();
        !view.removed.is_empty() || view.segments.iter().any(|it| it.removed().runs > 0)
    }

    fn sealed(&self) -> Vec<Sealed> {
        LocalEngine::sealed(self)
    }

    fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        LocalEngine::take_out(self, order)
    }

    fn seen(&self, wall: Timestamp) -> Vec<(Seq, Timestamp)> {
        LocalEngine::seen(self, wall)
    }

    fn status(&self) -> StoreStatus {
        let view = self.view();
        let sealed: u64 = view.segments.iter().map(|segment| segment.disk_bytes()).sum();
        // Not from the journal itself: its lock is held during fdatasync, and callers may not wait.
        let files = self.work.slot_files.load(Ordering::Relaxed);
        let journal_bytes = files * self.options.slot_bytes;
        let trouble = self
            .work
            .broken
            .lock()
            .clone()
            .or_else(|| self.work.displaced.lock().clone())
            .or_else(|| self.work.trouble.lock().as_ref().map(Trouble::to_string))
            .or_else(|| self.cache.damages().first().map(ToString::to_string))
            .or_else(|| self.trimmed.damages().first().map(ToString::to_string))
            .or_else(|| self.cache.uncompared());
        StoreStatus {
            disk_bytes: sealed + journal_bytes,
            journal_bytes,
            removed_events: view.removed_events(self.bounds.read().oldest),
            segments: view.segments.len() as u64,
            unsealed_slots: view.slots.iter().filter(|slot| slot.end() > slot.first()).count()
                as u64,
            open_segments: self.cache.status().open,
            leases: view.segments.iter().map(|segment| segment.leases()).sum(),
            is_sealing: self.work.sealing.lock().is_some(),
            trouble,
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        LocalEngine::close(self)
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        self.work.stop();
    }
}
