//! Backups: what is taken beside a daemon comes back as the same log, and a cut leaves what was whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tailmark::backup::{Error, Restored, Since, Target, Upto, check, restore, take};
use tailmark::inspect;
use tailmark_log::StoreError;
use tailmark_log::eventlog::ResolveError;
use tailmark_log::storage::Store;
use tailmark_log::testing::Over;
use tailmark_record::{Cursor, Seq, Timestamp};

use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{self, HEAD, OLDEST, PRODUCER, events, expect_clean, life};
use crate::support::logdir::{self, snapshot};
use crate::support::server::PATIENCE;

pub(super) fn taken(data: &Path, to: &Path) -> tailmark::backup::Taken {
    loop {
        let mut last = 0;
        let taken = take(data, to, |progress| {
            assert!(last <= progress.done_bytes && progress.done_bytes <= progress.total_bytes);
            last = progress.done_bytes;
            Ok(())
        });
        match taken {
            // As in [`cut_at`].
            Err(
                Error::Store(StoreError::Locked { .. }) | Error::Place(StoreError::Locked { .. }),
            ) => std::thread::yield_now(),
            taken => return taken.unwrap(),
        }
    }
}

pub(super) fn restored(
    to: &Path,
    name: Option<&str>,
    upto: Upto,
    dir: &Path,
) -> Result<Restored, Error> {
    loop {
        let target = Target::open(to).unwrap();
        let (name, manifest) = target.backup(name)?;
        match restore(
            &target,
            &name,
            &manifest,
            (Since::Trimmed, upto),
            dir,
            logdir::options(),
            |_| Ok(()),
        ) {
            // A process that another test starts has the file of the attempt before for a moment.
            Err(
                Error::Store(StoreError::Locked { .. }) | Error::Place(StoreError::Locked { .. }),
            ) => std::thread::yield_now(),
            done => return done,
        }
    }
}

pub(super) fn is_whole(to: &Path, name: Option<&str>) -> Result<(), Error> {
    let target = Target::open(to)?;
    let (name, manifest) = target.backup(name)?;
    check(&target, &name, &manifest, |_| Ok(())).map(drop)
}

/// What was in the log of [`life`] when a backup of it is put back.
pub(super) async fn expect_life(dir: &Path, cursors: &[String], wanted: &[String]) {
    expect_clean(dir);
    assert_eq!(events(dir), wanted);
    let log = kept::open(dir);
    for (at, cursor) in cursors.iter().enumerate() {
        let next = log.resolve(Cursor::parse(cursor).unwrap()).await.unwrap();
        assert_eq!(next.get(), OLDEST + at as u64, "{cursor}");
    }
    // Repeats are told, of trimmed events too; a producer is where it was.
    for (number, seq) in [(2_000, 2_001), (10, 11)] {
        let again = kept::store(&log, number..number + 1).await.unwrap();
        assert_eq!((again.duplicates, again.last_event.get()), (1, seq));
    }
    let producer = log.open_producer(PRODUCER, 0).await.unwrap();
    assert_eq!((producer.last_seq(), producer.last_event()), (3, Some(Seq::new(2_903))));
    log.close().await.unwrap();
}

#[tokio::test]
async fn what_is_put_back_is_the_same_log_and_the_next_backup_costs_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let before = snapshot(&data);
    let wanted = events(&data);
    let first = taken(&data, &to);
    assert!(snapshot(&data) == before, "a backup changed the log");
    assert!(first.manifest.segments.len() > 1 && first.reused_segments == 0);
    let second = taken(&data, &to);
    assert_eq!(second.reused_segments as usize, second.manifest.segments.len());
    assert!(second.written_bytes < first.written_bytes / 2, "{second:?}");
    is_whole(&to, None).unwrap();
    let copy = dir.path().join("copy");
    let done = restored(&to, Some(&first.name), Upto::Head, &copy).unwrap();
    assert_eq!((done.oldest.get(), done.head.get(), done.generation), (OLDEST, HEAD, 3));
    expect_life(&copy, &cursors, &wanted).await;
    assert_eq!(inspect::info(&copy).unwrap().generations[2].cause, "restored");
    // Into nothing that is there.
    let refused = restored(&to, None, Upto::Head, &copy).unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::NotEmpty { .. })), "{refused}");
    // The first log goes on, and the next backup has that: whoever is there is told by the other.
    let log = kept::open(&data);
    kept::store(&log, 80_000..82_500).await;
    let beyond = log.cursor(Seq::new(HEAD + 1)).await;
    log.close().await.unwrap();
    let third = taken(&data, &to);
    assert!(third.reused_segments > 0 && third.manifest.head_seq == HEAD + 2_500, "{third:?}");
    let log = kept::open(&copy);
    match log.resolve(Cursor::parse(&beyond).unwrap()).await {
        Err(ResolveError::Cursor(error)) => {
            let (text, last) = (format!("{error:?}"), format!("last_common: Seq({HEAD})"));
            assert!(text.contains("LogDiverged") && text.contains(&last), "{text}");
        }
        other => panic!("{other:?}"),
    }
    log.close().await.unwrap();
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    kept::open(&other).close().await.unwrap();
    assert!(matches!(take(&other, &to, |_| Ok(())), Err(Error::OtherLog { .. })));
    assert!(matches!(take(&other, &data, |_| Ok(())), Err(Error::Foreign { .. })));
}

#[tokio::test]
async fn a_log_comes_back_as_it_was_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let wanted = events(&data);
    let backup = taken(&data, &to);
    let sealed = backup.manifest.segments[0].last_seq;
    let tail = backup.manifest.segments.last().unwrap().last_seq;
    let places = [OLDEST - 1, OLDEST, 1_200, 1_500, sealed - 1, sealed, sealed + 1, tail, tail + 1];
    assert!(sealed < tail && tail < HEAD - 2, "{sealed} {tail}");
    for upto in places.into_iter().chain([HEAD - 1, HEAD]) {
        let copy = dir.path().join("copy");
        restored(&to, None, Upto::Seq(Seq::new(upto)), &copy).unwrap();
        expect_clean(&copy);
        let count = (upto + 1 - OLDEST) as usize;
        assert_eq!(events(&copy), wanted[..count], "up to {upto}");
        let log = kept::open(&copy);
        let producer = log.open_producer(PRODUCER, 0).await.unwrap();
        assert_eq!(producer.last_seq(), if upto == HEAD { 3 } else { 0 });
        let again = kept::store(&log, 90_001..90_002).await.unwrap();
        assert_eq!(again.last.unwrap().get(), upto + 1);
        log.close().await.unwrap();
        drop(log);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    let copy = dir.path().join("copy");
    for (upto, is_early) in [(OLDEST - 2, true), (HEAD + 1, false)] {
        let refused = restored(&to, None, Upto::Seq(Seq::new(upto)), &copy).unwrap_err();
        assert_eq!(matches!(refused, Error::TooEarly { .. }), is_early, "{refused}");
        assert!(!copy.exists());
    }
    // By time: the stamp of an event brings that one and those of the same commit.
    let stamp = |line: &String| {
        let json = line.rsplit_once(" (").unwrap().0;
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        Timestamp::parse(json["appended_at"].as_str().unwrap()).unwrap()
    };
    for at in [0, 499, 1_000, wanted.len() - 1] {
        let time = stamp(&wanted[at]);
        let count = wanted.iter().filter(|line| stamp(line) <= time).count();
        assert!(count > at);
        restored(&to, None, Upto::Time(time), &copy).unwrap();
        assert_eq!(events(&copy).len(), count, "{time}");
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

/// Ends at the `nth` sign of life; false = it was over by then.
pub(super) fn cut_at(
    nth: usize,
    mut run: impl FnMut(&mut dyn FnMut() -> io::Result<()>) -> Result<(), Error>,
) -> bool {
    loop {
        let mut seen = 0;
        let done = run(&mut || {
            seen += 1;
            if seen > nth { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        });
        match done {
            Ok(()) => return false,
            // A process that another test begins has our locks until it is what it is to be.
            Err(
                Error::Store(StoreError::Locked { .. }) | Error::Place(StoreError::Locked { .. }),
            ) if seen == 0 => std::thread::yield_now(),
            Err(error) => {
                assert!(seen > nth, "{error}");
                return true;
            }
        }
    }
}

#[tokio::test]
async fn a_cut_leaves_what_was_whole_and_the_next_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let mut cuts = 0;
    while cut_at(cuts, |tick| take(&data, &to, |_| tick()).map(drop)) {
        cuts += 1;
        assert!(!to.exists() || Target::open(&to).unwrap().names().unwrap().is_empty());
    }
    assert!(cuts > 3);
    is_whole(&to, None).unwrap();
    let log = kept::open(&data);
    kept::store(&log, 80_000..81_500).await;
    log.close().await.unwrap();
    for nth in [0, 1, 2] {
        assert!(cut_at(nth, |tick| take(&data, &to, |_| tick()).map(drop)));
        assert_eq!(Target::open(&to).unwrap().names().unwrap().len(), 1);
        is_whole(&to, None).unwrap();
    }
    let copy = dir.path().join("copy");
    let target = Target::open(&to).unwrap();
    let (name, manifest) = target.backup(None).unwrap();
    let (mut cuts, mut kept) = (0, 0);
    let mut run = |tick: &mut dyn FnMut() -> io::Result<()>| {
        loop {
            let options = logdir::options();
            match restore(
                &target,
                &name,
                &manifest,
                (Since::Trimmed, Upto::Head),
                &copy,
                options,
                |_| tick(),
            ) {
                Err(
                    Error::Store(StoreError::Locked { .. })
                    | Error::Place(StoreError::Locked { .. }),
                ) => std::thread::yield_now(),
                Ok(done) => {
                    kept = done.kept_segments;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    };
    // The events of the tail are many, and each is a sign of life.
    let steps = [0, 1, 2, 3, 5, 8, 13, 50, 200, usize::MAX];
    for nth in steps {
        if !cut_at(nth, &mut run) {
            break;
        }
        if !copy.exists() {
            // Cut while the tail was compared with its hash: nothing is made yet.
            continue;
        }
        cuts += 1;
        let left = inspect::info(&copy).unwrap_err().to_string();
        assert!(left.contains("its restore was cut"), "{left}");
    }
    assert!(cuts > 3 && kept > 0, "{cuts} {kept}");
    let wanted = events(&copy);
    expect_life(&copy, &cursors, &wanted).await;
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_backup_that_is_damaged_is_told_and_makes_no_log() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    // The first segment goes, and what tells repeats of it stays.
    let log = kept::open(&data);
    log.trim(Seq::new(1_700)).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    taken(&data, &to);
    let copy = dir.path().join("copy");
    let all = files(&to);
    assert!(all.iter().any(|path| path.starts_with(to.join("trimmed"))));
    for path in all.iter().filter(|path| !path.ends_with("tailmark-backup")) {
        let len = std::fs::metadata(path).unwrap().len();
        for at in [0, len / 3, len / 2, len.saturating_sub(1)].into_iter().filter(|at| *at < len) {
            logdir::flip(path, at);
            assert!(is_whole(&to, None).is_err(), "{path:?} at {at}");
            let done = restored(&to, None, Upto::Head, &copy);
            assert!(done.is_err(), "{path:?} at {at}");
            assert!(inspect::info(&copy).is_err());
            let _ = std::fs::remove_dir_all(&copy);
            logdir::flip(path, at);
        }
        let aside = path.with_extension("aside");
        std::fs::rename(path, &aside).unwrap();
        assert!(is_whole(&to, None).is_err(), "{path:?} is gone");
        std::fs::rename(&aside, path).unwrap();
    }
    // The null control.
    is_whole(&to, None).unwrap();
    restored(&to, None, Upto::Head, &copy).unwrap();
    let log = kept::open(&copy);
    let again = kept::store(&log, 10..11).await.unwrap();
    assert_eq!((again.duplicates, again.last_event.get()), (1, 11), "a repeat is told");
    log.close().await.unwrap();
    drop(log);
    // Of a log that is damaged there is no backup.
    let segment = logdir::segments(&data).remove(0);
    logdir::flip(&segment.join("db/db"), 5_000);
    let refused = take(&data, &dir.path().join("new"), |_| Ok(())).unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Damaged(_))), "{refused}");
    assert!(Target::open(&dir.path().join("new")).unwrap().names().unwrap().is_empty());
}

#[test]
fn a_backup_of_a_log_that_is_written_sealed_and_trimmed_meanwhile_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    std::fs::create_dir(&data).unwrap();
    let (engine, _) = logdir::open(&data);
    logdir::fill(&*engine, 5_000, 50);
    let is_over = AtomicBool::new(false);
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        let engine = &engine;
        let over = Over(&is_over);
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                logdir::fill(&**engine, 200, 50);
                let bounds = engine.bounds();
                if bounds.head.get() - bounds.oldest.get() > 6_000 {
                    logdir::trim(&**engine, bounds.head.get() - 4_000);
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let has_moved = |all: &[tailmark::backup::Taken]| {
            let oldest = |taken: &tailmark::backup::Taken| taken.manifest.oldest_seq;
            all.len() >= 4 && all.first().map(oldest) < all.last().map(oldest)
        };
        let begun = std::time::Instant::now();
        while !has_moved(&backups) && begun.elapsed() < PATIENCE {
            // As many as there is time to look at, and the first of all.
            if backups.len() == 50 {
                backups.remove(1);
            }
            let before = engine.bounds();
            let taken = take(&data, &to, |_| Ok(())).unwrap();
            let (oldest, head) = (taken.manifest.oldest_seq, taken.manifest.head_seq);
            assert!(before.oldest.get() <= oldest && before.head.get() <= head);
            // The newest commit may be in it before anybody was told of it.
            let begun = std::time::Instant::now();
            while engine.bounds().head.get() < head {
                assert!(begun.elapsed() < PATIENCE, "{head} is in no log");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert!(oldest <= engine.bounds().oldest.get());
            backups.push(taken);
        }
        drop(over);
    });
    logdir::close(&data, engine);
    let oldest = |at: usize| backups[at].manifest.oldest_seq;
    assert!(oldest(0) < oldest(backups.len() - 1), "nothing was trimmed meanwhile");
    for taken in &backups {
        is_whole(&to, Some(&taken.name)).unwrap();
        let copy = dir.path().join("copy");
        restored(&to, Some(&taken.name), Upto::Head, &copy).unwrap();
        expect_clean(&copy);
        let (oldest, head) = (taken.manifest.oldest_seq, taken.manifest.head_seq);
        let all = events(&copy);
        assert_eq!(all.len() as u64, head + 1 - oldest);
        for (seq, line) in (oldest..).zip(&all) {
            assert!(line.contains(&format!("\"event {seq} ")), "{seq}: {line}");
        }
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

/// A daemon may be about to make its newest commit durable: what is told or kept of it must not be undone by a loss of
/// power.
#[test]
fn what_is_read_beside_a_daemon_is_durable_before_it_is_told() {
    if std::process::Command::new("strace").arg("--version").output().is_err() {
        println!("LEFT OUT: strace is missing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let daemon = Daemon::start(&dir.path().join("data"));
    daemon.output(&["publish", "a", "b"], b"");
    let (data, trace) = (path("data"), path("trace"));
    for args in [
        &["backup", &path("to"), "--data-dir", &data][..],
        &["log", "export", "--data-dir", &data],
        &["log", "dump", "--data-dir", &data],
        &["log", "verify", "--data-dir", &data],
    ] {
        let program = program(args);
        let mut traced = std::process::Command::new("strace");
        traced.args(["-f", "-qq", "-y", "-e", "trace=fsync,fdatasync", "-o", &trace]);
        traced.arg(program.get_program()).args(program.get_args());
        let done = feed(&mut traced, b"");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        let calls = std::fs::read_to_string(&trace).unwrap();
        let journal = format!("{data}/journal/");
        let is_synced = |line: &&str| line.contains(&journal) && line.ends_with("= 0");
        assert!(calls.lines().any(|line| is_synced(&line)), "{args:?}: {calls}");
    }
    daemon.stop();
}

/// By the program: a daemon's disk is lost, and its log goes on elsewhere from the backup; a watch that
/// kept its cursor goes on exactly.
#[test]
fn a_lost_disk_is_put_back_and_its_watches_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = |args: &[&str]| {
        let done = feed(&mut program(args), b"");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), said)
    };
    let daemon = Daemon::start(&dir.path().join("data"));
    let lines = |range: std::ops::Range<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
    daemon.output(&["upload", "--topic", "a", "-"], lines(0..500).as_bytes());
    let state = path("state");
    let watch = ["watch", "--json", "--from", "oldest", "--state", &state, "--until-caught-up"];
    let seen = daemon.output(&watch, b"");
    assert_eq!(seen.lines().count(), 500);
    daemon.output(&["upload", "--topic", "a", "-"], lines(500..600).as_bytes());
    let (data, to, copy) = (path("data"), path("to"), path("copy"));
    let (code, name, said) = run(&["backup", &to, "--data-dir", &data]);
    assert_eq!(code, Some(0), "{said}");
    let (code, listed, _) = run(&["backup", "list", &to]);
    let is_listed = listed.starts_with(name.trim()) && listed.contains("1 to 600");
    assert!(code == Some(0) && is_listed, "{listed}");
    let (code, text, _) = run(&["backup", "verify", &to, "--json"]);
    assert!(code == Some(0) && text.contains("\"head_seq\":\"600\""), "{text}");
    // Acked after it, and seen by somebody.
    daemon.output(&["upload", "--topic", "a", "-"], lines(600..620).as_bytes());
    let beyond = path("beyond");
    let watch_beyond =
        ["watch", "--json", "--from", "oldest", "--state", &beyond, "--until-caught-up"];
    assert_eq!(daemon.output(&watch_beyond, b"").lines().count(), 620);
    daemon.kill();
    std::fs::remove_dir_all(&data).unwrap();
    let (code, text, said) = run(&["restore", &to, "--data-dir", &copy]);
    assert!(code == Some(0) && text.contains("generation 2 begins"), "{text}{said}");
    assert_eq!(run(&["restore", &to, "--data-dir", &copy]).0, Some(2));
    let daemon = Daemon::start(&dir.path().join("copy"));
    daemon.output(&["upload", "--topic", "a", "-"], lines(600..610).as_bytes());
    let seen = daemon.output(&watch, b"");
    let body = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["body"].clone();
    let bodies = seen.lines().map(|line| body(line).as_str().unwrap().parse::<u32>().unwrap());
    assert!(bodies.eq(500..610), "{seen}");
    let told = daemon.run(&watch_beyond, b"");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!told.status.success() && said.contains("LOG_DIVERGED"), "{said}");
    assert!(said.contains("600"), "{said}");
    daemon.stop();
    assert_eq!(run(&["backup", "list", &path("nothing")]).0, Some(3));
    assert_eq!(run(&["backup", &to, "--data-dir", &path("nothing")]).0, Some(3));
}

/// By the program, at a rate that makes it take its time: killed amid it, it has left nothing that counts.
#[tokio::test]
async fn a_killed_backup_is_none_and_a_rate_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let whole = taken(&data, &dir.path().join("measured")).written_bytes;
    let rate = (whole / 3).to_string();
    let mut command = program(&["backup", to.to_str().unwrap(), "--rate", &rate, "--data-dir"]);
    let mut child = command.arg(&data).spawn().unwrap();
    let begun = std::time::Instant::now();
    while std::fs::read_dir(to.join("segments")).map_or(0, Iterator::count) < 2 {
        assert!(begun.elapsed() < crate::support::server::PATIENCE);
        assert!(child.try_wait().unwrap().is_none(), "it was not held back");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(Target::open(&to).unwrap().names().unwrap().is_empty());
    let begun = std::time::Instant::now();
    let args = ["backup", to.to_str().unwrap(), "--rate", &rate, "--json", "--data-dir"];
    let done = feed(program(&args).arg(&data), b"");
    let text = String::from_utf8(done.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let written: u64 = json["written_bytes"].as_str().unwrap().parse().unwrap();
    let needed = written as f64 / (whole / 3) as f64;
    assert!(begun.elapsed().as_secs_f64() > needed * 0.9, "{written} in {:?}", begun.elapsed());
    assert!(json["reused_segments"] != "0" && written < whole, "{text}");
    is_whole(&to, None).unwrap();
}

/// As `docs/operations.md` says it: with a backup, and without one.
#[tokio::test]
async fn a_damaged_segment_costs_what_no_copy_has() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = |args: &[&str]| {
        let done = feed(&mut program(args), b"");
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (data, to) = (path("data"), path("to"));
    assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
    let wanted = events(Path::new(&data));
    let log = kept::open(Path::new(&data));
    kept::store(&log, 80_000..80_010).await;
    log.close().await.unwrap();
    drop(log);
    let segment = logdir::segments(Path::new(&data)).remove(1);
    let db = segment.join("db/db");
    let len = std::fs::metadata(&db).unwrap().len();
    (0..len).step_by(5_003).for_each(|at| logdir::flip(&db, at));
    let (code, text) = run(&["log", "verify", "--json", "--data-dir", &data]);
    assert_eq!(code, Some(4));
    let first = text.lines().filter_map(|line| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        json["damage"]["from_seq"].as_str().map(|seq| seq.parse::<u64>().unwrap())
    });
    let first = first.min().unwrap();
    // A backup that has not got the segment yet refuses it; one that has it adds what is new.
    assert_eq!(run(&["backup", &path("anew"), "--data-dir", &data]).0, Some(4));
    assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
    let (restored, part, before) = (path("restored"), path("part"), path("before"));
    assert_eq!(run(&["restore", &to, "--data-dir", &restored]).0, Some(0));
    let whole = events(Path::new(&restored));
    assert_eq!((&whole[..wanted.len()], whole.len()), (&wanted[..], wanted.len() + 10));
    expect_clean(Path::new(&restored));
    let (code, text) = run(&["log", "diff", &data, &restored]);
    assert!(code == Some(0) && text.ends_with("equal\n"), "{text}");
    let daemon = Daemon::start(Path::new(&restored));
    let all = ["watch", "--json", "--from", "oldest", "--until-caught-up"];
    assert_eq!(daemon.output(&all, b"").lines().count(), whole.len());
    daemon.stop();
    // What lies before it.
    assert_eq!(run(&["log", "export", "--data-dir", &data, "--output", &part]).0, Some(4));
    assert!(!Path::new(&part).exists());
    let last = (first - 1).to_string();
    let export = ["log", "export", "--data-dir", &data, "--to", &last, "--output", &part];
    assert_eq!(run(&export).0, Some(0));
    assert_eq!(run(&["log", "import", "--exact", &part, "--data-dir", &before]).0, Some(0));
    let count = (first - OLDEST) as usize;
    assert!(count > 0 && events(Path::new(&before)) == wanted[..count]);
    let log = kept::open(Path::new(&before));
    let next = log.resolve(Cursor::parse(&cursors[count]).unwrap()).await.unwrap();
    assert_eq!(next.get(), first);
    log.close().await.unwrap();
}
