//! Whether the engine knows, without an append, that it would refuse one.

use super::*;
use crate::storage::meta::{META_FILE, Meta};
use crate::storage::{FORMAT_VERSION, Journal, Store};

/// Appends until one is refused.
fn refused(engine: &LocalEngine, per_commit: u32) -> StoreError {
    loop {
        if let Err(error) = append(engine, commit(engine, per_commit)) {
            return error;
        }
    }
}

#[test]
fn a_full_disk_is_known() {
    let dir = tempfile::tempdir().unwrap();
    // A new log would not be begun.
    open(dir.path(), options()).unwrap().0.close().unwrap();
    // No disk leaves so much to others.
    let options = Options { min_free_bytes: u64::MAX / 4, ..options() };
    let (engine, _) = reopen_with(dir.path(), &options);
    assert!(engine.refusal().is_none(), "{:?}", engine.refusal());
    let error = refused(&engine, 50);
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    let error = refused(&engine, 1);
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(matches!(engine.refusal(), Some(StoreError::DiskFull { .. })));
    // A trim passes, and says nothing of events.
    let end = engine.bounds().next();
    append(&*engine, Commit { oldest: end, ..commit(&*engine, 0) }).unwrap();
    assert!(engine.refusal().is_some());
}

#[test]
fn a_reserve_beyond_all_numbers_is_one_and_does_not_wrap() {
    let dir = tempfile::tempdir().unwrap();
    let all = Options { min_free_bytes: u64::MAX, ..options() };
    let new = open(tempfile::tempdir().unwrap().path(), all.clone());
    assert!(matches!(new, Err(StoreError::DiskFull { .. })), "{:?}", new.err());
    open(dir.path(), options()).unwrap().0.close().unwrap();
    let (engine, _) = reopen_with(dir.path(), &all);
    let error = refused(&engine, 1);
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(matches!(engine.refusal(), Some(StoreError::DiskFull { .. })));
}

#[test]
fn a_large_event_that_finds_no_room_does_not_turn_small_ones_away() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), options()).unwrap().0.close().unwrap();
    let options = Options { min_free_bytes: u64::MAX / 4, ..options() };
    let (engine, _) = reopen_with(dir.path(), &options);
    let large = || Commit { delta: vec![7; 50_000].into(), ..commit(&*engine, 1) };
    let error = loop {
        if let Err(error) = append(&*engine, large()) {
            break error;
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(engine.refusal().is_none(), "{:?}", engine.refusal());
    // Small ones fit, and are told when they do not: before any is refused.
    while engine.refusal().is_none() {
        append(&*engine, commit(&*engine, 1)).unwrap();
    }
    assert!(matches!(engine.refusal(), Some(StoreError::DiskFull { .. })));
}

#[test]
fn the_identity_of_a_log_is_written_again_where_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    append(&*engine, commit(&*engine, 5)).unwrap();
    let path = dir.path().join(META_FILE);
    std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    assert!(engine.refusal().is_none(), "{:?}", engine.refusal());
    assert!(Meta::decode(&std::fs::read(&path).unwrap(), FORMAT_VERSION).is_ok());
    // Where that cannot be it is told.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(path.with_extension("meta.new")).unwrap();
    assert!(matches!(engine.refusal(), Some(StoreError::Displaced { .. })));
    std::fs::remove_dir(path.with_extension("meta.new")).unwrap();
    assert!(engine.refusal().is_none(), "{:?}", engine.refusal());
    vanish(engine);
    assert_eq!(check_all(&*reopen(dir.path()).0), 5);
}

#[test]
fn nothing_is_sealed_into_a_directory_that_lies_in_anothers_place() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    let (segments, aside) = (dir.path().join(SEGMENTS_DIR), dir.path().join("aside"));
    fill(&*engine, 5_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    std::fs::rename(&segments, &aside).unwrap();
    std::fs::create_dir(&segments).unwrap();
    while engine.view().slots.len() < 2 {
        fill(&*engine, 50, 50);
    }
    eventually("trouble", || engine.status().trouble.is_some());
    assert!(engine.status().trouble.unwrap().contains("segments were moved"));
    assert_eq!(std::fs::read_dir(&segments).unwrap().count(), 0);
    std::fs::remove_dir(&segments).unwrap();
    std::fs::rename(&aside, &segments).unwrap();
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let head = engine.bounds().head.get();
    vanish(engine);
    assert_eq!(check_all(&*reopen(dir.path()).0), head);
}

#[test]
fn slots_that_run_out_while_sealing_hangs_are_known_and_so_is_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, gate) = super::hanging::open_gated(dir.path());
    assert!(engine.refusal().is_none(), "{:?}", engine.refusal());
    let error = refused(&engine, 50);
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    let error = refused(&engine, 1);
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    assert!(matches!(engine.refusal(), Some(StoreError::Busy { .. })));
    let end = engine.bounds().next();
    append(&*engine, Commit { oldest: end, ..commit(&*engine, 0) }).unwrap();
    engine.reclaim().unwrap();
    assert!(engine.refusal().is_none(), "{:?}", engine.refusal());
    append(&*engine, commit(&*engine, 50)).unwrap();
    *gate.0.lock() = true;
    gate.1.notify_all();
}

#[test]
fn a_data_directory_that_is_gone_or_another_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (data, aside) = (dir.path().join("data"), dir.path().join("aside"));
    let (engine, _) = open(&data, options()).unwrap();
    fill(&*engine, 5_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    assert!(engine.refusal().is_none());
    let is_gone = || matches!(engine.refusal(), Some(StoreError::Displaced { .. }));
    std::fs::rename(&data, &aside).unwrap();
    assert!(is_gone());
    // A copy is another.
    copy_dir(&aside, &data);
    assert!(is_gone());
    // Threads that have just sealed may still write there by name, the note of the tip for one.
    eventually("removing the copy", || std::fs::remove_dir_all(&data).is_ok());
    std::fs::rename(&aside, &data).unwrap();
    assert!(engine.refusal().is_none());
    // A part of it: another lies there, or nothing.
    let segments = data.join(SEGMENTS_DIR);
    std::fs::rename(&segments, &aside).unwrap();
    assert!(is_gone());
    std::fs::create_dir(&segments).unwrap();
    assert!(is_gone());
    std::fs::remove_dir(&segments).unwrap();
    // Put back from a copy, or itself.
    copy_dir(&aside, &segments);
    assert!(engine.refusal().is_none());
    std::fs::remove_dir_all(&segments).unwrap();
    assert!(is_gone());
    std::fs::rename(&aside, &segments).unwrap();
    assert!(engine.refusal().is_none());
    std::fs::remove_dir_all(data.join("journal")).unwrap();
    assert!(is_gone());
}

#[test]
fn a_store_that_has_stopped_or_is_closed_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    append(&*engine, commit(&*engine, 5)).unwrap();
    assert!(engine.refusal().is_none());
    engine.close().unwrap();
    assert!(matches!(engine.refusal(), Some(StoreError::Stopped { .. })));
}

/// A disk on which every sync of a slot waits while it is told to.
fn hanging_disk() -> (Disk, Arc<(Mutex<bool>, Condvar)>) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let watched = Arc::clone(&gate);
    let disk = Disk::watched(Arc::new(move |action, path| {
        if action == "sync" && path.parent().is_some_and(|dir| dir.ends_with("journal")) {
            let (hangs, changed) = &*watched;
            changed.wait_while(&mut hangs.lock(), |hangs| *hangs);
        }
    }));
    (disk, gate)
}

#[test]
fn a_commit_that_the_disk_does_not_take_for_long_is_known_and_so_is_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, gate) = hanging_disk();
    let (engine, _) = open(dir.path(), Options { disk, ..no_marks() }).unwrap();
    append(&*engine, commit(&*engine, 5)).unwrap();
    *gate.0.lock() = true;
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| append(&*engine, commit(&*engine, 5)));
        eventually("a commit", || engine.work.commit_begun.lock().is_some());
        let begun = Instant::now();
        // What is being written is not being refused, for so long as that may take.
        let soon = engine.refusal_at(begun);
        let late = engine.refusal_at(begun + Duration::from_secs(10));
        *gate.0.lock() = false;
        gate.1.notify_all();
        appending.join().unwrap().unwrap();
        assert!(soon.is_none(), "{soon:?}");
        assert!(matches!(late, Some(StoreError::Hanging { .. })), "{late:?}");
    });
    // Another commit is another.
    let later = Instant::now() + Duration::from_secs(3600);
    assert!(engine.refusal_at(later).is_none(), "{:?}", engine.refusal_at(later));
}
