//! Failing system calls, and a disk that is really full. Every call of the scripted run fails once,
//! one a run; `CRASH_IO_STRIDE=10` leaves out nine of ten.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a harness ends where something is not as it must be, and counts small numbers"
)]

#[path = "../crash/mod.rs"]
mod crash;
mod full_disk;
mod refused;
mod swapped;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crash::strace;
use crash::workload::{self, Wrong};
use tailmark_log::storage::{Store, StoreError};

/// Of events, in the first of three lives: a bit more than a slot.
const BYTES: u64 = 330_000;

/// A child that is not through by then hangs. It takes a fraction of a second.
const CHILD_LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "child") {
        child(Path::new(&args[2]), args.get(3).map_or(BYTES, |arg| arg.parse().expect("bytes")));
        return;
    }
    if args.get(1).is_some_and(|arg| arg == "migrate") {
        swapped::child(Path::new(&args[2]));
        return;
    }
    crash::run(&[
        ("no_failing_call_loses_what_was_acked", failing_calls),
        ("a_full_disk_refuses_and_recovers", full_disk::test),
        ("what_a_system_refuses_is_done_another_way_or_said", refused::test),
        ("a_migration_where_names_cannot_be_swapped_renames_over_nothing", swapped::test),
    ]);
}

/// The script until something fails; then everything must still be readable.
fn child(dir: &Path, bytes: u64) {
    std::thread::spawn(|| {
        std::thread::park_timeout(CHILD_LIMIT);
        workload::tell("H\n");
        std::process::exit(9);
    });
    match workload::script(dir, 3, bytes, 0) {
        Ok(()) => workload::tell("D\n"),
        Err(error) => workload::tell(&format!("E {error:?}\n")),
    }
    // Threads that sled has hung must not keep a process: that is the daemon's promise too.
    std::process::exit(0);
}

#[derive(Debug, Default)]
struct Told {
    acked: (u64, u64),
    tried: (u64, u64),
    is_done: bool,
    failed: Option<String>,
    hung: bool,
    /// After an append had failed: all could be read, or reading was refused, or was wrong.
    read: bool,
    not_read: Option<String>,
    wrong: Option<String>,
}

impl Told {
    fn parse(text: &str) -> Told {
        let mut told = Told::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let kind = words.next().unwrap_or_default();
            let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            match kind {
                "A" => told.acked = (number(), number()),
                "T" => told.tried = (number(), number()),
                "D" => told.is_done = true,
                "E" => told.failed = Some(line[2..].to_owned()),
                "H" => told.hung = true,
                "R" => told.read = true,
                "N" => told.not_read = Some(line[2..].to_owned()),
                "W" => told.wrong = Some(line[2..].to_owned()),
                _ => {}
            }
        }
        told
    }
}

/// Counted beside what the crash images need.
const MORE: &str = ",pread64,flock,statfs,getdents64";

/// Which calls fail how.
const CASES: &[(&str, &str, bool)] = &[
    ("pwritev", "EIO", false),
    ("pwritev", "ENOSPC", false),
    ("fdatasync", "EIO", false),
    ("fdatasync", "EIO", true),
    ("fsync", "EIO", false),
    ("fsync", "ENOSPC", true),
    ("pwrite64", "EIO", false),
    ("pwrite64", "ENOSPC", true),
    ("write", "EIO", false),
    ("write", "ENOSPC", true),
    ("sync_file_range", "EIO", false),
    ("ftruncate", "EIO", false),
    ("fallocate", "ENOSPC", false),
    ("fallocate", "EIO", false),
    ("rename", "EIO", false),
    ("rename", "ENOSPC", true),
    ("mkdir", "ENOSPC", false),
    ("unlink", "EIO", false),
    ("unlinkat", "EIO", false),
    ("pread64", "EIO", false),
    ("openat", "EMFILE", false),
    ("openat", "EIO", false),
    ("flock", "EIO", false),
    ("statfs", "EIO", false),
    ("getdents64", "EIO", false),
];

fn failing_calls() {
    if !strace::is_there() {
        return;
    }
    let stride = crash::env_number("CRASH_IO_STRIDE", 1).max(1);
    let scratch = crash::scratch();
    let trace = scratch.path().join("trace");
    let dir = scratch.path().join("counted");
    let name = dir.to_str().expect("UTF-8");
    let steps = strace::record(&["child", name], MORE, &trace, CHILD_LIMIT);
    std::fs::remove_file(&trace).expect("the trace");
    let mut runs = Vec::new();
    for (call, error, sticky) in CASES {
        // Another run may make a few more, as its threads meet otherwise.
        let most = strace::most_calls(&steps, call) + 2;
        let nths = (1..=most).step_by(stride as usize);
        runs.extend(nths.map(|nth| (*call, nth, *error, *sticky)));
    }
    println!("  {} runs over {} kinds of failure", runs.len(), CASES.len());
    let tally = Mutex::new(BTreeMap::<(&str, &str, bool), [u64; 6]>::new());
    let failures = Mutex::new(Vec::new());
    let known = AtomicU64::new(0);
    crash::in_parallel_waiting(runs.len() as u64, |at| {
        let run = runs[at as usize];
        let dir = tempfile::Builder::new().prefix("failing-").tempdir_in(scratch.path());
        let dir = dir.expect("a directory");
        let log = dir.path().join("log");
        let args = ["child", log.to_str().expect("UTF-8")];
        let (status, told) = strace::inject(&args, run, CHILD_LIMIT + CHILD_LIMIT / 2);
        let told = Told::parse(&told);
        let mut tally = tally.lock().expect("tally");
        let counts = tally.entry((run.0, run.2, run.3)).or_default();
        counts[0] += 1;
        counts[1] += u64::from(told.is_done);
        counts[2] += u64::from(told.failed.is_some());
        counts[3] += u64::from(!told.is_done && told.failed.is_none());
        counts[4] += u64::from(told.read);
        counts[5] += u64::from(told.not_read.is_some());
        drop(tally);
        let mut verdict = if told.hung || status.is_none() {
            Err((false, format!("hung: {told:?}")))
        } else if told.wrong.is_some() {
            Err((false, format!("wrong data after a failure: {told:?}")))
        } else {
            check(&log, &told)
                .map_err(|wrong| (is_known(run.0, &wrong), format!("{wrong:?} after {told:?}")))
        };
        if matches!(&verdict, Err((true, _))) {
            known.fetch_add(1, Ordering::Relaxed);
            verdict = Ok(());
        }
        if let Err((_, what)) = verdict {
            failures.lock().expect("failures").push(format!("{run:?}: {what}"));
        }
    });
    for ((call, error, sticky), [all, done, failed, died, read, not_read]) in
        tally.into_inner().expect("tally")
    {
        let how = if sticky { "from then on" } else { "once" };
        println!(
            "  {call} {error} {how}: {all} runs, {done} went through, {failed} stopped with an \
             error ({read} of them still read everything, {not_read} not), {died} did not start"
        );
    }
    println!(
        "  {} runs in which sled rewrote a sealed segment after a failed read (reported as damage)",
        known.into_inner()
    );
    let failures = failures.into_inner().expect("failures");
    failures.iter().take(20).for_each(|failure| println!("  FAILED {failure}"));
    assert!(failures.is_empty(), "{} of {} runs failed, see above", failures.len(), runs.len());
}

/// sled takes a read that fails while it opens a database for a torn tail, and zeroes it. The files
/// are read and compared whole directly before, so that this needs an error that begins in between;
/// it is then reported with its range. docs/testing.md, "What is not proved".
fn is_known(call: &str, wrong: &Wrong) -> bool {
    let in_sled = |damage: &tailmark_log::storage::Damage| {
        damage.from < damage.to && damage.file.to_string_lossy().contains("/segments/")
    };
    match wrong {
        Wrong::Refused(StoreError::Damaged(damage)) => call == "pread64" && in_sled(damage),
        _ => false,
    }
}

/// Opens the log again, with nothing failing.
fn check(log: &Path, told: &Told) -> Result<(), Wrong> {
    let (engine, recovered) = workload::open(log)?;
    let bounds = engine.bounds();
    let (head, oldest) = (bounds.head.get(), bounds.oldest.get());
    if head < told.acked.0 || head > told.tried.0.max(told.acked.0) {
        return Err(Wrong::Served(format!("head {head}")));
    }
    if oldest < told.acked.1 || oldest > told.tried.1.max(told.acked.1).max(1) {
        return Err(Wrong::Served(format!("oldest {oldest}")));
    }
    workload::check_recovered(&recovered, &bounds)?;
    let seen = workload::check_events(&*engine, |_| 0)?;
    workload::check_answers(&*engine, seen)
}
