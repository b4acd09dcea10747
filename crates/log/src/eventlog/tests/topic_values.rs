//! What the newest values of many keys cost on disk, and those who append meanwhile.

use std::collections::HashMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::topic_retention::testing::{Ordered, Shares, pass};
use super::topic_retaining::rule;
use super::*;
use crate::storage::local;

/// Values of keys, as somebody keeps states in a log.
async fn append_values(log: &EventLog, values: impl Iterator<Item = (u64, u64)>) -> Duration {
    let begun = std::time::Instant::now();
    let mut values = values.peekable();
    let mut under_way = std::collections::VecDeque::new();
    while values.peek().is_some() {
        let mut batch = log.batch();
        for (key, n) in values.by_ref().take(5_000) {
            let name = format!("device-{key}");
            let body = format!(
                "{{\"device\":\"{name}\",\"reading\":{},\"unit\":\"kWh\",\"sequence\":{n},\"state\":\"{}\",\
                 \"site\":\"plant {}\",\"checked\":\"{:016x}\"}}",
                n.wrapping_mul(2_654_435_761) % 100_000,
                ["ok", "warning", "off"][(n % 3) as usize],
                key % 40,
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            );
            let event =
                Event { topic: "state.device", key: &name, body: &body, ..Event::default() };
            batch.push(&event).unwrap();
        }
        let log = log.clone();
        let append =
            async move { log.append(batch, AppendOptions::default()).await.unwrap().stored };
        under_way.push_back(tokio::spawn(append));
        if under_way.len() >= 8 {
            under_way.pop_front().unwrap().await.unwrap();
        }
    }
    for one in under_way {
        one.await.unwrap();
    }
    begun.elapsed()
}

fn measured(dir: &Path, rules: TopicRules) -> EventLog {
    let (engine, recovered) = local::open(dir, local::Options::default()).unwrap();
    EventLog::open(engine, recovered, Options { topic_rules: rules, ..Options::default() }).unwrap()
}

/// Space and speed: run by hand, in release. `EVENTS` and `KEYS` are taken from the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn the_newest_value_of_a_million_keys() {
    let number = |name: &str, other: u64| {
        std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(other)
    };
    let (events, keys) = (number("EVENTS", 20_000_000), number("KEYS", 1_000_000));
    let values = move || {
        let mut rng = StdRng::seed_from_u64(1);
        (0..events).map(move |n| (rng.random_range(0..keys), n))
    };
    let rules = TopicRules::new(vec![rule("state.>", None, None, Keep::LatestPerKey)]);
    let (mut rates, mut sizes) = (Vec::new(), Vec::new());
    for (name, rules) in [("without rules", TopicRules::default()), ("with rules", rules)] {
        let dir = tempfile::tempdir().unwrap();
        let log = measured(dir.path(), rules.clone());
        let took = append_values(&log, values()).await;
        rates.push(events as f64 / took.as_secs_f64());
        let begun = std::time::Instant::now();
        // Settled: no pass has begun for as long as one may be waited for.
        let (mut passes, mut since) = (u64::MAX, begun);
        loop {
            let (report, status) = (log.topic_retention(), log.status());
            let took = report.last.as_ref().map_or(Duration::ZERO, |last| last.took);
            let is_quiet = status.store.unsealed_slots <= 1 && !report.is_running;
            if !is_quiet || report.passes != passes {
                (passes, since) = (report.passes, std::time::Instant::now());
            }
            if since.elapsed() > took * 3 + Duration::from_secs(2) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let store = log.status().store;
        for one in log.core().store.sealed() {
            println!(
                "  {} to {}: {} gone, {} bytes raw, {} on disk",
                one.first, one.end, one.removed, one.raw_bytes, one.disk_bytes
            );
        }
        println!(
            "{name}: {:.0} events/s, settled {:?} later: {} bytes in {} segments, {:?}",
            rates[rates.len() - 1],
            begun.elapsed(),
            store.segment_bytes(),
            store.segments,
            log.topic_retention()
        );
        sizes.push(store.segment_bytes());
        log.close().await.unwrap();
    }
    // The live set, and what was never sealed beside it.
    let mut last = HashMap::new();
    for (key, n) in values() {
        last.insert(key, n);
    }
    let mut live: Vec<_> = last.into_iter().collect();
    live.sort_by_key(|(_, n)| *n);
    let dir = tempfile::tempdir().unwrap();
    let log = measured(dir.path(), TopicRules::default());
    append_values(&log, live.into_iter()).await;
    while log.status().store.unsealed_slots > 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    log.close().await.unwrap();
    let live = log.status().store.segment_bytes();
    let (size, rate) = (sizes[1] as f64 / live as f64, rates[1] / rates[0]);
    println!("live set: {live} bytes; with rules {size:.3} of that; rate beside it: {rate:.3}");
    assert!(size <= 1.3 && rate >= 0.8, "{size} of the disk, {rate} of the rate");
}

/// A pass where there are very many topics: run by hand, in release. `TOPICS` is taken from the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn a_pass_beside_two_million_topics() {
    let topics = std::env::var("TOPICS").ok().and_then(|it| it.parse().ok()).unwrap_or(2_000_000);
    let dir = tempfile::tempdir().unwrap();
    let log = measured(dir.path(), TopicRules::default());
    let begun = std::time::Instant::now();
    for first in (0..topics).step_by(5_000) {
        let mut batch = log.batch();
        for n in first..first + 5_000 {
            // No neighbours in time are neighbours in name.
            let at = n * 7_919 % topics;
            let (topic, body) = (format!("site.{}.device.{at:08}", at % 97), format!("{n:0200}"));
            batch.push(&Event { topic: &topic, body: &body, ..Event::default() }).unwrap();
        }
        log.append(batch, AppendOptions::default()).await.unwrap();
        if first % 100_000 == 0 {
            append_values(&log, (0..10_000).map(|n| (n % 1_000, first + n))).await;
        }
    }
    while log.status().store.unsealed_slots > 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{} events of {topics} topics in {:?}", log.head(), begun.elapsed());
    for (what, rules) in [
        ("of one topic among them", rule("state.>", None, None, Keep::LatestPerKey)),
        ("of all of them, of which nothing goes", rule("site.>", None, Some(1), Keep::All)),
    ] {
        let (log, rules) = (log.clone(), TopicRules::new(vec![rules]));
        let pass = move || {
            let mut share = Shares::default();
            for _ in 0..4 {
                let order = Ordered { is_in_peace: true, share, ..Ordered::default() };
                let done = pass(log.core(), &rules, Timestamp::EPOCH, order).unwrap();
                share = share.after(&done);
                println!(
                    "a pass {what}: {:?}, {} removed, partial {}",
                    done.took, done.removed, done.is_partial
                );
            }
        };
        tokio::task::spawn_blocking(pass).await.unwrap();
    }
    log.close().await.unwrap();
}
