//! An engine that cannot read some of its events, or take new ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tailmark::record::{Bounds, Fingerprint, FingerprintKey, LogId, Seq, Timestamp};
use tailmark::storage::memory::Memory;
use tailmark::storage::{
    Chunk, Commit, Completion, Damage, Engine, StoreError, StoreStatus, TopicStats,
};
use tailmark::topic::Filter;

pub struct Broken {
    inner: Memory,
    from: Seq,
    to: Seq,
    next_append: Mutex<Option<StoreError>>,
}

impl Broken {
    /// Every event can be read.
    pub fn whole(inner: Memory) -> Self {
        Broken::new(inner, u64::MAX, u64::MAX)
    }

    /// Fails the next append.
    pub fn fail_next(&self, error: StoreError) {
        *self.next_append.lock().unwrap() = Some(error);
    }

    /// Events `from` to `to`, inclusive, are damaged.
    pub fn new(inner: Memory, from: u64, to: u64) -> Self {
        Broken { inner, from: Seq::new(from), to: Seq::new(to), next_append: Mutex::default() }
    }
}

impl Engine for Broken {
    fn id(&self) -> LogId {
        self.inner.id()
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        self.inner.fingerprint_key()
    }

    fn bounds(&self) -> Bounds {
        self.inner.bounds()
    }

    fn max_commit_bytes(&self) -> usize {
        self.inner.max_commit_bytes()
    }

    fn wants_state(&self, bytes: usize) -> bool {
        self.inner.wants_state(bytes)
    }

    fn append(&self, commit: Commit, done: Completion) {
        match self.next_append.lock().unwrap().take() {
            Some(error) => done(Err(error)),
            None => self.inner.append(commit, done),
        }
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        if (self.from..=self.to).contains(&from) {
            let (file, detail) = ("part".into(), "checksum".to_owned());
            return Err(Damage { from: self.from, to: self.to, file, detail }.into());
        }
        let end = if from < self.from { end.min(self.from) } else { end };
        self.inner.read(from, end, filter)
    }

    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError> {
        self.inner.seek_time(time)
    }

    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError> {
        self.inner.time_of(seq)
    }

    fn topics(&self) -> Result<BTreeMap<Arc<str>, TopicStats>, StoreError> {
        self.inner.topics()
    }

    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError> {
        self.inner.fingerprints(from, visit)
    }

    fn trim_point_for_bytes(&self, bytes: u64, limit: Seq) -> Seq {
        self.inner.trim_point_for_bytes(bytes, limit)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.inner.reclaim()
    }

    fn status(&self) -> StoreStatus {
        self.inner.status()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}
