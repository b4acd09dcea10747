//! What a publisher feels beside attacks, and what they take of the daemon: one daemon, quiet and under each
//! attack in turn. The attacks are those of `tests/it/abuse`, which hold that they are refused.
//!
//! Whoever attacks needs the same processors. So each attack is first made on another daemon beside: what the
//! publisher feels of that is the machine's, and what is more is the daemon's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

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
    let client = Client::new(&addr)?;
    let socket =
        |addr: &str| addr.trim_start_matches("http://").parse::<SocketAddr>().context("an address");
    let (here, elsewhere) = (socket(&addr)?, socket(&elsewhere)?);
    let time = Duration::from_secs(args.seconds);
    let attacks = if args.only.is_empty() { Attack::value_variants() } else { &args.only };
    println!("{:21} {:>9} {:>8} {:>8} {:>8}", "", "publishes", "p50 ms", "p99 ms", "RSS MB");
    measure("quiet", &client, &server, time).await?;
    for attack in attacks {
        let name = attack.to_possible_value().ok_or_else(|| anyhow!("a name"))?;
        let name = name.get_name();
        for (at, where_to) in [(elsewhere, " elsewhere"), (here, "")] {
            let mut attackers = JoinSet::new();
            attackers.spawn(again(*attack, at));
            let name = format!("{name}{where_to}");
            let measured = measure(&name, &client, &server, time).await;
            attackers.shutdown().await;
            measured?;
        }
    }
    measure("afterwards", &client, &server, time).await?;
    // What the allocator keeps goes after a while.
    tokio::time::sleep(Duration::from_secs(20)).await;
    measure("20 s later", &client, &server, time).await?;
    drop(client);
    server.stop().await?;
    other.stop().await?;
    dir.close().context("cannot remove the directory of the log")
}

async fn measure(name: &str, client: &Client, server: &Server, time: Duration) -> Result<()> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let event =
            pb::Event { topic: "victim".to_owned(), body: "x".to_owned(), ..pb::Event::default() };
        let one = Instant::now();
        client.publish(event, None).await?;
        took.push(stats::ms(one.elapsed()));
    }
    let of = |percent| stats::percentile(&took, percent).unwrap_or(f64::NAN);
    let (p50, p99, resident) = (of(50), of(99), server.memory()?.resident >> 20);
    println!("{name:21} {:>9} {p50:>8.2} {p99:>8.2} {resident:>8}", took.len());
    Ok(())
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
