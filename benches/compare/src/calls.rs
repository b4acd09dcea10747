//! Calls over a raw codec, for Tailmark and for the limit alike.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use tailmark_client as client;
use tailmark_client::raw::Raw;
use tailmark_record::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use crate::fan::{BURST, Fan};
use crate::own::{Opened, Own, Storm, Watches};
use crate::sample::InOrder;

/// A connection with the windows of the client library.
pub(crate) async fn connect(addr: &str) -> Result<Channel> {
    let options = client::Options::default();
    let endpoint = Endpoint::from_shared(addr.to_owned())?
        .tcp_nodelay(true)
        .initial_connection_window_size(options.connection_window_bytes)
        .initial_stream_window_size(options.stream_window_bytes);
    endpoint.connect().await.with_context(|| format!("cannot connect to {addr}"))
}

/// One message there, many back.
pub(crate) async fn server_streaming(
    channel: Channel,
    path: &'static str,
    request: Bytes,
) -> Result<Streaming<Bytes>> {
    streaming(channel, path, tokio_stream::once(request)).await
}

/// Many messages both ways.
pub(crate) async fn streaming(
    channel: Channel,
    path: &'static str,
    requests: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<Bytes>> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static(path);
    Ok(grpc.streaming(Request::new(requests), path, Raw).await?.into_inner())
}

/// Takes so many messages.
pub(crate) async fn receive(
    stream: &mut Streaming<Bytes>,
    messages: u64,
    mut look: impl FnMut(&Bytes),
) -> Result<()> {
    let mut count = 0;
    while let Some(message) = stream.next().await {
        look(&message?);
        count += 1;
    }
    ensure!(count == messages, "{count} of {messages} messages came");
    Ok(())
}

/// Takes what a fan-out brings, one event a message.
pub(crate) async fn follow(stream: &mut Streaming<Bytes>, fan: &Fan) -> Result<()> {
    for count in 1..=fan.events {
        let message = stream.next().await.context("a watch ended")??;
        ensure!(!message.is_empty(), "an empty message came");
        if count % BURST == 0 {
            fan.delivered(BURST);
        }
    }
    Ok(())
}

/// Opens watches that each have a topic of their own, by what `request` says of its place, and takes what comes.
pub(crate) async fn watch_own(
    addr: &str,
    path: &'static str,
    own: &Arc<Own>,
    request: fn(u64) -> Bytes,
) -> Result<Opened> {
    let (addr, shared) = (addr.to_owned(), Arc::clone(own));
    own.open(move |places| {
        let (addr, own) = (addr.clone(), Arc::clone(&shared));
        async move {
            let channel = connect(&addr).await?;
            let mut watches = Watches::new();
            for place in places {
                if !own.has_time() {
                    break;
                }
                let stream = server_streaming(channel.clone(), path, request(place)).await?;
                watches.spawn(follow_own(stream, Arc::clone(&own)));
            }
            Ok(watches)
        }
    })
    .await
}

async fn follow_own(mut stream: Streaming<Bytes>, own: Arc<Own>) -> Result<()> {
    let mut in_order = InOrder::from(0);
    while let Some(message) = stream.next().await {
        in_order.take(Event::parse(&message?)?.body.as_bytes())?;
        own.delivered(1);
    }
    bail!("a watch ended")
}

/// Streams of one connection in a storm.
const STORM_STREAMS: usize = 100;

/// A storm: a hundred clients a connection, all at once, each with its request, until each has what it missed. All
/// stay until the last has it.
pub(crate) async fn storm(
    addr: &str,
    path: &'static str,
    storm: &Storm,
    requests: Vec<Bytes>,
    is_numbered: bool,
) -> Result<Duration> {
    let begun = Instant::now();
    let mut connections = JoinSet::new();
    for requests in requests.chunks(STORM_STREAMS) {
        let (addr, requests) = (addr.to_owned(), requests.to_vec());
        let (missed, first) = (storm.missed, storm.first_missed());
        connections.spawn(async move {
            let channel = connect(&addr).await?;
            let mut clients = JoinSet::new();
            for request in requests {
                clients.spawn(catch_up(
                    channel.clone(),
                    path,
                    request,
                    missed,
                    is_numbered.then_some(first),
                ));
            }
            let mut held = Vec::new();
            while let Some(caught_up) = clients.join_next().await {
                held.push(caught_up??);
            }
            anyhow::Ok(held)
        });
    }
    let mut held = Vec::new();
    while let Some(connection) = connections.join_next().await {
        held.push(connection??);
    }
    Ok(begun.elapsed())
}

async fn catch_up(
    channel: Channel,
    path: &'static str,
    request: Bytes,
    missed: u64,
    first: Option<u64>,
) -> Result<Streaming<Bytes>> {
    let mut stream = server_streaming(channel, path, request).await?;
    let mut in_order = first.map(InOrder::from);
    for _ in 0..missed {
        let message = stream.next().await.context("a watch ended")??;
        match &mut in_order {
            Some(in_order) => in_order.take(Event::parse(&message)?.body.as_bytes())?,
            None => ensure!(!message.is_empty(), "an empty message came"),
        }
    }
    Ok(stream)
}

/// What `work` answers, unless one of the tasks fails before.
pub(crate) async fn unless_one_fails<T>(
    tasks: &mut JoinSet<Result<()>>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(ended) = tasks.join_next() => ended??,
        }
    }
}

/// The body of a page over plain HTTP.
pub(crate) async fn http_get(addr: &str, path: &str) -> Result<String> {
    let host = addr.strip_prefix("http://").ok_or_else(|| anyhow!("no address: {addr}"))?;
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!("{path} answered {:?}", text.lines().next()),
    }
}
