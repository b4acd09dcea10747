//! The RPC handlers of rooms: from a request to an answer or a stream. Checks run in the same order
//! as a watch's.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::field::Empty;

use super::Chat;
use super::intake::{self, Begin};
use super::link::{Joined, Link};
use super::messages::{ChatDialect, Dialect, FeedDialect, Room, Said, check_said, check_user};
use super::stream::{Permits, RoomStream, StreamParts};
use crate::server::ingest::upload::{self, Source};
use crate::server::principal::Caller;
use crate::server::quotas::Peer;
use crate::server::rpc::deadline;
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::{convert, trace};
use crate::server::transport::ending::Endings;
use crate::server::{Shared, ingest, watch};
use tailmark_log::eventlog::{AppendOptions, Batch};
use tailmark_record::{Limits, Seq};
use tailmark_wire::{chat as chat_pb, feed_v1 as feed_pb};

/// Stores one message.
pub(super) async fn send(
    shared: &Shared,
    request: Request<chat_pb::SendMessageRequest>,
) -> Result<Response<chat_pb::SendMessageResponse>, Status> {
    let (_, extensions, message) = request.into_parts();
    let caller = shared.auth.caller(&extensions)?;
    let work = async {
        let log = &shared.log;
        let user = caller.speaks_as(&message.user);
        check_said(user, &message.content, log.limits())?;
        let room = Room::read(&message.room, log.limits())?;
        caller.may_publish(&room.topic)?;
        let mut batch = log.batch();
        let said = Said { id: "", from: user, text: &message.content, at: None };
        said.push(&room, &mut batch, "timestamp")?;
        caller.may_store(1, batch.bytes())?;
        let message_id = batch.last_id().unwrap_or_default().to_owned();
        let appended = log
            .append(batch, AppendOptions { dedup: false, expected_head: None, atomic: true })
            .await
            .map_err(|error| ingest::failure(&error, shared.options.retry_delay))?;
        let timestamp = Some(convert::timestamp(appended.appended_at));
        Ok(chat_pb::SendMessageResponse { message_id, timestamp })
    };
    let answer = deadline::bound(extensions, shared.options.unary_deadline, || work).await?;
    Ok(Response::new(answer))
}

/// Stores messages as they arrive.
pub(super) async fn upload(
    shared: &Arc<Shared>,
    request: Request<Streaming<chat_pb::Message>>,
) -> Result<Response<chat_pb::UploadResponse>, Status> {
    let source = Uploaded(shared.log.limits().clone());
    let result = upload::upload_from(shared, request, source).await?;
    let answer = chat_pb::UploadResponse { message_count: result.received, success: true };
    Ok(Response::new(answer))
}

/// Messages to any room.
struct Uploaded(Limits);

impl Source for Uploaded {
    type Message = chat_pb::Message;

    fn options(&self) -> AppendOptions {
        AppendOptions { dedup: false, expected_head: None, atomic: false }
    }

    fn take(
        &mut self,
        message: chat_pb::Message,
        caller: &Caller,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let user = caller.speaks_as(&message.user);
        ChatDialect::check(&message, user, &self.0)?;
        let room = Room::read(&message.room, &self.0)?;
        caller.may_publish(&room.topic)?;
        upload::charged(caller, batch, |batch| ChatDialect::push(&message, user, &room, batch))
    }
}

/// A room to listen to.
pub(super) async fn subscribe(
    chat: &Chat,
    request: Request<chat_pb::SubscribeRequest>,
) -> Result<Response<RoomStream<ChatDialect>>, Status> {
    let shared = &chat.shared;
    let (metadata, extensions, message) = request.into_parts();
    let log = &shared.log;
    not_stopping(shared)?;
    let room = Room::read(&message.room, log.limits())?;
    let caller = shared.auth.caller(&extensions)?;
    caller.may_watch_topic(&room.topic)?;
    let user = caller.listens_as(&message.user);
    check_user("user", user, log.limits())?;
    let cursor = watch::after_cursor(&message.after_cursor, &metadata)?;
    let opening = StreamSetup::new(shared, &extensions)?;
    let start = opening.start(shared, cursor).await?;
    let cursor = log.cursor(start.prev()).await;
    let welcome = ChatDialect::welcome(&room.name, user, cursor);
    let stay = chat.presence.enter(log, &room.name, user);
    let rooms = vec![Joined { room, from: Some(start), stay }];
    let parts = opening.parts(shared, start, "subscription", &metadata);
    let parts = StreamParts { welcome: Some(welcome), rooms, ..parts };
    respond(shared, start, parts).await
}

/// Rooms to speak in.
pub(super) async fn chat(
    chat: &Chat,
    request: Request<Streaming<chat_pb::Message>>,
) -> Result<Response<RoomStream<ChatDialect>>, Status> {
    let shared = &chat.shared;
    let (metadata, extensions, messages) = request.into_parts();
    not_stopping(shared)?;
    let cursor = watch::after_cursor("", &metadata)?;
    let opening = StreamSetup::new(shared, &extensions)?;
    let start = opening.start(shared, cursor).await?;
    let replay = (!cursor.is_empty()).then_some(start);
    let link = Link::new(&shared.log);
    let parts = StreamParts {
        link: Some(Arc::clone(&link)),
        heartbeat: Some(shared.options.chat_heartbeat),
        ..opening.parts(shared, start, "chat", &metadata)
    };
    let (permits, deadline) = (Arc::clone(&opening.permits), opening.deadline);
    let ends = intake::Ends { deadline, caller: opening.caller.clone() };
    let task = intake::run_chat(chat.clone(), link, messages, replay, ends);
    shared.tasks.spawn(async move {
        let _permits = permits;
        task.await;
    });
    respond(shared, start, parts).await
}

/// `feed.v1.FeedService.Chat`.
pub(crate) async fn chat_of_feed(
    chat: &Chat,
    request: Request<Streaming<feed_pb::ChatMessage>>,
) -> Result<Response<RoomStream<FeedDialect>>, Status> {
    let shared = &chat.shared;
    let (metadata, extensions, messages) = request.into_parts();
    not_stopping(shared)?;
    let cursor = watch::after_cursor("", &metadata)?;
    let opening = StreamSetup::new(shared, &extensions)?;
    let start = opening.start(shared, cursor).await?;
    let link = Link::new(&shared.log);
    let parts = opening.parts(shared, start, "feed chat", &metadata);
    let parts = StreamParts { link: Some(Arc::clone(&link)), ..parts };
    let (permits, deadline) = (Arc::clone(&opening.permits), opening.deadline);
    let begin = Begin { cursor: cursor.to_owned(), start };
    let ends = intake::Ends { deadline, caller: opening.caller.clone() };
    let task = intake::run_feed(chat.clone(), link, messages, begin, ends);
    shared.tasks.spawn(async move {
        let _permits = permits;
        task.await;
    });
    respond(shared, start, parts).await
}

fn not_stopping(shared: &Shared) -> Result<(), Failure> {
    if shared.stop.is_cancelled() {
        return Err(status::stopping(shared.options.retry_delay));
    }
    Ok(())
}

/// What every stream needs before it begins.
struct StreamSetup {
    permits: Permits,
    deadline: Option<Instant>,
    peer: Option<Peer>,
    caller: Caller,
}

impl StreamSetup {
    fn new(shared: &Shared, extensions: &http::Extensions) -> Result<StreamSetup, Failure> {
        let (peer, caller) = (extensions.get::<Peer>(), shared.auth.caller(extensions)?);
        Ok(StreamSetup {
            permits: Arc::new(watch::permits(shared, peer, &caller)?),
            deadline: deadline::of(extensions),
            peer: peer.cloned(),
            caller,
        })
    }

    async fn start(&self, shared: &Shared, cursor: &str) -> Result<Seq, Failure> {
        let start = watch::start_after(shared, cursor);
        match self.deadline {
            None => start.await,
            Some(at) => match tokio::time::timeout_at(at, start).await {
                Ok(start) => start,
                Err(_) => Err(status::deadline()),
            },
        }
    }

    fn parts<D: Dialect>(
        &self,
        shared: &Shared,
        start: Seq,
        call: &'static str,
        metadata: &MetadataMap,
    ) -> StreamParts<D> {
        let peer = self.peer.as_ref().map(|peer| tracing::field::display(peer.address));
        let span = tracing::info_span!(
            "room",
            call,
            peer,
            room = Empty,
            start = Empty,
            cursor = Empty,
            events = Empty,
            reason = Empty,
        );
        trace::adopt(&span, metadata);
        StreamParts {
            log: shared.log.clone(),
            start,
            welcome: None,
            link: None,
            rooms: Vec::new(),
            heartbeat: None,
            endings: Endings::new(self.deadline, &shared.stop, self.caller.clone()),
            retry_delay: shared.options.retry_delay,
            permits: Arc::clone(&self.permits),
            open: shared.figures.open(call, None, &span),
            span,
        }
    }
}

/// The headers at once, the stream as it comes.
async fn respond<D: Dialect>(
    shared: &Shared,
    start: Seq,
    parts: StreamParts<D>,
) -> Result<Response<RoomStream<D>>, Status> {
    let mut metadata = MetadataMap::new();
    watch::describe(shared, start, None, &mut metadata).await?;
    let mut response = Response::new(RoomStream::new(parts)?);
    *response.metadata_mut() = metadata;
    Ok(response)
}
