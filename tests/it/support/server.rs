//! A server on a free port over a log in memory, and what tests ask of it again and again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tailmark::server::{Credentials, Gauges, Options, Peers, ServeError, ServedLog, Server};
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::memory::{Memory, Options as MemoryOptions};
use tailmark_log::storage::{Engine, Recovered};
use tailmark_record::{
    Event, FingerprintKey, Generation, GenerationEntry, GenerationTable, LogId, Seq, Timestamp,
};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, IntoRequest, Status, Streaming};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::port::Port;

/// No test waits longer for anything. Far more than anything takes: machines are slow, and busy with
/// the other tests.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub type Client = FeedServiceClient<Channel>;

pub struct TestServer {
    pub address: SocketAddr,
    /// Kept by who looks at the address after the stop.
    pub port: Port,
    pub log: EventLog,
    pub gauges: Gauges,
    /// Where somebody must say who they are.
    pub credentials: Credentials,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), ServeError>>,
}

pub fn log_id() -> LogId {
    LogId::new(Uuid::from_u128(0x7461_696c_6d61_4b8b_8e4d_1a2b_3c4d_5e6f))
}

/// Generations whose first seqs are these; each has its counter as nonce.
pub fn generations(firsts: &[u64]) -> GenerationTable {
    let entry = |(at, &first): (usize, &u64)| GenerationEntry {
        generation: Generation { counter: at as u16 + 1, nonce: at as u32 + 1 },
        first: Seq::new(first),
        since: Timestamp::EPOCH,
        cause: if at == 0 { "created" } else { "restored" }.to_owned(),
    };
    GenerationTable::new(firsts.iter().enumerate().map(entry).collect()).unwrap()
}

pub fn memory(generations: GenerationTable, options: MemoryOptions) -> Memory {
    Memory::new(log_id(), FingerprintKey::new([7; 16]), generations, options)
}

pub fn open(engine: Arc<dyn Engine>, options: eventlog::Options) -> EventLog {
    EventLog::open(engine, Recovered::default(), options).unwrap()
}

pub fn new_log() -> EventLog {
    let engine = memory(generations(&[1]), MemoryOptions::default());
    open(Arc::new(engine), eventlog::Options::default())
}

/// Everything as by default.
pub async fn start() -> TestServer {
    start_with(new_log(), Options::default()).await
}

pub async fn start_with(log: EventLog, options: Options) -> TestServer {
    start_on(Port::reserve(), log, options).await
}

/// On a port of the caller's, as after a restart.
pub async fn start_on(port: Port, log: EventLog, options: Options) -> TestServer {
    start_server(port, log.clone(), Server::new(log, options).unwrap())
}

/// One of several that share a log; and what changes its handle to it.
pub async fn start_with_peers(log: EventLog, peers: Arc<dyn Peers>) -> (TestServer, ServedLog) {
    let server = Server::with_peers(log.clone(), Options::default(), Some(peers)).unwrap();
    let served = server.served_log();
    (start_server(Port::reserve(), log, server), served)
}

fn start_server(port: Port, log: EventLog, server: Server) -> TestServer {
    let (listener, address) = (port.listen(), port.address);
    let (gauges, credentials) = (server.gauges(), server.credentials());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(vec![listener], shutdown.clone()));
    TestServer { address, port, log, gauges, credentials, shutdown, task }
}

impl TestServer {
    /// A client on a connection of its own.
    pub async fn client(&self) -> Client {
        FeedServiceClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        within("connect", endpoint.connect()).await.unwrap()
    }

    /// Stores events of one topic, past the network.
    pub async fn store(&self, topic: &str, count: u64) {
        for chunk in (0..count).collect::<Vec<_>>().chunks(5_000) {
            let mut batch = self.log.batch();
            for _ in chunk {
                batch.push(&Event { topic, body: "body", ..Event::default() }).unwrap();
            }
            self.log.append(batch, eventlog::AppendOptions::default()).await.unwrap();
        }
    }

    pub fn head(&self) -> u64 {
        self.log.bounds().head.get()
    }

    /// Waits for a read where it takes one, on a thread of its own.
    pub fn cursor(&self, seq: u64) -> String {
        let cursor = self.log.cursor(Seq::new(seq));
        std::thread::scope(|scope| {
            let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
            scope.spawn(move || runtime().block_on(cursor)).join().unwrap()
        })
    }

    pub async fn trim(&self, before: u64) {
        self.log.trim(Seq::new(before)).await.unwrap();
    }

    /// Stops it and waits until it has.
    pub async fn stop(self) {
        self.shutdown.cancel();
        within("stop", self.task).await.unwrap().unwrap();
    }
}

/// Deadlines as `grpc-timeout` says them, each longer than the one before: a test whose deadline came
/// too early on a busy machine takes the next.
pub const DEADLINES: [&str; 5] = ["300m", "1S", "5S", "20S", "60S"];

/// Fails the test rather than hang.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing after {PATIENCE:?}"),
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    within(what, async {
        while !condition() {
            look.tick().await;
        }
    })
    .await;
}

pub fn event(topic: &str, body: &str) -> pb::Event {
    pb::Event { topic: topic.to_owned(), body: body.to_owned(), ..pb::Event::default() }
}

pub fn from_oldest() -> Option<pb::Start> {
    start_at(pb::start::At::Oldest(true))
}

pub fn start_at(at: pb::start::At) -> Option<pb::Start> {
    Some(pb::Start { at: Some(at) })
}

/// A watch under way, by either RPC.
pub struct Watching {
    stream: Events,
    /// The response headers.
    headers: MetadataMap,
}

enum Events {
    Single(Streaming<pb::Event>),
    /// And what came in the last message and was not asked for yet.
    Batches(Streaming<pb::EventBatch>, VecDeque<pb::Event>),
}

impl Watching {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<Option<pb::Event>, Status> {
        let (stream, ready) = match &mut self.stream {
            Events::Single(stream) => return within("next event", stream.message()).await,
            Events::Batches(stream, ready) => (stream, ready),
        };
        if ready.is_empty()
            && let Some(batch) = within("next batch", stream.message()).await?
        {
            assert!(batch.events.is_empty() != batch.marker.is_none(), "events or one marker");
            assert!(batch.events.len() == 1 || batch.encoded_len() <= 2 << 20);
            ready.extend(batch.events);
            ready.extend(batch.marker.map(|marker| pb::Event {
                cursor: marker.cursor.clone(),
                marker: Some(marker),
                ..Default::default()
            }));
        }
        Ok(ready.pop_front())
    }

    async fn trailers(&mut self) -> MetadataMap {
        let trailers = match &mut self.stream {
            Events::Single(stream) => within("trailers", stream.trailers()).await,
            Events::Batches(stream, _) => within("trailers", stream.trailers()).await,
        };
        trailers.unwrap().expect("trailers")
    }

    pub async fn event(&mut self) -> pb::Event {
        let event = self.next().await.unwrap().expect("an event");
        assert!(event.marker.is_none(), "{event:?}");
        event
    }

    pub async fn marker(&mut self) -> pb::Marker {
        let event = self.next().await.unwrap().expect("a marker");
        let marker = event.marker.clone().unwrap_or_else(|| panic!("no marker: {event:?}"));
        assert_eq!(event.cursor, marker.cursor);
        assert_eq!((event.id.as_str(), event.topic.as_str(), event.seq), ("", "", 0));
        marker
    }

    pub async fn expect_marker(&mut self, kind: pb::marker::Kind) -> pb::Marker {
        let marker = self.marker().await;
        assert_eq!(marker.kind(), kind, "{marker:?}");
        marker
    }

    /// All that comes until a regular end, and the trailer `feed-cursor`.
    pub async fn rest(&mut self) -> (Vec<pb::Event>, String) {
        let mut events = Vec::new();
        while let Some(event) = self.next().await.unwrap() {
            events.push(event);
        }
        let trailers = self.trailers().await;
        let cursor = trailers.get("feed-cursor").expect("a trailer feed-cursor");
        (events, cursor.to_str().unwrap().to_owned())
    }

    /// The status that ends it.
    pub async fn failure(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a regular end"),
                Err(status) => return status,
            }
        }
    }
}

pub async fn watch(
    client: &mut Client,
    request: impl IntoRequest<pb::WatchRequest>,
) -> Result<Watching, Status> {
    let response = within("watch", client.watch(request)).await?;
    let (headers, stream, _) = response.into_parts();
    Ok(Watching { stream: Events::Single(stream), headers })
}

pub async fn watch_batches(
    client: &mut Client,
    request: impl IntoRequest<pb::WatchRequest>,
) -> Result<Watching, Status> {
    let response = within("watch", client.watch_batches(request)).await?;
    let (headers, stream, _) = response.into_parts();
    Ok(Watching { stream: Events::Batches(stream, VecDeque::new()), headers })
}

pub fn seqs(events: &[pb::Event]) -> Vec<u64> {
    events.iter().filter(|event| event.marker.is_none()).map(|event| event.seq).collect()
}

/// Checks a status's code and reason, and answers the metadata of its `ErrorInfo`.
#[track_caller]
pub fn expect(status: &Status, code: Code, reason: &str) -> HashMap<String, String> {
    assert_eq!(status.code(), code, "{status:?}");
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no info: {status:?}"));
    assert_eq!(info.domain, "tailmark");
    assert_eq!(info.reason, reason, "{status:?}");
    info.metadata
}

/// The field that a `BadRequest` names.
#[track_caller]
pub fn bad_field(status: &Status) -> String {
    let details = status.get_details_bad_request().unwrap_or_else(|| panic!("{status:?}"));
    details.field_violations[0].field.clone()
}
