//! A real full disk: a small file system in memory, mounted where that is allowed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tailmark_log::storage::local::Options;
use tailmark_log::storage::{Engine, Journal, Store, StoreError};
use tailmark_record::Seq;

use crate::crash::workload;

const DISK_BYTES: u64 = 24 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A mounted file system, gone with this.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Option<Mount> {
        std::fs::create_dir_all(at).expect("a mount point");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn options() -> Options {
    Options { min_free_bytes: 1 << 20, ..workload::options() }
}

pub fn test() {
    let scratch = tempfile::tempdir().expect("a directory");
    let Some(mount) = Mount::new(&scratch.path().join("disk")) else {
        assert!(
            std::env::var_os("CRASH_MUST_MOUNT").is_none(),
            "a small file system could not be mounted"
        );
        println!("  LEFT OUT: mounting is not allowed here (it is for root)");
        return;
    };
    filled_by_the_log_itself(&mount.0.join("itself"));
    filled_by_others(&mount.0.join("others"), &mount.0.join("filler"));
}

/// Appends until the disk is full; answers the head at which it was refused.
fn fill(engine: &dyn Engine) -> Seq {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "the disk does not fill: {:?}", engine.status());
        let before = engine.bounds();
        match workload::append(engine, workload::commit(engine, 60, 0)) {
            Ok(receipt) => assert_eq!(receipt.last, engine.bounds().head),
            Err(StoreError::DiskFull { .. }) => {
                assert_eq!(engine.bounds(), before, "refused, but something has moved");
                return before.head;
            }
            Err(other) => panic!("a full disk must be DiskFull, not {other:?}"),
        }
    }
}

/// Appends until one passes: nothing but time and space is needed.
fn append_again(engine: &dyn Engine) {
    let begun = Instant::now();
    loop {
        match workload::append(engine, workload::commit(engine, 60, 0)) {
            Ok(_) => return,
            Err(StoreError::DiskFull { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            Err(other) => panic!("it does not recover: {other:?}, {:?}", engine.status()),
        }
    }
}

fn filled_by_the_log_itself(dir: &Path) {
    let (engine, _) = workload::open_with(dir, options()).expect("open");
    let head = fill(&*engine);
    let seen = workload::check_events(&*engine, |_| 0).expect("reads go on");
    println!("  full after {head} events, all {seen} readable; {:?}", engine.status());
    // Full at a restart: refused with the same error, or open; nothing is lost either way.
    drop(engine);
    let engine = match workload::open_with(dir, options()) {
        Ok((engine, _)) => engine,
        Err(error) => panic!("a full log must open, or nobody can trim it: {error:?}"),
    };
    assert_eq!(engine.bounds().head, head);
    workload::check_events(&*engine, |_| 0).expect("reads go on after a restart");
    let half = Seq::new(head.get() / 2);
    workload::trim(&*engine, half).expect("trim on a full disk");
    for _ in 0..20 {
        append_again(&*engine);
    }
    assert_eq!(engine.bounds().oldest, half);
    let end = engine.bounds().head;
    engine.close().expect("close");
    drop(engine);
    let (engine, recovered) = workload::open_with(dir, options()).expect("open");
    assert_eq!((engine.bounds().oldest, engine.bounds().head), (half, end));
    workload::check_recovered(&recovered, &engine.bounds()).expect("recovered");
    let seen = workload::check_events(&*engine, |_| 0).expect("everything");
    println!("  a trim to {half} made room for 20 more commits; {seen} events right");
    drop(engine);
    remove(dir);
}

fn filled_by_others(dir: &Path, filler: &Path) {
    let (engine, _) = workload::open_with(dir, options()).expect("open");
    workload::append(&*engine, workload::commit(&*engine, 10, 0)).expect("append");
    let mut bytes = 0;
    let file = std::fs::File::create(filler).expect("filler");
    let junk = vec![0xa5u8; 64 << 10];
    while std::os::unix::fs::FileExt::write_all_at(&file, &junk, bytes).is_ok() {
        bytes += junk.len() as u64;
    }
    drop(file);
    // No byte is left; what was allocated before can still be filled, to the end by small commits alone.
    fill(&*engine);
    while workload::append(&*engine, workload::commit(&*engine, 1, 0)).is_ok() {}
    let head = engine.bounds().head;
    let seen = workload::check_events(&*engine, |_| 0).expect("reads go on");
    // Known without trying, and so is its end, though nobody appends meanwhile.
    let refusal = engine.refusal();
    assert!(matches!(refusal, Some(StoreError::DiskFull { .. })), "{refusal:?}");
    std::fs::remove_file(filler).expect("filler");
    let begun = Instant::now();
    while let Some(refusal) = engine.refusal() {
        assert!(begun.elapsed() < PATIENCE, "{refusal:?}");
        std::thread::yield_now();
    }
    for _ in 0..20 {
        append_again(&*engine);
    }
    let end = engine.bounds().head;
    drop(engine);
    let (engine, recovered) = workload::open_with(dir, options()).expect("open");
    assert_eq!(engine.bounds().head, end);
    workload::check_recovered(&recovered, &engine.bounds()).expect("recovered");
    workload::check_events(&*engine, |_| 0).expect("everything");
    println!(
        "  others took the last byte: refused at {head}, {seen} events readable; went on by itself \
         to {end} when they left"
    );
    drop(engine);
    remove(dir);
}

/// A sealer that was still at work may write for a moment longer.
fn remove(dir: &Path) {
    let begun = Instant::now();
    while std::fs::remove_dir_all(dir).is_err() {
        assert!(begun.elapsed() < PATIENCE, "cannot remove {}", dir.display());
        std::thread::yield_now();
    }
}
