//! The end of the stream as it comes: a consumer that sends each message in order, and says when nothing does.
//!
//! It is asked for as much as there is room for, and answers as messages come, with a heartbeat each second. Where it
//! says nothing for longer, goes back or leaves something out, it is given up, and another begins where its reader is:
//! a server that comes back begins its consumers anew, and one whose server is gone says nothing.
//! What it brings is what one replica has. Who reads decides whether that fits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::answers;
use crate::consumer::{self, slot_of};

const SECOND: u64 = 1_000_000_000;
/// Of a request: it ends by then, and the next follows.
const EXPIRES: u64 = 10 * SECOND;
const HEARTBEAT: u64 = SECOND;
/// More than two heartbeats.
const SILENCE: Duration = Duration::from_millis(2_500);
const BATCH: u64 = 512;
/// Twice the largest message.
const MAX_BYTES: usize = 16_000_000;
/// Until it is made: while servers elect nobody answers.
const CREATE: Duration = Duration::from_secs(2);
/// Before a consumer that was given up, or could not be made, is made again.
const PAUSE: Duration = Duration::from_millis(250);

/// What a consumer has brought and nobody has taken.
#[derive(Default)]
struct Queue {
    messages: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Why it was given up.
    ended: Option<&'static str>,
}

#[derive(Default)]
struct Brought {
    queue: Mutex<Queue>,
    /// A message, or the end.
    changed: Condvar,
    taken: Notify,
}

impl Brought {
    fn put(&self, slot: u64, message: Bytes) {
        let mut queue = self.queue.lock();
        queue.bytes += message.len();
        queue.messages.push_back((slot, message));
        self.changed.notify_all();
    }

    fn end(&self, why: &'static str) {
        self.queue.lock().ended = Some(why);
        self.changed.notify_all();
    }

    /// Passes over what comes before a slot; what comes first then.
    fn front(&self, slot: u64) -> Option<u64> {
        let mut queue = self.queue.lock();
        while queue.messages.front().is_some_and(|(at, _)| *at < slot) {
            self.pop(&mut queue);
        }
        queue.messages.front().map(|(at, _)| *at)
    }

    fn take(&self, slot: u64) -> Option<Bytes> {
        let is_there = self.front(slot) == Some(slot);
        is_there.then(|| self.pop(&mut self.queue.lock())).flatten()
    }

    fn pop(&self, queue: &mut Queue) -> Option<Bytes> {
        let (_, message) = queue.messages.pop_front()?;
        queue.bytes -= message.len();
        self.taken.notify_one();
        Some(message)
    }

    async fn has_room(&self) {
        while self.queue.lock().bytes > MAX_BYTES {
            self.taken.notified().await;
        }
    }
}

struct Consumer {
    /// Where it begins, and on which connection.
    from: u64,
    connection: u64,
    begun: Instant,
    has_given: bool,
    brought: Arc<Brought>,
    task: AbortHandle,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One reader's tail of a stream. There is a consumer while somebody waits now and then.
pub(crate) struct Tail {
    client: Client,
    runtime: Handle,
    stream: String,
    consumer: Mutex<Option<Consumer>>,
}

impl Tail {
    pub(crate) fn new(client: Client, runtime: Handle, stream: String) -> Tail {
        Tail { client, runtime, stream, consumer: Mutex::new(None) }
    }

    /// A message, if it has come.
    pub(crate) fn take(&self, slot: u64) -> Option<Bytes> {
        let mut consumer = self.consumer.lock();
        let consumer = consumer.as_mut()?;
        let message = consumer.brought.take(slot);
        consumer.has_given |= message.is_some();
        message
    }

    /// Whether a consumer says that nothing has come.
    pub(crate) fn is_quiet(&self, connection: u64) -> bool {
        let consumer = self.consumer.lock();
        consumer.as_ref().is_some_and(|it| {
            let queue = it.brought.queue.lock();
            it.connection == connection && queue.ended.is_none() && queue.messages.is_empty()
        })
    }

    /// Waits until there may be something at a slot or behind it; false where nothing came by then.
    pub(crate) fn wait(&self, slot: u64, connection: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let brought = self.consumer(slot, connection);
            if brought.front(slot).is_some() {
                return true;
            }
            let mut queue = brought.queue.lock();
            let is_over = || Instant::now() >= deadline;
            while queue.messages.is_empty() && queue.ended.is_none() {
                if brought.changed.wait_until(&mut queue, deadline).timed_out() {
                    return false;
                }
            }
            let has_ended = queue.messages.is_empty();
            drop(queue);
            if has_ended {
                // Who waits may look himself meanwhile.
                std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
                if is_over() {
                    return false;
                }
            }
        }
    }

    /// The consumer there is, if it can still bring what is at a slot; else another.
    fn consumer(&self, slot: u64, connection: u64) -> Arc<Brought> {
        let mut held = self.consumer.lock();
        if let Some(it) = &*held {
            let front = it.brought.front(slot);
            // What is before its first message is gone.
            let leaves_out = front.is_some_and(|at| at > slot) && it.has_given;
            let is_behind = slot < it.from;
            let has_ended = front.is_none() && it.brought.queue.lock().ended.is_some();
            let is_new = it.begun.elapsed() < PAUSE;
            let is_of_it = it.connection == connection;
            if is_of_it && !leaves_out && !is_behind && (!has_ended || is_new) {
                return Arc::clone(&it.brought);
            }
        }
        let brought = Arc::new(Brought::default());
        let (client, stream, to) = (self.client.clone(), self.stream.clone(), brought.clone());
        let task = self.runtime.spawn(async move {
            let why = run(&client, &stream, slot, &to).await;
            to.end(why);
        });
        *held = Some(Consumer {
            from: slot,
            connection,
            begun: Instant::now(),
            has_given: false,
            brought: brought.clone(),
            task: task.abort_handle(),
        });
        brought
    }
}

/// Brings messages from a slot on until it is given up.
async fn run(client: &Client, stream: &str, from: u64, to: &Brought) -> &'static str {
    let inbox = client.new_inbox();
    let Ok(mut messages) = client.subscribe(inbox.clone()).await else { return "no subscription" };
    let Some(consumer) = create(client, stream, from).await else { return "no consumer" };
    let why = bring(client, (stream, &consumer), (&inbox, &mut messages), to).await;
    // Else it goes by itself.
    let delete = format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}");
    let _ = client.publish(delete, Bytes::new()).await;
    why
}

async fn bring(
    client: &Client,
    (stream, consumer): (&str, &str),
    (inbox, messages): (&str, &mut Subscriber),
    to: &Brought,
) -> &'static str {
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    let request = json!({
        "batch": BATCH, "max_bytes": MAX_BYTES, "expires": EXPIRES, "idle_heartbeat": HEARTBEAT,
    });
    let request = Bytes::from(request.to_string());
    let mut last = 0;
    loop {
        to.has_room().await;
        let asked =
            client.publish_with_reply(subject.clone(), inbox.to_owned(), request.clone()).await;
        if asked.is_err() {
            return "it cannot be asked";
        }
        let mut rest = BATCH;
        while rest > 0 {
            let Ok(message) = tokio::time::timeout(SILENCE, messages.next()).await else {
                return "it says nothing";
            };
            let Some(message) = message else { return "the subscription has ended" };
            match message.status {
                None | Some(StatusCode::OK) => {
                    let slot = message.reply.as_deref().and_then(slot_of).unwrap_or_default();
                    if slot <= last {
                        return "it goes back";
                    }
                    last = slot;
                    rest -= 1;
                    to.put(slot, message.payload);
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::REQUEST_TERMINATED | StatusCode::TIMEOUT)
                    if !message.description.as_deref().is_some_and(|it| it.contains("Deleted")) =>
                {
                    break;
                }
                // One that has just been made hears nobody yet.
                Some(StatusCode::NO_RESPONDERS) if last == 0 => {
                    tokio::time::sleep(PAUSE / 2).await;
                    break;
                }
                Some(_) => return "it has ended",
            }
        }
    }
}

async fn create(client: &Client, stream: &str, from: u64) -> Option<String> {
    let made = consumer::request(stream, from);
    let subject = format!("$JS.API.CONSUMER.CREATE.{stream}");
    let request = client.request(subject, made.to_string().into());
    let answer = tokio::time::timeout(CREATE, request).await.ok()?.ok()?;
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    if answers::JetStreamError::of(&answer).is_some() {
        return None;
    }
    Some(answer.get("name")?.as_str()?.to_owned())
}
