//! Where two logs part.

use std::path::Path;

use tailmark::export::{Format, export, import};
use tailmark::inspect::{self, Range, Verdict};
use tailmark_log::testing::copy_dir;
use tailmark_record::Seq;

use crate::support::daemon::{feed, program};
use crate::support::kept::{self, HEAD, OLDEST, life};
use crate::support::logdir;

fn verdict(one: &Path, two: &Path) -> Verdict {
    let before = (logdir::snapshot(one), logdir::snapshot(two));
    let done = inspect::diff(one, two).unwrap();
    assert!((logdir::snapshot(one), logdir::snapshot(two)) == before, "it changed a log");
    let back = inspect::diff(two, one).unwrap().verdict;
    let mirrored = match back {
        Verdict::FirstGoesOn(seq) => Verdict::SecondGoesOn(seq),
        Verdict::SecondGoesOn(seq) => Verdict::FirstGoesOn(seq),
        other => other,
    };
    assert_eq!(done.verdict, mirrored);
    done.verdict
}

async fn go_on(dir: &Path, numbers: std::ops::Range<u64>) {
    let log = kept::open(dir);
    kept::store(&log, numbers).await;
    log.close().await.unwrap();
}

fn import_to(from: &Path, range: Range, to: &Path) {
    let mut file = Vec::new();
    export(from, range, Format::Protobuf, &mut file, |_, _| Ok(())).unwrap();
    import(std::io::Cursor::new(file), to, logdir::options(), |_| Ok(())).unwrap();
}

#[tokio::test]
async fn two_logs_part_where_they_do() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let data = dir.path().join("data");
    let path = |name: &str| dir.path().join(name);
    let (head, seq) = (Seq::new(HEAD), Seq::new);
    // Byte for byte, and the same events in other blocks and slots.
    copy_dir(&data, &path("copy")).unwrap();
    import_to(&data, Range::default(), &path("import"));
    assert_eq!(verdict(&data, &path("copy")), Verdict::Equal);
    assert_eq!(verdict(&data, &path("import")), Verdict::Equal);
    // One goes on.
    go_on(&path("copy"), 30_000..30_700).await;
    assert_eq!(verdict(&data, &path("copy")), Verdict::SecondGoesOn(head));
    assert_eq!(verdict(&path("import"), &path("copy")), Verdict::SecondGoesOn(head));
    // Both do.
    go_on(&path("import"), 40_000..40_010).await;
    assert_eq!(verdict(&path("import"), &path("copy")), Verdict::Parted(head));
    // At every kind of place: in a segment, at its ends, in a slot.
    let info = inspect::info(&data).unwrap();
    let sealed = info.segments[1].last.get();
    let places = [OLDEST, OLDEST + 1, 1_499, 1_500, 1_501, sealed - 1, sealed, HEAD - 1];
    for upto in std::collections::BTreeSet::from(places) {
        let part = path(&format!("part-{upto}"));
        import_to(&data, Range { from: None, to: Some(seq(upto)) }, &part);
        assert_eq!(verdict(&data, &part), Verdict::FirstGoesOn(seq(upto)));
        go_on(&part, 50_000..50_300).await;
        assert_eq!(verdict(&data, &part), Verdict::Parted(seq(upto)));
    }
    // Trimmed beyond where they part, and beyond the end of the other.
    let part = path("part-1500");
    let trim = async |before: u64| {
        let log = kept::open(&part);
        log.trim(seq(before)).await.unwrap();
        log.close().await.unwrap();
    };
    trim(1_600).await;
    assert_eq!(verdict(&data, &part), Verdict::PartedBefore(seq(1_599)));
    go_on(&part, 60_000..62_000).await;
    trim(HEAD + 2).await;
    assert_eq!(verdict(&data, &part), Verdict::Apart);
    let other = path("other");
    std::fs::create_dir(&other).unwrap();
    go_on(&other, 0..10).await;
    assert_eq!(verdict(&data, &other), Verdict::OtherLogs);
    // What is equal but for its beginning.
    import_to(&data, Range { from: Some(seq(2_000)), to: None }, &path("late"));
    assert_eq!(verdict(&data, &path("late")), Verdict::Equal);
}

#[tokio::test]
async fn the_program_says_it_and_its_exit_code_too() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let (data, part) = (dir.path().join("data"), dir.path().join("part"));
    let run = |json: bool| {
        let mut command = program(&["log", "diff"]);
        command.arg(&data).arg(&part).args(json.then_some("--json"));
        let done = feed(&mut command, b"");
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    assert_eq!(run(true), (Some(3), String::new()), "no log is there");
    import_to(&data, Range { from: None, to: Some(Seq::new(2_000)) }, &part);
    let (code, text) = run(false);
    assert_eq!(code, Some(0));
    assert!(text.ends_with("the second ends at 2000, the first goes on\n"), "{text}");
    go_on(&part, 70_000..70_001).await;
    let (code, text) = run(false);
    assert_eq!(code, Some(3));
    assert!(text.ends_with("the same up to 2000, parted from 2001 on\n"), "{text}");
    let (code, text) = run(true);
    assert_eq!(code, Some(3));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["verdict"], "parted");
    assert_eq!(json["last_common_seq"], "2000");
    assert_eq!(json["second"]["head_seq"], "2001");
}
