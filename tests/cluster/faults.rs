//! What is done to daemons and servers, and what is held against every guarantee in the end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::WatchOptions;
use tailmark_record::topic::Filter;
use tailmark_wire::feed_v1 as pb;

use crate::checker::{History, Outcome, Request, Sent, Watched, violations};
use crate::load::{self, Told};
use crate::servers::{PATIENCE, World};

/// Between faults: an election of the servers takes 4 to 9 s.
const APART: Duration = Duration::from_secs(10);

/// Does something, and puts it right.
async fn fault(world: &mut World, rng: &mut StdRng, nth: usize) -> String {
    let (writer, leader) = (world.writer().await, world.leader().await);
    let count = world.daemons();
    let (other, follower) = ((writer + 1) % count, (leader + 1) % world.servers());
    let down = Duration::from_millis(rng.random_range(200..5_000));
    // Each in turn, in another order a run.
    match (nth + rng.random_range(0..2)) % 8 {
        0 => {
            world.kill_daemon(writer);
            tokio::time::sleep(down).await;
            world.begin_daemon(writer);
            world.wait_ready(writer);
            "the writer is killed".to_owned()
        }
        1 => {
            let took = world.stop_daemon(writer);
            world.begin_daemon(writer);
            world.wait_ready(writer);
            format!("the writer is stopped, in {} ms", took.as_millis())
        }
        2 => {
            world.kill_server(leader);
            tokio::time::sleep(down).await;
            world.begin_server(leader);
            "the leading server is killed".to_owned()
        }
        3 => {
            let time = Duration::from_millis(rng.random_range(1_000..9_000));
            world.pause_daemon(writer, time);
            format!("the writer hangs for {} ms", time.as_millis())
        }
        4 => {
            world.kill_daemon(other);
            tokio::time::sleep(down).await;
            world.begin_daemon(other);
            world.wait_ready(other);
            "a daemon that follows is killed".to_owned()
        }
        5 => {
            world.kill_server(follower);
            world.kill_daemon(writer);
            tokio::time::sleep(down).await;
            world.begin_server(follower);
            // Whether each server syncs is asked when a daemon begins.
            tokio::time::sleep(Duration::from_secs(2)).await;
            world.begin_daemon(writer);
            world.wait_ready(writer);
            "a server and the writer are killed".to_owned()
        }
        6 => {
            let time = Duration::from_millis(rng.random_range(1_000..9_000));
            world.pause_server(leader, time);
            format!("the leading server hangs for {} ms", time.as_millis())
        }
        _ => {
            world.kill_server(leader);
            world.kill_server(follower);
            tokio::time::sleep(down).await;
            world.begin_server(leader);
            world.begin_server(follower);
            "two servers are killed".to_owned()
        }
    }
}

/// So many faults under load; then everything is held against every guarantee.
pub async fn run(program: &Path, faults: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::start(program, 3, 3);
    (0..3).for_each(|at| world.wait_ready(at));
    world.writer().await;
    let told = Arc::new(Told::default());
    let addresses: Vec<_> = (0..3).map(|at| world.address(at)).collect();
    let mut senders = Vec::new();
    for nth in 0..4 {
        let (name, all, told) = (format!("u{nth}"), addresses.clone(), told.clone());
        senders.push(tokio::spawn(load::publish(name, all, told)));
    }
    for (nth, address) in addresses.iter().enumerate() {
        let (name, told) = (format!("producer{nth}"), told.clone());
        senders.push(tokio::spawn(load::produce(name, address.clone(), told)));
    }
    let watchers: Vec<_> = (0..4)
        .map(|nth| tokio::spawn(load::watch(format!("w{nth}"), addresses.clone(), told.clone())))
        .collect();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for nth in 0..faults {
        let at = Instant::now();
        let what = fault(&mut world, &mut rng, nth).await;
        tokio::time::sleep(APART.saturating_sub(at.elapsed()).max(Duration::from_secs(4))).await;
        let longest = longest(&told.acks.lock(), at);
        println!("fault {}: {what}; {:.1} s without an ack", nth + 1, longest.as_secs_f64());
    }
    let time = begun.elapsed();
    told.is_over.store(true, Ordering::Relaxed);
    for sender in senders {
        tokio::time::timeout(PATIENCE, sender).await.expect("a client that does not end").unwrap();
    }
    let end = publish_end(&world).await;
    told.requests.lock().push(end);
    let mut watches = Vec::new();
    for (nth, watcher) in watchers.into_iter().enumerate() {
        let notes = tokio::time::timeout(PATIENCE, watcher).await;
        let notes = notes.unwrap_or_else(|_| panic!("watcher {nth} does not see the end")).unwrap();
        let (name, filter) = (format!("watcher {nth}"), Filter::ALL);
        watches.push(Watched { name, filter, notes, is_paused: false, is_early: true });
    }
    let log = all_have_one_log(&world).await;
    let mut wrong: Vec<String> = std::mem::take(&mut *told.wrong.lock());
    let requests = std::mem::take(&mut *told.requests.lock());
    let acked = requests
        .iter()
        .filter(|it| !matches!(it.outcome, Outcome::Unknown | Outcome::Refused))
        .count();
    let mut terms = 0;
    for at in 0..3 {
        terms = terms.max(world.journal(at).await.unwrap().term);
    }
    println!(
        "{:.0} s, {faults} faults: {acked} acked, {} unknown, {} refused, {} moves of clients, {} events, {terms} terms; \
         {:.1} s at most without an ack",
        time.as_secs_f64(),
        told.unknown.load(Ordering::Relaxed),
        told.refused.load(Ordering::Relaxed),
        told.moves.load(Ordering::Relaxed),
        log.len(),
        longest(&told.acks.lock(), begun).as_secs_f64(),
    );
    let head = log.len() as u64;
    let history = History { requests, watches, restarts: Vec::new(), log, oldest: 1, head };
    wrong.extend(violations(&history).into_iter().map(|(kind, what)| format!("{kind}: {what}")));
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(acked > 100 && terms > 1, "{acked} acked in {terms} terms");
}

/// The longest time without an ack since a moment.
fn longest(acks: &[Instant], since: Instant) -> Duration {
    let mut all: Vec<_> = acks.iter().copied().filter(|at| *at >= since).collect();
    all.sort_unstable();
    let first = all.first().map(|first| *first - since);
    let pairs = all.windows(2).map(|two| two[1] - two[0]);
    // Also one that is not over.
    let last = all.last().map(Instant::elapsed);
    pairs.chain(first).chain(last).max().unwrap_or_else(|| since.elapsed())
}

async fn publish_end(world: &World) -> Request {
    let begun = Instant::now();
    for at in 0.. {
        let (id, topic, body) = ("end".to_owned(), "end".to_owned(), "end|".into());
        let event = pb::Event { id, topic, body, ..pb::Event::default() };
        match world.client(at).publish(event.clone(), None).await {
            Ok(stored) => {
                let outcome = Outcome::Published { seq: stored.seq, duplicate: stored.duplicate };
                return Request { sent: vec![Sent { label: "end".to_owned(), event }], outcome };
            }
            Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody writes in the end: {error}"),
        }
    }
    unreachable!("it goes on for ever")
}

async fn all_have_one_log(world: &World) -> Vec<pb::Event> {
    let mut logs = Vec::new();
    for at in 0..world.daemons() {
        let mut options = WatchOptions::default();
        options.after_cursor = Some("0".to_owned());
        options.until_caught_up = true;
        logs.push(load::read_all(&world.client(at), options).await.unwrap());
    }
    let (first, rest) = logs.split_first().unwrap();
    for (nth, other) in rest.iter().enumerate() {
        assert!(
            other == first,
            "daemon {} has another log: {} of {}",
            nth + 2,
            other.len(),
            first.len()
        );
    }
    logs.swap_remove(0)
}
