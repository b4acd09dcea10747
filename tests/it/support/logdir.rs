//! Logs on disk for tests of what looks at them: filled, damaged, compared.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Instant;

use tailmark_log::storage::local::{self, LocalEngine};
use tailmark_log::storage::{Commit, Engine, Recovered, Store, StoreError};
use tailmark_log::testing;
use tailmark_record::{Seq, Timestamp};

use super::server::PATIENCE;

/// Small slots, so that a few thousand events fill several.
pub const SLOT_BYTES: u64 = 256 << 10;

pub fn options() -> local::Options {
    local::Options { slot_bytes: SLOT_BYTES, min_free_bytes: 0, ..local::Options::default() }
}

/// Opens a log; one that was just dropped may hold its lock for a moment.
pub fn open(dir: &Path) -> (Arc<LocalEngine>, Recovered) {
    let begun = Instant::now();
    loop {
        match local::open(dir, options()) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    }
}

pub fn body_of(seq: u64) -> String {
    format!("event {seq} {}", "x".repeat((seq % 97) as usize))
}

pub fn time_of(seq: u64) -> Timestamp {
    testing::time_of(Seq::new(seq))
}

/// Appends commits of `each` events.
pub fn fill(engine: &dyn Engine, events: u64, each: u64) {
    for _ in 0..events / each {
        append(engine, each).unwrap();
    }
}

/// One commit. Its events have topics `t.0` to `t.4`, by seq.
pub fn append(engine: &dyn Engine, count: u64) -> Result<(), StoreError> {
    let commit = testing::commit(engine, count as u32, |seq| body_of(seq.get()));
    testing::append(engine, commit).map(drop)
}

/// Moves the trim mark.
pub fn trim(engine: &dyn Engine, oldest: u64) {
    let commit = testing::commit(engine, 0, |_| String::new());
    let appended_at = time_of(engine.bounds().head.get());
    let commit = Commit { appended_at, oldest: Seq::new(oldest), ..commit };
    testing::append(engine, commit).unwrap();
    engine.reclaim().unwrap();
}

/// Waits until all full slots are sealed.
pub fn wait_for_sealing(engine: &dyn Engine) {
    let begun = Instant::now();
    while engine.status().unsealed_slots > 1 {
        assert!(begun.elapsed() < PATIENCE, "not sealed: {:?}", engine.status());
        std::thread::yield_now();
    }
}

/// Ends an engine without closing the log, as a kill does, and waits until it has let go.
pub fn kill(dir: &Path, engine: Arc<LocalEngine>) {
    drop(engine);
    let lock = std::fs::File::open(dir.join("LOCK")).unwrap();
    let begun = Instant::now();
    while lock.try_lock().is_err() {
        assert!(begun.elapsed() < PATIENCE, "the engine does not let go");
        std::thread::yield_now();
    }
}

/// Closes a log and waits until its lock is free.
pub fn close(dir: &Path, engine: Arc<LocalEngine>) {
    engine.close().unwrap();
    kill(dir, engine);
}

/// 5,000 events: all but the last 100 sealed in several segments; closed in order.
pub fn sealed_log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    fill(&*engine, 4_900, 50);
    wait_for_sealing(&*engine);
    close(dir.path(), engine);
    let (engine, _) = open(dir.path());
    fill(&*engine, 100, 50);
    close(dir.path(), engine);
    dir
}

/// Every file below a directory, with all that tells whether it was touched.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let bytes = if meta.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if meta.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).unwrap()
        };
        all.insert(path, (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec(), bytes));
    }
    all
}

/// Paths of the segments, in order.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("segments")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Changes bits of one byte.
pub fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x5a], at).unwrap();
}

/// Overwrites bytes.
pub fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Where `needle` lies in a file, the first time.
pub fn find(path: &Path, needle: &[u8]) -> Option<u64> {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(needle.len()).position(|window| window == needle).map(|at| at as u64)
}

/// Runs `tailmark log ...` on a directory.
pub fn log_command(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailmark"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TAILMARK_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").arg("log").args(args).arg("--data-dir").arg(dir).output().unwrap()
}
