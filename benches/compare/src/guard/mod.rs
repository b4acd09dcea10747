//! The regression guard: our appends and replays against the limits of the same minute.
//!
//! What is compared is time on a processor, of client and server together, for each event: on a
//! machine on which everything shares a few cores that is what throughput hangs on, and unlike time
//! on a clock it stays what it is when others are busy, too. Rounds go in alternation, so that what
//! does disturb falls on all alike. Appends count everything until the daemon is at rest again, with
//! sealing; the cost of a replay is that of the best round. An append has two limits, the wire and
//! the disk: they are added.
//!
//! Many publishers are held against the bare echo of the wire, and one publisher beside watches of other topics against
//! one alone.
//!
//! Time on a clock is held against the limits too, the best round alone and only to tell a stall:
//! on a busy machine it says no more.

mod clients;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::limits::{File, Tonic};
use crate::peers::{Peer, Replay, Setup, Tailmark};
use crate::process;
use crate::sample::Load;

/// Until a daemon that has nothing to do any more is at rest.
const REST: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The `tailmark` program, optimised as this one is
    #[arg(long, default_value = "target/release/tailmark")]
    daemon: PathBuf,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Events of one measurement
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    events: u64,
    /// Where the daemon puts its log; takes up to about 3 GB
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Then do our work twice where it is measured once, and fail unless all of that is caught
    #[arg(long)]
    control: bool,
}

/// What is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guarded {
    Append,
    AppendBatches,
    Replay,
    ReplayBatches,
    /// Single publishes from 50 connections.
    Publishers,
    /// One publisher beside 10,000 watches of other topics.
    Interest,
}

/// What a ratio must not fall below.
#[derive(Clone, Copy, Debug)]
struct Floors {
    cpu: f64,
    clock: f64,
}

impl Guarded {
    /// What works on many events at once.
    const STREAMS: [Guarded; 4] =
        [Guarded::Append, Guarded::AppendBatches, Guarded::Replay, Guarded::ReplayBatches];

    fn name(self) -> &'static str {
        match self {
            Guarded::Append => "append, one event a message",
            Guarded::AppendBatches => "append, batches",
            Guarded::Replay => "replay, one event a message",
            Guarded::ReplayBatches => "replay, batches",
            Guarded::Publishers => "publishes, 50 connections",
            Guarded::Interest => "publishes beside 10,000 watches of other topics",
        }
    }

    /// About six tenths of what is usual: 0.178, 0.116, 0.864 and 0.792 where nothing else runs, and 0.090, 0.064,
    /// 0.360 and 0.375 with our work done twice.
    fn floors(self) -> Floors {
        match self {
            Guarded::Append => Floors { cpu: 0.105, clock: 0.15 },
            Guarded::AppendBatches => Floors { cpu: 0.07, clock: 0.15 },
            Guarded::Replay => Floors { cpu: 0.52, clock: 0.15 },
            Guarded::ReplayBatches => Floors { cpu: 0.48, clock: 0.15 },
            // 0.35 to 0.42 where other work goes on.
            Guarded::Publishers => Floors { cpu: 0.21, clock: 0.15 },
            // 0.95 where other work goes on; 0.006 where every watch wakes.
            Guarded::Interest => Floors { cpu: 0.57, clock: 0.15 },
        }
    }

    fn is_append(self) -> bool {
        matches!(self, Guarded::Append | Guarded::AppendBatches)
    }

    /// How many times our events the limit of the wire takes, to be busy for about as long.
    fn tonic_scale(self) -> u32 {
        match self {
            Guarded::Append => 4,
            Guarded::AppendBatches => 8,
            Guarded::Replay | Guarded::ReplayBatches => 2,
            Guarded::Publishers | Guarded::Interest => 1,
        }
    }

    async fn work(self, peer: &dyn Peer, events: u64) -> Result<()> {
        match self {
            Guarded::Append => peer.append(Load::of(events)).await?,
            Guarded::AppendBatches => peer.append_batches(Load::of(events), 1_000).await?,
            Guarded::Replay => peer.replay(Replay::Received, events).await?,
            Guarded::ReplayBatches => peer.replay(Replay::Batches, events).await?,
            Guarded::Publishers | Guarded::Interest => None,
        };
        Ok(())
    }
}

/// What some work took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    cpu: Duration,
    clock: Duration,
}

impl Cost {
    /// Of doing the work once, when it was done so often.
    fn each(self, times: u32) -> Cost {
        Cost { cpu: self.cpu / times, clock: self.clock / times }
    }

    fn times(self, times: u32) -> Cost {
        Cost { cpu: self.cpu * times, clock: self.clock * times }
    }

    fn plus(self, other: Cost) -> Cost {
        Cost { cpu: self.cpu + other.cpu, clock: self.clock + other.clock }
    }
}

/// What one kind of work took in all rounds.
#[derive(Debug)]
struct Costs {
    of: Guarded,
    ours: Vec<Cost>,
    /// Wire and, of an append, disk.
    limit: Vec<Cost>,
    /// What the daemon did after it had answered.
    later: Duration,
}

impl Costs {
    fn new(of: Guarded) -> Costs {
        Costs { of, ours: Vec::new(), limit: Vec::new(), later: Duration::ZERO }
    }

    /// How much of what we take the limits take, in time on a processor.
    fn cpu_ratio(&self) -> f64 {
        let of = |costs: &[Cost]| -> Duration {
            let each = costs.iter().map(|cost| cost.cpu);
            if self.of.is_append() { each.sum() } else { each.min().unwrap_or_default() }
        };
        of(&self.limit).as_secs_f64() / (of(&self.ours) + self.later).as_secs_f64().max(1e-9)
    }

    /// The same in time on a clock, of the best round.
    fn clock_ratio(&self) -> f64 {
        let ratio = |(limit, ours): (&Cost, &Cost)| {
            limit.clock.as_secs_f64() / ours.clock.as_secs_f64().max(1e-9)
        };
        self.limit.iter().zip(&self.ours).map(ratio).fold(0.0, f64::max)
    }

    fn is_too_slow(&self) -> bool {
        let floors = self.of.floors();
        self.cpu_ratio() < floors.cpu || self.clock_ratio() < floors.clock
    }

    fn line(&self) -> String {
        let floors = self.of.floors();
        format!(
            "{}: limit by ours, time on a processor {:.3} (floor {:.3}), on a clock {:.2} (floor {:.2})",
            self.of.name(),
            self.cpu_ratio(),
            floors.cpu,
            self.clock_ratio(),
            floors.clock
        )
    }
}

/// Does the work, and says what it took of us and of the server.
async fn cost(of: Guarded, peer: &dyn Peer, events: u64, times: u32) -> Result<Cost> {
    let work = async {
        for _ in 0..times {
            of.work(peer, events).await?;
        }
        Ok(())
    };
    Ok(spent(peer, work).await?.0)
}

/// What some work took of us and of the server, and what came of it.
async fn spent<T>(peer: &dyn Peer, work: impl Future<Output = Result<T>>) -> Result<(Cost, T)> {
    let cpu = || -> Result<Duration> {
        let servers = peer.server().map(|server| server.cpu()).transpose()?;
        Ok(process::own_cpu()? + servers.unwrap_or_default())
    };
    let (before, begun) = (cpu()?, Instant::now());
    let done = work.await?;
    Ok((Cost { cpu: cpu()?.saturating_sub(before), clock: begun.elapsed() }, done))
}

/// Waits until a server has nothing to do; answers what it did until then.
async fn rest(peer: &dyn Peer) -> Result<Duration> {
    let cpu = || peer.server().map_or(Ok(Duration::ZERO), |server| server.cpu());
    let (first, begun) = (cpu()?, Instant::now());
    let mut last = first;
    loop {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = cpu()?;
        // A tick is what it takes to stand around.
        if now <= last + Duration::from_millis(10) || begun.elapsed() > REST {
            return Ok(now.saturating_sub(first));
        }
        last = now;
    }
}

/// All that is guarded, with our work done so often where it counts once.
async fn measure(args: &Args, times: u32) -> Result<Vec<Costs>> {
    let dir = tempfile::Builder::new().prefix("tailmark-guard.").tempdir_in(&args.dir)?;
    let setup = Setup::new(&args.daemon, dir.path());
    let tailmark = Tailmark::start(&setup).await?;
    let (tonic, file) = (Tonic::start(&setup).await?, File::create(&setup)?);
    let mut all = Vec::new();
    for of in Guarded::STREAMS {
        let mut costs = Costs::new(of);
        for _ in 0..args.rounds {
            let ours = cost(of, &tailmark, args.events, times).await?;
            // What is sealed now was appended before; no other work may be slowed by it.
            costs.later += rest(&tailmark).await?;
            costs.ours.push(ours);
            let scale = of.tonic_scale();
            let wire = cost(of, &tonic, args.events * u64::from(scale), 1).await?.each(scale);
            let disk = cost(of, &file, args.events, if of.is_append() { 3 } else { 1 }).await?;
            let disk = disk.each(if of.is_append() { 3 } else { 1 });
            costs.limit.push(wire.plus(disk));
        }
        if !of.is_append() {
            // Nothing is left to be done after a replay but what stands around anyway.
            costs.later = Duration::ZERO;
        }
        println!("{}", costs.line());
        all.push(costs);
    }
    for costs in [
        clients::publishers(&tailmark, &tonic, args.rounds, times).await?,
        clients::interest(&tailmark, &setup, args.rounds, times).await?,
    ] {
        println!("{}", costs.line());
        all.push(costs);
    }
    drop((tailmark, tonic, file));
    dir.close().context("cannot remove the log")?;
    Ok(all)
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let slow = |all: &[Costs]| -> Vec<String> {
        all.iter().filter(|costs| costs.is_too_slow()).map(Costs::line).collect()
    };
    let found = slow(&measure(&args, 1).await?);
    if !found.is_empty() {
        bail!("slower than it was against the limits of this machine: {}", found.join("; "));
    }
    if args.control {
        println!("again, with our work done twice:");
        let halved = measure(&args, 2).await?;
        let missed: Vec<_> =
            halved.iter().filter(|costs| !costs.is_too_slow()).map(Costs::line).collect();
        if !missed.is_empty() {
            bail!("a halving was not caught: {}", missed.join("; "));
        }
        println!("all of it was caught");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(of: Guarded, ours: &[(u64, u64)], limit: &[(u64, u64)], later: u64) -> Costs {
        let ms = Duration::from_millis;
        let cost = |(cpu, clock): &(u64, u64)| Cost { cpu: ms(*cpu), clock: ms(*clock) };
        Costs {
            of,
            ours: ours.iter().map(cost).collect(),
            limit: limit.iter().map(cost).collect(),
            later: ms(later),
        }
    }

    #[test]
    fn an_append_counts_everything_and_a_replay_its_best_round() {
        let (ours, limit) = ([(300, 100), (500, 400)], [(100, 50), (100, 100)]);
        let append = costs(Guarded::Append, &ours, &limit, 200);
        let is = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        is(append.cpu_ratio(), 0.2);
        is(append.clock_ratio(), 0.5);
        let replay = costs(Guarded::Replay, &ours, &limit, 0);
        is(replay.cpu_ratio(), 1.0 / 3.0);
    }

    #[test]
    fn a_halving_at_the_usual_ratio_is_caught_and_the_usual_is_not() {
        for of in Guarded::STREAMS.into_iter().chain([Guarded::Publishers, Guarded::Interest]) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "thousands"
            )]
            let usual = (10_000.0 * of.floors().cpu * 1.5) as u64;
            assert!(!costs(of, &[(10_000, 100)], &[(usual, 100)], 0).is_too_slow());
            assert!(costs(of, &[(20_000, 100)], &[(usual, 100)], 0).is_too_slow());
        }
    }

    #[test]
    fn a_stall_is_caught_by_the_clock() {
        let of = Guarded::Replay;
        assert!(costs(of, &[(100, 1_000)], &[(60, 100)], 0).is_too_slow());
        // One good round is enough: others may have been in the way.
        let ours = [(100, 1_000), (100, 150)];
        assert!(!costs(of, &ours, &[(60, 100), (60, 100)], 0).is_too_slow());
    }

    #[test]
    fn costs_are_for_doing_the_work_once() {
        let cost = Cost { cpu: Duration::from_millis(40), clock: Duration::from_millis(80) };
        let each = Cost { cpu: Duration::from_millis(10), clock: Duration::from_millis(20) };
        assert_eq!(cost.each(4), each);
        assert_eq!(each.plus(each), cost.each(2));
    }
}
