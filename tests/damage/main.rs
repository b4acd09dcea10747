//! Damage: bytes flipped, pages zeroed, files cut, swapped and removed all over a small log. Each
//! must be found, with an error that says where, or be harmless. `CRASH_DAMAGE=all` flips every
//! byte, a number tries so many; `CRASH_SEED` for the same again.
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
mod ends;
mod salvage;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crash::workload::{self, Wrong};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tailmark_log::storage::Store;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::local::{self, Options};

const PAGE: usize = 4096;
const AFTER: u64 = 88;

fn main() {
    crash::run(&[
        ("no_damage_passes_for_data", damage),
        ("a_salvage_loses_what_the_damage_took_and_no_more", salvages),
        ("no_end_that_is_damaged_twice_is_lost_in_silence", ends::damaged_together),
    ]);
}

/// A log at rest, in memory.
struct Log {
    name: &'static str,
    files: Vec<(PathBuf, Vec<u8>)>,
    oldest: u64,
    head: u64,
    /// The page in which the log ends: its slot, and where it begins. Frames that prove a commit may
    /// lie in the same page; the tip lies elsewhere.
    last_page: (PathBuf, usize),
}

fn options() -> Options {
    // Without marks, so that nothing but the tip proves the last commit of a killed log.
    Options { mark_after: Duration::from_secs(3600), ..workload::options() }
}

/// Some segments, a trim, a reused slot, and unsealed commits at the end.
fn build(name: &'static str, is_clean: bool, has_runs: bool, scratch: &Path) -> Log {
    let dir = scratch.join(name);
    let (engine, _) = workload::open_with(&dir, options()).expect("open");
    let append = |count: u32| {
        workload::append(&*engine, workload::commit(&*engine, count, 0)).expect("append");
    };
    while engine.bounds().head.get() < 1_900 {
        append(50);
    }
    let begun = std::time::Instant::now();
    while engine.status().unsealed_slots > 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", engine.status());
        std::thread::yield_now();
    }
    if has_runs {
        // Runs in all segments.
        for sealed in engine.sealed() {
            workload::take_out(&*engine, sealed).expect("take events out");
        }
    }
    let oldest = engine.bounds().head.get() - 1_000;
    workload::trim(&*engine, oldest.into_seq()).expect("trim");
    for _ in 0..6 {
        append(4);
    }
    let head = engine.bounds().head.get();
    if is_clean {
        engine.close().expect("close");
    }
    // As a kill leaves it: the engine is still there.
    let files = read_files(&dir);
    let last_page = last_page(&dir);
    drop(engine);
    Log { name, files, oldest, head, last_page }
}

fn logs(scratch: &Path) -> [Log; 3] {
    [
        build("killed", false, false, scratch),
        build("closed", true, false, scratch),
        build("taken out of", true, true, scratch),
    ]
}

fn last_page(dir: &Path) -> (PathBuf, usize) {
    let found = local::survey(dir, &Disk::real()).expect("a survey");
    let slot = found.slots.last().expect("a slot");
    let start = (slot.scan.end - 1) / PAGE as u64 * PAGE as u64;
    let path = slot.path.strip_prefix(dir).expect("inside").to_owned();
    (path, start as usize)
}

trait IntoSeq {
    fn into_seq(self) -> tailmark_record::Seq;
}

impl IntoSeq for u64 {
    fn into_seq(self) -> tailmark_record::Seq {
        tailmark_record::Seq::new(self)
    }
}

/// What a copy of the directory would hold; directories that are being built or deleted, and the
/// lock, don't count.
fn read_files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = crash::read_tree(root);
    files.retain(|(path, _)| {
        let shown = path.to_string_lossy();
        let is_odd = ["LOCK", "trash-", ".tmp-"].iter().any(|odd| shown.contains(odd));
        !is_odd && !shown.ends_with('/')
    });
    files
}

#[derive(Clone, Debug)]
enum Damage {
    Flip { file: usize, at: usize, bits: u8 },
    Zero { file: usize, at: usize, len: usize },
    Cut { file: usize, len: usize },
    Swap { one: usize, other: usize },
    SwapPages { file: usize, one: usize, other: usize },
    Remove { file: usize },
}

impl Damage {
    fn kind(&self) -> &'static str {
        match self {
            Damage::Flip { .. } => "flipped byte",
            Damage::Zero { .. } => "zeroed page",
            Damage::Cut { .. } => "cut file",
            Damage::Swap { .. } => "swapped files",
            Damage::SwapPages { .. } => "swapped pages",
            Damage::Remove { .. } => "removed file",
        }
    }

    /// For people, with the name of the file.
    fn shown(&self, log: &Log) -> String {
        let file = match self {
            Damage::Flip { file, .. }
            | Damage::Zero { file, .. }
            | Damage::Cut { file, .. }
            | Damage::SwapPages { file, .. }
            | Damage::Remove { file } => *file,
            Damage::Swap { one, .. } => *one,
        };
        format!("{}, {self:?}", log.files[file].0.display())
    }

    fn random(log: &Log, rng: &mut StdRng) -> Damage {
        // Each kind of file as often, whatever its size.
        let kinds =
            ["slot-", "tip", "log.meta", "footer", "db/db", "db/conf", "db/snap", "trimmed/"];
        let of = |kind: &str| -> Vec<usize> {
            let has = |file: &usize| log.files[*file].0.to_string_lossy().contains(kind);
            (0..log.files.len()).filter(has).collect()
        };
        let pick = |rng: &mut StdRng| loop {
            let files = of(kinds[rng.random_range(0..kinds.len())]);
            if !files.is_empty() {
                return files[rng.random_range(0..files.len())];
            }
        };
        let file = pick(rng);
        let len = log.files[file].1.len();
        let page = |rng: &mut StdRng| rng.random_range(0..len.div_ceil(PAGE)) * PAGE;
        match rng.random_range(0..100) {
            0..70 => {
                let mut at = rng.random_range(0..len);
                if rng.random_bool(0.6) {
                    // Where there is something.
                    let bytes = &log.files[file].1;
                    at = (at..len).chain(0..at).find(|&at| bytes[at] != 0).unwrap_or(at);
                }
                Damage::Flip { file, at, bits: 1 << rng.random_range(0..8) }
            }
            70..85 => Damage::Zero { file, at: page(rng), len: PAGE },
            85..90 => {
                let len = match rng.random_range(0..4) {
                    0 => 0,
                    1 => len - 1,
                    2 => page(rng),
                    _ => rng.random_range(0..len),
                };
                Damage::Cut { file, len }
            }
            90..94 => {
                let name = log.files[file].0.file_name().expect("a name").to_string_lossy();
                let alike = of(name.split('-').next().unwrap_or(&name));
                Damage::Swap { one: file, other: alike[rng.random_range(0..alike.len())] }
            }
            94..98 => Damage::SwapPages { file, one: page(rng), other: page(rng) },
            // A missing file of trimmed events looks as if none of them had been named.
            _ if log.files[file].0.starts_with("trimmed") => Damage::Cut { file, len: 0 },
            _ => Damage::Remove { file },
        }
    }

    /// Changes the bytes of a file; answers whether it is still there.
    fn change(&self, log: &Log, at: usize, bytes: &mut Vec<u8>) -> bool {
        match self {
            Damage::Flip { file, at: place, bits } if *file == at => bytes[*place] ^= bits,
            Damage::Zero { file, at: place, len } if *file == at => {
                let end = (place + len).min(bytes.len());
                bytes[*place..end].fill(0);
            }
            Damage::Cut { file, len } if *file == at => bytes.truncate(*len),
            Damage::Swap { one, other } if *one == at => bytes.clone_from(&log.files[*other].1),
            Damage::Swap { one, other } if *other == at => bytes.clone_from(&log.files[*one].1),
            Damage::SwapPages { file, one, other } if *file == at => {
                let old = bytes.clone();
                for (from, to) in [(*one, *other), (*other, *one)] {
                    let n = PAGE.min(old.len() - from).min(old.len() - to);
                    bytes[to..to + n].copy_from_slice(&old[from..from + n]);
                }
            }
            Damage::Remove { file } if *file == at => return false,
            _ => {}
        }
        true
    }
}

/// Writes the log with these damages.
fn write(log: &Log, damages: &[Damage], dir: &Path) {
    for (at, (name, bytes)) in log.files.iter().enumerate() {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create");
        let mut bytes = bytes.clone();
        if damages.iter().all(|damage| damage.change(log, at, &mut bytes)) {
            std::fs::write(&path, bytes).expect("write");
        }
    }
    // sled expects its directory, also when it is empty.
    for (name, _) in &log.files {
        if name.ends_with("conf") {
            let _ = std::fs::create_dir_all(dir.join(name).with_file_name("blobs"));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The log does not open, and says where it is damaged.
    Refused,
    /// It opens, and reading says which events are lost.
    FoundByReading,
    /// Every event is there and right.
    Harmless,
    /// The same, and the tail began a new generation.
    HarmlessNewGeneration,
}

fn try_damage(log: &Log, damage: &Damage, dir: &Path, goes_on: bool) -> Result<Outcome, String> {
    write(log, std::slice::from_ref(damage), dir);
    let found = |wrong: Wrong, outcome| match wrong {
        wrong if wrong.is_reported_damage() => Ok(outcome),
        wrong => Err(format!("{wrong:?}")),
    };
    let (engine, recovered) = match workload::open_with(dir, options()) {
        Ok(opened) => opened,
        Err(error) => return found(Wrong::Refused(error), Outcome::Refused),
    };
    let bounds = engine.bounds();
    let (oldest, head) = (bounds.oldest.get(), bounds.head.get());
    let is_new = bounds.generations.entries().len() > 1;
    if oldest != log.oldest {
        return Err(format!("the oldest is {oldest}, not {}", log.oldest));
    }
    let mut outcome = match head {
        head if head == log.head && is_new => Outcome::HarmlessNewGeneration,
        head if head == log.head => Outcome::Harmless,
        head => return Err(format!("the head is {head}, not {}: silently shorter", log.head)),
    };
    let checks = workload::check_recovered(&recovered, &bounds)
        .and_then(|()| workload::check_events(&*engine, |_| 0))
        .and_then(|seen| workload::check_answers(&*engine, seen));
    if let Err(wrong) = checks {
        outcome = found(wrong, Outcome::FoundByReading)?;
    }
    if goes_on {
        for _ in 0..20 {
            if workload::append(&*engine, workload::commit(&*engine, 40, AFTER)).is_err() {
                break;
            }
        }
        let end = engine.bounds().head;
        drop(engine);
        let again = workload::open_with(dir, options());
        let (engine, _) = match again {
            Ok(opened) => opened,
            Err(error) if outcome == Outcome::FoundByReading => {
                return found(Wrong::Refused(error), outcome);
            }
            Err(error) => return Err(format!("after going on: {error:?}")),
        };
        let now = engine.bounds();
        if now.head != end || now.oldest.get() != oldest {
            return Err(format!("after going on to {end}: {now:?}"));
        }
        match workload::check_events(&*engine, |seq| if seq > head { AFTER } else { 0 }) {
            Ok(_) => {}
            Err(wrong) if outcome == Outcome::FoundByReading => return found(wrong, outcome),
            Err(wrong) => return Err(format!("after going on: {wrong:?}")),
        }
    }
    Ok(outcome)
}

/// sled's panics over damage are caught; what matters comes back as an error.
fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or("", |location| location.file());
        if place.starts_with("src/") || place.starts_with("tests/") {
            eprintln!("{info}");
        }
    }));
}

fn damage() {
    quiet();
    let seed = crash::seed();
    let scratch = crash::scratch();
    let logs = logs(scratch.path());
    for log in &logs {
        let bytes: usize = log.files.iter().map(|(_, bytes)| bytes.len()).sum();
        let (name, files) = (log.name, log.files.len());
        println!(
            "  log {name}: {files} files, {:.1} MB, events {} to {}",
            bytes as f64 / 1e6,
            log.oldest,
            log.head
        );
    }
    let tries = match std::env::var("CRASH_DAMAGE").as_deref() {
        Ok("all") => None,
        _ => Some(crash::env_number("CRASH_DAMAGE", 2_500)),
    };
    let all: Vec<(usize, Damage)> = match tries {
        Some(count) => (0..count)
            .map(|at| {
                let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(at));
                let log = rng.random_range(0..logs.len());
                (log, Damage::random(&logs[log], &mut rng))
            })
            .collect(),
        None => every_byte(&logs),
    };
    // The hardest to find is tried in every run.
    let all = all.into_iter().chain(zeroed_last_page(&logs)).collect::<Vec<_>>();
    let only = std::env::var("CRASH_DAMAGE_ONLY").ok().and_then(|n| n.parse::<u64>().ok());
    let tally = Mutex::new(BTreeMap::<(&str, Outcome), u64>::new());
    let failures = Mutex::new(Vec::new());
    crash::in_parallel(all.len() as u64, |at| {
        if only.is_some_and(|only| only != at) {
            return;
        }
        let (log, damage) = &all[at as usize];
        let log = &logs[*log];
        let dir = tempfile::Builder::new().prefix("damaged-").tempdir_in(scratch.path());
        let dir = dir.expect("a directory");
        let goes_on = at % 8 == 0 || !matches!(damage, Damage::Flip { .. });
        let result =
            catch_unwind(AssertUnwindSafe(|| try_damage(log, damage, dir.path(), goes_on)))
                .unwrap_or_else(|_| Err("panicked".into()));
        match result {
            Ok(outcome) => {
                *tally.lock().expect("tally").entry((damage.kind(), outcome)).or_default() += 1;
            }
            Err(what) => {
                let text = format!("{at}: {} log, {}: {what}", log.name, damage.shown(log));
                failures.lock().expect("failures").push(text);
            }
        }
    });
    let tally = tally.into_inner().expect("tally");
    for ((kind, outcome), count) in &tally {
        println!("  {count:6} {kind}: {outcome:?}");
    }
    let failures = failures.into_inner().expect("failures");
    failures.iter().take(20).for_each(|failure| println!("  FAILED {failure}"));
    assert_eq!(failures.len(), 0, "of {} damages; see above", all.len());
    println!("  {} damages, none passed for data", all.len());
}

/// Salvages damaged images, `CRASH_SALVAGE` of them.
fn salvages() {
    quiet();
    let seed = crash::seed();
    let scratch = crash::scratch();
    let logs = logs(scratch.path());
    let layout = |log: &Log| {
        let dir = scratch.path().join(format!("{}-intact", log.name));
        write(log, &[], &dir);
        salvage::Layout::of(log, &dir)
    };
    let layouts = logs.each_ref().map(layout);
    let tries = crash::env_number("CRASH_SALVAGE", 500);
    let all = (0..tries).map(|at| {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(at));
        let log = rng.random_range(0..logs.len());
        // Most events lie in two places: nothing is lost before both are struck.
        let strikes = rng.random_range(1..4) * (at % 2);
        match strikes {
            0 => (log, vec![Damage::random(&logs[log], &mut rng)]),
            _ => (log, layouts[log].strike(strikes, &mut rng)),
        }
    });
    let last_pages = zeroed_last_page(&logs).into_iter().map(|(log, damage)| (log, vec![damage]));
    let all = all.chain(last_pages).collect::<Vec<_>>();
    let only = std::env::var("CRASH_DAMAGE_ONLY").ok().and_then(|n| n.parse::<u64>().ok());
    let tally = Mutex::new(BTreeMap::<(&str, bool), (u64, u64)>::new());
    let failures = Mutex::new(Vec::new());
    crash::in_parallel(all.len() as u64, |at| {
        if only.is_some_and(|only| only != at) {
            return;
        }
        let (which, damages) = &all[at as usize];
        let log = &logs[*which];
        let dir = tempfile::Builder::new().prefix("damaged-").tempdir_in(scratch.path());
        let dir = dir.expect("a directory");
        write(log, damages, dir.path());
        let check = || salvage::check(log, &layouts[*which], damages, dir.path());
        match catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("panicked".into())) {
            Ok(lost) => {
                let mut tally = tally.lock().expect("tally");
                let kind = match damages.as_slice() {
                    [one] => one.kind(),
                    _ => "all copies of some events",
                };
                let (images, events) = tally.entry((kind, lost > 0)).or_default();
                (*images, *events) = (*images + 1, *events + lost);
            }
            Err(what) => {
                let shown: Vec<_> = damages.iter().map(|damage| damage.shown(log)).collect();
                let text = format!("{at}: {} log, {}: {what}", log.name, shown.join(" and "));
                failures.lock().expect("failures").push(text);
            }
        }
    });
    let tally = tally.into_inner().expect("tally");
    for ((kind, loses), (images, events)) in &tally {
        let what = if *loses { "events lost" } else { "nothing lost" };
        println!("  {images:6} {kind}: {what}, {events} in all");
    }
    let failures = failures.into_inner().expect("failures");
    failures.iter().take(20).for_each(|failure| println!("  FAILED {failure}"));
    assert_eq!(failures.len(), 0, "of {} images; see above", all.len());
    let losing: u64 = tally.iter().filter(|((_, loses), _)| *loses).map(|(_, (n, _))| n).sum();
    assert!(only.is_some() || losing * 3 > tries, "only {losing} images lost anything");
    println!("  {} images, each lost what its damage took", all.len());
}

fn zeroed_last_page(logs: &[Log]) -> Vec<(usize, Damage)> {
    let damage = |(at, log): (usize, &Log)| {
        let (path, start) = &log.last_page;
        let file = log.files.iter().position(|(name, _)| name == path)?;
        Some((at, Damage::Zero { file, at: *start, len: PAGE }))
    };
    logs.iter().enumerate().filter_map(damage).collect()
}

fn every_byte(logs: &[Log]) -> Vec<(usize, Damage)> {
    let mut all = Vec::new();
    for (log, files) in logs.iter().enumerate().map(|(at, log)| (at, &log.files)) {
        for (file, (_, bytes)) in files.iter().enumerate() {
            for at in 0..bytes.len() {
                all.push((log, Damage::Flip { file, at, bits: 1 << (at % 8) }));
            }
        }
    }
    all
}
