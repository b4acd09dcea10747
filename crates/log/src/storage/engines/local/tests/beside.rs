//! Looking at a log while a daemon works on it.

use std::sync::atomic::AtomicU32;

use super::super::survey::survey_within;
use super::*;
use crate::storage::journal::{Scan, read_header};
use crate::storage::{FORMAT_VERSION, Store};

#[test]
fn a_survey_beside_a_busy_daemon_finds_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { slot_bytes: 4 << 20, ..options() };
    let (engine, _) = open(dir.path(), options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (engine, stop) = (engine.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                append(&*engine, commit(&*engine, 200)).unwrap();
            }
        })
    };
    for _ in 0..30 {
        let head = engine.bounds().head;
        let found = survey(dir.path(), &Disk::real()).unwrap();
        assert_eq!(found.damage, []);
        assert!(found.next() > head, "{head} was there, {} comes next", found.next());
    }
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
}

fn head_of(path: &Path) -> Scan {
    let disk = Disk::real();
    read_header(&disk, &disk.open_read(path).unwrap(), path).unwrap()
}

/// A disk on which `before` is called once, before the `nth` read of `path`.
fn interrupted(path: &Path, nth: u32, before: impl Fn() + Send + Sync + 'static) -> Disk {
    let (path, reads) = (path.to_owned(), AtomicU32::new(0));
    Disk::watched(Arc::new(move |action, at| {
        if action == "read" && at == path && reads.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            before();
        }
    }))
}

#[test]
fn a_slot_that_is_used_again_while_it_is_read_is_neither_damaged_nor_the_end() {
    // Between head and frames, between two reads of frames, before the second look at the head.
    for nth in 2..=5 {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = reopen(dir.path());
        while engine.journal.lock().end() < SLOT * 3 / 4 {
            fill(&*engine, 50, 50);
        }
        let slot = engine.view().slots.last().unwrap().path().to_owned();
        let (head, before) = (engine.bounds().head, head_of(&slot));
        let disk = {
            let (engine, path) = (engine.clone(), slot.clone());
            interrupted(&slot, nth, move || {
                while head_of(&path) == before || engine.journal.lock().end() < SLOT / 2 {
                    fill(&*engine, 50, 50);
                }
            })
        };
        let found = survey(dir.path(), &disk).unwrap();
        assert_eq!(found.damage, [], "read {nth}");
        assert!(found.next() > head, "read {nth}: {head} was there, {} is next", found.next());
        assert!(engine.bounds().head > head || nth > 3, "read {nth} was not interrupted");
    }
}

#[test]
fn damage_is_told_beside_a_daemon_and_only_when_nothing_moves() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 10_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let lost = engine.view().segments[1].dir().to_owned();
    std::fs::rename(&lost, dir.path().join("lost")).unwrap();
    // Another file each time that one is opened: no two looks see the same.
    let (journal, files) = (dir.path().join(JOURNAL_DIR), AtomicU32::new(0));
    let busy = Disk::watched(Arc::new(move |action, _| {
        if action == "open" {
            let n = files.fetch_add(1, Ordering::SeqCst);
            std::fs::write(journal.join(format!("slot-9{n:05}")), [0; 8192]).unwrap();
        }
    }));
    match survey_within(dir.path(), &busy, FORMAT_VERSION, Duration::from_millis(50)) {
        Err(StoreError::Unsettled { path }) => assert_eq!(path, dir.path()),
        other => panic!("{:?}", other.map(|found| found.damage)),
    }
    let found = survey(dir.path(), &Disk::real()).unwrap();
    let damage: Vec<_> = found.damage.iter().map(|damage| damage.detail.as_str()).collect();
    assert_eq!(damage, ["the events before this file are missing"]);
}

#[test]
fn rot_in_a_slot_is_told_however_busy_the_daemon_is_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 30, 1);
    let (slot, fifth) = {
        let slot = Arc::clone(engine.view().slots.last().unwrap());
        (slot.path().to_owned(), slot.frame_of(Seq::new(5)).unwrap())
    };
    overwrite(&slot, fifth.offset + 120, b"rot");
    let busy = Disk::watched(Arc::new(move |_, _| fill(&*engine, 1, 1)));
    let found = survey(dir.path(), &busy).unwrap();
    let damage: Vec<_> = found.damage.iter().map(|d| (d.from.get(), d.to.get())).collect();
    assert_eq!(damage, [(5, 5)]);
}
