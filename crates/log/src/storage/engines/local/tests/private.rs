//! Who may read what is made, and links in the place of files and directories.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// Every file and directory below a path, with its permissions.
fn modes(dir: &Path) -> Vec<(PathBuf, u32)> {
    let (mut all, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = pending.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push((path, metadata.permissions().mode() & 0o777));
    }
    all
}

#[test]
fn nothing_that_a_log_makes_can_be_read_by_others() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("parent/data");
    let (engine, _) = open(&dir, options()).unwrap();
    fill(&*engine, 3_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    append(&*engine, Commit { oldest: Seq::new(1_500), ..commit(&*engine, 0) }).unwrap();
    engine.reclaim().unwrap();
    engine.close().unwrap();
    drop(engine);
    let found = modes(&dir);
    assert!(found.iter().any(|(path, _)| path.ends_with("db/db")), "{found:?}");
    assert!(found.iter().any(|(path, _)| path.ends_with("log.meta")), "{found:?}");
    for (path, mode) in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}

#[test]
fn files_that_were_readable_by_others_are_not_any_more_once_the_log_is_opened() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let (engine, _) = open(&dir, options()).unwrap();
    fill(&*engine, 3_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    engine.close().unwrap();
    drop(engine);
    std::fs::write(dir.join("notes.txt"), "mine").unwrap();
    for (path, _) in modes(&dir) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let (engine, _) = reopen(&dir);
    assert_eq!(check_all(&*engine), 3_000);
    let found = modes(&dir);
    for name in ["db/db", "footer", "log.meta", "LOCK", "slot-0001", "slot-0002"] {
        assert!(found.iter().any(|(path, _)| path.ends_with(name)), "{name} of {found:?}");
    }
    for (path, mode) in found.iter().filter(|(path, _)| !path.is_dir()) {
        let expected = if path.ends_with("notes.txt") { 0o644 } else { 0o600 };
        assert_eq!(*mode, expected, "{}: {mode:o}", path.display());
    }
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755, "the directory is its owner's to open or close");
}

#[test]
fn a_directory_that_was_there_keeps_its_permissions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
    let (engine, _) = open(dir.path(), options()).unwrap();
    fill(&*engine, 10, 10);
    let mode = std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o750);
}

#[test]
fn links_in_the_place_of_directories_and_files_stay_links() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir_all(at("real")).unwrap();
    std::fs::create_dir_all(at("other disk/segments")).unwrap();
    std::fs::create_dir_all(at("other disk/journal")).unwrap();
    symlink(at("real"), at("data")).unwrap();
    symlink("../other disk/segments", at("real/segments")).unwrap();
    symlink(at("other disk/journal"), at("real/journal")).unwrap();
    let dir = at("data");
    let (engine, _) = open(&dir, options()).unwrap();
    fill(&*engine, 3_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    engine.close().unwrap();
    drop(engine);
    // The identity and a slot beside them, too: what is written again goes through the link.
    for (file, target) in [("log.meta", "meta"), ("journal/slot-0001", "slot")] {
        std::fs::rename(dir.join(file), at(target)).unwrap();
        symlink(at(target), dir.join(file)).unwrap();
    }
    let (engine, _) = reopen(&dir);
    fill(&*engine, 3_000, 50);
    eventually("sealing", || engine.status().unsealed_slots <= 1);
    append(&*engine, Commit { oldest: Seq::new(3_000), ..commit(&*engine, 0) }).unwrap();
    engine.reclaim().unwrap();
    engine.close().unwrap();
    drop(engine);
    for link in ["data", "real/segments", "real/journal", "data/log.meta", "data/journal/slot-0001"]
    {
        assert!(std::fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
    }
    let (engine, _) = reopen(&dir);
    assert_eq!(check_all(&*engine), 3_001);
    assert!(std::fs::read_dir(at("other disk/segments")).unwrap().count() > 0);
}

#[test]
fn a_link_to_what_is_not_there_is_not_filled_with_a_new_log() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    symlink(place.path().join("unmounted/data"), &dir).unwrap();
    match open(&dir, options()).map(|_| ()) {
        Err(StoreError::Io { action: "follow", path, .. }) => assert_eq!(path, dir),
        other => panic!("{other:?}"),
    }
    assert!(!place.path().join("unmounted").exists());
}
