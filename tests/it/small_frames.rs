//! HTTP/2's DATA frames have no cost in its flow control but their payload, so h2 ends a connection
//! on which many small ones pile up unread. Neither a watch that is paused nor an upload that has
//! to wait may come to that. docs/decisions/0004.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use prost::Message;
use seed::feed_service_client::FeedServiceClient;
use tailmark::server::Options;
use tailmark_client as client;
use tailmark_log::eventlog;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_record::Event;
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::seed::feed_v1 as seed;
use crate::support::broken::Broken;
use crate::support::frames;
use crate::support::server::{
    TestServer, Watching, generations, memory, open, start, start_with, until, watch, within,
};

/// Stores events of a few bytes, one at a time: each reaches each watch alone.
async fn trickle(server: &TestServer, watches: u64, events: u64) {
    let reads = || {
        let counters = server.log.status().counters;
        counters.reads_recent + counters.reads_stored
    };
    for at in 0..events {
        let before = reads();
        let id = at.to_string();
        let mut batch = server.log.batch();
        batch.push(&Event { topic: "a", body: "x", id: &id, ..Event::default() }).unwrap();
        server.log.append(batch, eventlog::AppendOptions::default()).await.unwrap();
        // A watch that is stopped by its window reads nothing any more: no use to wait for it.
        for _ in 0..100 {
            if reads() >= before + watches {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// At the default windows of tonic's clients, 2 MiB a stream and 5 MiB a connection.
#[tokio::test]
async fn paused_watches_of_tiny_events_keep_their_connection() {
    let server = start().await;
    let mut client = server.client().await;
    let mut paused: Vec<Watching> = Vec::new();
    for _ in 0..3 {
        paused.push(watch(&mut client, pb::WatchRequest::default()).await.unwrap());
    }
    // More than the windows take, of frames of 256 bytes.
    let events = 7_000;
    trickle(&server, 3, events).await;
    for watching in &mut paused {
        for seq in 1..=events {
            assert_eq!(watching.event().await.seq, seq);
        }
    }
    client.get_log(pb::GetLogRequest {}).await.unwrap();
    assert_eq!((server.gauges.connections(), server.gauges.watches()), (1, 3));
    drop(paused);
    server.stop().await;
}

/// A client made from the first public sketch, with tonic as it comes, and events of 60 bytes.
#[tokio::test]
async fn paused_watches_of_a_seed_client_keep_their_connection() {
    let server = start().await;
    let mut client = FeedServiceClient::new(server.channel().await);
    let request = seed::WatchRequest { topic: "a".into(), after_cursor: String::new() };
    let mut paused = Vec::new();
    for _ in 0..3 {
        paused.push(within("watch", client.watch(request.clone())).await.unwrap().into_inner());
    }
    let events = 7_000;
    trickle(&server, 3, events).await;
    for watching in &mut paused {
        for at in 0..events {
            let event = within("event", watching.message()).await.unwrap().unwrap();
            assert_eq!(event.id, at.to_string());
        }
    }
    // On the connection that there was.
    let uploaded = client.upload_events(tokio_stream::iter([seed::Event {
        topic: "a".into(),
        ..Default::default()
    }]));
    assert_eq!(within("upload", uploaded).await.unwrap().into_inner().received, 1);
    assert_eq!((server.gauges.connections(), server.gauges.watches()), (1, 3));
    drop(paused);
    server.stop().await;
}

/// The same events, each in a frame of its own: what a server does that does not fill its frames.
async fn unfilled(listener: TcpListener, events: u64) {
    let (socket, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(socket).await.unwrap();
    let mut watches = tokio::task::JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let is_batch = request.uri().path().ends_with("/WatchBatches");
        watches.spawn(async move {
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
            for at in 0..events {
                let event = pb::Event { id: at.to_string(), seq: at + 1, ..stored() };
                let message = match is_batch {
                    true => frames::framed(&pb::EventBatch { events: vec![event], marker: None }),
                    false => frames::framed(&event),
                };
                assert!((60..100).contains(&message.len()), "{} bytes", message.len());
                stream.reserve_capacity(message.len());
                while stream.capacity() < message.len() {
                    if poll_fn(|cx| stream.poll_capacity(cx)).await.is_none_or(|room| room.is_err())
                    {
                        return;
                    }
                }
                if stream.send_data(message, false).is_err() {
                    return;
                }
                // Into a frame of its own before the next.
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
    }
}

/// An event as it is stored, but for its id and seq.
fn stored() -> pb::Event {
    let cursor = "teuvwFAAB-Ev0dQAAAAAAAAABs4mN".to_owned();
    let at = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 1 });
    pb::Event { topic: "a".into(), body: "hello".into(), cursor, at, ..pb::Event::default() }
}

/// Null control: without what the server does, both clients lose the connection, and every watch on
/// it at once.
#[tokio::test]
async fn small_frames_that_are_not_filled_cost_both_clients_their_connection() {
    let events = 40_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(unfilled(listener, events));
    let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
    let mut client = FeedServiceClient::new(within("connect", endpoint.connect()).await.unwrap());
    let request = seed::WatchRequest { topic: "a".into(), after_cursor: String::new() };
    let mut paused = Vec::new();
    for _ in 0..3 {
        paused.push(within("watch", client.watch(request.clone())).await.unwrap().into_inner());
    }
    // Nobody reads them, until the connection is gone.
    within("the end of the connection", server).await.unwrap();
    for watching in &mut paused {
        let error = within("the end", async {
            loop {
                match watching.message().await {
                    Ok(event) => assert!(event.is_some(), "a regular end"),
                    Err(status) => break status,
                }
            }
        });
        assert!(format!("{:?}", error.await).contains("too_many_data_frames"));
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(unfilled(listener, events));
    let mut options = client::Options::default();
    options.connection_window_bytes = 1 << 20;
    let client = client::Client::with_options(&url, options).unwrap();
    let mut paused = Vec::new();
    for _ in 0..4 {
        let mut watch = client.watch(client::WatchOptions::default());
        assert!(matches!(item(&mut watch).await, client::Item::Event(_)));
        paused.push(watch);
    }
    within("the end of the connection", server).await.unwrap();
    for watch in &mut paused {
        let cause = within("the end", async {
            loop {
                match item(watch).await {
                    client::Item::Event(_) => {}
                    client::Item::Interrupted { cause, .. } => break cause,
                    other => panic!("{other:?}"),
                }
            }
        });
        assert!(cause.await.to_string().contains("too_many_data_frames"));
    }
}

/// At windows that are worse than its own and sooner full.
#[tokio::test]
async fn paused_watches_of_our_client_keep_their_connection() {
    let server = start().await;
    let mut options = client::Options::default();
    options.connection_window_bytes = 1 << 20;
    let address = format!("http://{}", server.address);
    let client = client::Client::with_options(&address, options).unwrap();
    let mut paused = Vec::new();
    for _ in 0..4 {
        let mut options = client::WatchOptions::default();
        options.markers = true;
        let mut watch = client.watch(options);
        // Resumed, and caught up.
        for _ in 0..2 {
            assert!(matches!(item(&mut watch).await, client::Item::Marker(_)));
        }
        paused.push(watch);
    }
    let events = 1_500;
    trickle(&server, 4, events).await;
    for watch in &mut paused {
        for seq in 1..=events {
            match item(watch).await {
                client::Item::Event(event) => assert_eq!(event.seq().get(), seq),
                other => panic!("{other:?} instead of {seq}"),
            }
        }
    }
    client.log().await.unwrap();
    assert_eq!((server.gauges.connections(), server.gauges.watches()), (1, 4));
    drop(paused);
    server.stop().await;
}

async fn item(watch: &mut client::Watch) -> client::Item {
    let next = poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx));
    within("item", next).await.expect("an item").unwrap()
}

/// What was written to the socket.
struct Counted(TcpStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.0).poll_write(cx, bytes))?;
        self.1.fetch_add(written, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Uploads of a client that gives each message a frame of its own, as the gRPC library of Go does,
/// to a disk that stands still until all windows are full.
async fn uploads_that_wait(streams: usize, topic: &str) {
    let inner = memory(generations(&[1]), MemoryOptions::default());
    let engine = Arc::new(Broken::whole(inner));
    let log = open(engine.clone(), eventlog::Options::default());
    // The sooner it has to wait the better.
    let options = Options { stream_in_flight_bytes: 64 << 10, ..Default::default() };
    let window = options.http2.stream_window_bytes as usize;
    let server = start_with(log, options).await;

    let written = Arc::new(AtomicUsize::new(0));
    let socket = Counted(TcpStream::connect(server.address).await.unwrap(), written.clone());
    let (mut sender, mut connection) = h2::client::handshake(socket).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);

    engine.hold();
    let message = frames::framed(&pb::Event { topic: topic.to_owned(), ..Default::default() });
    // All that the windows take, and as much again.
    let count = 2 * window / message.len();
    let mut uploads = Vec::new();
    for _ in 0..streams {
        sender = sender.ready().await.unwrap();
        let head = frames::head("UploadEvents", &[("content-type", "application/grpc")]);
        let (response, mut stream) = sender.send_request(head, false).unwrap();
        for at in 0..count {
            stream.send_data(message.clone(), at + 1 == count).unwrap();
        }
        uploads.push(response);
    }
    until("full windows", || {
        written.load(Ordering::Relaxed) > streams * window || connection.is_finished()
    })
    .await;
    // What was written before it has been received.
    within("pong", pings.ping(h2::Ping::opaque())).await.expect("the connection was cut");
    let total = (streams * count) as u64;
    assert!(server.head() < total);

    engine.release();
    for response in uploads {
        let mut body = within("response", response).await.unwrap().into_body();
        let answer = within("answer", body.data()).await.unwrap().unwrap();
        let result = pb::UploadResult::decode(answer.slice(5..)).unwrap();
        assert_eq!(result.received, count as i32);
    }
    assert_eq!(server.head(), total);
    server.stop().await;
}

#[tokio::test]
async fn an_upload_of_the_smallest_events_waits_for_a_slow_disk() {
    uploads_that_wait(1, "a").await;
}

#[tokio::test]
async fn several_uploads_of_small_events_wait_for_a_slow_disk() {
    uploads_that_wait(4, "a.topic.of.some.25.letters").await;
}
