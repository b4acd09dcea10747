//! An erasure that is not through: whoever ordered it was told that it goes on by itself, and so it does in every log that
//! is made of that one.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailmark::backup::Upto;
use tailmark::export::Format;
use tailmark_log::storage::salvage::salvage;
use tailmark_log::storage::{EraseOrder, Store as _};
use tailmark_record::Seq;
use uuid::Uuid;

use super::backups::{restored, taken};
use super::exports::{exported, imported};
use super::meanwhile::found;
use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::expect_clean;
use crate::support::logdir;

const EVENTS: u64 = 4_000;
/// In segments, and not sealed.
const NAMED: [Range<u64>; 2] = [100..150, 3_500..4_000];

fn order() -> Arc<EraseOrder> {
    let range = |range: &Range<u64>| Seq::new(range.start)..Seq::new(range.end);
    let (id, at) = (Uuid::from_u128(17), logdir::time_of(1));
    let seqs = NAMED.iter().map(range).collect();
    Arc::new(EraseOrder { id, reason: "asked".to_owned(), at, seqs })
}

/// A log in which it was ordered, and no more.
fn ordered(dir: &Path) -> PathBuf {
    let data = dir.join("data");
    std::fs::create_dir(&data).unwrap();
    let (engine, _) = logdir::open(&data);
    logdir::fill(&*engine, EVENTS, 50);
    logdir::wait_for_sealing(&*engine);
    assert!(engine.erase(&order(), &mut |_| ControlFlow::Break(())).is_err());
    logdir::close(&data, engine);
    data
}

/// That a log up to a seq, made of that one, has the order, and carries it out.
fn goes_on(copy: &Path, upto: u64) {
    let all: BTreeSet<u64> = NAMED.into_iter().flatten().collect();
    let wanted: BTreeSet<u64> = all.range(..=upto).copied().collect();
    let (there, erased, _) = found(copy);
    assert!(erased.is_empty() && wanted.is_subset(&there), "the null control: it was done before");
    let (engine, _) = logdir::open(copy);
    let left = engine.erasing().expect("the order");
    assert_eq!(
        (left.id, left.reason.as_str(), left.events()),
        (order().id, "asked", wanted.len() as u64)
    );
    // What is stored now is not what was named.
    logdir::fill(&*engine, 600, 50);
    engine.erase(&left, &mut |_| ControlFlow::Continue(())).unwrap();
    engine.erased().unwrap();
    logdir::close(copy, engine);
    assert_eq!(found(copy).1, wanted);
    expect_clean(copy);
}

#[test]
fn it_goes_on_in_a_salvage_and_not_beyond_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let data = ordered(dir.path());
    let whole = dir.path().join("whole");
    let done = salvage(&data, &whole, logdir::options(), &mut |_| Ok(())).unwrap();
    assert_eq!(done.erasing.map(|order| order.events()), Some(550));
    goes_on(&whole, EVENTS);
    // The order itself is damaged.
    logdir::flip(&data.join("erasing"), 30);
    let copy = dir.path().join("copy");
    let mut command = program(&["log", "salvage", "--from"]);
    let output = feed(command.arg(&data).arg("--to").arg(&copy), b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("its order cannot be read: erase those events again"), "{said}");
    assert!(!copy.join("erasing").exists());
}

#[test]
fn it_goes_on_in_what_is_imported_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let data = ordered(dir.path());
    for format in [Format::Jsonl, Format::Protobuf] {
        let copy = dir.path().join(format!("{format:?}"));
        let done = imported(&exported(&data, Default::default(), format), &copy).unwrap();
        assert_eq!(done.erasing.map(|order| order.events()), Some(550));
        goes_on(&copy, EVENTS);
    }
    let backups = dir.path().join("backups");
    taken(&data, &backups);
    for upto in [EVENTS, 3_600, 120] {
        let copy = dir.path().join(upto.to_string());
        let done = restored(&backups, None, Upto::Seq(Seq::new(upto)), &copy).unwrap();
        assert!(done.erasing.is_some(), "{upto}");
        goes_on(&copy, upto);
    }
    // Nothing of it is there.
    let copy = dir.path().join("before");
    let done = restored(&backups, None, Upto::Seq(Seq::new(90)), &copy).unwrap();
    assert!(done.erasing.is_none() && !copy.join("erasing").exists());
}

#[test]
fn the_commands_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = ordered(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = data.to_str().unwrap();
    let id = order().id.to_string();
    let run = |args: &[&str], says: &str| {
        let done = feed(&mut program(args), b"");
        let said = String::from_utf8(done.stderr).unwrap();
        let is_said = says.is_empty() || said.contains(&id) && said.contains(says);
        assert!(done.status.success() && is_said, "{args:?}: {said}");
        let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(json["erasure"], id, "{json}");
    };
    let (file, to) = (at("e.jsonl"), at("backups"));
    run(
        &["log", "export", "--json", "--data-dir", data, "--output", &file],
        "may be in the export",
    );
    let goes_on = "the daemon goes on with it";
    let other = Daemon::start(&dir.path().join("other"));
    let done = other.run(&["upload", "--format", "export", &file], b"");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        said.contains("3450 stored") && said.contains("550 erased events passed over"),
        "{said}"
    );
    other.stop();
    run(&["log", "import", "--json", "--exact", &file, "--data-dir", &at("imported")], goes_on);
    assert!(feed(&mut program(&["backup", &to, "--data-dir", data]), b"").status.success());
    run(&["restore", &to, "--json", "--data-dir", &at("restored")], goes_on);
    run(&["log", "salvage", "--json", "--from", data, "--to", &at("salvaged")], "");
}
