//! The one writer.
//!
//! Owns the order of the log: a single thread takes what is queued, makes one commit of it, waits
//! until the journal says that it is durable, then publishes, then answers. Nothing that depends on
//! a commit is seen by anyone before that. A commit of which nothing was stored is refused to its
//! callers; any other failure stops the writer for good, and its callers hear that the outcome is
//! unknown. Where another daemon writes now, it stops for good too, and nothing was stored.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::Bytes;

use super::core::Core;
use super::group_commit::{Admission, CommitBuilder, GroupCommit, OpenAdmission};
use super::options::{Clock, Elapsed};
use super::queue::{Pending, TrimRequest, Work};
use super::recent;
use super::state::{Delta, LogState};
use super::{AppendError, Trimmed};
use crate::chain::Link;
use crate::storage::{Commit, Receipt, StoreError};
use tailmark_record::{ChainTag, Seq, Timestamp};

pub(super) struct Writer {
    pub core: Arc<Core>,
    pub clock: Clock,
    pub elapsed: Elapsed,
    pub builder: CommitBuilder,
    pub next: Seq,
    pub oldest: Seq,
    /// Of the chain at the event before that, if it is known.
    pub oldest_tag: Option<ChainTag>,
    pub last_at: Timestamp,
    pub state: LogState,
    pub window_capacity: u64,
}

/// The writer is to end: the store has stopped.
struct Stop(Arc<StoreError>);

impl Writer {
    /// Works until the queue has ended or the store has stopped.
    pub(super) fn run(mut self) {
        let core = self.core.clone();
        // Also when this thread panics: whoever waits gets an answer.
        let _guard = EndQueue(&core);
        let mut work = VecDeque::new();
        while core.queue.take(&mut work) {
            if let Err(Stop(error)) = self.step(&mut work) {
                core.queue.end(after(&error));
                while core.queue.take(&mut work) {
                    work.drain(..).for_each(|item| item.refuse(after(&error)));
                }
            }
        }
    }

    /// One commit, of as much as fits from the front of the queue.
    fn step(&mut self, work: &mut VecDeque<Work>) -> Result<(), Stop> {
        self.builder.repeats.settle();
        if let Some(Work::Trim(_)) = work.front() {
            let Some(Work::Trim(request)) = work.pop_front() else { return Ok(()) };
            return self.trim(request);
        }
        if let Some(Work::Forget(..)) = work.front() {
            if let Some(Work::Forget(order, reply)) = work.pop_front() {
                self.builder.repeats.forget(&order);
                let _ = reply.send(());
            }
            return Ok(());
        }
        if let Some(Work::Ping(_)) = work.front() {
            if let Some(Work::Ping(reply)) = work.pop_front() {
                let _ = reply.send(());
            }
            return Ok(());
        }
        let now = self.now();
        // Not by a stamp that lies ahead: it would forget who has been idle for a moment.
        self.builder.producers.forget_idle((self.clock)(), (self.elapsed)());
        self.core.say_if_ahead();
        let mut staged =
            GroupCommit::new(self.next, self.builder.link, now, self.capacity_for(work));
        while let Some(item) = work.pop_front() {
            let batch = match item {
                Work::Append(batch) => batch,
                Work::Open(request) => match self.builder.open(&mut staged, request) {
                    OpenAdmission::Staged => continue,
                    OpenAdmission::Later(later) => {
                        work.push_front(Work::Open(later));
                        break;
                    }
                    OpenAdmission::Verdict(request, verdict) => {
                        request.answer(self.confirmed(verdict));
                        continue;
                    }
                },
                alone @ (Work::Trim(_) | Work::Forget(..) | Work::Ping(_)) => {
                    work.push_front(alone);
                    break;
                }
            };
            if let Some(topic) = expected_topic(&batch) {
                let heads = &mut self.builder.topic_heads;
                if !heads.is_kept() && !staged.is_empty(&self.builder.producers) {
                    // Its events were not staged by topic.
                    work.push_front(Work::Append(batch));
                    break;
                }
                heads.note_removals(self.core.topic_keeper.removals());
                if let Err(error) = heads.look_up(topic, &*self.core.store) {
                    batch.refuse(AppendError::Refused(Arc::new(error)));
                    continue;
                }
            }
            match self.builder.admit(&mut staged, batch, self.oldest) {
                Admission::Whole => {}
                Admission::Part => break,
                Admission::Verdict(batch, error) => {
                    let (Ok(verdict) | Err(verdict)) = self.confirmed(Ok(*error));
                    batch.refuse(verdict);
                }
                Admission::Later(batch) => {
                    work.push_front(Work::Append(batch));
                    break;
                }
            }
        }
        self.finish(staged, work)
    }

    /// What is told by where the log ends, once it is known that it ends there: another daemon may have
    /// appended since.
    fn confirmed<T>(&mut self, verdict: Result<T, AppendError>) -> Result<T, AppendError> {
        match self.core.journal.confirm() {
            Ok(()) => verdict,
            Err(error) => Err(self.judge(&Arc::new(error))),
        }
    }

    /// Makes the commit durable, then publishes it, then answers.
    fn finish(&mut self, mut staged: GroupCommit, work: &mut VecDeque<Work>) -> Result<(), Stop> {
        let mut events = std::mem::take(&mut staged.events);
        if events.capacity() > events.len() + events.len() / 4 {
            // Room was made for events that turned out to be repeats; the ring would keep it.
            events.shrink_to_fit();
        }
        let events = Bytes::from(events);
        let outcome = self.append(&staged, events.clone());
        if let Err(error) = outcome {
            return self.fail(staged, error);
        }
        if !staged.is_empty(&self.builder.producers) {
            self.last_at = staged.at;
        }
        self.builder.promote(&staged);
        let producers = self.builder.producers.len() as u64;
        self.core.metrics.producers.store(producers, Ordering::Relaxed);
        self.next = staged.next;
        if staged.count() > 0 {
            let (first, end, at) = (staged.first, staged.next, staged.at);
            let tag = staged.link.tag();
            self.core.reads.hot.recent.push(recent::Commit { first, end, at, tag, events });
            self.publish();
        }
        self.core.metrics.duplicates.fetch_add(staged.duplicates, Ordering::Relaxed);
        for (request, opened) in staged.opened {
            request.answer(Ok(opened));
        }
        for batch in staged.answers {
            let done = batch.tally.finish(staged.at, self.builder.level);
            batch.answer(Ok(done));
        }
        // Who has no answer yet comes before who watches.
        self.core.reads.interest.poke();
        if let Some(mut batch) = staged.unfinished {
            batch.durable = batch.tally;
            (batch.durable_at, batch.durable_level) = (staged.at, self.builder.level);
            work.push_front(Work::Append(batch));
        }
        Ok(())
    }

    fn append(&mut self, staged: &GroupCommit, events: Bytes) -> Result<(), StoreError> {
        if staged.is_empty(&self.builder.producers) {
            return Ok(());
        }
        let count = u32::try_from(staged.count())
            .map_err(|_| StoreError::Invalid("too many events in one commit"))?;
        let bytes = events.len() as u64;
        let began = Instant::now();
        let delta = match self.builder.producers.staged_bytes() {
            [] => Bytes::new(),
            _ => self.delta(Delta { age_clock: self.state.age_clock }, staged.at)?,
        };
        let oldest = (self.oldest, self.oldest_tag);
        self.commit(count, staged.at, events, delta, staged.link, oldest)?;
        if count > 0 {
            self.core.metrics.committed(staged.count(), bytes, began.elapsed());
        }
        Ok(())
    }

    /// Hands a commit to the journal and waits for it.
    fn commit(
        &mut self,
        count: u32,
        appended_at: Timestamp,
        events: Bytes,
        delta: Bytes,
        link: Link,
        (oldest, oldest_tag): (Seq, Option<ChainTag>),
    ) -> Result<(), StoreError> {
        let state = if self.core.store.wants_state(events.len() + delta.len()) {
            Some(self.whole_state()?)
        } else {
            None
        };
        let first = self.next;
        let commit =
            Commit { first, count, appended_at, events, delta, state, link, oldest, oldest_tag };
        let (done, outcome) = mpsc::sync_channel(1);
        self.core.journal.append(commit, Box::new(move |result| drop(done.send(result))));
        let dropped = || StoreError::Stopped { reason: "the commit got no answer".into() };
        let receipt = outcome.recv().map_err(|_| dropped())??;
        let expected = Receipt { first, last: first.plus(count.into()).prev(), ..receipt };
        if receipt != expected {
            let reason = "the journal stored another range than it was given".to_owned();
            return Err(StoreError::Stopped { reason });
        }
        self.builder.level = receipt.level;
        Ok(())
    }

    fn whole_state(&mut self) -> Result<Bytes, StoreError> {
        if let Some(start) = self.builder.repeats.start(self.next) {
            self.state.window_start = start.get();
            self.core.topic_keeper.repeats_from(start);
            self.state.window_capacity = self.window_capacity;
        }
        Ok(self.state.encode(&self.builder.producers)?.into())
    }

    fn delta(&self, delta: Delta, at: Timestamp) -> Result<Bytes, StoreError> {
        Ok(delta.encode(&self.builder.producers, at)?.into())
    }

    /// Tells readers. Only forward.
    fn publish(&self) {
        let tag = self.builder.link.tag();
        self.core
            .reads
            .publish((self.next.prev(), self.last_at, tag), (self.oldest, self.oldest_tag));
    }

    fn fail(&mut self, staged: GroupCommit, error: StoreError) -> Result<(), Stop> {
        self.core.metrics.commits_failed.fetch_add(1, Ordering::Relaxed);
        self.builder.roll_back();
        let error = Arc::new(error);
        let verdict = self.judge(&error);
        for (request, _) in staged.opened {
            request.answer(Err(verdict.clone()));
        }
        for batch in staged.answers.into_iter().chain(staged.unfinished.map(|part| *part)) {
            // Nothing but repeats of what is durable: that is no matter of this commit.
            if batch.tally.highest < staged.first && batch.tally.events == batch.batch.len() {
                let done = batch.tally.finish(staged.at, self.builder.level);
                batch.answer(Ok(done));
            } else {
                batch.refuse(verdict.clone());
            }
        }
        if stops(&verdict) { Err(Stop(error)) } else { Ok(()) }
    }

    /// What a failed commit means for its callers.
    fn judge(&mut self, error: &Arc<StoreError>) -> AppendError {
        match **error {
            StoreError::DiskFull { .. } => AppendError::DiskFull(error.clone()),
            StoreError::Busy { .. }
            | StoreError::Displaced { .. }
            | StoreError::Unreachable { .. } => AppendError::Busy(error.clone()),
            StoreError::Invalid(_) => AppendError::Refused(error.clone()),
            StoreError::Conflict { .. } => AppendError::Refused(error.clone()),
            StoreError::Fenced { .. } => AppendError::NotWriter(error.to_string()),
            StoreError::Diverged { ref detail } => AppendError::Diverged(detail.clone()),
            _ => AppendError::Unknown(error.clone()),
        }
    }

    /// Moves the trim mark, by a commit of its own.
    fn trim(&mut self, request: TrimRequest) -> Result<(), Stop> {
        let oldest = request.before.min(self.next);
        let removed = self.oldest.distance_to(oldest);
        if removed == 0 {
            let done = Trimmed { oldest: self.oldest, head: self.next.prev(), removed };
            let _ = request.reply.send(Ok(done));
            return Ok(());
        }
        let oldest_tag =
            if oldest == self.next { Some(self.builder.link.tag()) } else { request.tag };
        let outcome = self.commit_trim((oldest, oldest_tag), request.age_clock);
        if let Err(error) = outcome {
            let error = Arc::new(error);
            let verdict = self.judge(&error);
            let stops = stops(&verdict);
            let _ = request.reply.send(Err(verdict));
            return if stops { Err(Stop(error)) } else { Ok(()) };
        }
        (self.oldest, self.oldest_tag) = (oldest, oldest_tag);
        self.publish();
        self.core.maintenance.reclaim_soon();
        let _ = request.reply.send(Ok(Trimmed { oldest, head: self.next.prev(), removed }));
        Ok(())
    }

    fn commit_trim(
        &mut self,
        oldest: (Seq, Option<ChainTag>),
        age_clock: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let clock = age_clock.map(|clock| self.state.age_clock.max(clock.as_nanos()));
        let delta = match clock {
            Some(age_clock) => self.delta(Delta { age_clock }, self.last_at)?,
            None => Bytes::new(),
        };
        let link = self.builder.link;
        self.commit(0, self.last_at, Bytes::new(), delta, link, oldest)?;
        self.state.age_clock = clock.unwrap_or(self.state.age_clock);
        Ok(())
    }

    /// The wall clock, but never before the last commit.
    fn now(&self) -> Timestamp {
        let now = (self.clock)();
        // Later than this cannot be stored: it would come back as another time.
        let now = if now.is_valid() { now.min(Timestamp::LAST_OF_NANOS) } else { self.last_at };
        now.max(self.last_at)
    }

    /// Bytes that the next commit may take.
    fn capacity_for(&self, work: &VecDeque<Work>) -> usize {
        let max = self.builder.max_commit_bytes;
        let mut bytes = 0;
        for item in work {
            match item {
                Work::Append(batch) => {
                    bytes += batch.batch.stored_bytes_from(batch.durable.events);
                }
                Work::Open(_) => {}
                Work::Trim(_) | Work::Forget(..) | Work::Ping(_) => break,
            }
            if bytes >= max {
                return max;
            }
        }
        bytes
    }
}

/// Whether the writer ends with this verdict on a commit.
fn stops(verdict: &AppendError) -> bool {
    use AppendError::{Diverged, NotWriter, Stopped, Unknown};
    matches!(verdict, Unknown(_) | Stopped(_) | NotWriter(_) | Diverged(_))
}

/// What those hear who come after the commit that ended the writer: nothing of theirs was stored.
fn after(error: &Arc<StoreError>) -> AppendError {
    match &**error {
        StoreError::Fenced { .. } => AppendError::NotWriter(error.to_string()),
        StoreError::Diverged { detail } => AppendError::Diverged(detail.clone()),
        StoreError::InDoubt => AppendError::Busy(Arc::clone(error)),
        _ => AppendError::Stopped(error.to_string()),
    }
}

/// The topic of which a batch expects a head.
fn expected_topic(batch: &Pending) -> Option<&str> {
    batch.options.expected_head.as_ref()?.topic.as_deref()
}

/// Lets nobody wait for a writer that is gone.
struct EndQueue<'a>(&'a Core);

impl Drop for EndQueue<'_> {
    fn drop(&mut self) {
        // Counts only if nothing else ended the queue before.
        self.0.queue.end(AppendError::Stopped("the writer is gone".into()));
        let mut left = VecDeque::new();
        while self.0.queue.take(&mut left) {
            left.drain(..).for_each(|item| {
                item.refuse(AppendError::Stopped("the writer is gone".into()));
            });
        }
    }
}
