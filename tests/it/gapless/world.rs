//! What the clients of one run share, and how they send.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tonic::transport::Endpoint;
use tonic_types::StatusExt as _;

use crate::support::checker::{Outcome, Request, Sent};
use crate::support::proxy::Proxy;
use crate::support::server::within;

pub const TOPICS: [&str; 4] = ["orders.eu", "orders.us", "users", "users.eu.new"];
/// The topic of the last event of a run.
pub const END: &str = "end";

pub struct World {
    /// The server takes connections.
    pub up: watch::Sender<bool>,
    /// Paused watchers may go on.
    pub released: watch::Sender<bool>,
    /// Highest seq that an uploader was told.
    pub acked: AtomicU64,
    /// Highest seq that a watcher was sent.
    pub seen: AtomicU64,
    pub cuts: AtomicU64,
    pub requests: Mutex<Vec<Request>>,
}

impl World {
    pub fn new() -> World {
        World {
            up: watch::Sender::new(true),
            released: watch::Sender::new(false),
            acked: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            requests: Mutex::default(),
        }
    }

    pub async fn until_up(&self) {
        within("a server", self.up.subscribe().wait_for(|up| *up)).await.unwrap();
    }

    pub fn record(&self, sent: Vec<Sent>, outcome: Outcome) {
        let acked = match &outcome {
            Outcome::Published { seq, .. } => *seq,
            Outcome::Uploaded(result) => result.last_seq,
            _ => 0,
        };
        self.acked.fetch_max(acked, Ordering::SeqCst);
        self.requests.lock().unwrap().push(Request { sent, outcome });
    }
}

/// Sends events in one way or the other, and loses its connection now and then.
pub struct Uploader {
    name: String,
    rng: StdRng,
    proxy: std::sync::Arc<Proxy>,
    library: Client,
    generated: FeedServiceClient<tonic::transport::Channel>,
    count: u64,
    /// Events with ids that may be sent again.
    named: Vec<Vec<Sent>>,
}

impl Uploader {
    pub async fn new(name: String, seed: u64, server: std::net::SocketAddr) -> Uploader {
        let proxy = std::sync::Arc::new(Proxy::to(server).await);
        let library = Client::new(&proxy.url()).unwrap();
        let channel = Endpoint::from_shared(proxy.url()).unwrap().connect_lazy();
        Uploader {
            name,
            rng: StdRng::seed_from_u64(seed),
            proxy,
            library,
            generated: FeedServiceClient::new(channel),
            count: 0,
            named: Vec::new(),
        }
    }

    /// Some uploads and publishes.
    pub async fn work(&mut self, world: &World) {
        for _ in 0..self.rng.random_range(3..7) {
            match self.rng.random_range(0..10) {
                0..5 => {
                    let is_named = self.rng.random_bool(0.6);
                    let count = self.rng.random_range(1..150);
                    let batch = self.events(count, is_named);
                    self.upload_new(world, batch, is_named).await;
                }
                5..7 if !self.named.is_empty() => {
                    let at = self.rng.random_range(0..self.named.len());
                    let again = self.named[at].clone();
                    self.upload(world, &again, None).await;
                }
                _ => {
                    let is_named = self.rng.random_bool(0.5);
                    let sent = self.events(1, is_named);
                    self.publish(world, &sent).await;
                    if is_named && self.rng.random_bool(0.5) {
                        self.publish(world, &sent).await;
                    }
                }
            }
        }
    }

    async fn upload_new(&mut self, world: &World, batch: Vec<Sent>, is_named: bool) {
        let cut_at = self.rng.random_bool(0.3).then(|| self.rng.random_range(0..=batch.len()));
        let mut is_done = self.upload(world, &batch, cut_at).await;
        // Events with ids are simply sent again.
        while is_named && !is_done {
            is_done = self.upload(world, &batch, None).await;
        }
        if is_named {
            self.named.push(batch);
            // Only what is well inside the log: a repeat of what was trimmed is another matter.
            if self.named.len() > 3 {
                self.named.remove(0);
            }
        }
    }

    fn events(&mut self, count: usize, is_named: bool) -> Vec<Sent> {
        let mut events = Vec::new();
        for _ in 0..count {
            self.count += 1;
            let label = format!("{}.{}", self.name, self.count);
            let most = if self.rng.random_bool(0.01) { 30_000 } else { 2_000 };
            let filler = "x".repeat(self.rng.random_range(0..most));
            events.push(Sent {
                event: pb::Event {
                    id: if is_named { format!("id-{label}") } else { String::new() },
                    topic: TOPICS[self.rng.random_range(0..TOPICS.len())].to_owned(),
                    body: format!("{label}|{filler}"),
                    ..pb::Event::default()
                },
                label,
            });
        }
        events
    }

    /// Answers whether all of it is known to be durable.
    async fn upload(&mut self, world: &World, batch: &[Sent], cut_at: Option<usize>) -> bool {
        world.until_up().await;
        let proxy = self.proxy.clone();
        if cut_at.is_some() {
            world.cuts.fetch_add(1, Ordering::Relaxed);
        }
        let cut = move |at: usize| {
            if Some(at) == cut_at {
                proxy.cut();
            }
        };
        let events: Vec<_> = batch.iter().map(|sent| sent.event.clone()).enumerate().collect();
        let outcome = if self.rng.random_bool(0.5) {
            let events = tokio_stream::iter(events).map(move |(at, event)| {
                cut(at);
                Bytes::from(event.encode_to_vec())
            });
            match within("upload", self.library.upload(events)).await {
                Ok(result) => Outcome::Uploaded(result),
                Err(error) => {
                    assert!(error.is_retryable(), "{error:?}");
                    prefix(error.metadata("received"))
                }
            }
        } else {
            let events = tokio_stream::iter(events).map(move |(at, event)| {
                cut(at);
                event
            });
            match within("upload", self.generated.upload_events(events)).await {
                Ok(response) => Outcome::Uploaded(response.into_inner()),
                Err(status) => {
                    let info = status.get_details_error_info();
                    prefix(info.as_ref().and_then(|i| i.metadata.get("received")).map(|s| &**s))
                }
            }
        };
        let is_done = matches!(outcome, Outcome::Uploaded(_));
        world.record(batch.to_vec(), outcome);
        is_done
    }

    async fn publish(&mut self, world: &World, sent: &[Sent]) {
        world.until_up().await;
        let event = sent[0].event.clone();
        let outcome = match within("publish", self.library.publish(event, None)).await {
            Ok(result) => Outcome::Published { seq: result.seq, duplicate: result.duplicate },
            Err(error) if error.may_have_applied() => Outcome::Unknown,
            // Of a repeat the first may be there.
            Err(_) if !sent[0].event.id.is_empty() => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        world.record(sent.to_vec(), outcome);
    }
}

fn prefix(received: Option<&str>) -> Outcome {
    match received.and_then(|count| count.parse().ok()) {
        Some(count) => Outcome::Prefix(count),
        None => Outcome::Unknown,
    }
}
