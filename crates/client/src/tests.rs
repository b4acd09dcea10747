//! The watch over real sockets, against servers that misbehave in ways a good one does not.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

use super::*;
use tailmark_record::MarkerKind;
use tailmark_wire::feed_v1 as pb;

/// What a server does to one watch.
#[derive(Clone, Debug)]
enum Step {
    Event(u64),
    Marker(MarkerKind, u64),
    Fail(tonic::Code),
    /// Says nothing more and keeps the stream open.
    Hang,
}

/// One script for each attempt, and the requests as they came.
#[derive(Clone, Default)]
struct Script {
    attempts: Arc<Mutex<VecDeque<Vec<Step>>>>,
    requests: Arc<Mutex<Vec<pb::WatchRequest>>>,
}

type Steps = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

impl ServerStreamingService<pb::WatchRequest> for Script {
    type Response = pb::Event;
    type ResponseStream = Steps;
    type Future = std::future::Ready<Result<Response<Steps>, Status>>;

    fn call(&mut self, request: Request<pb::WatchRequest>) -> Self::Future {
        let request = request.into_inner();
        let after = request.after_cursor.clone();
        self.requests.lock().unwrap().push(request);
        let script = self.attempts.lock().unwrap().pop_front().unwrap_or_default();
        let hangs = script.iter().any(|step| matches!(step, Step::Hang));
        let events = script.into_iter().filter_map(|step| match step {
            Step::Event(seq) => {
                let cursor = seq.to_string();
                Some(Ok(pb::Event { topic: "a".into(), seq, cursor, ..pb::Event::default() }))
            }
            Step::Marker(kind, seq) => {
                let number = match kind {
                    MarkerKind::Resumed => 1,
                    MarkerKind::CaughtUp => 2,
                    _ => 4,
                };
                let cursor = seq.to_string();
                let marker =
                    pb::Marker { kind: number, cursor: cursor.clone(), ..pb::Marker::default() };
                Some(Ok(pb::Event { cursor, marker: Some(marker), ..pb::Event::default() }))
            }
            Step::Fail(code) => Some(Err(Status::new(code, "as told"))),
            Step::Hang => None,
        });
        let events = tokio_stream::iter(events);
        let steps: Steps = if hangs {
            Box::pin(tokio_stream::StreamExt::chain(events, tokio_stream::pending()))
        } else {
            Box::pin(events)
        };
        let mut response = Response::new(steps);
        let start = if after.is_empty() { "0".to_owned() } else { after };
        response.metadata_mut().insert("feed-cursor", start.parse().unwrap());
        response.metadata_mut().insert("feed-head", "9".parse().unwrap());
        std::future::ready(Ok(response))
    }
}

/// The same script in batches: events that follow each other share a message.
#[derive(Clone)]
struct Batched(Script);

type Batches = Pin<Box<dyn Stream<Item = Result<pb::EventBatch, Status>> + Send>>;

impl ServerStreamingService<pb::WatchRequest> for Batched {
    type Response = pb::EventBatch;
    type ResponseStream = Batches;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Batches>, Status>> + Send>>;

    fn call(&mut self, request: Request<pb::WatchRequest>) -> Self::Future {
        let single = self.0.call(request);
        Box::pin(async move {
            Ok(single.await?.map(|mut single| -> Batches {
                let mut after = None;
                Box::pin(poll_stream(move |cx| {
                    if let Some(after) = after.take() {
                        return Poll::Ready(Some(after));
                    }
                    let mut batch = pb::EventBatch::default();
                    loop {
                        match single.as_mut().poll_next(cx) {
                            Poll::Ready(Some(Ok(event))) => match event.marker {
                                None => batch.events.push(event),
                                Some(marker) => {
                                    let marker = Some(marker);
                                    let marker = pb::EventBatch { events: Vec::new(), marker };
                                    after = Some(Ok(marker));
                                }
                            },
                            Poll::Ready(Some(Err(status))) => after = Some(Err(status)),
                            Poll::Ready(None) if batch.events.is_empty() => {
                                return Poll::Ready(None);
                            }
                            Poll::Pending if batch.events.is_empty() => return Poll::Pending,
                            Poll::Ready(None) | Poll::Pending => {
                                return Poll::Ready(Some(Ok(batch)));
                            }
                        }
                        if after.is_some() {
                            return Poll::Ready(match batch.events.is_empty() {
                                true => after.take(),
                                false => Some(Ok(batch)),
                            });
                        }
                    }
                }))
            }))
        })
    }
}

fn poll_stream<T>(
    poll: impl FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin,
) -> impl Stream<Item = T> {
    struct PollStream<F>(F);
    impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for PollStream<F> {
        type Item = T;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
            (self.0)(cx)
        }
    }
    PollStream(poll)
}

/// With batches, or as a server of before.
#[derive(Clone)]
struct Fake(Script, bool);

impl NamedService for Fake {
    const NAME: &'static str = "feed.v1.FeedService";
}

impl tower::Service<HttpRequest<Body>> for Fake {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let Fake(script, has_batches) = self.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/WatchBatches") {
                if !has_batches {
                    return Ok(Status::unimplemented("no such method").into_http());
                }
                let codec = tonic_prost::ProstCodec::<pb::EventBatch, pb::WatchRequest>::default();
                return Ok(Grpc::new(codec).server_streaming(Batched(script), request).await);
            }
            assert!(!has_batches, "asked for single events in vain");
            let codec = tonic_prost::ProstCodec::<pb::Event, pb::WatchRequest>::default();
            Ok(Grpc::new(codec).server_streaming(script, request).await)
        })
    }
}

async fn serve(has_batches: bool, attempts: &[&[Step]]) -> (Client, Script) {
    let script = Script::default();
    *script.attempts.lock().unwrap() = attempts.iter().map(|steps| steps.to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(Fake(script.clone(), has_batches));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (Client::new(&addr).unwrap(), script)
}

fn options() -> WatchOptions {
    WatchOptions {
        start: Start::Oldest,
        shortest_retry: Duration::from_millis(1),
        longest_retry: Duration::from_millis(5),
        ..WatchOptions::default()
    }
}

async fn next(watch: &mut Watch) -> Option<Result<Item, Error>> {
    let item = poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx));
    tokio::time::timeout(Duration::from_secs(30), item).await.unwrap()
}

async fn seq(watch: &mut Watch) -> u64 {
    match next(watch).await {
        Some(Ok(Item::Event(event))) => {
            assert_eq!(event.cursor(), event.seq().to_string());
            assert_eq!(event.event().unwrap().topic, "a");
            event.seq().get()
        }
        other => panic!("{other:?}"),
    }
}

async fn interrupted(watch: &mut Watch) -> Kind {
    match next(watch).await {
        Some(Ok(Item::Interrupted { cause, .. })) => cause.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_failure_of_the_server_is_bridged() {
    for has_batches in [false, true] {
        let (client, script) = serve(
            has_batches,
            &[
                &[Step::Event(1), Step::Event(2), Step::Fail(tonic::Code::Unavailable)],
                &[Step::Marker(MarkerKind::Resumed, 2), Step::Event(3)],
                &[Step::Event(4), Step::Hang],
            ],
        )
        .await;
        let mut watch = client.watch(WatchOptions { limit: 4, ..options() });
        assert_eq!(watch.cursor(), None);
        assert_eq!((seq(&mut watch).await, seq(&mut watch).await), (1, 2));
        assert_eq!(watch.cursor(), Some("2"));
        assert_eq!(interrupted(&mut watch).await, Kind::Unavailable);
        assert_eq!(seq(&mut watch).await, 3);
        // The second attempt ended in order, though nobody asked it to.
        assert_eq!(interrupted(&mut watch).await, Kind::Unavailable);
        assert_eq!(seq(&mut watch).await, 4);
        let requests = script.requests.lock().unwrap();
        let asked: Vec<_> = requests.iter().map(|r| (r.after_cursor.as_str(), r.limit)).collect();
        assert_eq!(asked, [("", 4), ("2", 2), ("3", 1)]);
        assert!(requests.iter().all(|r| r.markers));
        assert!(requests[0].start.is_some() && requests[1].start.is_none());
    }
}

#[tokio::test]
async fn a_hole_is_a_final_error() {
    for has_batches in [false, true] {
        let (client, _) = serve(has_batches, &[&[Step::Event(1), Step::Event(3)]]).await;
        let mut watch = client.watch(options());
        assert_eq!(seq(&mut watch).await, 1);
        match next(&mut watch).await {
            Some(Err(error)) => assert_eq!(error.kind(), Kind::Protocol),
            other => panic!("{other:?}"),
        }
        assert!(next(&mut watch).await.is_none());
        assert_eq!(watch.cursor(), Some("1"));
    }
}

#[tokio::test]
async fn silence_is_found_out() {
    for has_batches in [false, true] {
        let (client, script) = serve(
            has_batches,
            &[
                &[Step::Event(1), Step::Hang],
                &[Step::Event(2), Step::Marker(MarkerKind::CaughtUp, 2), Step::Hang],
            ],
        )
        .await;
        let heartbeat = Duration::from_secs(1);
        let mut watch = client.watch(WatchOptions { markers: true, heartbeat, ..options() });
        assert_eq!(seq(&mut watch).await, 1);
        // Only now, so that connecting does not race against a clock that jumps.
        tokio::time::pause();
        assert_eq!(interrupted(&mut watch).await, Kind::Timeout);
        tokio::time::resume();
        assert_eq!(seq(&mut watch).await, 2);
        assert!(matches!(
            next(&mut watch).await,
            Some(Ok(Item::Marker(marker))) if marker.kind == MarkerKind::CaughtUp
        ));
        assert_eq!(script.requests.lock().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_server_that_takes_a_watch_and_never_answers_is_left() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("http://{}", silent.local_addr().unwrap());
    let heartbeat = Duration::from_secs(1);
    let mut watch = Client::new(&addr).unwrap().watch(WatchOptions { heartbeat, ..options() });
    for _ in 0..2 {
        let _socket = tokio::select! {
            item = next(&mut watch) => panic!("{item:?}"),
            taken = silent.accept() => taken.unwrap(),
        };
        // Only now, so that connecting does not race against a clock that jumps.
        tokio::time::pause();
        assert_eq!(interrupted(&mut watch).await, Kind::Timeout);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart() {
    // Bound, so that nobody else gets the port, and not listening.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = format!("http://{}", silent.local_addr().unwrap());
    let client = Client::new(&addr).unwrap();
    let error = client.log().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connect);
    assert!(error.is_retryable() && !error.may_have_applied());
    let mut watch = client.watch(WatchOptions { waits_for_server: false, ..options() });
    assert!(matches!(next(&mut watch).await, Some(Err(error)) if error.kind() == Kind::Connect));
    let mut watch = client.watch(options());
    assert_eq!(interrupted(&mut watch).await, Kind::Connect);
    assert_eq!(interrupted(&mut watch).await, Kind::Connect);
}

#[tokio::test]
async fn addresses_are_checked() {
    for bad in ["", "localhost:1", "ftp://x:1", "https://", "http://", "http://x:1/path"] {
        assert_eq!(Client::new(bad).unwrap_err().kind(), Kind::InvalidRequest, "{bad:?}");
    }
    for good in ["http://127.0.0.1:1", "http://[::1]:1/", "http://localhost:1", "https://x:1"] {
        assert!(Client::new(good).is_ok(), "{good:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("http://{}", silent.local_addr().unwrap());
    let options = Options { read_timeout: Duration::from_millis(50), ..Options::default() };
    let client = Client::with_options(&addr, options).unwrap();
    let error = client.log().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(!error.may_have_applied(), "a read changes nothing");
    drop(silent);
}
