//! Single calls, and the upload.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Response, Status};

use super::channel::Channel;
use super::raw::Raw;
use super::{Client, Error, Kind};
use pb::feed_service_client::FeedServiceClient;
use tailmark_record::Seq;
use tailmark_record::moment::Moment;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::methods::feed_service;
use tailmark_wire::values::timestamp;

/// A condition on a publish: store only if the last seq is still this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Of this topic; empty = of the whole log.
    pub topic: String,
    /// 0 = there is none yet.
    pub seq: Seq,
}

impl Client {
    /// Stores one event, by default of 1 MiB at most; answers once it is durable. With `expect` only
    /// if the last event, of the log or of a topic, is still the one named:
    ///
    /// ```
    /// use tailmark_client::{Client, Expect, Kind, Seq};
    /// use tailmark_client::feed_v1::Event;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = tailmark::testing::serve().await?;
    /// # let address = server.url();
    /// let client = Client::new(&address)?;
    /// let topic = "accounts.7";
    /// let event = |body: &str| Event { topic: topic.into(), body: body.into(), ..Event::default() };
    /// let expect = |seq| Some(Expect { topic: topic.into(), seq: Seq::new(seq) });
    ///
    /// // Two have read the account when nothing was in it, and both want to write: one may.
    /// let first = client.publish(event("deposit 5"), expect(0)).await?;
    /// let error = client.publish(event("deposit 7"), expect(0)).await.unwrap_err();
    /// assert_eq!((error.kind(), error.reason()), (Kind::Conflict, "HEAD_MOVED"));
    ///
    /// // The other looks at what has come, and tries again on top of that.
    /// let actual: u64 = error.metadata("actual").unwrap_or_default().parse()?;
    /// assert_eq!(actual, first.seq);
    /// client.publish(event("deposit 7"), expect(actual)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::Conflict`] when the expectation is lost. [`Error::may_have_applied`] says whether the
    /// event may be stored all the same. With an id it may simply be sent again: a repeat is not
    /// stored twice, and answered as [`duplicate`](pb::PublishResult::duplicate).
    pub async fn publish(
        &self,
        event: pb::Event,
        expect: Option<Expect>,
    ) -> Result<pb::PublishResult, Error> {
        let expected_head = expect.map(|e| pb::ExpectedHead { topic: e.topic, seq: e.seq.get() });
        let request = pb::PublishRequest { event: Some(event), expected_head };
        self.write(request, async |mut feed, request| feed.publish(request).await).await
    }

    /// One event, by seq.
    ///
    /// # Errors
    /// [`Kind::Gone`] when it was trimmed, [`Kind::NotFound`] beyond the head.
    pub async fn event(&self, seq: Seq) -> Result<pb::Event, Error> {
        let by = Some(pb::get_event_request::By::Seq(seq.get()));
        let request = pb::GetEventRequest { by };
        self.read(request, async |mut feed, request| feed.get_event(request).await).await
    }

    /// One event, by its cursor, which must be of this log and history.
    ///
    /// # Errors
    /// As [`Client::event`]; also [`Kind::Gone`] when it is of another log or history.
    pub async fn event_at(&self, cursor: &str) -> Result<pb::Event, Error> {
        let by = Some(pb::get_event_request::By::Cursor(cursor.to_owned()));
        let request = pb::GetEventRequest { by };
        self.read(request, async |mut feed, request| feed.get_event(request).await).await
    }

    /// Identity, bounds and limits of the log.
    ///
    /// # Errors
    /// As any call.
    pub async fn log(&self) -> Result<pb::LogStatus, Error> {
        let request = pb::GetLogRequest {};
        self.read(request, async |mut feed, request| feed.get_log(request).await).await
    }

    /// Whom the server takes this client for, and what it may: a way to try a token.
    ///
    /// # Errors
    /// As any call.
    pub async fn principal(&self) -> Result<pb::Principal, Error> {
        let request = pb::GetPrincipalRequest {};
        self.read(request, async |mut feed, request| feed.get_principal(request).await).await
    }

    /// Removes the oldest events: every one below a seq, or appended before a time.
    ///
    /// # Errors
    /// As any call. Running it again does no harm.
    pub async fn trim(&self, before: Moment) -> Result<pb::TrimResult, Error> {
        let before = Some(match before {
            Moment::Seq(seq) => pb::trim_request::Before::Seq(seq.get()),
            Moment::Time(time) => pb::trim_request::Before::Time(timestamp(time)),
        });
        let request = pb::TrimRequest { before };
        self.write(request, async |mut feed, request| feed.trim(request).await).await
    }

    /// Sends encoded `feed.v1.Event` messages over `UploadEvents` as the stream yields them, no
    /// faster than the server takes them, and answers once all of them are durable.
    ///
    /// # Errors
    /// An upload is not atomic: what came before the failure may be stored, and then
    /// [`Error::may_have_applied`] is true; `received` and `last_cursor` in [`Error::metadata`] tell
    /// how much where the server said so. Events with ids may simply be sent again.
    pub async fn upload<S>(&self, events: S) -> Result<pb::UploadResult, Error>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        let mut grpc = self.grpc(self.channel());
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static(feed_service::UPLOAD_EVENTS.path);
        let answer = grpc.client_streaming(Request::new(events), path, Raw).await;
        let message = answer.map_err(|status| part_of_upload(Error::from_status(status)))?;
        pb::UploadResult::decode(message.into_inner()).map_err(|error| {
            let what = "the answer to an upload cannot be read";
            Error::new(Kind::Protocol, what).maybe_applied().with_source(error)
        })
    }

    /// A call that changes nothing.
    pub(super) async fn read<M, R, F>(
        &self,
        message: M,
        call: impl FnOnce(FeedServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.unary(message, self.options().read_timeout, call).await.map_err(Error::of_read)
    }

    /// A call that stores or removes something.
    async fn write<M, R, F>(
        &self,
        message: M,
        call: impl FnOnce(FeedServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.unary(message, self.options().request_timeout, call).await
    }

    async fn unary<M, R, F>(
        &self,
        message: M,
        timeout: Duration,
        call: impl FnOnce(FeedServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let feed = self.feed(self.channel());
        let mut request = Request::new(message);
        // The server learns of the deadline; the clock that counts is ours.
        request.set_timeout(timeout);
        match tokio::time::timeout(timeout, call(feed, request)).await {
            Ok(answer) => Ok(answer.map_err(Error::from_status)?.into_inner()),
            Err(_) => {
                let seconds = timeout.as_secs_f32();
                let message = format!("connected, but no answer within {seconds} s");
                Err(Error::new(Kind::Timeout, message).maybe_applied())
            }
        }
    }
}

/// What was received before the failure is stored. A proxy that finds a body too large has passed on
/// what came before.
fn part_of_upload(error: Error) -> Error {
    let has_part = error.metadata("received").is_some_and(|received| received != "0");
    let has_part = has_part || error.http_status() == Some(413);
    if has_part { error.maybe_applied() } else { error }
}

/// Waits for the connection, so that what follows is known to have been sent.
pub(super) async fn ready(grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), Error> {
    grpc.ready().await.map_err(|error| Error::from_status(Status::from_error(error)))
}
