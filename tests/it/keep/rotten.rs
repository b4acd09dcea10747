//! A place whose files have rotted: what is whole of it, as `docs/operations.md` says it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{HEAD, OLDEST, events, expect_clean, life};
use crate::support::logdir;

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let done = feed(&mut program(args), b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

fn segments(place: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(place).join("segments")).unwrap();
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// What becomes of a segment of a place, and whether nothing of it can be had then.
type Case = (&'static str, fn(&Path), bool);

const CASES: [Case; 5] = [
    (
        "pages are gone",
        |segment| {
            let db = segment.join("db/db");
            let len = std::fs::metadata(&db).unwrap().len();
            (0..len).step_by(5_003).for_each(|at| logdir::flip(&db, at));
        },
        false,
    ),
    ("its database is gone", |segment| std::fs::remove_file(segment.join("db/db")).unwrap(), true),
    ("its footer is damaged", |segment| logdir::flip(&segment.join("footer"), 40), true),
    ("its footer is gone", |segment| std::fs::remove_file(segment.join("footer")).unwrap(), true),
    ("all of it is gone", |segment| std::fs::remove_dir_all(segment).unwrap(), true),
];

#[tokio::test]
async fn what_is_whole_of_a_damaged_place_is_had_and_the_rest_is_told() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    let wanted = dumped(&data);
    assert_eq!(wanted.len(), events(Path::new(&data)).len());
    for (name, hurt, is_all) in CASES {
        let to = path("to");
        assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
        hurt(&segments(&to)[1]);
        let (staged, new, report) = (path("staged"), path("new"), path("lost.json"));
        let (code, _, said) = run(&["restore", &to, "--data-dir", &staged]);
        assert!(code == Some(4) && said.contains("--keep-damaged"), "{name}: {said}");
        let keep = ["restore", &to, "--keep-damaged", "--json", "--data-dir", &staged];
        let (code, text, said) = run(&keep);
        assert!(code == Some(4) && said.contains("log salvage"), "{name}: {said}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(!json["damage"].as_array().unwrap().is_empty(), "{name}: {text}");
        assert_eq!(json["head_seq"], HEAD.to_string(), "{name}");
        let (code, _, said) =
            run(&["log", "salvage", "--from", &staged, "--to", &new, "--report", &report]);
        assert!(code == Some(0) || code == Some(4), "{name}: {said}");
        let told: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        let seq = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
        let ranges = told["lost"].as_array().unwrap_or(&Vec::new()).clone();
        let ranges: Vec<_> =
            ranges.iter().map(|row| (seq(&row["from_seq"]), seq(&row["to_seq"]))).collect();
        let lost: u64 = ranges.iter().map(|(from, to)| to + 1 - from).sum();
        assert!(lost > 0, "{name}: {told}");
        // Every event that is not said to be lost is there, as it was.
        let is_lost = |seq: u64| ranges.iter().any(|(from, to)| (*from..=*to).contains(&seq));
        let left: Vec<_> =
            (OLDEST..).zip(&wanted).filter(|it| !is_lost(it.0)).map(|it| it.1.clone()).collect();
        assert!(left == dumped(&new), "{name}");
        assert_eq!(left.len() as u64 + lost, HEAD + 1 - OLDEST, "{name}");
        expect_clean(Path::new(&new));
        let daemon = Daemon::start(Path::new(&new));
        let watch = ["watch", "--json", "--from", "oldest", "--until-caught-up"];
        let seen =
            daemon.output(&[&watch[..], &["--markers", "--on-lost", "oldest"]].concat(), b"");
        let is_gap = |line: &&str| line.contains("\"GAP\"") && line.contains("DAMAGED");
        assert!(seen.lines().any(|line| is_gap(&line)), "{name}: {seen}");
        daemon.stop();
        // A whole block is had wherever it lies.
        let sealed = ranges.len() as u64;
        assert!(is_all || lost < 1_000 && sealed < 20, "{name}: {lost} in {sealed} ranges");
        for made in [&staged, &new, &to] {
            std::fs::remove_dir_all(made).unwrap();
        }
        std::fs::remove_file(&report).unwrap();
    }
    // The null control: of a whole place nothing is damaged.
    let (to, staged) = (path("to"), path("staged"));
    assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
    let (code, _, said) = run(&["restore", &to, "--keep-damaged", "--data-dir", &staged]);
    assert_eq!(code, Some(0), "{said}");
    assert!(dumped(&staged) == wanted);
}

/// What is whole up to a point within a damaged segment, by seq and by time.
#[tokio::test]
async fn what_is_whole_up_to_a_point_within_a_damaged_segment_is_had() {
    let dir = tempfile::tempdir().unwrap();
    life(dir.path()).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, to) = (path("data"), path("to"));
    let wanted = dumped(&data);
    let info = tailmark::inspect::info(Path::new(&data)).unwrap();
    let (first, end) = (info.segments[1].first.get(), info.segments[1].last.get() + 1);
    let point = (first + end) / 2;
    for (name, hurt, is_all) in CASES {
        assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
        hurt(&segments(&to)[1]);
        let (staged, new) = (path("staged"), path("new"));
        let seq = point.to_string();
        let keep =
            ["restore", &to, "--keep-damaged", "--to-seq", &seq, "--json", "--data-dir", &staged];
        let (code, text, said) = run(&keep);
        assert!(code == Some(4) && said.contains("log salvage"), "{name}: {said}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(!json["damage"].as_array().unwrap().is_empty(), "{name}: {text}");
        let head: u64 = json["head_seq"].as_str().unwrap().parse().unwrap();
        // Without a footer nothing is known within it.
        let has_footer = !name.contains("footer") && !name.contains("all of it");
        assert_eq!(head, if has_footer { point } else { first - 1 }, "{name}");
        let (code, _, said) = run(&["log", "salvage", "--from", &staged, "--to", &new]);
        assert!(code == Some(0) || code == Some(4), "{name}: {said}");
        expect_clean(Path::new(&new));
        let found = dumped(&new);
        let before = &wanted[..(head + 1 - OLDEST) as usize];
        assert!(found.iter().all(|event| before.contains(event)), "{name}");
        let most = if is_all || !has_footer { u64::MAX } else { 1_000 };
        let least = (head + 1 - OLDEST).saturating_sub(most).max(first - OLDEST);
        assert!(found.len() as u64 >= least, "{name}: {} of {}", found.len(), before.len());
        assert!(!has_footer || found.len() < before.len(), "{name}: nothing was damaged");
        for made in [&staged, &new, &to] {
            std::fs::remove_dir_all(made).unwrap();
        }
    }
    // By time: everything has a stamp within it.
    assert_eq!(run(&["backup", &to, "--data-dir", &data]).0, Some(0));
    let at = |nth: u64| {
        let event: Value = serde_json::from_str(&wanted[(nth - OLDEST) as usize]).unwrap();
        event["appended_at"].as_str().unwrap().to_owned()
    };
    let time = at(point);
    let run_to = |name: &str| {
        let staged = path(name);
        let keep =
            ["restore", &to, "--keep-damaged", "--to-time", &time, "--json", "--data-dir", &staged];
        let (code, text, said) = run(&keep);
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{said}"));
        (code, json["head_seq"].as_str().unwrap().parse::<u64>().unwrap())
    };
    let whole = run_to("whole");
    assert!(whole.0 == Some(0) && whole.1 >= point && at(whole.1) == time, "{whole:?}");
    (CASES[0].1)(&segments(&to)[1]);
    let (code, head) = run_to("hurt");
    assert!(code == Some(4) || head < point, "{code:?}");
    assert!(first - 1 <= head && head <= whole.1, "{head} of {}", whole.1);
}

/// Every event that can be read, as JSON.
fn dumped(dir: &str) -> Vec<String> {
    let (_, text, _) = run(&["log", "dump", "--data-dir", dir]);
    let is_event = |line: &&str| line.contains("\"appended_at\"");
    text.lines().filter(is_event).map(str::to_owned).collect()
}
