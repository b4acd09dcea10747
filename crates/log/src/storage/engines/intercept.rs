//! One engine in front of another: it does some things differently and passes on the rest.
//!
//! Whoever implements [`Intercept`] is an [`Engine`], both its halves: a method that is not overridden is
//! that of the engine behind, so that a method which a trait gains later is never forgotten here.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use uuid::Uuid;

use crate::storage::{
    Chunk, Commit, Completion, Engine, EraseOrder, EraseProgress, Journal, Level, Links, LookBack,
    Sealed, Store, StoreError, StoreStatus, TakeOut, TakenOut, TopicPage, TopicQuery,
};
use tailmark_record::topic::Filter;
use tailmark_record::{Bounds, ChainTag, Fingerprint, FingerprintKey, LogId, Seq, Timestamp};

/// An engine in front of another. Each method has the meaning that it has in [`Journal`] or [`Store`].
#[allow(missing_docs, reason = "said in `Journal` and `Store`")]
pub trait Intercept: Send + Sync + 'static {
    /// The engine behind.
    fn inner(&self) -> &dyn Engine;

    fn id(&self) -> LogId {
        self.inner().id()
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        self.inner().fingerprint_key()
    }

    fn max_commit_bytes(&self) -> usize {
        self.inner().max_commit_bytes()
    }

    fn append(&self, commit: Commit, done: Completion) {
        self.inner().append(commit, done)
    }

    fn confirm(&self) -> Result<(), StoreError> {
        self.inner().confirm()
    }

    fn level(&self) -> Level {
        self.inner().level()
    }

    fn refusal(&self) -> Option<StoreError> {
        self.inner().refusal()
    }

    fn bounds(&self) -> Bounds {
        self.inner().bounds()
    }

    fn links(&self) -> Links {
        self.inner().links()
    }

    fn wants_state(&self, bytes: usize) -> bool {
        self.inner().wants_state(bytes)
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        self.inner().read(from, end, filter)
    }

    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError> {
        self.inner().seek_time(time)
    }

    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        self.inner().time_of(seq)
    }

    fn tag_of(&self, seq: Seq) -> Result<ChainTag, StoreError> {
        self.inner().tag_of(seq)
    }

    fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError> {
        self.inner().topics(query)
    }

    fn topic_head(&self, topic: &str) -> Result<Option<Seq>, StoreError> {
        self.inner().topic_head(topic)
    }

    fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        self.inner().look_back(range, filter, count)
    }

    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        self.inner().fingerprints(from, visit)
    }

    fn trim_point_for_size(&self, max_bytes: u64, limit: Seq) -> Seq {
        self.inner().trim_point_for_size(max_bytes, limit)
    }

    fn trim_point_for_events(&self, max: u64, end: Seq) -> Seq {
        self.inner().trim_point_for_events(max, end)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.inner().reclaim()
    }

    fn release(&self, bytes: u64) -> Result<u64, StoreError> {
        self.inner().release(bytes)
    }

    fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        self.inner().erase(order, watch)
    }

    fn erasing(&self) -> Option<Arc<EraseOrder>> {
        self.inner().erasing()
    }

    fn erased(&self) -> Result<(), StoreError> {
        self.inner().erased()
    }

    fn cancel_erasing(&self, id: Uuid) -> Result<bool, StoreError> {
        self.inner().cancel_erasing(id)
    }

    fn has_gaps(&self) -> bool {
        self.inner().has_gaps()
    }

    fn sealed(&self) -> Vec<Sealed> {
        self.inner().sealed()
    }

    fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        self.inner().take_out(order)
    }

    fn seen(&self, wall: Timestamp) -> Vec<(Seq, Timestamp)> {
        self.inner().seen(wall)
    }

    fn status(&self) -> StoreStatus {
        self.inner().status()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner().close()
    }
}

impl<I: Intercept> Journal for I {
    fn id(&self) -> LogId {
        Intercept::id(self)
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        Intercept::fingerprint_key(self)
    }

    fn max_commit_bytes(&self) -> usize {
        Intercept::max_commit_bytes(self)
    }

    fn append(&self, commit: Commit, done: Completion) {
        Intercept::append(self, commit, done)
    }

    fn confirm(&self) -> Result<(), StoreError> {
        Intercept::confirm(self)
    }

    fn level(&self) -> Level {
        Intercept::level(self)
    }

    fn refusal(&self) -> Option<StoreError> {
        Intercept::refusal(self)
    }
}

impl<I: Intercept> Store for I {
    fn bounds(&self) -> Bounds {
        Intercept::bounds(self)
    }

    fn links(&self) -> Links {
        Intercept::links(self)
    }

    fn wants_state(&self, bytes: usize) -> bool {
        Intercept::wants_state(self, bytes)
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        Intercept::read(self, from, end, filter)
    }

    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError> {
        Intercept::seek_time(self, time)
    }

    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        Intercept::time_of(self, seq)
    }

    fn tag_of(&self, seq: Seq) -> Result<ChainTag, StoreError> {
        Intercept::tag_of(self, seq)
    }

    fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError> {
        Intercept::topics(self, query)
    }

    fn topic_head(&self, topic: &str) -> Result<Option<Seq>, StoreError> {
        Intercept::topic_head(self, topic)
    }

    fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        Intercept::look_back(self, range, filter, count)
    }

    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        Intercept::fingerprints(self, from, visit)
    }

    fn trim_point_for_size(&self, max_bytes: u64, limit: Seq) -> Seq {
        Intercept::trim_point_for_size(self, max_bytes, limit)
    }

    fn trim_point_for_events(&self, max: u64, end: Seq) -> Seq {
        Intercept::trim_point_for_events(self, max, end)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        Intercept::reclaim(self)
    }

    fn release(&self, bytes: u64) -> Result<u64, StoreError> {
        Intercept::release(self, bytes)
    }

    fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        Intercept::erase(self, order, watch)
    }

    fn erasing(&self) -> Option<Arc<EraseOrder>> {
        Intercept::erasing(self)
    }

    fn erased(&self) -> Result<(), StoreError> {
        Intercept::erased(self)
    }

    fn cancel_erasing(&self, id: Uuid) -> Result<bool, StoreError> {
        Intercept::cancel_erasing(self, id)
    }

    fn has_gaps(&self) -> bool {
        Intercept::has_gaps(self)
    }

    fn sealed(&self) -> Vec<Sealed> {
        Intercept::sealed(self)
    }

    fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        Intercept::take_out(self, order)
    }

    fn seen(&self, wall: Timestamp) -> Vec<(Seq, Timestamp)> {
        Intercept::seen(self, wall)
    }

    fn status(&self) -> StoreStatus {
        Intercept::status(self)
    }

    fn close(&self) -> Result<(), StoreError> {
        Intercept::close(self)
    }
}
