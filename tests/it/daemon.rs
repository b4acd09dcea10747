//! The whole program on real events: what goes in comes out, over kills and stops.

mod reload;
mod service_manager;
mod signals;
mod unread_log;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::daemon::{Daemon, feed, program};

const CHANGES: &str = include_str!("../data/changes.jsonl");

/// What went in: by line, with times normalised to UTC.
fn sent() -> Vec<BTreeMap<String, String>> {
    CHANGES.lines().map(|line| said(&serde_json::from_str(line).unwrap())).collect()
}

/// What a sender says of an event.
fn said(event: &Value) -> BTreeMap<String, String> {
    let fields = ["id", "topic", "body", "at"].into_iter().map(|name| {
        let text = event[name].as_str().unwrap();
        let at = (name == "at").then(|| tailmark_record::Timestamp::parse(text).unwrap());
        (name.to_owned(), at.map_or(text.to_owned(), |at| at.to_string()))
    });
    fields.collect()
}

fn parse(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn real_events_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("log");
    let daemon = Daemon::start(&data);
    let upload = ["upload", "--format", "jsonl", "--json", "-"];
    let first: Value = serde_json::from_str(&daemon.output(&upload, CHANGES.as_bytes())).unwrap();
    let count = sent().len();
    assert_eq!((&first["received"], &first["stored"]), (&count.into(), &count.to_string().into()));
    daemon.kill();

    let daemon = Daemon::start(&data);
    let again: Value = serde_json::from_str(&daemon.output(&upload, CHANGES.as_bytes())).unwrap();
    assert_eq!(again["duplicates"], count.to_string());
    assert!(again["stored"].is_null(), "{again}");

    let everything = ["watch", "--from", "oldest", "--until-caught-up", "--json"];
    let all = parse(&daemon.output(&everything, b""));
    assert_eq!(all.iter().map(said).collect::<Vec<_>>(), sent());
    let seqs: Vec<_> = all.iter().map(|event| event["seq"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seqs, (1..=count).map(|seq| seq.to_string()).collect::<Vec<_>>());

    let topic = ["watch", "etcd.raft", "--from", "oldest", "--until-caught-up", "--json"];
    let raft = parse(&daemon.output(&topic, b""));
    let expected: Vec<_> = sent().into_iter().filter(|e| e["topic"] == "etcd.raft").collect();
    assert!(!expected.is_empty());
    assert_eq!(raft.iter().map(said).collect::<Vec<_>>(), expected);

    let cursor = all[count / 2]["cursor"].as_str().unwrap();
    let after = ["watch", "--after", cursor, "--until-caught-up", "--json"];
    assert_eq!(parse(&daemon.output(&after, b"")), all[count / 2 + 1..]);
    assert_eq!(daemon.stop(), Some(0));

    // Offline, and back in: a dump is what an upload takes.
    let mut dump = program(&["log", "dump", "--data-dir"]);
    let dumped = feed(dump.arg(&data), b"");
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    assert_eq!(parse(std::str::from_utf8(&dumped.stdout).unwrap()), all);
    let copy = Daemon::start(&dir.path().join("copy"));
    copy.output(&upload, &dumped.stdout);
    let copied = parse(&copy.output(&everything, b""));
    assert_eq!(copied.iter().map(said).collect::<Vec<_>>(), sent());
}

#[test]
fn a_second_daemon_on_a_data_directory_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Daemon::start(dir.path());
    let mut second = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    let output = feed(second.arg(dir.path()), b"");
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("in use by another process") && said.contains("hint:"), "{said}");
}

#[test]
fn a_daemon_raises_the_limit_of_open_files_to_what_its_connections_need() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(dir.path(), "ulimit -Sn 256 && exec \"$0\" \"$@\"");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<u64> = files.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let (soft, hard) = (numbers[0], *numbers.get(1).unwrap_or(&u64::MAX));
    assert!(soft > 4_096 || soft == hard, "{files}");
}
