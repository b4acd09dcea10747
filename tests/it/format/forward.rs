//! What older versions wrote is brought forward, whole, whatever happens on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tailmark::inspect;
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::disk::{Disk, Faults};
use tailmark_log::storage::migrate::{Outcome, STEPS, detect, migrate};
use tailmark_log::storage::{FORMAT_VERSION, Store, StoreError, local};
use tailmark_record::{Cursor, Seq};

use super::{FORMATS, dump, fixture, goes_on, shipped};
use crate::support::logdir;

/// What is in the files of a log, the lock file left out.
fn files_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = logdir::snapshot(dir).into_iter();
    let named = files.filter(|(path, _)| path.is_file() && !path.ends_with("LOCK"));
    named.map(|(path, (.., bytes))| (path.strip_prefix(dir).unwrap().to_owned(), bytes)).collect()
}

/// Lines of events without their cursors, which a step may write anew.
fn without_cursors(lines: &[u8]) -> Vec<serde_json::Value> {
    let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let event = |line| {
        let mut event: serde_json::Value = serde_json::from_slice(line).unwrap();
        event.as_object_mut().unwrap().remove("cursor").unwrap();
        event
    };
    lines.map(event).collect()
}

fn bring_forward(dir: &Path) -> Outcome {
    migrate(dir, STEPS, FORMAT_VERSION, &Disk::real(), |_| {}).unwrap()
}

#[test]
fn what_an_older_version_wrote_is_refused_with_the_way_out_and_left_alone() {
    for format in &FORMATS[..FORMATS.len() - 1] {
        let (_parent, dir) = fixture(format);
        let before = files_of(&dir);
        let refused = inspect::verify(&dir, |_, _| Ok(())).err().unwrap();
        assert!(refused.to_string().contains("format 1"), "{refused}");
        let opened = local::open(&dir, logdir::options()).err().unwrap();
        assert!(matches!(opened, StoreError::Format { found: 1, supported: 2, .. }), "{opened}");
        assert!(files_of(&dir) == before);
    }
}

#[test]
fn what_an_older_version_wrote_is_brought_forward_whole() {
    for format in &FORMATS[..FORMATS.len() - 1] {
        let (parent, dir) = fixture(format);
        let before = files_of(&dir);
        let kept = parent.path().join("data.format-1");
        assert_eq!(bring_forward(&dir), Outcome::Migrated { from: 1, to: 2, kept: kept.clone() });
        assert!(files_of(&kept) == before, "the old directory is as it was");
        let report = inspect::verify(&dir, |_, _| Ok(())).unwrap();
        assert!(report.is_clean() && report.notes.is_empty(), "{report:?}");
        let lines = shipped(format, "expected.jsonl");
        assert_eq!(without_cursors(&dump(&dir)), without_cursors(&lines));
        let info = inspect::info(&dir).unwrap();
        assert_eq!((info.generations.len(), info.quarantine.len(), info.oldest.get()), (2, 1, 11));
        let count = lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
        assert_eq!(goes_on(&dir), count);
        // The first start after it is no start somewhere else.
        assert_eq!(inspect::info(&dir).unwrap().generations.len(), 2);
        // Cursors of version 1 that somebody has kept lead where they led.
        let (engine, recovered) = logdir::open(&dir);
        let log = EventLog::open(engine, recovered, eventlog::Options::default()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let event: serde_json::Value = serde_json::from_slice(line).unwrap();
            let cursor = Cursor::parse(event["cursor"].as_str().unwrap()).unwrap();
            let next = runtime.block_on(log.resolve(cursor)).unwrap();
            assert_eq!(next.get().to_string(), (cursor.seq().get() + 1).to_string());
        }
        runtime.block_on(log.close()).unwrap();
    }
}

/// The fixture of version 1 as a power loss in its last commit leaves it: all before it is there, what is torn is
/// kept, and a generation begins, as a start would have done.
#[test]
fn a_log_of_an_older_version_that_was_killed_is_brought_forward_too() {
    let (_parent, dir) = fixture("0001_initial");
    // What says that the stop was clean.
    std::fs::remove_file(dir.join("log.meta")).unwrap();
    assert!(!dir.join("journal/tip").exists(), "else it proves the commit");
    let slots = std::fs::read_dir(dir.join("journal")).unwrap();
    let mut slots = slots.map(|entry| entry.unwrap().path());
    let slot = slots.find(|slot| logdir::find(slot, b"number 103").is_some()).unwrap();
    let bytes = std::fs::read(&slot).unwrap();
    // The head of the last commit stands at the last frame before its text, and after it nothing
    // that would prove it.
    let text = logdir::find(&slot, b"number 103").unwrap() as usize;
    let head = bytes[..text].windows(4).rposition(|four| four == b"TMF1").unwrap();
    let mut torn = bytes;
    torn[text..].fill(0);
    assert!(head > 8_192);
    std::fs::write(&slot, torn).unwrap();
    assert!(matches!(bring_forward(&dir), Outcome::Migrated { from: 1, to: 2, .. }));
    let report = inspect::verify(&dir, |_, _| Ok(())).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let info = inspect::info(&dir).unwrap();
    assert_eq!((info.quarantine.len(), info.generations.len()), (2, 3));
    assert_eq!(&*info.generations[2].cause, "quarantined");
    let all = without_cursors(&shipped("0001_initial", "expected.jsonl"));
    let found = without_cursors(&dump(&dir));
    // The trim up to event 10 was written after the commit that is torn.
    assert_eq!((info.oldest, found.len()), (Seq::FIRST, 100));
    assert_eq!(found[10..], all[..90]);
    assert_eq!(info.generations[2].first, Seq::new(info.oldest.get() + found.len() as u64));
    // Nothing of the state was written before what is torn.
    let (engine, _) = logdir::open(&dir);
    assert_eq!(engine.bounds().head, Seq::new(100));
    engine.close().unwrap();
}

#[test]
fn a_step_forward_that_is_cut_at_any_file_operation_leaves_one_whole_log() {
    let lines = without_cursors(&shipped("0001_initial", "expected.jsonl"));
    let run = |dir: &Path, disk: &Disk| migrate(dir, STEPS, FORMAT_VERSION, disk, |_| {});
    let counter = Faults::none();
    let (_parent, dir) = fixture("0001_initial");
    run(&dir, &Disk::with_faults(counter.clone())).unwrap();
    let operations = counter.seen();
    assert!(operations > 60, "{operations}");
    // Both ends, and every few in between: a build has many that are alike.
    let is_looked_at = |nth: &i64| *nth < 10 || *nth > operations - 30 || nth % 23 == 0;
    let (mut old, mut new) = (0, 0);
    for nth in (1..=operations).filter(is_looked_at) {
        let (parent, dir) = fixture("0001_initial");
        let before = files_of(&dir);
        let faults = Faults::nth(nth, std::io::ErrorKind::Other, true);
        let cut = run(&dir, &Disk::with_faults(faults));
        match detect(&dir, STEPS).unwrap() {
            1 => {
                assert!(cut.is_err(), "operation {nth}: nothing done, no error");
                assert!(files_of(&dir) == before, "operation {nth}");
                old += 1;
            }
            _ => new += 1,
        }
        run(&dir, &Disk::real()).unwrap_or_else(|error| panic!("operation {nth}: {error}"));
        assert_eq!(without_cursors(&dump(&dir)), lines, "operation {nth}");
        assert!(parent.path().join("data.format-1").is_dir(), "operation {nth}");
    }
    assert!(old > 10 && new >= 2, "cut before the swap {old}, after it {new} times");
}
