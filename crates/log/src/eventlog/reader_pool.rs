//! A pool of threads for reads that block.
//!
//! One queue, first come first served. A reader has at most one request in it, and a request reads
//! at most one chunk, so the queue is bounded by the readers and fair to them. A request whose
//! reader has gone is skipped.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::ReadError;
use crate::storage::{Engine, StoreError};
use tailmark_record::Seq;

type Request = Box<dyn FnOnce(&dyn Engine) + Send>;

pub(super) struct ReaderPool {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    closed: bool,
}

impl ReaderPool {
    pub(super) fn start(
        engine: &Arc<dyn Engine>,
        threads: usize,
    ) -> io::Result<(Arc<ReaderPool>, Vec<JoinHandle<()>>)> {
        let pool = Arc::new(ReaderPool { queue: Mutex::default(), filled: Condvar::new() });
        let start = |number: usize| {
            let (pool, engine) = (pool.clone(), engine.clone());
            let name = format!("log-read-{number}");
            thread::Builder::new().name(name).spawn(move || pool.work(&*engine))
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<Vec<_>>>();
        if threads.is_err() {
            pool.close();
        }
        Ok((pool, threads?))
    }

    /// Asks the engine, on one of the threads. `from` is what the asker wanted to read.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        from: Seq,
        question: impl FnOnce(&dyn Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let answer = self.post(question).ok_or(ReadError::Closing)?;
        let result = answer.await.map_err(|_| ReadError::Closing)?;
        result.map_err(|error| ReadError::new(from, error))
    }

    /// Asks the engine, and leaves the answer where it can be fetched; `None` when the log is
    /// closing.
    pub(super) fn post<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<oneshot::Receiver<Result<T, StoreError>>> {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(move |engine: &dyn Engine| {
            if reply.is_closed() {
                return;
            }
            // A reader thread outlives any one request; the asker learns of the panic.
            let result = catch_unwind(AssertUnwindSafe(|| question(engine)))
                .unwrap_or(Err(StoreError::Invalid("a read panicked")));
            // Nobody may be waiting any more.
            let _ = reply.send(result);
        });
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return None;
            }
            queue.requests.push_back(request);
        }
        self.filled.notify_one();
        Some(answer)
    }

    /// Drops what waits, and ends the threads.
    pub(super) fn close(&self) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.requests)
        };
        self.filled.notify_all();
        drop(waiting);
    }

    /// Requests that wait, those of askers who have gone included.
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().requests.len()
    }

    fn work(&self, engine: &dyn Engine) {
        loop {
            let request = {
                let mut queue = self.queue.lock();
                loop {
                    if let Some(request) = queue.requests.pop_front() {
                        break request;
                    }
                    if queue.closed {
                        return;
                    }
                    self.filled.wait(&mut queue);
                }
            };
            request(engine);
        }
    }
}
