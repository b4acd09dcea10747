mod beside;
mod erasing;
mod hanging;
mod joining;
mod owning;
mod private;
mod proof;
mod refusal;
mod regressions;
mod releasing;
mod taking_out;
mod topics;
mod trimmed;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::*;
use crate::storage::disk::Disk;

use crate::chain::Link;
use crate::storage::disk::Faults;
use crate::storage::forward::{Forward, Rest, Start};
use crate::storage::meta::Meta;
use crate::storage::{
    Commit, Engine, FORMAT_VERSION, Journal, Recovered, RemovedReason, Store, StoreError,
};
use crate::testing::{self, Over, all_topics, append};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Fingerprint, Seq, Timestamp};

const SLOT: u64 = 256 << 10;
/// For what must come about, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(120);

fn options() -> Options {
    Options { slot_bytes: SLOT, min_free_bytes: 0, ..Options::default() }
}

fn body_of(seq: u64) -> String {
    format!("event {seq} {}", "x".repeat((seq % 97) as usize))
}

/// A commit of `count` events after the head. Its delta is its first seq.
fn commit(engine: &dyn Engine, count: u32) -> Commit {
    let commit = testing::commit(engine, count, |seq| body_of(seq.get()));
    let delta = Bytes::copy_from_slice(&commit.first.get().to_le_bytes());
    let state = engine.wants_state(1 << 20).then(|| Bytes::from_static(b"state"));
    Commit { delta, state, ..commit }
}

fn fill(engine: &dyn Engine, events: u32, per_commit: u32) {
    for _ in 0..events.div_ceil(per_commit) {
        append(engine, commit(engine, per_commit)).unwrap();
    }
}

/// Reads everything and compares it with what was appended.
fn check_all(engine: &dyn Engine) -> u64 {
    let bounds = engine.bounds();
    let (mut at, mut seen) = (bounds.oldest, 0);
    while at <= bounds.head {
        let chunk = engine.read(at, bounds.next(), &Filter::ALL).unwrap();
        assert_eq!(chunk.first, at);
        let mut seq = at;
        for event in Events::new(&chunk.events) {
            let event = Event::parse(event.unwrap()).unwrap();
            assert_eq!((event.seq, event.body), (seq, body_of(seq.get()).as_str()));
            seq = seq.next();
            seen += 1;
        }
        assert_eq!(seq, chunk.end);
        at = chunk.end;
    }
    assert_eq!(seen, bounds.oldest.distance_to(bounds.next()));
    seen
}

fn copy_dir(from: &Path, to: &Path) {
    testing::copy_dir(from, to).unwrap();
}

/// Waits for a condition that background work brings about.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::yield_now();
    }
}

#[test]
fn a_new_log_is_empty_and_a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, recovered) = open(dir.path(), options()).unwrap();
    assert!(engine.bounds().is_empty() && recovered.deltas.is_empty());
    assert_eq!((engine.bounds().oldest, engine.bounds().head), (Seq::FIRST, Seq::ZERO));
    match open(dir.path(), options()) {
        Err(StoreError::Locked { owner, .. }) => assert_eq!(owner, Some(std::process::id())),
        other => panic!("{:?}", other.map(|_| ())),
    }
    let id = engine.id();
    engine.close().unwrap();
    drop(engine);
    assert_eq!(open(dir.path(), options()).unwrap().0.id(), id);
}

#[test]
fn commits_survive_a_clean_stop_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for round in 0..6u32 {
        let (engine, recovered) = reopen(dir.path());
        assert_eq!(check_all(&*engine), expected);
        assert_eq!(recovered.deltas.len(), round as usize * 7);
        fill(&*engine, 7 * 3, 3);
        expected += 21;
        assert_eq!(check_all(&*engine), expected);
        if round % 2 == 0 {
            engine.close().unwrap();
        }
    }
}

#[test]
fn an_active_slot_without_an_event_is_not_unsealed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    assert_eq!(engine.status().unsealed_slots, 0);
    fill(&*engine, 1, 1);
    assert_eq!(engine.status().unsealed_slots, 1);
    engine.close().unwrap();
    drop(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!(engine.status().unsealed_slots, 1);
}

#[test]
fn full_slots_are_sealed_and_reused() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 20_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    assert!(engine.status().segments >= 5, "{:?}", engine.status());
    assert_eq!(check_all(&*engine), 20_000);
    let topics = all_topics(&*engine, 100).unwrap();
    assert_eq!(topics.values().map(|stats| stats.events).sum::<u64>(), 20_000);
    assert_eq!(engine.seek_time(Timestamp { seconds: 1_700_000_051, nanos: 0 }).unwrap().get(), 51);
    let mut named = 0u64;
    engine
        .fingerprints(Seq::FIRST, &mut |seq, _| {
            named += 1;
            assert_eq!(seq.get(), 20_001 - named);
            true
        })
        .unwrap();
    assert_eq!(named, 20_000);
    engine.close().unwrap();
    drop(engine);
    let (engine, recovered) = reopen(dir.path());
    assert_eq!(check_all(&*engine), 20_000);
    assert_eq!(recovered.state, Bytes::from_static(b"state"));
}

#[test]
fn sealed_events_are_read_from_sled_with_the_journal_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 5_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let sealed = engine.view().sealed_end().unwrap();
    assert!(sealed.get() > 2_000);
    // Every slot file is overwritten with junk below the daemon.
    for entry in std::fs::read_dir(dir.path().join(JOURNAL_DIR)).unwrap() {
        std::fs::write(entry.unwrap().path(), vec![0xa5; SLOT as usize]).unwrap();
    }
    let mut at = Seq::FIRST;
    while at < sealed {
        let chunk = engine.read(at, sealed, &Filter::ALL).unwrap();
        for event in Events::new(&chunk.events) {
            let event = Event::parse(event.unwrap()).unwrap();
            assert_eq!(event.body, body_of(event.seq.get()));
        }
        at = chunk.end;
    }
    assert!(matches!(
        engine.read(sealed, sealed.next(), &Filter::ALL),
        Err(StoreError::Damaged(_))
    ));
}

/// Without marks: nothing but the tip proves the last commit, however long the machine takes.
fn no_marks() -> Options {
    Options { mark_after: Duration::from_secs(3600), ..options() }
}

/// As a power loss would: what was not synced is gone.
fn lose_power(dir: &Path, engine: Arc<LocalEngine>) {
    vanish(engine);
    std::fs::remove_file(dir.join("journal/tip")).unwrap();
}

#[test]
fn a_trim_moves_the_oldest_exactly_and_gives_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 10_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let segments = engine.status().segments;
    let trim = Commit { oldest: Seq::new(4_321), ..commit(&*engine, 0) };
    append(&*engine, trim).unwrap();
    engine.reclaim().unwrap();
    assert_eq!(engine.bounds().oldest.get(), 4_321);
    assert!(engine.status().segments < segments);
    assert!(matches!(
        engine.read(Seq::new(4_320), Seq::new(4_322), &Filter::ALL),
        Err(StoreError::Trimmed { oldest }) if oldest.get() == 4_321
    ));
    let events: u64 = all_topics(&*engine, 100).unwrap().values().map(|stats| stats.events).sum();
    assert_eq!(events, 10_000 - 4_320);
    drop(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!(engine.bounds().oldest.get(), 4_321);
    assert_eq!(check_all(&*engine), 10_000 - 4_320);
}

#[test]
fn a_lost_identity_is_rebuilt_from_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 10, 1);
    let (id, key) = (engine.id(), engine.fingerprint_key());
    drop(engine);
    std::fs::remove_file(dir.path().join("log.meta")).unwrap();
    let (engine, _) = reopen(dir.path());
    assert_eq!((engine.id(), engine.fingerprint_key()), (id, key));
    assert_eq!(check_all(&*engine), 10);
}

#[test]
fn missing_and_foreign_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("nothing");
    let no_create = Options { create: false, ..options() };
    assert!(matches!(open(&nothing, no_create), Err(StoreError::Missing { .. })));
    std::fs::write(dir.path().join("novel.txt"), "once").unwrap();
    assert!(matches!(open(dir.path(), options()), Err(StoreError::Foreign { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");

    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 5_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    engine.close().unwrap();
    drop(engine);
    for gone in ["journal/slot-0001", "journal/slot-0002", "segments"] {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let path = copy.path().join(gone);
        if path.is_dir() {
            let first = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
            std::fs::remove_dir_all(first).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        match open(copy.path(), options()) {
            Err(StoreError::Damaged(_)) => {}
            // A slot that was not reused yet may still have what the last segment held.
            Ok((engine, _)) if gone == "segments" => assert_eq!(check_all(&*engine), 5_000),
            other => panic!("{gone}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn a_free_slot_that_was_cut_is_allocated_again_and_no_slot_is_overwritten() {
    for cut in ["slot-0001", "slot-0002"] {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = reopen(dir.path());
        fill(&*engine, 5_000, 50);
        eventually("sealing", || engine.status().unsealed_slots <= 1);
        fill(&*engine, 10, 5);
        let active = engine.view().slots.last().unwrap().path().to_owned();
        drop(engine);
        let path = dir.path().join(JOURNAL_DIR).join(cut);
        if path == active {
            continue;
        }
        std::fs::File::options().write(true).open(&path).unwrap().set_len(SLOT - 4096).unwrap();
        let (engine, _) = reopen(dir.path());
        fill(&*engine, 2_000, 50);
        drop(engine);
        let (engine, _) = reopen(dir.path());
        assert_eq!(check_all(&*engine), 7_010, "{cut}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SLOT);
    }
}

#[test]
fn a_segment_discarded_twice_does_not_keep_others_from_going() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 10_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    // As when a segment is trimmed while it is folded into the next one.
    let twice = Arc::clone(&engine.view().segments[0]);
    engine.discarded.lock().push(twice);
    let trim = Commit { oldest: Seq::new(9_000), ..commit(&*engine, 0) };
    append(&*engine, trim).unwrap();
    engine.reclaim().unwrap();
    eventually("deleting", || {
        let entries = std::fs::read_dir(engine.segments_dir()).unwrap();
        entries.count() == engine.view().segments.len()
    });
    assert!(engine.discarded.lock().is_empty());
    assert_eq!(check_all(&*engine), 1_001);
}

#[test]
fn a_time_that_cannot_be_stored_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    let later = Timestamp { seconds: 253_402_300_799, nanos: 0 };
    let refused = append(&*engine, Commit { appended_at: later, ..commit(&*engine, 1) });
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    fill(&*engine, 10, 10);
    assert_eq!(check_all(&*engine), 10);
}

#[test]
fn a_state_larger_than_a_slot_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    let mut refused = 0;
    for _ in 0..2_000 {
        let mut next = commit(&*engine, 10);
        if engine.wants_state(next.events.len() + next.delta.len()) {
            next.state = Some(vec![7; SLOT as usize - 9_000].into());
        }
        match append(&*engine, next) {
            Ok(_) => {}
            Err(StoreError::Invalid(_)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 10);
    let head = engine.bounds().head.get();
    // A state that fits lets it go on.
    fill(&*engine, 1_000, 10);
    drop(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!(check_all(&*engine), head + 1_000);
}

#[test]
fn deltas_that_fill_a_slot_give_way_to_a_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for round in 0..12u64 {
        let (engine, recovered) = reopen(dir.path());
        assert_eq!(check_all(&*engine), expected, "round {round}");
        assert!(!recovered.deltas.is_empty() || !recovered.state.is_empty() || round == 0);
        for _ in 0..4 {
            let mut next = commit(&*engine, 1);
            next.delta = vec![1; 10_000].into();
            let wants = engine.wants_state(next.events.len() + next.delta.len());
            next.state = wants.then(|| Bytes::from_static(b"state"));
            append(&*engine, next).unwrap();
            expected += 1;
        }
    }
}

#[test]
fn a_slot_too_full_for_events_still_takes_a_trim() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    let must_roll = |body: usize| engine.journal.lock().must_roll(body as u64);
    while !must_roll(1_000) {
        fill(&*engine, 1, 1);
    }
    // To the last byte that events may have.
    let mut last = commit(&*engine, 1);
    let room = (0..).find(|&delta| must_roll(last.events.len() + delta)).unwrap() - 1;
    last.delta = vec![0; room].into();
    append(&*engine, last).unwrap();
    assert!(must_roll(8));
    let slot = Arc::clone(engine.view().slots.last().unwrap());
    let oldest = engine.bounds().head;
    append(&*engine, Commit { oldest, ..commit(&*engine, 0) }).unwrap();
    // On a full disk there would be no other slot to take it.
    assert!(Arc::ptr_eq(&slot, engine.view().slots.last().unwrap()));
    assert_eq!(engine.bounds().oldest, oldest);
    // Its file is locked for as long as somebody has it.
    drop((engine, slot));
    assert_eq!(check_all(&*reopen(dir.path()).0), 1);
}

#[test]
fn every_failing_file_operation_is_survived() {
    let run = |dir: &Path, disk: Disk| -> (u64, Result<(), StoreError>) {
        let mut acked = 0;
        let mut script = || {
            let (engine, _) = open(dir, Options { disk: disk.clone(), ..options() })?;
            for _ in 0..60 {
                let commit = commit(&*engine, 40);
                append(&*engine, commit)?;
                acked = engine.bounds().head.get();
            }
            engine.close()
        };
        let result = script();
        (acked, result)
    };
    let counter = Faults::none();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), Disk::with_faults(counter.clone())).1.unwrap();
    let operations = counter.seen();
    assert!(operations > 100, "{operations}");
    let mut failed = 0;
    for nth in 1..=operations {
        for sticky in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let faults = Faults::nth(nth, std::io::ErrorKind::Other, sticky);
            let (acked, result) = run(dir.path(), Disk::with_faults(faults));
            failed += u32::from(result.is_err());
            let (engine, _) = reopen(dir.path());
            let head = engine.bounds().head.get();
            assert!(head >= acked, "operation {nth}: {acked} acked, {head} found");
            check_all(&*engine);
        }
    }
    assert!(failed > 100, "only {failed} runs saw the failure");
}

/// Opens again; a sealer that was still at work may hold the lock for a moment.
fn reopen(dir: &Path) -> (Arc<LocalEngine>, Recovered) {
    reopen_with(dir, &options())
}

fn reopen_with(dir: &Path, options: &Options) -> (Arc<LocalEngine>, Recovered) {
    let begun = Instant::now();
    loop {
        match open(dir, options.clone()) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    }
}

/// Drops an engine as a kill would, and waits until it has let go of the log.
fn vanish(engine: Arc<LocalEngine>) {
    let lock_file = engine.dir().join(LOCK_FILE);
    drop(engine);
    let lock_file = std::fs::File::open(lock_file).unwrap();
    eventually("the end of the engine", || lock_file.try_lock().is_ok());
}

fn last_frame(engine: &LocalEngine) -> (PathBuf, crate::storage::journal::FrameRef) {
    let view = engine.view();
    let slot = view.slots.last().unwrap();
    (slot.path().to_owned(), slot.frame_of(engine.bounds().head).unwrap())
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// The disk engine, put to the suite that every engine must pass.
struct OnDisk(tempfile::TempDir);

impl crate::storage::conformance::Factory for OnDisk {
    fn create(&mut self) -> crate::storage::conformance::Opened {
        let (engine, recovered) = open(self.0.path(), options()).unwrap();
        crate::storage::conformance::Opened { engine, recovered }
    }

    fn reopen(
        &mut self,
        engine: Arc<dyn Engine>,
        _how: crate::storage::conformance::Reopen,
    ) -> crate::storage::conformance::Opened {
        drop(engine);
        let (engine, recovered) = reopen(self.0.path());
        crate::storage::conformance::Opened { engine, recovered }
    }

    fn lose(
        &mut self,
        engine: Arc<dyn Engine>,
        ranges: &[std::ops::Range<Seq>],
    ) -> crate::storage::conformance::Opened {
        engine.close().unwrap();
        let meta = Meta::load(&Disk::real(), self.0.path(), FORMAT_VERSION).unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let bounds = engine.bounds();
        let start = Start { first: bounds.oldest, link: Link::START, oldest: bounds.oldest };
        let mut forward = Forward::begin(dir.path(), options(), meta, start).unwrap().exact();
        for end in ranges.iter().flat_map(|range| [range.start, range.end]).chain([bounds.next()]) {
            let from = forward.next();
            if from >= end {
                continue;
            }
            if ranges.iter().any(|range| range.start == from) {
                let link = Link::of_tag(engine.tag_of(end.prev()).unwrap());
                forward.removed(end, RemovedReason::Damaged, link).unwrap();
            } else {
                let mut at = from;
                let chunks = std::iter::from_fn(|| {
                    let chunk = (at < end).then(|| engine.read(at, end, &Filter::ALL).unwrap())?;
                    at = chunk.end;
                    Some(Ok(chunk))
                });
                forward.segment(end, chunks).unwrap();
            }
        }
        let (state, deltas) = (Bytes::new(), Vec::new());
        let last_at = engine.time_of(bounds.head).unwrap();
        let rest = Rest { slot_number: 1, last_at, state, deltas, oldest_tag: None };
        forward.finish(rest).unwrap();
        drop(engine);
        self.0 = dir;
        let (engine, recovered) = reopen(self.0.path());
        crate::storage::conformance::Opened { engine, recovered }
    }
}

#[test]
fn the_disk_engine_conforms() {
    crate::storage::conformance::run(|| OnDisk(tempfile::tempdir().unwrap()));
}
