//! Tailmark alone, large: memory while a large log is replayed, how long it takes to open, whether
//! appends get slower as it grows, what stalled watchers cost a publisher, and what events take on
//! disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use tailmark_wire::feed_v1 as pb;
use tokio::process::Command;

use crate::calls;
use crate::peers::{Peer, Replay, Tailmark, share, start_daemon};
use crate::process::{self, Server};
use crate::sample::{BODY_BYTES, Load};
use crate::stats;

/// Events of one append, of which the rate is taken.
const CHUNK: u64 = 1_000_000;
/// Chunks of which the median counts, at either end.
const ENDS: usize = 5;
/// On disk by body, generously: bodies that do not compress, and the events around them.
const DISK_FACTOR: u64 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The `tailmark` program
    #[arg(long, default_value = "target/release/tailmark")]
    daemon: PathBuf,
    /// Millions of events of 200 bytes; 50 make a log of 10 GB of bodies
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    millions: u64,
    /// Publishes a round, of three, with each number of stalled watchers
    #[arg(long, default_value_t = 2_000)]
    publishes: usize,
    /// A file of JSON lines, as `tailmark upload --format jsonl` takes it: what do they take on disk?
    #[arg(long)]
    jsonl: Option<PathBuf>,
    /// That file alone
    #[arg(long, requires = "jsonl")]
    only_jsonl: bool,
    /// Where the log goes
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let needed = match args.only_jsonl {
        true => 1 << 30,
        false => args.millions * CHUNK * BODY_BYTES as u64 * DISK_FACTOR + (1 << 30),
    };
    let free = process::free_bytes(&args.dir)?;
    ensure!(
        free >= needed,
        "{} has {} MB free, up to {} MB are needed; fewer --millions need less",
        args.dir.display(),
        free >> 20,
        needed >> 20
    );
    // Removed at the end, also of an error, and after its daemon.
    let dir = tempfile::Builder::new().prefix("tailmark-large.").tempdir_in(&args.dir)?;
    if !args.only_jsonl {
        let log = dir.path().join("large");
        std::fs::create_dir(&log)?;
        large_log(&args, &log).await?;
        std::fs::remove_dir_all(&log)?;
    }
    if let Some(file) = &args.jsonl {
        on_disk(&args.daemon, file, dir.path()).await?;
    }
    dir.close().context("cannot remove the log")
}

async fn large_log(args: &Args, dir: &Path) -> Result<()> {
    let events = args.millions * CHUNK;
    let (server, addr) = start_daemon(&args.daemon, dir, &[]).await?;
    let tailmark = Tailmark::attach(&addr)?;
    let rates = append(&tailmark, args.millions).await?;
    print_rates(&rates);
    print_memory("after appending", &server)?;
    for (how, name) in
        [(Replay::Received, "one event a message"), (Replay::Batches, "in batches, decoded")]
    {
        let took = tailmark.replay(how, events).await?.context("no replay")?;
        println!("replay {name}: {:.2} M events/s", stats::rate(events, took) / 1e6);
        print_memory("while replaying", &server)?;
    }
    stalled(&tailmark, &addr, args.publishes).await?;
    println!("on disk: {} MB", process::disk_bytes(dir)? / 1_000_000);
    append(&tailmark, 1).await?;
    drop(tailmark);
    // In the middle of whatever it has to do after that.
    server.kill().await?;
    let server = opened("kill -9 right after appends", args, dir).await?;
    server.settled_memory().await?;
    server.stop().await?;
    opened("a clean stop", args, dir).await?.stop().await?;
    Ok(())
}

async fn append(tailmark: &Tailmark, chunks: u64) -> Result<Vec<f64>> {
    let mut rates = Vec::new();
    for _ in 0..chunks {
        let took = tailmark.append(Load::of(CHUNK)).await?.context("no append")?;
        rates.push(stats::rate(CHUNK, took));
    }
    Ok(rates)
}

/// Of how many, and the medians of the rates of so many at the beginning and at the end.
fn ends(rates: &[f64]) -> Option<(usize, f64, f64)> {
    let count = ENDS.min(rates.len().div_ceil(2));
    let first = stats::median(rates.get(..count)?)?;
    let last = stats::median(rates.get(rates.len() - count..)?)?;
    Some((count, first, last))
}

fn print_rates(rates: &[f64]) {
    if let Some((count, first, last)) = ends(rates) {
        println!(
            "append: {:.2} M events/s in the first {count} million, {:.2} in the last {count} of {}: {:.2} of it",
            first / 1e6,
            last / 1e6,
            rates.len(),
            last / first
        );
    }
}

fn print_memory(when: &str, server: &Server) -> Result<()> {
    let memory = server.memory()?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "memory {when}: {:.0} MB resident, {:.0} MB at most so far",
        mb(memory.resident),
        mb(memory.peak)
    );
    Ok(())
}

/// Starts the daemon again; says how long that took, from the program's start to its ready line.
async fn opened(after: &str, args: &Args, dir: &Path) -> Result<Server> {
    let begun = Instant::now();
    let (server, _) = start_daemon(&args.daemon, dir, &[]).await?;
    println!("open after {after}: {:.0} ms", stats::ms(begun.elapsed()));
    Ok(server)
}

/// Publishes with stalled watchers beside it: numbers of them in turn, three rounds.
async fn stalled(tailmark: &Tailmark, addr: &str, publishes: usize) -> Result<()> {
    const NUMBERS: [usize; 3] = [0, 100, 1_000];
    let mut medians: Vec<[Vec<f64>; 2]> = vec![Default::default(); NUMBERS.len()];
    tailmark.publish(publishes / 10).await?;
    for _ in 0..3 {
        for (number, medians) in NUMBERS.into_iter().zip(&mut medians) {
            let held = stall(addr, number).await?;
            let samples = tailmark.publish(publishes).await?.unwrap_or_default();
            let samples: Vec<f64> = samples.into_iter().map(stats::ms).collect();
            for (medians, percent) in medians.iter_mut().zip([50, 99]) {
                medians.extend(stats::percentile(&samples, percent));
            }
            drop(held);
        }
    }
    for (number, [p50, p99]) in NUMBERS.into_iter().zip(&medians) {
        let (p50, p99) = (stats::median(p50), stats::median(p99));
        println!(
            "publish to durable ack, {number} stalled watchers: p50 {:.3} ms, p99 {:.3} ms",
            p50.unwrap_or_default(),
            p99.unwrap_or_default()
        );
    }
    Ok(())
}

/// Watches from the oldest event on which nobody reads: their windows are full at once.
async fn stall(addr: &str, watchers: usize) -> Result<Vec<tonic::Streaming<Bytes>>> {
    let request = pb::WatchRequest {
        start: Some(pb::Start { at: Some(pb::start::At::Oldest(true)) }),
        ..pb::WatchRequest::default()
    };
    let request = Bytes::from(request.encode_to_vec());
    let mut held = Vec::new();
    for at in 0..10 {
        let channel = calls::connect(addr).await?;
        for _ in 0..share(watchers, 10, at) {
            let path = "/feed.v1.FeedService/Watch";
            held.push(calls::server_streaming(channel.clone(), path, request.clone()).await?);
        }
    }
    Ok(held)
}

/// What the events of a file take on disk once they are sealed, against their JSON.
async fn on_disk(program: &Path, file: &Path, dir: &Path) -> Result<()> {
    let json = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
    let dir = dir.join("jsonl");
    std::fs::create_dir(&dir)?;
    // So that all of it is sealed soon.
    let settings = [("TAILMARK_STORAGE_SEAL_AFTER", "1s")];
    let (server, addr) = start_daemon(program, &dir, &settings).await?;
    let mut upload = Command::new(program);
    upload.args(["upload", "--format", "jsonl", "--topic", "bench.lines", "--addr", &addr]);
    let status = upload.arg(file).kill_on_drop(true).status().await?;
    ensure!(status.success(), "the upload failed: {status}");
    let head = Tailmark::attach(&addr)?.log().await?.head_seq;
    ensure!(head > 0, "the file has no events");
    let segments = dir.join("log/segments");
    let (begun, mut last, mut same) = (Instant::now(), 0, 0);
    while same < 10 {
        if begun.elapsed() > Duration::from_secs(600) {
            bail!("the events are not sealed");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = process::disk_bytes(&segments)?;
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    println!(
        "{head} events, {json} bytes of JSON; sealed {last} bytes on disk: {:.1} an event, {:.2} of \
         the JSON",
        last as f64 / head as f64,
        last as f64 / json as f64
    );
    server.stop().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_medians_of_their_own() {
        assert_eq!(ends(&[]), None);
        assert_eq!(ends(&[3.0]), Some((1, 3.0, 3.0)));
        assert_eq!(ends(&[4.0, 2.0]), Some((1, 4.0, 2.0)));
        let rates: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!(ends(&rates), Some((5, 3.0, 48.0)));
    }
}
