//! What one request can cost in memory, whatever it says: a row for each method and path, each with the
//! most that `docs/security.md` says. Requests are as bad as their limits let them be, many of them at
//! once, and nobody reads what is answered.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use tailmark_wire::methods;
use tailmark_wire::{chat, feed_v1 as pb};

use super::memory::{Peak, anonymous_bytes, channel, publishes, start};
use crate::support::daemon::Daemon;
use crate::support::frames::{self, Frames};
use crate::support::server::event;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;

/// Requests at once, on one connection, together with no more than its window.
const AT_ONCE: u32 = 200;
/// Of them, how many may be in gzip.
const GZIP_AT_ONCE: u32 = 32;
const WINDOW_BYTES: usize = 30 << 20;
/// For what is there once, whoever asks.
const SLACK: u64 = 12 << 20;

/// A request, and the most KiB of memory that one of it may cost.
struct Row {
    name: &'static str,
    most: u64,
    request: Request,
}

enum Request {
    /// Messages of a call, and whether more may come.
    Call {
        messages: Vec<u8>,
        is_open: bool,
    },
    Get(String),
    /// The same, with the answer in gzip.
    GetGzip(String),
    /// A body in gzip, after which more may come.
    PostGzip(Vec<u8>),
}

impl Row {
    fn at_once(&self) -> u32 {
        match &self.request {
            Request::Get(_) => AT_ONCE,
            // More answers would go out as they are, more bodies be refused.
            Request::GetGzip(_) | Request::PostGzip(_) => GZIP_AT_ONCE,
            Request::Call { messages, .. } => {
                AT_ONCE.min((WINDOW_BYTES / messages.len()).try_into().unwrap())
            }
        }
    }
}

fn call(name: &'static str, most: u64, message: &impl Message) -> Row {
    let messages = frames::framed(message).to_vec();
    Row { name, most, request: Request::Call { messages, is_open: false } }
}

fn stream(name: &'static str, most: u64, messages: Vec<u8>) -> Row {
    Row { name, most, request: Request::Call { messages, is_open: true } }
}

fn get(name: &'static str, most: u64, path: &str) -> Row {
    Row { name, most, request: Request::Get(path.to_owned()) }
}

/// As many patterns as there may be, as long as they may be, with nothing in common.
fn patterns() -> Vec<String> {
    let pattern = |at: usize| {
        let segments: Vec<_> = (0..31).map(|it| format!("{at:02}{it:05}")).collect();
        format!("{}.*", segments.join("."))
    };
    (0..64).map(pattern).collect()
}

/// More rules than there may be.
fn too_many_rules() -> pb::RetentionRules {
    let rule = pb::RetentionRule { pattern: "a.b.c.d".to_owned(), ..Default::default() };
    pb::RetentionRules { rules: vec![rule; 10_000] }
}

fn watch() -> pb::WatchRequest {
    pb::WatchRequest { topics: patterns(), markers: true, ..Default::default() }
}

/// An event that is nothing but headers.
fn of_headers() -> pb::Event {
    let headers = (0..40_000).map(|at| (format!("{at:x}"), String::new())).collect();
    pb::Event { headers, ..event("a", "") }
}

/// The smallest events there are, in messages of their own.
fn smallest(count: usize) -> Vec<u8> {
    frames::framed(&event("a", "")).repeat(count)
}

/// A producer that is another one in each request.
const PRODUCER: &str = "p0000";

fn append() -> Vec<u8> {
    use pb::append_request::{Batch, Kind, Open};
    let open = Kind::Open(Open { producer_id: PRODUCER.to_owned(), epoch: 0 });
    let events = vec![event("a", ""); 10_000];
    let batch = Kind::Batch(Batch { producer_seq: 1, events, expected_head: None });
    [open, batch]
        .map(|kind| frames::framed(&pb::AppendRequest { kind: Some(kind) }).to_vec())
        .concat()
}

fn said() -> chat::Message {
    let (user, content) = ("u".to_owned(), "x".repeat(100_000));
    chat::Message { user, content, ..Default::default() }
}

fn rows() -> Vec<Row> {
    let feed_said =
        pb::ChatMessage { from: "u".to_owned(), text: "x".repeat(100_000), ..Default::default() };
    let service = tonic_health::pb::HealthCheckRequest { service: "readiness".to_owned() };
    let files = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::FileContainingSymbol(
                "feed.v1.FeedService".to_owned(),
            ),
        ),
    };
    let files = frames::framed(&files).repeat(100);
    vec![
        call("/feed.v1.FeedService/Watch", 128, &watch()),
        call("/feed.v1.FeedService/WatchBatches", 128, &watch()),
        stream("/feed.v1.FeedService/UploadEvents", 768, smallest(10_000)),
        stream("/feed.v1.FeedService/Append", 768, append()),
        call(
            "/feed.v1.FeedService/Publish",
            512,
            &pb::PublishRequest { event: Some(of_headers()), ..Default::default() },
        ),
        call(
            "/feed.v1.FeedService/GetEvent",
            512,
            &pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(1)) },
        ),
        call("/feed.v1.FeedService/GetLog", 64, &pb::GetLogRequest {}),
        call(
            "/feed.v1.FeedService/ListTopics",
            64,
            &pb::ListTopicsRequest { page_size: 1_000, patterns: patterns(), ..Default::default() },
        ),
        call("/feed.v1.FeedService/Trim", 64, &pb::TrimRequest::default()),
        call("/feed.v1.FeedService/GetPrincipal", 64, &pb::GetPrincipalRequest {}),
        call(
            "/feed.v1.FeedService/Backup",
            128,
            &pb::BackupRequest { has: vec![1; 64_000].into() },
        ),
        call(
            "/feed.v1.FeedService/Erase",
            128,
            &pb::EraseRequest { seqs: vec![pb::SeqRange::default(); 40_000], ..Default::default() },
        ),
        call(
            "/feed.v1.FeedService/GetRetention",
            128,
            &pb::GetRetentionRequest { dry_run: true, rules: Some(too_many_rules()) },
        ),
        call(
            "/feed.v1.FeedService/ReportProgress",
            64,
            &pb::ReportProgressRequest { watch: format!("a~{}", "1".repeat(32)), done: u64::MAX },
        ),
        stream("/feed.v1.FeedService/Chat", 1_024, frames::framed(&feed_said).repeat(4)),
        call(
            "/chat.ChatService/SendMessage",
            768,
            &chat::SendMessageRequest {
                user: "u".to_owned(),
                content: "x".repeat(450_000),
                ..Default::default()
            },
        ),
        call(
            "/chat.ChatService/SubscribeMessages",
            64,
            &chat::SubscribeRequest { user: "u".to_owned(), ..Default::default() },
        ),
        stream("/chat.ChatService/UploadMessages", 768, frames::framed(&said()).repeat(4)),
        stream("/chat.ChatService/Chat", 768, frames::framed(&said()).repeat(4)),
        call("/chat.ChatService/StreamMetrics", 64, &chat::MetricsRequest::default()),
        call("/grpc.health.v1.Health/Check", 64, &service),
        call("/grpc.health.v1.Health/Watch", 64, &service),
        stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 96, files.clone()),
        stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", 96, files),
        get("/healthz", 64, "/healthz"),
        get("/readyz", 64, "/readyz"),
        get("/metrics", 64, "/metrics"),
        get("/openapi.json", 64, "/openapi.json"),
        get("/v1/watch", 96, &format!("/v1/watch?topic={}", patterns()[..50].join("&topic="))),
        get("/v1/watch, from the oldest", 768, "/v1/watch?from=oldest"),
        get("/v1/events/{seq}", 512, "/v1/events/1"),
        get("/v1/history", 96, "/v1/history"),
        get("/v1/log", 64, "/v1/log"),
        get("/v1/principal", 64, "/v1/principal"),
        get("/v1/topics", 768, "/v1/topics?page_size=1000"),
        get("/", 64, "/"),
        get_gzip("/v1/topics, in gzip", 1_152, "/v1/topics?page_size=1000"),
        get_gzip("/v1/events/{seq}, in gzip", 1_536, "/v1/events/1"),
        get_gzip("/v1/watch, in gzip", 3_584, "/v1/watch?from=oldest"),
        get_gzip("/metrics, in gzip", 448, "/metrics"),
        Row {
            name: "POST /v1/events, in gzip",
            most: 1_280,
            request: Request::PostGzip(swelling()),
        },
    ]
}

fn get_gzip(name: &'static str, most: u64, path: &str) -> Row {
    Row { name, most, request: Request::GetGzip(path.to_owned()) }
}

/// A line that is short as it is sent and long as it is, and does not end.
fn swelling() -> Vec<u8> {
    let line = format!("{{\"topic\":\"a\",\"body\":\"{}", "x".repeat(1_000_000));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(line.as_bytes()).unwrap();
    encoder.flush().unwrap();
    encoder.get_ref().clone()
}

/// A daemon with an event of almost 1 MiB and a thousand topics.
async fn filled(dir: &std::path::Path) -> Daemon {
    let daemon = start(dir, "TAILMARK_STORAGE_SLOT_BYTES=16MiB TAILMARK_LOG_RECENT_BYTES=1MiB");
    let mut client = FeedServiceClient::new(channel(&daemon).await);
    let large = [event("large", &"\u{1}".repeat(1_000_000))];
    let topics = (0..1_000).map(|at| event(&format!("{at:0100}.{}", "x".repeat(100)), ""));
    let events = large.into_iter().chain(topics);
    client.upload_events(tokio_stream::iter(events.collect::<Vec<_>>())).await.unwrap();
    daemon
}

/// Sends it as often at once as there is on one connection, and reads nothing but what shows that it was heard.
async fn attack(daemon: &Daemon, row: &Row) -> Frames {
    let mut connection = Frames::connect(daemon.address()).await;
    // Its windows are open once it knows that we have seen its settings.
    for before in [Vec::new(), frames::frame(frames::SETTINGS, 1, 0, &[])] {
        connection.write(&[before, frames::ping()].concat()).await;
        connection.next_of(&[frames::PING]).await;
    }
    let authority = format!("localhost:{}", daemon.address().port());
    for at in 0..row.at_once() {
        let stream = 1 + 2 * at;
        match &row.request {
            Request::Get(path) => connection.write(&frames::get(stream, &authority, path)).await,
            Request::GetGzip(path) => {
                connection.write(&frames::get_gzip(stream, &authority, path)).await;
            }
            Request::PostGzip(body) => {
                let headers =
                    [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
                let head = frames::post(stream, &authority, "/v1/events", &headers);
                let body = frames::frame(frames::DATA, 0, stream, body);
                connection.write(&[head, body].concat()).await;
            }
            Request::Call { messages, is_open } => {
                connection.write(&frames::begin_at(stream, row.name, false)).await;
                // As one that reads nothing can send.
                assert!(messages.len() < 512 << 10, "it fits the window");
                let mut messages = messages.clone();
                let mut places = messages.windows(PRODUCER.len());
                if let Some(place) = places.position(|it| it == PRODUCER.as_bytes()) {
                    let own = format!("p{at:04}");
                    messages[place..place + own.len()].copy_from_slice(own.as_bytes());
                }
                let pieces: Vec<_> = messages.chunks(16 << 10).collect();
                for (at, piece) in pieces.iter().enumerate() {
                    let ends = u8::from(!is_open && at + 1 == pieces.len());
                    connection.write(&frames::frame(frames::DATA, ends, stream, piece)).await;
                }
            }
        }
    }
    connection.write(&frames::ping()).await;
    let answer = connection.next_of(&[frames::PING, frames::GOAWAY]).await;
    assert_eq!(answer.kind, frames::PING, "{}: the connection was ended", row.name);
    connection
}

/// Waits until nothing changes for a while.
async fn rests(id: u32) {
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = anonymous_bytes(id);
        if now.abs_diff(before) < 256 << 10 {
            return;
        }
        before = now;
    }
}

async fn check(rows: impl Iterator<Item = Row>) {
    let mut over = Vec::new();
    for row in rows {
        let dir = tempfile::tempdir().unwrap();
        let daemon = filled(dir.path()).await;
        rests(daemon.id()).await;
        let before = anonymous_bytes(daemon.id());
        let peak = Peak::of(daemon.id());
        let attack = attack(&daemon, &row).await;
        publishes(&daemon, 1).await;
        rests(daemon.id()).await;
        let took = peak.bytes().saturating_sub(before);
        let count = u64::from(row.at_once());
        println!("{:64} {:6} KiB", row.name, (took / count) >> 10);
        if took > SLACK + count * (row.most << 10) {
            over.push(format!("{}: {} KiB", row.name, (took / count) >> 10));
        }
        drop(attack);
        daemon.kill();
    }
    assert!(over.is_empty(), "more than the documents say: {over:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_costs_no_more_than_is_said() {
    check(rows().into_iter().filter(|row| matches!(row.request, Request::Call { .. }))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_plain_http_costs_no_more_than_is_said() {
    check(rows().into_iter().filter(|row| matches!(row.request, Request::Get(_)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_or_an_answer_in_gzip_costs_no_more_than_is_said() {
    let is_gzip = |row: &Row| matches!(row.request, Request::GetGzip(_) | Request::PostGzip(_));
    check(rows().into_iter().filter(is_gzip)).await;
}

#[test]
fn every_method_and_path_has_a_row_here_and_in_the_documents() {
    let rows = rows();
    let names: Vec<_> = rows.iter().map(|row| row.name).collect();
    for method in methods::all() {
        assert!(names.contains(&method.path), "{}", method.path);
    }
    let router = include_str!("../../../src/server/http/mod.rs");
    let routes = router.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    for route in routes.filter(|route| *route != "/v1/events") {
        assert!(names.contains(&route), "{route}");
    }
    let documents = include_str!("../../../docs/security.md");
    for row in rows {
        let begins = format!("| `{}` |", row.name);
        let line = documents.lines().find(|line| line.starts_with(&begins));
        let line = line.unwrap_or_else(|| panic!("{}: no row", row.name));
        assert!(line.contains(&format!(" {} KiB ", row.most)), "{}: {line}", row.name);
    }
}
