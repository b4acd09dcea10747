//! A log in which events were erased: what is kept of it has the shells, and nothing of what was said.

use std::ops::Range;
use std::path::Path;

use tailmark::backup::Upto;
use tailmark::export::Format;
use tailmark::inspect::{self, Verdict};
use tailmark_log::Erasure;
use tailmark_log::storage::salvage::salvage;
use tailmark_log::testing::copy_dir;
use tailmark_record::{Cursor, Seq};

use super::backups::{is_whole, restored, taken};
use super::exports::{exported, imported};
use crate::support::daemon::Daemon;
use crate::support::kept::{self, HEAD, OLDEST, events, expect_clean, life};
use crate::support::logdir;

/// In segments and not sealed, some of it trimmed.
const ERASED: [Range<u64>; 5] = [1..3, 690..720, 1_400..1_600, 2_001..2_002, 2_950..2_990];

async fn erase(data: &Path, id: u128, ranges: &[Range<u64>]) -> tailmark_log::Erased {
    let log = kept::open(data);
    let seqs = ranges.iter().map(|it| Seq::new(it.start)..Seq::new(it.end)).collect();
    let (id, reason) = (uuid::Uuid::from_u128(id), "asked \u{7f}for".to_owned());
    let eraser = log.clone();
    let erase = move || eraser.erase(Erasure { id, seqs, reason }, &mut |_| {}).unwrap();
    let erased = tokio::task::spawn_blocking(erase).await.unwrap();
    log.close().await.unwrap();
    erased
}

/// That it is the log, shells and all, and that a reader goes on where it was.
async fn expect_it(copy: &Path, wanted: &[String], cursors: &[String]) {
    expect_clean(copy);
    assert_eq!(events(copy), wanted);
    let log = kept::open(copy);
    for seq in [OLDEST, 1_500, 1_599, 2_001, 2_989, HEAD] {
        let cursor = &cursors[(seq - (OLDEST - 1)) as usize];
        let next = log.resolve(Cursor::parse(cursor).unwrap()).await.unwrap();
        assert_eq!(next.get(), seq + 1);
        assert_eq!(log.cursor(Seq::new(seq)).await, *cursor);
    }
    // What was erased is a new event, and of what is left repeats are told.
    let (new, again) =
        (kept::store(&log, 1_450..1_451).await, kept::store(&log, 2_002..2_003).await);
    assert_eq!((new.unwrap().stored, again.unwrap().duplicates), (1, 1));
    log.close().await.unwrap();
}

#[tokio::test]
async fn exports_backups_and_salvage_keep_shells() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = life(dir.path()).await;
    let data = dir.path().join("data");
    let (intact, before) = (dir.path().join("intact"), events(&data));
    copy_dir(&data, &intact).unwrap();
    let backups = dir.path().join("backups");
    taken(&data, &backups);
    let erased = erase(&data, 9, &ERASED).await;
    // From the trim mark on: 701 to 719, 1,400 to 1,599, 2,001, 2,950 to 2,989.
    assert_eq!((erased.events, erased.trimmed, erased.notices), (19 + 200 + 1 + 40, 13, 5));
    expect_clean(&data);
    let wanted = events(&data);
    assert_eq!(wanted.len(), before.len() + 5);
    let is_shell = |event: &&String| event.contains("\"erased\":{\"rest_digest\":");
    assert_eq!(wanted.iter().filter(is_shell).count(), 260);
    for (at, (was, is)) in before.iter().zip(&wanted).enumerate() {
        let seq = OLDEST + at as u64;
        let is_erased = ERASED.iter().any(|range| range.contains(&seq));
        assert_eq!((is_erased, is_shell(&is)), (is != was, is_erased), "{seq}: {is}");
    }
    // The chain is what it was.
    assert_eq!(
        inspect::diff(&intact, &data).unwrap().verdict,
        Verdict::SecondGoesOn(Seq::new(HEAD))
    );

    for format in [Format::Jsonl, Format::Protobuf] {
        let file = exported(&data, Default::default(), format);
        assert!(!file.windows(11).any(|part| part == b"event 1450 "));
        let copy = dir.path().join(format!("{format:?}"));
        imported(&file, &copy).unwrap();
        expect_it(&copy, &wanted, &cursors).await;
        // As new events come those of which something is left.
        let daemon = Daemon::start(&dir.path().join(format!("new {format:?}")));
        let done = daemon.run(&["upload", "--format", "export", "--json", "-"], &file);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.contains("260 erased events passed over"), "{said}");
        let stored = serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap();
        assert_eq!(stored["stored"], (wanted.len() - 260).to_string(), "{stored}");
        daemon.stop();
    }

    // Beside the backup that was taken before, which still has them.
    taken(&data, &backups);
    is_whole(&backups, None).unwrap();
    let copy = dir.path().join("restored");
    restored(&backups, None, Upto::Head, &copy).unwrap();
    expect_it(&copy, &wanted, &cursors).await;

    let copy = dir.path().join("salvaged");
    let report = salvage(&data, &copy, logdir::options(), &mut |_| Ok(())).unwrap();
    assert!(report.lost.is_empty(), "{report:?}");
    expect_it(&copy, &wanted, &cursors).await;
}
