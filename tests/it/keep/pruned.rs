//! Old backups that are removed from a place: what others need stays, wherever it is cut.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tailmark::backup::{Error, Keep, Pruned, Since, Target, Upto, check, prune, restore, take};
use tailmark_log::testing::copy_dir;
use tailmark_record::{Seq, Timestamp};

use super::backups::{cut_at, is_whole, restored, taken};
use crate::support::daemon::{feed, program};
use crate::support::kept::{self, events, life};
use crate::support::logdir;

/// Every file of a place, and how long it is.
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let (mut all, mut open) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let len = std::fs::metadata(&path).unwrap().len();
                    all.insert(path, len);
                }
            }
        }
    }
    all
}

/// Four backups of a log that is appended to and trimmed between them. Answers their names.
async fn place(dir: &Path) -> Vec<String> {
    life(dir).await;
    let (data, to) = (dir.join("data"), dir.join("to"));
    let mut names = vec![taken(&data, &to).name];
    for at in 0..3 {
        // Names tell seconds.
        std::thread::sleep(std::time::Duration::from_millis(1_050));
        let log = kept::open(&data);
        let begin = 100_000 + at * 10_000;
        kept::store(&log, begin..begin + 1_500).await;
        log.trim(Seq::new(1_200 + at * 900)).await.unwrap();
        log.close().await.unwrap();
        drop(log);
        names.push(taken(&data, &to).name);
    }
    names
}

fn pruned(to: &Path, keep: Keep) -> Result<Pruned, Error> {
    loop {
        match prune(to, keep, false, |_| Ok(())) {
            // A process that another test starts has the lock for a moment.
            Err(Error::Place(tailmark_log::StoreError::Locked { .. })) => std::thread::yield_now(),
            done => return done,
        }
    }
}

fn listed(to: &Path) -> Vec<String> {
    Target::open(to).unwrap().names().unwrap()
}

#[tokio::test]
async fn what_a_backup_that_stays_needs_stays_and_the_rest_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let names = place(dir.path()).await;
    let to = dir.path().join("to");
    let before = files(&to);
    let look = prune(&to, Keep::Newest(2), true, |_| Ok(())).unwrap();
    assert_eq!(files(&to), before, "a dry run changes nothing");
    let done = pruned(&to, Keep::Newest(2)).unwrap();
    assert_eq!(done, look);
    assert_eq!((&done.removed[..], &done.kept[..]), (&names[..2], &names[2..]));
    assert!(done.segments > 0 && done.freed_bytes > 0, "{done:?}");
    let after = files(&to);
    let gone = before.iter().filter(|(path, _)| !after.contains_key(*path));
    assert_eq!(gone.map(|(_, len)| len).sum::<u64>(), done.freed_bytes);
    assert!(after.iter().all(|(path, len)| before.get(path) == Some(len)));
    // No folder is left of what went.
    let folders = std::fs::read_dir(to.join("segments")).unwrap().count();
    let mut needed = std::collections::BTreeSet::new();
    for name in &names[2..] {
        is_whole(&to, Some(name)).unwrap();
        let (_, manifest) = Target::open(&to).unwrap().backup(Some(name)).unwrap();
        needed.extend(manifest.segments.into_iter().map(|row| row.name));
        restored(&to, Some(name), Upto::Head, &dir.path().join(name)).unwrap();
    }
    assert_eq!(folders, needed.len());
    assert_eq!(listed(&to), names[2..]);
    let (last, data) = (dir.path().join(&names[3]), dir.path().join("data"));
    assert!(events(&last) == events(&data));
    // Nothing is left to remove, and the next backup goes on with what is there.
    let again = pruned(&to, Keep::Newest(2)).unwrap();
    assert_eq!((again.removed.len(), again.segments, again.freed_bytes), (0, 0, 0));
    let next = taken(&data, &to);
    assert_eq!(next.reused_segments as usize, next.manifest.segments.len());
    // The newest always stays.
    let done = pruned(&to, Keep::Newest(0)).unwrap();
    assert_eq!(done.kept, [next.name]);
    is_whole(&to, None).unwrap();
}

#[tokio::test]
async fn what_is_older_goes_and_never_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let names = place(dir.path()).await;
    let to = dir.path().join("to");
    let at = |name: &str| Target::open(&to).unwrap().backup(Some(name)).unwrap().1.taken_at;
    let time = |seconds| Timestamp { seconds, nanos: 0 };
    let since = |seconds| prune(&to, Keep::Since(time(seconds)), true, |_| Ok(())).unwrap();
    assert_eq!(since(at(&names[0])).removed, [] as [String; 0]);
    assert_eq!(since(at(&names[2])).removed, names[..2]);
    assert_eq!(since(at(&names[3]) + 1_000_000).removed, names[..3]);
    // By the program, and what it says.
    let to = to.to_str().unwrap();
    let run = |more: &[&str]| {
        let done = feed(&mut program(&[&["backup", "prune", to], more].concat()), b"");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (out, said) = run(&["--older-than", "30d"]);
    assert!(out.is_empty() && said.contains("0 backups removed"), "{out}{said}");
    let (out, said) = run(&["--keep", "3", "--dry-run"]);
    assert_eq!(out, format!("{}\n", names[0]));
    assert!(
        said.contains("1 backup would be removed") && said.contains("3 backups left"),
        "{said}"
    );
    let (out, _) = run(&["--keep", "3", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&json["removed"][0], json["kept"].as_array().unwrap().len()),
        (&names[0].as_str().into(), 3)
    );
    assert!(json["freed_bytes"].as_str().unwrap().parse::<u64>().unwrap() > 0, "{out}");
    assert_eq!(listed(Path::new(to)), names[1..]);
}

#[tokio::test]
async fn wherever_it_is_cut_all_that_is_listed_is_whole_and_the_next_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let names = place(dir.path()).await;
    let to = dir.path().join("to");
    let whole = dir.path().join("whole");
    copy_dir(&to, &whole).unwrap();
    pruned(&whole, Keep::Newest(1)).unwrap();
    let inner = |dir: &Path| -> Vec<PathBuf> {
        files(dir).into_keys().map(|path| path.strip_prefix(dir).unwrap().to_owned()).collect()
    };
    let (mut cuts, mut listings) = (0, std::collections::BTreeSet::new());
    loop {
        let copy = dir.path().join("copy");
        copy_dir(&to, &copy).unwrap();
        let run = |tick: &mut dyn FnMut() -> io::Result<()>| {
            loop {
                match prune(&copy, Keep::Newest(1), false, |_| tick()) {
                    Err(Error::Place(tailmark_log::StoreError::Locked { .. })) => {
                        std::thread::yield_now();
                    }
                    done => return done.map(drop),
                }
            }
        };
        if !cut_at(cuts, run) {
            break;
        }
        cuts += 1;
        let left = listed(&copy);
        assert_eq!(left.last(), names.last());
        listings.insert(left.len());
        // The oldest that is left, and the newest, which stays.
        for name in [left.first(), left.last()].into_iter().flatten() {
            is_whole(&copy, Some(name)).unwrap();
        }
        pruned(&copy, Keep::Newest(1)).unwrap();
        assert_eq!(inner(&copy), inner(&whole), "after cut {cuts}");
        std::fs::remove_dir_all(&copy).unwrap();
    }
    assert!(cuts > 10 && listings.len() == 4, "{cuts} {listings:?}");
}

#[tokio::test]
async fn a_backup_that_cannot_be_read_goes_and_is_never_counted_on() {
    let dir = tempfile::tempdir().unwrap();
    let names = place(dir.path()).await;
    let to = dir.path().join("to");
    let manifest = |name: &str| to.join(format!("backups/{name}.backup"));
    let bytes = std::fs::read(manifest(&names[2])).unwrap();
    std::fs::write(manifest(&names[2]), &bytes[..bytes.len() / 2]).unwrap();
    let before = files(&to);
    let refused = pruned(&to, Keep::Newest(2)).unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    assert_eq!(files(&to), before, "nobody knows what it needs");
    let done = pruned(&to, Keep::Newest(1)).unwrap();
    assert_eq!(done.removed, names[..3]);
    is_whole(&to, None).unwrap();
}

/// One that can be restored does not go in favour of one that cannot.
#[tokio::test]
async fn nothing_goes_if_what_stays_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let names = place(dir.path()).await;
    let to = dir.path().join("to");
    let newest = Target::open(&to).unwrap().backup(Some(&names[3])).unwrap().1;
    let before = files(&to);
    let segment = &newest.segments.last().unwrap().name;
    let parts = before.keys().filter(|path| {
        let path = path.to_string_lossy();
        (path.contains(&names[3]) && path.ends_with(".tail")) || path.contains(&**segment)
    });
    let parts: Vec<_> = parts.cloned().collect();
    assert!(parts.len() > 2, "{parts:?}");
    for part in parts {
        let beside = dir.path().join("beside");
        std::fs::rename(&part, &beside).unwrap();
        let refused = pruned(&to, Keep::Newest(1));
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{part:?}: {refused:?}");
        std::fs::rename(&beside, &part).unwrap();
        assert_eq!(files(&to), before);
    }
    assert_eq!(pruned(&to, Keep::Newest(1)).unwrap().removed, names[..3]);
}

/// Whoever reads it is told what became of it.
#[tokio::test]
async fn a_backup_that_is_pruned_while_it_is_read_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let names = place(dir.path()).await;
    let to = dir.path().join("to");
    for is_restored in [true, false] {
        let copy = dir.path().join(format!("copy-{is_restored}"));
        copy_dir(&to, &copy).unwrap();
        let target = Target::open(&copy).unwrap();
        let (name, manifest) = target.backup(Some(&names[0])).unwrap();
        let mut is_pruned = false;
        let mut watch = |_| {
            if !std::mem::replace(&mut is_pruned, true) {
                pruned(&copy, Keep::Newest(1)).unwrap();
            }
            Ok(())
        };
        let error = match is_restored {
            true => {
                let what = (Since::Trimmed, Upto::Head);
                let (into, options) = (dir.path().join("into"), logdir::options());
                restore(&target, &name, &manifest, what, &into, options, watch).unwrap_err()
            }
            false => check(&target, &name, &manifest, &mut watch).unwrap_err(),
        };
        assert!(matches!(&error, Error::Removed { name, .. } if *name == names[0]), "{error:?}");
        assert!(error.to_string().contains("was removed from"), "{error}");
    }
    // What is left there is to be restored.
    restored(&to, None, Upto::Head, &dir.path().join("last")).unwrap();
}

/// It is the lock, too: who has removed it lets others in, and a backup that ends is right all the same.
#[tokio::test]
async fn a_mark_that_is_removed_while_a_backup_is_taken_comes_back_and_no_part_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let data = dir.path().join("data");
    for others in [false, true] {
        let to = dir.path().join(format!("to-{others}"));
        let mark = to.join("tailmark-backup");
        let (mut ticks, mut second) = (0, None);
        let first = take(&data, &to, |_| {
            ticks += 1;
            if ticks == 3 {
                std::fs::remove_file(&mark).unwrap();
            }
            if ticks == 4 && others {
                second = Some(take(&data, &to, |_| Ok(())));
            }
            Ok(())
        });
        assert!(ticks > 4, "{ticks}");
        if others {
            println!("the second: {:?}", second.unwrap().map(|it| it.name));
        } else {
            first.unwrap();
            assert!(mark.exists());
        }
        let left = listed(&to);
        assert!(!left.is_empty());
        for name in left {
            is_whole(&to, Some(&name)).unwrap();
        }
        // Nobody is in anybody's way afterwards.
        taken(&data, &to);
        pruned(&to, Keep::Newest(1)).unwrap();
    }
}
