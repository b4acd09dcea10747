//! Clients that watch: by the library or by generated code, slow, paused, cut, and back by cursor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tailmark_client::{Client, Item, OnLost, Start, Watch, WatchOptions};
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{Cursor, Limits, MarkerKind};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tonic::Status;
use tonic::transport::Endpoint;
use tonic_types::StatusExt as _;

use super::world::{END, World};
use crate::support::checker::{Note, Watched};
use crate::support::proxy::Proxy;
use crate::support::server::within;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Fast,
    /// Rests now and then.
    Slow,
    /// Reads no more after so many events, until all others are through.
    Paused(u64),
}

/// Where it begins.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    Oldest,
    Latest,
    /// After this seq, by its number.
    After(u64),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    /// None = everything.
    pub patterns: Vec<String>,
    pub pace: Pace,
    pub begin: Begin,
    pub has_markers: bool,
    /// Goes on at the oldest, with a gap; needs markers.
    pub skips_lost: bool,
    /// One cut in so many events; 0 = none.
    pub cut_every: u32,
    pub by_library: bool,
}

pub struct Watcher {
    plan: Plan,
    rng: StdRng,
    world: Arc<World>,
    proxy: Proxy,
    notes: Vec<Note>,
    /// The cursor to go on after, as a client keeps it.
    cursor: Option<String>,
    received: u64,
}

enum Next {
    Go,
    /// Begin another watch after the cursor.
    Again,
    Done,
}

impl Watcher {
    pub async fn new(
        plan: Plan,
        rng: StdRng,
        world: Arc<World>,
        server: std::net::SocketAddr,
    ) -> Watcher {
        let cursor = match plan.begin {
            Begin::After(seq) => Some(seq.to_string()),
            Begin::Oldest | Begin::Latest => None,
        };
        let proxy = Proxy::to(server).await;
        Watcher { plan, rng, world, proxy, notes: Vec::new(), cursor, received: 0 }
    }

    /// Watches until the last event of the run.
    pub async fn run(mut self) -> Watched {
        if let Begin::After(seq) = self.plan.begin {
            self.notes.push(Note::Opened(seq + 1));
        }
        if self.plan.by_library {
            while !self.by_library().await {}
        } else {
            while !self.by_generated_code().await {}
        }
        let limits = Limits::default();
        let patterns = self.plan.patterns.iter().map(|p| Pattern::parse(p, &limits).unwrap());
        Watched {
            name: format!("{:?}", self.plan),
            filter: Filter::new(patterns.collect()),
            notes: self.notes,
            is_paused: matches!(self.plan.pace, Pace::Paused(_)),
            is_early: !*self.world.released.borrow(),
        }
    }

    async fn pace(&mut self) {
        match self.plan.pace {
            Pace::Slow if self.rng.random_bool(0.02) => {
                let rest = Duration::from_millis(self.rng.random_range(1..8));
                tokio::time::sleep(rest).await;
            }
            Pace::Paused(after) if self.received >= after => {
                let mut released = self.world.released.subscribe();
                released.wait_for(|released| *released).await.unwrap();
            }
            _ => {}
        }
    }

    fn event(&mut self, event: pb::Event) -> Next {
        self.world.seen.fetch_max(event.seq, Ordering::SeqCst);
        self.received += 1;
        self.cursor = Some(event.cursor.clone());
        let is_end = event.topic == END;
        self.notes.push(Note::Event(Box::new(event)));
        if is_end {
            return Next::Done;
        }
        if self.plan.cut_every > 0 && self.rng.random_ratio(1, self.plan.cut_every) {
            self.world.cuts.fetch_add(1, Ordering::Relaxed);
            // The connection under it, or the watch itself.
            if self.rng.random_bool(0.7) {
                self.proxy.cut();
            } else {
                return Next::Again;
            }
        }
        Next::Go
    }

    fn resumed(&mut self, cursor: &str) {
        let seq = Cursor::parse(cursor).unwrap().seq().get();
        self.notes.push(Note::Opened(seq + 1));
    }

    fn trimmed(&mut self, oldest: Option<&str>, missed: Option<&str>) {
        let number = |text: Option<&str>| text.unwrap().parse::<u64>().unwrap();
        let (oldest, missed) = (number(oldest), number(missed));
        self.notes.push(Note::Trimmed { oldest, missed });
        self.cursor = Some((oldest - 1).to_string());
    }

    /// One watch of the library. Answers whether the run is over.
    async fn by_library(&mut self) -> bool {
        let mut options = WatchOptions::default();
        options.patterns = self.plan.patterns.clone();
        options.start = match self.plan.begin {
            Begin::Latest => Start::Latest,
            _ => Start::Oldest,
        };
        options.after_cursor = self.cursor.clone();
        options.markers = self.plan.has_markers;
        options.on_lost = if self.plan.skips_lost { OnLost::Oldest } else { OnLost::Fail };
        options.shortest_retry = Duration::from_millis(1);
        options.longest_retry = Duration::from_millis(20);
        let mut watch = Client::new(&self.proxy.url()).unwrap().watch(options);
        loop {
            self.pace().await;
            let item = within(&self.plan.name, next(&mut watch)).await;
            let next = match item.expect("a watch has ended by itself") {
                Ok(Item::Event(received)) => {
                    self.event(pb::Event::decode(received.bytes().clone()).unwrap())
                }
                Ok(Item::Marker(marker)) => {
                    match (marker.kind, marker.gap) {
                        (MarkerKind::Resumed, _) => self.resumed(&marker.cursor),
                        (MarkerKind::Gap, Some(gap)) => {
                            let reason = match gap.reason {
                                tailmark_record::GapReason::Trimmed => pb::gap::Reason::Trimmed,
                                _ => pb::gap::Reason::Unspecified,
                            };
                            let (from, to) = (gap.from.get(), gap.to.get());
                            self.notes.push(Note::Gap { from, to, reason });
                        }
                        _ => {}
                    }
                    Next::Go
                }
                Ok(Item::Interrupted { .. }) => {
                    self.notes.push(Note::Cut);
                    Next::Go
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) if error.reason() == "CURSOR_TRIMMED" => {
                    self.trimmed(error.metadata("oldest"), error.metadata("missed"));
                    return false;
                }
                Err(error) => panic!("{}: {error:?}", self.plan.name),
            };
            match next {
                Next::Go => {}
                Next::Again => {
                    self.cursor = watch.cursor().map(str::to_owned).or(self.cursor.take());
                    return false;
                }
                Next::Done => return true,
            }
        }
    }

    /// One call of the generated client. Answers whether the run is over.
    async fn by_generated_code(&mut self) -> bool {
        self.world.until_up().await;
        let channel = Endpoint::from_shared(self.proxy.url()).unwrap().connect_lazy();
        let mut client = FeedServiceClient::new(channel);
        let at = match self.plan.begin {
            Begin::Latest => pb::start::At::Latest(true),
            _ => pb::start::At::Oldest(true),
        };
        let request = pb::WatchRequest {
            topics: self.plan.patterns.clone(),
            after_cursor: self.cursor.clone().unwrap_or_default(),
            start: self.cursor.is_none().then_some(pb::Start { at: Some(at) }),
            markers: self.plan.has_markers,
            on_lost: if self.plan.skips_lost { pb::OnLost::Oldest } else { pb::OnLost::Fail }
                .into(),
            ..pb::WatchRequest::default()
        };
        let response = match within(&self.plan.name, client.watch(request)).await {
            Ok(response) => response,
            Err(status) => return self.failed(&status),
        };
        let start = response.metadata().get("feed-cursor").expect("a start").to_str().unwrap();
        if !self.plan.has_markers {
            self.resumed(start);
        }
        if self.cursor.is_none() {
            self.cursor = Some(start.to_owned());
        }
        let mut stream = response.into_inner();
        loop {
            self.pace().await;
            let mut event = match within(&self.plan.name, stream.message()).await {
                Ok(message) => message.expect("a cut passed for a regular end"),
                Err(status) => return self.failed(&status),
            };
            let next = match event.marker.take() {
                None => self.event(event),
                Some(marker) => {
                    self.marker(&marker);
                    Next::Go
                }
            };
            match next {
                Next::Go => {}
                Next::Again => return false,
                Next::Done => return true,
            }
        }
    }

    fn marker(&mut self, marker: &pb::Marker) {
        match (marker.kind(), marker.gap) {
            (pb::marker::Kind::Resumed, _) => self.resumed(&marker.cursor),
            (pb::marker::Kind::Gap, Some(gap)) => self.notes.push(Note::Gap {
                from: gap.from_seq,
                to: gap.to_seq,
                reason: gap.reason(),
            }),
            _ => {}
        }
        self.cursor = Some(marker.cursor.clone());
    }

    fn failed(&mut self, status: &Status) -> bool {
        match status.get_details_error_info() {
            Some(info) if info.reason == "CURSOR_TRIMMED" => {
                let text = |name: &str| info.metadata.get(name).map(String::as_str);
                self.trimmed(text("oldest"), text("missed"));
            }
            Some(info) if info.reason != "STOPPING" => panic!("{}: {status:?}", self.plan.name),
            _ => self.notes.push(Note::Cut),
        }
        false
    }
}

pub async fn next(watch: &mut Watch) -> Option<Result<Item, tailmark_client::Error>> {
    tokio_stream::StreamExt::next(watch).await
}
