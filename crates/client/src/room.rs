//! A room that is listened to without an end, and spoken in without repeats.
//!
//! Invariants: a message is handed over once and in the order of the log, over any number of
//! connections; what is said goes out under an id of its own, so that saying it again after an
//! unknown outcome stores it once.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;
use tonic::codec::Streaming;
use tonic::{Request, Status};
use uuid::Uuid;

use super::channel::Channel;
use super::doubt::Doubts;
use super::{Backoff, Client, Error, Item, Kind, Start, WatchOptions};
use tailmark_record::room;
use tailmark_record::{Content, Cursor, Event, Seq, Timestamp};
use tailmark_wire::values::timestamp;
use tailmark_wire::{chat as pb, feed_v1};

/// A stream that was silent for so long has got somewhere.
const STANDS: Duration = Duration::from_secs(60);

/// What a room yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum RoomItem {
    /// Somebody said something.
    Message(pb::Message),
    /// Somebody came.
    Came(String),
    /// Somebody left.
    Left(String),
    /// The connection was lost; no message is missed. It is tried again after `retry_in`.
    Interrupted {
        /// Why.
        cause: Error,
        /// When.
        retry_in: Duration,
    },
    /// It stands again, and goes on after the last message.
    Resumed,
}

/// One thing to say; may be sent as often as it takes.
#[derive(Clone, Debug)]
pub struct Saying(feed_v1::Event);

/// A UUID of version 7. `Uuid::now_v7` panics where the clock stands before 1970.
fn new_id() -> Uuid {
    let now = Timestamp::now();
    let seconds = u64::try_from(now.seconds).unwrap_or_default();
    let nanos = u32::try_from(now.nanos).unwrap_or_default();
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

impl Saying {
    /// `text` of `user` in `room`, under a new id.
    pub fn new(room: &str, user: &str, text: &str) -> Saying {
        let headers = if user.is_empty() {
            Default::default()
        } else {
            [(room::FROM.to_owned(), user.to_owned())].into()
        };
        Saying(feed_v1::Event {
            id: new_id().to_string(),
            topic: room::topic(room),
            body: text.to_owned(),
            r#type: room::MESSAGE.to_owned(),
            headers,
            ..Default::default()
        })
    }

    /// Its id, which the message has when it comes back.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What is said.
    pub fn text(&self) -> &str {
        &self.0.body
    }
}

/// Messages of one room as they come. Connects again by itself.
pub struct Room {
    client: Client,
    channel: Channel,
    room: String,
    user: String,
    /// Where the next connection goes on.
    cursor: String,
    last: Seq,
    stream: Option<Streaming<pb::Message>>,
    backoff: Backoff,
    retry_in: Option<Duration>,
    is_interrupted: bool,
    /// A message has come: the server is there, or was.
    has_met: bool,
    doubts: Doubts,
    /// When the stream began.
    began: Instant,
}

impl Client {
    /// The newest messages of a room, at most `count`, and the cursor after them.
    ///
    /// # Errors
    /// As a watch's.
    pub async fn room_history(
        &self,
        room: &str,
        count: u64,
    ) -> Result<(Vec<pb::Message>, String), Error> {
        let mut watch = self.watch(WatchOptions {
            patterns: vec![room::topic(room)],
            start: Start::Last(count),
            until_caught_up: true,
            waits_for_server: false,
            ..WatchOptions::default()
        });
        let mut messages = Vec::new();
        while let Some(item) = poll_fn(|cx| Pin::new(&mut watch).poll_next(cx)).await {
            if let Item::Event(received) = item? {
                let event = received.event().map_err(|error| {
                    Error::new(Kind::Protocol, "the server sent what is no event")
                        .with_source(error)
                })?;
                messages.push(message(room, &event));
            }
        }
        let cursor = watch.cursor().unwrap_or_default().to_owned();
        Ok((messages, cursor))
    }

    /// Listens to a room after `cursor`, or live where that is empty, as `user` or, with an empty
    /// name, unseen.
    ///
    /// ```
    /// use tailmark_client::{Client, RoomItem, Saying};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = tailmark::testing::serve().await?;
    /// # let address = server.url();
    /// let client = Client::new(&address)?;
    /// let (last, cursor) = client.room_history("ops", 10).await?;
    /// assert!(last.is_empty());
    ///
    /// let mut room = client.room("ops", "ann", &cursor);
    /// client.say(&Saying::new("ops", "bob", "deployed 1.4")).await?;
    /// loop {
    ///     match room.next().await? {
    ///         RoomItem::Message(message) => {
    ///             assert_eq!((&*message.user, &*message.content), ("bob", "deployed 1.4"));
    ///             break;
    ///         }
    ///         RoomItem::Came(who) => println!("{who} is here"),
    ///         RoomItem::Interrupted { cause, retry_in } => eprintln!("{cause}; {retry_in:?}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn room(&self, room: &str, user: &str, cursor: &str) -> Room {
        let options = WatchOptions::default();
        Room {
            client: self.clone(),
            channel: self.channel(),
            room: room.to_owned(),
            user: user.to_owned(),
            cursor: cursor.to_owned(),
            last: Cursor::parse(cursor).map_or(Seq::ZERO, Cursor::seq),
            stream: None,
            backoff: Backoff::new(options.shortest_retry, options.longest_retry),
            retry_in: None,
            is_interrupted: false,
            has_met: false,
            doubts: Doubts::default(),
            began: Instant::now(),
        }
    }

    /// Says something; answers once it is durable. What was stored by an earlier attempt is not
    /// stored again.
    ///
    /// # Errors
    /// [`Error::may_have_applied`] says whether it may be stored all the same.
    pub async fn say(&self, saying: &Saying) -> Result<feed_v1::PublishResult, Error> {
        self.publish(saying.0.clone(), None).await
    }
}

impl Room {
    /// What comes next. An error is final: what passes by itself never shows as one. To be awaited
    /// to its end: dropped on the way it begins its attempt anew.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub async fn next(&mut self) -> Result<RoomItem, Error> {
        loop {
            if let Some(delay) = self.retry_in {
                tokio::time::sleep(delay).await;
                self.retry_in = None;
            }
            let Some(stream) = &mut self.stream else {
                match self.open().await {
                    Ok(stream) => {
                        self.doubts.admitted();
                        (self.stream, self.began) = (Some(stream), Instant::now());
                    }
                    Err(status) => return self.interrupted(status),
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(message)) => {
                    self.has_met = true;
                    self.backoff.reset();
                    let is_welcome = message.r#type() == pb::MessageType::System;
                    if let Some(item) = self.take(message)? {
                        return Ok(item);
                    }
                    // It comes first, and not before: a proxy may have answered the head alone.
                    if is_welcome && std::mem::take(&mut self.is_interrupted) {
                        return Ok(RoomItem::Resumed);
                    }
                }
                // Proxies turn a cut into an orderly end.
                Ok(None) => {
                    return self.interrupted(Status::unavailable("the server ended the stream"));
                }
                Err(status) => return self.interrupted(status),
            }
        }
    }

    async fn open(&self) -> Result<Streaming<pb::Message>, Status> {
        let mut client = self.client.chat(self.channel.clone());
        let request = pb::SubscribeRequest {
            room: self.room.clone(),
            user: self.user.clone(),
            after_cursor: self.cursor.clone(),
        };
        Ok(client.subscribe_messages(Request::new(request)).await?.into_inner())
    }

    fn take(&mut self, message: pb::Message) -> Result<Option<RoomItem>, Error> {
        match message.r#type() {
            pb::MessageType::Chat => {
                if message.seq <= self.last.get() {
                    let what = format!("message {} came after {}", message.seq, self.last);
                    return Err(Error::new(Kind::Protocol, what));
                }
                self.doubts.forget();
                self.last = Seq::new(message.seq);
                self.cursor.clone_from(&message.cursor);
                Ok(Some(RoomItem::Message(message)))
            }
            pb::MessageType::Join => Ok(Some(RoomItem::Came(message.user))),
            pb::MessageType::Leave => Ok(Some(RoomItem::Left(message.user))),
            pb::MessageType::System => {
                // The welcome: where a stream that began live has begun.
                if self.cursor.is_empty() {
                    self.cursor = message.cursor;
                }
                Ok(None)
            }
        }
    }

    fn interrupted(&mut self, status: Status) -> Result<RoomItem, Error> {
        // What cannot be read comes at once where it came before.
        if self.stream.take().is_some() && self.began.elapsed() > STANDS {
            self.doubts.forget();
        }
        // How far it had looked: messages of other rooms may be trimmed before we come back.
        let passed = status.metadata().get("feed-cursor").and_then(|value| value.to_str().ok());
        if let Some(cursor) = passed
            && Cursor::parse(cursor).is_ok_and(|cursor| cursor.seq() >= self.last)
        {
            self.cursor = cursor.to_owned();
        }
        let cause = self.client.weigh(Error::from_status(status).of_read());
        if !(cause.is_retryable() || (self.has_met && cause.passes_once_met())) {
            return Err(cause);
        }
        let cause = self.doubts.weigh(cause)?;
        let retry_in = self.backoff.next_after(&cause);
        self.retry_in = Some(retry_in);
        self.is_interrupted = true;
        self.channel = self.client.fresh_channel();
        Ok(RoomItem::Interrupted { cause, retry_in })
    }
}

/// An event of a room as the server would send it.
fn message(room: &str, event: &Event<'_>) -> pb::Message {
    let from = event.headers.iter().find(|(name, _)| *name == room::FROM);
    let at = event.at.or(event.appended_at);
    pb::Message {
        id: event.id.to_owned(),
        user: from.map_or("", |(_, value)| *value).to_owned(),
        content: match (&event.erased, event.content()) {
            (Some(erased), _) => erased.in_words(),
            (None, Content::Empty) => String::new(),
            (None, Content::Body(text)) => text.to_owned(),
            (None, Content::Data(data)) => String::from_utf8_lossy(data).into_owned(),
        },
        room: room::named(room).to_owned(),
        timestamp: at.map(timestamp),
        r#type: pb::MessageType::Chat.into(),
        seq: event.seq.get(),
        cursor: event.cursor.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_that_cannot_be_read_is_given_up_in_the_end() {
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let mut room = client.room("ops", "", "7");
        let fails = |room: &mut Room| {
            let failed = room.interrupted(Status::internal("cannot decode"));
            assert!(matches!(failed, Ok(RoomItem::Interrupted { .. })), "{failed:?}");
        };
        let message = |seq| pb::Message { seq, cursor: seq.to_string(), ..Default::default() };
        for seq in 8..20 {
            (0..9).for_each(|_| fails(&mut room));
            // Messages get further; the welcome does not.
            let chat = pb::Message { r#type: pb::MessageType::Chat.into(), ..message(seq) };
            assert!(matches!(room.take(chat), Ok(Some(RoomItem::Message(_)))));
        }
        for _ in 0..9 {
            fails(&mut room);
            let welcome = pb::Message { r#type: pb::MessageType::System.into(), ..message(19) };
            assert!(matches!(room.take(welcome), Ok(None)));
        }
        let error = room.interrupted(Status::internal("cannot decode")).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Internal, false));
        // The control: an outage lasts as long as it lasts.
        for _ in 0..1_000 {
            assert!(room.interrupted(Status::unavailable("gone")).is_ok());
        }
    }
}
