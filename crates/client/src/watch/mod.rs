//! A watch that connects again by itself and goes on exactly where it was.
//!
//! Owns the streams, timers and connections of one watch; what to do next is decided in `step`
//! alone. Invariants: one attempt at a time; an item that was handed over is never handed over
//! again; after an `Err` or the end nothing follows.

mod incoming;
mod progress;
mod request;
mod step;

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{Instant, Sleep};
use tonic::codec::Streaming;
use tonic::metadata::MetadataMap;

use super::channel::Channel;
use super::{Backoff, Client, Error, Kind, backoff};
use incoming::{Broken, Incoming, News, Opened, open};
use progress::Progress;
pub use request::WatchOptions;
use step::{Action, Input, Machine};
use tailmark_record::{Event, EventError, Marker, MarkerKind, Seq};

/// An event as it came, decoded when looked at. Keeps the message in memory that it came in, which
/// may hold 64 KiB of other events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    bytes: Bytes,
    seq: Seq,
    cursor: Range<usize>,
}

impl Received {
    /// Its position in the log.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The cursor to resume after it.
    pub fn cursor(&self) -> &str {
        // ASCII, or it would not have been taken.
        std::str::from_utf8(self.cursor_bytes()).unwrap_or_default()
    }

    fn cursor_bytes(&self) -> &[u8] {
        &self.bytes[self.cursor.clone()]
    }

    /// The encoded `feed.v1.Event`.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Reads it without copying.
    ///
    /// # Errors
    /// When the server sent what is no event.
    pub fn event(&self) -> Result<Event<'_>, EventError> {
        Event::parse(&self.bytes)
    }
}

/// What a watch yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item {
    /// An event.
    Event(Received),
    /// News about the watch, when [`WatchOptions::markers`] asks for them; a gap in any case.
    Marker(Marker),
    /// The connection was lost; nothing is missed. The watch connects again after `retry_in`.
    Interrupted {
        /// Why.
        cause: Error,
        /// When.
        retry_in: Duration,
    },
}

/// Silence is found out at most one part of the patience late.
const PARTS: u32 = 4;

type Opening = Pin<Box<dyn Future<Output = Result<Opened, Error>> + Send>>;
type Trailers = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

enum Phase {
    /// Nothing is under way.
    Idle,
    Opening(Opening),
    Reading(Box<Incoming>),
    Ending(Trailers),
    Waiting(Pin<Box<Sleep>>),
    Done,
}

/// What an action comes to.
enum Turn {
    /// There is nothing for the caller yet.
    Again,
    Yield(Item),
    End(Result<(), Error>),
}

/// A stream of [`Item`]s. An `Err` is final: what passes by itself never shows as one.
pub struct Watch {
    client: Client,
    channel: Channel,
    options: WatchOptions,
    machine: Machine,
    backoff: Backoff,
    phase: Phase,
    /// Runs out after a part of the patience, [`PARTS`] times before an attempt counts as silent.
    patience: Pin<Box<Sleep>>,
    /// Something came since `patience` was set; setting it again for each message costs too much.
    heard: bool,
    /// Parts of the patience in which nothing came.
    silent_parts: u32,
    /// What the server is told of the work, where the watch has a name.
    progress: Option<Progress>,
}

impl Client {
    /// Watches the log. Nothing is sent before the stream is polled.
    pub fn watch(&self, options: WatchOptions) -> Watch {
        let machine = Machine::new(options.plan(), options.after_cursor.clone());
        Watch {
            client: self.clone(),
            channel: self.channel(),
            backoff: Backoff::new(options.shortest_retry, options.longest_retry),
            patience: Box::pin(tokio::time::sleep(options.patience() / PARTS)),
            heard: false,
            silent_parts: 0,
            progress: (!options.name.is_empty()).then(|| Progress::new(self.clone())),
            machine,
            options,
            phase: Phase::Idle,
        }
    }
}

impl Watch {
    /// The cursor to resume after: of the last item handed over, or of the resolved start before
    /// the first. On a filtered watch it moves on while nothing matches. `None` before the server
    /// has answered for the first time.
    pub fn cursor(&self) -> Option<&str> {
        self.machine.cursor()
    }

    /// The seq that [`Watch::cursor`] names.
    pub fn position(&self) -> Option<Seq> {
        self.machine.position()
    }

    /// Tells the server how many events are done, where the watch has a name and the server wants to hear
    /// it: all that were handed over, or with `last_is_done` false all but the last. Asking for
    /// items does so by itself, about once a second; this is for who ends before the watch does. For
    /// figures alone: when it fails, or takes more than 1 s, nothing comes of it.
    pub async fn report(&mut self, last_is_done: bool) {
        if let Some(progress) = &mut self.progress {
            progress.finish(last_is_done).await;
        }
    }

    /// Does what the machine says.
    fn act(&mut self, action: Action, came: Option<Item>) -> Turn {
        self.note_progress();
        match action {
            Action::Deliver => match came {
                // What is lost is never lost in silence.
                Some(Item::Marker(marker))
                    if !self.options.markers && marker.kind != MarkerKind::Gap =>
                {
                    Turn::Again
                }
                Some(item) => Turn::Yield(item),
                None => Turn::Again,
            },
            Action::Read => Turn::Again,
            Action::Open => {
                let request = self.options.request(&self.machine);
                self.phase =
                    Phase::Opening(Box::pin(open(self.client.grpc(self.channel.clone()), request)));
                self.arm();
                self.silent_parts = 0;
                Turn::Again
            }
            Action::Wait { cause, at_least, fresh_connection } => {
                let retry_in = self.backoff.after(&cause, at_least);
                // The attempt is dropped here, before the next one can begin.
                self.phase = Phase::Waiting(Box::pin(tokio::time::sleep(retry_in)));
                if fresh_connection {
                    self.channel = self.client.fresh_channel();
                }
                Turn::Yield(Item::Interrupted { cause: cause.of_read(), retry_in })
            }
            Action::Finish => {
                self.phase = Phase::Done;
                Turn::End(Ok(()))
            }
            Action::Fail(error) => {
                self.phase = Phase::Done;
                Turn::End(Err(error.of_read()))
            }
        }
    }

    fn arm(&mut self) {
        let deadline = backoff::after(Instant::now(), self.options.patience() / PARTS);
        self.patience.as_mut().reset(deadline);
        self.heard = false;
    }

    /// Whether the attempt has been silent for too long. Registers for the wake-up if not.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        while self.patience.as_mut().poll(cx).is_ready() {
            self.silent_parts = if self.heard { 0 } else { self.silent_parts + 1 };
            if self.silent_parts >= PARTS {
                return true;
            }
            self.arm();
        }
        false
    }

    /// The attempt has come to its end, orderly or not.
    fn end(&mut self, broken: Option<Broken>) -> (Action, Option<Item>) {
        let action = match broken {
            Some(Broken::Call(status)) => {
                let error = self.client.weigh(Error::from_status(status));
                self.machine.step(Input::Failed(error))
            }
            Some(Broken::Message(error)) => {
                let what = "the server sent what is no event";
                Action::Fail(Error::new(Kind::Protocol, what).with_source(error))
            }
            None => {
                if let Phase::Reading(incoming) = std::mem::replace(&mut self.phase, Phase::Idle) {
                    self.phase = Phase::Ending(Box::pin(trailing_cursor(incoming.stream)));
                }
                Action::Read
            }
        };
        (action, None)
    }

    fn note_progress(&mut self) {
        if self.machine.take_progress() {
            self.backoff.reset();
        }
    }
}

impl Stream for Watch {
    type Item = Result<Item, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(progress) = &mut this.progress {
            progress.asked(cx);
            if progress.take_stale() && matches!(this.phase, Phase::Reading(_)) {
                let what = "the server was started anew";
                let action = this.machine.step(Input::Failed(Error::new(Kind::Unavailable, what)));
                match this.act(action, None) {
                    Turn::Again => {}
                    Turn::Yield(item) => return Poll::Ready(Some(Ok(item))),
                    Turn::End(end) => return Poll::Ready(end.err().map(Err)),
                }
            }
        }
        loop {
            let (action, came) = match &mut this.phase {
                Phase::Done => return Poll::Ready(None),
                Phase::Idle => (this.machine.step(Input::Woke), None),
                Phase::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    (this.machine.step(Input::Woke), None)
                }
                Phase::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Pending if this.is_silent(cx) => (this.machine.step(Input::Silent), None),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(opened)) => {
                        let cursor = ascii(&opened.headers, "feed-cursor");
                        let head = ascii(&opened.headers, "feed-head")
                            .and_then(|text| text.parse().ok().map(Seq::new));
                        if let Some(progress) = &mut this.progress {
                            progress.opened(ascii(&opened.headers, "feed-watch"));
                        }
                        let input = Input::Opened { cursor: cursor.as_deref(), head };
                        let action = this.machine.step(input);
                        this.phase = Phase::Reading(Box::new(opened.incoming));
                        this.heard = true;
                        (action, None)
                    }
                    Poll::Ready(Err(error)) => {
                        let error = this.client.weigh(error);
                        (this.machine.step(Input::Failed(error)), None)
                    }
                },
                Phase::Reading(incoming) => match incoming.poll_next(cx, &mut this.heard) {
                    Poll::Ready(Some(Ok(News::Event(received)))) => {
                        let cursor = received.cursor_bytes();
                        match this.machine.step(Input::Event { seq: received.seq, cursor }) {
                            // What nearly always happens, by the shortest way.
                            Action::Deliver => {
                                this.note_progress();
                                if let Some(progress) = &mut this.progress {
                                    progress.handed_over();
                                }
                                return Poll::Ready(Some(Ok(Item::Event(received))));
                            }
                            action => (action, None),
                        }
                    }
                    Poll::Ready(Some(Ok(News::Marker(marker)))) => {
                        let action = this.machine.step(Input::Marker(&marker));
                        (action, Some(Item::Marker(marker)))
                    }
                    Poll::Ready(Some(Err(broken))) => this.end(Some(broken)),
                    Poll::Ready(None) => this.end(None),
                    Poll::Pending if this.is_silent(cx) => (this.machine.step(Input::Silent), None),
                    Poll::Pending => return Poll::Pending,
                },
                Phase::Ending(trailers) => {
                    let cursor = ready!(trailers.as_mut().poll(cx));
                    (this.machine.step(Input::Ended { cursor: cursor.as_deref() }), None)
                }
            };
            match this.act(action, came) {
                Turn::Again => {}
                Turn::Yield(item) => return Poll::Ready(Some(Ok(item))),
                Turn::End(end) => return Poll::Ready(end.err().map(Err)),
            }
        }
    }
}

/// The trailers of a stream that has ended are there already; this does not wait.
async fn trailing_cursor(mut stream: Streaming<Bytes>) -> Option<String> {
    let trailers = stream.trailers().await.ok().flatten()?;
    ascii(&trailers, "feed-cursor")
}

fn ascii(metadata: &MetadataMap, name: &str) -> Option<String> {
    metadata.get(name)?.to_str().ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests;
