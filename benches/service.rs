//! The service over loopback and a log in memory: what the wire costs, without a disk.
//!
//! `cargo bench --bench service`. Raw clients neither encode nor decode, so that what is measured
//! is the server and HTTP/2; the others are tonic's as generated.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a benchmark ends where something fails, and counts small numbers"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailmark::server::{Options, serve};
use tailmark_client::raw::Raw;
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::Recovered;
use tailmark_log::storage::memory::{Memory, Options as MemoryOptions};
use tailmark_record::{FingerprintKey, GenerationTable, LogId, Timestamp};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

/// Events of one measured run.
const EVENTS: u64 = 200_000;
/// Of a body that makes an event of about 200 bytes.
const BODY_BYTES: usize = 180;

fn new_log() -> EventLog {
    let generations = GenerationTable::created(1, Timestamp::EPOCH);
    let options = MemoryOptions { chunk_bytes: 4 << 20, ..Default::default() };
    let id = LogId::new(uuid::Uuid::from_u128(7));
    let engine = Memory::new(id, FingerprintKey::new([1; 16]), generations, options);
    // All of a run stays in the cache, as it does for a watcher that keeps up.
    let options = eventlog::Options { recent_bytes: 256 << 20, ..Default::default() };
    EventLog::open(Arc::new(engine), Recovered::default(), options).expect("an empty log opens")
}

async fn start(log: EventLog) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    tokio::spawn(serve(vec![listener], log, Options::default(), stop.clone()));
    (address, stop)
}

async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("a valid address")
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .connect()
        .await
        .expect("a connection")
}

fn event() -> pb::Event {
    pb::Event { topic: "bench.a".into(), body: "x".repeat(BODY_BYTES), ..Default::default() }
}

fn encoded() -> Bytes {
    prost::Message::encode_to_vec(&event()).into()
}

async fn upload_raw(channel: Channel, count: u64) {
    let message = encoded();
    let messages = tokio_stream::iter((0..count).map(move |_| message.clone()));
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let path = "/feed.v1.FeedService/UploadEvents".parse().expect("a path");
    let request = tonic::Request::new(messages);
    grpc.client_streaming(request, path, Raw).await.expect("an upload");
}

async fn upload_prost(channel: Channel, count: u64) {
    let message = event();
    let messages = tokio_stream::iter((0..count).map(move |_| message.clone()));
    FeedServiceClient::new(channel).upload_events(messages).await.expect("an upload");
}

fn watch_request(count: u64) -> pb::WatchRequest {
    pb::WatchRequest {
        start: Some(pb::Start { at: Some(pb::start::At::Oldest(true)) }),
        limit: count as i64,
        ..Default::default()
    }
}

async fn watch_raw(channel: Channel, request: pb::WatchRequest) -> u64 {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let path = "/feed.v1.FeedService/Watch".parse().expect("a path");
    let message = Bytes::from(prost::Message::encode_to_vec(&request));
    let request = tonic::Request::new(tokio_stream::once(message));
    let mut stream = grpc.streaming(request, path, Raw).await.expect("a watch").into_inner();
    let mut count = 0;
    while let Some(event) = stream.next().await {
        count += u64::from(!event.expect("an event").is_empty());
    }
    count
}

async fn watch_prost(channel: Channel, request: pb::WatchRequest) -> u64 {
    let response = FeedServiceClient::new(channel).watch(request).await;
    let mut stream = response.expect("a watch").into_inner();
    let mut count = 0;
    while let Some(event) = stream.next().await {
        count += u64::from(event.expect("an event").seq > 0);
    }
    count
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// Times only the upload: each run has a log of its own.
async fn timed_uploads(runs: u64, raw: bool) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..runs {
        let log = new_log();
        let (address, stop) = start(log.clone()).await;
        let channel = connect(address).await;
        let begin = Instant::now();
        match raw {
            true => upload_raw(channel, EVENTS).await,
            false => upload_prost(channel, EVENTS).await,
        }
        total += begin.elapsed();
        stop.cancel();
        log.close().await.expect("a clean end");
    }
    total
}

fn service(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("service");
    group.sample_size(10).throughput(Throughput::Elements(EVENTS));
    for (name, raw) in [("upload, raw client", true), ("upload, tonic client", false)] {
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter_custom(|runs| timed_uploads(runs, raw));
        });
    }
    let (channel, filtered) = runtime.block_on(async {
        let (address, _stop) = start(new_log()).await;
        let channel = connect(address).await;
        upload_raw(channel.clone(), EVENTS).await;
        (channel, pb::WatchRequest { topic: "bench.*".into(), ..watch_request(EVENTS) })
    });
    for (name, request, raw) in [
        ("watch, raw client", watch_request(EVENTS), true),
        ("watch, tonic client", watch_request(EVENTS), false),
        ("watch filtered, raw client", filtered, true),
    ] {
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let (channel, request) = (channel.clone(), request.clone());
                let count = match raw {
                    true => watch_raw(channel, request).await,
                    false => watch_prost(channel, request).await,
                };
                assert_eq!(count, EVENTS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, service);
criterion_main!(benches);
