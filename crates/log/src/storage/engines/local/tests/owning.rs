//! One owner, whatever happens to lock files and names.

use super::*;

fn is_refused(dir: &Path) -> bool {
    match open(dir, options()) {
        Err(StoreError::Locked { .. }) => true,
        Err(other) => panic!("{other:?}"),
        Ok(_) => false,
    }
}

#[test]
fn a_log_whose_lock_file_was_deleted_or_replaced_has_one_owner_all_the_same() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let (engine, _) = open(&dir, options()).unwrap();
    fill(&*engine, 100, 10);
    let lock_file = dir.join("LOCK");
    for what in ["deleted", "replaced", "exchanged"] {
        let other = place.path().join("other");
        match what {
            "deleted" => std::fs::remove_file(&lock_file).unwrap(),
            "replaced" => {
                std::fs::remove_file(&lock_file).unwrap();
                std::fs::write(&lock_file, "").unwrap();
            }
            _ => {
                std::fs::write(&other, "12345\n").unwrap();
                std::fs::rename(&other, &lock_file).unwrap();
            }
        }
        assert!(is_refused(&dir), "{what}: a second owner");
        assert!(std::fs::read_dir(dir.join("quarantine")).unwrap().next().is_none(), "{what}");
        fill(&*engine, 10, 10);
        // It is made again, and keeps others away by itself.
        engine.check_claim().unwrap();
        assert!(engine.claim.has_lock_file(), "{what}");
        let file = std::fs::File::open(&lock_file).unwrap();
        assert!(file.try_lock().is_err(), "{what}: the new lock file is not locked");
    }
    assert_eq!(check_all(&*engine), 130);
    vanish(engine);
    let (engine, _) = reopen(&dir);
    assert_eq!(check_all(&*engine), 130);
}

#[test]
fn a_log_has_one_owner_under_each_of_its_names() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let (engine, _) = open(&dir, options()).unwrap();
    fill(&*engine, 100, 10);
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    assert!(is_refused(&link), "by a link");
    // A snapshot by hard links has the same slots, and another lock file.
    let linked = place.path().join("linked");
    link_dir(&dir, &linked);
    std::fs::remove_file(linked.join("LOCK")).unwrap();
    assert!(is_refused(&linked), "by hard links");
    let moved = place.path().join("moved");
    std::fs::rename(&dir, &moved).unwrap();
    std::fs::remove_file(moved.join("LOCK")).unwrap();
    assert!(is_refused(&moved), "moved");
    // A copy is a log of its own.
    let copied = place.path().join("copied");
    copy_dir(&moved, &copied);
    assert!(!is_refused(&copied), "a copy");
}

fn link_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => link_dir(&entry.path(), &target),
            false => std::fs::hard_link(entry.path(), target).unwrap(),
        }
    }
}

#[test]
fn a_log_that_was_moved_away_takes_nothing_and_touches_nothing_and_goes_on_when_it_is_back() {
    let place = tempfile::tempdir().unwrap();
    let (dir, away) = (place.path().join("data"), place.path().join("away"));
    let (engine, _) = open(&dir, options()).unwrap();
    fill(&*engine, 1_000, 50);
    std::fs::rename(&dir, &away).unwrap();
    // Nothing there; then another directory, with whatever is in it.
    for what in ["nothing", "another"] {
        if what == "another" {
            std::fs::create_dir_all(dir.join("segments")).unwrap();
            std::fs::write(dir.join("segments/mine"), "mine").unwrap();
        }
        let displaced = |error: StoreError| match error {
            StoreError::Displaced { path, .. } => assert_eq!(path, dir, "{what}"),
            other => panic!("{what}: {other:?}"),
        };
        displaced(engine.check_claim().unwrap_err());
        displaced(append(&*engine, commit(&*engine, 10)).unwrap_err());
        displaced(engine.reclaim().unwrap_err());
        displaced(engine.release(u64::MAX).unwrap_err());
        displaced(engine.seal_pass().unwrap_err());
        let trouble = engine.status().trouble.unwrap();
        assert!(trouble.contains("no longer at"), "{trouble}");
        assert_eq!(engine.bounds().head, Seq::new(1_000));
    }
    let left: Vec<_> = copied_names(&dir);
    assert_eq!(left, ["segments", "segments/mine"], "something was made in another's directory");
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&away, &dir).unwrap();
    fill(&*engine, 3_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    assert_eq!((check_all(&*engine), engine.status().trouble), (4_000, None));
    engine.close().unwrap();
}

/// All names below a directory, in order.
fn copied_names(dir: &Path) -> Vec<String> {
    let (mut names, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = pending.pop() {
        for entry in std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
            names.push(entry.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            if entry.is_dir() {
                pending.push(entry);
            }
        }
    }
    names.sort();
    names
}

#[test]
fn a_log_that_was_moved_away_is_closed_in_order_and_leaves_no_note_in_another() {
    let place = tempfile::tempdir().unwrap();
    let (dir, away) = (place.path().join("data"), place.path().join("away"));
    let (engine, _) = open(&dir, options()).unwrap();
    fill(&*engine, 1_000, 50);
    std::fs::rename(&dir, &away).unwrap();
    std::fs::create_dir(&dir).unwrap();
    engine.close().unwrap();
    drop(engine);
    assert!(copied_names(&dir).is_empty(), "{:?}", copied_names(&dir));
    let (engine, _) = reopen(&away);
    assert_eq!(check_all(&*engine), 1_000);
}
