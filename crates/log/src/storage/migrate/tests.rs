//! The runner, put to a format before this one that never was: a line of identity and events as JSON lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::chain::Said;
use crate::storage::disk::Faults;
use crate::storage::local::{LocalEngine, Options, create_with, open};
use crate::storage::meta::Meta;
use crate::storage::{Commit, Journal, Store};
use tailmark_record::topic::Filter;
use tailmark_record::{
    CursorMint, Event, Events, FingerprintKey, Generation, GenerationTable, LogId, Stamp,
    Timestamp, write_entry,
};

const LOG: LogId = LogId::new(Uuid::from_u128(0x5a5a_0000_1111_4222_8333_4444_5555_6666));
const GENERATION: Generation = Generation { counter: 1, nonce: 77 };
const EVENTS: u64 = 300;
const BEFORE: u32 = 1;
const NEW: u32 = FORMAT_VERSION;

/// The format before: `identity` (the log id) and `events` (topic, a tab, body).
struct FromLines;

impl Step for FromLines {
    fn from(&self) -> u32 {
        BEFORE
    }

    fn recognises(&self, dir: &Path) -> bool {
        dir.join("identity").is_file()
    }

    fn copy(
        &self,
        from: &Path,
        to: &Path,
        disk: &Disk,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let options = Options {
            slot_bytes: 256 << 10,
            min_free_bytes: 0,
            disk: disk.clone(),
            ..Options::default()
        };
        create_with(to, &options, identity(from))?;
        let (engine, _) = open(to, options)?;
        let lines = lines(from);
        let of = lines.len() as u64;
        for (done, (topic, body)) in (1..).zip(lines) {
            append(&engine, done, &topic, &body)?;
            progress(Progress { done, of });
        }
        engine.close()
    }

    fn verify(
        &self,
        from: &Path,
        to: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let (wanted, of) = (lines(from), lines(from).len() as u64);
        if read(to)? == wanted {
            progress(Progress { done: of, of });
            return Ok(());
        }
        let (file, detail) = (to.to_owned(), "the copy has other events".to_owned());
        Err(Damage { from: Seq::FIRST, to: Seq::ZERO, file, detail }.into())
    }
}

fn identity(dir: &Path) -> Meta {
    let text = std::fs::read_to_string(dir.join("identity")).unwrap();
    Meta {
        log: LogId::new(text.trim().parse().unwrap()),
        key: FingerprintKey::new([9; 16]),
        generations: GenerationTable::created(GENERATION.nonce, Timestamp::EPOCH),
        created_at: Timestamp::EPOCH,
        slot_bytes: 0,
        slot_files: 0,
        clean_stop: None,
        whereabouts: [0; 16],
        copy_of: None,
    }
}

fn lines(dir: &Path) -> Vec<(String, String)> {
    let file = File::open(dir.join("events")).unwrap();
    let line = |line: std::io::Result<String>| {
        let line = line.unwrap();
        let (topic, body) = line.split_once('\t').unwrap();
        (topic.to_owned(), body.to_owned())
    };
    BufReader::new(file).lines().map(line).collect()
}

fn append(engine: &LocalEngine, seq: u64, topic: &str, body: &str) -> Result<(), StoreError> {
    let appended_at = Timestamp { seconds: seq as i64, nanos: 0 };
    let (mut client, mut events) = (Vec::new(), Vec::new());
    Event { id: "i", topic, body, ..Event::default() }.write_client_part(&mut client);
    let mint = CursorMint::new(LOG, GENERATION);
    let link =
        engine.links().head.then(Seq::new(seq), appended_at, Said::of_part(&client, "").unwrap());
    let stamp = Stamp {
        seq: Seq::new(seq),
        mint: &mint,
        tag: link.tag(),
        appended_at: appended_at.into(),
        fill_at: true,
        fill_id: None,
    };
    write_entry(&mut events, &client, &stamp);
    let commit = Commit {
        first: Seq::new(seq),
        count: 1,
        appended_at,
        delta: Bytes::new(),
        state: engine.wants_state(events.len()).then(Bytes::new),
        events: events.into(),
        link,
        oldest: Seq::FIRST,
        oldest_tag: None,
    };
    let (send, receive) = mpsc::channel();
    engine.append(commit, Box::new(move |result| drop(send.send(result.map(drop)))));
    receive.recv().unwrap_or(Err(StoreError::Invalid("no answer")))
}

/// What a log of this format has.
fn read(dir: &Path) -> Result<Vec<(String, String)>, StoreError> {
    let options = Options { create: false, min_free_bytes: 0, ..Options::default() };
    let begun = Instant::now();
    let (engine, _) = loop {
        match open(dir, options.clone()) {
            // An engine that was just dropped may hold the lock for a moment.
            Err(StoreError::Locked { .. }) if begun.elapsed() < Duration::from_secs(30) => {
                std::thread::yield_now();
            }
            result => break result?,
        }
    };
    assert_eq!((engine.id(), engine.bounds().generations.current().generation), (LOG, GENERATION));
    let (mut found, mut at) = (Vec::new(), engine.bounds().oldest);
    while at <= engine.bounds().head {
        let chunk = engine.read(at, engine.bounds().next(), &Filter::ALL)?;
        for event in Events::new(&chunk.events) {
            let event = Event::parse(event.unwrap()).unwrap();
            found.push((event.topic.to_owned(), event.body.to_owned()));
        }
        at = chunk.end;
    }
    engine.close()?;
    Ok(found)
}

/// A log of the old format in a directory that has nothing else.
fn old_log() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("identity"), format!("{LOG}\n")).unwrap();
    let mut events = File::create(dir.join("events")).unwrap();
    for (topic, body) in expected() {
        writeln!(events, "{topic}\t{body}").unwrap();
    }
    (parent, dir)
}

fn expected() -> Vec<(String, String)> {
    (1..=EVENTS).map(|n| (format!("t.{}", n % 7), format!("body {n} größe"))).collect()
}

fn run(dir: &Path, disk: &Disk) -> Result<Outcome, Error> {
    migrate(dir, &[&FromLines], NEW, disk, |_| {})
}

/// Names and bytes of the files of the old format.
fn old_files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = ["identity", "events"];
    names.iter().map(|n| ((*n).to_owned(), std::fs::read(dir.join(n)).unwrap())).collect()
}

fn entries(parent: &Path) -> Vec<String> {
    let mut names: Vec<_> = list(parent)
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn an_old_log_is_copied_verified_and_swapped() {
    let (parent, dir) = old_log();
    let before = old_files(&dir);
    let mut stages = Vec::new();
    let outcome = migrate(&dir, &[&FromLines], NEW, &Disk::real(), |stage| stages.push(stage));
    let kept = parent.path().join("data.format-1");
    assert_eq!(outcome.unwrap(), Outcome::Migrated { from: BEFORE, to: NEW, kept: kept.clone() });
    let [.., Stage::Verifying { to: NEW, .. }, Stage::Swapping] = stages[..] else {
        panic!("{stages:?}")
    };
    assert!(matches!(stages[0], Stage::Copying { to: NEW, progress } if progress.done > 0));
    assert_eq!(read(&dir).unwrap(), expected());
    assert_eq!(old_files(&kept), before);
    assert_eq!(entries(parent.path()), ["data", "data.format-1"]);
    // Again: nothing to do.
    assert_eq!(run(&dir, &Disk::real()).unwrap(), Outcome::UpToDate { version: NEW });
}

#[test]
fn a_migration_cut_at_any_file_operation_leaves_one_whole_log_and_can_be_run_again() {
    let counter = Faults::none();
    let (_parent, dir) = old_log();
    run(&dir, &Disk::with_faults(counter.clone())).unwrap();
    let operations = counter.seen();
    assert!(operations > EVENTS as i64, "{operations}");
    // Appends are all alike: every operation at both ends, some in the middle.
    let is_looked_at = |nth: &i64| *nth < 40 || *nth > operations - 40 || nth % 37 == 0;
    let (mut old, mut new, mut away) = (0, 0, 0);
    // How many there are differs from run to run by what threads have to do meanwhile.
    for nth in (1..operations + 1_000).filter(is_looked_at) {
        let (parent, dir) = old_log();
        let before = old_files(&dir);
        let faults = Faults::nth(nth, std::io::ErrorKind::Other, true);
        let cut = run(&dir, &Disk::with_faults(faults));
        let is_through = nth > operations && cut.is_ok();
        match detect(&dir, &[&FromLines]) {
            Ok(BEFORE) => {
                assert!(cut.is_err(), "operation {nth}: nothing done, no error");
                assert_eq!(old_files(&dir), before, "operation {nth}");
                old += 1;
            }
            Ok(NEW) => {
                assert_eq!(read(&dir).unwrap(), expected(), "operation {nth}");
                new += 1;
            }
            other => {
                away += 1;
                assert!(matches!(other, Err(StoreError::Missing { .. })), "{other:?}");
            }
        }
        run(&dir, &Disk::real()).unwrap_or_else(|error| panic!("operation {nth}: {error}"));
        assert_eq!(read(&dir).unwrap(), expected(), "operation {nth}");
        assert_eq!(old_files(&parent.path().join("data.format-1")), before, "operation {nth}");
        assert_eq!(entries(parent.path()), ["data", "data.format-1"], "operation {nth}");
        if is_through {
            break;
        }
    }
    assert!(old > 40 && new >= 4, "cut before the swap {old}, after {new} times");
    assert_eq!(away, 0, "this file system exchanges names at once");
}

#[test]
fn a_swap_in_two_renames_is_finished_and_no_daemon_begins_a_new_log_meanwhile() {
    for is_back in [false, true] {
        let (parent, dir) = old_log();
        let before = old_files(&dir);
        let workspace = parent.path().join("data.migrating");
        let disk = Disk::real();
        let swap = Swap { dir: &dir, workspace: workspace.clone(), disk: &disk };
        swap.copy(&plan(&dir, &[&FromLines], NEW).unwrap(), &mut |_| {}).unwrap();
        std::fs::rename(&dir, workspace.join(OLD)).unwrap();
        if is_back {
            std::fs::rename(workspace.join("step-2"), &dir).unwrap();
        } else {
            match open(&dir, Options { min_free_bytes: 0, ..Options::default() }) {
                Err(StoreError::Unfinished { path, .. }) => assert_eq!(path, dir),
                other => panic!("{:?}", other.map(|_| ())),
            }
            assert!(matches!(survey(&dir, &disk), Err(StoreError::Unfinished { .. })));
            assert!(!dir.exists());
        }
        let kept = parent.path().join("data.format-1");
        let outcome = run(&dir, &disk).unwrap();
        assert_eq!(outcome, Outcome::Migrated { from: BEFORE, to: NEW, kept: kept.clone() });
        assert_eq!((read(&dir).unwrap(), old_files(&kept)), (expected(), before));
        assert_eq!(entries(parent.path()), ["data", "data.format-1"]);
    }
}

#[test]
fn what_was_appended_after_a_cut_is_not_lost() {
    let (parent, dir) = old_log();
    let disk = Disk::real();
    let swap = Swap { dir: &dir, workspace: parent.path().join("data.migrating"), disk: &disk };
    swap.copy(&plan(&dir, &[&FromLines], NEW).unwrap(), &mut |_| {}).unwrap();
    // The copy is ready, the power fails, and an older program goes on with the log.
    let mut events = std::fs::OpenOptions::new().append(true).open(dir.join("events")).unwrap();
    writeln!(events, "late\tone more").unwrap();
    run(&dir, &disk).unwrap();
    assert_eq!(read(&dir).unwrap().last().unwrap().1, "one more");
}

/// A step whose copy is wrong.
struct Forgetful;

impl Step for Forgetful {
    fn from(&self) -> u32 {
        BEFORE
    }

    fn recognises(&self, dir: &Path) -> bool {
        FromLines.recognises(dir)
    }

    fn copy(
        &self,
        from: &Path,
        to: &Path,
        disk: &Disk,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let mut events = 0;
        let half = tempfile::tempdir().unwrap();
        for name in ["identity", "events"] {
            std::fs::copy(from.join(name), half.path().join(name)).unwrap();
        }
        let text: String = lines(from)
            .into_iter()
            .take(299)
            .map(|(topic, body)| format!("{topic}\t{body}\n"))
            .collect();
        std::fs::write(half.path().join("events"), text).unwrap();
        FromLines.copy(half.path(), to, disk, &mut |_| events += 1)
    }

    fn verify(
        &self,
        from: &Path,
        to: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        FromLines.verify(from, to, progress)
    }
}

#[test]
fn a_link_to_the_log_stays_and_what_it_names_is_migrated_where_it_lies() {
    let (parent, dir) = old_log();
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let outcome = run(&link, &Disk::real()).unwrap();
    assert!(matches!(outcome, Outcome::Migrated { from: BEFORE, to: NEW, .. }), "{outcome:?}");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(entries(links.path()), ["link"]);
    assert_eq!(entries(parent.path()), ["data", "data.format-1"]);
    // What is away because a swap was cut is told through the link, too.
    std::fs::rename(&dir, parent.path().join("elsewhere")).unwrap();
    std::fs::create_dir(parent.path().join("data.migrating")).unwrap();
    std::fs::write(parent.path().join("data.migrating/ready"), "1 2\n").unwrap();
    let refused = open(&link, Options::default()).map(|_| ());
    assert!(matches!(refused, Err(StoreError::Unfinished { .. })), "{refused:?}");
}

#[test]
fn a_wrong_copy_is_never_swapped_in() {
    let (parent, dir) = old_log();
    let before = old_files(&dir);
    let error = migrate(&dir, &[&Forgetful], NEW, &Disk::real(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("other events"), "{error}");
    assert_eq!(old_files(&dir), before);
    assert_eq!(entries(parent.path()), ["data"]);
}

#[test]
fn other_formats_and_logs_in_use_are_refused() {
    let (_parent, dir) = old_log();
    let no_way = plan(&dir, &[&FromLines], NEW + 1).map(|_| ()).unwrap_err();
    assert!(matches!(no_way, Error::NoWay { found: BEFORE, wanted: 3, .. }), "{no_way}");
    let lock = Claim::take(&dir, &Disk::real()).unwrap();
    let used = run(&dir, &Disk::real()).unwrap_err();
    assert!(matches!(used, Error::Store(StoreError::Locked { .. })), "{used}");
    drop(lock);

    run(&dir, &Disk::real()).unwrap();
    let meta = dir.join("log.meta");
    let mut bytes = std::fs::read(&meta).unwrap();
    bytes[8] = 9;
    std::fs::write(&meta, bytes).unwrap();
    let newer = run(&dir, &Disk::real()).unwrap_err();
    assert!(
        matches!(newer, Error::Store(StoreError::Format { found: 9, supported: NEW, .. })),
        "{newer}"
    );
    // A daemon refuses it too.
    let refused = open(&dir, Options::default()).map(|_| ());
    assert!(matches!(refused, Err(StoreError::Format { found: 9, supported: NEW, .. })));

    let empty = tempfile::tempdir().unwrap();
    let missing = run(empty.path(), &Disk::real()).unwrap_err();
    assert!(matches!(missing, Error::Store(StoreError::Missing { .. })), "{missing}");
}
