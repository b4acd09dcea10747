//! Backups over the network: `Backup`, and `tailmark backup --addr`.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tailmark::backup::{Target, Upto, take};
use tailmark_client::{Client, Kind};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::backup_part::Part;

use super::backups::{is_whole, restored};
use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::{events, expect_clean};
use crate::support::logdir;
use crate::support::server::{PATIENCE, within};

/// Stores lines that take space, and so seals some.
fn fill(daemon: &Daemon, count: u64, from: u64) {
    let mut lines = String::new();
    for at in from..from + count {
        let noise: String =
            (0..60).map(|it| format!("{:x}", (at * 7_919 + it) * 104_729)).collect();
        lines.push_str(&format!("{at} {noise}\n"));
    }
    daemon.output(&["upload", "--topic", "a", "-"], lines.as_bytes());
}

fn backup(daemon: &Daemon, to: &Path, more: &[&str]) -> serde_json::Value {
    let args = [&["backup", to.to_str().unwrap(), "--json"], more].concat();
    serde_json::from_str(&daemon.output(&args, b"")).unwrap()
}

fn number(json: &serde_json::Value, name: &str) -> u64 {
    // A zero is left out.
    json[name].as_str().map_or(0, |text| text.parse().unwrap())
}

/// Waits until so much is sealed; answers it, in order.
fn sealed(data: &Path, count: usize) -> Vec<PathBuf> {
    let begun = std::time::Instant::now();
    let is_named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('0');
    loop {
        let there: Vec<_> = logdir::segments(data).into_iter().filter(is_named).collect();
        if there.len() >= count {
            return there;
        }
        assert!(begun.elapsed() < PATIENCE, "{there:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_log_of_a_running_daemon_is_fetched_and_the_next_time_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    fill(&daemon, 3_000, 0);
    sealed(&data, 3);
    let to = dir.path().join("to");
    let first = backup(&daemon, &to, &[]);
    assert_eq!(number(&first, "head_seq"), 3_000);
    assert_eq!(number(&first, "reused_segments"), 0);
    fill(&daemon, 1_000, 3_000);
    let second = backup(&daemon, &to, &[]);
    assert!(number(&second, "reused_segments") >= number(&first, "segments"), "{second}");
    // From beside it, too: it is the same.
    let third = take(&data, &to, |_| Ok(())).unwrap();
    assert!(third.reused_segments >= number(&second, "segments"), "{third:?}");
    // And into one file.
    let file = dir.path().join("a.tailmark");
    backup(&daemon, &file, &[]);
    daemon.stop();
    let wanted = events(&data);
    for (at, from) in [&to, &file].into_iter().enumerate() {
        is_whole(from, None).unwrap();
        let copy = dir.path().join(format!("copy{at}"));
        restored(from, None, Upto::Head, &copy).unwrap();
        expect_clean(&copy);
        assert!(events(&copy) == wanted);
    }
    let copy = dir.path().join("first");
    restored(&to, first["backup"].as_str(), Upto::Head, &copy).unwrap();
    assert!(events(&copy) == wanted[..3_000]);
}

/// The daemon is killed amid it, and comes back: the command goes on with what came whole.
#[test]
fn a_cut_costs_no_segment_that_came_whole() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    let address = daemon.address();
    fill(&daemon, 6_000, 0);
    sealed(&data, 6);
    let whole = take(&data, &dir.path().join("measured"), |_| Ok(())).unwrap();
    let to = dir.path().join("to");
    let rate = (whole.written_bytes / 4).to_string();
    let mut command = program(&["backup", to.to_str().unwrap(), "--json", "--rate", &rate]);
    command.args(["--addr", daemon.url()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let begun = std::time::Instant::now();
    while std::fs::read_dir(to.join("segments")).map_or(0, Iterator::count) < 3 {
        assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.kill();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("going on in"), "{line}");
    let daemon = Daemon::start_at(&data, address, &[("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB")]);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let written = number(&json, "written_bytes");
    assert!(number(&json, "reused_segments") >= 2, "{json}");
    // What was under way came twice, and so did what is not sealed: no other segment. The start after
    // the kill has sealed more.
    let (_, manifest) = Target::open(&to).unwrap().backup(None).unwrap();
    let largest = manifest.segments.iter().map(|row| row.bytes).max().unwrap();
    let most = manifest.bytes() + largest + whole.manifest.tail_bytes;
    assert!(written <= most, "{written} of {most}");
    is_whole(&to, None).unwrap();
    drop(daemon);
}

/// A client that reads slowly holds up nobody, and what is trimmed before it was sent is looked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_holds_up_no_writer_and_a_trim_is_another_look() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    // More than the windows take.
    fill(&daemon, 30_000, 0);
    let there = sealed(&data, 20);
    let client = Client::new(daemon.url()).unwrap();
    let mut parts = within("backup", client.backup(pb::BackupRequest::default())).await.unwrap();
    let first = within("look", parts.next()).await.unwrap().unwrap();
    assert!(matches!(first.part, Some(Part::Look(_))), "{first:?}");
    // Nothing is read meanwhile.
    for at in 0..100 {
        let event = pb::Event { topic: "b".into(), body: format!("{at}"), ..Default::default() };
        within("publish", client.publish(event, None)).await.unwrap();
    }
    let trimmed = within("trim", client.trim(tailmark_client::Moment::Seq(4_000.into()))).await;
    assert!(trimmed.unwrap().removed > 3_000);
    // What was trimmed goes a moment later; until then it may be read as it was.
    within("what was trimmed goes", async {
        while there[0].exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (mut looks, mut files, mut is_whole) = (1, HashSet::new(), false);
    while let Some(part) = within("part", parts.next()).await.unwrap() {
        match part.part.unwrap() {
            Part::Look(look) => {
                looks += 1;
                assert_eq!(look.oldest_seq, 4_000);
            }
            Part::File(name) => {
                files.insert(name);
            }
            Part::End(_) => is_whole = true,
            _ => assert!(!is_whole, "something follows the end"),
        }
    }
    assert!(is_whole && looks > 1, "{looks} looks");
    assert!(files.contains("tail") && files.len() > 4, "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_looked_at_and_what_is_open_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("data"));
    fill(&daemon, 6_000, 0);
    let client = Client::new(daemon.url()).unwrap();
    let refused = client.backup(pb::BackupRequest { has: vec![1; 15].into() }).await.unwrap_err();
    assert_eq!((refused.kind(), refused.reason()), (Kind::InvalidRequest, "INVALID_FIELD"));
    assert!(client.log().await.unwrap().capabilities.contains(&"backup".to_owned()));
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(within("backup", client.backup(pb::BackupRequest::default())).await.unwrap());
    }
    let over = within("backup", client.backup(pb::BackupRequest::default())).await.unwrap_err();
    let told = (over.reason(), over.metadata("what"));
    assert_eq!(told, ("LIMIT_EXCEEDED", Some("backups_per_address")));
    // Who leaves makes room.
    drop(open);
    let begun = std::time::Instant::now();
    while client.backup(pb::BackupRequest::default()).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// By the program: damage is told, and so is a server that nobody meets.
#[test]
fn what_fails_is_told_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    fill(&daemon, 3_000, 0);
    let segment = sealed(&data, 3).remove(0);
    logdir::flip(&segment.join("db/db"), 5_000);
    let to = dir.path().join("to");
    let done = daemon.run(&["backup", to.to_str().unwrap()], b"");
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(4), "{said}");
    assert!(tailmark::backup::Target::open(&to).unwrap().names().unwrap().is_empty());
    let url = daemon.url().to_owned();
    daemon.kill();
    let nowhere = dir.path().join("nowhere");
    let args = ["backup", nowhere.to_str().unwrap(), "--addr", &url];
    assert_eq!(feed(&mut program(&args), b"").status.code(), Some(5));
    assert!(!nowhere.exists());
    let both = [&args[..], &["--data-dir", "x"]].concat();
    assert_eq!(feed(&mut program(&both), b"").status.code(), Some(2));
}
