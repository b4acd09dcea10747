//! Slots that are begun early, and slot files that are given back.

use super::regressions::{block_segments, unblock_segments};
use super::*;
use crate::storage::{Clocks, Store};
use std::sync::atomic::AtomicI64;

/// A log with four slot files, all events sealed but those of the active slot.
fn burst(dir: &Path, disk: Disk) -> Arc<LocalEngine> {
    let (engine, _) = open(dir, Options { disk, ..no_marks() }).unwrap();
    block_segments(dir);
    while engine.view().slots.len() < 4 {
        fill(&*engine, 50, 50);
    }
    unblock_segments(dir);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    eventually("freeing", || {
        engine.free_retired(&mut engine.journal.lock());
        engine.retired.lock().is_empty()
    });
    engine
}

fn slot_files(dir: &Path) -> usize {
    let names = Disk::real().list(&dir.join(JOURNAL_DIR)).unwrap();
    names.iter().filter(|path| path.to_string_lossy().contains("slot-")).count()
}

#[test]
fn slots_that_a_burst_took_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let engine = burst(dir.path(), Disk::real());
    let (before, head) = (engine.status().disk_bytes, engine.bounds().head.get());
    assert_eq!(slot_files(dir.path()), 4);
    // As few as are asked for, and never the last ones.
    assert_eq!(engine.release(1).unwrap(), SLOT);
    assert_eq!(slot_files(dir.path()), 3);
    assert_eq!(engine.release(u64::MAX).unwrap(), SLOT);
    assert_eq!(engine.release(u64::MAX).unwrap(), 0);
    assert_eq!((slot_files(dir.path()), engine.status().disk_bytes), (2, before - 2 * SLOT));
    assert_eq!(check_all(&*engine), head);
    vanish(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!(check_all(&*engine), head);
    fill(&*engine, 10_000, 50);
    assert_eq!(check_all(&*engine), head + 10_000);
}

#[test]
fn a_kill_while_slots_are_given_back_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let images = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicU64::new(u64::MAX));
    let disk = {
        let (count, from, to) = (count.clone(), dir.path().to_owned(), images.path().to_owned());
        Disk::watched(Arc::new(move |_, _| {
            if count.load(Ordering::SeqCst) < 100 {
                let n = count.fetch_add(1, Ordering::SeqCst);
                copy_dir(&from, &to.join(n.to_string()));
            }
        }))
    };
    let engine = burst(dir.path(), disk);
    let head = engine.bounds().head.get();
    count.store(0, Ordering::SeqCst);
    assert_eq!(engine.release(u64::MAX).unwrap(), 2 * SLOT);
    let taken = count.swap(u64::MAX, Ordering::SeqCst);
    assert!(taken >= 4, "{taken}");
    for n in 0..taken {
        let (engine, _) = reopen(&images.path().join(n.to_string()));
        assert_eq!(check_all(&*engine), head, "image {n} of {taken}");
        vanish(engine);
    }
}

#[test]
fn a_slot_whose_events_are_all_trimmed_is_free_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), no_marks()).unwrap();
    while engine.view().slots[0].event_bytes() < SLOT / 4 {
        fill(&*engine, 50, 50);
    }
    let slot = engine.view().slots[0].header().number;
    append(&*engine, Commit { oldest: engine.bounds().next(), ..commit(&*engine, 0) }).unwrap();
    engine.reclaim().unwrap();
    eventually("a new slot", || engine.view().slots.last().unwrap().header().number > slot);
    eventually("the old one's release", || {
        engine.retired.lock().is_empty() && engine.journal.lock().slots().has_free()
    });
    assert_eq!((engine.view().slots.len(), slot_files(dir.path())), (1, 2));
    assert_eq!((engine.bounds().is_empty(), engine.status().segments), (true, 0));
    let next = engine.bounds().next();
    vanish(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!((engine.bounds().next(), check_all(&*engine)), (next, 0));
    fill(&*engine, 100, 50);
    assert_eq!(check_all(&*engine), 100);
}

#[test]
fn slots_that_wait_for_sealing_are_trimmed_for_bytes_after_all_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 5_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    block_segments(dir.path());
    while engine.view().slots.len() < 4 {
        fill(&*engine, 50, 50);
    }
    let (view, end) = (engine.view(), engine.bounds().next());
    let sealed: u64 = view.segments.iter().map(|segment| segment.disk_bytes()).sum();
    let slots = view.slots.len() as u64 * SLOT;
    let point = |max_bytes| engine.trim_point_for_size(max_bytes, end);
    assert_eq!(point(sealed + slots), engine.bounds().oldest);
    assert_eq!(point(slots), view.sealed_end().unwrap());
    // Of what the two files take that are never given back no more counts than half of the limit.
    assert_eq!(point(slots - 2), view.slots[0].end());
    // Two files are never given back, so nothing is trimmed for them.
    assert_eq!(point(0), view.slots[1].end());
}

#[test]
fn a_journal_that_is_larger_than_the_limit_leaves_half_of_it_to_what_is_sealed() {
    const LARGE: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let large = Options { slot_bytes: LARGE, seal_after: Duration::ZERO, ..no_marks() };
    let (engine, _) = open(dir.path(), large).unwrap();
    // No segment is so small that it grows, and none is as large as a slot.
    for _ in 0..2 {
        let before = engine.status().segments;
        for _ in 0..4 {
            append(&*engine, testing::commit(&*engine, 2_500, |_| "x".repeat(3_500))).unwrap();
        }
        eventually("sealing", || engine.status().segments > before);
    }
    let (view, end) = (engine.view(), engine.bounds().next());
    let sealed: u64 = view.segments.iter().map(|segment| segment.disk_bytes()).sum();
    let point = |max_bytes| engine.trim_point_for_size(max_bytes, end);
    // The control: it is a limit that the journal alone goes beyond.
    assert!(view.segments.len() > 1 && 2 * sealed < 2 * LARGE, "{sealed}");
    assert_eq!(point(2 * sealed), engine.bounds().oldest);
    assert_eq!(point(2 * sealed - 2), view.segments[0].end());
}

/// A wall clock that a test sets, and time that passes only when it says so.
fn set_clocks(wall: i64) -> (Clocks, Arc<AtomicI64>, Arc<AtomicU64>) {
    let (now, passed) = (Arc::new(AtomicI64::new(wall)), Arc::new(AtomicU64::new(0)));
    let (told, gone) = (Arc::clone(&now), Arc::clone(&passed));
    let clocks = Clocks {
        wall: Arc::new(move || Timestamp { seconds: told.load(Ordering::SeqCst), nanos: 0 }),
        elapsed: Arc::new(move || Duration::from_secs(gone.load(Ordering::SeqCst))),
    };
    (clocks, now, passed)
}

#[test]
fn a_slot_begun_while_the_clock_was_ahead_is_sealed_by_age_all_the_same() {
    const TODAY: i64 = 1_700_000_000;
    const YEAR: i64 = 31_536_000;
    let dir = tempfile::tempdir().unwrap();
    let (clocks, wall, passed) = set_clocks(TODAY + YEAR);
    let options = Options { clocks, seal_after: Duration::from_secs(3_600), ..no_marks() };
    let (engine, _) = open(dir.path(), options.clone()).unwrap();
    fill(&*engine, 10, 1);
    wall.store(TODAY, Ordering::SeqCst);
    // Not before its time.
    passed.store(3_599, Ordering::SeqCst);
    assert!(!engine.roll_if_due().unwrap());
    passed.store(3_600, Ordering::SeqCst);
    eventually("sealing", || engine.view().sealed_end() == Some(Seq::new(11)));
    // The next one is as old as it is.
    fill(&*engine, 10, 1);
    assert!(!engine.roll_if_due().unwrap());
    wall.store(TODAY - YEAR, Ordering::SeqCst);
    passed.store(7_199, Ordering::SeqCst);
    assert!(!engine.roll_if_due().unwrap());
    passed.store(7_200, Ordering::SeqCst);
    eventually("sealing", || engine.view().sealed_end() == Some(Seq::new(21)));
    // What was suspended has seen nothing pass.
    fill(&*engine, 10, 1);
    wall.store(TODAY + 3_600, Ordering::SeqCst);
    eventually("sealing", || engine.view().sealed_end() == Some(Seq::new(31)));
    // Whatever an unsealed slot says of itself, an opening seals it.
    wall.store(TODAY + YEAR, Ordering::SeqCst);
    fill(&*engine, 10, 1);
    vanish(engine);
    wall.store(TODAY, Ordering::SeqCst);
    let (engine, _) = reopen_with(dir.path(), &options);
    eventually("sealing", || engine.view().sealed_end() == Some(Seq::new(41)));
    assert_eq!(check_all(&*engine), 40);
}
