//! Redis streams with an append-only file that is fsynced always: one stream, topic and body as its
//! fields.
//!
//! Appends are pipelined `XADD`s, batches of them `MULTI`; reads are `XREAD COUNT`, watches `XREAD
//! BLOCK`, each on a connection of its own because it blocks it. It has no topics within a stream.

use std::any::Any;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, Value, cmd};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::{Peer, Replay, Setup};
use crate::calls;
use crate::fan::{BURST, BURST_LEN, Fan};
use crate::process::Server;
use crate::sample::{self, Load};

const STREAM: &str = "bench";
/// Commands sent together, and how many such lots are under way.
const PIPELINE: u64 = 1_000;
const UNDER_WAY: usize = 4;
/// Entries of one `XREAD`.
const COUNT: u64 = 2_000;

/// A server, and a client of it.
pub(crate) struct Redis {
    client: Client,
    connection: MultiplexedConnection,
    server: Option<Server>,
    dir: TempDir,
    /// Of the entries that `fill` put there, in order.
    ids: Mutex<Vec<String>>,
}

impl Redis {
    pub(crate) async fn start(setup: &Setup) -> Result<Redis> {
        let dir = setup.new_dir("redis")?;
        let (server, client) = launch(&dir).await?;
        let connection = connect(&client).await?;
        Ok(Redis { client, connection, server: Some(server), dir, ids: Mutex::default() })
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

async fn launch(dir: &TempDir) -> Result<(Server, Client)> {
    for _ in 0..10 {
        // Somebody else may take it meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]);
        command.arg(dir.path());
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        let mut server = Server::start(&mut command, &dir.path().join("server.txt"))?;
        let ready = |line: &str| line.contains("Ready to accept connections").then_some(());
        if server.line(ready).await.is_ok() {
            return Ok((server, Client::open(format!("redis://127.0.0.1:{port}/"))?));
        }
    }
    bail!("redis-server does not start")
}

async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    // A watch waits for as long as it takes.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
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
        let (server, client) = launch(&self.dir).await?;
        self.connection = connect(&client).await?;
        (self.server, self.client) = (Some(server), client);
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
        *self.ids.lock().unwrap_or_else(PoisonError::into_inner) = ids;
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
                let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut connection = self.connection.clone();
        loop {
            let text: String = cmd("INFO").arg("clients").query_async(&mut connection).await?;
            let blocked = text.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
            if blocked.and_then(|count| count.trim().parse().ok()) == Some(watchers) {
                return Ok(Some(Box::new(held)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
