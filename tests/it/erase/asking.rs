//! `tailmark erase` by hand: what it asks, what it refuses, what it says.

use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;

use super::next;
use crate::support::daemon::{Daemon, feed, program};
use crate::support::server::within;
use crate::support::terminal::Terminal;

fn daemon_with_events(dir: &std::path::Path) -> Daemon {
    let daemon = Daemon::start(dir);
    let lines = r#"{"topic":"u.ann","body":"one","key":"k"}
{"topic":"u.bob","body":"two"}
{"topic":"u.ann","body":"three"}
"#;
    daemon.output(&["upload", "--format", "jsonl"], lines.as_bytes());
    daemon
}

#[test]
fn what_is_asked_for_wrongly_is_told_by_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon_with_events(dir.path());
    let cases: [(&[&str], i32, &str); 14] = [
        (&["erase", "--reason", "r", "--yes"], 2, "<SEQ>"),
        (&["erase", "1", "--yes"], 2, "--reason"),
        (&["erase", "1", "--reason", "r"], 2, "say --yes where no terminal is"),
        (&["erase", "1", "--topic", "a", "--reason", "r", "--yes"], 2, "cannot be used with"),
        (&["erase", "--topic", "u.ann", "--key", "", "--reason", "r", "--yes"], 2, "--key"),
        (&["erase", "1", "--key", "k", "--reason", "r", "--yes"], 2, "--key: goes with a topic"),
        (&["erase", "0", "--reason", "r", "--yes"], 2, "the first event has seq 1"),
        (&["erase", "3-1", "--reason", "r", "--yes"], 2, "3 is above 1"),
        (&["erase", "x", "--reason", "r", "--yes"], 2, "expected SEQ or FIRST-LAST"),
        (&["erase", "4", "--reason", "r", "--yes"], 2, "SEQ: lies beyond the head"),
        (&["erase", "1", "3-9", "--reason", "r", "--yes"], 2, "SEQ 2: lies beyond the head"),
        (
            &["erase", "--topic", "a..b", "--reason", "r", "--yes"],
            2,
            "--topic: has an empty segment",
        ),
        (&["erase", "--topic", "a", "--before", "1", "--dry-run"], 2, "nothing lies before it"),
        (&["erase", "1", "--reason", "", "--yes"], 2, "--reason: say why"),
    ];
    for (args, code, says) in cases {
        let output = daemon.run(args, b"");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    // Nothing of that did anything.
    assert!(
        daemon.output(&["watch", "--from", "oldest", "--until-caught-up"], b"").contains("one")
    );
}

#[test]
fn a_dry_run_tells_and_erases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon_with_events(dir.path());
    let told = daemon.output(&["erase", "--topic", "u.*", "--before", "3", "--dry-run"], b"");
    let lines: Vec<_> = told.lines().collect();
    assert!(
        lines[0].starts_with("2 events, from 1 (20") && lines[0].contains(" to 2 (20"),
        "{told}"
    );
    assert_eq!(lines[1..], ["  u.ann  1", "  u.bob  1"]);
    let json = daemon.output(&["erase", "1-3", "--dry-run", "--json"], b"");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["events"], &json["first_seq"], &json["last_seq"]),
        (&"3".into(), &"1".into(), &"3".into())
    );
    assert_eq!(json["topics"][0], serde_json::json!({"topic": "u.ann", "events": "2"}));
    let none = daemon.output(&["erase", "--topic", "u.ann", "--key", "other", "--dry-run"], b"");
    assert_eq!(none, "0 events\n");
    let nothing = ["erase", "--topic", "nobody", "--reason", "r", "--yes"];
    assert_eq!(daemon.output(&nothing, b""), "nothing to erase\n");
    assert_eq!(daemon.output(&["get", "1", "--raw"], b""), "one\n");
}

/// On a terminal it shows what it is about, and takes no for an answer; and what came since is not meant.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks_first() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon_with_events(dir.path());
    let start = || {
        let mut command = program(&["erase", "--topic", "u.ann", "--reason", "her wish", "--addr"]);
        command.arg(daemon.url()).env("TERM", "xterm");
        Terminal::start(command)
    };
    let mut refuses = start();
    refuses.shows("Go on? [y/N]").await;
    let screen = refuses.screen();
    assert!(screen.contains("2 events, from 1") && screen.contains("u.ann  2"), "{screen}");
    refuses.type_keys("n\r");
    assert_eq!(refuses.ends().await, Some(1));
    assert_eq!(daemon.output(&["get", "1", "--raw"], b""), "one\n");
    let mut agrees = start();
    agrees.shows("Go on? [y/N]").await;
    daemon.output(&["publish", "u.ann", "later"], b"");
    agrees.type_keys("y\r");
    assert_eq!(agrees.ends().await, Some(0), "{}", agrees.screen());
    assert!(agrees.screen().contains("2 events erased"), "{}", agrees.screen());
    let ann = daemon.output(
        &["watch", "u.ann", "--from", "oldest", "--until-caught-up", "--columns", "seq,body"],
        b"",
    );
    let lines: Vec<_> = ann.lines().take(3).collect();
    assert_eq!(lines, ["1\t(erased: her wish)", "3\t(erased: her wish)", "4\tlater"]);
}

/// One at a time: who asks meanwhile is told by whom.
#[tokio::test(flavor = "multi_thread")]
async fn another_one_has_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon_with_events(dir.path());
    let lines: String = (0..200_000).map(|at| format!("{at} {}\n", "x".repeat(40))).collect();
    daemon.output(&["upload", "--topic", "many", "-"], lines.as_bytes());
    let client = Client::new(daemon.url()).unwrap();
    let first = pb::EraseRequest { topic: "many".into(), reason: "r".into(), ..Default::default() };
    let mut erasing = within("erase", client.erase(first.clone())).await.unwrap();
    // A dry run changes nothing, and need not wait.
    let dry_run = pb::EraseRequest { topic: "u.*".into(), dry_run: true, ..Default::default() };
    let mut dry_run = within("a dry run", client.erase(dry_run)).await.unwrap();
    let mut found = None;
    while let Some(progress) = next(&mut dry_run).await.unwrap() {
        found = progress.selection;
    }
    assert!(found.is_some_and(|it| it.events > 0));
    let second = within("erase", client.erase(first)).await.map(drop).unwrap_err();
    assert_eq!((second.reason(), second.code()), ("ERASURE_RUNNING", "ABORTED"));
    assert!(!second.may_have_applied());
    let mut seen = Vec::new();
    while let Some(progress) = next(&mut erasing).await.unwrap() {
        seen.push(progress);
    }
    let result = seen.last().and_then(|last| last.result.clone()).expect("a result");
    assert_eq!((result.events, result.erasure.as_str()), (200_000, erasing.erasure().unwrap()));
    // Each phase comes after the one before, and what is done does not become less in it.
    for two in seen.windows(2) {
        let (before, after) = (&two[0], &two[1]);
        assert!(before.phase <= after.phase, "{before:?} {after:?}");
        assert!(
            before.phase != after.phase || before.events_done <= after.events_done,
            "{before:?} {after:?}"
        );
    }
    let status = feed(program(&["status", "--addr"]).arg(daemon.url()), b"");
    assert!(!String::from_utf8_lossy(&status.stdout).contains("erasing"));
}

/// A sender can make an event that looks like a notice: a person's request is not done while one is left and not told.
#[test]
fn what_looks_like_a_notice_is_left_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon_with_events(dir.path());
    let forged = ["publish", "u.ann", "hers", "--type", "tailmark.erased", "--id", "erased-1"];
    daemon.output(&forged, b"");
    let told = daemon.output(&["erase", "--topic", "u.ann", "--dry-run"], b"");
    let stays = "1 of type tailmark.erased stay";
    assert!(told.starts_with("2 events") && told.contains(stays), "{told}");
    let erase = ["erase", "--topic", "u.ann", "--reason", "r", "--yes"];
    let told = daemon.output(&erase, b"");
    assert!(told.starts_with("2 events erased") && told.contains(stays), "{told}");
    // By now there is one that is a notice.
    let told = daemon.output(&[&erase[..], &["--json"]].concat(), b"");
    let json: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((json.get("events"), &json["left_notices"]), (None, &"2".into()), "{told}");
    daemon.output(&["erase", "4", "--reason", "r", "--yes"], b"");
    assert_eq!(daemon.run(&["get", "4", "--raw"], b"").stdout, b"");
}
