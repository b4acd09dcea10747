//! What watches whose clients take nothing keep in the server's memory.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use tailmark::server::Options;
use tailmark_log::eventlog;
use tailmark_log::storage::memory::Options as MemoryOptions;
use tailmark_record::{Event, Seq};
use tailmark_wire::chat;
use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::support::broken::Broken;
use crate::support::daemon::Daemon;
use crate::support::frames::{self, Frames};
use crate::support::server::{
    TestServer, event, from_oldest, generations, memory, open, start_with, until, watch,
    watch_batches, within,
};
use crate::support::web::{self, Events};

const TOPIC: &str = "chat.general";
const WATCHES: usize = 60;
const CHUNK_BYTES: usize = 256 << 10;
const PARKED_BYTES: usize = 1 << 20;

/// A server whose log is read from the engine, with chats of a kilobyte each.
async fn filled(parked_bytes: usize, commits: usize) -> (TestServer, Arc<Broken>) {
    let options = MemoryOptions { chunk_bytes: CHUNK_BYTES, ..Default::default() };
    let engine = Arc::new(Broken::whole(memory(generations(&[1]), options)));
    let log_options = eventlog::Options { recent_bytes: 1 << 10, ..Default::default() };
    let log = open(engine.clone(), log_options);
    let server = start_with(log, Options { parked_bytes, ..Default::default() }).await;
    let body = "x".repeat(1_000);
    for _ in 0..commits {
        let mut batch = server.log.batch();
        for _ in 0..1_000 {
            let event =
                Event { topic: TOPIC, kind: "chat.message", body: &body, ..Event::default() };
            batch.push(&event).unwrap();
        }
        server.log.append(batch, eventlog::AppendOptions::default()).await.unwrap();
    }
    (server, engine)
}

/// A client that takes little before it stalls.
async fn narrow(server: &TestServer) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint =
        endpoint.initial_stream_window_size(64 << 10).initial_connection_window_size(8 << 20);
    within("connect", endpoint.connect()).await.unwrap()
}

/// SETTINGS with INITIAL_WINDOW_SIZE, and WINDOW_UPDATE of the connection: as much as there can be.
fn wide() -> Vec<u8> {
    let most = i32::MAX.to_be_bytes();
    let more = (i32::MAX - 65_535).to_be_bytes();
    [frames::frame(4, 0, 0, &[&[0, 4], &most[..]].concat()), frames::frame(8, 0, 0, &more)].concat()
}

/// A client breaks the protocol while it reads nothing and sends what nobody reads any more.
#[tokio::test]
async fn who_reads_late_hears_why_the_connection_ended() {
    let (server, _) = filled(PARKED_BYTES, 20).await;
    let mut client = Frames::connect(server.address).await;
    client.write(&wide()).await;
    client.write(&frames::begin(1, "Watch", false)).await;
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let message = frames::framed(&request);
    client.write(&frames::frame(frames::DATA, 1, 1, &message)).await;
    // More than the sockets take.
    let sent = || server.log.status().counters.reads_stored;
    until("a socket that is full", || sent() > 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // DATA of no stream: RFC 9113 section 6.1.
    client.write(&frames::frame(frames::DATA, 0, 0, b"x")).await;
    client.write(&frames::frame(frames::DATA, 0, 0, &[0; 8_000])).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let goaway = client.next_of(&[frames::GOAWAY]).await;
    assert_eq!(goaway.payload[4..8], 1_u32.to_be_bytes(), "PROTOCOL_ERROR");
    drop(client);
    until("no connection", || server.gauges.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn stalled_watches_hold_no_more_chunks_than_there_is_room_for() {
    let (server, engine) = filled(PARKED_BYTES, 4).await;
    let mut client = FeedServiceClient::new(narrow(&server).await);
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut stalled = Vec::new();
    for at in 0..WATCHES {
        stalled.push(match at % 2 {
            0 => watch(&mut client, request.clone()).await.unwrap(),
            _ => watch_batches(&mut client, request.clone()).await.unwrap(),
        });
    }
    // Each has read; together they would hold fifteen times as much.
    let reads = || server.log.status().counters.reads_stored as usize;
    until("little is held", || reads() >= WATCHES && engine.held_bytes() <= PARKED_BYTES).await;
    let before = reads();
    for watching in &mut stalled {
        for seq in 1..=4_000 {
            assert_eq!(watching.event().await.seq, seq);
        }
    }
    assert!(reads() > before);
    drop(stalled);
    until("nothing is held", || server.gauges.watches() == 0 && engine.held_bytes() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_watch_reads_one_chunk_ahead_of_its_client_and_no_more() {
    let (server, engine) = filled(8 * CHUNK_BYTES, 2).await;
    let mut client = FeedServiceClient::new(narrow(&server).await);
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let held = || engine.held_bytes();
    // A chunk ends with the event that fills it.
    let chunk_bytes = CHUNK_BYTES + (2 << 10);
    let mut watching = watch(&mut client, request.clone()).await.unwrap();
    until("two chunks are held", || held() > chunk_bytes).await;
    for seq in 1..=2_000 {
        assert!(held() <= 2 * chunk_bytes, "{}", held());
        assert_eq!(watching.event().await.seq, seq);
    }
    drop(watching);
    // One that ends in its first chunk wants none.
    let mut short = watch(&mut client, pb::WatchRequest { limit: 100, ..request }).await.unwrap();
    until("its only chunk is held", || held() > 0 && held() <= chunk_bytes).await;
    for seq in 1..=100 {
        assert!(held() <= chunk_bytes, "{}", held());
        assert_eq!(short.event().await.seq, seq);
    }
    server.stop().await;
}

#[tokio::test]
async fn stalled_streams_of_other_kinds_hold_no_more_either() {
    let (server, engine) = filled(PARKED_BYTES, 4).await;
    let held = || engine.held_bytes();
    let reads = || server.log.status().counters.reads_stored as usize;
    // By plain HTTP.
    let mut events = Vec::new();
    for _ in 0..WATCHES / 2 {
        let request = web::request(&server, "GET", "/v1/watch?from=oldest");
        events.push(Events::send(&server, Version::HTTP_2, request).await);
    }
    until("little is held", || reads() >= WATCHES / 2 && held() <= PARKED_BYTES).await;
    let mut seqs = 0;
    while seqs < 4_000 {
        seqs += 1;
        assert_eq!(events[0].event().await.id(), server.log.cursor(Seq::new(seqs)).await);
    }
    drop(events);
    until("nothing is held", || held() == 0).await;
    // Rooms keep copies of their own, and few of them.
    let mut rooms = ChatServiceClient::new(narrow(&server).await);
    let mut streams = Vec::new();
    let before = reads();
    for at in 0..WATCHES {
        let after_cursor = server.log.cursor(Seq::ZERO).await;
        let user = format!("user {at}");
        let request = chat::SubscribeRequest { user, after_cursor, ..Default::default() };
        streams.push(within("subscribe", rooms.subscribe_messages(request)).await.unwrap());
    }
    until("nothing is held", || reads() >= before + WATCHES && held() == 0).await;
    let mut stream = streams.swap_remove(0).into_inner();
    let mut seq = 0;
    while seq < 4_000 {
        let message = within("message", stream.message()).await.unwrap().unwrap();
        if message.r#type() == chat::MessageType::Chat {
            seq += 1;
            assert_eq!(message.seq, seq);
        }
    }
    drop((stream, streams));
    server.stop().await;
}

/// Bytes of memory that a process has for itself.
fn anonymous_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn an_idle_watch_keeps_no_buffer_whatever_it_has_replayed() {
    const IDLE: u64 = 300;
    const EVENTS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    // All stays in one slot, so that nothing but the watches takes memory; and buffers that are given
    // back go to the system at once, as otherwise the allocator keeps them for the next.
    let large = "TAILMARK_STORAGE_SLOT_BYTES=4MiB \
                 GLIBC_TUNABLES=glibc.malloc.mmap_threshold=8192:glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=0 \
                 exec \"$0\" \"$@\"";
    let daemon = Daemon::start_with(dir.path(), large);
    let bytes = || anonymous_bytes(daemon.id());
    let connect = async || {
        let endpoint = Endpoint::from_shared(daemon.url().to_owned()).unwrap();
        let endpoint =
            endpoint.initial_stream_window_size(64 << 10).initial_connection_window_size(32 << 20);
        FeedServiceClient::new(within("connect", endpoint.connect()).await.unwrap())
    };
    let mut client = connect().await;
    let body = "x".repeat(1_000);
    let events = (0..EVENTS).map(move |_| event("a", &body));
    let stored = client.upload_events(tokio_stream::iter(events)).await.unwrap();
    assert_eq!(stored.into_inner().stored, EVENTS);
    let before = bytes();
    let mut watches = Vec::new();
    for at in 0..IDLE {
        // With a filter they share nothing.
        let topic = if at % 3 == 0 { "" } else { "a" };
        let request = pb::WatchRequest {
            start: from_oldest(),
            topic: topic.to_owned(),
            ..Default::default()
        };
        watches.push(match at % 2 {
            0 => watch(&mut client, request).await.unwrap(),
            _ => watch_batches(&mut client, request).await.unwrap(),
        });
    }
    // The control: what is held for those that do not read is seen.
    until("what stalled watches hold", || bytes() >= before + IDLE * (48 << 10)).await;
    for watching in &mut watches {
        for seq in 1..=EVENTS {
            assert_eq!(watching.event().await.seq, seq);
        }
    }
    // A buffer has 64 KiB. Holes in the allocator's heap were seen to take 28 KiB a watch.
    until("what idle watches hold", || bytes() <= before + IDLE * (40 << 10)).await;
    assert_eq!(daemon.stop(), Some(0));
}

/// A long message counts until its call is answered, also where it is the log that takes its time.
#[tokio::test]
async fn long_messages_that_wait_for_the_log_are_counted() {
    const PUBLISHES: usize = 20;
    const BODY: usize = 300_000;
    let engine = Arc::new(Broken::whole(memory(generations(&[1]), MemoryOptions::default())));
    let log_options = eventlog::Options { in_flight_bytes: 1 << 20, ..Default::default() };
    let server = start_with(open(engine.clone(), log_options), Options::default()).await;
    let counted = async || {
        let answer = web::get(&server, "/metrics").await;
        let page = answer.text();
        let line = page.lines().find(|line| line.contains("{kind=\"arriving\"}")).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as usize
    };
    engine.hold();
    let client = server.client().await;
    let mut publishes = tokio::task::JoinSet::new();
    for _ in 0..PUBLISHES {
        let mut client = client.clone();
        publishes.spawn(async move {
            let event = event("a", &"x".repeat(BODY));
            client.publish(pb::PublishRequest { event: Some(event), ..Default::default() }).await
        });
    }
    within("all of them are here", async { while counted().await < PUBLISHES * BODY {} }).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(counted().await >= PUBLISHES * BODY, "{}", counted().await);
    engine.release();
    while let Some(published) = publishes.join_next().await {
        published.unwrap().unwrap();
    }
    within("they are counted no more", async { while counted().await > 0 {} }).await;
    server.stop().await;
}
