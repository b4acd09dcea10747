//! Whether the engine knows, without an append, that it would refuse one.

use super::*;

/// Appends until one is refused.
fn refused(engine: &LocalEngine, per_commit: u32) -> StoreError {
    append(engine, commit(engine, per_commit)).unwrap();
    assert!(engine.refusal().is_none(), "{:?}", engine.refusal());
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
    let error = refused(&engine, 50);
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
    let error = refused(&engine, 50);
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
