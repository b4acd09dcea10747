//! Replay to live under full load: one uploader as fast as it goes, slots rolled and sealed all the
//! time, and watchers that begin anywhere at any moment. All see the same bytes, without a hole.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{Client, Item, Start, WatchOptions};
use tailmark_record::{Event, Seq};
use tailmark_wire::feed_v1 as pb;
use tonic::transport::Endpoint;

use super::watcher::next;
use crate::support::disk::{DiskServer, Setup};
use crate::support::raw::Raw;
use crate::support::server::{until, within};

const EVENTS: u64 = 20_000;

/// What a watcher got: seqs without a hole from `first`, and the hash of each event's bytes.
struct Got {
    first: u64,
    hashes: Vec<u64>,
    head_at_start: u64,
}

impl Got {
    fn new(first: u64, head_at_start: u64) -> Got {
        Got { first, hashes: Vec::new(), head_at_start }
    }

    /// Answers whether that was the last one.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let seq = Event::seq_of(bytes).unwrap().get();
        assert_eq!(seq, self.first + self.hashes.len() as u64, "not contiguous");
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        self.hashes.push(hasher.finish());
        seq == EVENTS
    }
}

async fn by_library(url: String, start: u64, head: u64) -> Got {
    let mut options = WatchOptions::default();
    options.start = Start::Seq(Seq::new(start));
    let mut watch = Client::new(&url).unwrap().watch(options);
    let mut got = Got::new(start, head);
    loop {
        match within("an event", next(&mut watch)).await.unwrap().unwrap() {
            Item::Event(received) => {
                if got.take(received.bytes()) {
                    return got;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The bytes as they come, by no client of ours. `start` 0 = live.
async fn by_raw_bytes(url: String, start: u64, head: u64) -> Got {
    let channel = within("connect", Endpoint::from_shared(url).unwrap().connect()).await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let at = match start {
        0 => pb::start::At::Latest(true),
        seq => pb::start::At::Seq(seq),
    };
    let request =
        pb::WatchRequest { start: Some(pb::Start { at: Some(at) }), ..Default::default() };
    let path = "/feed.v1.FeedService/Watch".parse().unwrap();
    let request = tonic::Request::new(Bytes::from(request.encode_to_vec()));
    let response = within("watch", grpc.server_streaming(request, path, Raw)).await.unwrap();
    let start_header = response.metadata().get("feed-cursor").unwrap().to_str().unwrap();
    let first = tailmark_record::Cursor::parse(start_header).unwrap().seq().get() + 1;
    assert!(start == 0 || start == first);
    let mut got = Got::new(first, head);
    let mut stream = response.into_inner();
    if first > EVENTS {
        return got;
    }
    while !got.take(&within("an event", stream.message()).await.unwrap().unwrap()) {}
    got
}

async fn upload(url: String) {
    let client = Client::new(&url).unwrap();
    let events = (1..=EVENTS).map(|n| {
        let body = format!("{n}|{}", "x".repeat(200 + n as usize % 300));
        let topic = format!("t.{}", n % 17);
        Bytes::from(pb::Event { topic, body, ..pb::Event::default() }.encode_to_vec())
    });
    let result = within("upload", client.upload(tokio_stream::iter(events))).await.unwrap();
    assert_eq!((result.stored, result.first_seq, result.last_seq), (EVENTS, 1, EVENTS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_goes_live_under_full_load_across_rolls_and_seals() {
    let mut rng = StdRng::seed_from_u64(7);
    for recent_bytes in [64 << 10, 32 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = Setup::small();
        setup.log.recent_bytes = recent_bytes;
        let server = Arc::new(DiskServer::start(dir.path(), setup).await);
        let uploading = tokio::spawn(upload(server.url()));
        let mut moments: Vec<u64> = (0..9).map(|_| rng.random_range(1..EVENTS * 9 / 10)).collect();
        moments.sort_unstable();
        let mut watching = Vec::new();
        for (n, moment) in moments.into_iter().enumerate() {
            until("more events", || server.head() >= moment).await;
            let head = server.head();
            let middle = rng.random_range(1..=head);
            let url = server.url();
            watching.push(match n % 5 {
                0 => tokio::spawn(by_library(url, 1, head)),
                1 => tokio::spawn(by_raw_bytes(url, middle, head)),
                2 => tokio::spawn(by_raw_bytes(url, 0, head)),
                3 => tokio::spawn(by_library(url, middle, head)),
                _ => tokio::spawn(by_raw_bytes(url, 1, head)),
            });
        }
        within("the upload", uploading).await.unwrap();
        let mut all = Vec::new();
        for task in watching {
            all.push(within("a watcher", task).await.unwrap());
        }
        let whole = &all[0];
        assert_eq!(whole.hashes.len() as u64, EVENTS);
        for got in &all {
            assert_eq!(got.first + got.hashes.len() as u64, EVENTS + 1);
            assert!(got.hashes == whole.hashes[got.first as usize - 1..], "other bytes");
        }
        assert!(all.iter().any(|got| got.head_at_start < EVENTS), "nobody began under load");
        let store = server.log.status().store;
        assert!(store.segments >= 10, "{store:?}");
        Arc::into_inner(server).unwrap().stop().await;
    }
}
