//! Many publishers at once: a load client that writes requests byte by byte and looks at answers no more than it
//! must, so that what is measured is the server. The same for all; only the sessions differ.

mod grpc;
mod http;
mod nats;
mod redis;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::calls;

/// Before it counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// Until a server has answered what is under way.
const ANSWERED: Duration = Duration::from_secs(60);

/// How one event is published on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A unary call of this path.
    Grpc(&'static str),
    /// `POST /v1/events`, HTTP/1.1.
    Http,
    /// `XADD`.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "a peer's"))]
    Redis,
    /// A publish with a reply subject.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "a peer's"))]
    Nats,
}

/// Where and how to publish.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// Host and port.
    pub(crate) host: String,
    pub(crate) protocol: Protocol,
}

/// One connection's side of a protocol.
trait Session: Send {
    /// What is sent first.
    fn open(&mut self, _out: &mut Vec<u8>) {}

    /// One more event.
    fn request(&mut self, out: &mut Vec<u8>);

    /// How many bytes are read, and how many events are acked in them. What has to be said back goes to `out`; a
    /// refusal is an error.
    fn answers(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, usize)>;
}

impl Lane {
    pub(crate) fn new(addr: &str, protocol: Protocol) -> Lane {
        let host = addr.split_once("://").map_or(addr, |(_, host)| host);
        Lane { host: host.trim_end_matches('/').to_owned(), protocol }
    }

    fn session(&self) -> Box<dyn Session> {
        match self.protocol {
            Protocol::Grpc(path) => Box::new(grpc::Grpc::new(&self.host, path)),
            Protocol::Http => Box::new(http::Http::new(&self.host)),
            Protocol::Redis => Box::<redis::Redis>::default(),
            Protocol::Nats => Box::new(nats::Nats::new()),
        }
    }
}

/// How many connections, and how many events of each under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
}

/// How long a load goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Enough {
    Events(u64),
    Time(Duration),
}

/// What a load did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Acked in all, what came before and after it was timed included.
    pub(crate) acked: u64,
    pub(crate) timed: u64,
    pub(crate) took: Duration,
}

/// Publishes from so many connections at once.
pub(crate) async fn run(lane: &Lane, shape: Shape, enough: Enough) -> Result<Outcome> {
    let most = match enough {
        Enough::Events(events) => i64::try_from(events)?,
        Enough::Time(_) => i64::MAX / 2,
    };
    let shared = Arc::new(Shared { left: AtomicI64::new(most), acked: AtomicU64::new(0) });
    let mut streams = Vec::with_capacity(shape.connections);
    for _ in 0..shape.connections {
        streams.push(connect(lane).await?);
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in streams {
        let (shared, session) = (Arc::clone(&shared), lane.session());
        tasks.spawn(async move { publish(stream, session, shape.in_flight, &shared).await });
    }
    let (timed, took) = match enough {
        Enough::Events(_) => {
            end(&mut tasks).await?;
            (shared.acked(), begun.elapsed())
        }
        Enough::Time(time) => {
            let timed = calls::unless_one_fails(&mut tasks, shared.timed(time)).await?;
            shared.left.store(0, Ordering::Relaxed);
            let ended = tokio::time::timeout(ANSWERED, end(&mut tasks)).await;
            ended.context("not everything was answered")??;
            timed
        }
    };
    Ok(Outcome { acked: shared.acked(), timed, took })
}

async fn end(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// What the connections of a load share.
struct Shared {
    /// Events that may still be sent.
    left: AtomicI64,
    acked: AtomicU64,
}

impl Shared {
    fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// What is acked in so much time, and how long that really was.
    async fn timed(&self, time: Duration) -> Result<(u64, Duration)> {
        tokio::time::sleep(WARM_UP).await;
        let (before, begun) = (self.acked(), Instant::now());
        tokio::time::sleep(time).await;
        Ok((self.acked() - before, begun.elapsed()))
    }

    /// How many of so many more may be sent.
    fn take(&self, wanted: usize) -> usize {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let left = self.left.fetch_sub(wanted, Ordering::Relaxed);
        usize::try_from(left.clamp(0, wanted)).unwrap_or_default()
    }
}

async fn connect(lane: &Lane) -> Result<TcpStream> {
    let stream = TcpStream::connect(&lane.host).await;
    let stream = stream.with_context(|| format!("cannot connect to {}", lane.host))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn publish(
    mut stream: TcpStream,
    mut session: Box<dyn Session>,
    in_flight: usize,
    shared: &Shared,
) -> Result<()> {
    let (mut input, mut out) = (BytesMut::with_capacity(16 << 10), Vec::new());
    session.open(&mut out);
    let (mut may, mut open) = (shared.take(in_flight), 0);
    loop {
        for _ in 0..may {
            session.request(&mut out);
        }
        open += may;
        if open == 0 {
            return Ok(());
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        ensure!(stream.read_buf(&mut input).await? > 0, "the server has closed the connection");
        let (read, acked) = session.answers(&input, &mut out)?;
        input.advance(read);
        if acked > open {
            bail!("{acked} were acked where {open} were sent");
        }
        open -= acked;
        shared.acked.fetch_add(acked as u64, Ordering::Relaxed);
        may = if acked > 0 { shared.take(acked) } else { 0 };
    }
}

/// When one publisher has done enough.
#[derive(Debug)]
pub(crate) struct Until {
    events: usize,
    end: Option<Instant>,
    is_stopped: AtomicBool,
    /// Between one ack and the next event.
    pause: Duration,
}

impl Until {
    /// So many, or as many as there are within this time.
    pub(crate) fn within(events: usize, time: Duration) -> Arc<Until> {
        let end = Some(Instant::now() + time);
        Arc::new(Until { events, end, is_stopped: AtomicBool::new(false), pause: Duration::ZERO })
    }

    /// Until it is stopped, or for this time, with pauses.
    pub(crate) fn paced(pause: Duration, time: Option<Duration>) -> Arc<Until> {
        let end = time.map(|time| Instant::now() + time);
        Arc::new(Until { events: usize::MAX, end, is_stopped: AtomicBool::new(false), pause })
    }

    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn is_over(&self, done: usize) -> bool {
        done >= self.events
            || self.end.is_some_and(|end| Instant::now() >= end)
            || self.is_stopped.load(Ordering::Relaxed)
    }
}

/// One publisher, one event at a time, each from its request to its ack; on a thread of its own, which what else
/// this program does at the time does not hold up.
pub(crate) async fn one(lane: &Lane, until: Arc<Until>) -> Result<Vec<Duration>> {
    let lane = lane.clone();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(one_by_one(&lane, &until))
    };
    tokio::task::spawn_blocking(work).await?
}

async fn one_by_one(lane: &Lane, until: &Until) -> Result<Vec<Duration>> {
    let (mut stream, mut session) = (connect(lane).await?, lane.session());
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    let mut samples = Vec::new();
    session.open(&mut out);
    while !until.is_over(samples.len()) {
        let begun = Instant::now();
        session.request(&mut out);
        loop {
            if !out.is_empty() {
                stream.write_all(&out).await?;
                out.clear();
            }
            ensure!(stream.read_buf(&mut input).await? > 0, "the server has closed the connection");
            let (read, acked) = session.answers(&input, &mut out)?;
            input.advance(read);
            if acked > 0 {
                break;
            }
        }
        samples.push(begun.elapsed());
        if !until.pause.is_zero() {
            tokio::time::sleep(until.pause).await;
        }
    }
    Ok(samples)
}

/// A line without its end, and how many bytes it takes with it.
fn line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = input.windows(2).position(|two| two == b"\r\n")?;
    Some((&input[..end], end + 2))
}

/// A body of its own for each session to begin with.
fn first() -> u64 {
    rand::random_range(0..1 << 20)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each byte `?` with `!`, or hangs up after so many.
    async fn server(most: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut buffer, mut count) = ([0; 64], 0);
                    while let Ok(len) = stream.read(&mut buffer).await {
                        count += len;
                        let answers = vec![b'!'; len];
                        if len == 0 || count > most || stream.write_all(&answers).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        addr
    }

    struct Asks;

    impl Session for Asks {
        fn request(&mut self, out: &mut Vec<u8>) {
            out.push(b'?');
        }

        fn answers(&mut self, input: &[u8], _: &mut Vec<u8>) -> Result<(usize, usize)> {
            ensure!(input.iter().all(|byte| *byte == b'!'), "refused");
            Ok((input.len(), input.len()))
        }
    }

    async fn ask(most: usize, events: i64, in_flight: usize) -> Result<u64> {
        let stream = TcpStream::connect(server(most).await).await?;
        let shared = Shared { left: AtomicI64::new(events), acked: AtomicU64::new(0) };
        publish(stream, Box::new(Asks), in_flight, &shared).await?;
        Ok(shared.acked.into_inner())
    }

    #[tokio::test]
    async fn every_event_that_may_be_sent_is_acked_once() {
        for (events, in_flight) in [(1, 1), (7, 3), (100, 10), (3, 10), (0, 5)] {
            assert_eq!(ask(1_000, events, in_flight).await.unwrap(), events.unsigned_abs());
        }
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_is_an_error() {
        assert!(ask(50, 100, 10).await.is_err());
    }

    #[tokio::test]
    async fn a_real_server_acks_every_call_and_an_error_of_its_is_one_of_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(crate::limits::serve_on(listener));
        let lane = Lane::new(&addr, Protocol::Grpc("/limit.Limit/Publish"));
        let shape = Shape { connections: 4, in_flight: 5 };
        let outcome = run(&lane, shape, Enough::Events(1_000)).await.unwrap();
        assert_eq!((outcome.acked, outcome.timed), (1_000, 1_000));
        let outcome = run(&lane, shape, Enough::Time(Duration::from_millis(1))).await.unwrap();
        assert!(outcome.acked > outcome.timed);
        let hour = Duration::from_secs(3_600);
        assert_eq!(one(&lane, Until::within(20, hour)).await.unwrap().len(), 20);
        let unknown = Lane::new(&addr, Protocol::Grpc("/limit.Limit/Unknown"));
        let error = run(&unknown, shape, Enough::Events(10)).await.unwrap_err();
        assert!(error.to_string().contains("answered with an error"), "{error:#}");
        server.abort();
    }

    #[test]
    fn one_publisher_ends_at_a_number_a_time_or_when_told() {
        let hour = Duration::from_secs(3_600);
        assert!(Until::within(3, hour).is_over(3) && !Until::within(3, hour).is_over(2));
        assert!(Until::within(3, Duration::ZERO).is_over(0));
        let until = Until::paced(Duration::ZERO, None);
        assert!(!until.is_over(1_000_000));
        until.stop();
        assert!(until.is_over(0));
    }

    #[test]
    fn a_lane_is_of_a_host_and_a_port() {
        for addr in ["http://127.0.0.1:7", "127.0.0.1:7", "redis://127.0.0.1:7/"] {
            assert_eq!(Lane::new(addr, Protocol::Http).host, "127.0.0.1:7");
        }
    }
}
