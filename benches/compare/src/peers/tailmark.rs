//! Tailmark itself: a daemon with default settings, through its own client library; through a raw
//! codec or tonic's generated client where one event a message is asked for.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use tailmark_client::{Client, Item, Options, ProducerOptions, Start, WatchOptions};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Call, Peer, Replay, Setup};
use crate::calls;
use crate::fan::{BURST, BURST_LEN, Fan};
use crate::load::{Lane, Protocol};
use crate::own::{self, Opened, Own, Storm};
use crate::process::Server;
use crate::sample::{self, Load};

const WATCH: &str = "/feed.v1.FeedService/Watch";
const PUBLISH: &str = "/feed.v1.FeedService/Publish";
/// Limits above what the works open; they change nothing else.
const LIMITS: [(&str, &str); 2] =
    [("TAILMARK_LIMITS_WATCHES", "200000"), ("TAILMARK_LIMITS_CONNECTIONS", "16384")];
/// Until a log is sealed.
const SEALED: Duration = Duration::from_secs(120);

/// A daemon, and a client of it.
pub(crate) struct Tailmark {
    client: Client,
    addr: String,
    options: Options,
    own: Option<Daemon>,
    /// Cursors of a storm's clients.
    places: Vec<String>,
}

/// A daemon of our own.
struct Daemon {
    program: PathBuf,
    // Before its directory, which is removed when nothing writes there any more.
    server: Server,
    dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Tailmark {
    pub(crate) async fn start(setup: &Setup) -> Result<Tailmark> {
        Tailmark::start_with(setup, |_| Ok((Vec::new(), Options::default()))).await
    }

    /// With settings that have something in the daemon's directory, and a client to them.
    pub(crate) async fn start_with(
        setup: &Setup,
        prepare: impl FnOnce(&Path) -> Result<(Vec<(String, String)>, Options)>,
    ) -> Result<Tailmark> {
        let dir = setup.new_dir("tailmark")?;
        let (settings, options) = prepare(dir.path())?;
        let (server, addr) = start_daemon(&setup.daemon, dir.path(), &borrowed(&settings)).await?;
        let own = Daemon { program: setup.daemon.clone(), server, dir, settings };
        Ok(Tailmark { own: Some(own), ..Tailmark::attach_with(&addr, options)? })
    }

    /// A daemon that runs already, with whatever is in its log.
    pub(crate) fn attach(addr: &str) -> Result<Tailmark> {
        Tailmark::attach_with(addr, Options::default())
    }

    fn attach_with(addr: &str, options: Options) -> Result<Tailmark> {
        let client = Client::with_options(addr, options.clone())?;
        Ok(Tailmark { client, addr: addr.to_owned(), options, own: None, places: Vec::new() })
    }

    /// A client on a connection of its own.
    fn another(&self) -> Result<Client> {
        Ok(Client::with_options(&self.addr, self.options.clone())?)
    }

    pub(crate) async fn log(&self) -> Result<pb::LogStatus> {
        Ok(self.client.log().await?)
    }

    /// The value of a metric.
    async fn metric(&self, name: &str) -> Result<f64> {
        let text = calls::http_get(&self.addr, "/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.with_context(|| format!("no figure {name}"))
    }

    /// Waits until nothing was sealed for so long; answers how many segments there are then.
    async fn sealed(&self, quiet: Duration) -> Result<f64> {
        let begun = Instant::now();
        let (mut last, mut since) = (0.0, Instant::now());
        while since.elapsed() < quiet {
            ensure!(begun.elapsed() < SEALED, "the log is not sealed in time");
            tokio::time::sleep(Duration::from_millis(200)).await;
            let segments = self.metric("tailmark_segments ").await?;
            if self.metric("tailmark_sealing").await? > 0.0 || segments != last {
                (last, since) = (segments, Instant::now());
            }
        }
        Ok(last)
    }

    /// Slots begun so far, sealed or not, once nothing is being sealed.
    async fn slots(&self) -> Result<f64> {
        let begun = Instant::now();
        while self.metric("tailmark_sealing").await? > 0.0 {
            ensure!(begun.elapsed() < SEALED, "the log is not sealed in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(self.metric("tailmark_segments ").await?
            + self.metric("tailmark_unsealed_slots").await?)
    }

    async fn replay_batches(&self, events: u64) -> Result<()> {
        let mut options = WatchOptions::default();
        (options.start, options.limit) = (Start::Oldest, events);
        let mut watch = self.client.watch(options);
        let (mut count, mut bytes) = (0, 0);
        while let Some(item) = watch.next().await {
            if let Item::Event(received) = item? {
                let event = received.event()?;
                bytes += event.topic.len() + event.body.len() + usize::from(event.seq.get() > 0);
                count += 1;
            }
        }
        ensure!(count == events, "{count} of {events} events came");
        std::hint::black_box(bytes);
        Ok(())
    }

    async fn replay_decoded(&self, events: u64) -> Result<()> {
        let channel = calls::connect(&self.addr).await?;
        let mut stream =
            FeedServiceClient::new(channel).watch(from_oldest(events)).await?.into_inner();
        let (mut count, mut bytes) = (0, 0);
        while let Some(event) = stream.next().await {
            let event = event?;
            bytes += event.topic.len() + event.body.len() + usize::from(event.seq > 0);
            count += 1;
        }
        ensure!(count == events, "{count} of {events} events came");
        std::hint::black_box(bytes);
        Ok(())
    }
}

/// How far the newest slot is, in rounds of appends, by how many went into those before.
#[derive(Debug, Default)]
struct Slots {
    count: f64,
    /// When the newest was begun.
    begun: u64,
    rounds: u64,
    /// The most that one took.
    most: u64,
}

impl Slots {
    /// So many slots were begun after so many rounds.
    fn note(&mut self, count: f64, rounds: u64) {
        if count > self.count && self.count > 0.0 {
            self.most = self.most.max(rounds - 1 - self.begun);
            self.begun = rounds - 1;
        }
        self.count = count;
        self.rounds = rounds;
    }

    /// Nearly: there is room for what a publisher adds.
    fn is_newest_full(&self) -> bool {
        let taken = self.rounds - self.begun;
        self.most > 0 && (self.most * 3 / 4..=self.most * 17 / 20).contains(&taken)
    }
}

fn borrowed(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Starts a daemon on a directory, with settings of the environment; answers its address.
pub(crate) async fn start_daemon(
    program: &Path,
    dir: &Path,
    settings: &[(&str, &str)],
) -> Result<(Server, String)> {
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--data-dir"]);
    command.arg(dir.join("log")).envs(LIMITS).envs(settings.iter().copied());
    let mut server = Server::start(&mut command, &dir.join("daemon.txt"))?;
    let ready = |line: &str| {
        let (addr, _) = line.strip_prefix("ready on ")?.split_once([',', ' '])?;
        let is_tls = settings.iter().any(|(name, _)| *name == "TAILMARK_TLS_CERT_FILE");
        Some(format!("{}://{addr}", if is_tls { "https" } else { "http" }))
    };
    let addr = server.line(ready).await?;
    Ok((server, addr))
}

fn from_oldest(events: u64) -> pb::WatchRequest {
    pb::WatchRequest {
        start: Some(pb::Start { at: Some(pb::start::At::Oldest(true)) }),
        limit: i64::try_from(events).unwrap_or(i64::MAX),
        ..pb::WatchRequest::default()
    }
}

/// A watch of new events that is known to have begun.
async fn live(client: &Client) -> Result<tailmark_client::Watch> {
    let mut options = WatchOptions::default();
    options.markers = true;
    let mut watch = client.watch(options);
    match watch.next().await {
        Some(Ok(Item::Marker(_))) => Ok(watch),
        Some(Err(error)) => Err(error.into()),
        other => bail!("a watch began with {other:?}"),
    }
}

async fn live_single(channel: Channel) -> Result<tonic::Streaming<Bytes>> {
    let request = pb::WatchRequest {
        start: Some(pb::Start { at: Some(pb::start::At::Latest(true)) }),
        ..pb::WatchRequest::default()
    };
    // Response headers come once the start is resolved.
    calls::server_streaming(channel, WATCH, request.encode_to_vec().into()).await
}

async fn take_library(mut watch: tailmark_client::Watch, fan: &Fan) -> Result<()> {
    let mut count = 0;
    while count < fan.events {
        match watch.next().await.context("a watch ended")?? {
            Item::Event(received) => {
                let event = received.event()?;
                std::hint::black_box(event.topic.len() + event.body.len() + event.cursor.len());
                count += 1;
                if count % BURST == 0 {
                    fan.delivered(BURST);
                }
            }
            Item::Marker(_) => {}
            other => bail!("a watch was interrupted: {other:?}"),
        }
    }
    Ok(())
}

#[async_trait]
impl Peer for Tailmark {
    fn server(&self) -> Option<&Server> {
        self.own.as_ref().map(|own| &own.server)
    }

    async fn restart(&mut self) -> Result<()> {
        let Some(Daemon { program, server, dir, settings }) = self.own.take() else {
            return Ok(());
        };
        server.stop().await?;
        let (server, addr) = start_daemon(&program, dir.path(), &borrowed(&settings)).await?;
        self.own = Some(Daemon { program, server, dir, settings });
        self.addr = addr;
        self.client = self.another()?;
        // The connection is no part of what is measured next.
        self.client.log().await?;
        Ok(())
    }

    async fn append(&self, load: Load) -> Result<Option<Duration>> {
        self.client.log().await?;
        let events = tokio_stream::iter((0..load.events).map(move |at| sample::event(load, at)));
        let begun = Instant::now();
        let result = self.client.upload(events).await?;
        let took = begun.elapsed();
        ensure!(result.stored == load.events, "{} were stored", result.stored);
        Ok(Some(took))
    }

    async fn append_batches(&self, load: Load, batch: usize) -> Result<Option<Duration>> {
        let mut options = ProducerOptions::default();
        options.batch_events = batch;
        options.batch_bytes = 3 << 20;
        options.waits_for_server = false;
        let id = format!("compare-{:016x}", rand::random::<u64>());
        let producer = self.client.producer(id, options).await?;
        let begun = Instant::now();
        for at in 0..load.events {
            // Flushing waits for them all.
            drop(producer.send_encoded(&sample::event(load, at)).await?);
        }
        producer.flush().await?;
        let took = begun.elapsed();
        producer.close().await?;
        Ok(Some(took))
    }

    async fn replay(&self, how: Replay, events: u64) -> Result<Option<Duration>> {
        let begun = Instant::now();
        match how {
            Replay::Received => {
                let channel = calls::connect(&self.addr).await?;
                let request = from_oldest(events).encode_to_vec().into();
                let mut stream = calls::server_streaming(channel, WATCH, request).await?;
                calls::receive(&mut stream, events, |_| {}).await?;
            }
            Replay::Decoded => self.replay_decoded(events).await?,
            Replay::Batches => self.replay_batches(events).await?,
        }
        Ok(Some(begun.elapsed()))
    }

    async fn fan_out(&self, fan: &Arc<Fan>) -> Result<Option<Duration>> {
        let mut watchers = JoinSet::new();
        for at in 0..fan.connections {
            let client = self.another()?;
            // Opened where it is used.
            let channel = match fan.is_single {
                true => Some(calls::connect(&self.addr).await?),
                false => None,
            };
            for _ in 0..share(fan.watchers, fan.connections, at) {
                let fan = Arc::clone(fan);
                if let Some(channel) = &channel {
                    let mut stream = live_single(channel.clone()).await?;
                    watchers.spawn(async move { calls::follow(&mut stream, &fan).await });
                } else {
                    let watch = live(&client).await?;
                    watchers.spawn(async move { take_library(watch, &fan).await });
                }
            }
        }
        let (send, receive) = tokio::sync::mpsc::channel(BURST_LEN);
        let client = self.client.clone();
        let upload = tokio::spawn(async move { client.upload(ReceiverStream::new(receive)).await });
        let took = calls::unless_one_fails(&mut watchers, fan.publish(&send)).await?;
        drop(send);
        upload.await??;
        Ok(Some(took))
    }

    async fn publish(&self, events: usize) -> Result<Option<Vec<Duration>>> {
        self.client.log().await?;
        let mut samples = Vec::new();
        for at in 0..events {
            let (topic, body) =
                (sample::TOPIC.into(), sample::pick(&sample::POOL, at as u64).clone());
            let event = pb::Event { topic, body, ..pb::Event::default() };
            let begun = Instant::now();
            self.client.publish(event, None).await?;
            samples.push(begun.elapsed());
        }
        Ok(Some(samples))
    }

    async fn resume(&self, place: u64) -> Result<Option<Duration>> {
        let mut options = WatchOptions::default();
        (options.start, options.limit) = (Start::Seq(Seq::new(place)), 1);
        let begun = Instant::now();
        let mut watch = self.client.watch(options);
        let first = watch.next().await.context("nothing came")??;
        let took = begun.elapsed();
        ensure!(matches!(&first, Item::Event(event) if event.seq().get() == place), "{first:?}");
        Ok(Some(took))
    }

    async fn rare(&self, events: u64) -> Result<Option<Duration>> {
        let mut options = WatchOptions::default();
        options.patterns = vec![sample::RARE_TOPIC.to_owned()];
        (options.start, options.limit) = (Start::Oldest, events);
        let begun = Instant::now();
        let mut watch = self.client.watch(options);
        let mut count = 0;
        while let Some(item) = watch.next().await {
            count += u64::from(matches!(item?, Item::Event(_)));
        }
        let took = begun.elapsed();
        ensure!(count == events, "{count} of {events} events came");
        Ok(Some(took))
    }

    async fn idle(
        &self,
        watchers: usize,
        connections: usize,
    ) -> Result<Option<Box<dyn Any + Send>>> {
        let mut held = Vec::new();
        for at in 0..connections {
            let client = self.another()?;
            for _ in 0..share(watchers, connections, at) {
                held.push(live(&client).await?);
            }
        }
        Ok(Some(Box::new(held)))
    }

    fn lane(&self, call: Call) -> Option<Lane> {
        let protocol = match call {
            Call::Own => Protocol::Grpc(PUBLISH),
            Call::Http => Protocol::Http,
        };
        Some(Lane::new(&self.addr, protocol))
    }

    async fn stored(&self) -> Result<Option<u64>> {
        Ok(Some(self.client.log().await?.head_seq))
    }

    async fn watch_own(&self, own: &Arc<Own>) -> Result<Option<Opened>> {
        let request = |place| {
            pb::WatchRequest {
                topic: sample::own_topic(place),
                start: Some(pb::Start { at: Some(pb::start::At::Latest(true)) }),
                ..pb::WatchRequest::default()
            }
            .encode_to_vec()
            .into()
        };
        Ok(Some(calls::watch_own(&self.addr, WATCH, own, request).await?))
    }

    async fn publish_own(&self, own: &Arc<Own>) -> Result<()> {
        let (send, receive) = tokio::sync::mpsc::channel(BURST_LEN);
        let client = self.client.clone();
        let upload = tokio::spawn(async move { client.upload(ReceiverStream::new(receive)).await });
        while let Some(places) = own.lot(BURST).await {
            for place in places {
                let (topic, number) = own.event(place);
                send.send(own::encoded(topic, number)).await.context("the upload ended")?;
            }
        }
        drop(send);
        upload.await??;
        Ok(())
    }

    async fn fill_storm(&mut self, storm: &mut Storm) -> Result<bool> {
        let before = self.client.log().await?.head_seq;
        let mut slots = Slots::default();
        let mut rounds = 0;
        // Where a slot is no more than a round there is nothing to wait for.
        let most = 2 * storm.events + 100;
        while rounds < storm.events || (!slots.is_newest_full() && rounds < most) {
            let of = move |topic| own::encoded(topic, rounds);
            let events = tokio_stream::iter((0..storm.topics).map(of));
            let result = self.client.upload(events).await?;
            ensure!(result.stored == storm.topics, "{} were stored", result.stored);
            rounds += 1;
            slots.note(self.slots().await?, rounds);
        }
        storm.events = rounds;
        let mut options = WatchOptions::default();
        options.start = Start::Seq(Seq::new(before + storm.last_seen(0) + 1));
        options.limit = storm.clients;
        let mut watch = self.client.watch(options);
        self.places.clear();
        while let Some(item) = watch.next().await {
            if let Item::Event(received) = item? {
                self.places.push(received.event()?.cursor.to_owned());
            }
        }
        ensure!(self.places.len() as u64 == storm.clients, "not every client has a cursor");
        Ok(true)
    }

    async fn storm(&self, storm: &Storm) -> Result<Option<Duration>> {
        let request = |(client, cursor): (usize, &String)| {
            pb::WatchRequest {
                topic: sample::own_topic(client as u64),
                after_cursor: cursor.clone(),
                ..pb::WatchRequest::default()
            }
            .encode_to_vec()
            .into()
        };
        let requests = self.places.iter().enumerate().map(request).collect();
        Ok(Some(calls::storm(&self.addr, WATCH, storm, requests, true).await?))
    }

    async fn seal(&mut self) -> Result<bool> {
        if self.own.is_none() {
            return Ok(false);
        }
        let before = self.metric("tailmark_segments ").await?;
        // A start begins a new slot, and seals what there was.
        self.restart().await?;
        let after = self.sealed(Duration::from_secs(2)).await?;
        ensure!(after > before, "nothing was sealed");
        Ok(true)
    }

    async fn commit_bytes(&self) -> Result<Option<u64>> {
        let bytes = self.metric("tailmark_appended_bytes_total").await?;
        let commits = self.metric("tailmark_commits_total").await?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let mean = (bytes / commits) as u64;
        Ok((commits > 0.0).then_some(mean))
    }
}

/// How many of `all` the share at this place has.
pub(crate) fn share(all: usize, shares: usize, at: usize) -> usize {
    all / shares + usize::from(at < all % shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_slot_is_full_when_it_has_taken_nearly_what_others_took() {
        let mut slots = Slots::default();
        let mut full = Vec::new();
        for rounds in 1..=50 {
            // A slot takes 20 rounds.
            slots.note(f64::from(u32::try_from((rounds - 1) / 20 + 1).unwrap()), rounds);
            if slots.is_newest_full() {
                full.push(rounds);
            }
        }
        assert_eq!(full, [35, 36, 37]);
        assert!(!Slots::default().is_newest_full());
    }

    #[test]
    fn shares_add_up() {
        let shares: Vec<usize> = (0..3).map(|at| share(11, 3, at)).collect();
        assert_eq!(shares, [4, 4, 3]);
    }
}
