//! A pool of threads for reads that block.
//!
//! A reader has at most one request in it, beside one that it has given up, and a request reads at most one chunk, so
//! it is bounded by the readers. Which comes next is for `fair_queue.rs`. One thread more than was asked for takes
//! points only. A request whose reader has gone is skipped.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::ReadError;
use super::fair_queue::{FairQueue, Flow, Lane, Turn};
use super::unfetched::Unfetched;
use crate::storage::{Chunk, Store, StoreError};
use tailmark_record::Seq;

/// Run with its tag.
type Request = Box<dyn FnOnce(&dyn Store, u64) + Send>;

pub(super) struct ReaderPool {
    queue: Mutex<Queue>,
    /// For the threads that take everything.
    filled: Condvar,
    /// For the thread that takes points only.
    has_points: Condvar,
    unfetched: Arc<Unfetched>,
}

#[derive(Default)]
struct Queue {
    requests: FairQueue<Request>,
    /// The thread that takes points only has nothing to do, and has not been woken.
    is_spare_idle: bool,
    closed: bool,
}

/// Who asks: its share of the threads, from its first request on.
#[derive(Default)]
pub(super) struct Asker(Option<Arc<Flow>>);

impl Asker {
    fn flow(&mut self) -> Arc<Flow> {
        Arc::clone(self.0.get_or_insert_default())
    }
}

impl ReaderPool {
    pub(super) fn start(
        store: &Arc<dyn Store>,
        threads: usize,
    ) -> io::Result<(Arc<ReaderPool>, Vec<JoinHandle<()>>)> {
        let pool = Arc::new(ReaderPool {
            queue: Mutex::default(),
            filled: Condvar::new(),
            has_points: Condvar::new(),
            unfetched: Unfetched::new(),
        });
        let threads = threads.max(1);
        let start = |number: usize| {
            let (pool, store) = (pool.clone(), store.clone());
            let name = format!("log-read-{number}");
            let takes_scans = number < threads;
            thread::Builder::new().name(name).spawn(move || pool.work(&*store, takes_scans))
        };
        let threads = (0..=threads).map(start).collect::<io::Result<Vec<_>>>();
        if threads.is_err() {
            pool.close();
        }
        Ok((pool, threads?))
    }

    /// Asks the store, on one of the threads. `from` is what the asker wanted to read.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        asker: &mut Asker,
        lane: Lane,
        from: Seq,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let answer = self.post(asker, lane, question).ok_or(ReadError::Closing)?;
        let result = answer.await.map_err(|_| ReadError::Closing)?;
        result.map_err(|error| ReadError::new(from, error))
    }

    /// Asks the store for events; `None` where the answer had to make room for others before it was
    /// fetched, and has to be asked for again.
    pub(super) async fn ask_chunk(
        &self,
        asker: &mut Asker,
        lane: Lane,
        from: Seq,
        question: impl FnOnce(&dyn Store) -> Result<Chunk, StoreError> + Send + 'static,
    ) -> Result<Option<Chunk>, ReadError> {
        let claim = self.unfetched.claim();
        let (unfetched, number) = (Arc::clone(&self.unfetched), claim.number());
        let left = move |store: &dyn Store| {
            unfetched.leave(number, question(store)?);
            Ok(())
        };
        self.ask(asker, lane, from, left).await?;
        Ok(claim.fetch())
    }

    /// Bytes of events that were read and that nobody has fetched.
    pub(super) fn unfetched_bytes(&self) -> usize {
        self.unfetched.bytes()
    }

    /// Asks the store, and leaves the answer where it can be fetched; `None` when the log is
    /// closing.
    pub(super) fn post<T: Send + 'static>(
        &self,
        asker: &mut Asker,
        lane: Lane,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<oneshot::Receiver<Result<T, StoreError>>> {
        let (reply, answer) = oneshot::channel();
        let asker = asker.flow();
        let flow = Arc::clone(&asker);
        let request = Box::new(move |store: &dyn Store, tag: u64| {
            if reply.is_closed() {
                return;
            }
            let begun = Instant::now();
            // A reader thread outlives any one request; the asker learns of the panic.
            let result = catch_unwind(AssertUnwindSafe(|| question(store)))
                .unwrap_or(Err(StoreError::Invalid("a read panicked")));
            // First: who hears of it may ask at once.
            flow.charge(lane, tag, begun.elapsed());
            // Nobody may be waiting any more.
            let _ = reply.send(result);
        });
        let wakes_spare = {
            let mut queue = self.queue.lock();
            if queue.closed {
                return None;
            }
            queue.requests.push(&asker, lane, request);
            lane == Lane::Point && std::mem::take(&mut queue.is_spare_idle)
        };
        if wakes_spare {
            self.has_points.notify_one();
        } else {
            self.filled.notify_one();
        }
        Some(answer)
    }

    /// Drops what waits, and ends the threads.
    pub(super) fn close(&self) {
        let waiting: Vec<Request> = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            queue.requests.take().collect()
        };
        self.filled.notify_all();
        self.has_points.notify_all();
        // Dropped without the lock: whoever waits is woken by it.
        drop(waiting);
    }

    /// Requests that wait, those of askers who have gone included.
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().requests.len()
    }

    fn work(&self, store: &dyn Store, takes_scans: bool) {
        loop {
            let Turn { read: request, tag } = {
                let mut queue = self.queue.lock();
                loop {
                    if let Some(next) = queue.requests.pop(takes_scans) {
                        break next;
                    }
                    if queue.closed {
                        return;
                    }
                    queue.is_spare_idle |= !takes_scans;
                    let filled = if takes_scans { &self.filled } else { &self.has_points };
                    filled.wait(&mut queue);
                }
            };
            request(store, tag);
        }
    }
}
