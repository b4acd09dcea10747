//! The reports over a data directory: right, harmless, and right about damage.

mod leftovers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailmark::inspect::{self, Answer, Dumped, Found, LastStop, Selection, SlotState, Verified};
use tailmark_log::eventlog::CursorError;
use tailmark_log::storage::{Damage, Journal, Store, StoreError};
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{ChainTag, CursorMint, Generation, Limits, LogId, Seq};

use crate::support::logdir::*;

/// What a dump gives: seqs, each with the right body, and the damaged ranges.
fn dump(dir: &Path, selection: &Selection) -> (Vec<u64>, Vec<Damage>, Dumped) {
    let (mut seqs, mut lost) = (Vec::new(), Vec::new());
    let done = inspect::dump(dir, selection, |found| {
        match found {
            Found::Event(event) => {
                assert_eq!(event.body, body_of(event.seq.get()));
                seqs.push(event.seq.get());
            }
            Found::Lost(damage) => lost.push(damage.clone()),
            Found::Trimmed { .. } | Found::Removed(_) => {}
        }
        Ok(())
    })
    .unwrap();
    assert_eq!((done.events, done.damaged_ranges), (seqs.len() as u64, lost.len() as u64));
    (seqs, lost, done)
}

fn dump_all(dir: &Path) -> (Vec<u64>, Vec<Damage>) {
    let (seqs, lost, _) = dump(dir, &Selection::default());
    (seqs, lost)
}

fn verify(dir: &Path) -> Verified {
    let mut told = Vec::new();
    let report = inspect::verify(dir, |progress, damage| {
        assert!(progress.done_bytes <= progress.total_bytes);
        told.extend(damage.cloned());
        Ok(())
    })
    .unwrap();
    assert_eq!(told.len(), report.damage.len());
    report
}

fn ranges(damage: &[Damage]) -> Vec<(u64, u64)> {
    damage.iter().map(|damage| (damage.from.get(), damage.to.get())).collect()
}

/// The file of the newest slot.
fn active_slot(dir: &Path) -> PathBuf {
    let info = inspect::info(dir).unwrap();
    let active = info.slots.iter().find(|slot| slot.state == SlotState::Active).unwrap();
    dir.join("journal").join(&active.name)
}

/// All of `1..=head` but the ranges.
fn all_but(head: u64, ranges: &[(u64, u64)]) -> Vec<u64> {
    (1..=head).filter(|seq| !ranges.iter().any(|(from, to)| (from..=to).contains(&seq))).collect()
}

#[test]
fn a_whole_log_is_clean_and_dumped_in_order() {
    let dir = sealed_log();
    let before = snapshot(dir.path());
    assert_eq!(dump_all(dir.path()), ((1..=5_000).collect(), vec![]));
    let report = verify(dir.path());
    assert!(report.is_clean() && report.notes.is_empty(), "{report:?}");
    assert_eq!((report.oldest, report.head), (Seq::FIRST, Seq::new(5_000)));
    assert!(report.segments >= 1 && report.events == 5_000, "{report:?}");
    let info = inspect::info(dir.path()).unwrap();
    assert_eq!((info.oldest.get(), info.head.get(), info.events()), (1, 5_000, 5_000));
    assert_eq!(info.last_stop, LastStop::Clean);
    assert_eq!(info.oldest_at, Some(time_of(1)));
    assert_eq!(info.head_at, Some(time_of(4_951)));
    assert_eq!(info.segments.len() as u64, report.segments);
    assert_eq!(info.segments[0].first_at, time_of(1));
    assert!(info.compression_ratio().is_some() && info.damage.is_empty());
    assert_eq!(info.slots.iter().filter(|slot| slot.state == SlotState::Active).count(), 1);
    assert!(snapshot(dir.path()) == before, "a report changed the data directory");
}

#[test]
fn every_command_leaves_every_byte_and_time_as_it_was() {
    let dir = sealed_log();
    let (engine, _) = open(dir.path());
    fill(&*engine, 500, 50);
    kill(dir.path(), engine);
    let cursor = {
        let (seqs, _) = dump_all(dir.path());
        seqs.last().unwrap().to_string()
    };
    let before = snapshot(dir.path());
    for args in [
        &["info"][..],
        &["info", "--json"],
        &["dump"],
        &["dump", "t.1", "--seq", "10..4990"],
        &["verify"],
        &["verify", "--json"],
        &["explain", &cursor],
        &["explain", &cursor, "--json"],
        &["migrate", "--dry-run"],
        &["migrate"],
    ] {
        let output = log_command(dir.path(), args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
        assert!(snapshot(dir.path()) == before, "{args:?} changed the data directory");
    }
}

#[test]
fn a_selection_gives_exactly_its_events() {
    let dir = sealed_log();
    let pattern = |text| Pattern::parse(text, &Limits::default()).unwrap();
    let filter = Filter::new(vec![pattern("t.1"), pattern("t.3")]);
    let range =
        |from: Option<u64>, to| Selection { from: from.map(Seq::new), to, ..Selection::default() };
    for (selection, expected) in [
        (range(Some(10), Some(Seq::new(12))), vec![10, 11, 12]),
        (range(Some(4_999), None), vec![4_999, 5_000]),
        (range(Some(5_001), None), vec![]),
        (range(Some(0), Some(Seq::new(2))), vec![1, 2]),
        (range(Some(9), Some(Seq::new(8))), vec![]),
        (range(None, Some(Seq::MAX)), (1..=5_000).collect()),
        // Commits of 50 share the time of their first event.
        (
            Selection {
                since: Some(time_of(52)),
                until: Some(time_of(151)),
                ..Selection::default()
            },
            (101..=150).collect(),
        ),
        (Selection { since: Some(time_of(9_999)), ..Selection::default() }, vec![]),
        (Selection { until: Some(time_of(1)), ..Selection::default() }, vec![]),
        (
            Selection { filter, ..Selection::default() },
            (1..=5_000).filter(|seq| [1, 3].contains(&(seq % 5))).collect(),
        ),
        (
            Selection { filter: Filter::new(vec![pattern("other.>")]), ..Selection::default() },
            vec![],
        ),
    ] {
        let (seqs, lost, _) = dump(dir.path(), &selection);
        assert_eq!((seqs, lost), (expected, vec![]), "{selection:?}");
    }
}

#[test]
fn a_log_that_was_killed_is_dumped_to_its_last_commit_and_a_torn_tail_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    fill(&*engine, 100, 10);
    kill(dir.path(), engine);
    assert_eq!(inspect::info(dir.path()).unwrap().last_stop, LastStop::Unclean);
    assert_eq!(dump_all(dir.path()).0.len(), 100);
    // The last commit is cut in the middle, as by a power loss.
    std::fs::remove_file(dir.path().join("journal/tip")).unwrap();
    let slot = active_slot(dir.path());
    let at = find(&slot, b"event 95 ").unwrap();
    overwrite(&slot, at, &[0; 64]);
    let before = snapshot(dir.path());
    assert_eq!(dump_all(dir.path()), ((1..=90).collect(), vec![]));
    let report = verify(dir.path());
    assert!(report.is_clean(), "{report:?}");
    assert!(report.notes[0].contains("the last write is not whole"), "{report:?}");
    let info = inspect::info(dir.path()).unwrap();
    assert!(info.damage.is_empty() && info.slots[0].torn_bytes > 0, "{info:?}");
    assert!(snapshot(dir.path()) == before);
}

#[test]
fn a_damaged_commit_is_named_and_the_rest_is_dumped() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    fill(&*engine, 100, 10);
    close(dir.path(), engine);
    let slot = active_slot(dir.path());
    flip(&slot, find(&slot, b"event 25 ").unwrap());
    flip(&slot, find(&slot, b"event 61 ").unwrap());
    let lost = [(21, 30), (61, 70)];
    let report = verify(dir.path());
    assert_eq!(ranges(&report.damage), lost, "{report:?}");
    assert!(report.damage.iter().all(|damage| damage.file == slot), "{report:?}");
    assert_eq!(report.events, 80, "what is damaged is not counted as whole");
    let (seqs, told) = dump_all(dir.path());
    assert_eq!((seqs, ranges(&told)), (all_but(100, &lost), lost.to_vec()));
    // A range without damage is clean.
    let selection =
        Selection { from: Some(Seq::new(31)), to: Some(Seq::new(60)), ..Selection::default() };
    assert_eq!(dump(dir.path(), &selection).0, (31..=60).collect::<Vec<_>>());
    assert_eq!(dump(dir.path(), &selection).1, vec![]);
}

#[test]
fn a_damaged_block_is_named_and_the_rest_is_dumped() {
    let dir = sealed_log();
    // Wherever the bit lies: what verify names is what dump leaves out, and nothing more is lost.
    let segment = segments(dir.path()).remove(0);
    let db = segment.join("db/db");
    let len = std::fs::metadata(&db).unwrap().len();
    let original = std::fs::read(&db).unwrap();
    let mut named = 0;
    for part in 0..12 {
        let at = len / 12 * part + 777;
        flip(&db, at);
        let report = verify(dir.path());
        assert!(!report.is_clean(), "offset {at}: the change was not seen");
        assert!(report.damage.iter().all(|d| d.file.starts_with(&segment)), "{report:?}");
        let (seqs, told) = dump_all(dir.path());
        assert_eq!(seqs, all_but(5_000, &ranges(&told)), "offset {at}");
        for damage in &told {
            let (from, to) = (damage.from, damage.to);
            let is_named = report.damage.iter().any(|d| d.from <= from && to <= d.to);
            assert!(is_named, "offset {at}: {damage} is not in {report:?}");
        }
        named += told.len();
        std::fs::write(&db, &original).unwrap();
    }
    assert!(named > 0, "no block was hit");
    assert!(verify(dir.path()).is_clean());
}

#[test]
fn a_damaged_footer_loses_its_segment_and_says_which() {
    let dir = sealed_log();
    let segment = segments(dir.path()).remove(0);
    let info = inspect::info(dir.path()).unwrap();
    let last = info.segments[0].last.get();
    let footer = segment.join("footer");
    let original = std::fs::read(&footer).unwrap();
    for at in [0, 9, 30, 70, 100, original.len() as u64 / 2, original.len() as u64 - 1] {
        flip(&footer, at);
        let report = verify(dir.path());
        assert!(!report.is_clean(), "byte {at}");
        assert!(report.damage.iter().any(|damage| damage.file == footer), "byte {at}: {report:?}");
        let (seqs, told) = dump_all(dir.path());
        assert_eq!(seqs, all_but(5_000, &ranges(&told)), "byte {at}");
        if at < 100 {
            assert_eq!(ranges(&told)[0], (1, last), "byte {at}: {told:?}");
        }
        std::fs::write(&footer, &original).unwrap();
    }
}

#[test]
fn a_missing_segment_and_missing_files_are_damage() {
    let dir = sealed_log();
    let all = segments(dir.path());
    assert!(all.len() >= 3, "{all:?}");
    let info = inspect::info(dir.path()).unwrap();
    let gone = (info.segments[1].first.get(), info.segments[1].last.get());
    let aside = tempfile::tempdir().unwrap();
    std::fs::rename(&all[1], aside.path().join("segment")).unwrap();
    assert_eq!(ranges(&verify(dir.path()).damage), [gone]);
    let (seqs, told) = dump_all(dir.path());
    assert_eq!((seqs, ranges(&told)), (all_but(5_000, &[gone]), vec![gone]));
    std::fs::rename(aside.path().join("segment"), &all[1]).unwrap();

    std::fs::rename(all[1].join("db/db"), aside.path().join("db")).unwrap();
    assert_eq!(ranges(&verify(dir.path()).damage), [gone]);
    assert_eq!(ranges(&dump_all(dir.path()).1), [gone]);
    std::fs::rename(aside.path().join("db"), all[1].join("db/db")).unwrap();
    assert!(verify(dir.path()).is_clean());

    std::fs::remove_file(dir.path().join("log.meta")).unwrap();
    let report = verify(dir.path());
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert!(report.damage[0].file.ends_with("log.meta"), "{report:?}");
    assert_eq!(dump_all(dir.path()), ((1..=5_000).collect(), vec![]));
    assert!(inspect::info(dir.path()).unwrap().meta_is_stale);
}

#[test]
fn a_lost_newest_slot_is_damage_and_what_is_sealed_is_dumped() {
    let dir = sealed_log();
    let info = inspect::info(dir.path()).unwrap();
    let sealed = info.segments.last().unwrap().last.get();
    assert!(sealed < 5_000);
    let slot = active_slot(dir.path());
    overwrite(&slot, 0, &[0xa5; 8192]);
    let report = verify(dir.path());
    assert!(report.damage.iter().any(|damage| damage.file == slot), "{report:?}");
    let (seqs, told) = dump_all(dir.path());
    assert_eq!(seqs, (1..=sealed).collect::<Vec<_>>());
    assert!(!told.is_empty());
}

#[test]
fn a_dump_beside_a_daemon_that_appends_seals_and_trims_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    fill(&*engine, 2_000, 50);
    let trims = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let appender = {
        let (engine, stop, trims) = (Arc::clone(&engine), Arc::clone(&stop), Arc::clone(&trims));
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                // A full journal waits for sealing.
                append(&*engine, 40).unwrap();
                let head = engine.bounds().head.get();
                if trims.load(Ordering::SeqCst) && head % 400 == 0 {
                    trim(&*engine, head - head / 4);
                }
            }
        })
    };
    let mut grown = 0;
    for round in 0..6 {
        if round >= 3 {
            trims.store(true, Ordering::SeqCst);
        }
        let bounds = engine.bounds();
        let (head, oldest) = (bounds.head.get(), bounds.oldest.get());
        let (seqs, lost) = dump_all(dir.path());
        assert!(lost.is_empty(), "{lost:?}");
        let (first, last) = (seqs[0], *seqs.last().unwrap());
        assert!(first >= oldest && last >= head, "{first}..={last} of {oldest}..={head}");
        // What was trimmed meanwhile is told; nothing else may be left out, and nothing is twice.
        let ordered = seqs.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ordered && (round >= 3 || seqs.len() as u64 == last), "{} of {last}", seqs.len());
        grown += u64::from(engine.bounds().head.get() > head);
        let info = inspect::info(dir.path()).unwrap();
        assert!(info.damage.is_empty(), "{:?}", info.damage);
        assert_eq!(info.last_stop, LastStop::Running(std::process::id()));
        let report = verify(dir.path());
        assert!(report.is_clean(), "{report:?}");
    }
    stop.store(true, Ordering::SeqCst);
    appender.join().unwrap();
    assert!(grown > 0, "nothing was appended meanwhile");
    // The daemon was not disturbed.
    assert_eq!(engine.status().trouble, None);
    append(&*engine, 1).unwrap();
}

#[test]
fn a_trimmed_log_begins_at_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    fill(&*engine, 5_000, 50);
    wait_for_sealing(&*engine);
    trim(&*engine, 4_321);
    close(dir.path(), engine);
    assert_eq!(dump_all(dir.path()), ((4_321..=5_000).collect(), vec![]));
    let report = verify(dir.path());
    assert!(report.is_clean() && report.events == 680, "trimmed events do not count: {report:?}");
    assert_eq!(inspect::info(dir.path()).unwrap().events(), 680);
    let trimmed = inspect::explain(dir.path(), "100").unwrap().unwrap();
    let expected = CursorError::Trimmed { oldest: Seq::new(4_321), missed: 4_220 };
    assert_eq!((trimmed.answer, trimmed.event), (Answer::Refuses(expected), None));
}

#[test]
fn an_event_that_slot_and_segment_both_hold_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    fill(&*engine, 1_000, 50);
    close(dir.path(), engine);
    let info = inspect::info(dir.path()).unwrap();
    let sealed = info.segments.last().unwrap().last;
    let in_slot = info.slots.iter().filter_map(|slot| slot.seqs).next_back().unwrap();
    assert!(sealed >= in_slot.1, "nothing is in both: {info:?}");
    let report = verify(dir.path());
    assert!(report.is_clean() && report.slots == 1, "{report:?}");
    assert_eq!(report.events, 1_000);
    // Damaged in one of them, it is still whole in the other.
    let slot = active_slot(dir.path());
    flip(&slot, find(&slot, b"event 991 ").unwrap());
    let report = verify(dir.path());
    assert!(!report.is_clean() && report.events == 1_000, "{report:?}");
}

#[test]
fn cursors_are_explained_as_a_watch_would_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    fill(&*engine, 100, 10);
    let (id, generation) = (engine.id(), engine.bounds().generations.current().generation);
    let tag = engine.tag_of(Seq::new(7)).unwrap();
    close(dir.path(), engine);
    let ask = |text: &str| inspect::explain(dir.path(), text).unwrap();
    let mint = CursorMint::new(id, generation);

    for (version, cursor) in
        [(1, mint.mint_place(Seq::new(7))), (2, mint.mint_string(Seq::new(7), tag))]
    {
        let seventh = ask(&cursor).unwrap();
        assert_eq!(seventh.answer, Answer::Starts { next: Seq::new(8), ready: 93 });
        assert!(seventh.event.unwrap().contains("\"body\":\"event 7 xxxxxxx\""));
        let token = seventh.token.unwrap();
        assert!(token.is_of_this_log && token.known_as.is_some());
        assert_eq!(token.version, version);
    }
    // Another event stood there when this was kept.
    let other = ask(&mint.mint_string(Seq::new(7), ChainTag::new(!tag.get()))).unwrap();
    let parted = CursorError::LogDiverged { last_common: Seq::ZERO, at_most: Seq::new(6) };
    assert_eq!((other.answer, other.event), (Answer::Refuses(parted), None));

    let start = ask(&mint.mint_string(Seq::ZERO, ChainTag::START)).unwrap();
    assert_eq!(
        (start.answer, start.event),
        (Answer::Starts { next: Seq::FIRST, ready: 100 }, None)
    );
    let head = ask("100").unwrap();
    assert_eq!(head.answer, Answer::Starts { next: Seq::new(101), ready: 0 });
    assert!(head.event.is_some() && head.token.is_none());
    let ahead = Answer::Refuses(CursorError::Ahead { head: Seq::new(100) });
    assert_eq!(ask("101").unwrap().answer, ahead);
    assert_eq!(ask(&mint.mint_place(Seq::new(101))).unwrap().answer, ahead);

    let other = LogId::new(uuid::Uuid::from_u128(5));
    let foreign = ask(&CursorMint::new(other, generation).mint_place(Seq::new(7))).unwrap();
    assert_eq!(foreign.answer, Answer::Refuses(CursorError::LogChanged));
    assert_eq!(foreign.event, None);
    let later = Generation { counter: 2, nonce: 9 };
    let diverged = ask(&CursorMint::new(id, later).mint_place(Seq::new(7))).unwrap();
    let expected = CursorError::LogDiverged { last_common: Seq::ZERO, at_most: Seq::new(6) };
    assert_eq!((diverged.answer, diverged.event), (Answer::Refuses(expected), None));

    for bad in ["", "007", "x", "tAAAA", "t!!!!!!!!!!!!!!!!!!!!!!!!!!!!"] {
        assert!(ask(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn no_log_another_format_and_a_foreign_directory_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let missing = |path: &Path| match inspect::info(path) {
        Err(inspect::Error::Store(StoreError::Missing { path: named })) => named == path,
        other => panic!("{other:?}"),
    };
    assert!(missing(&dir.path().join("nothing")));
    assert!(missing(dir.path()));
    std::fs::write(dir.path().join("novel.txt"), "once").unwrap();
    assert!(missing(dir.path()));
    assert!(!dir.path().join("LOCK").exists());

    let log = sealed_log();
    overwrite(&log.path().join("log.meta"), 8, &9u32.to_le_bytes());
    let output = log_command(log.path(), &["info"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("format 9") && errors.contains("hint: use the newer"), "{errors}");
}

#[test]
fn the_commands_print_and_exit_as_documented() {
    let dir = sealed_log();
    let run = |args: &[&str]| {
        let output = log_command(dir.path(), args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, lines, errors) = run(&["dump", "--seq", "3..4"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with(r#"{"id":"id-3","topic":"t.3","body":"event 3 xxx","at":"#));
    assert!(lines[0].contains(r#""seq":"3","cursor":"u"#));
    let (code, text, _) = run(&["verify"]);
    assert!(code == Some(0) && text.starts_with("clean    1 to 5000: "), "{text}");
    let (code, text, _) = run(&["verify", "--json"]);
    assert!(code == Some(0) && text.starts_with(r#"{"result":{"clean":true,"log_id":"#), "{text}");
    let (code, text, _) = run(&["info", "--json"]);
    assert!(code == Some(0) && text.contains(r#""head_seq":"5000""#), "{text}");
    assert_eq!(run(&["explain", "zzz"]).0, Some(2));
    assert_eq!(run(&["dump", "a..b"]).0, Some(2));

    let slot = active_slot(dir.path());
    flip(&slot, find(&slot, b"event 5000 ").unwrap());
    let (code, lines, errors) = run(&["dump"]);
    assert_eq!((code, lines.lines().count()), (Some(4), 4_950));
    assert!(errors.contains("damaged: events") && errors.contains("4951"), "{errors}");
    let (code, text, errors) = run(&["verify"]);
    assert_eq!(code, Some(4));
    assert!(text.contains("damaged  events") && errors.contains("damaged"), "{text}{errors}");
    assert_eq!(run(&["verify", "--json"]).0, Some(4));
    assert_eq!(run(&["info"]).0, Some(4));
}

#[test]
fn copies_of_segments_need_room_and_are_deleted() {
    let dir = sealed_log();
    let scratch = tempfile::tempdir().unwrap();
    let run = |tmpdir: &Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tailmark"));
        command.env("TMPDIR", tmpdir).args(["log", "verify", "--data-dir"]).arg(dir.path());
        command.output().unwrap()
    };
    assert_eq!(run(scratch.path()).status.code(), Some(0));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    let nowhere = scratch.path().join("nowhere");
    let output = run(&nowhere);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("nowhere"), "{errors}");
}
