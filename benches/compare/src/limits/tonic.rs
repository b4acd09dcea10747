//! The limit of the wire: a client of `passthrough`, which runs as a process of its own.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use tailmark_record::Event;
use tailmark_wire::feed_v1 as pb;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::passthrough::{request, to_place};
use crate::calls;
use crate::fan::{BURST, BURST_LEN, Fan};
use crate::load::{Lane, Protocol};
use crate::own::{self, Opened, Own, Storm};
use crate::peers::{Call, Peer, Replay, Setup, share};
use crate::process::Server;
use crate::sample::{self, Load};

/// The server, and a connection to it.
pub(crate) struct Tonic {
    channel: Channel,
    addr: String,
    server: Server,
    dir: TempDir,
}

impl Tonic {
    pub(crate) async fn start(setup: &Setup) -> Result<Tonic> {
        let dir = setup.new_dir("tonic")?;
        let (server, addr) = launch(&dir).await?;
        Ok(Tonic { channel: calls::connect(&addr).await?, addr, server, dir })
    }

    async fn upload(
        &self,
        messages: impl Iterator<Item = Bytes> + Send + 'static,
        count: u64,
    ) -> Result<Duration> {
        let begun = Instant::now();
        let messages = tokio_stream::iter(messages);
        let mut answer =
            calls::streaming(self.channel.clone(), "/limit.Limit/Upload", messages).await?;
        let taken = answer.next().await.context("no answer")??.get_u64();
        ensure!(taken == count, "{taken} of {count} messages arrived");
        Ok(begun.elapsed())
    }

    async fn watch(&self, in_batches: bool, events: u64) -> Result<tonic::Streaming<Bytes>> {
        let channel = calls::connect(&self.addr).await?;
        calls::server_streaming(channel, "/limit.Limit/Watch", request(in_batches, events)).await
    }
}

async fn launch(dir: &TempDir) -> Result<(Server, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("passthrough");
    let mut server = Server::start(&mut command, &dir.path().join("server.txt"))?;
    let ready = |line: &str| Some(format!("http://{}", line.strip_prefix("ready on ")?));
    let addr = server.line(ready).await?;
    Ok((server, addr))
}

/// Looks at every event of a batch as a reader would; answers how many there were.
fn look_at(mut batch: Bytes) -> Result<u64> {
    let mut count = 0;
    while batch.has_remaining() {
        ensure!(batch.get_u8() == 0x0a, "no entry");
        let len = usize::try_from(prost::encoding::decode_varint(&mut batch)?)?;
        ensure!(len <= batch.remaining(), "an entry is cut");
        let bytes = batch.split_to(len);
        let event = Event::parse(&bytes)?;
        std::hint::black_box(event.topic.len() + event.body.len() + event.cursor.len());
        count += 1;
    }
    Ok(count)
}

async fn follow_batches(stream: &mut tonic::Streaming<Bytes>, fan: &Fan) -> Result<()> {
    let (mut count, mut told) = (0, 0);
    while count < fan.events {
        count += look_at(stream.next().await.context("a watch ended")??)?;
        let whole = count - count % BURST;
        if whole > told {
            fan.delivered(whole - told);
            told = whole;
        }
    }
    Ok(())
}

#[async_trait]
impl Peer for Tonic {
    fn server(&self) -> Option<&Server> {
        Some(&self.server)
    }

    async fn restart(&mut self) -> Result<()> {
        let (server, addr) = launch(&self.dir).await?;
        self.server = server;
        self.channel = calls::connect(&addr).await?;
        self.addr = addr;
        Ok(())
    }

    async fn append(&self, load: Load) -> Result<Option<Duration>> {
        let messages = (0..load.events).map(move |at| sample::event(load, at));
        Ok(Some(self.upload(messages, load.events).await?))
    }

    async fn append_batches(&self, load: Load, batch: usize) -> Result<Option<Duration>> {
        let count = load.events.div_ceil(batch as u64);
        let messages = (0..count).map(move |number| {
            let first = number * batch as u64;
            let end = load.events.min(first + batch as u64);
            let mut out = BytesMut::new();
            for at in first..end {
                super::passthrough::put_entry(&mut out, &sample::event(load, at));
            }
            out.freeze()
        });
        Ok(Some(self.upload(messages, count).await?))
    }

    async fn fill(&self, _: Load) -> Result<()> {
        Ok(())
    }

    async fn replay(&self, how: Replay, events: u64) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let mut stream = self.watch(how == Replay::Batches, events).await?;
        match how {
            Replay::Received => calls::receive(&mut stream, events, |_| {}).await?,
            Replay::Decoded => {
                let mut bytes = 0;
                let mut broken = 0;
                let look = |message: &Bytes| match pb::Event::decode(message.clone()) {
                    Ok(event) => bytes += event.topic.len() + event.body.len(),
                    Err(_) => broken += 1,
                };
                calls::receive(&mut stream, events, look).await?;
                ensure!(broken == 0, "{broken} messages were no events");
                std::hint::black_box(bytes);
            }
            Replay::Batches => {
                let mut count = 0;
                while let Some(batch) = stream.next().await {
                    count += look_at(batch?)?;
                }
                ensure!(count == events, "{count} of {events} events came");
            }
        }
        Ok(Some(begun.elapsed()))
    }

    async fn fan_out(&self, fan: &Arc<Fan>) -> Result<Option<Duration>> {
        let mut watchers = JoinSet::new();
        for at in 0..fan.connections {
            let channel = calls::connect(&self.addr).await?;
            for _ in 0..share(fan.watchers, fan.connections, at) {
                let fan = Arc::clone(fan);
                let wanted = request(!fan.is_single, 0);
                let path = "/limit.Limit/Follow";
                let mut stream = calls::server_streaming(channel.clone(), path, wanted).await?;
                watchers.spawn(async move {
                    match fan.is_single {
                        true => calls::follow(&mut stream, &fan).await,
                        false => follow_batches(&mut stream, &fan).await,
                    }
                });
            }
        }
        let (send, receive) = tokio::sync::mpsc::channel(BURST_LEN);
        let messages = ReceiverStream::new(receive);
        let bursts = calls::streaming(self.channel.clone(), "/limit.Limit/Burst", messages);
        let bursts = tokio::spawn(bursts);
        let took = calls::unless_one_fails(&mut watchers, fan.publish(&send)).await?;
        drop(send);
        bursts.await??;
        Ok(Some(took))
    }

    async fn publish(&self, events: usize) -> Result<Option<Vec<Duration>>> {
        let mut samples = Vec::new();
        for at in 0..events {
            let message = sample::pick(&sample::EVENTS, at as u64).clone();
            let begun = Instant::now();
            let path = "/limit.Limit/Echo";
            let mut answer = calls::server_streaming(self.channel.clone(), path, message).await?;
            answer.next().await.context("no answer")??;
            samples.push(begun.elapsed());
        }
        Ok(Some(samples))
    }

    async fn resume(&self, _: u64) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let (path, wanted) = ("/limit.Limit/Watch", request(false, 1));
        let mut stream = calls::server_streaming(self.channel.clone(), path, wanted).await?;
        stream.next().await.context("nothing came")??;
        Ok(Some(begun.elapsed()))
    }

    async fn rare(&self, events: u64) -> Result<Option<Duration>> {
        self.replay(Replay::Received, events).await
    }

    async fn idle(
        &self,
        watchers: usize,
        connections: usize,
    ) -> Result<Option<Box<dyn Any + Send>>> {
        let mut held = Vec::new();
        for at in 0..connections {
            let channel = calls::connect(&self.addr).await?;
            for _ in 0..share(watchers, connections, at) {
                let (path, wanted) = ("/limit.Limit/Follow", request(false, 0));
                held.push(calls::server_streaming(channel.clone(), path, wanted).await?);
            }
        }
        Ok(Some(Box::new(held)))
    }

    fn lane(&self, call: Call) -> Option<Lane> {
        let protocol = Protocol::Grpc("/limit.Limit/Publish");
        (call == Call::Own).then(|| Lane::new(&self.addr, protocol))
    }

    async fn watch_own(&self, own: &Arc<Own>) -> Result<Option<Opened>> {
        let request = |place| to_place(place, &[]);
        Ok(Some(calls::watch_own(&self.addr, "/limit.Limit/Own", own, request).await?))
    }

    async fn publish_own(&self, own: &Arc<Own>) -> Result<()> {
        let (send, receive) = tokio::sync::mpsc::channel(BURST_LEN);
        let channel = self.channel.clone();
        let messages = ReceiverStream::new(receive);
        let round = tokio::spawn(calls::streaming(channel, "/limit.Limit/Round", messages));
        while let Some(places) = own.lot(BURST).await {
            for place in places {
                let (topic, number) = own.event(place);
                let message = to_place(topic, &own::encoded(topic, number));
                send.send(message).await.context("it ended")?;
            }
        }
        drop(send);
        round.await??;
        Ok(())
    }

    async fn fill_storm(&mut self, _: &mut Storm) -> Result<bool> {
        Ok(true)
    }

    async fn storm(&self, storm: &Storm) -> Result<Option<Duration>> {
        let requests = vec![request(false, storm.missed); usize::try_from(storm.clients)?];
        let path = "/limit.Limit/Watch";
        Ok(Some(calls::storm(&self.addr, path, storm, requests, false).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_a_batch_is_looked_at() {
        let mut batch = BytesMut::new();
        for event in &sample::STORED[..50] {
            super::super::passthrough::put_entry(&mut batch, event);
        }
        let batch = batch.freeze();
        assert_eq!(look_at(batch.clone()).unwrap(), 50);
        assert!(look_at(batch.slice(..batch.len() - 1)).is_err());
        assert!(look_at(Bytes::from_static(b"\x12\x00")).is_err());
    }
}
