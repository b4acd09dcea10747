//! Hours of churn on the real daemon: uploads, publishes, a producer, watches that come and go, cut
//! connections, retention, reloads, stops and kills. One watch sees all of it and holds it against what
//! was acked; memory, threads and descriptors of the daemon are written down and drawn.
//!
//! `cargo test --test soak -- --minutes 60`; half a minute if nothing is said. What it wrote is in
//! `target/soak`.
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

mod audit;
mod churn;
#[path = "../crash/mod.rs"]
mod crash;
mod drawing;
mod samples;
#[allow(dead_code, reason = "a part of what the integration tests share")]
mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use audit::Audit;
use samples::Samples;
use support::daemon::Daemon;
use support::proxy::Proxy;

fn main() {
    crash::run(&[
        ("hours_of_churn_lose_nothing_and_leave_nothing_behind", soak),
        ("each_check_of_the_audit_can_fail", audit::each_check_can_fail),
    ]);
}

fn minutes() -> f64 {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == "--minutes");
    at.map_or(0.5, |at| args.get(at + 1).and_then(|n| n.parse().ok()).expect("--minutes N"))
}

/// Retention that is always at work.
const SETTINGS: &str = "TAILMARK_RETENTION_MAX_EVENTS=30000 TAILMARK_RETENTION_INTERVAL=200ms \
                        exec \"$0\" \"$@\"";

fn soak() {
    let time = Duration::from_secs_f64(minutes() * 60.0);
    let seed = crash::seed();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let samples = runtime.block_on(run(dir.path(), time, seed));
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/soak");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("soak.csv"), samples.csv()).unwrap();
    std::fs::write(out.join("soak.svg"), drawing::svg(&samples)).unwrap();
    println!("  {}", samples.summary());
    samples.check();
}

async fn run(dir: &Path, time: Duration, seed: u64) -> Samples {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut daemon = Daemon::start_with(dir, SETTINGS);
    let proxy = Arc::new(Proxy::to(daemon.address()).await);
    let audit = Arc::new(Mutex::new(Audit::default()));
    let mut churn = churn::begin(&proxy, &audit, rng.random());
    let begun = Instant::now();
    let mut samples = Samples::default();
    // A stop and a kill in each quarter of an hour, and one of them in any run.
    let pause = (time / 2).min(Duration::from_secs(450));
    let (mut next_restart, mut next_reload) = (pause, Duration::from_secs(3));
    let mut is_kill = false;
    while begun.elapsed() < time {
        samples.take(begun.elapsed(), daemon.id(), audit.lock().unwrap().events);
        tokio::time::sleep(Duration::from_millis(250)).await;
        churn.check();
        if rng.random_ratio(1, 40) {
            proxy.cut();
        }
        if begun.elapsed() > next_reload {
            next_reload += Duration::from_secs(5);
            let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
            samples.reloads += 1;
        }
        if begun.elapsed() > next_restart && begun.elapsed() + Duration::from_secs(5) < time {
            next_restart += pause;
            if is_kill {
                daemon.kill();
            } else {
                assert_eq!(daemon.stop(), Some(0));
            }
            is_kill = !is_kill;
            daemon = Daemon::start_with(dir, SETTINGS);
            proxy.lead_to(daemon.address());
            proxy.cut();
            samples.restart(begun.elapsed());
        }
    }
    let counts = churn.end().await;
    samples.done = format!("{counts}, {}", audit.lock().unwrap().verdict());
    // Whoever has left holds nothing.
    proxy.cut();
    let begun = Instant::now();
    while samples::sockets(daemon.id()) > samples::QUIET_SOCKETS {
        let left = samples::sockets(daemon.id());
        assert!(begun.elapsed() < Duration::from_secs(90), "{left} sockets are left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(daemon.stop(), Some(0));
    samples
}
