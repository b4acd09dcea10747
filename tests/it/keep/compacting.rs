//! Compacting a log that nobody has open: the same log comes out of it, with less on disk.

use std::path::{Path, PathBuf};

use tailmark_log::StoreError;
use tailmark_log::storage::compact::compact;
use tailmark_log::storage::{RemovedReason, Store, TakeOut};
use tailmark_record::Seq;

use super::backups::{cut_at, expect_life};
use super::meanwhile::{found, named};
use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{HEAD, OLDEST, events, expect_clean, life};
use crate::support::logdir;

fn run(from: &Path, to: &Path) -> (Option<i32>, String) {
    let mut command = program(&["log", "compact-offline", "--json", "--from"]);
    let done = feed(command.arg(from).arg("--to").arg(to), b"");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), String::from_utf8(done.stdout).unwrap() + &said)
}

#[tokio::test]
async fn what_comes_out_is_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let wanted = events(&data);
    let (code, text) = run(&data, &copy);
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| json[name].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!((number("oldest_seq"), number("head_seq")), (OLDEST, HEAD));
    assert_eq!(number("events"), wanted.len() as u64);
    let done = feed(program(&["log", "diff"]).arg(&data).arg(&copy), b"");
    assert!(String::from_utf8(done.stdout).unwrap().ends_with("equal\n"));
    expect_life(&copy, &cursors, &wanted).await;
    assert_eq!(events(&data), wanted);
    // There is one already.
    assert_eq!(run(&data, &copy).0, Some(2));
}

/// A log of which every segment has lost most of its events.
pub(super) fn thinned(dir: &Path) -> PathBuf {
    thinned_and_trimmed(dir, 700)
}

pub(super) fn thinned_and_trimmed(dir: &Path, oldest: u64) -> PathBuf {
    let data = dir.join("data");
    std::fs::create_dir(&data).unwrap();
    let (engine, _) = logdir::open(&data);
    logdir::fill(&*engine, 8_000, 50);
    logdir::wait_for_sealing(&*engine);
    for (at, sealed) in engine.sealed().into_iter().enumerate() {
        // Of one nothing is left.
        let goes = |seq: &u64| at == 3 || !seq.is_multiple_of(5);
        let seqs = (sealed.first.get()..sealed.end.get()).filter(goes);
        let seqs = seqs.map(|seq| (Seq::new(seq)..Seq::new(seq + 1), RemovedReason::Compacted));
        let order = TakeOut { sealed: vec![sealed], seqs: seqs.collect(), named_from: Seq::FIRST };
        engine.take_out(&order).unwrap().unwrap();
    }
    logdir::trim(&*engine, oldest);
    logdir::close(&data, engine);
    data
}

#[test]
fn small_segments_become_few_and_repeats_are_told_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (thinned(dir.path()), dir.path().join("copy"));
    let (code, text) = run(&data, &copy);
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| json[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number("segments") * 2 <= number("segments_before"), "{text}");
    assert!(number("bytes") < number("bytes_before"), "{text}");
    expect_clean(&copy);
    assert_eq!(found(&copy), found(&data));
    assert_eq!(named(&copy), named(&data));
}

#[test]
fn a_cut_leaves_nothing_that_could_be_taken_for_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (thinned(dir.path()), dir.path().join("copy"));
    let wanted = found(&data);
    let mut cuts = 0;
    for nth in (0..).step_by(7) {
        let is_cut = cut_at(nth, |tick| {
            loop {
                match compact(&data, &copy, logdir::options(), &mut |_| tick()) {
                    // A process that another test starts has a file of the attempt before for a moment.
                    Err(StoreError::Locked { .. }) => std::thread::yield_now(),
                    done => return done.map(drop).map_err(Into::into),
                }
            }
        });
        if !is_cut {
            break;
        }
        assert!(!copy.exists(), "cut {nth}");
        assert_eq!(found(&data), wanted);
        cuts += 1;
    }
    assert!(cuts > 2, "{cuts}");
    assert_eq!(found(&copy), wanted);
}

#[test]
fn what_is_open_or_damaged_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let daemon = Daemon::start(&data);
    let (code, text) = run(&data, &copy);
    assert!(code != Some(0) && text.contains("stop the daemon first"), "{code:?} {text}");
    daemon.stop();
    std::fs::remove_dir_all(&data).unwrap();
    let data = thinned(dir.path());
    let db = logdir::segments(&data)[1].join("db/db");
    let len = std::fs::metadata(&db).unwrap().len();
    (0..len).step_by(1_003).for_each(|at| logdir::flip(&db, at));
    let (code, text) = run(&data, &copy);
    assert_eq!(code, Some(4), "{text}");
    assert!(!copy.exists() && !dir.path().join("copy.compacting").exists());
}

/// One is at work in `NEW.compacting`: another log is not put there meanwhile.
#[test]
fn two_to_one_place_do_not_get_into_each_others_way() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (thinned(dir.path()), dir.path().join("copy"));
    let (other, wanted) = (dir.path().join("other"), found(&data));
    std::fs::create_dir(&other).unwrap();
    let (engine, _) = logdir::open(&other);
    logdir::fill(&*engine, 100, 50);
    logdir::close(&other, engine);
    let mut tried = 0;
    compact(&data, &copy, logdir::options(), &mut |_| {
        let refused = compact(&other, &copy, logdir::options(), &mut |_| Ok(())).unwrap_err();
        assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
        tried += 1;
        Ok(())
    })
    .unwrap();
    assert!(tried > 3);
    assert_eq!(found(&copy), wanted);
    // The null control.
    std::fs::remove_dir_all(&copy).unwrap();
    compact(&other, &copy, logdir::options(), &mut |_| Ok(())).unwrap();
    assert_eq!(found(&copy), found(&other));
}

#[test]
fn what_cannot_take_its_place_is_refused_before_anything_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let data = thinned(dir.path());
    let is_left = |name: &str| dir.path().join(name).exists();
    // An empty directory is replaced, also by another name of it.
    let (empty, link) = (dir.path().join("empty"), dir.path().join("link"));
    std::fs::create_dir(&empty).unwrap();
    std::os::unix::fs::symlink(&empty, &link).unwrap();
    let (code, text) = run(&data, &link);
    assert_eq!(code, Some(0), "{text}");
    assert!(link.is_symlink() && !is_left("empty.compacting") && !is_left("link.compacting"));
    assert_eq!(found(&empty), found(&data));
    // What another file system is mounted on has no name beside it.
    let (code, text) = run(&data, Path::new("/dev/shm"));
    let is_told = text.contains("a mount point") || text.contains("is not empty");
    assert!(code != Some(0) && is_told, "{code:?} {text}");
    assert!(!Path::new("/dev/shm.compacting").exists());
}
