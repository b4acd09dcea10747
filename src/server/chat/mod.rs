//! `chat.ChatService`: each call in one line.

mod metrics;

use std::sync::Arc;

use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::generated::chat_service_server::ChatService;
use super::{Shared, status};
use crate::wire::chat as pb;

/// Rooms over one log.
#[derive(Clone)]
pub(super) struct Chat(pub(super) Arc<Shared>);

type Messages = Empty<Result<pb::Message, Status>>;

#[async_trait]
impl ChatService for Chat {
    type SubscribeMessagesStream = Messages;
    type ChatStream = Messages;
    type StreamMetricsStream = metrics::MetricsStream;

    async fn send_message(
        &self,
        _: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        Err(status::unimplemented("SendMessage"))
    }

    async fn subscribe_messages(
        &self,
        _: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Messages>, Status> {
        Err(status::unimplemented("SubscribeMessages"))
    }

    async fn upload_messages(
        &self,
        _: Request<Streaming<pb::Message>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        Err(status::unimplemented("UploadMessages"))
    }

    async fn chat(&self, _: Request<Streaming<pb::Message>>) -> Result<Response<Messages>, Status> {
        Err(status::unimplemented("Chat"))
    }

    async fn stream_metrics(
        &self,
        request: Request<pb::MetricsRequest>,
    ) -> Result<Response<Self::StreamMetricsStream>, Status> {
        metrics::stream_metrics(&self.0, request)
    }
}
