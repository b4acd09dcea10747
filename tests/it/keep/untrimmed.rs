//! A trim that was a mistake is undone from backups, and only with what belongs to the same history.

use std::path::Path;

use tailmark::backup::{Error, Restored, Since, Target, Upto, restore};
use tailmark_log::StoreError;
use tailmark_log::eventlog::ResolveError;
use tailmark_record::{Cursor, Seq};

use super::backups::{cut_at, taken};
use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{self, events, expect_clean};
use crate::support::logdir;

/// Stores events and answers all that are readable then.
async fn grow(dir: &Path, numbers: std::ops::Range<u64>) -> Vec<String> {
    let log = kept::open(dir);
    kept::store(&log, numbers).await;
    log.close().await.unwrap();
    drop(log);
    events(dir)
}

async fn trim(dir: &Path, oldest: u64) {
    let log = kept::open(dir);
    log.trim(Seq::new(oldest)).await.unwrap();
    log.close().await.unwrap();
}

fn put_back(to: &Path, what: (Since, Upto), dir: &Path) -> Result<Restored, Error> {
    let target = Target::open(to).unwrap();
    let (name, manifest) = target.backup(None)?;
    loop {
        match restore(&target, &name, &manifest, what, dir, logdir::options(), |_| Ok(())) {
            // A process that another test starts has the file of the attempt before for a moment.
            Err(
                Error::Store(StoreError::Locked { .. }) | Error::Place(StoreError::Locked { .. }),
            ) => std::thread::yield_now(),
            done => return done,
        }
    }
}

/// The first seq that the files of the newest backup have, trimmed or not.
fn begin(to: &Path) -> u64 {
    let (_, manifest) = Target::open(to).unwrap().backup(None).unwrap();
    manifest.segments.first().unwrap().first_seq
}

#[tokio::test]
async fn a_wrong_trim_is_undone_from_older_backups_and_nothing_newer_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (data, to, copy) = (path("data"), path("to"), path("copy"));
    std::fs::create_dir(&data).unwrap();
    grow(&data, 0..1_000).await;
    taken(&data, &to);
    let mut all = grow(&data, 1_000..2_200).await;
    let log = kept::open(&data);
    let mut cursors = Vec::new();
    for seq in [1, 699, 700, 1_799, 1_800, 2_200] {
        cursors.push((seq, log.cursor(Seq::new(seq)).await));
    }
    log.close().await.unwrap();
    drop(log);
    taken(&data, &to);
    trim(&data, 1_800).await;
    all.extend_from_slice(&grow(&data, 2_200..2_700).await[401..]);
    taken(&data, &to);
    assert!(begin(&to) > 1, "nothing was dropped: this shows nothing");
    for (since, upto, oldest) in [
        (Since::Seq(Seq::new(1)), 2_700, 1),
        (Since::Seq(Seq::new(700)), 2_700, 700),
        (Since::Seq(Seq::new(begin(&to))), 2_700, begin(&to)),
        (Since::Seq(Seq::new(1_799)), 2_700, 1_799),
        (Since::Oldest, 2_000, 1),
        (Since::Oldest, 1_800, 1),
        // Nothing to bring.
        (Since::Seq(Seq::new(1_800)), 2_700, 1_800),
        (Since::Seq(Seq::new(5_000)), 2_700, 1_800),
        (Since::Trimmed, 2_700, 1_800),
    ] {
        let upto_seq = Upto::Seq(Seq::new(upto));
        let done = put_back(&to, (since, upto_seq), &copy).unwrap();
        assert_eq!((done.oldest.get(), done.head.get()), (oldest, upto), "{since:?}");
        assert_eq!(done.untrimmed, 1_800 - oldest);
        expect_clean(&copy);
        assert_eq!(events(&copy), all[oldest as usize - 1..upto as usize], "{since:?} {upto}");
        let log = kept::open(&copy);
        for (seq, cursor) in cursors.iter().filter(|(seq, _)| *seq <= upto) {
            let found = log.resolve(Cursor::parse(cursor).unwrap()).await;
            match found {
                Ok(next) => assert!(*seq + 1 >= oldest && next.get() == seq + 1),
                Err(ResolveError::Cursor(error)) => {
                    assert!(*seq + 1 < oldest && format!("{error:?}").contains("Trimmed"));
                }
                Err(error) => panic!("{error}"),
            }
        }
        log.close().await.unwrap();
        drop(log);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    // Cut anywhere, it is unfinished, and the next attempt goes on.
    let target = Target::open(&to).unwrap();
    let (name, manifest) = target.backup(None).unwrap();
    let what = (Since::Oldest, Upto::Head);
    let mut cuts = 0;
    for nth in 0.. {
        let is_cut = cut_at(nth, |tick| {
            loop {
                match restore(&target, &name, &manifest, what, &copy, logdir::options(), |_| tick())
                {
                    Err(
                        Error::Store(StoreError::Locked { .. })
                        | Error::Place(StoreError::Locked { .. }),
                    ) => std::thread::yield_now(),
                    done => return done.map(drop),
                }
            }
        });
        if !is_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 3, "{cuts}");
    assert_eq!(events(&copy), all);
    std::fs::remove_dir_all(&copy).unwrap();
    // What no other backup has is not made up.
    for older in &target.names().unwrap()[..2] {
        std::fs::remove_file(to.join(format!("backups/{older}.backup"))).unwrap();
    }
    match put_back(&to, (Since::Seq(Seq::FIRST), Upto::Head), &copy) {
        Err(Error::NotKept { from: Seq::FIRST, reached }) => assert_eq!(reached.get(), begin(&to)),
        other => panic!("{other:?}"),
    }
    assert!(!copy.exists());
    // Of what there is all.
    let done = put_back(&to, what, &copy).unwrap();
    assert_eq!(done.oldest.get(), begin(&to));
    assert_eq!(events(&copy), all[begin(&to) as usize - 1..]);
}

#[tokio::test]
async fn what_another_life_of_the_log_has_is_not_mixed_in() {
    const FORK: u64 = 1_203;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (first, second, to, copy) = (path("first"), path("second"), path("to"), path("copy"));
    std::fs::create_dir(&first).unwrap();
    let common = grow(&first, 0..1_500).await;
    taken(&first, &to);
    put_back(&to, (Since::Trimmed, Upto::Seq(Seq::new(FORK))), &second).unwrap();
    // Both go on: the same seqs, other events.
    grow(&first, 1_500..3_000).await;
    taken(&first, &to);
    let mut all = common[..FORK as usize].to_vec();
    all.extend_from_slice(&grow(&second, 60_000..62_000).await[FORK as usize..]);
    trim(&second, FORK + 1).await;
    grow(&second, 62_000..62_001).await;
    let middle = taken(&second, &to).name;
    trim(&second, 2_500).await;
    all.extend_from_slice(&grow(&second, 62_001..62_300).await[705..]);
    all.insert(FORK as usize + 2_000, String::new());
    let whole = taken(&second, &to);
    let first_of_second = begin(&to);
    assert!(first_of_second > FORK + 1, "nothing was dropped: this shows nothing");
    let done = put_back(&to, (Since::Oldest, Upto::Head), &copy).unwrap();
    assert_eq!((done.oldest.get(), done.head.get()), (1, whole.manifest.head_seq));
    expect_clean(&copy);
    let found = events(&copy);
    all[FORK as usize + 2_000].clone_from(&found[FORK as usize + 2_000]);
    assert_eq!(found, all);
    std::fs::remove_dir_all(&copy).unwrap();
    // Without the backup between them the seqs before are there, but of the other history.
    std::fs::remove_file(to.join(format!("backups/{middle}.backup"))).unwrap();
    match put_back(&to, (Since::Seq(Seq::FIRST), Upto::Head), &copy) {
        Err(Error::NotKept { reached, .. }) => assert_eq!(reached.get(), first_of_second),
        other => panic!("{other:?}"),
    }
}

/// As `docs/operations.md` says it, by the program.
#[test]
fn a_wrong_trim_is_undone_and_watches_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = |args: &[&str]| {
        let done = feed(&mut program(args), b"");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), said)
    };
    let lines = |range: std::ops::Range<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
    let (data, to, copy, state) = (path("data"), path("to"), path("copy"), path("state"));
    let daemon = Daemon::start(&dir.path().join("data"));
    daemon.output(&["upload", "--topic", "a", "-"], lines(0..300).as_bytes());
    let watch = ["watch", "--json", "--from", "oldest", "--state", &state, "--until-caught-up"];
    assert_eq!(daemon.output(&watch, b"").lines().count(), 300);
    daemon.output(&["upload", "--topic", "a", "-"], lines(300..400).as_bytes());
    assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
    daemon.output(&["trim", "--before", "390", "--yes"], b"");
    daemon.output(&["upload", "--topic", "a", "-"], lines(400..410).as_bytes());
    daemon.stop();
    assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
    let args = ["restore", &to, "--data-dir", &copy, "--from-seq", "0x1"];
    assert_eq!(run(&args).0, Some(2));
    let args = ["restore", &to, "--data-dir", &copy, "--from-seq", "1"];
    let (code, text, said) = run(&args);
    assert!(code == Some(0) && text.contains("(389 of them had been trimmed)"), "{text}{said}");
    let daemon = Daemon::start(&dir.path().join("copy"));
    let seen = daemon.output(&watch, b"");
    let body = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["body"].clone();
    let bodies = seen.lines().map(|line| body(line).as_str().unwrap().parse::<u32>().unwrap());
    assert!(bodies.eq(300..410), "{seen}");
    daemon.stop();
}
