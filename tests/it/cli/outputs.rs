//! What a command says, and what it does when nobody can be told.

use std::fs::File;

use super::*;
use crate::support::logdir;

/// Takes nothing.
fn full() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

#[track_caller]
fn assert_told(mut command: Command) {
    let output = command.stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{command:?}: {said}");
    assert!(said.contains("error: ") && !said.contains("panicked"), "{command:?}: {said}");
    assert!(said.contains("standard output: No space left"), "{command:?}: {said}");
    assert!(said.contains("the disk that it writes to is full"), "{command:?}: {said}");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let daemon = Daemon::start();
    daemon.store("a", &["1", "2"]);
    let dir = logdir::sealed_log();
    let input = tempfile::tempdir().unwrap();
    let file = input.path().join("lines");
    std::fs::write(&file, "one\n").unwrap();
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "watch"],
        &["log", "dump", "--help"],
        &["completions", "bash"],
        &["config", "check"],
        &["config", "print"],
        &["config", "print", "--json"],
        &["config", "print", "--default"],
    ] {
        assert_told(tailmark(args));
    }
    for args in [
        &["publish", "a", "b"][..],
        &["publish", "a", "b", "--json"],
        &["upload", "--topic", "a", "--json", file.to_str().unwrap()],
        &["watch", "--from", "oldest", "--until-caught-up"],
        &["watch", "--from", "oldest", "--limit", "1", "--json"],
        &["status"],
        &["status", "--json"],
        &["topics"],
        &["topics", "--json"],
        &["metrics", "--once"],
        &["trim", "--before", "2", "--yes"],
        &["bench", "append", "--events", "1", "--publishes", "1"],
    ] {
        assert_told(daemon.command(args));
    }
    for args in [
        &["info"][..],
        &["info", "--json"],
        &["dump"],
        &["verify"],
        &["verify", "--json"],
        &["explain", "7"],
        &["explain", "7", "--json"],
        &["migrate", "--dry-run"],
        &["migrate"],
    ] {
        let mut command = tailmark(&["log"]);
        command.args(args).arg("--data-dir").arg(dir.path());
        assert_told(command);
    }
}

fn run_with_full_stderr(mut command: Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(full());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn notices_that_nobody_takes_change_nothing() {
    let mut check = tailmark(&["config", "check"]);
    check.env("TAILMARK_LIMITS_EVENT_BYTES", "512 KiB").env("TAILMARK_STORAGE_SLOT_BYTES", "1 MiB");
    let heard = check.output().unwrap();
    assert!(stderr(&heard).starts_with("warning: limits.event_bytes"), "{}", stderr(&heard));
    let checked = run_with_full_stderr(check);
    assert_eq!((code(&checked), stdout(&checked)), (0, "the settings are fine\n"));

    let dir = logdir::sealed_log();
    let slots = std::fs::read_dir(dir.path().join("journal")).unwrap();
    let mut slots = slots.map(|entry| entry.unwrap().path());
    let found = slots.find_map(|slot| logdir::find(&slot, b"event 5000 ").map(|at| (slot, at)));
    let (slot, at) = found.unwrap();
    logdir::flip(&slot, at);
    let dump = || {
        let mut command = tailmark(&["log", "dump", "--data-dir"]);
        command.arg(dir.path());
        command
    };
    let heard = dump().output().unwrap();
    assert_eq!(code(&heard), 4, "{}", stderr(&heard));
    assert!(stderr(&heard).starts_with("damaged: event"), "{}", stderr(&heard));
    assert!(stderr(&heard).contains("1 damaged range left out; "), "{}", stderr(&heard));
    let dumped = run_with_full_stderr(dump());
    assert_eq!(code(&dumped), 4);
    assert!(dumped.stdout == heard.stdout);

    let daemon = Daemon::start();
    daemon.store("a", &["1", "2"]);
    assert_ok(&daemon.run(&["trim", "--before", "2", "--yes"]));
    let args = ["watch", "--after", "0", "--on-lost", "oldest", "--until-caught-up", "--json"];
    let watched = run_with_full_stderr(daemon.command(&args));
    assert_eq!((code(&watched), bodies(stdout(&watched))), (0, vec!["2".to_owned()]));
}

#[test]
fn one_event_is_one_event() {
    let daemon = Daemon::start();
    let input = b"{\"topic\":\"a\",\"id\":\"i\"}\n";
    for expected in
        ["1 event received, 1 stored, 0 duplicates, ", "1 event received, 0 stored, 1 duplicate, "]
    {
        let output = daemon.feed(&["upload", "--format", "jsonl"], input);
        assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
    }
    let bench = daemon.run(&["bench", "append", "--events", "1", "--publishes", "1"]);
    assert!(stdout(&bench).starts_with("append  1 event, "), "{}", stdout(&bench));
    assert!(stdout(&bench).contains("(1 sample)"), "{}", stdout(&bench));
}

#[test]
fn an_upload_that_a_stopping_server_ends_says_what_is_stored() {
    let daemon = Daemon::start();
    let mut child = daemon.spawn(&["upload", "--topic", "a", "--json"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    assert_ok(&daemon.run(&["watch", "--from", "oldest", "--limit", "2"]));
    let events = daemon.run(&["watch", "--from", "2", "--until-caught-up", "--json"]);
    let second: serde_json::Value = serde_json::from_slice(&events.stdout).unwrap();
    daemon.shutdown.cancel();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("stored before it: 2 events, and nothing after; run it again"), "{said}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = &told["error"];
    assert_eq!((&error["code"], &error["reason"]), (&"UNAVAILABLE".into(), &"STOPPING".into()));
    assert_eq!(error["message"], "the server is stopping");
    assert_eq!(error["metadata"]["received"], "2");
    assert_eq!((&told["received"], &told["last_cursor"]), (&2.into(), &second["cursor"]));
}
