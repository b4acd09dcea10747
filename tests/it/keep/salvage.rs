//! Salvage: what is whole of a damaged log comes back with its cursors, and readers hear of the rest.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tailmark::backup::{Since, Target, Upto, check, restore, take};
use tailmark::export::Format;
use tailmark::inspect::{self, SlotState, Verdict};
use tailmark_log::StoreError;
use tailmark_log::eventlog::{CursorError, EventLog, ResolveError};
use tailmark_log::storage::salvage::salvage;
use tailmark_log::testing::copy_dir;
use tailmark_record::{ChainTag, Cursor, Seq};
use tailmark_wire::feed_v1::{self as pb, OnLost};
use tonic::Code;

use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{self, HEAD, OLDEST, expect_clean, life};
use crate::support::logdir::{self, snapshot};
use crate::support::server::{TestServer, expect, from_oldest, seqs, start_with, watch};

/// Where blocks begin in the file of a segment's database, and their first seqs, in order of these.
fn blocks(segment: &Path) -> Vec<(u64, u64)> {
    let bytes = std::fs::read(segment.join("db/db")).unwrap();
    let is_header = |at: &usize| {
        let header = &bytes[*at..*at + 48];
        header[0] == 1 && header[4..6] == [48, 0] && {
            let crc = u32::from_le_bytes(header[44..].try_into().unwrap());
            crc32c::crc32c(&header[..44]) == crc
        }
    };
    let first = |at: usize| u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
    let places = (0..bytes.len() - 48).filter(is_header);
    let mut found: Vec<_> = places.map(|at| (first(at), at as u64)).collect();
    found.sort_unstable();
    found
}

/// The log of [`life`] with one block damaged amid its last segment; which events that takes.
async fn damaged(dir: &Path) -> (PathBuf, Vec<String>, RangeInclusive<u64>) {
    let cursors = life(dir).await;
    let data = dir.join("data");
    copy_dir(&data, &dir.join("intact")).unwrap();
    // Slots that the log has no need of may still have what is sealed: then nothing would be lost.
    let info = inspect::info(&data).unwrap();
    let mut held = Vec::new();
    for slot in info.slots {
        let path = data.join("journal").join(&slot.name);
        if slot.state == SlotState::Free {
            std::fs::write(path, vec![0; slot.file_bytes as usize]).unwrap();
        }
        held.extend(slot.seqs.filter(|_| slot.state != SlotState::Free));
    }
    let is_held = |first, last| held.iter().any(|(from, to)| *from <= last && first <= *to);
    let segments = info.segments.iter().zip(logdir::segments(&data)).rev();
    let segment = segments.skip(1).find(|(info, _)| !is_held(info.first, info.last));
    let (_, segment) = segment.unwrap();
    let found = blocks(&segment);
    assert!(found.len() > 3, "{found:?}");
    let middle = found.len() / 2;
    logdir::flip(&segment.join("db/db"), found[middle].1 + 60);
    (data, cursors, found[middle].0..=found[middle + 1].0 - 1)
}

/// Runs the command; answers its exit code and the report.
fn salvaged(from: &Path, to: &Path) -> (Option<i32>, Value) {
    let report = to.with_extension("report");
    let mut command = program(&["log", "salvage", "--json", "--from"]);
    command.arg(from).arg("--to").arg(to).arg("--report").arg(&report);
    let output = feed(&mut command, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    let kept = std::fs::read_to_string(report).unwrap();
    assert_eq!(printed, kept, "{said}");
    (output.status.code(), serde_json::from_str(&printed).unwrap())
}

fn all() -> pb::WatchRequest {
    let on_lost = OnLost::Oldest.into();
    let (start, markers, until_caught_up) = (from_oldest(), true, true);
    pb::WatchRequest { start, markers, until_caught_up, on_lost, ..Default::default() }
}

/// The seqs that a watch sees, and the gaps that it is told.
async fn seen(server: &TestServer, request: pb::WatchRequest) -> (Vec<u64>, Vec<pb::Gap>) {
    let mut watching = watch(&mut server.client().await, request).await.unwrap();
    let (events, _) = watching.rest().await;
    let gaps = events.iter().filter_map(|event| event.marker.as_ref()?.gap).collect();
    (seqs(&events), gaps)
}

fn is_gap(gap: &pb::Gap, lost: &RangeInclusive<u64>) -> bool {
    (gap.from_seq, gap.to_seq, gap.reason())
        == (*lost.start(), *lost.end(), pb::gap::Reason::Damaged)
}

#[tokio::test]
async fn what_is_lost_is_a_gap_and_every_cursor_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cursors, lost) = damaged(dir.path()).await;
    let (new, before) = (dir.path().join("new"), snapshot(&data));
    let (code, report) = salvaged(&data, &new);
    assert!(snapshot(&data) == before, "a salvage changed what it reads");
    assert_eq!(code, Some(4), "{report}");
    assert_eq!(report["lost"].as_array().unwrap().len(), 1, "{report}");
    let (from, to) = (lost.start().to_string(), lost.end().to_string());
    assert_eq!(
        (&report["lost"][0]["from_seq"], &report["lost"][0]["to_seq"]),
        (&from.into(), &to.into())
    );
    let cause = report["lost"][0]["causes"][0]["file"].as_str().unwrap();
    assert!(cause.ends_with("db/db"), "{report}");
    assert_eq!(report["keeps_producers"], true);
    expect_clean(&new);
    let info = inspect::info(&new).unwrap();
    assert_eq!(info.events(), HEAD + 1 - OLDEST - lost.clone().count() as u64);
    let newest = info.generations.last().unwrap();
    assert_eq!((newest.cause.as_str(), newest.first.get()), ("salvaged", HEAD + 1));
    // Where the events are, the chain is what it was, and at the head too.
    let compared = inspect::diff(&dir.path().join("intact"), &new).unwrap();
    assert_eq!(compared.verdict, Verdict::Equal);

    let server = start_with(kept::open(&new), Default::default()).await;
    let wanted: Vec<u64> = (OLDEST..=HEAD).filter(|seq| !lost.contains(seq)).collect();
    let (events, gaps) = seen(&server, all()).await;
    assert_eq!(events, wanted, "seen and missing follow on");
    assert!(gaps.len() == 1 && is_gap(&gaps[0], &lost), "{gaps:?}");
    // Nobody knows what was lost of a topic: who watches one hears of it too.
    let (events, gaps) = seen(&server, pb::WatchRequest { topic: "t.3".into(), ..all() }).await;
    assert!(events.len() > 100 && events.iter().all(|seq| wanted.contains(seq)));
    assert!(gaps.len() == 1 && is_gap(&gaps[0], &lost), "{gaps:?}");
    // Not for those who asked to be stopped.
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut watching = watch(&mut server.client().await, request).await.unwrap();
    for seq in OLDEST..*lost.start() {
        assert_eq!(watching.event().await.seq, seq);
    }
    let info = expect(&watching.failure().await, Code::DataLoss, "DAMAGED");
    assert_eq!(
        (info["from_seq"].clone(), info["to_seq"].clone()),
        (lost.start().to_string(), lost.end().to_string())
    );
    let after_cursor = info["resume_cursor"].clone();
    let request = pb::WatchRequest { after_cursor, limit: 1, ..Default::default() };
    let mut watching = watch(&mut server.client().await, request).await.unwrap();
    assert_eq!(watching.event().await.seq, lost.end() + 1);
    let one = pb::GetEventRequest { by: Some(pb::get_event_request::By::Seq(lost.start() + 1)) };
    let status = server.client().await.get_event(one).await.unwrap_err();
    expect(&status, Code::DataLoss, "DAMAGED");
    // One who was within what is lost hears of the rest of it.
    let within = lost.start() + 2;
    let after_cursor = cursors[(within + 1 - OLDEST) as usize].clone();
    let request = pb::WatchRequest { after_cursor, start: None, ..all() };
    let (events, gaps) = seen(&server, request).await;
    assert_eq!(events, (lost.end() + 1..=HEAD).collect::<Vec<_>>());
    assert!(gaps.len() == 1 && is_gap(&gaps[0], &(within + 1..=*lost.end())), "{gaps:?}");
    server.stop().await;

    cursors_resolve(&kept::open(&new), &cursors, &lost).await;
}

/// Every cursor that was ever given resumes exactly, and one of another history does not where that can be told.
async fn cursors_resolve(log: &EventLog, cursors: &[String], lost: &RangeInclusive<u64>) {
    for (seq, text) in (OLDEST - 1..).zip(cursors) {
        let cursor = Cursor::parse(text).unwrap();
        assert_eq!(log.resolve(cursor).await.unwrap().get(), seq + 1, "{text}");
        let Cursor::Token { log: of, generation, seq: at, tag: Some(tag) } = cursor else {
            panic!()
        };
        let tag = Some(ChainTag::new(tag.get() ^ 1));
        let other = log.resolve(Cursor::Token { log: of, generation, seq: at, tag }).await;
        let is_told = matches!(other, Err(ResolveError::Cursor(CursorError::LogDiverged { .. })));
        // Of what is lost only the chain at its end is known.
        let is_gone = lost.contains(&seq) && seq != *lost.end();
        assert_eq!(is_told, !is_gone, "{seq}: {other:?}");
    }
    log.clone().close().await.unwrap();
}

#[tokio::test]
async fn a_salvaged_log_goes_on_and_may_be_salvaged_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cursors, lost) = damaged(dir.path()).await;
    let (new, again) = (dir.path().join("new"), dir.path().join("again"));
    assert_eq!(salvaged(&data, &new).0, Some(4));
    let log = kept::open(&new);
    kept::store(&log, 20_000..24_000).await.unwrap();
    let beyond = log.cursor(Seq::new(HEAD + 4_000)).await;
    log.close().await.unwrap();
    drop(log);
    expect_clean(&new);
    // Nothing is lost by it; what was is known.
    let (code, report) = salvaged(&new, &again);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["lost"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["lost"][0]["is_old"], true);
    expect_clean(&again);
    let log = kept::open(&again);
    let next = log.resolve(Cursor::parse(&beyond).unwrap()).await.unwrap();
    assert_eq!(next.get(), HEAD + 4_001);
    log.clone().close().await.unwrap();
    drop(log);
    cursors_resolve(&kept::open(&again), &cursors, &lost).await;
    // Trimmed away, it is not there any more, nor in the directory.
    let log = kept::open(&again);
    log.trim(Seq::new(lost.end() + 10)).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let log = kept::open(&again);
    log.close().await.unwrap();
    drop(log);
    expect_clean(&again);
    assert_eq!(inspect::info(&again).unwrap().removed, []);
}

#[tokio::test]
async fn a_backup_has_what_is_lost_and_an_export_of_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cursors, lost) = damaged(dir.path()).await;
    let (new, to) = (dir.path().join("new"), dir.path().join("to"));
    assert_eq!(salvaged(&data, &new).0, Some(4));
    take(&new, &to, |_| Ok(())).unwrap();
    let target = Target::open(&to).unwrap();
    let (name, manifest) = target.backup(None).unwrap();
    check(&target, &name, &manifest, |_| Ok(())).unwrap();
    let put_back = |name_of: &str, upto: Upto| {
        let back = dir.path().join(name_of);
        let options = logdir::options();
        let done =
            restore(&target, &name, &manifest, (Since::Trimmed, upto), &back, options, |_| Ok(()))
                .unwrap();
        expect_clean(&back);
        (back, done.head.get())
    };
    let (back, head) = put_back("back", Upto::Head);
    assert_eq!(head, HEAD);
    assert_eq!(inspect::info(&back).unwrap().removed.len(), 1);
    assert_eq!(inspect::diff(&new, &back).unwrap().verdict, Verdict::Equal);
    cursors_resolve(&kept::open(&back), &cursors, &lost).await;
    // Within what is lost nothing can be put back: the log ends before it.
    let within = Seq::new(lost.start() + 1);
    assert_eq!(put_back("before", Upto::Seq(within)).1, lost.start() - 1);
    let end = Seq::new(*lost.end());
    assert_eq!(put_back("with", Upto::Seq(end)).1, *lost.end());
    let export = |from: Option<u64>, to: Option<u64>| {
        let range = inspect::Range { from: from.map(Seq::new), to: to.map(Seq::new) };
        tailmark::export::export(&new, range, Format::Protobuf, Vec::new(), |_, _| Ok(()))
    };
    let whole = export(None, None).unwrap();
    let gone = lost.end() - lost.start() + 1;
    assert_eq!((whole.events, whole.removed), (HEAD - OLDEST + 1 - gone, gone));
    // In the middle of what is lost nobody knows the chain.
    let refused = export(None, Some(lost.start() + 1)).unwrap_err();
    assert!(refused.to_string().contains("lost when the log was salvaged"), "{refused}");
    // What lies beside it comes along.
    assert_eq!(export(None, Some(lost.start() - 1)).unwrap().events, lost.start() - OLDEST);
    assert_eq!(export(Some(lost.end() + 1), None).unwrap().events, HEAD - lost.end());
    // From the daemon, too.
    let (daemon, fetched) = (Daemon::start(&new), dir.path().join("fetched"));
    let output = daemon.run(&["backup", fetched.to_str().unwrap()], b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.stop();
    let target = Target::open(&fetched).unwrap();
    let (name, manifest) = target.backup(None).unwrap();
    assert_eq!(manifest.removed.len(), 1);
    check(&target, &name, &manifest, |_| Ok(())).unwrap();
}

#[tokio::test]
async fn events_lost_at_the_end_begin_a_generation_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    // The slot that takes commits goes, and with it all that is not sealed.
    let info = inspect::info(&data).unwrap();
    let sealed = info.segments.last().unwrap().last.get();
    let newest = info.slots.iter().max_by_key(|slot| slot.number).unwrap();
    std::fs::remove_file(data.join("journal").join(&newest.name)).unwrap();
    let (code, report) = salvaged(&data, &new);
    assert_eq!(code, Some(4));
    let first: u64 = report["lost"][0]["from_seq"].as_str().unwrap().parse().unwrap();
    assert!(first > sealed, "{report}");
    assert_eq!(report["lost"][0]["to_seq"], HEAD.to_string());
    assert_eq!(report["generation_first_seq"], first.to_string());
    assert_eq!(report["keeps_producers"], Value::Null);
    expect_clean(&new);
    let log = kept::open(&new);
    for (seq, text) in (OLDEST - 1..).zip(&cursors) {
        let found = log.resolve(Cursor::parse(text).unwrap()).await;
        match found {
            Ok(next) => assert!(next.get() == seq + 1 && seq < first),
            // Who has seen any of it knows of events that this log has not.
            Err(ResolveError::Cursor(CursorError::LogDiverged { last_common, .. })) => {
                assert!(last_common.get() == first - 1 && seq >= first, "{seq}: {last_common}");
            }
            other => panic!("{seq}: {other:?}"),
        }
    }
    kept::store(&log, 30_000..30_010).await.unwrap();
    log.clone().close().await.unwrap();
    drop(log);
    let server = start_with(kept::open(&new), Default::default()).await;
    let (events, gaps) = seen(&server, all()).await;
    assert_eq!(events, (OLDEST..first).chain(HEAD + 1..=HEAD + 10).collect::<Vec<_>>());
    assert!(gaps.len() == 1 && is_gap(&gaps[0], &(first..=HEAD)), "{gaps:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_first_segment_that_is_missing_is_lost_and_not_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    let mut heads_flipped = false;
    for slot in inspect::info(&data).unwrap().slots {
        let path = data.join("journal").join(&slot.name);
        if slot.state != SlotState::Free {
            continue;
        }
        if heads_flipped {
            std::fs::write(path, vec![0; slot.file_bytes as usize]).unwrap();
        } else {
            logdir::flip(&path, 20);
            logdir::flip(&path, 4_096 + 20);
            heads_flipped = true;
        }
    }
    assert!(heads_flipped);
    let segments = logdir::segments(&data);
    std::fs::remove_dir_all(&segments[0]).unwrap();
    let (code, report) = salvaged(&data, &new);
    assert_eq!(code, Some(4), "{report}");
    assert_eq!(report["lost"][0]["from_seq"], OLDEST.to_string(), "{report}");
    expect_clean(&new);
}

#[tokio::test]
async fn what_one_log_has_lost_is_not_said_to_be_common() {
    let dir = tempfile::tempdir().unwrap();
    let (data, _, lost) = damaged(dir.path()).await;
    let (new, part) = (dir.path().join("new"), dir.path().join("part"));
    assert_eq!(salvaged(&data, &new).0, Some(4));
    let range = inspect::Range { from: None, to: Some(Seq::new(lost.start() + 2)) };
    let mut file = Vec::new();
    let intact = dir.path().join("intact");
    tailmark::export::export(&intact, range, Format::Protobuf, &mut file, |_, _| Ok(())).unwrap();
    tailmark::export::import(io::Cursor::new(file), &part, logdir::options(), |_| Ok(())).unwrap();
    let log = kept::open(&part);
    kept::store(&log, 50_000..52_000).await.unwrap();
    log.close().await.unwrap();
    let certain = Seq::new(lost.start() - 1);
    for (one, two) in [(&new, &part), (&part, &new)] {
        let compared = inspect::diff(one, two).unwrap();
        assert_eq!(compared.verdict, Verdict::Parted(certain));
        assert_eq!(compared.at_most, Some(Seq::new(lost.end() - 1)));
    }
}

#[tokio::test]
async fn a_salvage_that_is_cut_leaves_what_is_plainly_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cursors, lost) = damaged(dir.path()).await;
    let new = dir.path().join("new");
    let run = |calls: usize| {
        let mut left = calls;
        let done = salvage(&data, &new, logdir::options(), &mut |_| {
            left = left.checked_sub(1).ok_or(io::ErrorKind::Interrupted)?;
            Ok(())
        });
        (done.is_ok(), calls - left)
    };
    let mut cuts = 0;
    while !run(cuts).0 {
        let partial = inspect::info(&new).unwrap_err();
        let partial = matches!(&partial, inspect::Error::Store(StoreError::Partial { what, .. }) if what == "salvage");
        assert!(partial, "after {cuts} calls");
        let refused = tailmark_log::storage::local::open(&new, logdir::options());
        assert!(matches!(refused, Err(StoreError::Partial { .. })));
        cuts += 1;
    }
    assert!(cuts > 4, "{cuts}");
    expect_clean(&new);
    cursors_resolve(&kept::open(&new), &cursors, &lost).await;
}

#[tokio::test]
async fn a_salvage_is_refused_where_it_could_do_harm() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let run = |from: &Path, to: &Path| {
        let mut command = program(&["log", "salvage", "--from"]);
        let output = feed(command.arg(from).arg("--to").arg(to), b"");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let before = snapshot(&data);
    for inside in [data.clone(), data.join("new"), data.join("segments/x/y")] {
        let (code, said) = run(&data, &inside);
        assert!(code == Some(2) && said.contains("lies within the log"), "{said}");
    }
    assert!(snapshot(&data) == before, "it wrote into the damaged log");
    let (code, said) = run(&dir.path().join("nothing"), &to);
    assert!(code == Some(3) && said.contains("no log at"), "{code:?} {said}");
    assert!(!to.exists());
    let (code, said) = run(&data, &dir.path().join("begin"));
    assert!(code == Some(2) && said.contains("is not empty"), "{code:?} {said}");
    let daemon = Daemon::start(&data);
    let (code, said) = run(&data, &to);
    assert!(said.contains("stop the daemon first") && code != Some(0), "{code:?} {said}");
    daemon.stop();
    assert!(!to.exists());
    // What is whole is salvaged whole.
    let (code, said) = run(&data, &to);
    assert!(code == Some(0) && said.contains("salvaged: "), "{code:?} {said}");
}

/// A disk that is full by then costs the file, and not what is to be known: nobody can make the report again.
#[tokio::test]
async fn a_report_that_cannot_be_kept_is_printed() {
    if std::process::Command::new("strace").arg("--version").output().is_err() {
        println!("LEFT OUT: strace is missing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (data, _, lost) = damaged(dir.path()).await;
    let (new, report) = (dir.path().join("new"), dir.path().join("report"));
    let program = program(&["log", "salvage", "--from"]);
    let mut traced = std::process::Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=ENOSPC", "-P"]);
    traced.arg(&report).arg(program.get_program()).args(program.get_args()).arg(&data);
    let done = feed(traced.arg("--to").arg(&new).arg("--report").arg(&report), b"");
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write ") && said.contains("stands on standard output"), "{said}");
    assert!(!report.exists());
    let printed: Value = serde_json::from_slice(&done.stdout).unwrap();
    let range = (&printed["lost"][0]["from_seq"], &printed["lost"][0]["to_seq"]);
    let (from, to) = (lost.start().to_string(), lost.end().to_string());
    assert_eq!(range, (&from.into(), &to.into()), "{printed}");
    kept::open(&new);
}

/// The chain holds over what is lost: a comparison of chains alone would call the two logs equal.
#[tokio::test]
async fn a_comparison_names_what_one_of_two_logs_has_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (data, _, lost) = damaged(dir.path()).await;
    let path = |name: &str| dir.path().join(name);
    let (whole, new, again) = (path("intact"), path("new"), path("again"));
    assert_eq!(salvaged(&data, &new).0, Some(4));
    assert_eq!(salvaged(&new, &again).0, Some(0));
    let diff = |one: &Path, two: &Path, json: bool| {
        let mut command = program(&["log", "diff"]);
        let done = feed(command.arg(one).arg(two).args(json.then_some("--json")), b"");
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (from, to) = (lost.start().to_string(), lost.end().to_string());
    for (one, two, who, other) in
        [(&whole, &new, "second", "first"), (&new, &whole, "first", "second")]
    {
        let (code, text) = diff(one, two, false);
        assert!(text.ends_with(&format!("but {from} to {to} are lost in the {who}\n")), "{text}");
        assert_eq!(code, Some(3), "{text}");
        let json: Value = serde_json::from_str(&diff(one, two, true).1).unwrap();
        let range = serde_json::json!([{"from_seq": from, "to_seq": to}]);
        assert_eq!((&json[who]["lost"], &json[other]["lost"]), (&range, &Value::Null));
    }
    // What both have lost sets them not apart.
    let (code, text) = diff(&new, &again, false);
    assert!(code == Some(0) && !text.contains("lost"), "{text}");
}
