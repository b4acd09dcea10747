//! Erasing on disk: cut and failing at any file operation, and what is found in the files after it.
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use super::*;
use crate::storage::disk::Watcher;
use crate::storage::{EraseOrder, ErasePhase, EraseProgress, Store};
use tailmark_record::Facts;

/// Not to be shortened by any compression, and told from all others.
fn marker(seq: u64) -> String {
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 59) as u8 % 26)
    };
    format!("marker-{seq}-{}", (0..40).map(letter).collect::<String>())
}

fn plain() -> Options {
    Options { compression: crate::storage::segment::Compression::None, ..options() }
}

fn order(ranges: &[Range<u64>]) -> Arc<EraseOrder> {
    let seqs = ranges.iter().map(|it| Seq::new(it.start)..Seq::new(it.end)).collect();
    let (id, at) = (uuid::Uuid::from_u128(0xe5a5e), Timestamp { seconds: 7, nanos: 0 });
    Arc::new(EraseOrder { id, reason: "a person asked".to_owned(), at, seqs })
}

fn fill_marked(engine: &dyn Engine, commits: u32, per_commit: u32) {
    for _ in 0..commits {
        let next = testing::commit(engine, per_commit, |seq| marker(seq.get()));
        append(engine, next).unwrap();
    }
}

fn go_on(_: EraseProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Reads all. Answers the seqs of shells; every other event is as it was appended.
fn shells(engine: &dyn Engine) -> BTreeSet<u64> {
    let bounds = engine.bounds();
    let (mut at, mut found) = (bounds.oldest, BTreeSet::new());
    while at <= bounds.head {
        let chunk = engine.read(at, bounds.next(), &Filter::ALL).unwrap();
        assert_eq!(chunk.first, at);
        for event in Events::new(&chunk.events) {
            let event = event.unwrap();
            let (facts, view) = (Facts::scan(event).unwrap(), Event::parse(event).unwrap());
            assert_eq!((facts.seq, view.topic), (at, &*format!("t.{}", at.get() % 5)));
            assert_eq!(engine.tag_of(at).unwrap(), crate::chain::tag_in(event).unwrap());
            match facts.erased {
                Some(_) => assert!(found.insert(at.get())),
                None => assert_eq!(view.body, marker(at.get())),
            }
            at = at.next();
        }
        assert_eq!(at, chunk.end);
    }
    found
}

/// The files below a directory, by path.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A directory may go meanwhile.
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The seqs of which a file has what was said: the body, the id, or the fingerprint.
fn said_in(dir: &Path, engine: &dyn Engine, seqs: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    let key = engine.fingerprint_key();
    let said = seqs.into_iter().map(|seq| {
        let (id, topic, body) = (format!("id-{seq}"), format!("t.{}", seq % 5), marker(seq));
        let mut part = Vec::new();
        let event = Event { id: &id, topic: &topic, body: &body, ..Event::default() };
        event.write_client_part(&mut part);
        // The id as its field, so that that of 12 is not found in that of 123.
        let id = [&[0x0a, id.len() as u8][..], id.as_bytes(), &[0x12]].concat();
        (seq, [body.into_bytes(), id, key.fingerprint(&part).0.to_vec()])
    });
    let said: Vec<_> = said.collect();
    let mut found = BTreeSet::new();
    // Where one went meanwhile, it may have another name: then all are read again.
    let read = || files(dir).iter().map(std::fs::read).collect::<Result<Vec<_>, _>>();
    let all = loop {
        match read() {
            Ok(all) => break all,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    };
    for bytes in all {
        let has = |part: &Vec<u8>| memchr::memmem::find(&bytes, part).is_some();
        found.extend(said.iter().filter(|(_, parts)| parts.iter().any(has)).map(|(seq, _)| *seq));
    }
    found
}

fn all(ranges: &[Range<u64>]) -> BTreeSet<u64> {
    ranges.iter().cloned().flatten().collect()
}

/// Some in segments, some in each slot, at all ends.
const RANGES: [Range<u64>; 5] = [1..4, 700..760, 1_500..1_501, 2_990..3_010, 3_195..3_201];

#[test]
fn what_was_said_is_in_no_file_after_it_and_was_before() {
    for options in [plain(), options()] {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = open(dir.path(), options.clone()).unwrap();
        fill_marked(&*engine, 160, 20);
        eventually("sealing", || engine.status().unsealed_slots <= 1);
        std::fs::write(dir.path().join("quarantine/1-slot-0001-8192.bin"), marker(702)).unwrap();
        std::fs::create_dir(dir.path().join("segments/.tmp-left")).unwrap();
        std::fs::write(dir.path().join("segments/.tmp-left/db"), marker(703)).unwrap();
        // As one that there was no room to allocate again is there, or one that was copied by hand.
        let slot = |text: String| [text.into_bytes(), vec![0xa5; 100_000]].concat();
        std::fs::write(dir.path().join("journal/slot-0077"), slot(marker(704))).unwrap();
        std::fs::write(dir.path().join("journal/slot-0078.new"), slot(marker(705))).unwrap();
        let erased = all(&RANGES);
        assert_eq!(said_in(dir.path(), &*engine, erased.iter().copied()), erased);
        let order = order(&RANGES);
        // Without the wiping, it is found: the search can.
        let stopped = engine.erase(&order, &mut |now| match now.phase {
            ErasePhase::Wiping => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped, Err(StoreError::Stopped { .. })), "{stopped:?}");
        assert_eq!(shells(&*engine), erased);
        let found = said_in(dir.path(), &*engine, erased.iter().copied());
        assert!([702, 703, 704, 705].iter().all(|seq| found.contains(seq)), "{found:?}");
        engine.erase(&order, &mut go_on).unwrap();
        assert_eq!(said_in(dir.path(), &*engine, erased.iter().copied()), BTreeSet::new());
        // And the others are there.
        let others = [5, 699, 760, 2_000, 3_150];
        let plain = options.compression == crate::storage::segment::Compression::None;
        if plain {
            assert_eq!(said_in(dir.path(), &*engine, others).len(), 5);
        }
        engine.erased().unwrap();
        assert!(!dir.path().join(ERASING_FILE).exists());
        fill_marked(&*engine, 10, 20);
        vanish(engine);
        let (engine, _) = reopen_with(dir.path(), &options);
        assert_eq!(shells(&*engine), erased);
        assert_eq!(said_in(dir.path(), &*engine, erased.iter().copied()), BTreeSet::new());
        assert!(survey(dir.path(), &Disk::real()).unwrap().damage.is_empty());
    }
}

#[test]
fn what_is_trimmed_and_still_there_goes_too() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), plain()).unwrap();
    fill_marked(&*engine, 160, 20);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let trim = Commit { oldest: Seq::new(1_234), ..commit(&*engine, 0) };
    append(&*engine, trim).unwrap();
    engine.reclaim().unwrap();
    let erased = all(&[100..120, 1_200..1_260]);
    let is_there = |seq: u64| {
        let bytes = files(dir.path()).into_iter().filter_map(|path| std::fs::read(path).ok());
        let text = marker(seq).into_bytes();
        bytes.into_iter().any(|bytes| memchr::memmem::find(&bytes, &text).is_some())
    };
    assert!(is_there(1_199), "the search finds nothing that is there");
    // Fingerprints in `trimmed/`, and the part of a segment that is trimmed.
    assert!(said_in(dir.path(), &*engine, erased.iter().copied()).len() > 70);
    engine.erase(&order(&[100..120, 1_200..1_260]), &mut go_on).unwrap();
    assert_eq!(said_in(dir.path(), &*engine, erased.iter().copied()), BTreeSet::new());
    // Of others that are trimmed what tells repeats is left, and nothing else: nobody knows whose they are.
    assert_eq!(said_in(dir.path(), &*engine, [121, 1_199]).len(), 2);
    assert!((1_000..1_234).all(|seq| !is_there(seq)));
    assert_eq!(shells(&*engine), all(&[1_234..1_260]));
    let rewritten = engine.erase(&order(&[100..120, 1_200..1_260]), &mut go_on).unwrap();
    assert_eq!(rewritten, 0, "all was done");
}

#[test]
fn a_reader_that_holds_what_goes_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), plain()).unwrap();
    fill_marked(&*engine, 160, 20);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let view = engine.view();
    let (lease, slot) = (view.segments[0].lease().unwrap(), view.slots.last().cloned().unwrap());
    drop(view);
    let phase = Arc::new(Mutex::new(None));
    let (other, seen) = (Arc::clone(&engine), Arc::clone(&phase));
    let erasing = std::thread::spawn(move || {
        other.erase(&order(&RANGES), &mut |now| {
            *seen.lock() = Some((now.phase, now.segments_done));
            ControlFlow::Continue(())
        })
    });
    eventually("wiping", || matches!(*phase.lock(), Some((ErasePhase::Wiping, _))));
    // What it has is what it was.
    let chunk = engine.cache.read(&lease, Seq::FIRST, Seq::new(3), &Filter::ALL).unwrap();
    assert_eq!(
        Event::parse(Events::new(&chunk.events).next().unwrap().unwrap()).unwrap().body,
        marker(1)
    );
    assert!(slot.read(Seq::new(3_200), Seq::new(3_201)).is_ok());
    assert!(!erasing.is_finished());
    drop(lease);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!erasing.is_finished());
    drop(slot);
    erasing.join().unwrap().unwrap();
    assert_eq!(said_in(dir.path(), &*engine, all(&RANGES)), BTreeSet::new());
    assert_eq!(shells(&*engine), all(&RANGES));
}

/// Opens what a cut has left, and finishes the erasure if it had begun. Everything is old or a shell, and in the
/// end nothing is found.
fn finish(dir: &Path, acked: u64) {
    let (engine, _) = reopen_with(dir, &plain());
    assert!(engine.bounds().head.get() >= acked);
    let erased = all(&RANGES);
    assert!(shells(&*engine).is_subset(&erased));
    match engine.erasing() {
        Some(found) => assert_eq!(found, order(&RANGES)),
        // Not begun, or through.
        None => {
            let left = shells(&*engine);
            assert!(left.is_empty() || left == erased);
        }
    }
    engine.erase(&order(&RANGES), &mut go_on).unwrap();
    assert_eq!(shells(&*engine), erased);
    assert_eq!(said_in(dir, &*engine, erased.iter().copied()), BTreeSet::new());
    engine.erased().unwrap();
    engine.close().unwrap();
    assert!(survey(dir, &Disk::real()).unwrap().damage.is_empty());
}

/// A log with segments and two slots in use, closed as by a kill.
fn unfinished_log(dir: &Path) {
    let (engine, _) = open(dir, plain()).unwrap();
    fill_marked(&*engine, 160, 20);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    vanish(engine);
}

#[test]
fn an_erasure_that_is_killed_at_any_operation_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (log, copies) = (dir.path().join("log"), dir.path().join("copies"));
    unfinished_log(&log);
    let count = Arc::new(AtomicU64::new(0));
    let every = 9;
    let is_on = Arc::new(AtomicBool::new(false));
    let watcher: Watcher = {
        let (log, copies, count, is_on) = (log.clone(), copies.clone(), count, is_on.clone());
        Arc::new(move |_, _| {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            if is_on.load(Ordering::SeqCst) && nth % every == 0 {
                // Of what others do meanwhile a file may go between the list and the copy.
                let to = copies.join(nth.to_string());
                if testing::copy_dir(&log, &to).is_err() {
                    let _ = std::fs::remove_dir_all(&to);
                }
            }
        })
    };
    let (engine, _) = open(&log, Options { disk: Disk::watched(watcher), ..plain() }).unwrap();
    let head = engine.bounds().head.get();
    is_on.store(true, Ordering::SeqCst);
    engine.erase(&order(&RANGES), &mut go_on).unwrap();
    engine.erased().unwrap();
    is_on.store(false, Ordering::SeqCst);
    vanish(engine);
    let mut cut = 0;
    for entry in std::fs::read_dir(&copies).unwrap() {
        let copy = entry.unwrap().path();
        finish(&copy, head);
        std::fs::remove_dir_all(&copy).unwrap();
        cut += 1;
    }
    assert!(cut > 8, "{cut} cuts");
    finish(&log, head);
}

#[test]
fn an_erasure_of_which_any_operation_fails_is_finished_by_the_next_start() {
    let base = tempfile::tempdir().unwrap();
    let begun = base.path().join("begun");
    unfinished_log(&begun);
    let run = |dir: &Path, disk: Disk| -> Result<(), StoreError> {
        testing::copy_dir(&begun, dir).unwrap();
        let (engine, _) = open(dir, Options { disk, ..plain() })?;
        engine.erase(&order(&RANGES), &mut go_on)?;
        engine.erased()?;
        engine.close()
    };
    let counter = Faults::none();
    run(&base.path().join("counted"), Disk::with_faults(counter.clone())).unwrap();
    let operations = counter.seen();
    assert!(operations > 100, "{operations}");
    let mut failed = 0;
    // Not a divisor of what repeats itself.
    for (at, nth) in (1..=operations).step_by(7).enumerate() {
        let dir = base.path().join(nth.to_string());
        let faults = Faults::nth(nth, std::io::ErrorKind::Other, at % 2 == 0);
        failed += u32::from(run(&dir, Disk::with_faults(faults)).is_err());
        finish(&dir, 3_200);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert!(failed > 5, "only {failed} runs saw the failure");
}

#[test]
fn an_order_that_cannot_be_read_stops_the_opening() {
    let dir = tempfile::tempdir().unwrap();
    unfinished_log(dir.path());
    std::fs::write(dir.path().join(ERASING_FILE), b"TMERASE\x01 and no more").unwrap();
    match open(dir.path(), plain()) {
        Err(StoreError::Damaged(damage)) => assert!(damage.file.ends_with(ERASING_FILE)),
        other => panic!("{:?}", other.map(|_| ())),
    }
    std::fs::remove_file(dir.path().join(ERASING_FILE)).unwrap();
    assert_eq!(shells(&*reopen_with(dir.path(), &plain()).0), BTreeSet::new());
}

/// Appends and reads go on beside it, and what is appended meanwhile stays.
#[test]
fn appends_go_on_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), plain()).unwrap();
    fill_marked(&*engine, 160, 20);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                fill_marked(&*engine, 1, 20);
            }
        });
        engine.erase(&order(&RANGES), &mut go_on).unwrap();
    });
    assert_eq!(shells(&*engine), all(&RANGES));
    assert_eq!(said_in(dir.path(), &*engine, all(&RANGES)), BTreeSet::new());
    let head = engine.bounds().head;
    assert!(head.get() > 3_200);
    vanish(engine);
    let (engine, _) = reopen_with(dir.path(), &plain());
    assert_eq!((shells(&*engine), engine.bounds().head), (all(&RANGES), head));
}

/// Slots that were made when slots were larger, of which all is overwritten.
#[test]
fn a_slot_that_is_larger_than_new_ones_is_overwritten_whole() {
    let dir = tempfile::tempdir().unwrap();
    let large = Options { slot_bytes: 4 * SLOT, ..plain() };
    let (engine, _) = open(dir.path(), large).unwrap();
    while engine.view().slots[0].event_bytes() < 3 * SLOT {
        fill_marked(&*engine, 1, 20);
    }
    let head = engine.bounds().head.get();
    vanish(engine);
    let (engine, _) = reopen_with(dir.path(), &plain());
    let erased = all(&[1..head + 1]);
    assert_eq!(said_in(dir.path(), &*engine, erased.iter().copied()), erased);
    engine.erase(&order(&[1..head + 1]), &mut go_on).unwrap();
    assert_eq!(said_in(dir.path(), &*engine, erased.iter().copied()), BTreeSet::new());
    assert_eq!(shells(&*engine), erased);
}

/// Stopped at each of its steps, also beyond a restart: it can be taken back exactly as long as there is no shell.
#[test]
fn an_order_can_be_taken_back_until_it_has_erased_something() {
    let stops = [
        (ErasePhase::Sealing, 0, true),
        (ErasePhase::Rewriting, 0, true),
        (ErasePhase::Rewriting, 1, false),
        (ErasePhase::Rewriting, 2, false),
        (ErasePhase::Wiping, 0, false),
    ];
    for (phase, segments, wanted) in stops {
        for is_opened_again in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (mut engine, _) = open(dir.path(), plain()).unwrap();
            fill_marked(&*engine, 160, 20);
            let order = order(&RANGES);
            let stopped = engine.erase(&order, &mut |now| match (now.phase, now.segments_done)
                >= (phase, segments)
            {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
            assert!(matches!(stopped, Err(StoreError::Stopped { .. })), "{stopped:?}");
            if is_opened_again {
                vanish(engine);
                engine = reopen_with(dir.path(), &plain()).0;
            }
            assert_eq!(shells(&*engine).is_empty(), wanted, "{phase:?} {segments}");
            assert!(!engine.cancel_erasing(uuid::Uuid::from_u128(1)).unwrap(), "another's");
            assert_eq!(engine.cancel_erasing(order.id).unwrap(), wanted, "{phase:?} {segments}");
            assert_eq!(engine.erasing().is_none(), wanted);
            assert_eq!(dir.path().join(ERASING_FILE).exists(), !wanted);
            if !wanted {
                continue;
            }
            // Nothing of it goes on, and another one can be ordered.
            vanish(engine);
            let (engine, _) = reopen_with(dir.path(), &plain());
            assert!(engine.erasing().is_none() && shells(&*engine).is_empty());
            let other = EraseOrder { id: uuid::Uuid::from_u128(2), ..(*order).clone() };
            engine.erase(&Arc::new(other), &mut go_on).unwrap();
            engine.erased().unwrap();
            assert_eq!(shells(&*engine), all(&RANGES));
        }
    }
}

/// Shells of another erasure do not count, and what comes before them does.
#[test]
fn what_others_have_erased_does_not_keep_an_order() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), plain()).unwrap();
    fill_marked(&*engine, 160, 20);
    let first = EraseOrder { id: uuid::Uuid::from_u128(3), ..(*order(&[1..100])).clone() };
    engine.erase(&Arc::new(first), &mut go_on).unwrap();
    engine.erased().unwrap();
    let order = order(&[1..200]);
    assert!(engine.erase(&order, &mut |_| ControlFlow::Break(())).is_err());
    assert!(engine.cancel_erasing(order.id).unwrap());
    assert_eq!(shells(&*engine), (1..100).collect());
}

/// What was a shell and is trimmed since was erased all the same; and of what was trimmed nobody can tell what it was.
#[test]
fn an_order_whose_events_were_trimmed_since_is_not_taken_back() {
    for has_begun in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = open(dir.path(), plain()).unwrap();
        fill_marked(&*engine, 160, 20);
        let order = order(&[100..3_000]);
        let stopped = engine.erase(&order, &mut |now| match now.segments_done > 0 || !has_begun {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped, Err(StoreError::Stopped { .. })), "{stopped:?}");
        let erased = shells(&*engine);
        assert_eq!(erased.is_empty(), !has_begun);
        // What comes before it does not concern it.
        let trim = |oldest: u64| Commit { oldest: Seq::new(oldest), ..commit(&*engine, 0) };
        append(&*engine, trim(100)).unwrap();
        if has_begun {
            assert!(!engine.cancel_erasing(order.id).unwrap());
        }
        append(&*engine, trim(erased.last().map_or(101, |last| last + 1))).unwrap();
        assert!(!engine.cancel_erasing(order.id).unwrap(), "{has_begun}");
        assert!(engine.erasing().is_some());
    }
}

/// A segment that another erasure has written anew, and that was damaged since: the order says whether this one has begun, also
/// after a restart.
#[test]
fn a_damaged_segment_that_was_written_anew_before_does_not_keep_an_order() {
    for has_begun in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = open(dir.path(), plain()).unwrap();
        fill_marked(&*engine, 160, 20);
        let first = EraseOrder { id: uuid::Uuid::from_u128(3), ..(*order(&[5..6])).clone() };
        engine.erase(&Arc::new(first), &mut go_on).unwrap();
        engine.erased().unwrap();
        let order = order(&[1..600]);
        let stopped = engine.erase(&order, &mut |now| match now.segments_done > 0 || !has_begun {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        assert!(stopped.is_err());
        let segment = engine.view().segments[0].clone();
        assert_eq!((segment.revision(), segment.first()), (2 + u32::from(has_begun), Seq::FIRST));
        vanish(engine);
        let db = segment.dir().join("db/db");
        let mut bytes = std::fs::read(&db).unwrap();
        bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&db, bytes).unwrap();
        for _ in 0..2 {
            let (engine, _) = reopen_with(dir.path(), &plain());
            let read = engine.read(Seq::FIRST, Seq::new(2), &Filter::ALL);
            assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
            // It waits for the segment.
            assert!(engine.erase(&order, &mut go_on).is_err());
            vanish(engine);
        }
        let (engine, _) = reopen_with(dir.path(), &plain());
        let cancelled = engine.cancel_erasing(order.id);
        assert_eq!(cancelled.is_ok_and(|it| it), !has_begun);
        assert_eq!(engine.erasing().is_none(), !has_begun);
    }
}
