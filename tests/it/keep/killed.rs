//! Programs that make a copy of a log and are killed while they do: what there was is untouched, what there is
//! says that it is not whole, and the next run makes what an undisturbed one makes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tailmark::backup::take;

use super::compacting::thinned;
use super::meanwhile::{found, named};
use crate::support::daemon::{feed, program};
use crate::support::kept::expect_clean;
use crate::support::logdir::snapshot;

/// Kills of each program, spread over the time that it takes.
const KILLS: u32 = 24;

/// Runs it, and kills it after so long. Answers whether it was killed.
fn killed_after(command: &mut Command, time: Duration) -> bool {
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(time);
    // SIGKILL.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none_or(|code| code == 0), "{status}");
    status.code().is_none()
}

fn expect_same(one: &Path, other: &Path) {
    let done = feed(program(&["log", "diff"]).arg(one).arg(other), b"");
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && text.ends_with("equal\n"), "{text}");
    assert_eq!(found(one), found(other));
    assert_eq!(named(one), named(other));
    expect_clean(one);
}

/// Moments until twice the time that a whole run takes, so that some come after its end.
fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    // Not the same ones in each run of the test.
    (0..KILLS).map(move |at| whole.mul_f64((f64::from(at) + rand::random::<f64>()) / 18.0))
}

#[test]
fn a_killed_compaction_leaves_the_log_as_it_was_and_the_next_one_is_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (data, copy, workspace) = (thinned(dir.path()), path("copy"), path("copy.compacting"));
    let compact = |to: &Path| {
        let mut command = program(&["log", "compact-offline", "--from"]);
        command.arg(&data).arg("--to").arg(to);
        command
    };
    let begun = Instant::now();
    assert!(feed(&mut compact(&path("whole")), b"").status.success());
    let whole = begun.elapsed();
    // The lock file says who has it; all else is compared, times of changes included.
    let untouched = || {
        let mut all = snapshot(&data);
        all.retain(|path, _| !path.ends_with("LOCK"));
        all
    };
    let before = untouched();
    let (mut amid, mut through) = (0, 0);
    for moment in moments(whole) {
        killed_after(&mut compact(&copy), moment);
        assert!(untouched() == before, "killed after {moment:?}");
        if copy.exists() {
            // It was through, and what has the name is all of it.
            assert!(!workspace.exists());
            expect_same(&copy, &path("whole"));
            std::fs::remove_dir_all(&copy).unwrap();
            through += 1;
        } else {
            amid += u32::from(workspace.exists());
        }
    }
    assert!(
        amid > 3,
        "{amid} of {KILLS} met it at work, {through} came too late; it takes {whole:?}"
    );
    // The last kill in the midst of it is one that the next run meets.
    while !workspace.exists() || copy.exists() {
        let _ = std::fs::remove_dir_all(&copy);
        killed_after(&mut compact(&copy), whole.mul_f64(rand::random()));
    }
    let done = feed(&mut compact(&copy), b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!workspace.exists());
    expect_same(&copy, &path("whole"));
    expect_same(&copy, &data);
}

#[test]
fn a_killed_restore_is_plainly_unfinished_and_the_next_one_is_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (data, to, copy) = (thinned(dir.path()), path("to"), path("copy"));
    take(&data, &to, |_| Ok(())).unwrap();
    let restore = |dir: &Path| {
        let mut command = program(&["restore"]);
        command.arg(&to).arg("--data-dir").arg(dir);
        command
    };
    let begun = Instant::now();
    assert!(feed(&mut restore(&path("whole")), b"").status.success());
    let whole = begun.elapsed();
    let (before, mut amid) = (snapshot(&to), 0);
    for moment in moments(whole) {
        killed_after(&mut restore(&copy), moment);
        assert!(snapshot(&to) == before, "killed after {moment:?}");
        let is_marked = copy.join("unfinished").exists();
        let read = feed(program(&["log", "info", "--data-dir"]).arg(&copy), b"");
        if is_marked {
            let said = String::from_utf8(read.stderr).unwrap();
            assert!(!read.status.success() && said.contains("restore"), "{said}");
            amid += 1;
        } else if read.status.success() {
            expect_same(&copy, &data);
            std::fs::remove_dir_all(&copy).unwrap();
        } else {
            // Nothing was begun: there is no log, nor a part of one.
            assert!(!copy.join("segments").exists());
        }
    }
    assert!(amid > 3, "{amid} of {KILLS} met it at work; it takes {whole:?}");
    // What the last of these left is gone on with.
    if !copy.join("unfinished").exists() {
        let _ = std::fs::remove_dir_all(&copy);
        while !copy.join("unfinished").exists() {
            let _ = std::fs::remove_dir_all(&copy);
            killed_after(&mut restore(&copy), whole.mul_f64(rand::random()));
        }
    }
    let done = feed(&mut restore(&copy), b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    expect_same(&copy, &path("whole"));
}
