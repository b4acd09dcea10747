//! What others feel beside attacks, and what those take of the daemon: one daemon, quiet and under each
//! attack in turn. The attacks are those of `tests/it/abuse`, which hold that they are refused.
//!
//! The victims: a publisher, one event after the other; a live watch, from the append to the delivery of each
//! of these events; and one that reads old events, a hundred at a time.
//!
//! Whoever attacks needs the same processors. So each attack is first made on another daemon beside: what the
//! victims feel of that is the machine's, and what is more is the daemon's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use prost::Message;
use tailmark_client::{Client, Item, Start, Watch, WatchOptions};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::peers::start_daemon;
use crate::process::Server;
use crate::stats;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The `tailmark` program
    #[arg(long, default_value = "target/release/tailmark")]
    daemon: PathBuf,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// These attacks alone
    #[arg(long, value_delimiter = ',')]
    only: Vec<Attack>,
    /// Where the log goes
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Attack {
    /// Whole requests, each reset as it begins
    Resets,
    /// Windows that change, over a thousand watches
    Windows,
    /// Uploads that say nothing, as many as are taken and more
    Uploads,
    /// Connections that say nothing, as many as are taken and more
    Connections,
    /// Pings
    Pings,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Calls that are written together.
const TOGETHER: u32 = 100;
/// Streams of a connection.
const STREAMS: u32 = 1_000;
/// Connections full of calls that say nothing.
const HELD: usize = 50;
/// Connections that say nothing.
const CONNECTIONS: usize = 20_000;

pub(crate) async fn run(args: Args) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("tailmark-abuse.").tempdir_in(&args.dir)?;
    for name in ["one", "other"] {
        std::fs::create_dir(dir.path().join(name))?;
    }
    let (server, addr) = start_daemon(&args.daemon, &dir.path().join("one"), &[]).await?;
    let (other, elsewhere) = start_daemon(&args.daemon, &dir.path().join("other"), &[]).await?;
    let mut victims = Victims::new(&addr).await?;
    let socket =
        |addr: &str| addr.trim_start_matches("http://").parse::<SocketAddr>().context("an address");
    let (here, elsewhere) = (socket(&addr)?, socket(&elsewhere)?);
    let time = Duration::from_secs(args.seconds);
    let attacks = if args.only.is_empty() { Attack::value_variants() } else { &args.only };
    println!("{:21} {:>9} {:^15} {:^15} {:^15}", "", "", "until acked", "until seen", "100 old");
    let (p50, p99) = ("p50 ms", "p99 ms");
    print!("{:21} {:>9}", "", "publishes");
    println!(" {p50:>7} {p99:>7} {p50:>7} {p99:>7} {p50:>7} {p99:>7} {:>7}", "RSS MB");
    victims.measure("quiet", &server, time).await?;
    for attack in attacks {
        let name = attack.to_possible_value().ok_or_else(|| anyhow!("a name"))?;
        let name = name.get_name();
        for (at, where_to) in [(elsewhere, " elsewhere"), (here, "")] {
            let mut attackers = JoinSet::new();
            attackers.spawn(again(*attack, at));
            let name = format!("{name}{where_to}");
            let measured = victims.measure(&name, &server, time).await;
            attackers.shutdown().await;
            measured?;
        }
    }
    victims.measure("afterwards", &server, time).await?;
    // What the allocator keeps goes after a while.
    tokio::time::sleep(Duration::from_secs(20)).await;
    victims.measure("20 s later", &server, time).await?;
    drop(victims);
    server.stop().await?;
    other.stop().await?;
    dir.close().context("cannot remove the directory of the log")
}

/// Old events, and how many of them are read at a time.
const OLD: u64 = 50_000;
const AT_A_TIME: u64 = 100;
/// Nobody waits longer for an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// Those who mean no harm, each on a connection of its own.
struct Victims {
    publisher: Client,
    watch: Watch,
    reader: Client,
    published: u64,
    read: u64,
}

impl Victims {
    /// Makes the old events, too.
    async fn new(addr: &str) -> Result<Victims> {
        let publisher = Client::new(addr)?;
        let old = pb::Event { topic: "old".into(), body: "x".repeat(200), ..Default::default() };
        let old = bytes::Bytes::from(old.encode_to_vec());
        publisher.upload(tokio_stream::iter((0..OLD).map(move |_| old.clone()))).await?;
        let mut options = WatchOptions::default();
        (options.patterns, options.markers) = (vec!["victim".to_owned()], true);
        let mut watch = Client::new(addr)?.watch(options);
        // It has begun.
        watch.next().await.context("a watch")??;
        Ok(Victims { publisher, watch, reader: Client::new(addr)?, published: 0, read: 0 })
    }

    async fn measure(&mut self, name: &str, server: &Server, time: Duration) -> Result<()> {
        let (mut acked, mut seen, mut read) = (Vec::new(), Vec::new(), Vec::new());
        let begun = Instant::now();
        while begun.elapsed() < time {
            let (ack, delivery) = tokio::time::timeout(PATIENCE, self.publish()).await??;
            acked.push(stats::ms(ack));
            seen.push(stats::ms(delivery));
        }
        let begun = Instant::now();
        while begun.elapsed() < time {
            let one = Instant::now();
            tokio::time::timeout(PATIENCE, self.read()).await??;
            read.push(stats::ms(one.elapsed()));
        }
        print!("{name:21} {:>9}", acked.len());
        for times in [acked, seen, read] {
            let of = |percent| stats::percentile(&times, percent).unwrap_or(f64::NAN);
            print!(" {:>7.2} {:>7.2}", of(50), of(99));
        }
        println!(" {:>7}", server.memory()?.resident >> 20);
        Ok(())
    }

    /// How long one event takes until its ack, and until the watch has it.
    async fn publish(&mut self) -> Result<(Duration, Duration)> {
        self.published += 1;
        let body = self.published.to_string();
        let event =
            pb::Event { topic: "victim".to_owned(), body: body.clone(), ..pb::Event::default() };
        let begun = Instant::now();
        let publish = async {
            self.publisher.publish(event, None).await?;
            anyhow::Ok(begun.elapsed())
        };
        let watch = &mut self.watch;
        let seen = async {
            loop {
                let Item::Event(received) = watch.next().await.context("the watch ended")?? else {
                    continue;
                };
                if received.event()?.body == body {
                    return anyhow::Ok(begun.elapsed());
                }
            }
        };
        tokio::try_join!(publish, seen)
    }

    /// Some old events, elsewhere each time.
    async fn read(&mut self) -> Result<()> {
        self.read += 1;
        let mut options = WatchOptions::default();
        // A prime number, so that it is everywhere.
        options.start = Start::Seq(Seq::new(1 + self.read * 7_919 % (OLD - AT_A_TIME)));
        options.limit = AT_A_TIME;
        let mut watch = self.reader.watch(options);
        let mut count = 0;
        while let Some(item) = watch.next().await {
            count += u64::from(matches!(item?, Item::Event(_)));
        }
        ensure!(count == AT_A_TIME, "{count} old events came");
        Ok(())
    }
}

/// Comes back when it is sent away, until it is stopped.
async fn again(attack: Attack, at: SocketAddr) {
    loop {
        // That is how an attack that is refused ends.
        let _ = one(attack, at).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn one(attack: Attack, at: SocketAddr) -> Result<()> {
    match attack {
        Attack::Connections => {
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS {
                held.push(TcpStream::connect(at).await?);
            }
            std::future::pending().await
        }
        Attack::Uploads => {
            let calls = (0..STREAMS).flat_map(|at| begin(1 + 2 * at, "UploadEvents", false));
            let calls: Vec<_> = calls.collect();
            let mut held = Vec::new();
            for _ in 0..HELD {
                let mut stream = connect(at).await?;
                stream.write_all(&calls).await?;
                held.push(stream);
            }
            std::future::pending().await
        }
        Attack::Resets => {
            flood(at, Vec::new(), |round| {
                let streams = (0..TOGETHER).map(|at| 1 + 2 * (round * TOGETHER + at));
                let reset = |at| [begin(at, "GetLog", true), frame(3, 0, at, &[0, 0, 0, 8])];
                streams.flat_map(|at| reset(at).concat()).collect()
            })
            .await
        }
        Attack::Windows => {
            let watches = (0..STREAMS).flat_map(|at| begin(1 + 2 * at, "Watch", true)).collect();
            let window = |size: u32| frame(4, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
            flood(at, watches, |_| [window(65_535), window(1 << 20)].concat()).await
        }
        Attack::Pings => flood(at, Vec::new(), |_| frame(6, 0, 0, &[7; 8]).repeat(100)).await,
    }
}

async fn connect(at: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(PREFACE).await?;
    Ok(stream)
}

/// Writes as fast as it is taken, and throws away what comes, until the connection ends.
async fn flood(at: SocketAddr, first: Vec<u8>, rest: impl Fn(u32) -> Vec<u8>) -> Result<()> {
    let (mut read, mut write) = connect(at).await?.into_split();
    let reads = async {
        let mut buffer = vec![0; 64 << 10];
        while read.read(&mut buffer).await? > 0 {}
        anyhow::Ok(())
    };
    let writes = async {
        write.write_all(&first).await?;
        for round in 0.. {
            write.write_all(&rest(round)).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = reads => ended,
        ended = writes => ended,
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = len[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A call, with its one message, which is empty, or without any.
fn begin(stream: u32, method: &str, message: bool) -> Vec<u8> {
    let path = format!("/feed.v1.FeedService/{method}");
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &*path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // A literal without indexing; RFC 7541 section 6.2.2.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            block.extend(text.as_bytes());
        }
    }
    let mut bytes = frame(1, 4, stream, &block);
    if message {
        bytes.extend(frame(0, 1, stream, &[0; 5]));
    }
    bytes
}
