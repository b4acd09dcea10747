//! What the daemons of a log ask each other, on the port of all calls. Only who has the secret of the log is answered;
//! what clients may do was checked where they called. Nothing is passed on from here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::Inner;
use super::peer::MESSAGE_BYTES;
use super::secret::HEADER;
use super::wire::{
    Confirm, ConfirmDone, Failed, Opened, Produce, Produced, Store, Stored, Trim, TrimDone,
};
use tailmark_log::eventlog::{AppendError, Batch, EventLog, Producer};
use tailmark_log::storage::StoreError;
use tailmark_record::Seq;

const NAME: &str = "tailmark.cluster.v1.PeerService";
pub(super) const STORE: &str = "/tailmark.cluster.v1.PeerService/Store";
pub(super) const PRODUCE: &str = "/tailmark.cluster.v1.PeerService/Produce";
pub(super) const TRIM: &str = "/tailmark.cluster.v1.PeerService/Trim";
pub(super) const CONFIRM: &str = "/tailmark.cluster.v1.PeerService/Confirm";
/// Batches of a producer that wait for their turn or for being answered.
const UNDER_WAY: usize = 64;

/// The service, for the routes of a server.
#[derive(Clone)]
pub struct PeerServer(Arc<Inner>);

impl PeerServer {
    pub(super) fn new(inner: Arc<Inner>) -> PeerServer {
        PeerServer(inner)
    }

    fn admits(&self, request: &Request<Body>) -> bool {
        let token = request.headers().get(HEADER);
        token.is_some_and(|token| self.0.secret.admits(token.as_bytes()))
    }
}

impl NamedService for PeerServer {
    const NAME: &'static str = NAME;
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Service<Request<Body>> for PeerServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        if !self.admits(&request) {
            tracing::warn!(target: "audit", "a call for daemons of the log came without its secret");
            return refuse(Status::permission_denied("this is for the daemons of the log"));
        }
        let inner = Arc::clone(&self.0);
        match request.uri().path() {
            STORE => unary(request, move |batch| storing(inner, batch)),
            TRIM => unary(request, move |question| trimming(inner, question)),
            CONFIRM => unary(request, move |_: Confirm| async move {
                ConfirmDone { end: inner.confirm_here().await }
            }),
            PRODUCE => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::<Produced, Produce>::default())
                    .max_decoding_message_size(MESSAGE_BYTES);
                Ok(grpc.streaming(Producing(inner), request).await)
            }),
            _ => refuse(Status::unimplemented("this daemon does not know that")),
        }
    }
}

fn refuse(status: Status) -> Answering {
    Box::pin(async move { Ok(status.into_http()) })
}

/// A question with one answer.
struct Unary<F>(F);

impl<Q, A, F, W> UnaryService<Q> for Unary<F>
where
    F: FnMut(Q) -> W,
    W: Future<Output = A> + Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let work = self.0(request.into_inner());
        Box::pin(async move { Ok(tonic::Response::new(work.await)) })
    }
}

fn unary<Q, A, W>(request: Request<Body>, work: impl FnOnce(Q) -> W + Send + 'static) -> Answering
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
    W: Future<Output = A> + Send + 'static,
{
    Box::pin(async move {
        let mut grpc =
            Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(MESSAGE_BYTES);
        let mut work = Some(work);
        let once = Unary(move |question: Q| {
            let work = work.take().map(|work| work(question));
            async move {
                match work {
                    Some(work) => work.await,
                    // One message comes.
                    None => A::default(),
                }
            }
        });
        Ok(grpc.unary(once, request).await)
    })
}

/// Has a batch stored, if that is done here.
async fn storing(inner: Arc<Inner>, batch: Store) -> Stored {
    match inner.written() {
        Some(log) => {
            // Its sender may go: what was begun is done.
            let stored = tokio::spawn(async move { store(&log, &batch).await }).await;
            stored.unwrap_or_default()
        }
        None => Stored::elsewhere(),
    }
}

/// Stores a batch in a log that is written here.
pub(super) async fn store(log: &EventLog, batch: &Store) -> Stored {
    let made = match made(batch, log) {
        Ok(made) => made,
        Err(failed) => return Stored { failed: Some(*failed), ..Stored::default() },
    };
    let appended = log.append(made, batch.options()).await;
    finished(log, appended).await
}

fn made(batch: &Store, log: &EventLog) -> Result<Batch, Box<Failed>> {
    batch.batch(log).map_err(|invalid| {
        tracing::warn!(%invalid, "another daemon of the log allows events that this one does not");
        let reason = StoreError::Invalid("the daemon that writes has other limits");
        Box::new(Failed::of(&AppendError::Refused(Arc::new(reason))))
    })
}

async fn finished(log: &EventLog, appended: Result<tailmark_log::Appended, AppendError>) -> Stored {
    let appended = match appended {
        // Nothing was stored, and another writes or will.
        Err(AppendError::NotWriter(_) | AppendError::Closing) => return Stored::elsewhere(),
        Ok(done) => {
            let cursor = log.cursor_of(&done).await;
            Ok(tailmark_log::Appended { cursor: Some(cursor.into()), ..done })
        }
        other => other,
    };
    Stored::of(&appended)
}

async fn trimming(inner: Arc<Inner>, question: Trim) -> TrimDone {
    let elsewhere = || TrimDone { is_elsewhere: true, ..TrimDone::default() };
    let Some(log) = inner.written() else { return elsewhere() };
    match log.trim(Seq::new(question.before)).await {
        Err(AppendError::NotWriter(_) | AppendError::Closing) => elsewhere(),
        trimmed => TrimDone::of(&trimmed),
    }
}

/// The stream of a producer.
struct Producing(Arc<Inner>);

type Answers = ReceiverStream<Result<Produced, Status>>;

impl StreamingService<Produce> for Producing {
    type Response = Produced;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Produce>>) -> Self::Future {
        let (inner, questions) = (Arc::clone(&self.0), request.into_inner());
        Box::pin(async move {
            let (answers, answered) = mpsc::channel(UNDER_WAY);
            tokio::spawn(produce(inner, questions, answers));
            Ok(tonic::Response::new(ReceiverStream::new(answered)))
        })
    }
}

async fn produce(
    inner: Arc<Inner>,
    mut questions: Streaming<Produce>,
    answers: mpsc::Sender<Result<Produced, Status>>,
) {
    let Some(Ok(Produce { open: Some(open), .. })) = questions.next().await else { return };
    let say = |opened| Ok(Produced { opened: Some(opened), stored: None });
    let elsewhere = || Opened { is_elsewhere: true, ..Opened::default() };
    let Some(log) = inner.written() else {
        let _ = answers.send(say(elsewhere())).await;
        return;
    };
    let producer = match log.open_producer(&open.id, open.epoch).await {
        Ok(producer) => producer,
        Err(error) => {
            let opened = match error {
                AppendError::NotWriter(_) | AppendError::Closing => elsewhere(),
                error => Opened { failed: Some(Failed::of(&error)), ..Opened::default() },
            };
            let _ = answers.send(say(opened)).await;
            return;
        }
    };
    let opened = Opened {
        epoch: producer.epoch(),
        last_seq: producer.last_seq(),
        last_event: producer.last_event().map_or(0, Seq::get),
        last_cursor: producer.last_cursor().await,
        ..Opened::default()
    };
    if answers.send(say(opened)).await.is_err() {
        return;
    }
    // Answers in the order of the questions, and any number of both on their way.
    let (queued, mut waiting) = mpsc::channel::<Submitted>(UNDER_WAY);
    let of_answers = log.clone();
    let answering = async move {
        while let Some(answer) = waiting.recv().await {
            let stored = match answer {
                Ok(answer) => finished(&of_answers, answer.await).await,
                Err(failed) => Stored { failed: Some(*failed), ..Stored::default() },
            };
            let is_done = stored.done.is_some();
            let said = Produced { opened: None, stored: Some(stored) };
            if answers.send(Ok(said)).await.is_err() || !is_done {
                // Nothing behind it can be stored without it.
                return;
            }
        }
    };
    let taking = async move {
        while let Some(Ok(Produce { seq, batch: Some(batch), .. })) = questions.next().await {
            let answer = submit(&log, &producer, seq, &batch).await;
            if queued.send(answer).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(answering);
    tokio::select! {
        () = &mut answering => {}
        // No more come; those that came are answered.
        () = taking => answering.await,
    }
}

/// A batch that is queued, or why it is not.
type Submitted = Result<tailmark_log::Answer, Box<Failed>>;

async fn submit(log: &EventLog, producer: &Producer, seq: u64, batch: &Store) -> Submitted {
    let made = made(batch, log)?;
    let expected = batch.options().expected_head;
    producer.submit(seq, made, expected).await.map_err(|error| Box::new(Failed::of(&error)))
}
