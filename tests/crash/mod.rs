//! What the crash, damage and failure harnesses share: a small runner, the workload, the checker.
//!
//! These binaries have no libtest: they re-execute themselves as the process that is traced, killed
//! or failed, and they print their figures on every run.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each harness uses a part of it, and ends where something is not as it must be"
)]

pub mod model;
pub mod strace;
pub mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A named test of a binary without libtest.
pub type Test = (&'static str, fn());

/// Runs the tests that the arguments of `cargo test` select; a panic fails the binary.
pub fn run(tests: &[Test]) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--list" => {
                tests.iter().for_each(|(name, _)| println!("{name}: test"));
                return;
            }
            "--skip" | "--test-threads" | "--format" | "--color" | "--logfile" | "-Z"
            | "--minutes" => {
                rest.next();
            }
            "--ignored" => return,
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter),
        }
    }
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter)) {
            continue;
        }
        let begun = Instant::now();
        println!("test {name} ...");
        test();
        println!("test {name} ... ok ({:.1} s)", begun.elapsed().as_secs_f32());
    }
}

/// A number from the environment.
pub fn env_number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")),
        Err(_) => default,
    }
}

/// A random number generator that is printed, so that any run can be had again: `CRASH_SEED`.
pub fn seed() -> u64 {
    let seed = env_number("CRASH_SEED", rand::random::<u32>().into());
    println!("  CRASH_SEED={seed}");
    seed
}

/// A directory in memory where there is one: thousands of images go through it.
pub fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let base = match std::env::var_os("CRASH_SCRATCH") {
        Some(dir) => dir.into(),
        None if has_room(&memory) => memory,
        None => std::env::temp_dir(),
    };
    tempfile::Builder::new().prefix("tailmark-").tempdir_in(base).expect("a scratch directory")
}

/// A trace takes some hundred megabytes; containers often have 64 there.
fn has_room(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|stat| stat.f_bavail * stat.f_frsize > 1 << 30)
}

/// Runs a child to its end, or kills it (by its id) and answers `None`.
pub fn wait_bounded(
    child: &mut std::process::Child,
    limit: Duration,
) -> Option<std::process::ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            return Some(status);
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Every file below `root`, and every empty directory with a `/` at its end.
pub fn read_tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        let mut is_empty = true;
        // What an engine at work deletes meanwhile is not there any more.
        let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if is_gone(&error) => continue,
            entries => entries.expect("list"),
        };
        for entry in entries {
            let path = entry.expect("entry").path();
            is_empty = false;
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let inside = path.strip_prefix(root).expect("inside").to_owned();
            match std::fs::read(&path) {
                Err(error) if is_gone(&error) => {}
                bytes => files.push((inside, bytes.expect("read"))),
            }
        }
        if is_empty {
            let inside = dir.strip_prefix(root).expect("inside").join("");
            files.push((inside, Vec::new()));
        }
    }
    files.sort();
    files
}

/// Lets a random time pass: when the blow falls is what these tests draw at random.
pub fn pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(rest) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(rest);
    }
}

/// Splits `0..count` over the machine's cores. A panic of one fails the caller.
pub fn in_parallel(count: u64, work: impl Fn(u64) + Sync) {
    by_threads(cores(), count, work);
}

/// The same for work that waits for other processes and the disk about half of its time.
#[allow(dead_code, reason = "not each harness has such")]
pub fn in_parallel_waiting(count: u64, work: impl Fn(u64) + Sync) {
    by_threads(2 * cores(), count, work);
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn by_threads(threads: usize, count: u64, work: impl Fn(u64) + Sync) {
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    work(at);
                }
            });
        }
    });
}
