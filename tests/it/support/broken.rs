//! An engine that cannot read some of its events, or take new ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tailmark_log::storage::memory::Memory;
use tailmark_log::storage::{
    Chunk, Commit, Completion, Damage, Engine, Intercept, Journal, Store, StoreError,
};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

pub struct Broken {
    inner: Memory,
    from: Seq,
    to: Seq,
    next_append: Mutex<Option<StoreError>>,
    /// What a slow disk has not done yet; absent while it is fast.
    held: Mutex<Option<Vec<(Commit, Completion)>>>,
    /// Bytes of the chunks that were read and are still somewhere.
    chunk_bytes: Arc<AtomicUsize>,
}

/// A chunk that is counted while anybody has a part of it.
struct Counted(Bytes, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
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

    /// Bytes of the chunks that were read and that somebody still has.
    pub fn held_bytes(&self) -> usize {
        self.chunk_bytes.load(Ordering::Relaxed)
    }

    /// Appends come to no end from here on.
    pub fn hold(&self) {
        self.held.lock().unwrap().get_or_insert_default();
    }

    /// Appends do what they should, those included that were held.
    pub fn release(&self) {
        for (commit, done) in self.held.lock().unwrap().take().into_iter().flatten() {
            self.inner.append(commit, done);
        }
    }

    /// Events `from` to `to`, inclusive, are damaged.
    pub fn new(inner: Memory, from: u64, to: u64) -> Self {
        let (from, to) = (Seq::new(from), Seq::new(to));
        let (next_append, held) = (Mutex::default(), Mutex::default());
        Broken { inner, from, to, next_append, held, chunk_bytes: Arc::default() }
    }
}

impl Intercept for Broken {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn append(&self, commit: Commit, done: Completion) {
        if let Some(held) = &mut *self.held.lock().unwrap() {
            held.push((commit, done));
            return;
        }
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
        let mut chunk = self.inner.read(from, end, filter)?;
        self.chunk_bytes.fetch_add(chunk.events.len(), Ordering::Relaxed);
        chunk.events = Bytes::from_owner(Counted(chunk.events, self.chunk_bytes.clone()));
        Ok(chunk)
    }
}
