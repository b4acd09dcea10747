//! What a cut or a daemon at work leaves behind is no part of what comes back.

use std::io;
use std::path::Path;

use tailmark::backup::{Error, Since, Target, Upto, check, restore, take};
use tailmark_log::StoreError;
use tailmark_record::Seq;

use super::backups::{is_whole, restored, taken};
use crate::support::daemon::{feed, program};
use crate::support::kept::{self, HEAD, OLDEST, events, expect_clean, life};
use crate::support::logdir;

/// Puts the newest back, until `bytes` of it are there.
fn restore_until(to: &Path, upto: Upto, dir: &Path, bytes: u64) -> Result<(), Error> {
    let target = Target::open(to).unwrap();
    let (name, manifest) = target.backup(None)?;
    loop {
        let done = restore(
            &target,
            &name,
            &manifest,
            (Since::Trimmed, upto),
            dir,
            logdir::options(),
            |progress| {
                let is_cut = progress.done_bytes > bytes;
                if is_cut { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            },
        );
        match done {
            // A process that another test starts has the file of the attempt before for a moment.
            Err(
                Error::Store(StoreError::Locked { .. }) | Error::Place(StoreError::Locked { .. }),
            ) => std::thread::yield_now(),
            done => return done.map(drop),
        }
    }
}

fn verified(to: &Path) -> Result<(), Error> {
    let target = Target::open(to)?;
    let (name, manifest) = target.backup(None)?;
    check(&target, &name, &manifest, |_| Ok(())).map(drop)
}

#[tokio::test]
async fn what_a_cut_attempt_has_brought_beyond_the_point_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to, copy) =
        (dir.path().join("data"), dir.path().join("to"), dir.path().join("copy"));
    let wanted = events(&data);
    let manifest = take(&data, &to, |_| Ok(())).unwrap().manifest;
    let segments = &manifest.segments;
    assert!(segments.len() > 1);
    let bytes = segments.iter().map(|row| row.bytes).sum();
    let (first, last) = (segments[0].last_seq, segments.last().unwrap().last_seq);
    for upto in [first, first - 1, first + 1, last] {
        assert!(restore_until(&to, Upto::Head, &copy, bytes).is_err());
        assert_eq!(logdir::segments(&copy).len(), segments.len(), "the cut left no more");
        restore_until(&to, Upto::Seq(Seq::new(upto)), &copy, u64::MAX).unwrap();
        expect_clean(&copy);
        let count = (upto + 1 - OLDEST) as usize;
        let found = events(&copy);
        assert_eq!(found.len(), count, "up to {upto}");
        assert!(found == wanted[..count], "up to {upto}");
        let log = kept::open(&copy);
        let again = kept::store(&log, 90_001..90_002).await.unwrap();
        assert_eq!(again.last.unwrap().get(), upto + 1);
        log.close().await.unwrap();
        drop(log);
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_after_the_head_of_a_backup_are_no_repeats_for_who_puts_it_back() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to, copy) =
        (dir.path().join("data"), dir.path().join("to"), dir.path().join("copy"));
    take(&data, &to, |_| Ok(())).unwrap();
    // Of those that follow nothing is to be copied but what is not sealed.
    let mut calls = 0;
    let counted = take(&data, &to, |_| {
        calls += 1;
        Ok(())
    });
    assert!(counted.unwrap().manifest.trimmed.is_empty());
    let (mut call, mut has_trimmed) = (0, false);
    let taken = take(&data, &to, |_| {
        call += 1;
        // With the last one all of it is there.
        if call == calls {
            has_trimmed = true;
            let meanwhile = async {
                let log = kept::open(&data);
                kept::store(&log, 80_000..84_000).await;
                log.trim(Seq::new(HEAD + 3_500)).await.unwrap();
                log.close().await.unwrap();
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(meanwhile));
        }
        Ok(())
    });
    let taken = taken.unwrap();
    assert!(has_trimmed && taken.manifest.head_seq == HEAD, "{taken:?}");
    assert!(data.join("trimmed").read_dir().unwrap().count() > 0);
    assert!(taken.manifest.trimmed.is_empty(), "{:?}", taken.manifest.trimmed);
    verified(&to).unwrap();
    restore_until(&to, Upto::Head, &copy, u64::MAX).unwrap();
    let log = kept::open(&copy);
    // It has a name, and was stored there and not here.
    let new = kept::store(&log, 80_000..80_001).await.unwrap();
    assert_eq!((new.duplicates, new.last_event.get()), (0, HEAD + 1));
    // The null control: what the backup has is a repeat.
    let again = kept::store(&log, 2_000..2_001).await.unwrap();
    assert_eq!((again.duplicates, again.last_event.get()), (1, 2_001));
    log.close().await.unwrap();
}

/// Says nothing of the tail's bytes, as backups did at first and as somebody may who writes there.
fn say_nothing_of_the_tail(to: &Path, name: &str) {
    let path = to.join("backups").join(format!("{name}.backup"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut body: serde_json::Value =
        serde_json::from_str(text.split_once('\n').unwrap().0).unwrap();
    body.as_object_mut().unwrap().remove("tail_hash");
    let tail = to.join("backups").join(format!("{name}.tail"));
    body["tail_bytes"] = std::fs::metadata(tail).unwrap().len().into();
    let body = body.to_string();
    let hash = xxhash_rust::xxh3::xxh3_128(body.as_bytes());
    std::fs::write(&path, format!("{body}\n{hash:032x}\n")).unwrap();
}

#[tokio::test]
async fn the_tail_of_another_backup_is_told() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let first = taken(&data, &to).name;
    let log = kept::open(&data);
    kept::store(&log, 80_000..80_010).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let second = taken(&data, &to).name;
    let swap = || {
        let path = |name: &str| to.join("backups").join(format!("{name}.tail"));
        std::fs::rename(path(&first), to.join("aside")).unwrap();
        std::fs::rename(path(&second), path(&first)).unwrap();
        std::fs::rename(to.join("aside"), path(&second)).unwrap();
    };
    let copy = dir.path().join("copy");
    let expect_told = |name: &str, wanted: &[&str]| {
        for upto in [Upto::Head, Upto::Seq(Seq::new(HEAD - 1))] {
            let told = restored(&to, Some(name), upto, &copy).unwrap_err();
            let told = told.to_string();
            assert!(wanted.iter().any(|it| told.contains(it)), "{name}: {told}");
            let _ = std::fs::remove_dir_all(&copy);
        }
        let told = is_whole(&to, Some(name)).unwrap_err();
        let told = told.to_string();
        assert!(wanted.iter().any(|it| told.contains(it)), "{name}: {told}");
    };
    swap();
    for name in [&first, &second] {
        expect_told(name, &["it is not what was written"]);
    }
    for name in [&first, &second] {
        say_nothing_of_the_tail(&to, name);
        expect_told(name, &["does not join the one before", "not the events that it says"]);
    }
    // The null control, and of the old form.
    swap();
    for name in [&first, &second] {
        say_nothing_of_the_tail(&to, name);
        is_whole(&to, Some(name)).unwrap();
        restored(&to, Some(name), Upto::Head, &copy).unwrap();
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

#[tokio::test]
async fn a_segment_that_is_not_whole_in_the_backup_is_copied_anew() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let first = take(&data, &to, |_| Ok(())).unwrap();
    let rows = &first.manifest.segments;
    let of = |at: usize| to.join("segments").join(&rows[at].name);
    let db = of(0).join("db/db");
    let len = std::fs::metadata(&db).unwrap().len();
    type Break = Box<dyn Fn()>;
    let (cut, gone, footer) = (db.clone(), db, of(1).join("footer"));
    let empty = of(1);
    let breaks: [Break; 4] = [
        Box::new(move || {
            let file = std::fs::OpenOptions::new().write(true).open(&cut).unwrap();
            file.set_len(len / 2).unwrap();
        }),
        Box::new(move || std::fs::remove_file(&gone).unwrap()),
        Box::new(move || logdir::flip(&footer, 20)),
        Box::new(move || {
            std::fs::remove_dir_all(&empty).unwrap();
            std::fs::create_dir(&empty).unwrap();
        }),
    ];
    for (at, damage) in breaks.iter().enumerate() {
        damage();
        assert!(verified(&to).is_err(), "{at}");
        let next = take(&data, &to, |_| Ok(())).unwrap();
        assert_eq!(next.reused_segments as usize, rows.len() - 1, "{at}");
        verified(&to).unwrap();
    }
}

#[tokio::test]
async fn a_backup_that_cannot_be_read_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let names: Vec<_> = (0..3).map(|_| take(&data, &to, |_| Ok(())).unwrap().name).collect();
    let list = |args: &[&str]| {
        let all = [&["backup", "list", to.to_str().unwrap()], args].concat();
        let done = feed(&mut program(&all), b"");
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    assert_eq!(list(&[]).0, Some(0));
    logdir::flip(&to.join("backups").join(format!("{}.backup", names[1])), 40);
    let (code, text) = list(&[]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((code, lines.len()), (Some(4), 3), "{text}");
    for (at, (name, line)) in names.iter().zip(&lines).enumerate() {
        assert!(line.starts_with(name), "{text}");
        assert_eq!(line.contains("damaged"), at == 1, "{text}");
    }
    let (code, text) = list(&["--json"]);
    let json: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, json.len()), (Some(4), 3), "{text}");
    assert!(json[1]["damage"].is_string() && json[0]["damage"].is_null(), "{text}");
}

/// A daemon that takes a segment away takes all of it: this is damage, and said as such.
#[tokio::test]
async fn a_file_that_a_segment_has_lost_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let db = logdir::segments(&data)[1].join("db/db");
    std::fs::rename(&db, dir.path().join("aside")).unwrap();
    let backup = || feed(program(&["backup", to.to_str().unwrap(), "--data-dir"]).arg(&data), b"");
    let done = backup();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(4), "{said}");
    assert!(said.contains("db/db") && said.contains("it is missing"), "{said}");
    // The null control.
    std::fs::rename(dir.path().join("aside"), &db).unwrap();
    assert!(backup().status.success());
    verified(&to).unwrap();
}

/// A backup within the log is lost with it, and an erasure does not know it; a log among backups is none of them.
#[tokio::test]
async fn a_backup_is_not_put_into_a_log_nor_a_log_among_backups() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    let run = |args: &[&str]| {
        let done = feed(&mut program(args), b"");
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    take(&data, &to, |_| Ok(())).unwrap();
    let before = logdir::snapshot(dir.path());
    let data_dir = ["--data-dir", &name(&data)];
    for within in ["bk", "segments/bk/", "a/b/c.tailmark"] {
        let (code, said) = run(&[&["backup", &name(&data.join(within))][..], &data_dir].concat());
        assert!(code == Some(2) && said.contains("lies within"), "{code:?} {said}");
    }
    for within in [to.join("log"), to.join("segments/log"), data.join("log")] {
        let (code, said) = run(&["restore", &name(&to), "--data-dir", &name(&within)]);
        assert!(code == Some(2) && said.contains("lies within"), "{code:?} {said}");
    }
    let is_lock = |path: &std::path::PathBuf| path.ends_with("LOCK");
    let mut after = logdir::snapshot(dir.path());
    after.retain(|path, _| !is_lock(path));
    assert!(after == before.into_iter().filter(|(path, _)| !is_lock(path)).collect());
    // The null control: beside them.
    assert_eq!(
        run(&["restore", &name(&to), "--data-dir", &name(&dir.path().join("log"))]).0,
        Some(0)
    );
}
