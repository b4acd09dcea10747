//! NATS JetStream with file storage: as its server comes, where an ack does not wait for an fsync, and with
//! `sync_interval: always`, where it does.
//!
//! Appends are asynchronous publishes with a bounded window of acks, replays and watches ordered
//! push consumers, batches and resumes a pull consumer without acks, which begins sooner.

use std::any::Any;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::{Call, Peer, Replay, Setup, share};
use crate::calls;
use crate::fan::{BURST, Fan};
use crate::load::{Lane, Protocol};
use crate::own::{Opened, Own, Storm, Watches};
use crate::process::Server;
use crate::sample::{self, InOrder, Load};

const STREAM: &str = "bench";
/// Publishes without an ack; with more it is no faster.
const WINDOW: usize = 4_096;
/// Messages that a consumer's client keeps for it; with fewer it drops some in a replay.
const KEPT: usize = 1 << 20;
/// Clients on one connection in a storm.
const STORM_CLIENTS: usize = 100;
/// Until the server has made a consumer; of thousands at once it takes longer than its client's 5 s.
const ANSWER: Duration = Duration::from_secs(120);
/// Messages of one pull.
const PULL: usize = 5_000;

/// A server, and a client of it.
pub(crate) struct Jetstream {
    context: Context,
    addr: String,
    server: Option<Server>,
    program: PathBuf,
    is_synced: bool,
    /// Messages that were there before those of a storm.
    before_storm: u64,
    dir: TempDir,
}

impl Jetstream {
    pub(crate) async fn start(setup: &Setup, is_synced: bool) -> Result<Jetstream> {
        let dir = setup.new_dir("jetstream")?;
        let (server, addr) = launch(&setup.nats_server, is_synced, &dir).await?;
        let context = connect(&addr).await?;
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec!["bench.>".to_owned()],
            storage: StorageType::File,
            // Since 2.15 a thousand otherwise.
            max_consumers: 200_000,
            ..Config::default()
        };
        context.create_stream(config).await?;
        let program = setup.nats_server.clone();
        Ok(Jetstream {
            context,
            addr,
            server: Some(server),
            program,
            is_synced,
            before_storm: 0,
            dir,
        })
    }
}

async fn launch(program: &Path, is_synced: bool, dir: &TempDir) -> Result<(Server, String)> {
    let (store, config) = (dir.path().join("store"), dir.path().join("server.conf"));
    let store = store.to_str().context("a path that is no text")?;
    let sync = if is_synced { "sync_interval: always" } else { "" };
    // As many connections and subscriptions as a work asks for; nothing else differs from how it comes.
    let text = format!("max_connections: 200000\njetstream {{ store_dir: {store:?}\n {sync} }}\n");
    std::fs::write(&config, text)?;
    // It says on standard error that it is ready.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>&1"]).arg(program);
    command.args(["--addr", "127.0.0.1", "--port", "-1", "--config"]).arg(config);
    let mut server = Server::start(&mut command, &dir.path().join("server.txt"))?;
    let ready = |line: &str| {
        let (_, addr) = line.split_once("Listening for client connections on ")?;
        Some(addr.trim().to_owned())
    };
    let addr = server.line(ready).await?;
    Ok((server, addr))
}

async fn connect(addr: &str) -> Result<Context> {
    let options = ConnectOptions::new().subscription_capacity(KEPT);
    let mut context = jetstream::new(options.connect(addr).await?);
    context.set_timeout(ANSWER);
    Ok(context)
}

/// An ordered consumer, and its messages.
async fn ordered(context: &Context, from: DeliverPolicy, filter: &str) -> Result<Ordered> {
    let config = OrderedConfig {
        deliver_subject: context.client().new_inbox(),
        deliver_policy: from,
        filter_subject: filter.to_owned(),
        ..OrderedConfig::default()
    };
    let consumer = context.create_consumer_on_stream(config, STREAM).await?;
    Ok(consumer.messages().await?)
}

/// Takes so many messages.
async fn take<E: Into<async_nats::Error>>(
    mut messages: impl futures_util::Stream<Item = Result<jetstream::Message, E>> + Unpin,
    events: u64,
    is_decoded: bool,
) -> Result<()> {
    let mut bytes = 0;
    for _ in 0..events {
        let message = messages.next().await.context("a consumer ended")?;
        let message = message.map_err(|error| anyhow!(error.into()))?;
        if is_decoded {
            let info = message.info().map_err(|error| anyhow!(error))?;
            bytes += usize::from(info.stream_sequence > 0) + message.subject.len();
        }
        bytes += message.payload.len();
    }
    std::hint::black_box(bytes);
    Ok(())
}

fn subject(load: Load, at: u64) -> &'static str {
    if load.is_rare(at) { sample::RARE_TOPIC } else { sample::TOPIC }
}

fn payload(at: u64) -> Bytes {
    Bytes::from_static(sample::pick(&sample::POOL, at).as_bytes())
}

/// Takes what comes of a watch's own topic.
async fn follow_own(mut messages: Ordered, own: Arc<Own>) -> Result<()> {
    let mut in_order = InOrder::from(0);
    loop {
        let message = messages.next().await.context("a consumer ended")?;
        in_order.take(&message.map_err(|error| anyhow!(error))?.payload)?;
        own.delivered(1);
    }
}

/// A client of a storm: a consumer of its topic after the last that it has seen.
async fn catch_up(
    context: Context,
    client: u64,
    from: u64,
    first: u64,
    missed: u64,
) -> Result<Ordered> {
    let from = DeliverPolicy::ByStartSequence { start_sequence: from };
    let mut messages = ordered(&context, from, &sample::own_topic(client)).await?;
    let mut in_order = InOrder::from(first);
    for _ in 0..missed {
        let message = messages.next().await.context("a consumer ended")?;
        in_order.take(&message.map_err(|error| anyhow!(error))?.payload)?;
    }
    Ok(messages)
}

/// Publishes without an ack yet.
#[derive(Default)]
struct Acks(VecDeque<PublishAckFuture>);

impl Acks {
    async fn publish(&mut self, context: &Context, load: Load, at: u64) -> Result<()> {
        self.send(context, subject(load, at).to_owned(), payload(at)).await
    }

    async fn send(&mut self, context: &Context, subject: String, payload: Bytes) -> Result<()> {
        self.0.push_back(context.publish(subject, payload).await?);
        self.down_to(WINDOW).await
    }

    async fn down_to(&mut self, most: usize) -> Result<()> {
        while self.0.len() > most {
            if let Some(ack) = self.0.pop_front() {
                ack.await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Peer for Jetstream {
    fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    async fn restart(&mut self) -> Result<()> {
        if let Some(server) = self.server.take() {
            server.stop().await?;
        }
        let (server, addr) = launch(&self.program, self.is_synced, &self.dir).await?;
        self.context = connect(&addr).await?;
        self.addr = addr;
        self.server = Some(server);
        Ok(())
    }

    async fn append(&self, load: Load) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let mut acks = Acks::default();
        for at in 0..load.events {
            acks.publish(&self.context, load, at).await?;
        }
        acks.down_to(0).await?;
        Ok(Some(begun.elapsed()))
    }

    async fn replay(&self, how: Replay, events: u64) -> Result<Option<Duration>> {
        let begun = Instant::now();
        if how == Replay::Batches {
            let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
            let consumer = self.context.create_consumer_on_stream(config, STREAM).await?;
            let messages = consumer.stream().max_messages_per_batch(PULL).messages().await?;
            take(messages, events, true).await?;
        } else {
            let messages = ordered(&self.context, DeliverPolicy::All, "").await?;
            take(messages, events, how == Replay::Decoded).await?;
        }
        Ok(Some(begun.elapsed()))
    }

    async fn fan_out(&self, fan: &Arc<Fan>) -> Result<Option<Duration>> {
        let mut watchers = JoinSet::new();
        for at in 0..fan.connections {
            let context = connect(&self.addr).await?;
            for _ in 0..share(fan.watchers, fan.connections, at) {
                let mut messages = ordered(&context, DeliverPolicy::New, "").await?;
                let fan = Arc::clone(fan);
                watchers.spawn(async move {
                    for _ in 0..fan.events / BURST {
                        take(&mut messages, BURST, false).await?;
                        fan.delivered(BURST);
                    }
                    Ok(())
                });
            }
        }
        let begun = Instant::now();
        let publish = async {
            let mut acks = Acks::default();
            for at in 0..fan.events {
                if at % BURST == 0 {
                    fan.may_publish(at).await;
                }
                acks.publish(&self.context, Load::of(fan.events), at).await?;
            }
            acks.down_to(0).await?;
            fan.all_delivered().await;
            anyhow::Ok(begun.elapsed())
        };
        Ok(Some(calls::unless_one_fails(&mut watchers, publish).await?))
    }

    async fn publish(&self, events: usize) -> Result<Option<Vec<Duration>>> {
        let mut samples = Vec::new();
        for at in 0..events as u64 {
            let begun = Instant::now();
            self.context.publish(sample::TOPIC, payload(at)).await?.await?;
            samples.push(begun.elapsed());
        }
        Ok(Some(samples))
    }

    async fn resume(&self, place: u64) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: place };
        let ack_policy = AckPolicy::None;
        let config = pull::Config { ack_policy, deliver_policy, ..pull::Config::default() };
        let consumer = self.context.create_consumer_on_stream(config, STREAM).await?;
        let mut messages = consumer.fetch().max_messages(1).messages().await?;
        let first = messages.next().await.context("nothing came")?;
        let took = begun.elapsed();
        let first = first.map_err(|error| anyhow!(error))?;
        let info = first.info().map_err(|error| anyhow!(error))?;
        ensure!(info.stream_sequence == place, "{} came", info.stream_sequence);
        Ok(Some(took))
    }

    async fn rare(&self, events: u64) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let messages = ordered(&self.context, DeliverPolicy::All, sample::RARE_TOPIC).await?;
        take(messages, events, true).await?;
        Ok(Some(begun.elapsed()))
    }

    async fn idle(
        &self,
        watchers: usize,
        connections: usize,
    ) -> Result<Option<Box<dyn Any + Send>>> {
        let mut held = Vec::new();
        for at in 0..connections {
            let context = connect(&self.addr).await?;
            for _ in 0..share(watchers, connections, at) {
                held.push(ordered(&context, DeliverPolicy::New, "").await?);
            }
        }
        Ok(Some(Box::new(held)))
    }

    fn lane(&self, call: Call) -> Option<Lane> {
        (call == Call::Own).then(|| Lane::new(&self.addr, Protocol::Nats))
    }

    async fn stored(&self) -> Result<Option<u64>> {
        Ok(Some(self.context.get_stream(STREAM).await?.get_info().await?.state.messages))
    }

    async fn watch_own(&self, own: &Arc<Own>) -> Result<Option<Opened>> {
        let (addr, shared) = (self.addr.clone(), Arc::clone(own));
        let opened = own.open(move |places| {
            let (addr, own) = (addr.clone(), Arc::clone(&shared));
            async move {
                let context = connect(&addr).await?;
                let mut watches = Watches::new();
                for place in places {
                    if !own.has_time() {
                        break;
                    }
                    let topic = sample::own_topic(place);
                    let messages = ordered(&context, DeliverPolicy::New, &topic).await?;
                    watches.spawn(follow_own(messages, Arc::clone(&own)));
                }
                Ok(watches)
            }
        });
        Ok(Some(opened.await?))
    }

    async fn publish_own(&self, own: &Arc<Own>) -> Result<()> {
        let mut acks = Acks::default();
        while let Some(places) = own.lot(BURST).await {
            for place in places {
                let (topic, number) = own.event(place);
                let (topic, body) = (sample::own_topic(topic), sample::numbered(number));
                acks.send(&self.context, topic, body.into()).await?;
            }
        }
        acks.down_to(0).await
    }

    async fn fill_storm(&mut self, storm: &mut Storm) -> Result<bool> {
        self.before_storm = self.stored().await?.unwrap_or_default();
        let mut acks = Acks::default();
        for at in 0..storm.all_events() {
            let (topic, number) = storm.event(at);
            let (topic, body) = (sample::own_topic(topic), sample::numbered(number));
            acks.send(&self.context, topic, body.into()).await?;
        }
        acks.down_to(0).await?;
        Ok(true)
    }

    async fn storm(&self, storm: &Storm) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let mut connections = JoinSet::new();
        let clients: Vec<u64> = (0..storm.clients).collect();
        for clients in clients.chunks(STORM_CLIENTS) {
            let (addr, clients) = (self.addr.clone(), clients.to_vec());
            let (first, missed) = (storm.first_missed(), storm.missed);
            // Sequences begin with 1.
            let from = |client| self.before_storm + storm.last_seen(client) + 2;
            let clients: Vec<(u64, u64)> =
                clients.into_iter().map(|client| (client, from(client))).collect();
            connections.spawn(async move {
                let context = connect(&addr).await?;
                let mut coming = JoinSet::new();
                for (client, from) in clients {
                    coming.spawn(catch_up(context.clone(), client, from, first, missed));
                }
                let mut held = Vec::new();
                while let Some(caught_up) = coming.join_next().await {
                    held.push(caught_up??);
                }
                anyhow::Ok(held)
            });
        }
        let mut held = Vec::new();
        while let Some(connection) = connections.join_next().await {
            held.push(connection??);
        }
        Ok(Some(begun.elapsed()))
    }
}
