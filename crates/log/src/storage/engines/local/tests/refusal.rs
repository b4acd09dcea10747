//! Whether the engine knows, without an append, that it would refuse one.

use super::*;

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
fn slots_that_run_out_while_sealing_hangs_are_known_and_so_is_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, gate) = super::hanging::gated();
    let seal_timeout = Duration::from_millis(50);
    let (engine, _) = open(dir.path(), Options { disk, seal_timeout, ..options() }).unwrap();
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
    append(&*engine, commit(&*engine, 5)).unwrap();
    assert!(engine.refusal().is_none());
    let is_gone = || matches!(engine.refusal(), Some(StoreError::Displaced { .. }));
    std::fs::rename(&data, &aside).unwrap();
    assert!(is_gone());
    // A copy is another.
    copy_dir(&aside, &data);
    assert!(is_gone());
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&aside, &data).unwrap();
    assert!(engine.refusal().is_none());
    // A part of it.
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
