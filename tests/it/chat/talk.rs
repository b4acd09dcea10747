//! What tests of rooms do again and again.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::seed::chat::chat_service_client::ChatServiceClient;
use crate::seed::feed_v1::feed_service_client::FeedServiceClient;
use crate::seed::{chat, feed_v1 as feed};
use crate::support::server::within;

/// One direction or both of a stream under way.
pub struct Talk<S, R> {
    /// Dropped, it half-closes.
    pub sender: Option<mpsc::UnboundedSender<S>>,
    pub stream: Streaming<R>,
    /// The response headers.
    pub headers: MetadataMap,
}

pub type FeedTalk = Talk<feed::ChatMessage, feed::ChatMessage>;
pub type ChatTalk = Talk<chat::Message, chat::Message>;

impl<S, R> Talk<S, R> {
    pub fn send(&self, message: S) {
        let sender = self.sender.as_ref().expect("half-closed before");
        assert!(sender.send(message).is_ok(), "the stream is gone");
    }

    pub fn half_close(&mut self) {
        self.sender = None;
    }

    pub async fn next(&mut self) -> Result<Option<R>, Status> {
        within("next message", self.stream.message()).await
    }

    pub async fn message(&mut self) -> R {
        self.next().await.unwrap().expect("a message")
    }

    /// All that comes until a regular end, and the trailer `feed-cursor`.
    pub async fn rest(&mut self) -> (Vec<R>, String) {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await.unwrap() {
            messages.push(message);
        }
        let trailers = within("trailers", self.stream.trailers()).await.unwrap().unwrap();
        let cursor = trailers.get("feed-cursor").expect("a trailer feed-cursor");
        (messages, cursor.to_str().unwrap().to_owned())
    }

    /// What comes before the status that ends it, and that status.
    pub async fn failure(&mut self) -> (Vec<R>, Status) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => panic!("a regular end"),
                Err(status) => return (messages, status),
            }
        }
    }

    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap().to_owned()
    }
}

fn with_metadata<T>(message: T, cursor: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !cursor.is_empty() {
        request.metadata_mut().insert("feed-after-cursor", cursor.parse().unwrap());
    }
    request
}

/// A chat of the first sketch, after a cursor if there is one.
pub async fn feed_chat(channel: Channel, cursor: &str) -> Result<FeedTalk, Status> {
    let mut client = FeedServiceClient::new(channel);
    let (sender, receiver) = mpsc::unbounded_channel();
    let request = with_metadata(UnboundedReceiverStream::new(receiver), cursor);
    let (headers, stream, _) = within("chat", client.chat(request)).await?.into_parts();
    Ok(Talk { sender: Some(sender), stream, headers })
}

/// A chat of the second sketch.
pub async fn chat_chat(channel: Channel, cursor: &str) -> Result<ChatTalk, Status> {
    let mut client = ChatServiceClient::new(channel);
    let (sender, receiver) = mpsc::unbounded_channel();
    let request = with_metadata(UnboundedReceiverStream::new(receiver), cursor);
    let (headers, stream, _) = within("chat", client.chat(request)).await?.into_parts();
    Ok(Talk { sender: Some(sender), stream, headers })
}

/// A subscription; its welcome has been taken.
pub async fn subscribe(
    channel: Channel,
    room: &str,
    user: &str,
    cursor: &str,
) -> Result<Talk<(), chat::Message>, Status> {
    let mut client = ChatServiceClient::new(channel);
    let message = chat::SubscribeRequest { room: room.into(), user: user.into() };
    let request = with_metadata(message, cursor);
    let (headers, stream, _) =
        within("subscribe", client.subscribe_messages(request)).await?.into_parts();
    let mut talk = Talk { sender: None, stream, headers };
    let welcome = talk.message().await;
    assert_eq!((welcome.id.as_str(), welcome.user.as_str()), ("system", "System"));
    assert_eq!(welcome.r#type(), chat::MessageType::System);
    assert!(welcome.timestamp.is_some());
    Ok(talk)
}

pub async fn send(channel: Channel, room: &str, user: &str, content: &str) -> String {
    let message =
        chat::SendMessageRequest { user: user.into(), content: content.into(), room: room.into() };
    let mut client = ChatServiceClient::new(channel);
    let answer = within("send", client.send_message(message)).await.unwrap().into_inner();
    assert!(answer.timestamp.unwrap().seconds > 1_600_000_000);
    answer.message_id
}

/// A message of the first sketch.
pub fn say(from: &str, text: &str) -> feed::ChatMessage {
    feed::ChatMessage { from: from.into(), text: text.into() }
}

/// A message of the second sketch.
pub fn said(id: &str, user: &str, content: &str, room: &str) -> chat::Message {
    chat::Message {
        id: id.into(),
        user: user.into(),
        content: content.into(),
        room: room.into(),
        ..Default::default()
    }
}

/// Kind, speaker and text.
pub fn line(message: &chat::Message) -> (chat::MessageType, String, String) {
    (message.r#type(), message.user.clone(), message.content.clone())
}

/// `ErrorInfo` of a status with this code and reason.
#[track_caller]
pub fn refused(
    result: Result<impl Sized, Status>,
    code: tonic::Code,
    reason: &str,
) -> HashMap<String, String> {
    match result {
        Ok(_) => panic!("taken, though {code} {reason} was due"),
        Err(status) => crate::support::server::expect(&status, code, reason),
    }
}
