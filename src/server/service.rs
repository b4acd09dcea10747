//! `feed.v1.FeedService`: each call in one line.

use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::server::backup::{self, BackupStream};
use crate::server::chat::{self, FeedDialect, RoomStream, Rooms};
use crate::server::ingest::append::{self, AppendStream};
use crate::server::ingest::erase::{self, EraseStream};
use crate::server::ingest::{publish, trim, upload};
use crate::server::principal::Caller;
use crate::server::read::RetentionStream;
use crate::server::rpc::codec::Encoded;
use crate::server::rpc::deadline;
use crate::server::rpc::generated::feed_service_server::FeedService;
use crate::server::shared::Current;
use crate::server::watch::{self, NoStream};
use crate::server::{Shared, read};
use tailmark_wire::feed_v1 as pb;

/// The feed over one log.
#[derive(Clone)]
pub(crate) struct Feed {
    pub(crate) current: Current,
    /// Its rooms, which are those of the other service.
    pub(crate) chat: Rooms,
}

impl Feed {
    /// Bounds a call with one answer, and logs nothing: its caller gets the whole story.
    fn call<Q, F: Future>(
        shared: &Shared,
        request: Request<Q>,
        work: impl FnOnce(Caller, Q) -> F,
    ) -> Result<deadline::Bounded<F>, Status> {
        let (_, extensions, message) = request.into_parts();
        let caller = shared.auth.caller(&extensions)?;
        let default = shared.options.unary_deadline;
        Ok(deadline::bound(extensions, default, || work(caller, message)))
    }
}

#[async_trait]
impl FeedService for Feed {
    type WatchStream = NoStream;
    type ChatStream = RoomStream<FeedDialect>;
    type AppendStream = AppendStream;
    type WatchBatchesStream = NoStream;
    type BackupStream = BackupStream;
    type EraseStream = EraseStream;
    type GetRetentionStream = RetentionStream;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<NoStream>, Status> {
        let shared = self.current.get();
        watch::watch(&shared, request).await
    }

    async fn upload_events(
        &self,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<pb::UploadResult>, Status> {
        let shared = self.current.get();
        upload::upload(&shared, request).await
    }

    async fn publish(
        &self,
        request: Request<pb::PublishRequest>,
    ) -> Result<Response<pb::PublishResult>, Status> {
        let shared = self.current.get();
        let work = Feed::call(&shared, request, |caller, message| {
            publish::publish(&shared, caller, message)
        })?;
        Ok(Response::new(work.await?))
    }

    async fn get_event(
        &self,
        request: Request<pb::GetEventRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let shared = self.current.get();
        let work = Feed::call(&shared, request, |caller, message| {
            read::get_event(&shared, caller, message)
        })?;
        Ok(Response::new(work.await?))
    }

    async fn get_log(
        &self,
        request: Request<pb::GetLogRequest>,
    ) -> Result<Response<pb::LogStatus>, Status> {
        let shared = self.current.get();
        let work = Feed::call(&shared, request, |caller, _| read::get_log(&shared, caller))?;
        Ok(Response::new(work.await?))
    }

    async fn list_topics(
        &self,
        request: Request<pb::ListTopicsRequest>,
    ) -> Result<Response<pb::ListTopicsResponse>, Status> {
        let shared = self.current.get();
        let work = Feed::call(&shared, request, |caller, message| {
            read::list_topics(&shared, caller, message)
        })?;
        Ok(Response::new(work.await?))
    }

    async fn trim(
        &self,
        request: Request<pb::TrimRequest>,
    ) -> Result<Response<pb::TrimResult>, Status> {
        let shared = self.current.get();
        let work =
            Feed::call(&shared, request, |caller, message| trim::trim(&shared, caller, message))?;
        Ok(Response::new(work.await?))
    }

    async fn get_principal(
        &self,
        request: Request<pb::GetPrincipalRequest>,
    ) -> Result<Response<pb::Principal>, Status> {
        let shared = self.current.get();
        let work =
            Feed::call(
                &shared,
                request,
                |caller, _| async move { Ok(read::get_principal(&caller)) },
            )?;
        Ok(Response::new(work.await?))
    }

    async fn chat(
        &self,
        request: Request<Streaming<pb::ChatMessage>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        chat::chat_of_feed(&self.chat.now(), request).await
    }

    async fn append(
        &self,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<AppendStream>, Status> {
        let shared = self.current.get();
        append::append(&shared, request)
    }

    async fn watch_batches(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<NoStream>, Status> {
        let shared = self.current.get();
        watch::watch_batches(&shared, request).await
    }

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<BackupStream>, Status> {
        let shared = self.current.get();
        backup::backup(&shared, request)
    }

    async fn erase(
        &self,
        request: Request<pb::EraseRequest>,
    ) -> Result<Response<EraseStream>, Status> {
        let shared = self.current.get();
        erase::erase(&shared, request)
    }

    async fn get_retention(
        &self,
        request: Request<pb::GetRetentionRequest>,
    ) -> Result<Response<RetentionStream>, Status> {
        let shared = self.current.get();
        read::get_retention(&shared, request)
    }

    async fn report_progress(
        &self,
        request: Request<pb::ReportProgressRequest>,
    ) -> Result<Response<pb::ReportProgressResult>, Status> {
        let shared = self.current.get();
        let of = &shared;
        let work = Feed::call(of, request, |_, message| async move {
            Ok(watch::report_progress(of, &message))
        })?;
        Ok(Response::new(work.await?))
    }
}
