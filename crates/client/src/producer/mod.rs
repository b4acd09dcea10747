//! A producer: events in batches over `Append`, each durable exactly once, over any number of
//! connections, servers' restarts and lost acks.
//!
//! Owns the connections, timers and the task of one producer; what to do next is decided in `step`
//! alone, what is gathered lies in `gather`. Invariants: one attempt at a time; batches are settled
//! in the order in which they were made; after a failure nothing is sent.

mod gather;
#[cfg(test)]
mod model;
mod outcome;
mod step;
mod task;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Client, Error, Expect, Kind};
use gather::Gather;
use outcome::Outcome;
use tailmark_record::{Cursor, Seq};
use tailmark_wire::feed_v1 as pb;

/// How a producer behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerOptions {
    /// A batch goes when it has so many events: 1,000 if not set. The server takes 10,000 by default.
    pub batch_events: usize,
    /// A batch goes when its events have so many bytes: 1 MiB if not set. The server takes 4 MiB by
    /// default.
    pub batch_bytes: usize,
    /// A batch goes when its first event has waited for so long: 2 ms if not set; or when it alone
    /// holds the room that somebody waits for.
    pub linger: Duration,
    /// Bytes of events that are not durable yet; with more, sending waits. 16 MiB if not set. One
    /// event or batch that is larger goes alone.
    pub in_flight_bytes: usize,
    /// Silence of the server while an ack is due; then the connection counts as dead. 30 s if not
    /// set.
    pub ack_timeout: Duration,
    /// The shortest wait before connecting again: 100 ms if not set. It doubles with each attempt
    /// that gets nowhere, and each wait is lengthened at random by up to itself.
    pub shortest_retry: Duration,
    /// Where the doubling ends: 10 s if not set. What the server asks for comes on top, and what a
    /// proxy asks for in its place up to this or a minute, whichever is more.
    pub longest_retry: Duration,
    /// Go on trying when the very first attempt fails, too; `true` if not set.
    pub waits_for_server: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            batch_events: 1_000,
            batch_bytes: 1 << 20,
            linger: Duration::from_millis(2),
            in_flight_bytes: 16 << 20,
            ack_timeout: Duration::from_secs(30),
            shortest_retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(10),
            waits_for_server: true,
        }
    }
}

/// Where the producer was when it was opened: what its last life got stored, to the last batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its epoch; older ones are fenced.
    pub epoch: u64,
    /// The number of its last batch; 0 = none.
    pub batch: u64,
    /// The last event of that batch.
    pub seq: Option<Seq>,
    /// The cursor of that event; empty = none.
    pub cursor: String,
}

/// An event that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Its position in the log. `None` only for a batch that the log remembers no more, which takes
    /// many other producers at once.
    pub seq: Option<Seq>,
    /// The number of its batch.
    pub batch: u64,
    /// The cursor of the last event of its batch.
    pub batch_cursor: String,
    /// The log had it already: an earlier ack was lost.
    pub duplicate: bool,
}

/// Tells when an event is durable. Await it, or drop it: the event is sent all the same.
#[derive(Clone, Debug)]
pub struct Ack {
    outcome: Arc<Outcome>,
    /// Its place in the batch.
    at: usize,
}

/// Appends events in batches, each exactly once and in order. Shared by reference.
///
/// A producer is known to the log by its id. It has one life at a time: one that is opened under the
/// same id fences the older, which then fails with [`Kind::Conflict`] (reason `FENCED`) and may not
/// be opened again by itself. [`Producer::position`] tells where the older life came to: whatever is
/// sent after that is stored once, and nothing of it was stored before.
///
/// Dropped without [`Producer::close`], it sends no more, and what became of events without an ack
/// is not known. Should its task ever panic, whoever waits hears the same, and it takes no more
/// events ([`Kind::Internal`]).
///
/// ```
/// use tailmark_client::{Client, Error, ProducerOptions};
/// use tailmark_client::feed_v1::Event;
///
/// /// One run of the program: stores the numbers up to `last`, each exactly once however often it
/// /// runs. Answers how many were stored before.
/// async fn run(client: &Client, last: u64) -> Result<u64, Error> {
///     let producer = client.producer("orders-1", ProducerOptions::default()).await?;
///     // Where was I? The key of the last event that is stored says what to go on with.
///     let done = match producer.position().seq {
///         Some(seq) => client.event(seq).await?.key.parse().unwrap_or(0),
///         None => 0,
///     };
///     for number in done + 1..=last {
///         let event =
///             Event { topic: "orders.eu".into(), key: number.to_string(), ..Event::default() };
///         // Waits only while too much is in flight.
///         let ack = producer.send(&event).await?;
///         if number % 100 == 0 {
///             // Durable, and so will be all that was sent before it.
///             let durable = ack.await?;
///             println!("{number} is durable at {:?}", durable.seq);
///         }
///     }
///     // Waits for what is on its way. A program that is killed before goes on where it was all the
///     // same: what it sent may be stored or not, and the next run finds out.
///     producer.close().await?;
///     Ok(done)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = tailmark::testing::serve().await?;
/// # let address = server.url();
/// let client = Client::new(&address)?;
/// assert_eq!(run(&client, 250).await?, 0);
/// assert_eq!(run(&client, 300).await?, 250);
/// assert_eq!(client.log().await?.head_seq, 300);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Producer {
    gather: Arc<Gather>,
    position: Position,
    task: JoinHandle<()>,
}

impl Client {
    /// Opens the producer `id`, at most 255 bytes, in a new epoch. Answers when that is durable.
    ///
    /// # Errors
    /// What does not pass by itself; what does is tried again, as long as it takes.
    pub async fn producer(
        &self,
        id: impl Into<String>,
        options: ProducerOptions,
    ) -> Result<Producer, Error> {
        let gather = Arc::new(Gather::new(options.clone()));
        let (opened, position) = oneshot::channel();
        let task = task::Task::new(self.clone(), id.into(), options, Arc::clone(&gather), opened);
        let task = AbortOnDrop(Some(tokio::spawn(gather::held(Arc::clone(&gather), task.run()))));
        let position = position.await.map_err(|_| ended())??;
        Ok(Producer { gather, position, task: task.keep() })
    }
}

/// A task that ends with the future that waits for it.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().unwrap_or_else(|| tokio::spawn(async {}))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Producer {
    /// Where was I: how far the producer had come when it was opened.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Why nothing is sent at the moment: the connection was lost, and will be tried again. `None`
    /// while all is well.
    pub fn interruption(&self) -> Option<Error> {
        self.gather.interruption()
    }

    /// Sends an event with the next batch. Waits for room among the bytes in flight, not for the
    /// ack. The server judges a batch as a whole: an event that it refuses takes the others of its
    /// batch along ([`Error::metadata`] `index` names it).
    ///
    /// # Errors
    /// When the producer has failed before, or is closed; this event was not sent.
    pub async fn send(&self, event: &pb::Event) -> Result<Ack, Error> {
        self.gather.push(event.encoded_len(), |out| event.encode_raw(out)).await
    }

    /// As [`Producer::send`], of an encoded `feed.v1.Event`.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_encoded(&self, event: &[u8]) -> Result<Ack, Error> {
        self.gather.push(event.len(), |out| out.extend_from_slice(event)).await
    }

    /// Sends events as one batch of their own: all are stored, next to each other, or none. With
    /// `expect` they are stored only if the head is still there; else the ack is an error of
    /// [`Kind::Conflict`] (reason `HEAD_MOVED`, with `actual`), and the producer goes on. The ack is
    /// the last event's.
    ///
    /// # Errors
    /// As [`Producer::send`]; without any event.
    pub async fn send_batch(
        &self,
        events: &[pb::Event],
        expect: Option<Expect>,
    ) -> Result<Ack, Error> {
        if events.is_empty() {
            return Err(Error::new(Kind::InvalidRequest, "a batch needs an event"));
        }
        self.gather.push_batch(events, expect.as_ref()).await
    }

    /// Sends what was gathered, and waits until everything sent so far is durable.
    ///
    /// # Errors
    /// The first batch since the last flush that was refused, or why the producer has failed before
    /// everything was durable. With everything durable a failure does not matter here; the next
    /// [`Producer::send`] tells it.
    pub async fn flush(&self) -> Result<(), Error> {
        if let Some(last) = self.gather.flush() {
            let error = match last.wait().await {
                Some(Err(error)) => Some(error.duplicate()),
                Some(Ok(_)) => None,
                None => Some(ended()),
            };
            if let Some(error) = self.gather.take_refused().or(error) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// As [`Producer::flush`], then ends the stream.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(mut self) -> Result<(), Error> {
        let flushed = self.flush().await;
        self.gather.close();
        // Nothing waits: it ends by itself. A panic has nothing to add.
        let _ = (&mut self.task).await;
        flushed
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ended() -> Error {
    Error::new(Kind::Unavailable, "the producer ended before the ack").maybe_applied()
}

impl Ack {
    /// Waits until the event is durable.
    ///
    /// # Errors
    /// When it was refused, or the producer failed or was dropped before:
    /// [`Error::may_have_applied`] says whether it may be stored all the same.
    pub async fn durable(self) -> Result<Durable, Error> {
        match self.outcome.wait().await {
            Some(Ok(acked)) => Ok(Durable::of(acked, self.at)),
            Some(Err(error)) => Err(error.duplicate()),
            None => Err(ended()),
        }
    }
}

impl IntoFuture for Ack {
    type Output = Result<Durable, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.durable())
    }
}

impl Durable {
    fn of(acked: &pb::append_response::Acked, at: usize) -> Durable {
        let seq = acked.first_seq.checked_add(at as u64).map(Seq::new);
        Durable {
            seq: seq.filter(|_| acked.first_seq > 0),
            batch: acked.producer_seq,
            batch_cursor: acked.last_cursor.clone(),
            duplicate: acked.duplicate,
        }
    }
}

impl Position {
    fn of(opened: pb::append_response::Opened) -> Position {
        Position {
            epoch: opened.epoch,
            batch: opened.last_producer_seq,
            seq: Cursor::parse(&opened.last_cursor).ok().map(Cursor::seq),
            cursor: opened.last_cursor,
        }
    }
}
