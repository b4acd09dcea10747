//! A salvage of a log whose end is gone: what nobody knows of is not passed over in silence.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tailmark::inspect::{self, SlotState};
use tailmark_log::eventlog::{CursorError, ResolveError};
use tailmark_log::testing::copy_dir;
use tailmark_record::{Cursor, Seq};

use crate::support::daemon::{feed, program};
use crate::support::kept::{self, HEAD, expect_clean, life};

/// Acked after the last clean stop.
const MORE: u64 = 300;

/// The log of [`life`], and more events in a slot that was in use when it was killed. Answers the last cursor.
async fn killed(dir: &Path) -> (PathBuf, String) {
    life(dir).await;
    let (data, killed) = (dir.join("data"), dir.join("killed"));
    let log = kept::open(&data);
    kept::store(&log, 40_000..40_000 + MORE).await;
    let last = log.cursor(Seq::new(HEAD + MORE)).await;
    copy_dir(&data, &killed).unwrap();
    log.close().await.unwrap();
    (killed, last)
}

/// The file of the slot that took the last commit.
fn newest(data: &Path) -> String {
    let info = inspect::info(data).unwrap();
    info.slots.iter().find(|slot| slot.state == SlotState::Active).unwrap().name.clone()
}

fn salvaged(from: &Path, to: &Path) -> (Option<i32>, String, Value) {
    let mut command = program(&["log", "salvage", "--json", "--from"]);
    let output = feed(command.arg(from).arg("--to").arg(to), b"");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said, serde_json::from_slice(&output.stdout).unwrap())
}

fn zero(path: &Path) {
    let bytes = std::fs::metadata(path).unwrap().len();
    std::fs::write(path, vec![0; bytes as usize]).unwrap();
}

/// What becomes of a log, and whether nobody knows its end then.
type Case = (&'static str, fn(&Path, &str), bool);

const CASES: [Case; 8] = [
    ("nothing", |_, _| {}, false),
    ("the newest slot is gone", |journal, slot| remove(&[journal.join(slot)]), false),
    ("the journal is gone", |journal, _| std::fs::remove_dir_all(journal).unwrap(), true),
    (
        "the newest slot and the tip are gone",
        |journal, slot| {
            remove(&[journal.join(slot), journal.join("tip")]);
        },
        true,
    ),
    (
        "the newest slot is zeros, the tip is gone",
        |journal, slot| {
            zero(&journal.join(slot));
            remove(&[journal.join("tip")]);
        },
        true,
    ),
    (
        "the newest slot and the tip are zeros",
        |journal, slot| {
            zero(&journal.join(slot));
            zero(&journal.join("tip"));
        },
        true,
    ),
    (
        "everything is zeros",
        |journal, _| {
            for entry in std::fs::read_dir(journal).unwrap() {
                zero(&entry.unwrap().path());
            }
        },
        true,
    ),
    ("the tip is gone", |journal, _| remove(&[journal.join("tip")]), true),
];

fn remove(paths: &[PathBuf]) {
    for path in paths {
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn an_end_that_nobody_knows_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (data, last) = killed(dir.path()).await;
    let slot = newest(&data);
    for (name, damage, is_unknown) in CASES {
        let (hurt, new) = (dir.path().join("hurt"), dir.path().join("new"));
        copy_dir(&data, &hurt).unwrap();
        damage(&hurt.join("journal"), &slot);
        let (code, said, report) = salvaged(&hurt, &new);
        let empty = Vec::new();
        let lost = report["lost"].as_array().unwrap_or(&empty);
        let open: Vec<_> = lost.iter().filter(|row| row["to_seq"].is_null()).collect();
        assert_eq!(open.len(), usize::from(is_unknown), "{name}: {report}");
        assert_eq!(code, Some(if lost.is_empty() { 0 } else { 4 }), "{name}: {said}");
        let keeps = report["keeps_producers"] == true && report["keeps_trim_mark"] == true;
        assert_eq!(keeps, name == "nothing", "{name}: {report}");
        if let [open] = open[..] {
            let head: u64 = report["head_seq"].as_str().unwrap().parse().unwrap();
            assert_eq!(open["from_seq"], (head + 1).to_string(), "{name}: {report}");
            assert!(open["causes"][0]["file"].as_str().unwrap().ends_with("journal"), "{report}");
            assert!(
                said.contains(&format!("events from {} on may be lost", head + 1)),
                "{name}: {said}"
            );
        }
        expect_clean(&new);
        // Who has seen the last of it goes on if that is there, and is told so if not.
        let log = kept::open(&new);
        let found = log.resolve(Cursor::parse(&last).unwrap()).await;
        match found {
            Ok(next) => assert_eq!(next.get(), HEAD + MORE + 1, "{name}"),
            Err(ResolveError::Cursor(CursorError::LogDiverged { last_common, .. })) => {
                assert!(last_common.get() < HEAD + MORE && name != "nothing", "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
        log.close().await.unwrap();
        std::fs::remove_dir_all(&hurt).unwrap();
        std::fs::remove_dir_all(&new).unwrap();
    }
}

#[tokio::test]
async fn after_a_clean_stop_the_end_is_known_without_the_tip() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    remove(&[data.join("journal/tip")]);
    let (code, said, report) = salvaged(&data, &new);
    assert_eq!((code, &report["lost"]), (Some(0), &Value::Null), "{said}");
    assert_eq!(report["keeps_producers"], true);
    // Unless a file has lost what may have come after it.
    let slots = inspect::info(&data).unwrap().slots;
    let free = slots.iter().find(|slot| slot.state == SlotState::Free).unwrap();
    zero(&data.join("journal").join(&free.name));
    let (code, said, report) = salvaged(&data, &dir.path().join("other"));
    assert_eq!(code, Some(4), "{said}");
    assert_eq!(report["lost"][0]["from_seq"], (HEAD + 1).to_string(), "{report}");
}
