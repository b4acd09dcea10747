//! Faults that were found by review, each kept as a test.

use super::*;
use crate::storage::journal::FRAME_HEADER_BYTES;

pub(super) fn block_segments(dir: &Path) {
    std::fs::rename(dir.join("segments"), dir.join("aside")).unwrap();
    std::fs::write(dir.join("segments"), b"").unwrap();
}

pub(super) fn unblock_segments(dir: &Path) {
    std::fs::remove_file(dir.join("segments")).unwrap();
    std::fs::rename(dir.join("aside"), dir.join("segments")).unwrap();
}

#[test]
fn topics_are_exact_under_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), Options { slot_bytes: 16 << 20, ..options() }).unwrap();
    let writer = {
        let engine = engine.clone();
        std::thread::spawn(move || fill(&*engine, 3_000, 1))
    };
    while !writer.is_finished() {
        all_topics(&*engine, 100).unwrap();
    }
    writer.join().unwrap();
    let sum: u64 = all_topics(&*engine, 100).unwrap().values().map(|stats| stats.events).sum();
    assert_eq!(sum, 3_000);
}

#[test]
fn a_log_opens_when_the_disk_is_inside_its_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    block_segments(dir.path());
    while engine.view().slots.len() < 2 {
        fill(&*engine, 50, 50);
    }
    let head = engine.bounds().head;
    vanish(engine);
    unblock_segments(dir.path());
    let starved = Options { min_free_bytes: 1 << 50, ..options() };
    let (engine, _) = open(dir.path(), starved).unwrap();
    assert_eq!(check_all(&*engine), head.get());
    let trim = Commit { oldest: head, ..commit(&*engine, 0) };
    append(&*engine, trim).unwrap();
}

#[test]
fn a_rotten_end_of_a_sealed_slot_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { seal_after: Duration::ZERO, ..no_marks() };
    let (engine, _) = open(dir.path(), options).unwrap();
    fill(&*engine, 10, 1);
    let (slot, end) = last_frame(&engine);
    eventually("sealing", || {
        let status = engine.status();
        status.segments > 0 && engine.view().sealed_end() == Some(Seq::new(11))
    });
    lose_power(dir.path(), engine);
    overwrite(&slot, end.offset + 100, &[0; 64]);
    let (engine, _) = reopen(dir.path());
    assert_eq!((check_all(&*engine), engine.bounds().generations.entries().len()), (10, 1));
    fill(&*engine, 5, 1);
    vanish(engine);
    assert_eq!(check_all(&*reopen(dir.path()).0), 15);
}

#[test]
fn segments_below_the_trim_mark_go_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    fill(&*engine, 10_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    let trim = Commit { oldest: engine.bounds().next(), ..commit(&*engine, 0) };
    append(&*engine, trim).unwrap();
    // Killed before it could reclaim anything.
    vanish(engine);
    let (engine, _) = reopen(dir.path());
    eventually("reclaiming", || engine.status().segments == 0);
    let left = || std::fs::read_dir(dir.path().join(SEGMENTS_DIR)).unwrap().count();
    eventually("deleting", || left() == 0);
}

#[test]
fn sealing_goes_on_after_a_build_that_failed_past_its_rename() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    let left = dir.path().join("segments/00000000000000000001-1");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("footer"), b"").unwrap();
    fill(&*engine, 10_000, 200);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    assert_eq!((check_all(&*engine), engine.status().trouble), (10_000, None));
}

#[test]
fn deltas_do_not_pile_up_in_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) =
        open(dir.path(), Options { seal_after: Duration::ZERO, ..options() }).unwrap();
    let mut asked = 0;
    for n in 0..400u32 {
        let mut commit = Commit { delta: vec![7; 1_000].into(), ..commit(&*engine, n % 2) };
        let wants = engine.wants_state(commit.events.len() + commit.delta.len());
        asked += u32::from(wants);
        commit.state = wants.then(|| Bytes::from_static(b"state"));
        append(&*engine, commit).unwrap();
    }
    assert!(asked >= 3, "asked for the state {asked} times");
    vanish(engine);
    let (_, recovered) = reopen(dir.path());
    assert_eq!(recovered.state, Bytes::from_static(b"state"));
    let bytes: usize = recovered.deltas.iter().map(|(.., delta)| delta.len()).sum();
    // Those that the newest slot holds, however full it is, and those that its head was given.
    assert!(bytes <= SLOT as usize + (64 << 10), "{bytes} bytes of deltas");
}

#[test]
fn a_frame_of_a_later_program_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    fill(&*engine, 3, 1);
    let (slot, last) = last_frame(&engine);
    let nonce = engine.view().slots.last().unwrap().header().nonce;
    vanish(engine);
    let mut file = std::fs::read(&slot).unwrap();
    let at = last.offset as usize;
    file[at + 20] = 9; // a codec that does not exist yet
    let seed = crate::storage::crc::crc32c(0, &nonce.to_le_bytes());
    let crc_at = at + FRAME_HEADER_BYTES - 4;
    let crc = crate::storage::crc::crc32c(seed, &file[at..crc_at]);
    file[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&slot, &file).unwrap();
    assert!(matches!(open(dir.path(), options()), Err(StoreError::Format { .. })));
    assert_eq!(std::fs::read(&slot).unwrap(), file);
}

#[test]
fn a_mark_outlives_the_page_of_what_it_proves() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    fill(&*engine, 3, 1);
    let (slot, last) = last_frame(&engine);
    eventually("the mark", || {
        engine.journal.lock().last_kind() == crate::storage::journal::FrameKind::Mark
    });
    lose_power(dir.path(), engine);
    let whole = std::fs::read(&slot).unwrap();
    let (engine, _) = reopen(dir.path());
    assert_eq!(check_all(&*engine), 3);
    vanish(engine);
    std::fs::remove_file(dir.path().join("journal/tip")).unwrap();
    std::fs::write(&slot, &whole).unwrap();
    // The page of the last commit, and of the mark beside it, turns to zeros.
    overwrite(&slot, last.offset / 4096 * 4096, &[0; 4096]);
    assert!(matches!(open(dir.path(), options()), Err(StoreError::Damaged(_))));
}
