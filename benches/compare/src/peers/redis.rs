//! Redis streams with an append-only file that is fsynced always: one stream, topic and body as its
//! fields.
//!
//! Appends are pipelined `XADD`s, batches of them `MULTI`; reads are `XREAD COUNT`, watches `XREAD
//! BLOCK`, each on a connection of its own because it blocks it. It has no topics within a stream.

use std::any::Any;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, Value, cmd};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::{Call, Peer, Replay, Setup};
use crate::calls;
use crate::fan::{BURST, BURST_LEN, Fan};
use crate::load::{Lane, Protocol};
use crate::own::{Opened, Own, Storm, Watches};
use crate::process::{self, Server};
use crate::sample::{self, InOrder, Load};

const STREAM: &str = "bench";
/// Commands sent together, and how many such lots are under way.
const PIPELINE: u64 = 1_000;
const UNDER_WAY: usize = 4;
/// Entries of one `XREAD`.
const COUNT: u64 = 2_000;

/// Readers, which are connections: what the ports of a loopback address have room for.
const MOST_READERS: u64 = 20_000;
/// Files that are open for something else, here or in the server.
const OTHER_FILES: u64 = 1_000;

/// A server, and a client of it.
pub(crate) struct Redis {
    client: Client,
    port: u16,
    connection: MultiplexedConnection,
    server: Option<Server>,
    dir: TempDir,
    /// Of the entries that `fill` put there, in order.
    ids: Mutex<Vec<String>>,
}

impl Redis {
    pub(crate) async fn start(setup: &Setup) -> Result<Redis> {
        let dir = setup.new_dir("redis")?;
        let (server, port) = launch(&dir).await?;
        let client = client(port)?;
        let connection = connect(&client).await?;
        Ok(Redis { client, port, connection, server: Some(server), dir, ids: Mutex::default() })
    }

    /// Appends in lots; answers the ids when asked for them.
    async fn add(&self, load: Load, lot: u64, is_atomic: bool, keep: bool) -> Result<Vec<String>> {
        let lots = (0..load.events.div_ceil(lot)).map(|number| {
            let mut connection = self.connection.clone();
            async move {
                let first = number * lot;
                let end = load.events.min(first + lot);
                let mut pipeline =
                    Pipeline::with_capacity(usize::try_from(lot).unwrap_or_default());
                if is_atomic {
                    pipeline.atomic();
                }
                for at in first..end {
                    pipeline.add_command(xadd(load, at));
                }
                pipeline.query_async::<Vec<String>>(&mut connection).await
            }
        });
        let mut lots = futures_util::stream::iter(lots).buffered(UNDER_WAY);
        let (mut count, mut all) = (0, Vec::new());
        while let Some(ids) = lots.next().await {
            let ids = ids?;
            count += ids.len() as u64;
            if keep {
                all.extend(ids);
            }
        }
        ensure!(count == load.events, "{count} of {} were added", load.events);
        Ok(all)
    }

    /// Waits until so many readers are blocked.
    async fn blocked(&self, readers: usize) -> Result<()> {
        let mut connection = self.connection.clone();
        loop {
            let text: String = cmd("INFO").arg("clients").query_async(&mut connection).await?;
            let blocked = text.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
            if blocked.and_then(|count| count.trim().parse().ok()) == Some(readers) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads after an id, at most `COUNT`; answers how many came and the last id.
    async fn read(&self, after: &str, is_decoded: bool) -> Result<(u64, String)> {
        let mut connection = self.connection.clone();
        let read = xread(None, COUNT, after);
        let value: Value = read.query_async(&mut connection).await?;
        if !is_decoded {
            return raw(&value);
        }
        let reply = StreamReadReply::from_redis_value(value)?;
        let entries = &reply.keys.first().context("no stream in the answer")?.ids;
        let mut bytes = 0;
        for entry in entries {
            let body: String = entry.get("body").context("an entry without a body")?;
            let topic: String = entry.get("topic").context("an entry without a topic")?;
            bytes += body.len() + topic.len();
        }
        std::hint::black_box(bytes);
        let last = entries.last().context("no entry in the answer")?;
        Ok((entries.len() as u64, last.id.clone()))
    }
}

/// Readers that there may be, by ports and by open files.
fn most_readers() -> u64 {
    process::open_files().saturating_sub(OTHER_FILES).min(MOST_READERS)
}

fn client(port: u16) -> Result<Client> {
    Ok(Client::open(format!("redis://127.0.0.1:{port}/"))?)
}

async fn launch(dir: &TempDir) -> Result<(Server, u16)> {
    for _ in 0..10 {
        // Somebody else may take it meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]);
        command.arg(dir.path());
        command.args(["--maxclients", "30000", "--tcp-backlog", "4096"]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        let mut server = Server::start(&mut command, &dir.path().join("server.txt"))?;
        let ready = |line: &str| line.contains("Ready to accept connections").then_some(());
        if server.line(ready).await.is_ok() {
            return Ok((server, port));
        }
    }
    bail!("redis-server does not start")
}

async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    // A watch waits for as long as it takes, and thousands that connect at once wait for each other.
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// An event of a topic's own stream; ids begin with 1.
fn xadd_own(topic: u64, number: u64) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(sample::own_topic(topic)).arg(format!("{}-0", number + 1));
    add.arg("body").arg(sample::numbered(number));
    add
}

/// Reads a topic's own stream from a number on, so many events or for ever, on a connection that it blocks.
async fn follow_own(
    mut connection: MultiplexedConnection,
    topic: u64,
    first: u64,
    events: u64,
    delivered: impl Fn(u64),
) -> Result<MultiplexedConnection> {
    let mut in_order = InOrder::from(first);
    let stream = sample::own_topic(topic);
    let mut next = first;
    while next < first.saturating_add(events) {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(COUNT).arg("BLOCK").arg(0);
        read.arg("STREAMS").arg(&stream).arg(format!("{next}-0"));
        let reply: StreamReadReply = read.query_async(&mut connection).await?;
        let entries = &reply.keys.first().context("no stream in the answer")?.ids;
        for entry in entries {
            let body: Vec<u8> = entry.get("body").context("an entry without a body")?;
            in_order.take(&body)?;
        }
        next += entries.len() as u64;
        delivered(entries.len() as u64);
    }
    Ok(connection)
}

fn xadd(load: Load, at: u64) -> Cmd {
    let topic = if load.is_rare(at) { sample::RARE_TOPIC } else { sample::TOPIC };
    let mut add = cmd("XADD");
    add.arg(STREAM).arg("*").arg("topic").arg(topic);
    add.arg("body").arg(sample::pick(&sample::POOL, at));
    add
}

fn xread(block: Option<u64>, count: u64, after: &str) -> Cmd {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(count);
    if let Some(block) = block {
        read.arg("BLOCK").arg(block);
    }
    read.arg("STREAMS").arg(STREAM).arg(after);
    read
}

/// Entries of an answer to `XREAD`, and the last one's id.
fn raw(value: &Value) -> Result<(u64, String)> {
    let array = |value: &Value, at: usize| match value {
        Value::Array(values) => values.get(at).cloned(),
        _ => None,
    };
    let Some(Value::Array(entries)) = array(value, 0).and_then(|stream| array(&stream, 1)) else {
        bail!("no entries in the answer");
    };
    let last = entries.last().and_then(|entry| array(entry, 0)).context("no id")?;
    Ok((entries.len() as u64, String::from_redis_value(last)?))
}

/// Takes what a fan-out brings after an entry.
async fn follow(mut connection: MultiplexedConnection, mut last: String, fan: &Fan) -> Result<()> {
    let (mut count, mut told) = (0, 0);
    while count < fan.events {
        let value: Value = xread(Some(0), COUNT, &last).query_async(&mut connection).await?;
        let (entries, id) = raw(&value)?;
        last = id;
        count += entries;
        let whole = count - count % BURST;
        fan.delivered(whole - told);
        told = whole;
    }
    Ok(())
}

#[async_trait]
impl Peer for Redis {
    fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    async fn restart(&mut self) -> Result<()> {
        if let Some(server) = self.server.take() {
            server.stop().await?;
        }
        let (server, port) = launch(&self.dir).await?;
        self.client = client(port)?;
        self.connection = connect(&self.client).await?;
        (self.server, self.port) = (Some(server), port);
        Ok(())
    }

    async fn append(&self, load: Load) -> Result<Option<Duration>> {
        let begun = Instant::now();
        self.add(load, PIPELINE, false, false).await?;
        Ok(Some(begun.elapsed()))
    }

    async fn append_batches(&self, load: Load, batch: usize) -> Result<Option<Duration>> {
        let begun = Instant::now();
        self.add(load, batch as u64, true, false).await?;
        Ok(Some(begun.elapsed()))
    }

    async fn fill(&self, load: Load) -> Result<()> {
        let ids = self.add(load, PIPELINE, false, true).await?;
        *self.ids.lock() = ids;
        Ok(())
    }

    async fn replay(&self, how: Replay, events: u64) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let (mut count, mut last) = (0, "0-0".to_owned());
        while count < events {
            let (came, id) = self.read(&last, how != Replay::Received).await?;
            (count, last) = (count + came, id);
        }
        Ok(Some(begun.elapsed()))
    }

    async fn fan_out(&self, fan: &Arc<Fan>) -> Result<Option<Duration>> {
        let mut watchers = JoinSet::new();
        // The id of an entry of now: all watch from here, whenever they ask for the first time.
        let mut connection = self.connection.clone();
        let head: String = xadd(Load::of(1), 0).query_async(&mut connection).await?;
        for _ in 0..fan.watchers {
            let connection = connect(&self.client).await?;
            let (fan, head) = (Arc::clone(fan), head.clone());
            watchers.spawn(async move { follow(connection, head, &fan).await });
        }
        let begun = Instant::now();
        let load = Load::of(fan.events);
        let publish = async {
            let mut connection = self.connection.clone();
            for first in (0..fan.events).step_by(BURST_LEN) {
                fan.may_publish(first).await;
                let mut pipeline = Pipeline::new();
                for at in first..first + BURST {
                    pipeline.add_command(xadd(load, at)).ignore();
                }
                pipeline.query_async::<()>(&mut connection).await?;
            }
            fan.all_delivered().await;
            anyhow::Ok(begun.elapsed())
        };
        Ok(Some(calls::unless_one_fails(&mut watchers, publish).await?))
    }

    async fn publish(&self, events: usize) -> Result<Option<Vec<Duration>>> {
        let mut connection = self.connection.clone();
        let mut samples = Vec::new();
        for at in 0..events as u64 {
            let begun = Instant::now();
            let add = xadd(Load::of(events as u64), at);
            let _: String = add.query_async(&mut connection).await?;
            samples.push(begun.elapsed());
        }
        Ok(Some(samples))
    }

    async fn resume(&self, place: u64) -> Result<Option<Duration>> {
        let before = usize::try_from(place.saturating_sub(2))?;
        let after = match place {
            0 | 1 => "0-0".to_owned(),
            _ => {
                let ids = self.ids.lock();
                ids.get(before).cloned().context("no such place")?
            }
        };
        let mut connection = self.connection.clone();
        let begun = Instant::now();
        let value: Value = xread(None, 1, &after).query_async(&mut connection).await?;
        let took = begun.elapsed();
        ensure!(raw(&value)?.0 == 1, "not one entry came");
        Ok(Some(took))
    }

    async fn idle(
        &self,
        watchers: usize,
        _connections: usize,
    ) -> Result<Option<Box<dyn Any + Send>>> {
        let mut held = JoinSet::new();
        for _ in 0..watchers {
            let mut connection = connect(&self.client).await?;
            held.spawn(async move {
                xread(Some(0), COUNT, "$").query_async::<Value>(&mut connection).await
            });
        }
        self.blocked(watchers).await?;
        Ok(Some(Box::new(held)))
    }

    fn lane(&self, call: Call) -> Option<Lane> {
        let addr = format!("127.0.0.1:{}", self.port);
        (call == Call::Own).then(|| Lane::new(&addr, Protocol::Redis))
    }

    async fn stored(&self) -> Result<Option<u64>> {
        let mut connection = self.connection.clone();
        Ok(Some(cmd("XLEN").arg(STREAM).query_async(&mut connection).await?))
    }

    async fn watch_own(&self, own: &Arc<Own>) -> Result<Option<Opened>> {
        let (client, shared) = (self.client.clone(), Arc::clone(own));
        let opened = own.open(move |places| {
            let (client, own) = (client.clone(), Arc::clone(&shared));
            async move {
                let (mut watches, most) = (Watches::new(), most_readers());
                for place in places.take_while(|place| *place < most) {
                    if !own.has_time() {
                        break;
                    }
                    let (connection, own) = (connect(&client).await?, Arc::clone(&own));
                    watches.spawn(async move {
                        let delivered = |count| own.delivered(count);
                        follow_own(connection, place, 0, u64::MAX, delivered).await.map(drop)
                    });
                }
                Ok(watches)
            }
        });
        let opened = opened.await?;
        self.blocked(opened.count).await?;
        Ok(Some(opened))
    }

    async fn publish_own(&self, own: &Arc<Own>) -> Result<()> {
        let mut connection = self.connection.clone();
        while let Some(places) = own.lot(PIPELINE).await {
            let mut pipeline = Pipeline::new();
            for place in places {
                let (topic, number) = own.event(place);
                pipeline.add_command(xadd_own(topic, number)).ignore();
            }
            pipeline.query_async::<()>(&mut connection).await?;
        }
        Ok(())
    }

    async fn fill_storm(&mut self, storm: &mut Storm) -> Result<bool> {
        let (all, topics) = (storm.all_events(), storm.topics);
        let lots = (0..all.div_ceil(PIPELINE)).map(|lot| {
            let mut connection = self.connection.clone();
            async move {
                let mut pipeline = Pipeline::new();
                for at in lot * PIPELINE..all.min((lot + 1) * PIPELINE) {
                    pipeline.add_command(xadd_own(at % topics, at / topics)).ignore();
                }
                pipeline.query_async::<()>(&mut connection).await
            }
        });
        let mut lots = futures_util::stream::iter(lots).buffered(UNDER_WAY);
        while let Some(added) = lots.next().await {
            added?;
        }
        Ok(true)
    }

    async fn storm(&self, storm: &Storm) -> Result<Option<Duration>> {
        ensure!(storm.clients <= most_readers(), "too many clients for its connections");
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        let (first, missed) = (storm.first_missed(), storm.missed);
        for client in 0..storm.clients {
            let server = self.client.clone();
            clients.spawn(async move {
                follow_own(connect(&server).await?, client, first, missed, |_| {}).await
            });
        }
        let mut held = Vec::new();
        while let Some(caught_up) = clients.join_next().await {
            held.push(caught_up??);
        }
        Ok(Some(begun.elapsed()))
    }
}
