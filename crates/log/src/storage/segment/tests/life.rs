//! Building, caching, retiring, cleaning up.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;

use super::*;

/// Gives what a log has, then an error.
struct Failing<'a> {
    log: &'a Log,
    fails_at: usize,
}

impl Source for Failing<'_> {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        Box::new(self.log.chunks.iter().cloned().enumerate().map(move |(at, chunk)| {
            if at == self.fails_at {
                return Err(StoreError::Invalid("failed on purpose"));
            }
            Ok(chunk)
        }))
    }
}

#[test]
fn a_failed_build_leaves_no_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(1, 5_000);
    for fails_at in [0, log.chunks.len() / 2, log.chunks.len() - 1] {
        let source = Failing { log: &log, fails_at };
        let result = build(dir.path(), &log.spec(), &source);
        assert!(matches!(result, Err(StoreError::Invalid("failed on purpose"))), "{fails_at}");
        assert!(scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap().segments.is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    log.build(dir.path());
    assert_eq!(scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap().segments.len(), 1);
}

const HERE: &str = "the build has come this far";
const CHILD: &str = "TAILMARK_TEST_BUILD_IN";

/// Says that it got there, then waits to be killed.
fn wait_for_the_end() {
    println!("\n{HERE}");
    // Ends when the other end is closed, should the killer die first.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Stops at its last chunk: all but the end is in sled.
struct Stuck<'a>(&'a Log);

impl Source for Stuck<'_> {
    fn chunks(&self) -> Box<dyn Iterator<Item = Result<Chunk, StoreError>> + '_> {
        Box::new(self.0.chunks.iter().cloned().enumerate().map(move |(at, chunk)| {
            if at == self.0.chunks.len() - 1 {
                wait_for_the_end();
            }
            Ok(chunk)
        }))
    }
}

/// Builds until the file operation of that name, or until the source's last chunk.
fn build_until(log: &Log, dir: &Path, stops_at: &str) {
    let mut spec = log.spec();
    if stops_at == "source" {
        let _ = build(dir, &spec, &Stuck(log));
        return;
    }
    let stops_at = stops_at.to_owned();
    spec.disk = Disk::watched(Arc::new(move |action, _| {
        if action == stops_at {
            wait_for_the_end();
        }
    }));
    let _ = build(dir, &spec, log);
}

#[test]
fn a_killed_build_leaves_nothing_that_is_read() {
    let log = Log::small(1, 5_000);
    if let Ok(child) = std::env::var(CHILD) {
        let (dir, stops_at) = child.split_once('|').unwrap();
        return build_until(&log, Path::new(dir), stops_at);
    }
    let name = "storage::segment::tests::life::a_killed_build_leaves_nothing_that_is_read";
    // Half filled; compared and closed; before the footer; before its sync; all but its name.
    for stops_at in ["source", "close", "write", "sync", "rename"] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, format!("{}|{stops_at}", dir.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == HERE), "{stops_at}");
        child.kill().unwrap();
        child.wait().unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, [".tmp-00000000000000000001-1"]);
        assert!(scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap().segments.is_empty());
        assert_eq!(clean(dir.path(), &Disk::real()).unwrap(), 1);
        log.build(dir.path());
        assert_eq!(scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap().segments.len(), 1);
    }
}

#[test]
fn a_half_built_directory_is_never_read_and_is_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(1, 1_000);
    let segment = log.build(dir.path());
    // As after a crash just before the rename, and during a delete.
    copy_dir(segment.dir(), &dir.path().join(".tmp-00000000000000000001-2"));
    copy_dir(segment.dir(), &dir.path().join("trash-00000000000000000001-1.0"));
    std::fs::create_dir(dir.path().join("notes")).unwrap();
    let found = scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap();
    assert_eq!((found.segments.len(), found.superseded.len(), found.unknown.len()), (1, 0, 1));
    assert_eq!(clean(dir.path(), &Disk::real()).unwrap(), 2);
    assert_eq!(clean(dir.path(), &Disk::real()).unwrap(), 0);
    // What was left of an attempt does not disturb the next.
    copy_dir(segment.dir(), &dir.path().join(".tmp-00000000000000000001-2"));
    let spec = BuildSpec { revision: 2, ..log.spec() };
    build(dir.path(), &spec, &log).unwrap();
    let found = scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap();
    assert_eq!(found.segments[0].revision(), 2);
    assert_eq!(found.superseded[0].revision(), 1);
}

#[test]
fn a_source_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(1, 3_000);
    let mut hole = log.clone();
    hole.chunks.remove(1);
    let mut cut = log.clone();
    cut.chunks.pop();
    let mut short = log.clone();
    let events = &mut short.chunks[1].events;
    *events = events.slice(..events.len() - 1);
    let mut renumbered = log.clone();
    renumbered.chunks[1].events = Log::small(7, 1_000).chunks[0].events.clone();
    for bad in [hole, cut, short, renumbered] {
        let result = build(dir.path(), &log.spec(), &bad);
        assert!(matches!(result, Err(StoreError::Damaged(_))), "{result:?}");
    }
    let nothing = BuildSpec { end: Seq::FIRST, ..log.spec() };
    assert!(matches!(build(dir.path(), &nothing, &log), Err(StoreError::Invalid(_))));
}

#[test]
fn the_highest_revision_wins_and_holes_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(1, 300);
    let part = |first: u64, end: u64, revision: u32| {
        let log = Log::small(first, end - first);
        build(dir.path(), &BuildSpec { revision, ..log.spec() }, &log).unwrap();
    };
    log.build(dir.path());
    part(301, 401, 1);
    // The first two folded into one.
    part(1, 401, 2);
    part(500, 600, 1);
    let found = scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap();
    let ranges: Vec<_> = found.segments.iter().map(|s| (s.first().get(), s.end().get())).collect();
    assert_eq!(ranges, [(1, 401), (500, 600)]);
    assert_eq!(found.superseded.len(), 2);
    assert_eq!(found.holes, [(Seq::new(401), Seq::new(500))]);
    part(590, 650, 1);
    assert_eq!(scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap().overlapping.len(), 1);
    // With the winner's footer damaged, those it replaced are read again, and it is told.
    let footer = dir.path().join("00000000000000000001-2/footer");
    let mut bytes = std::fs::read(&footer).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&footer, bytes).unwrap();
    let found = scan(dir.path(), &Disk::real(), FORMAT_VERSION).unwrap();
    assert_eq!(found.damaged.len(), 1);
    assert_eq!(found.segments[1].first(), Seq::new(301));
}

#[test]
fn threads_that_want_one_database_open_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let segment = Log::small(1, 5_000).build(dir.path());
    let cache = Cache::new(OPENING);
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let (cache, barrier, segment) = (&cache, &barrier, &segment);
            scope.spawn(move || {
                let lease = segment.lease().unwrap();
                barrier.wait();
                let from = Seq::new(1 + at * 500);
                cache.read(&lease, from, segment.end(), &Filter::ALL).unwrap();
            });
        }
    });
    assert_eq!(cache.status().opens, 1);
    assert_eq!(segment.leases(), 0);
}

#[test]
fn open_databases_stay_within_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let segments: Vec<_> =
        (0..6).map(|at| Log::small(1 + at * 2_000, 2_000).build(dir.path())).collect();
    let scan_all = |cache: &Cache| {
        for segment in &segments {
            let lease = segment.lease().unwrap();
            read_all(cache, &lease, segment.first(), segment.end(), &Filter::ALL).unwrap();
        }
    };
    let by_count = Cache::new(CacheOptions { max_open: 2, ..OPENING });
    for round in 1..=2 {
        scan_all(&by_count);
        let status = by_count.status();
        assert_eq!((status.open, status.opens), (2, round * 6));
    }
    drop(by_count);
    let held = segments[0].identity.stored_bytes + <database::Database as store::Store>::OPEN_BYTES;
    let max_bytes = held * 7 / 2;
    let by_bytes = Cache::new(CacheOptions { max_bytes, ..OPENING });
    scan_all(&by_bytes);
    let status = by_bytes.status();
    assert!(status.open == 3 && status.bytes <= max_bytes, "{status:?}");
    by_bytes.close_idle();
    assert_eq!((by_bytes.status().open, by_bytes.status().bytes), (0, 0));
    drop(by_bytes);
    // What stays is used again.
    let all = Cache::new(OPENING);
    for _ in 0..3 {
        scan_all(&all);
    }
    assert_eq!((all.status().open, all.status().opens), (6, 6));
}

#[test]
fn a_lease_keeps_a_segment_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(1, 2_000);
    let segment = log.build(dir.path());
    let cache = Cache::default();
    let lease = segment.lease().unwrap();
    cache.read(&lease, Seq::new(1), Seq::new(10), &Filter::ALL).unwrap();
    assert_eq!(segment.leases(), 1);
    assert_eq!(cache.discard(&segment).unwrap(), None);
    assert!(segment.lease().is_none(), "retired");
    let all = read_all(&cache, &lease, log.first(), log.end(), &Filter::ALL).unwrap();
    assert_eq!(join(&all), log.bytes());
    drop(lease);
    let trashed = cache.discard(&segment).unwrap().unwrap();
    assert!(!segment.dir().exists() && trashed.exists());
    assert_eq!(cache.status().open, 0);
    delete(&trashed, &Disk::real()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn reading_offline_and_verifying_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let log = Log::random(1, 300, 9);
    let segment = log.build(dir.path());
    let before = snapshot(dir.path());
    let reader = OfflineReader::open(segment.dir(), scratch.path()).unwrap();
    assert!(reader.altered().is_none());
    let mut next = log.first();
    let mut joined = Vec::new();
    while next < log.end() {
        let chunk = reader.read(next, log.end(), &Filter::ALL).unwrap();
        joined.extend_from_slice(&chunk.events);
        next = chunk.end;
    }
    assert_eq!(joined, log.bytes());
    drop(reader);
    let verified = verify(segment.dir(), scratch.path(), Some(&KEY), &Progress::default());
    assert_eq!(verified.unwrap(), []);
    let other_key = FingerprintKey::new([8; 16]);
    let verified = verify(segment.dir(), scratch.path(), Some(&other_key), &Progress::default());
    assert_eq!(verified.unwrap().len(), 1, "a check that cannot fail checks nothing");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert_eq!(snapshot(dir.path()), before);
    // Reading in place does not change one either, or the next open would call it damage.
    for _ in 0..3 {
        let cache = Cache::default();
        let lease = segment.lease().unwrap();
        read_all(&cache, &lease, log.first(), log.end(), &Filter::ALL).unwrap();
        drop(cache);
        assert_eq!(snapshot(dir.path()), before);
    }
}
