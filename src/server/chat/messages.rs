//! Conversions between room events and the messages of both services; what `convert.rs` is for the
//! feed.
//!
//! Knows no streams. An incoming message is validated here before it becomes an event.

use std::sync::Arc;

use crate::server::rpc::convert::{from_timestamp, timestamp};
use crate::server::rpc::status::{self, Failure};
use tailmark_log::eventlog::Batch;
use tailmark_record::room::{self, FROM};
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{Content, Event, InvalidEvent, Limits, Timestamp};
use tailmark_wire::{chat as chat_pb, feed_v1 as feed_pb};

/// Most bytes that an event has beside the texts of its message: topic, type, names, times, cursor.
const ASIDE_BYTES: usize = 1_024;

/// A room, by name and by topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) name: Arc<str>,
    pub(super) topic: Arc<str>,
}

impl Room {
    /// The room that a client names.
    pub(super) fn read(name: &str, limits: &Limits) -> Result<Room, Failure> {
        let topic = room::topic(name);
        if topic.len() > limits.topic_bytes {
            return Err(status::over_limit("room", limits.topic_bytes, topic.len()));
        }
        let room = Room { name: room::named(name).into(), topic: topic.into() };
        room.pattern(limits)?;
        Ok(room)
    }

    fn pattern(&self, limits: &Limits) -> Result<Pattern, Failure> {
        Pattern::parse(&self.topic, limits).map_err(|problem| status::bad_text("room", &problem))
    }

    /// Selects the messages of these rooms.
    pub(super) fn filter<'a>(
        rooms: impl Iterator<Item = &'a Room>,
        limits: &Limits,
    ) -> Result<Filter, Failure> {
        Ok(Filter::new(rooms.map(|room| room.pattern(limits)).collect::<Result<_, _>>()?))
    }
}

/// A message on its way in.
pub(super) struct Said<'a> {
    pub(super) id: &'a str,
    pub(super) from: &'a str,
    pub(super) text: &'a str,
    pub(super) at: Option<prost_types::Timestamp>,
}

impl Said<'_> {
    /// Adds it to a batch. `time_field` is what its dialect calls `at`.
    pub(super) fn push(
        &self,
        room: &Room,
        batch: &mut Batch,
        time_field: &'static str,
    ) -> Result<(), Failure> {
        let event = Event {
            id: self.id,
            topic: &room.topic,
            body: self.text,
            at: self.at.map(from_timestamp),
            kind: room::MESSAGE,
            headers: if self.from.is_empty() { Vec::new() } else { vec![(FROM, self.from)] },
            ..Event::default()
        };
        batch.push(&event).map_err(|InvalidEvent { field, problem }| {
            let field = if field == "at" { time_field } else { field };
            status::invalid_event(&InvalidEvent { field, problem })
        })
    }
}

/// Checks who speaks or listens.
pub(super) fn check_user(field: &'static str, name: &str, limits: &Limits) -> Result<(), Failure> {
    if name.len() > limits.name_bytes {
        return Err(status::over_limit(field, limits.name_bytes, name.len()));
    }
    Ok(())
}

/// Checks what every message of `chat.ChatService` must have.
pub(super) fn check_said(user: &str, content: &str, limits: &Limits) -> Result<(), Failure> {
    for (field, value) in [("user", user), ("content", content)] {
        if value.is_empty() {
            return Err(status::bad_field(field, "must not be empty"));
        }
    }
    check_user("user", user, limits)
}

/// Which service's messages a stream speaks.
pub(crate) trait Dialect: Send + Unpin + 'static {
    /// One of them.
    type Message: Send + Unpin + 'static;

    /// What somebody said.
    fn message(room: &str, event: &Event<'_>) -> Self::Message;

    /// To the sender, in its place.
    fn confirmation(room: &str, event: &Event<'_>) -> Self::Message;

    /// Somebody came or left.
    fn presence(room: &str, user: &str, came: bool) -> Self::Message;

    /// A sign of life.
    fn heartbeat() -> Self::Message;
}

fn presence_text(came: bool) -> String {
    if came { "joined the room" } else { "left the room" }.to_owned()
}

fn from_of<'a>(event: &Event<'a>) -> &'a str {
    event.headers.iter().find(|(name, _)| *name == FROM).map_or("", |(_, value)| *value)
}

/// Binary content shows where it is text.
fn text_of(event: &Event<'_>) -> String {
    if let Some(erased) = &event.erased {
        return erased.in_words();
    }
    if event.is_notice() {
        let body = serde_json::from_str::<serde_json::Value>(event.body).unwrap_or_default();
        let reason = body.get("reason").and_then(|it| it.as_str()).unwrap_or_default();
        return format!("messages of this room were erased: {reason}");
    }
    match event.content() {
        Content::Empty => String::new(),
        Content::Body(text) => text.to_owned(),
        Content::Data(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn now() -> Option<prost_types::Timestamp> {
    Some(timestamp(Timestamp::now()))
}

/// `feed.v1.ChatMessage`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedDialect;

impl FeedDialect {
    /// Checks a message, but for its room.
    pub(super) fn check(message: &feed_pb::ChatMessage, limits: &Limits) -> Result<(), Failure> {
        match feed_pb::chat_message::Kind::try_from(message.kind) {
            Ok(feed_pb::chat_message::Kind::Message) => {}
            Ok(_) => return Err(status::bad_field("kind", "clients send MESSAGE only")),
            Err(_) => {
                return Err(status::bad_field("kind", "is not a value that this server knows"));
            }
        }
        check_user("from", &message.from, limits)
    }

    /// Most bytes that it takes in the store.
    pub(super) fn stored_bytes(message: &feed_pb::ChatMessage) -> usize {
        ASIDE_BYTES + message.text.len() + message.from.len()
    }
}

impl Dialect for FeedDialect {
    type Message = feed_pb::ChatMessage;

    fn message(room: &str, event: &Event<'_>) -> feed_pb::ChatMessage {
        use feed_pb::chat_message::Kind;
        let is_notice = event.is_notice();
        feed_pb::ChatMessage {
            from: if is_notice { "server" } else { from_of(event) }.to_owned(),
            text: text_of(event),
            room: room.to_owned(),
            at: event.at.map(timestamp),
            seq: event.seq.get(),
            cursor: event.cursor.to_owned(),
            kind: if is_notice { Kind::System } else { Kind::Message }.into(),
            after_cursor: String::new(),
        }
    }

    fn confirmation(room: &str, event: &Event<'_>) -> feed_pb::ChatMessage {
        feed_pb::ChatMessage {
            from: "server".to_owned(),
            text: format!("echo: {}", text_of(event)),
            kind: feed_pb::chat_message::Kind::System.into(),
            ..FeedDialect::message(room, event)
        }
    }

    fn presence(room: &str, user: &str, came: bool) -> feed_pb::ChatMessage {
        use feed_pb::chat_message::Kind;
        feed_pb::ChatMessage {
            from: user.to_owned(),
            text: presence_text(came),
            room: room.to_owned(),
            at: now(),
            kind: if came { Kind::Join } else { Kind::Leave }.into(),
            ..Default::default()
        }
    }

    fn heartbeat() -> feed_pb::ChatMessage {
        feed_pb::ChatMessage {
            from: "server".to_owned(),
            at: now(),
            kind: feed_pb::chat_message::Kind::System.into(),
            ..Default::default()
        }
    }
}

/// `chat.Message`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChatDialect;

impl ChatDialect {
    /// Checks a message of `user`, but for its room.
    pub(super) fn check(
        message: &chat_pb::Message,
        user: &str,
        limits: &Limits,
    ) -> Result<(), Failure> {
        match chat_pb::MessageType::try_from(message.r#type) {
            Ok(chat_pb::MessageType::Chat) => {}
            Ok(_) => return Err(status::bad_field("type", "clients send CHAT only")),
            Err(_) => {
                return Err(status::bad_field("type", "is not a value that this server knows"));
            }
        }
        check_said(user, &message.content, limits)
    }

    /// Adds a message of `user` that was checked.
    pub(super) fn push(
        message: &chat_pb::Message,
        user: &str,
        room: &Room,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let said =
            Said { id: &message.id, from: user, text: &message.content, at: message.timestamp };
        said.push(room, batch, "timestamp")
    }

    /// Most bytes that it takes in the store.
    pub(super) fn stored_bytes(message: &chat_pb::Message) -> usize {
        ASIDE_BYTES + message.content.len() + message.user.len() + message.id.len()
    }

    /// The first message of a subscription.
    pub(super) fn welcome(room: &str, user: &str, cursor: String) -> chat_pb::Message {
        let content = match user {
            "" => format!("Welcome to room {room}!"),
            user => format!("Welcome to room {room}, {user}!"),
        };
        chat_pb::Message {
            id: "system".to_owned(),
            user: "System".to_owned(),
            content,
            room: room.to_owned(),
            timestamp: now(),
            r#type: chat_pb::MessageType::System.into(),
            seq: 0,
            cursor,
        }
    }
}

impl Dialect for ChatDialect {
    type Message = chat_pb::Message;

    fn message(room: &str, event: &Event<'_>) -> chat_pb::Message {
        chat_pb::Message {
            id: event.id.to_owned(),
            user: if event.is_notice() { "Server" } else { from_of(event) }.to_owned(),
            content: text_of(event),
            room: room.to_owned(),
            timestamp: event.at.map(timestamp),
            r#type: match event.is_notice() {
                true => chat_pb::MessageType::System.into(),
                false => chat_pb::MessageType::Chat.into(),
            },
            seq: event.seq.get(),
            cursor: event.cursor.to_owned(),
        }
    }

    fn confirmation(room: &str, event: &Event<'_>) -> chat_pb::Message {
        chat_pb::Message {
            id: format!("echo_{}", event.id),
            user: "Server".to_owned(),
            content: format!("Echo: {}", text_of(event)),
            timestamp: event.appended_at.map(timestamp),
            r#type: chat_pb::MessageType::System.into(),
            ..ChatDialect::message(room, event)
        }
    }

    fn presence(room: &str, user: &str, came: bool) -> chat_pb::Message {
        use chat_pb::MessageType::{Join, Leave};
        chat_pb::Message {
            id: "presence".to_owned(),
            user: user.to_owned(),
            content: presence_text(came),
            room: room.to_owned(),
            timestamp: now(),
            r#type: if came { Join } else { Leave }.into(),
            ..Default::default()
        }
    }

    fn heartbeat() -> chat_pb::Message {
        let now = Timestamp::now();
        chat_pb::Message {
            id: format!("server_{}", now.seconds),
            user: "Server".to_owned(),
            content: "Server is alive!".to_owned(),
            timestamp: Some(timestamp(now)),
            r#type: chat_pb::MessageType::System.into(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_an_erasure_is_a_message_of_the_server() {
        let body = r#"{"erasure":"01a2","reason":"a wish","seqs":[[2,2]]}"#;
        let id = "erased-01a2-0-0";
        let notice = Event { id, body, kind: tailmark_record::NOTICE, ..Event::default() };
        let words = "messages of this room were erased: a wish";
        let said = FeedDialect::message("r", &notice);
        assert_eq!((&*said.from, &*said.text), ("server", words));
        assert_eq!(said.kind(), feed_pb::chat_message::Kind::System);
        let said = ChatDialect::message("r", &notice);
        assert_eq!((&*said.user, &*said.content), ("Server", words));
        assert_eq!(said.r#type(), chat_pb::MessageType::System);
        // Anything else is what somebody said.
        let other = Event { kind: room::MESSAGE, ..notice };
        assert_eq!(FeedDialect::message("r", &other).text, body);
    }
}
