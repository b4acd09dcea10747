//! Events on their way into batches, and the batches that wait to become durable.
//!
//! Owns what the producer's callers and its task share. An event is encoded once, into the batch
//! that it will be sent in. Must not know of connections, nor of the numbers of batches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;
use tokio::sync::{Notify, Semaphore, TryAcquireError};
use tokio::time::Instant;

use super::outcome::{Outcome, Verdict};
use super::{Ack, ProducerOptions};
use crate::{Error, Expect, Kind, backoff};
use tailmark_record::{put_varint, varint_len};
use tailmark_wire::feed_v1 as pb;

/// `AppendRequest.Batch.events`.
const EVENTS_TAG: u8 = 2 << 3 | 2;

/// A batch that takes no more events.
#[derive(Debug)]
pub(super) struct Batch {
    /// `AppendRequest.Batch`, but for the number.
    pub body: Bytes,
    /// Bytes in flight that it holds.
    pub held: usize,
    verdict: Verdict,
}

#[derive(Debug)]
struct Open {
    body: Vec<u8>,
    events: usize,
    since: Instant,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    sealed: VecDeque<Batch>,
    /// Of the batch begun last.
    last: Option<Arc<Outcome>>,
    /// Bytes of the batch sealed last: the next one begins with room for as many.
    last_len: usize,
    /// The first batch that was refused since the last flush.
    refused: Option<Error>,
    /// Bytes of batches that take no more events and have no answer yet.
    under_way: usize,
    /// Senders that wait for room.
    waiting: usize,
    is_closing: bool,
    interrupted: Option<Error>,
    failed: Option<Error>,
}

/// What the callers and the task share.
#[derive(Debug)]
pub(super) struct Gather {
    state: Mutex<State>,
    /// Something changed that the task must see.
    pub changed: Notify,
    room: Semaphore,
    options: ProducerOptions,
}

/// What the task finds.
pub(super) struct Found {
    /// When the batch that still takes events is to be sent.
    pub due: Option<Instant>,
    pub is_closing: bool,
}

impl Gather {
    pub(super) fn new(options: ProducerOptions) -> Gather {
        let most = options.in_flight_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Gather {
            state: Mutex::default(),
            changed: Notify::new(),
            room: Semaphore::new(most),
            options: ProducerOptions { in_flight_bytes: most, ..options },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event of `len` bytes into the open batch.
    pub(super) async fn push(
        &self,
        len: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Ack, Error> {
        let bytes = entry_len(len);
        self.take_room(bytes).await?;
        let mut state = self.lock();
        state.check()?;
        let is_full = state.open.as_ref().is_some_and(|open| {
            open.events >= self.options.batch_events
                || open.body.len() + bytes > self.options.batch_bytes
        });
        if is_full {
            state.seal(None);
        }
        let is_begun = state.open.is_some();
        let room = state.last_len.max(bytes);
        let open = state.open.get_or_insert_with(|| Open::new(room));
        put_entry(&mut open.body, len, encode);
        open.events += 1;
        let ack = Ack { outcome: Arc::clone(&open.verdict), at: open.events - 1 };
        let is_full =
            open.events >= self.options.batch_events || open.body.len() >= self.options.batch_bytes;
        if is_full {
            state.seal(None);
        }
        let is_sent = is_full || state.seal_for_room();
        drop(state);
        if is_sent || !is_begun {
            self.changed.notify_one();
        }
        Ok(ack)
    }

    /// A batch of its own, behind all before it.
    pub(super) async fn push_batch(
        &self,
        events: &[pb::Event],
        expect: Option<&Expect>,
    ) -> Result<Ack, Error> {
        let bytes = events.iter().map(|event| entry_len(event.encoded_len())).sum();
        self.take_room(bytes).await?;
        let mut state = self.lock();
        state.check()?;
        state.seal(None);
        let mut open = Open::new(bytes);
        for event in events {
            put_entry(&mut open.body, event.encoded_len(), |out| event.encode_raw(out));
        }
        open.events = events.len();
        let ack = Ack { outcome: Arc::clone(&open.verdict), at: open.events.saturating_sub(1) };
        state.open = Some(open);
        state.seal(expect);
        drop(state);
        self.changed.notify_one();
        Ok(ack)
    }

    async fn take_room(&self, bytes: usize) -> Result<(), Error> {
        // What is larger than everything takes everything; `Batch::held` counts alike.
        let permits = u32::try_from(bytes.min(self.options.in_flight_bytes)).unwrap_or(u32::MAX);
        let permit = match self.room.try_acquire_many(permits) {
            Err(TryAcquireError::NoPermits) => {
                let _waiting = Waiting::of(self);
                self.room.acquire_many(permits).await
            }
            Ok(permit) => Ok(permit),
            Err(TryAcquireError::Closed) => return Err(self.why_not()),
        };
        match permit {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(_) => Err(self.why_not()),
        }
    }

    fn why_not(&self) -> Error {
        self.lock().check().err().unwrap_or_else(closed)
    }

    /// Sends what was gathered now, and answers what to wait for.
    pub(super) fn flush(&self) -> Option<Arc<Outcome>> {
        let mut state = self.lock();
        state.seal(None);
        let last = state.last.clone();
        drop(state);
        self.changed.notify_one();
        last
    }

    /// The first batch refused since this was asked last.
    pub(super) fn take_refused(&self) -> Option<Error> {
        self.lock().refused.take()
    }

    /// No more events come.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.room.close();
        self.changed.notify_one();
    }

    /// Whether the task has nothing more to do than what it holds already.
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.is_closing && state.open.is_none() && state.sealed.is_empty()
    }

    /// Why no attempt is under way.
    pub(super) fn set_interruption(&self, cause: Option<Error>) {
        self.lock().interrupted = cause;
    }

    /// See [`Gather::set_interruption`].
    pub(super) fn interruption(&self) -> Option<Error> {
        self.lock().interrupted.as_ref().map(Error::duplicate)
    }

    /// Moves what is to be sent to the end of `waiting`.
    pub(super) fn take(&self, waiting: &mut VecDeque<Batch>) -> Found {
        let mut state = self.lock();
        let due = |open: &Open| backoff::after(open.since, self.options.linger);
        if state.open.as_ref().is_some_and(|open| due(open) <= Instant::now()) {
            state.seal(None);
        }
        waiting.append(&mut state.sealed);
        Found { due: state.open.as_ref().map(due), is_closing: state.is_closing }
    }

    /// A batch has its answer.
    pub(super) fn settle(&self, batch: Batch, outcome: Result<pb::append_response::Acked, Error>) {
        let mut state = self.lock();
        if let Err(error) = &outcome {
            state.refused.get_or_insert_with(|| error.duplicate());
        }
        state.under_way -= batch.held;
        let is_sent = state.seal_for_room();
        drop(state);
        if is_sent {
            self.changed.notify_one();
        }
        batch.verdict.settle(outcome);
        self.room.add_permits(batch.held.min(self.options.in_flight_bytes));
    }

    /// Nothing more is sent.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.lock();
        state.seal(None);
        state.failed = Some(error.duplicate());
        for batch in state.sealed.drain(..) {
            batch.verdict.settle(Err(error.duplicate().of_read()));
        }
        drop(state);
        self.room.close();
    }
}

/// What the task of a producer runs in: should it panic, nobody goes on waiting for it.
pub(super) async fn held(gather: Arc<Gather>, task: impl Future<Output = ()>) {
    let _ended = Ended(gather);
    task.await;
}

/// Ends what is gathered when the task panics.
struct Ended(Arc<Gather>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Ended by whoever dropped the producer, it leaves everybody to hear that.
        if std::thread::panicking() && self.0.lock().failed.is_none() {
            // What it was to send was not sent. Of what it had taken nobody knows.
            self.0.fail(&Error::new(Kind::Internal, "the producer's task has ended"));
        }
    }
}

impl State {
    fn check(&self) -> Result<(), Error> {
        match &self.failed {
            // Of what was never sent.
            Some(error) => Err(error.duplicate().of_read()),
            None if self.is_closing => Err(closed()),
            None => Ok(()),
        }
    }

    /// Sends the open batch when somebody waits for the room that it alone holds: no ack would make
    /// any, and its own linger may be long.
    fn seal_for_room(&mut self) -> bool {
        let holds_all = self.waiting > 0 && self.under_way == 0 && self.open.is_some();
        if holds_all {
            self.seal(None);
        }
        holds_all
    }

    /// The open batch takes no more events.
    fn seal(&mut self, expect: Option<&Expect>) {
        let Some(mut open) = self.open.take() else { return };
        let held = open.body.len();
        if let Some(expect) = expect {
            let head = pb::ExpectedHead { topic: expect.topic.clone(), seq: expect.seq.get() };
            let batch = pb::append_request::Batch {
                expected_head: Some(head),
                ..pb::append_request::Batch::default()
            };
            batch.encode_raw(&mut open.body);
        }
        self.last = Some(Arc::clone(&open.verdict));
        self.last_len = held;
        self.under_way += held;
        self.sealed.push_back(Batch { body: open.body.into(), held, verdict: open.verdict });
    }
}

/// One that waits for room, for as long as this lives.
struct Waiting<'a>(&'a Gather);

impl<'a> Waiting<'a> {
    fn of(gather: &'a Gather) -> Waiting<'a> {
        let mut state = gather.lock();
        state.waiting += 1;
        if state.seal_for_room() {
            gather.changed.notify_one();
        }
        drop(state);
        Waiting(gather)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl Open {
    fn new(room: usize) -> Open {
        let body = Vec::with_capacity(room);
        Open { body, events: 0, since: Instant::now(), verdict: Verdict::default() }
    }
}

fn closed() -> Error {
    Error::new(Kind::InvalidRequest, "the producer is closed")
}

fn entry_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn put_entry(body: &mut Vec<u8>, len: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    body.push(EVENTS_TAG);
    put_varint(body, len as u64);
    encode(body);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tailmark_record::Seq;

    fn gather(options: ProducerOptions) -> Gather {
        Gather::new(options)
    }

    fn decode(batch: &Batch) -> pb::append_request::Batch {
        pb::append_request::Batch::decode(&batch.body[..]).unwrap()
    }

    fn event(body: &str) -> pb::Event {
        pb::Event { topic: "a".into(), body: body.into(), ..pb::Event::default() }
    }

    async fn push(gather: &Gather, event: &pb::Event) -> Ack {
        gather.push(event.encoded_len(), |out| event.encode_raw(out)).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_has_waited() {
        let linger = Duration::from_millis(5);
        let gather =
            gather(ProducerOptions { batch_events: 2, linger, ..ProducerOptions::default() });
        let mut waiting = VecDeque::new();
        for body in ["1", "2", "3"] {
            push(&gather, &event(body)).await;
        }
        let due = gather.take(&mut waiting).due.unwrap();
        assert_eq!(decode(&waiting.pop_front().unwrap()).events, [event("1"), event("2")]);
        assert!(waiting.is_empty() && due == Instant::now() + linger);
        tokio::time::advance(linger).await;
        assert!(gather.take(&mut waiting).due.is_none());
        assert_eq!(decode(&waiting.pop_front().unwrap()).events, [event("3")]);
        // One with a condition stands alone.
        push(&gather, &event("4")).await;
        let expect = Expect { topic: "t".into(), seq: Seq::new(9) };
        gather.push_batch(&[event("5"), event("6")], Some(&expect)).await.unwrap();
        push(&gather, &event("7")).await;
        gather.flush();
        gather.take(&mut waiting);
        let batches: Vec<_> = waiting.iter().map(decode).collect();
        assert_eq!(batches.len(), 3);
        assert_eq!(batches[1].events, [event("5"), event("6")]);
        let head = pb::ExpectedHead { topic: "t".into(), seq: 9 };
        assert_eq!(batches[1].expected_head, Some(head));
        assert!(batches[0].expected_head.is_none() && batches[2].expected_head.is_none());
    }

    /// A producer whose task takes two batches and panics, with more gathered behind them and a sender that waits
    /// for room: what each of them hears.
    #[tokio::test]
    async fn a_task_that_panics_leaves_nobody_waiting() {
        let one = event("x");
        let bytes = entry_len(one.encoded_len());
        let options = ProducerOptions {
            in_flight_bytes: 4 * bytes,
            linger: Duration::from_secs(3_600),
            ..ProducerOptions::default()
        };
        let gather = Arc::new(gather(options));
        let taken = [
            gather.push_batch(std::slice::from_ref(&one), None).await.unwrap(),
            gather.push_batch(std::slice::from_ref(&one), None).await.unwrap(),
        ];
        let (go, panics) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(held(Arc::clone(&gather), {
            let gather = Arc::clone(&gather);
            async move {
                let mut waiting = VecDeque::new();
                gather.take(&mut waiting);
                assert_eq!(waiting.len(), 2);
                let _ = panics.await;
                panic!("a provoked panic");
            }
        }));
        tokio::task::yield_now().await;
        let sealed = gather.push_batch(std::slice::from_ref(&one), None).await.unwrap();
        let open = push(&gather, &one).await;
        let wants_room = tokio::spawn({
            let (gather, one) = (Arc::clone(&gather), one.clone());
            async move { gather.push(one.encoded_len(), |out| one.encode_raw(out)).await }
        });
        while gather.lock().waiting == 0 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        assert!(task.await.unwrap_err().is_panic());
        let hears = |ack: Ack| async {
            let patience = Duration::from_secs(20);
            let heard = tokio::time::timeout(patience, ack.durable()).await;
            heard.expect("nobody goes on waiting").unwrap_err()
        };
        for ack in taken {
            assert!(hears(ack).await.may_have_applied(), "nobody knows");
        }
        for ack in [sealed, open] {
            let error = hears(ack).await;
            assert!(error.kind() == Kind::Internal && !error.may_have_applied(), "{error}");
        }
        assert_eq!(wants_room.await.unwrap().unwrap_err().kind(), Kind::Internal);
        let late = gather.push(one.encoded_len(), |out| one.encode_raw(out)).await;
        assert_eq!(late.unwrap_err().kind(), Kind::Internal);
    }

    #[tokio::test]
    async fn bytes_in_flight_are_bounded_and_come_back() {
        let one = event("x");
        let bytes = entry_len(one.encoded_len());
        let options = ProducerOptions { in_flight_bytes: 2 * bytes, ..ProducerOptions::default() };
        let gather = gather(options);
        push(&gather, &one).await;
        push(&gather, &one).await;
        let mut third = Box::pin(push(&gather, &one));
        assert!(futures_poll(third.as_mut()).is_none(), "no room was taken");
        let mut waiting = VecDeque::new();
        gather.flush();
        gather.take(&mut waiting);
        let batch = waiting.pop_front().unwrap();
        gather.settle(batch, Ok(pb::append_response::Acked::default()));
        third.await;
        // One that is larger than everything is let through alone.
        gather.flush();
        gather.take(&mut waiting);
        let batch = waiting.pop_front().unwrap();
        gather.settle(batch, Ok(pb::append_response::Acked::default()));
        push(&gather, &event(&"x".repeat(1_000))).await;
        gather.take(&mut waiting);
        gather.flush();
        gather.take(&mut waiting);
        let batch = waiting.pop_front().unwrap();
        gather.settle(batch, Ok(pb::append_response::Acked::default()));
        assert_eq!(gather.room.available_permits(), 2 * bytes);
    }

    /// Takes what is sealed, as the task does, and answers each batch.
    fn answer_all(gather: &Gather) -> usize {
        let mut waiting = VecDeque::new();
        gather.take(&mut waiting);
        let count = waiting.len();
        for batch in waiting {
            gather.settle(batch, Ok(pb::append_response::Acked::default()));
        }
        count
    }

    #[tokio::test]
    async fn who_waits_for_room_does_not_wait_for_the_linger() {
        let one = event("x");
        let bytes = entry_len(one.encoded_len());
        for room in 1..5 {
            let in_flight_bytes = room * bytes;
            let linger = Duration::MAX;
            let options = ProducerOptions { in_flight_bytes, linger, ..Default::default() };
            let gather = gather(options);
            for _ in 0..room {
                push(&gather, &one).await;
            }
            assert_eq!(answer_all(&gather), 0, "there is room, so the linger counts");
            let send = async || {
                for _ in 0..20 {
                    push(&gather, &one).await;
                }
            };
            let answer = async {
                loop {
                    gather.changed.notified().await;
                    answer_all(&gather);
                }
            };
            let all_sent = async { tokio::join!(send(), send(), send()) };
            tokio::time::timeout(Duration::from_secs(60), async {
                tokio::select! { _ = all_sent => {} () = answer => {} }
            })
            .await
            .expect("what is open holds all the room");
            assert_eq!(gather.lock().waiting, 0);
        }
    }

    #[tokio::test]
    async fn an_answer_that_makes_too_little_room_sends_what_is_open() {
        let (one, large) = (event("x"), event("xx"));
        let in_flight_bytes = 3 * entry_len(one.encoded_len());
        let linger = Duration::MAX;
        let gather = gather(ProducerOptions { in_flight_bytes, linger, ..Default::default() });
        push(&gather, &one).await;
        gather.flush();
        push(&gather, &one).await;
        push(&gather, &one).await;
        // Needs more than the first batch holds.
        let mut waits = Box::pin(push(&gather, &large));
        assert!(futures_poll(waits.as_mut()).is_none());
        assert_eq!(answer_all(&gather), 1, "an answer is on its way: what is open may wait");
        assert!(futures_poll(waits.as_mut()).is_none());
        assert_eq!(answer_all(&gather), 1, "nothing else makes room");
        waits.await;
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn after_a_failure_all_hear_of_it() {
        let gather = gather(ProducerOptions::default());
        let ack = push(&gather, &event("1")).await;
        gather.fail(&Error::new(Kind::Conflict, "fenced").maybe_applied());
        let error = ack.await.unwrap_err();
        // It was never sent.
        assert_eq!((error.kind(), error.may_have_applied()), (Kind::Conflict, false));
        let len = event("").encoded_len();
        let error = gather.push(len, |out| event("").encode_raw(out)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
    }
}
