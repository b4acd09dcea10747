//! Sealing that hangs.

use super::*;

/// Whether it is open.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// A disk on which every rename of a directory of segments waits for the gate.
fn gated() -> (Disk, Gate) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let disk = {
        let gate = Arc::clone(&gate);
        Disk::watched(Arc::new(move |action, path| {
            let is_build = path.file_name().is_some_and(|name| {
                action == "rename" && name.to_string_lossy().starts_with(".tmp-")
            });
            if is_build {
                let (is_open, changed) = &*gate;
                changed.wait_while(&mut is_open.lock(), |is_open| !*is_open);
            }
        }))
    };
    (disk, gate)
}

/// A log on such a disk, whose sealing is given up soon.
pub(super) fn open_gated(dir: &Path) -> (Arc<LocalEngine>, Gate) {
    let (disk, gate) = gated();
    let seal_timeout = Duration::from_millis(50);
    let (engine, _) = open(dir, Options { disk, seal_timeout, ..options() }).unwrap();
    (engine, gate)
}

#[test]
fn sealing_that_hangs_stops_for_good_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, gate) = open_gated(dir.path());
    let reason = loop {
        match append(&*engine, commit(&*engine, 50)) {
            Ok(_) => {}
            Err(StoreError::Busy { reason }) => break reason,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("sealing has stopped until the log is opened again"), "{reason}");
    assert_eq!(engine.status().trouble, Some(reason.clone()));
    // All slots were used before anything was refused, and nothing of it is lost.
    assert_eq!((engine.view().slots.len(), engine.status().segments), (4, 0));
    let stored = engine.bounds().head;
    assert_eq!(check_all(&*engine), stored.get());
    // A trim still gives slots back, but not the one that the sealer holds.
    append(&*engine, Commit { oldest: stored.next(), ..commit(&*engine, 0) }).unwrap();
    engine.reclaim().unwrap();
    fill(&*engine, 1_000, 50);
    assert_eq!(check_all(&*engine), 1_000);
    // What hung comes to an end: nothing new is begun, and it is not taken for sealed.
    *gate.0.lock() = true;
    gate.1.notify_all();
    let has_ended = || engine.threads.lock().iter().any(std::thread::JoinHandle::is_finished);
    eventually("the end of the sealer", has_ended);
    fill(&*engine, 500, 50);
    assert_eq!((engine.status().trouble, engine.status().segments), (Some(reason), 0));
    engine.close().unwrap();
    drop(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!((check_all(&*engine), engine.bounds().head), (1_500, stored.plus(1_500)));
    assert_eq!(engine.status().trouble, None);
    fill(&*engine, 5_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
}

/// Also where all others were full before it began.
#[test]
fn a_sealer_that_hangs_holds_no_slot_but_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, gate) = open_gated(dir.path());
    let building = engine.building.lock();
    while engine.view().slots.len() < 4 {
        fill(&*engine, 50, 50);
    }
    drop(building);
    while append(&*engine, commit(&*engine, 50)).is_ok() {}
    let next = engine.bounds().next();
    append(&*engine, Commit { oldest: next, ..commit(&*engine, 0) }).unwrap();
    engine.reclaim().unwrap();
    fill(&*engine, 1_000, 50);
    *gate.0.lock() = true;
    gate.1.notify_all();
}

#[test]
fn a_log_whose_sealing_hangs_can_be_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, gate) = open_gated(dir.path());
    while engine.view().slots.len() < 2 {
        fill(&*engine, 50, 50);
    }
    eventually("the watchdog", || engine.status().trouble.is_some());
    engine.close().unwrap();
    let head = engine.bounds().head;
    // As the end of the process would.
    *gate.0.lock() = true;
    gate.1.notify_all();
    drop(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!((check_all(&*engine), engine.bounds().head), (head.get(), head));
}
