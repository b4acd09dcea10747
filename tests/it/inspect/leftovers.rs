//! Whatever a crash, another program or a person left in a data directory: looking changes none of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::disk::copy_dir;
use crate::support::logdir::*;

/// A log of every kind of part: segments, an unsealed slot, events that are trimmed; killed.
fn killed_log(dir: &Path) {
    let (engine, _) = open(dir);
    fill(&*engine, 3_000, 50);
    wait_for_sealing(&*engine);
    trim(&*engine, 101);
    fill(&*engine, 500, 50);
    kill(dir, engine);
}

/// What looks at a data directory; `migrate` only as far as it finds out what is to be done.
const LOOKS: &[&[&str]] = &[
    &["info"],
    &["info", "--json"],
    &["dump"],
    &["dump", "t.1", "--seq", "200..3100"],
    &["verify"],
    &["verify", "--json"],
    &["explain", "3300"],
    &["explain", "3300", "--json"],
    &["migrate", "--dry-run"],
];

type Leave = fn(&Path);

fn first_segment(dir: &Path) -> std::path::PathBuf {
    segments(dir).into_iter().find(|path| path.join("footer").exists()).unwrap()
}

fn half_snapshot(dir: &Path) {
    fs::write(first_segment(dir).join("db/snap.00000000001FFFFF.generating"), b"half").unwrap();
}

fn half_snapshot_beside_damage(dir: &Path) {
    half_snapshot(dir);
    let db = first_segment(dir).join("db/db");
    flip(&db, fs::metadata(&db).unwrap().len() / 2);
}

fn dirs_of_a_cut_build(dir: &Path) {
    for name in [".tmp-00000000000000009001-1", "trash-00000000000000000001-1.0", ".tmp-x.copy-1-2"]
    {
        let dir = dir.join("segments").join(name);
        fs::create_dir_all(dir.join("db")).unwrap();
        fs::write(dir.join("db/snap.1.generating"), b"x").unwrap();
        fs::write(dir.join("footer"), b"x").unwrap();
    }
}

fn files_of_cut_writes(dir: &Path) {
    fs::create_dir_all(dir.join("trimmed")).unwrap();
    for name in [
        "log.meta.new",
        "journal/slot-0009.new",
        "journal/tip.new",
        "trimmed/00000000000000000001-00000000000000000051.new",
        "quarantine/1-slot-0001-8192.bin.new",
    ] {
        fs::write(dir.join(name), b"half").unwrap();
    }
}

fn something_in_quarantine(dir: &Path) {
    fs::write(dir.join("quarantine/1795248900-slot-0001-9944.bin"), [7; 4096]).unwrap();
}

fn a_torn_tip(dir: &Path) {
    let tip = fs::OpenOptions::new().write(true).open(dir.join("journal/tip")).unwrap();
    tip.set_len(33).unwrap();
}

fn a_torn_write(dir: &Path) {
    fs::remove_file(dir.join("journal/tip")).unwrap();
    let slots = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let (slot, at) =
        slots.filter_map(|slot| Some((slot.clone(), find(&slot, b"event 3495 ")?))).next().unwrap();
    overwrite(&slot, at, &[0; 64]);
}

fn no_meta(dir: &Path) {
    fs::remove_file(dir.join("log.meta")).unwrap();
}

fn a_damaged_meta(dir: &Path) {
    flip(&dir.join("log.meta"), 40);
}

fn a_damaged_footer(dir: &Path) {
    flip(&first_segment(dir).join("footer"), 100);
}

fn no_lock(dir: &Path) {
    fs::remove_file(dir.join("LOCK")).unwrap();
}

fn foreign_files(dir: &Path) {
    for name in ["novel.txt", ".hidden", "segments/notes", "journal/backup-0001"] {
        fs::write(dir.join(name), b"once upon a time").unwrap();
    }
    fs::write(first_segment(dir).join("db/core.1234"), b"dumped").unwrap();
    fs::create_dir(dir.join("lost+found")).unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.join("segments/link")).unwrap();
}

/// A migration that was cut: only `migrate` itself goes on with it.
fn a_cut_migration(dir: &Path) {
    let beside = dir.with_file_name("data.migrating");
    fs::create_dir_all(beside.join("step-2")).unwrap();
    fs::write(beside.join("step-2/log.meta"), b"x").unwrap();
}

const LEFTOVERS: &[(&str, Leave)] = &[
    ("half a snapshot", half_snapshot),
    ("half a snapshot in a damaged database", half_snapshot_beside_damage),
    ("directories of a cut build", dirs_of_a_cut_build),
    ("files of cut writes", files_of_cut_writes),
    ("something in quarantine", something_in_quarantine),
    ("a torn tip", a_torn_tip),
    ("a torn write", a_torn_write),
    ("no log.meta", no_meta),
    ("a damaged log.meta", a_damaged_meta),
    ("a damaged footer", a_damaged_footer),
    ("no lock file", no_lock),
    ("foreign files", foreign_files),
    ("a cut migration", a_cut_migration),
];

#[test]
fn no_look_changes_anything_that_was_left_behind() {
    let pristine = tempfile::tempdir().unwrap();
    killed_log(&pristine.path().join("data"));
    for (what, leave) in LEFTOVERS {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("data");
        copy_dir(&pristine.path().join("data"), &dir);
        leave(&dir);
        let before = snapshot(place.path());
        for args in LOOKS {
            let output = log_command(&dir, args);
            let errors = String::from_utf8_lossy(&output.stderr);
            let code = output.status.code();
            assert!(matches!(code, Some(0 | 4)), "{what}, {args:?}: {code:?} {errors}");
            assert!(snapshot(place.path()) == before, "{what}: {args:?} changed something");
        }
    }
}

#[test]
fn half_a_snapshot_is_no_damage_and_stays_until_the_database_is_opened() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    killed_log(&dir);
    half_snapshot(&dir);
    let output = log_command(&dir, &["verify"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.starts_with("clean "), "{text}");
}

/// A directory that nobody may write to is looked at all the same.
#[test]
fn a_directory_that_is_mounted_read_only_is_looked_at() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    killed_log(&dir);
    half_snapshot(&dir);
    let before = snapshot(&dir);
    let scratch = tempfile::tempdir().unwrap();
    for args in LOOKS {
        // Only in a name space of its own, which ends with the command.
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" || exit 77; \
                      dir=$1; shift; touch \"$dir/x\" 2>/dev/null && exit 78; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&dir);
        command.arg(env!("CARGO_BIN_EXE_tailmark")).arg("log").args(*args);
        command.env("TMPDIR", scratch.path()).arg("--data-dir").arg(&dir);
        let Ok(output) = command.output() else { return left_out() };
        let errors = String::from_utf8_lossy(&output.stderr);
        if matches!(output.status.code(), Some(77 | 1)) && errors.contains("mount")
            || errors.contains("unshare")
        {
            return left_out();
        }
        assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    }
    assert!(snapshot(&dir) == before);
}

fn left_out() {
    println!("LEFT OUT: mounting is not allowed here (it is for root)");
}
