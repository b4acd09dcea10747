//! kill -9 of the real daemon at random moments, with clients that keep what they were told.
//! `KILL9_CYCLES=10000` for more, `CRASH_SEED` for the same delays again.

#[path = "../crash/mod.rs"]
mod crash;
mod daemon;
mod history;
mod load;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use daemon::Daemon;
use history::History;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn main() {
    crash::run(&[("no_kill_loses_what_was_acked", kills)]);
}

/// What a cycle was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Killed before it was ready.
    Start,
    /// Killed while nobody wanted anything.
    Idle,
    /// Killed under load.
    Load,
}

fn kills() {
    let cycles = crash::env_number("KILL9_CYCLES", 100);
    let seed = crash::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut history = History::default();
    let mut fell: BTreeMap<String, u64> = BTreeMap::new();
    let mut slowest_start = Duration::ZERO;
    for cycle in 0..cycles {
        let moment = match rng.random_range(0..10) {
            0 | 1 => Moment::Start,
            2 => Moment::Idle,
            _ => Moment::Load,
        };
        let begun = Instant::now();
        let mut daemon = Daemon::start(scratch.path());
        if moment == Moment::Start {
            // Anywhere in what a start takes.
            let span = slowest_start.max(Duration::from_millis(40)).as_micros() as u64;
            crash::pass(Duration::from_micros(rng.random_range(0..span)));
            daemon.kill();
            *fell.entry("start".into()).or_default() += 1;
            continue;
        }
        daemon.wait_until_ready();
        slowest_start = slowest_start.max(begun.elapsed());
        runtime.block_on(history.verify(&daemon.address()));
        let what = if moment == Moment::Idle {
            crash::pass(Duration::from_micros(rng.random_range(0..60_000)));
            daemon.kill();
            "idle".to_owned()
        } else {
            let delay = Duration::from_micros(rng.random_range(1_000..200_000));
            let address = daemon.address();
            runtime.block_on(load::run(&address, cycle, &mut history, async {
                tokio::time::sleep(delay).await;
                daemon.kill();
            }));
            daemon.where_it_fell()
        };
        *fell.entry(what).or_default() += 1;
    }
    let mut daemon = Daemon::start(scratch.path());
    daemon.wait_until_ready();
    runtime.block_on(history.verify(&daemon.address()));
    daemon.stop();
    println!("  {cycles} kills fell: {fell:?}");
    println!("  {history}; slowest start {} ms", slowest_start.as_millis());
    assert!(history.acked() > cycles, "hardly anything was acked: the kills prove nothing");
}
