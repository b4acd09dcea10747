//! kill -9 of the real daemon at random moments, with clients that keep what they were told.
//! `KILL9_CYCLES=10000` for more, `CRASH_SEED` for the same delays again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a harness ends where something is not as it must be, and counts small numbers"
)]

#[path = "../crash/mod.rs"]
mod crash;
mod daemon;
mod history;
mod limits;
mod load;
mod rules;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use daemon::Daemon;
use history::History;
use limits::Limit;
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
    /// Killed under load, with a client that trims.
    Load,
    /// Killed under load while it removes what is beyond a limit.
    Retention(Limit),
    /// Killed under load while it takes events out by the rules of their topics.
    Rules,
}

/// A daemon under load is over its limit by then, whatever the machine is busy with.
const PATIENCE: Duration = Duration::from_secs(180);

impl Moment {
    fn any(rng: &mut StdRng) -> Moment {
        match rng.random_range(0..20) {
            0..3 => Moment::Start,
            3..5 => Moment::Idle,
            5..10 => Moment::Load,
            10..13 => Moment::Rules,
            _ => Moment::Retention(Limit::any(rng)),
        }
    }

    /// What its daemon removes by itself.
    fn limit(self, rng: &mut StdRng) -> Option<Limit> {
        match self {
            Moment::Start | Moment::Idle => rng.random_bool(0.5).then(|| Limit::any(rng)),
            Moment::Load | Moment::Rules => None,
            Moment::Retention(limit) => Some(limit),
        }
    }

    /// Whether its daemon has rules for topics.
    fn has_rules(self, rng: &mut StdRng) -> bool {
        match self {
            Moment::Rules => true,
            Moment::Start | Moment::Idle => rng.random_bool(0.5),
            Moment::Load | Moment::Retention(_) => false,
        }
    }
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
        let moment = Moment::any(&mut rng);
        let limit = moment.limit(&mut rng);
        let begun = Instant::now();
        let has_rules = moment.has_rules(&mut rng);
        let mut daemon = Daemon::start(scratch.path(), limit, has_rules);
        history.is_limited_by(limit, has_rules);
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
        runtime.block_on(history.verify(&daemon.address(), daemon.data()));
        let what = if moment == Moment::Idle {
            crash::pass(Duration::from_micros(rng.random_range(0..60_000)));
            daemon.kill();
            "idle".to_owned()
        } else {
            let delay = Duration::from_micros(rng.random_range(1_000..200_000));
            let (address, data) = (daemon.address(), daemon.data().to_owned());
            let place = load::Place { address, data, cycle, trims: moment == Moment::Load };
            // Most of them at once when something is thrown away.
            let pause = [0, 0, rng.random_range(0..20_000)][rng.random_range(0..3)];
            runtime.block_on(load::run(place, &mut history, async {
                if limit.is_some() || moment == Moment::Rules {
                    daemon.wait_until_it_throws_away(PATIENCE).await;
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                } else {
                    tokio::time::sleep(delay).await;
                }
                daemon.kill();
            }));
            daemon.where_it_fell()
        };
        *fell.entry(what).or_default() += 1;
    }
    let mut daemon = Daemon::start(scratch.path(), None, false);
    daemon.wait_until_ready();
    history.is_limited_by(None, false);
    runtime.block_on(history.verify(&daemon.address(), daemon.data()));
    daemon.stop();
    println!("  {cycles} kills fell: {fell:?}");
    println!("  {history}; slowest start {} ms", slowest_start.as_millis());
    assert!(history.acked() > cycles, "hardly anything was acked: the kills prove nothing");
    if cycles >= 100 {
        let in_retention: u64 = fell
            .iter()
            .filter(|(what, _)| what.contains("retention"))
            .map(|(_, count)| count)
            .sum();
        assert!(in_retention > 0, "no kill fell into retention");
        let in_rules = fell.keys().any(|what| what.contains("rules"));
        assert!(in_rules && history.taken_out() > 0, "no kill fell into taking events out");
        for limit in Limit::ALL {
            assert!(history.removed_by(limit) > 0, "nothing was removed by {limit}");
        }
    }
}
