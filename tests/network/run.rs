//! One run of a plan, and runs of many.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tailmark_client::{Client, Error, Saying, Seq};
use tailmark_wire::feed_v1 as pb;
use tokio::task::JoinSet;

use crate::plan::{END, Manner, Plan, Turn};
use crate::server::Daemon;
use crate::support::checker::{History, Note, Outcome, Restart, Sent, violations};
use crate::support::server::within;
use crate::watching::Watcher;
use crate::way::{Happened, Path};
use crate::world::{World, client};
use crate::{checks, crash, sending};

/// What was found wrong, each with the name of the guarantee.
pub type Wrong = Vec<(&'static str, String)>;

/// How a run ended.
pub struct Done {
    pub wrong: Wrong,
    /// What watches said that they could not go on over.
    pub told: Vec<Error>,
    pub events: u64,
    pub acked: u64,
    pub restarts: u64,
    pub gaps: u64,
}

/// Runs a plan to its end.
pub async fn run(plan: Plan, happened: Happened) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let mut server = Daemon::start(dir.path().to_owned()).await;
    let address = server.address;
    let mut watching = JoinSet::new();
    for (number, one) in plan.watches.iter().enumerate() {
        let name = format!("watcher {number} ({:?})", one.manner);
        let (world, happened) = (world.clone(), happened.clone());
        let watcher = Watcher::new(one.clone(), name, world, address, happened).await;
        watching.spawn(watcher.run());
    }
    let (mut working, mut listening) = (JoinSet::new(), JoinSet::new());
    let mut paths = Vec::new();
    for (number, one) in plan.sends.iter().enumerate() {
        let path = Path::to(address, one.fates.clone(), happened.clone()).await;
        let client = client(&path.url());
        working.spawn(sending::send(one.clone(), format!("s{number}"), client, world.clone()));
        paths.push(path);
    }
    for (number, one) in plan.produces.iter().enumerate() {
        let path = Path::to(address, one.fates.clone(), happened.clone()).await;
        let client = client(&path.url());
        working.spawn(sending::produce(one.clone(), format!("p{number}"), client, world.clone()));
        paths.push(path);
    }
    let mut hearing = Vec::new();
    for (number, one) in plan.rooms.iter().enumerate() {
        let room = format!("room{number}");
        let path = Path::to(address, one.speaking.clone(), happened.clone()).await;
        let client_ = client(&path.url());
        working.spawn(sending::speak(room.clone(), one.said, client_, world.clone()));
        paths.push(path);
        let path = Path::to(address, one.listening.clone(), happened.clone()).await;
        let client_ = client(&path.url());
        let last = format!("{room}.end|");
        listening.spawn(sending::listen(room, last, client_, world.clone()));
        hearing.push(path);
    }
    let mut restarts = Vec::new();
    for (more, turn) in plan.turns {
        let target = server.head() + more;
        while server.head() < target && !working.is_empty() {
            while let Some(done) = working.try_join_next() {
                done.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match turn {
            Turn::Restart { in_order, down } => {
                server = server.restart(in_order, down).await;
                restarts.push(Restart {
                    acked: world.acked.load(Ordering::SeqCst),
                    seen: world.seen.load(Ordering::SeqCst),
                    head: server.head(),
                });
            }
            Turn::Trim => {
                let bounds = server.log.bounds();
                let (oldest, head) = (bounds.oldest.get(), bounds.head.get());
                let before = Seq::new(head - (head + 1 - oldest) / 8);
                server.log.trim(before.max(Seq::FIRST)).await.unwrap();
            }
        }
    }
    while let Some(done) = within("all is sent", working.join_next()).await {
        done.unwrap();
    }
    for path in paths {
        path.close().await;
    }
    // One that has all the time there is.
    let clean = Client::new(&format!("http://{address}")).unwrap();
    settled(&server).await;
    finish(&clean, &world, plan.rooms.len()).await;
    let (mut watches, mut told) = (Vec::new(), Vec::new());
    while let Some(done) = within("the watches", watching.join_next()).await {
        let (watched, end) = done.unwrap();
        match end {
            Ok(()) => watches.push(watched),
            Err(error) => told.push(error),
        }
    }
    while let Some(done) = within("the listeners", listening.join_next()).await {
        done.unwrap();
    }
    drop(hearing);
    let log = sending::read_all(&clean).await;
    let bounds = server.log.bounds();
    let requests = std::mem::take(&mut *world.requests.lock().unwrap());
    let (oldest, head) = (bounds.oldest.get(), bounds.head.get());
    let history = History { requests, watches, restarts, log, oldest, head };
    server.stop(true).await;
    judge(&history, &world, told)
}

fn judge(history: &History, world: &World, told: Vec<Error>) -> Done {
    let mut wrong = violations(history);
    let log = &history.log;
    let produced = checks::produced(log, &world.produced.lock().unwrap());
    wrong.extend(produced.err().map(|why| ("ExactlyOnce", why)));
    let heard = checks::heard(log, &world.heard.lock().unwrap());
    wrong.extend(heard.err().map(|why| ("Rooms", why)));
    let notes = history.watches.iter().flat_map(|watched| &watched.notes);
    let acked = history.requests.iter().map(|request| match &request.outcome {
        Outcome::Published { .. } | Outcome::Uploaded(_) => request.sent.len(),
        Outcome::Prefix(count) => *count,
        _ => 0,
    });
    Done {
        wrong,
        told,
        events: history.head,
        acked: acked.sum::<usize>() as u64,
        restarts: history.restarts.len() as u64,
        gaps: notes.filter(|note| matches!(note, Note::Gap { .. })).count() as u64,
    }
}

/// Until nothing of what was cut is on its way into the log any more.
async fn settled(server: &Daemon) {
    let mut head = server.head();
    let mut quiet = 0;
    while quiet < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        quiet = if server.head() == head { quiet + 1 } else { 0 };
        head = server.head();
    }
}

/// The last word in each room, and the last event of all.
async fn finish(clean: &Client, world: &World, rooms: usize) {
    let mut last = Vec::new();
    for number in 0..rooms {
        let label = format!("room{number}.end");
        let saying = Saying::new(&format!("room{number}"), "ann", &format!("{label}|"));
        let event = pb::Event {
            topic: format!("chat.room{number}"),
            id: saying.id().to_owned(),
            body: saying.text().to_owned(),
            ..pb::Event::default()
        };
        last.push((label, event, clean.say(&saying).await.unwrap()));
    }
    let event = pb::Event { topic: END.into(), body: "end|".into(), ..pb::Event::default() };
    let result = clean.publish(event.clone(), None).await.unwrap();
    last.push(("end".to_owned(), event, result));
    for (label, event, result) in last {
        let outcome = Outcome::Published { seq: result.seq, duplicate: result.duplicate };
        world.record(vec![Sent { label, event }], outcome);
    }
}

/// Says how to run a seed again when it fails.
struct Replay(Plan);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, plan) = (self.0.seed, &self.0);
            eprintln!("{plan:#?}");
            eprintln!(
                "failed: NETWORK_SEEDS={seed} NETWORK_TIMES=20 cargo test --test network no_"
            );
        }
    }
}

async fn one(seed: u64, happened: Happened) -> Done {
    let plan = Plan::of(seed);
    let replay = Replay(plan.clone());
    let name = format!("seed {seed}");
    let done = tokio::time::timeout(Duration::from_secs(300), run(plan, happened)).await;
    let done = done.unwrap_or_else(|_| panic!("{name} does not come to an end"));
    assert!(done.wrong.is_empty(), "{name}: {:#?}", done.wrong);
    assert!(done.told.is_empty(), "{name}: a watch gave up: {:#?}", done.told);
    drop(replay);
    done
}

fn range() -> Range<u64> {
    let Ok(text) = std::env::var("NETWORK_SEEDS") else { return 1..201 };
    let number = |text: &str| text.parse::<u64>().expect("NETWORK_SEEDS: N or FIRST..END");
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&text)..number(&text) + 1,
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

pub fn seeds() {
    let times = crash::env_number("NETWORK_TIMES", 1);
    // A run waits more than it works.
    let at_once = crash::env_number("NETWORK_AT_ONCE", 6) as usize;
    let seeds = range();
    let is_many = seeds.end - seeds.start >= 200;
    let begun = Instant::now();
    let happened = Happened::default();
    let mut count = 0;
    let (mut events, mut acked, mut restarts, mut gaps) = (0, 0, 0, 0);
    runtime().block_on(async {
        let mut next = seeds.flat_map(|seed| (0..times).map(move |_| seed));
        let mut running = JoinSet::new();
        loop {
            while running.len() < at_once
                && let Some(seed) = next.next()
            {
                running.spawn(one(seed, happened.clone()));
            }
            let Some(done) = running.join_next().await else { return };
            let done = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            count += 1;
            events += done.events;
            acked += done.acked;
            restarts += done.restarts;
            gaps += done.gaps;
        }
    });
    let happened = happened.all();
    println!("  {count} runs in {:?}: {events} events, {acked} acked", begun.elapsed());
    println!("  {restarts} restarts, {gaps} gaps; connections: {happened:?}");
    assert!(acked > count, "hardly anything was acked: it proves nothing");
    if is_many {
        let all = ["cut", "halfclose", "freeze", "swallow", "stall", "slow", "goaway"];
        let more = ["resetstream", "noise", "twice", "replay", "page(502)", "garbage", "mute"];
        for what in all.into_iter().chain(more) {
            assert!(happened.contains_key(what), "{what} has never happened");
        }
        assert!(restarts > 0 && gaps > 0, "{restarts} restarts, {gaps} gaps");
    }
}

/// Used by the controls: a plan with these watchers.
pub fn with_watchers(seed: u64, manner: Manner, change: impl Fn(&mut Plan)) -> Plan {
    let mut plan = Plan::of(seed);
    for watch in &mut plan.watches {
        watch.manner = manner;
    }
    change(&mut plan);
    plan
}
