//! Erasing what events said from the data directory.
//!
//! 1. The order is put down ([`order`]). From here on it will be finished.
//! 2. Slots are overwritten that hold nothing of the log, the journal goes on in one of these, and what the slots
//!    before it hold is sealed.
//! 3. Each segment with such events is built anew with shells, at the next revision, and takes the place of the old
//!    one. Cut anywhere, the next start finds the old one or both, of which the newer counts.
//! 4. What nobody needs any more, and may hold such events all the same, is overwritten or deleted: freed slots,
//!    segments that were replaced, torn writes in `quarantine/`, fingerprints in `trimmed/`. What is trimmed goes out
//!    of the segment at the trim mark too.
//!
//! Each step finds by itself what is left to do, so that it can be taken again. The order stays until the caller has
//! done what it has to do.

mod order;
mod wipe;

use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use uuid::Uuid;

pub(in crate::storage) use self::order::store as store_order;
pub use self::order::{ERASING_FILE, load_order, order_bytes, order_of};
use super::LocalEngine;
use super::seal::named_of_runs;
use crate::storage::error::chain;
use crate::storage::journal::Failure;
use crate::storage::segment::{self, BuildSpec, Cache, Lease, Progress, Segment, Source};
use crate::storage::{
    Chunk, Damage, EraseOrder, ErasePhase, EraseProgress, RemovedReason, StoreError, TakeOut,
};
use tailmark_record::topic::Filter;
use tailmark_record::{Events, Facts, Seq};

/// How long it waits for those who read what is to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
const TURN: Duration = Duration::from_millis(100);
/// Most that a shell says beyond its event, without the reason.
const SHELL_BYTES: usize = 128;

/// How far it is, and who hears of it.
struct Watched<'a> {
    order: &'a EraseOrder,
    now: EraseProgress,
    watch: &'a mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
}

impl Watched<'_> {
    /// # Errors
    /// When it is to stop.
    fn tell(&mut self) -> Result<(), StoreError> {
        match (self.watch)(self.now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(StoreError::Stopped { reason: "the erasure was told to stop".to_owned() })
            }
        }
    }

    fn begin(&mut self, phase: ErasePhase) -> Result<(), StoreError> {
        (self.now.phase, self.now.segments_done, self.now.segments) = (phase, 0, 0);
        self.now.events_done = 0;
        self.tell()
    }
}

impl LocalEngine {
    pub(super) fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        self.check_claim()?;
        let order = &self.begin_erasing(order)?;
        let now = EraseProgress {
            id: order.id,
            phase: ErasePhase::Sealing,
            segments_done: 0,
            segments: 0,
            events_done: 0,
            events: order.events(),
        };
        let mut watched = Watched { order, now, watch };
        watched.begin(ErasePhase::Sealing)?;
        self.seal_before(&mut watched)?;
        watched.begin(ErasePhase::Rewriting)?;
        let segments = self.rewrite(&mut watched)? + self.take_out_trimmed()?;
        watched.begin(ErasePhase::Wiping)?;
        self.wipe(&mut watched)?;
        Ok(segments)
    }

    pub(super) fn erasing(&self) -> Option<Arc<EraseOrder>> {
        self.erasing.lock().clone()
    }

    /// Whether what a seq said is to go.
    pub(super) fn is_to_go(&self) -> impl Fn(Seq) -> bool + use<> {
        let order = self.erasing();
        move |seq| order.as_ref().is_some_and(|order| order.contains(seq))
    }

    pub(super) fn erased(&self) -> Result<(), StoreError> {
        let mut erasing = self.erasing.lock();
        if erasing.is_none() {
            return Ok(());
        }
        order::remove(&self.dir, &self.options.disk)?;
        *erasing = None;
        self.trimmed.leave_out(None);
        Ok(())
    }

    pub(super) fn cancel_erasing(&self, id: Uuid) -> Result<bool, StoreError> {
        let oldest = self.bounds.read().oldest;
        let mut erasing = self.erasing.lock();
        let Some(order) = erasing.as_ref().filter(|order| order.id == id) else {
            return Ok(false);
        };
        if self.may_have_erased(order, oldest)? {
            return Ok(false);
        }
        self.check_claim()?;
        order::remove(&self.dir, &self.options.disk)?;
        *erasing = None;
        self.trimmed.leave_out(None);
        Ok(true)
    }

    /// Whether any event is a shell by this order, or was one for all that is known: of what was trimmed or taken out since
    /// nobody can tell. Segments are written anew from the oldest on, each as a whole: the first that says anything tells it.
    fn may_have_erased(&self, order: &EraseOrder, oldest: Seq) -> Result<bool, StoreError> {
        if order.events_in(Seq::ZERO..oldest) > 0 {
            return Ok(true);
        }
        let erasure = order.id.to_string();
        for segment in &self.view().segments {
            for part in order.parts(segment.first()..segment.end()) {
                // Somebody writes it anew, and nobody but an erasure may have begun to.
                let Some(lease) = segment.lease() else { return Ok(true) };
                let mut at = part.start;
                while at < part.end {
                    let chunk = match self.cache.read(&lease, at, part.end, &Filter::ALL) {
                        Err(StoreError::Removed(_)) => return Ok(true),
                        // It was never written anew, and stands in the way of all behind it.
                        Err(StoreError::Damaged(_)) if segment.revision() == 1 => return Ok(false),
                        // An erasure wrote it anew, or rules did: the order says whether it was this one.
                        Err(StoreError::Damaged(_)) if self.is_untouched() => return Ok(false),
                        chunk => chunk?,
                    };
                    for event in Events::new(&chunk.events) {
                        let facts = event.and_then(Facts::scan).map_err(|error| {
                            let (to, file) = (chunk.end.prev(), lease.dir().to_owned());
                            Damage { from: at, to, file, detail: error.what().to_owned() }
                        })?;
                        match facts.erased {
                            None => return Ok(false),
                            Some(erased) if erased.erasure == erasure => return Ok(true),
                            Some(_) => {}
                        }
                    }
                    at = chunk.end;
                }
            }
        }
        Ok(false)
    }

    /// Whether the order says that nothing is erased by it yet.
    fn is_untouched(&self) -> bool {
        order::is_untouched(&self.dir, &self.options.disk, self.log)
    }

    /// Puts the order down, unless it is the one that is not through.
    fn begin_erasing(&self, order: &Arc<EraseOrder>) -> Result<Arc<EraseOrder>, StoreError> {
        let mut erasing = self.erasing.lock();
        match &*erasing {
            Some(left) if left.id == order.id => return Ok(Arc::clone(left)),
            Some(_) => return Err(StoreError::Invalid("another order is not through")),
            None => {}
        }
        order.check(self.bounds().next()).map_err(StoreError::Invalid)?;
        let disk = &self.options.disk;
        if let Err(error) = order::store_untouched(&self.dir, disk, self.log, order) {
            if order::remove(&self.dir, disk).is_ok() {
                return Err(error);
            }
            // It may be found at the next start: so it counts.
            tracing::warn!(id = %order.id, "an order to erase may be there although it could not be synced");
        }
        *erasing = Some(Arc::clone(order));
        self.trimmed.leave_out(Some(Arc::clone(order)));
        self.journal.lock().slots().taint();
        Ok(Arc::clone(order))
    }

    /// Goes on in a slot without an older byte, and waits until all before it is sealed.
    fn seal_before(&self, watched: &mut Watched<'_>) -> Result<(), StoreError> {
        let begun = Instant::now();
        loop {
            self.wipe_free(watched)?;
            self.go_on_in_clean_slot()?;
            let slots = self.journal.lock().slots().taints();
            if self.view().slots.iter().all(|slot| slot.is_clean(slots)) {
                return Ok(());
            }
            if let Some(error) = self.sealing_trouble() {
                return Err(error);
            }
            self.work.signal(|signals| signals.seal = true);
            // A slot takes seconds, and each of them may have to be sealed.
            self.pause(watched, begun, 10 * PATIENCE, "what is not sealed does not get sealed")?;
        }
    }

    fn go_on_in_clean_slot(&self) -> Result<(), StoreError> {
        let mut journal = self.journal.lock();
        if let Some(reason) = journal.broken() {
            return Err(StoreError::Stopped { reason: reason.to_owned() });
        }
        let taints = journal.slots().taints();
        let is_clean = journal.active().is_clean(taints);
        if is_clean && journal.is_begun() {
            return Ok(());
        }
        self.check_claim()?;
        // Its head must be on disk before the next one says what is before it.
        let marked = if journal.is_begun() { Ok(()) } else { journal.mark() };
        if is_clean {
            // Slots before it are used again once its head is on disk.
            self.note_broken(&journal);
            return marked;
        }
        let rolled = marked.map_err(Failure::Broken).and_then(|()| journal.roll(None));
        match rolled {
            Ok(_) => {}
            // Sealing makes room.
            Err(Failure::NoSlot) => {
                self.free_retired(&mut journal);
                return Ok(());
            }
            Err(failure) => {
                self.note_broken(&journal);
                return Err(failure.into_error());
            }
        }
        self.note_files(&mut journal);
        let next = Arc::clone(journal.active());
        self.change_view(|view| view.slots.push(next));
        let marked = journal.mark();
        self.note_broken(&journal);
        marked
    }

    /// Writes anew what holds such events. Answers how many segments.
    fn rewrite(&self, watched: &mut Watched<'_>) -> Result<u64, StoreError> {
        let order = watched.order;
        let (mut from, mut rewritten) = (Seq::ZERO, 0);
        loop {
            let view = self.view();
            let is_left = |segment: &&Arc<Segment>| {
                let range = segment.first().max(from)..segment.end();
                order.parts(range).next().is_some()
            };
            let left = view.segments.iter().filter(is_left).count() as u64;
            let Some(segment) = view.segments.iter().find(is_left).cloned() else { break };
            drop(view);
            watched.now.segments = watched.now.segments_done + left;
            watched.tell()?;
            let end = match self.rewrite_one(&segment, watched) {
                Ok(Some(is_new)) => {
                    rewritten += u64::from(is_new);
                    segment.end()
                }
                // Another took its place meanwhile: look again.
                Ok(None) => continue,
                Err(error) => return Err(error),
            };
            watched.now.segments_done += 1;
            watched.now.events_done += order.events_in(segment.first().max(from)..end);
            from = end;
        }
        // What is in no segment is trimmed.
        watched.now.events_done = watched.now.events;
        watched.tell()?;
        Ok(rewritten)
    }

    /// Takes what is trimmed out of the segment that has the trim mark within it: nobody can tell of which topic it was,
    /// and it may be of those who asked. Answers how many segments that were.
    fn take_out_trimmed(&self) -> Result<u64, StoreError> {
        loop {
            let oldest = self.bounds().oldest;
            let view = self.view();
            let has_mark = |it: &&Arc<Segment>| it.first() < oldest && oldest < it.end();
            let Some(segment) = view.segments.iter().find(has_mark) else { return Ok(0) };
            let Some(lease) = segment.lease() else { continue };
            let (first, end) = (segment.first(), segment.end());
            let is_gone = match self.cache.read(&lease, first, oldest, &Filter::ALL) {
                Err(StoreError::Removed(gone)) => gone.end >= oldest,
                _ => false,
            };
            drop((lease, view));
            let sealed = self.sealed().into_iter().find(|it| (it.first, it.end) == (first, end));
            let Some(sealed) = sealed.filter(|_| !is_gone) else { return Ok(0) };
            let seqs = vec![(first..oldest, RemovedReason::Expired)];
            // What tells repeats of them stays, as of others that are trimmed.
            let order = TakeOut { sealed: vec![sealed], seqs, named_from: Seq::FIRST };
            match self.take_out(&order) {
                Ok(Some(_)) => return Ok(1),
                // Another has taken its place.
                Ok(None) => {}
                Err(error @ StoreError::Damaged(_)) => {
                    let error = chain(&error);
                    tracing::warn!(%error, "what is trimmed stays in a segment that is damaged");
                    return Ok(0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Nothing is sealed meanwhile. Sealing that hangs is not waited for.
    fn take_turn(&self, watched: &mut Watched<'_>) -> Result<MutexGuard<'_, ()>, StoreError> {
        loop {
            if let Some(turn) = self.building.try_lock_for(TURN) {
                return Ok(turn);
            }
            if self.work.has_given_up_sealing() {
                return Err(given_up());
            }
            watched.tell()?;
        }
    }

    /// Answers whether it had to be written anew; `None` where it is not that segment any more.
    fn rewrite_one(
        &self,
        segment: &Arc<Segment>,
        watched: &mut Watched<'_>,
    ) -> Result<Option<bool>, StoreError> {
        let _building = self.take_turn(watched)?;
        let order = watched.order;
        let is_there = |segments: &[Arc<Segment>]| {
            segments.iter().position(|other| Arc::ptr_eq(other, segment))
        };
        if is_there(&self.view().segments).is_none() {
            return Ok(None);
        }
        let Some(lease) = segment.lease() else { return Ok(None) };
        if !self.holds_some(&lease, order)? {
            return Ok(Some(false));
        }
        self.check_claim()?;
        self.check_segments()?;
        let disk = &self.options.disk;
        if self.is_untouched() {
            order::store(&self.dir, disk, self.log, order)?;
        }
        let progress = Arc::new(Progress::default());
        *self.work.sealing.lock() = Some(Arc::clone(&progress));
        let built = self.build_shells(&lease, order, progress);
        *self.work.sealing.lock() = None;
        drop(lease);
        let built = Arc::new(built?);
        let mut is_in_place = false;
        self.change_view(|view| {
            if let Some(at) = is_there(&view.segments) {
                view.segments[at] = Arc::clone(&built);
                is_in_place = true;
            }
        });
        // Trimmed meanwhile, it has been discarded, and what was built goes too.
        let gone = if is_in_place { Arc::clone(segment) } else { built };
        self.discarded.lock().push(gone);
        Ok(Some(true))
    }

    /// Whether a segment holds more than shells of what is to go.
    fn holds_some(&self, lease: &Lease, order: &EraseOrder) -> Result<bool, StoreError> {
        let parts: Vec<Range<Seq>> = order.parts(lease.first()..lease.end()).collect();
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(false) };
        // Of events that are gone, what tells repeats may be left.
        if named_of_runs(lease)?.iter().any(|(seq, _)| order.contains(*seq)) {
            return Ok(true);
        }
        let mut at = first.start;
        while at < last.end {
            let chunk = match self.cache.read(lease, at, last.end, &Filter::ALL) {
                Err(StoreError::Removed(gone)) => {
                    at = gone.end;
                    continue;
                }
                chunk => chunk?,
            };
            for event in Events::new(&chunk.events) {
                let facts = event.and_then(Facts::scan).map_err(|error| {
                    let (to, file) = (chunk.end.prev(), lease.dir().to_owned());
                    Damage { from: at, to, file, detail: error.what().to_owned() }
                })?;
                if facts.erased.is_none() && order.contains(facts.seq) {
                    return Ok(true);
                }
            }
            at = chunk.end;
        }
        Ok(false)
    }

    fn build_shells(
        &self,
        lease: &Lease,
        order: &EraseOrder,
        progress: Arc<Progress>,
    ) -> Result<Segment, StoreError> {
        let meta = self.meta.lock().clone();
        let sealer = self.sealer(&meta, progress);
        // Of short events shells are longer than these were.
        let shells = order.events_in(lease.first()..lease.end());
        let added = shells.saturating_mul((SHELL_BYTES + order.reason.len()) as u64);
        sealer.check_space(lease.raw_bytes().saturating_add(added))?;
        let mut named_before = named_of_runs(lease)?;
        named_before.retain(|(seq, _)| !order.contains(*seq));
        let spec = BuildSpec {
            generations: lease.generations().clone(),
            named_before,
            // Of shells it is the same, or what was built is not these events.
            link: Some(lease.link()),
            revision: lease.revision() + 1,
            ..sealer.spec(lease.first()..lease.end(), lease.link_before())
        };
        let source = Shells { lease, cache: &self.cache, order };
        let built = segment::build(&sealer.dir, &spec, &source)?;
        if self.work.has_given_up_sealing() {
            // The next start finds both, and the newer counts.
            return Err(given_up());
        }
        keep_age(lease, &built);
        Ok(built)
    }

    /// Waits a moment.
    ///
    /// # Errors
    /// When it is to stop, or has waited for too long.
    fn pause(
        &self,
        watched: &mut Watched<'_>,
        begun: Instant,
        patience: Duration,
        why: &str,
    ) -> Result<(), StoreError> {
        watched.tell()?;
        if self.work.is_closing() {
            return Err(StoreError::Stopped { reason: "closed".to_owned() });
        }
        if begun.elapsed() > patience {
            return Err(StoreError::Held {
                why: why.to_owned(),
                seconds: begun.elapsed().as_secs(),
            });
        }
        thread::sleep(POLL);
        Ok(())
    }
}

fn given_up() -> StoreError {
    StoreError::Busy { reason: "sealing has been given up".to_owned() }
}

/// Events that are stamped ahead of the clock age by when they were sealed (`seen.rs`), not by when they were
/// written anew. Where it is not to be had they age once more.
pub(super) fn keep_age(old: &Segment, built: &Segment) {
    let written = std::fs::metadata(old.footer_path()).and_then(|it| it.modified());
    let set = written
        .and_then(|at| File::options().write(true).open(built.footer_path())?.set_modified(at));
    if let Err(error) = set {
        tracing::debug!(%error, "the age of a segment is lost");
    }
}

/// The events of a segment, with shells of those that go.
struct Shells<'a> {
    lease: &'a Lease,
    cache: &'a Cache,
    order: &'a EraseOrder,
}

impl Shells<'_> {
    fn read(&self, at: Seq) -> Result<Chunk, StoreError> {
        let chunk = self.cache.entries(self.lease, at)?;
        let (from, to) = (chunk.first, chunk.end.prev());
        self.order.shells(chunk).map_err(|error| {
            let (file, detail) = (self.lease.dir().to_owned(), error.what().to_owned());
            Damage { from, to, file, detail }.into()
        })
    }
}

impl Source for Shells<'_> {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        let mut at = self.lease.first();
        Box::new(std::iter::from_fn(move || {
            if at >= self.lease.end() {
                return None;
            }
            let chunk = self.read(at);
            at = chunk.as_ref().map_or(Seq::MAX, |chunk| chunk.end);
            Some(chunk)
        }))
    }

    fn origin(&self) -> PathBuf {
        self.lease.dir().to_owned()
    }
}
