//! What proves that a commit was durable: what is lost with it is damage, what is not is set aside.

use super::*;

#[test]
fn a_torn_last_commit_is_quarantined_and_begins_a_generation() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), no_marks()).unwrap();
    fill(&*engine, 10, 1);
    let (slot, end) = last_frame(&engine);
    lose_power(dir.path(), engine);
    // The last commit's second half never reached the disk.
    overwrite(&slot, end.offset + 100, &[0; 64]);
    let (engine, _) = reopen(dir.path());
    assert_eq!(check_all(&*engine), 9);
    let generations = engine.bounds().generations;
    assert_eq!((generations.entries().len(), generations.current().first.get()), (2, 10));
    assert_eq!(std::fs::read_dir(dir.path().join(QUARANTINE_DIR)).unwrap().count(), 1);
    fill(&*engine, 3, 1);
    drop(engine);
    let (engine, _) = reopen(dir.path());
    assert_eq!(check_all(&*engine), 12);
    assert_eq!(engine.bounds().generations, generations);
}

#[test]
fn a_killed_log_that_lost_its_last_page_is_damaged() {
    // All that a commit wrote, and all that the next one would prove of it; and its whole first
    // write.
    for begin in [None, Some(8192)] {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = open(dir.path(), no_marks()).unwrap();
        fill(&*engine, 10, 1);
        let (slot, last) = last_frame(&engine);
        vanish(engine);
        let whole = std::fs::read(&slot).unwrap();
        let at = begin.unwrap_or(last.offset / 4096 * 4096);
        overwrite(&slot, at, &vec![0; (SLOT - at) as usize]);
        match open(dir.path(), options()) {
            Err(StoreError::Damaged(damage)) => assert_eq!(damage.to.get(), 10, "{damage}"),
            other => panic!("{:?}", other.map(|_| ())),
        }
        std::fs::write(&slot, &whole).unwrap();
        assert_eq!(check_all(&*reopen(dir.path()).0), 10);
    }
}

#[test]
fn a_killed_log_that_lost_its_newest_slot_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), no_marks()).unwrap();
    let first = engine.view().slots[0].path().to_owned();
    while engine.view().slots.last().unwrap().path() == first {
        fill(&*engine, 50, 50);
    }
    let (newest, _) = last_frame(&engine);
    vanish(engine);
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[..8192].fill(0);
    std::fs::write(&newest, bytes).unwrap();
    assert!(matches!(open(dir.path(), options()), Err(StoreError::Damaged(_))));
}

#[test]
fn a_tip_that_is_old_or_damaged_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), no_marks()).unwrap();
    fill(&*engine, 10, 1);
    let tip = dir.path().join("journal/tip");
    let old = std::fs::read(&tip).unwrap();
    while engine.status().segments == 0 {
        fill(&*engine, 500, 50);
    }
    let (head, new) = (engine.bounds().head.get(), std::fs::read(&tip).unwrap());
    assert_ne!(old, new);
    vanish(engine);
    for bytes in [old, new[..40].to_vec(), vec![0; 64], vec![0xa5; 4096], vec![]] {
        std::fs::write(&tip, bytes).unwrap();
        let (engine, _) = reopen(dir.path());
        assert_eq!((check_all(&*engine), engine.bounds().generations.entries().len()), (head, 1));
        vanish(engine);
    }
}

#[test]
fn rot_below_a_synced_commit_stops_the_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 10, 1);
    let slot = engine.view().slots.last().unwrap().path().to_owned();
    let fifth = engine.view().slots.last().unwrap().frame_of(Seq::new(5)).unwrap();
    vanish(engine);
    let before = std::fs::read(&slot).unwrap();
    overwrite(&slot, fifth.offset + 120, b"rot");
    match open(dir.path(), options()) {
        Err(StoreError::Damaged(damage)) => {
            assert_eq!((damage.from.get(), damage.to.get()), (5, 5), "{damage}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    std::fs::write(&slot, before).unwrap();
    assert_eq!(check_all(&*reopen(dir.path()).0), 10);
}

#[test]
fn a_marked_pause_proves_the_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 3, 1);
    let (slot, last) = last_frame(&engine);
    eventually("the mark", || {
        engine.journal.lock().last_kind() == crate::storage::journal::FrameKind::Mark
    });
    lose_power(dir.path(), engine);
    overwrite(&slot, last.offset + 100, &[0; 64]);
    assert!(matches!(open(dir.path(), options()), Err(StoreError::Damaged(_))));
}

#[test]
fn a_lost_tail_after_a_clean_stop_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 3, 1);
    let (slot, last) = last_frame(&engine);
    engine.close().unwrap();
    drop(engine);
    overwrite(&slot, last.offset, &vec![0; (SLOT - last.offset) as usize]);
    assert!(matches!(open(dir.path(), options()), Err(StoreError::Damaged(_))));
}

#[test]
fn a_head_without_its_state_begins_a_generation() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = reopen(dir.path());
    fill(&*engine, 30, 1);
    engine.close().unwrap();
    drop(engine);
    // No mark comes between, which would prove the commit.
    let (engine, _) = open(dir.path(), no_marks()).unwrap();
    // The first commit of a slot: head, state and commit are synced at once.
    fill(&*engine, 1, 1);
    let (slot, _) = last_frame(&engine);
    lose_power(dir.path(), engine);
    overwrite(&slot, 8192, &vec![0; SLOT as usize - 8192]);
    let (engine, _) = reopen(dir.path());
    // Perhaps acknowledged, perhaps seen: its seq must not be given to another event unseen.
    assert_eq!(check_all(&*engine), 30);
    let generations = engine.bounds().generations;
    assert_eq!((generations.entries().len(), generations.current().first.get()), (2, 31));
}

#[test]
fn a_slot_without_events_is_kept_while_an_older_one_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), no_marks()).unwrap();
    fill(&*engine, 200, 50);
    let (slot, last) = last_frame(&engine);
    lose_power(dir.path(), engine);
    // Torn: recovery begins a slot for the new generation, and stops before any commit.
    overwrite(&slot, last.offset + 100, &[0; 64]);
    drop(reopen(dir.path()));
    let (engine, _) = reopen(dir.path());
    // The chain of slots leads through it to the events: it may not be reused before they rest.
    let retired: Vec<u64> = engine.retired.lock().iter().map(|s| s.header().number).collect();
    let needed = engine.view().slots.iter().find(|s| s.end() > s.first()).cloned();
    if let Some(needed) = needed {
        assert!(retired.iter().all(|&number| number < needed.header().number), "{retired:?}");
    }
    assert_eq!(check_all(&*engine), 150);
}
