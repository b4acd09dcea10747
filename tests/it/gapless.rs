//! A watcher that reconnects misses nothing and repeats nothing: random schedules over sockets and
//! a log on disk, every guarantee checked by its name.
//!
//! A seed fixes what every client does and how the log is set up; the order in which threads and
//! packets meet is the machine's. `GAPLESS_SEEDS=17` runs seed 17 and `GAPLESS_SEEDS=100..200`
//! a hundred, each `GAPLESS_TIMES` times: what shows once in a while shows again.

mod faults;
mod full_load;
mod many;
mod state_file;
mod watcher;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{Client, Moment, OnLost, Start, WatchOptions};
use tailmark_log::eventlog::Retention;
use tailmark_log::storage::segment::Compression;
use tailmark_record::Seq;
use tailmark_record::topic::Filter;
use tailmark_wire::feed_v1 as pb;

use self::watcher::{Begin, Pace, Plan, Watcher};
use self::world::{END, Uploader, World};
use crate::support::checker::{
    History, Note, Outcome, Request, Restart, Sent, Watched, violations,
};
use crate::support::disk::{DiskServer, Setup};
use crate::support::server::within;

/// What the runs went through, so that it can be told that nothing was left out.
#[derive(Debug, Default)]
struct Covered {
    events: u64,
    sent: u64,
    unknown_outcomes: u64,
    duplicates: u64,
    cuts: u64,
    restarts: u64,
    gaps: u64,
    refused_as_trimmed: u64,
    trimmed: u64,
    segments: u64,
    /// Segments into which a small one before was folded.
    folded: u64,
}

impl Covered {
    /// Whether each kind of thing has happened.
    fn is_all(&self) -> bool {
        let first = [self.unknown_outcomes, self.duplicates, self.cuts, self.restarts, self.gaps];
        let rest = [self.refused_as_trimmed, self.trimmed, self.segments, self.folded];
        first.iter().chain(&rest).all(|count| *count > 0)
    }

    fn add(&mut self, history: &History, world: &World, segments: &[String]) {
        self.events += history.head;
        for request in &history.requests {
            self.sent += request.sent.len() as u64;
            match &request.outcome {
                Outcome::Published { duplicate, .. } => self.duplicates += u64::from(*duplicate),
                Outcome::Uploaded(result) => self.duplicates += result.duplicates,
                _ => self.unknown_outcomes += 1,
            }
        }
        self.cuts += world.cuts.load(Ordering::Relaxed);
        self.restarts += history.restarts.len() as u64;
        self.trimmed += history.oldest - 1;
        self.segments += segments.len() as u64;
        // FIRST-REVISION
        self.folded += segments.iter().filter(|name| !name.ends_with("-1")).count() as u64;
        for note in history.watches.iter().flat_map(|watched| &watched.notes) {
            self.gaps += u64::from(matches!(note, Note::Gap { .. }));
            self.refused_as_trimmed += u64::from(matches!(note, Note::Trimmed { .. }));
        }
    }
}

fn setup(rng: &mut StdRng) -> Setup {
    let mut setup = Setup::small();
    setup.log.recent_bytes = [0, 100_000, 32 << 20][rng.random_range(0..3)];
    setup.log.reader_threads = rng.random_range(1..3);
    let max_events = rng.random_bool(0.4).then(|| rng.random_range(300..1_500));
    setup.log.retention = Retention { max_events, ..Retention::default() };
    setup.storage.seal_after = Duration::from_millis([20, 3_600_000][rng.random_range(0..2)]);
    setup.storage.open_segments = [2, 64][rng.random_range(0..2)];
    setup.storage.compression =
        [Compression::None, Compression::Lz4, Compression::Zstd(1)][rng.random_range(0..3)];
    setup
}

fn plan(rng: &mut StdRng, number: usize, oldest: u64, head: u64) -> Plan {
    let patterns: &[&str] = match rng.random_range(0..6) {
        0 => &["orders.>", END],
        1 => &["users", "*.us", END],
        2 => &["users.eu.new", END],
        _ => &[],
    };
    let has_markers = rng.random_bool(0.6);
    let by_library = rng.random_bool(0.5);
    let begin = match rng.random_range(0..3) {
        0 => Begin::Oldest,
        1 => Begin::Latest,
        _ => Begin::After(rng.random_range(oldest - 1..=head)),
    };
    let is_told_where = has_markers || !by_library;
    let pace = match rng.random_range(0..6) {
        0 => Pace::Paused(rng.random_range(0..300)),
        1 | 2 => Pace::Slow,
        _ => Pace::Fast,
    };
    Plan {
        name: format!("watcher {number}"),
        patterns: patterns.iter().map(ToString::to_string).collect(),
        pace,
        // Without markers the library does not say where it began.
        begin: if is_told_where { begin } else { Begin::After(oldest - 1) },
        has_markers,
        skips_lost: has_markers && rng.random_bool(0.7),
        cut_every: [0, 40, 400][rng.random_range(0..3)],
        by_library,
    }
}

/// The one that sees all, unless even it is overtaken by a trim.
fn auditor() -> Plan {
    Plan {
        name: "auditor".to_owned(),
        patterns: Vec::new(),
        pace: Pace::Fast,
        begin: Begin::Oldest,
        has_markers: true,
        skips_lost: true,
        cut_every: 0,
        by_library: true,
    }
}

async fn run(seed: u64, covered: &mut Covered) {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let world = Arc::new(World::new());
    let mut server = DiskServer::start(dir.path(), setup(&mut rng)).await;
    let mut restarts = Vec::new();
    let mut watching = Vec::new();
    let address = server.address;
    let watch = |plan: Plan, rng: &mut StdRng| {
        let rng = StdRng::seed_from_u64(rng.random());
        let world = world.clone();
        tokio::spawn(async move { Watcher::new(plan, rng, world, address).await.run().await })
    };
    watching.push((false, watch(auditor(), &mut rng)));
    let mut uploaders = Vec::new();
    for n in 0..rng.random_range(2..4) {
        uploaders.push(Uploader::new(format!("u{n}"), rng.random(), address).await);
    }
    for _ in 0..rng.random_range(2..4) {
        for _ in 0..2 {
            let bounds = server.log.bounds();
            let (oldest, head) = (bounds.oldest.get(), bounds.head.get());
            let plan = plan(&mut rng, watching.len(), oldest, head);
            let is_paused = matches!(plan.pace, Pace::Paused(_));
            watching.push((is_paused, watch(plan, &mut rng)));
        }
        let mut working = Vec::new();
        for mut uploader in uploaders.drain(..) {
            let world = world.clone();
            working.push(tokio::spawn(async move {
                uploader.work(&world).await;
                uploader
            }));
        }
        for _ in 0..rng.random_range(0..3) {
            let target = server.head() + rng.random_range(1..200);
            reached(&server, target, || working.iter().all(|task| task.is_finished())).await;
            if rng.random_bool(0.4) {
                world.up.send_replace(false);
                server = server.restart().await;
                let (acked, seen) = (&world.acked, &world.seen);
                restarts.push(Restart {
                    acked: acked.load(Ordering::SeqCst),
                    seen: seen.load(Ordering::SeqCst),
                    head: server.head(),
                });
                world.up.send_replace(true);
            } else {
                let bounds = server.log.bounds();
                // Often right under the feet of those who are not quite live.
                let (oldest, end) = (bounds.oldest.get(), bounds.head.get() + 1);
                let lowest = if rng.random_bool(0.5) { end - (end - oldest) / 8 } else { oldest };
                let before = rng.random_range(lowest..=end);
                let client = Client::new(&server.url()).unwrap();
                let trimmed = client.trim(Moment::Seq(Seq::new(before))).await.unwrap();
                assert!(trimmed.oldest_seq >= before.min(trimmed.head_seq));
            }
        }
        for task in working {
            uploaders.push(within("uploads", task).await.unwrap());
        }
    }
    publish_the_end(&server, &world).await;
    let mut watches = Vec::new();
    let (paused, others): (Vec<_>, Vec<_>) = watching.into_iter().partition(|(p, _)| *p);
    for (_, task) in others {
        watches.push(within("the others", task).await.unwrap());
    }
    world.released.send_replace(true);
    for (_, task) in paused {
        watches.push(within("the paused", task).await.unwrap());
    }
    let history = finish(&server, &world, watches, restarts).await;
    let segments = std::fs::read_dir(dir.path().join("segments")).unwrap();
    let names = segments.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<_> =
        names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).collect();
    covered.add(&history, &world, &names);
    let wrong = violations(&history);
    assert!(wrong.is_empty(), "{wrong:#?}");
    server.stop().await;
}

async fn reached(server: &DiskServer, head: u64, is_over: impl Fn() -> bool) {
    let holds = || server.head() >= head || is_over();
    crate::support::server::until("more events", holds).await;
}

async fn publish_the_end(server: &DiskServer, world: &World) {
    let event = pb::Event { topic: END.into(), body: "end|".into(), ..pb::Event::default() };
    let sent = vec![Sent { label: "end".into(), event: event.clone() }];
    let client = Client::new(&server.url()).unwrap();
    let result = client.publish(event, None).await.unwrap();
    world.record(sent, Outcome::Published { seq: result.seq, duplicate: result.duplicate });
}

/// Reads the whole log, and puts it beside what clients know.
async fn finish(
    server: &DiskServer,
    world: &World,
    mut watches: Vec<Watched>,
    restarts: Vec<Restart>,
) -> History {
    let (log, notes) = read_all(server).await;
    let filter = Filter::ALL;
    let name = "the whole log".to_owned();
    watches.push(Watched { name, filter, notes, is_paused: false, is_early: true });
    let bounds = server.log.bounds();
    let (oldest, head) = (bounds.oldest.get(), bounds.head.get());
    let requests: Vec<Request> = std::mem::take(&mut *world.requests.lock().unwrap());
    // Retention may have moved on while it was read.
    let log = log.into_iter().filter(|event| event.seq >= oldest).collect();
    History { requests, watches, restarts, log, oldest, head }
}

async fn read_all(server: &DiskServer) -> (Vec<pb::Event>, Vec<Note>) {
    use tailmark_client::Item;
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    options.until_caught_up = true;
    options.on_lost = OnLost::Oldest;
    // Retention may still move the oldest under our feet, and then says so.
    options.markers = true;
    let mut watch = Client::new(&server.url()).unwrap().watch(options);
    let (mut log, mut notes) = (Vec::new(), Vec::new());
    while let Some(item) = within("the whole log", watcher::next(&mut watch)).await {
        match item.unwrap() {
            Item::Event(received) => {
                let event: pb::Event = prost::Message::decode(received.bytes().clone()).unwrap();
                notes.push(Note::Event(Box::new(event.clone())));
                log.push(event);
            }
            Item::Marker(marker) => {
                if let Some(gap) = marker.gap {
                    let reason = pb::gap::Reason::Trimmed;
                    assert_eq!(gap.reason, tailmark_record::GapReason::Trimmed);
                    notes.push(Note::Gap { from: gap.from.get(), to: gap.to.get(), reason });
                }
            }
            _ => {}
        }
    }
    (log, notes)
}

/// The seeds to run, and for how long at most.
fn seeds() -> (std::ops::Range<u64>, Duration) {
    let Ok(text) = std::env::var("GAPLESS_SEEDS") else {
        return (1..61, Duration::from_secs(15));
    };
    let number = |text: &str| text.parse::<u64>().expect("GAPLESS_SEEDS: N or FIRST..END");
    let range = match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&text)..number(&text) + 1,
    };
    (range, Duration::MAX)
}

#[test]
fn random_schedules_keep_every_guarantee() {
    let (seeds, longest) = seeds();
    let times = std::env::var("GAPLESS_TIMES").map_or(1, |text| text.parse::<u32>().unwrap());
    let is_default = longest != Duration::MAX;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let begun = Instant::now();
    let mut covered = Covered::default();
    let mut count = 0;
    for seed in seeds {
        // On a busy machine at least a few, and as many as it takes to have seen everything.
        if count >= 6 && begun.elapsed() > longest && covered.is_all() {
            break;
        }
        for _ in 0..times {
            let _replay = Replay(seed);
            runtime.block_on(run(seed, &mut covered));
        }
        count += 1;
    }
    eprintln!("{count} seeds in {:?}: {covered:?}", begun.elapsed());
    assert!(covered.is_all() || !is_default, "{covered:?}");
}

/// Says how to run a seed again when it fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "failed: GAPLESS_SEEDS={} GAPLESS_TIMES=20 cargo test --test it gapless::random",
                self.0
            );
        }
    }
}
