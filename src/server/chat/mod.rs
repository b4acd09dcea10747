//! Rooms on the log: `chat.ChatService`, and the `Chat` of `feed.v1`.
//!
//! A message is an event of its room's topic, so both services, and every watch, see the same
//! messages in the same order. What goes out is read from the log like a watch (`stream`); what
//! comes in is appended like an upload, by a task of its own (`intake`), so that neither direction
//! waits for the other. What they must know of each other lies in `link`. Who is there is told
//! beside the log and forgotten (`presence`).

mod handlers;
mod intake;
mod link;
mod messages;
mod presence;
mod stream;
mod stream_metrics;

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

pub(super) use handlers::chat_of_feed;
pub(crate) use messages::{ChatDialect, FeedDialect};
pub(crate) use stream::RoomStream;

use presence::Presence;

use crate::server::Shared;
use crate::server::rpc::generated::chat_service_server::ChatService;
use crate::server::shared::Current;
use tailmark_wire::chat as pb;

/// Rooms over one log.
#[derive(Clone)]
pub(super) struct Rooms {
    current: Current,
    /// Who is in which room.
    presence: Presence,
}

impl Rooms {
    pub(super) fn new(current: Current) -> Rooms {
        Rooms { current, presence: Presence::default() }
    }

    /// For one call.
    pub(super) fn now(&self) -> Chat {
        Chat { shared: self.current.get(), presence: self.presence.clone() }
    }
}

/// What a call has of them.
#[derive(Clone)]
pub(super) struct Chat {
    shared: Arc<Shared>,
    presence: Presence,
}

#[async_trait]
impl ChatService for Rooms {
    type SubscribeMessagesStream = RoomStream<ChatDialect>;
    type ChatStream = RoomStream<ChatDialect>;
    type StreamMetricsStream = stream_metrics::MetricsStream;

    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        handlers::send(&self.current.get(), request).await
    }

    async fn subscribe_messages(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<RoomStream<ChatDialect>>, Status> {
        handlers::subscribe(&self.now(), request).await
    }

    async fn upload_messages(
        &self,
        request: Request<Streaming<pb::Message>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        handlers::upload(&self.current.get(), request).await
    }

    async fn chat(
        &self,
        request: Request<Streaming<pb::Message>>,
    ) -> Result<Response<RoomStream<ChatDialect>>, Status> {
        handlers::chat(&self.now(), request).await
    }

    async fn stream_metrics(
        &self,
        request: Request<pb::MetricsRequest>,
    ) -> Result<Response<Self::StreamMetricsStream>, Status> {
        stream_metrics::stream_metrics(&self.current.get(), request)
    }
}
