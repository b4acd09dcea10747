//! Files of another history beside those of this one: found at the start, with where they part.

use super::*;
use crate::chain::Link;
use crate::storage::journal::{Previous, Slot};
use crate::storage::segment::Segment;

/// Events that tell by `salt` which history they are of.
fn grow(dir: &Path, salt: u64, events: u32) {
    let (engine, _) = reopen(dir);
    for _ in 0..events.div_ceil(50) {
        // As long as those of any other history, so that slots fill and segments end alike.
        let body = |seq: Seq| format!("history {salt} of {seq} {}", "x".repeat(100));
        append(&*engine, testing::commit(&*engine, 50, body)).unwrap();
    }
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    engine.close().unwrap();
    drop(engine);
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir.join(SEGMENTS_DIR))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect();
    found.sort();
    found
}

/// Two directories with a common beginning that went on apart.
fn two_histories() -> (tempfile::TempDir, tempfile::TempDir) {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grow(one.path(), 0, 6_000);
    copy_dir(one.path(), two.path());
    grow(one.path(), 1, 12_000);
    grow(two.path(), 2, 12_000);
    (one, two)
}

/// Where the opening says that the chain does not join.
fn parted(dir: &Path) -> Seq {
    match open(dir, options()) {
        Err(StoreError::Damaged(damage)) => {
            assert!(damage.detail.contains("another history"), "{damage}");
            damage.from
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_segment_of_another_history_is_found_wherever_it_is_put() {
    let (one, two) = two_histories();
    let (ours, theirs) = (segments(one.path()), segments(two.path()));
    let mut swapped = 0;
    for path in &ours {
        let name = path.file_name().unwrap();
        let Some(other) = theirs.iter().find(|other| other.file_name() == Some(name)) else {
            continue;
        };
        let load = |dir: &Path| Segment::load(dir, &Disk::real()).unwrap();
        let (mine, other_one) = (load(path), load(other));
        let place = tempfile::tempdir().unwrap();
        copy_dir(one.path(), place.path());
        let target = place.path().join(SEGMENTS_DIR).join(name);
        std::fs::remove_dir_all(&target).unwrap();
        copy_dir(other, &target);
        if mine.link() == other_one.link() {
            // Of what both share.
            vanish(reopen(place.path()).0);
            continue;
        }
        let from = parted(place.path());
        assert!(from == mine.first() || from == mine.end(), "{from} in {}", path.display());
        swapped += 1;
    }
    assert!(swapped >= 3, "{swapped} of {} segments", ours.len());
}

#[test]
fn a_slot_of_another_history_is_never_sealed() {
    let dir = tempfile::tempdir().unwrap();
    grow(dir.path(), 0, 6_000);
    let (engine, _) = reopen(dir.path());
    append(&*engine, testing::commit(&*engine, 50, |seq| seq.to_string())).unwrap();
    let slot = engine.view().slots.last().cloned().unwrap();
    // A slot that says of itself that it goes on from elsewhere.
    let file = std::fs::File::open(slot.path()).unwrap();
    let (header, first) = (slot.header().clone(), slot.first());
    assert!(header.previous != Previous::default());
    let frames = vec![slot.frame_of(first).unwrap()];
    let path = slot.path().to_owned();
    let other = Slot::new(path, file, Disk::real(), header, Link::new([9; 16]), frames);
    let meta = engine.meta.lock().clone();
    let sealer = super::super::seal::Sealer {
        dir: engine.segments_dir(),
        options: &engine.options,
        meta: &meta,
        cache: &engine.cache,
        progress: Arc::default(),
        reserve_bytes: 0,
    };
    let mut known = engine.view().segments.clone();
    let end = other.end();
    let known_end = known.last().map(|last| last.end());
    let refused = sealer.seal(&mut known, known_end, &other, end).err().unwrap();
    assert!(matches!(&refused, StoreError::Damaged(damage) if damage.from == first), "{refused}");
    assert_eq!(known.len(), engine.view().segments.len(), "nothing was built");
}

#[test]
fn a_directory_that_is_moved_about_begins_a_generation_only_as_another_one() {
    let parent = tempfile::tempdir().unwrap();
    let (one, two) = (parent.path().join("one"), parent.path().join("two"));
    std::fs::create_dir(&one).unwrap();
    let generations = |dir: &Path| {
        let (engine, _) = reopen(dir);
        let entries = engine.bounds().generations.entries().to_vec();
        engine.close().unwrap();
        entries
    };
    grow(&one, 0, 100);
    assert_eq!(generations(&one).len(), 1);
    std::fs::rename(&one, &two).unwrap();
    assert_eq!(generations(&two).len(), 1, "the same directory under another name");
    // A lock file that was deleted while the log was open is made again: another file.
    let (engine, _) = reopen(&two);
    std::fs::remove_file(two.join(LOCK_FILE)).unwrap();
    append(&*engine, testing::commit(&*engine, 1, |seq| seq.to_string())).unwrap();
    engine.close().unwrap();
    drop(engine);
    assert_eq!(generations(&two).len(), 1, "the same directory with another lock file");
    copy_dir(&two, &one);
    let copied = generations(&one);
    assert_eq!((copied.len(), copied[1].cause.as_str()), (2, "copied"));
    assert_eq!(copied[1].first, Seq::new(102));
    assert_eq!(generations(&one), copied, "once, not at each start");
    assert_eq!(generations(&two).len(), 1, "the original goes on as it was");
    // A kill right after the start: what was begun is on disk.
    let three = parent.path().join("three");
    copy_dir(&one, &three);
    let (engine, _) = reopen(&three);
    let begun = engine.bounds().generations.entries().to_vec();
    vanish(engine);
    std::fs::remove_file(three.join("log.meta")).unwrap();
    assert_eq!(generations(&three)[..3], begun);
}
