//! What a topic of its own for each event costs the thread that seals. Figures for docs/performance.md:
//! `cargo test --release -p tailmark-log --lib -- --ignored --nocapture segment::tests::cost`.

use std::time::Duration;

use super::*;

const EVENTS: u64 = 250_000;

/// What this thread has had of a processor.
fn cpu() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(times.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "prints figures"]
fn a_topic_an_event_beside_one_topic() {
    let log = |topics: u64| {
        let made = (0..EVENTS).map(move |n| Made {
            topic: format!("site.{}.device.{:08}", n * 7_919 % topics % 97, n * 7_919 % topics),
            id: None,
            body: format!("{n} {}", "The quick brown fox jumps over the lazy dog. ".repeat(4)),
            data: Vec::new(),
        });
        Log::new(1, made, 2_000)
    };
    let logs = [1, 100, EVENTS].map(|topics| (topics, log(topics)));
    for round in 0..3 {
        for (topics, log) in &logs {
            let dir = tempfile::tempdir().unwrap();
            let begun = cpu();
            let segment = log.build(dir.path());
            let took = (cpu() - begun).as_secs_f64() * 1e6 / EVENTS as f64;
            assert_eq!(segment.topics(), *topics);
            println!("round {round}, {topics} topics: {took:.2} us an event");
        }
    }
}
