//! A log moves to another machine, as `docs/operations.md` says it: every watch goes on.

use std::process::{Command, Stdio};

use crate::support::daemon::{Daemon, feed, program};
use crate::support::kept::expect_clean;

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{n}\n")).collect()
}

#[test]
fn a_log_moves_as_a_directory_or_through_a_pipe_and_watches_go_on() {
    for by_pipe in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (data, moved, state) = (path("data"), path("moved"), path("state"));
        let daemon = Daemon::start(&dir.path().join("data"));
        daemon.output(&["upload", "--topic", "a", "-"], lines(0..300).as_bytes());
        let watch = ["watch", "--json", "--from", "oldest", "--state", &state, "--until-caught-up"];
        assert_eq!(daemon.output(&watch, b"").lines().count(), 300);
        daemon.output(&["upload", "--topic", "a", "-"], lines(300..400).as_bytes());
        daemon.stop();
        if by_pipe {
            let mut export = program(&["log", "export", "--data-dir", &data]);
            let mut export = export.stdout(Stdio::piped()).spawn().unwrap();
            let mut import = program(&["log", "import", "--exact", "-", "--data-dir", &moved]);
            let import =
                import.stdin(export.stdout.take().unwrap()).stdout(Stdio::null()).status().unwrap();
            assert!(export.wait().unwrap().success() && import.success());
        } else {
            let copied = Command::new("cp").args(["-a", &data, &moved]).status().unwrap();
            assert!(copied.success());
        }
        std::fs::remove_dir_all(&data).unwrap();
        expect_clean(&dir.path().join("moved"));
        let done = feed(&mut program(&["log", "verify", "--data-dir", &moved]), b"");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let daemon = Daemon::start(&dir.path().join("moved"));
        daemon.output(&["upload", "--topic", "a", "-"], lines(400..410).as_bytes());
        let seen = daemon.output(&watch, b"");
        let body = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["body"].clone();
        let bodies = seen.lines().map(|line| body(line).as_str().unwrap().parse::<u32>().unwrap());
        assert!(bodies.eq(300..410), "{by_pipe} {seen}");
        daemon.stop();
    }
}

/// What a log's limits mean goes by its slots: they are as large in a log that is made of a copy.
#[test]
fn a_log_that_is_made_of_a_copy_keeps_what_its_limits_allow() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, place, file) = (path("data"), path("place"), path("file"));
    let daemon = Daemon::start(&dir.path().join("data"));
    let body = "x".repeat(500);
    let text: String = (0..4_000).map(|n| format!("{n} {body}\n")).collect();
    daemon.output(&["upload", "--topic", "a", "-"], text.as_bytes());
    assert_eq!(daemon.stop(), Some(0));
    let run = |args: &[&str]| {
        let done = feed(&mut program(args), b"");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let slot_bytes = |dir: &str| {
        let told = run(&["log", "info", "--data-dir", dir, "--json"]);
        serde_json::from_str::<serde_json::Value>(&told).unwrap()["slot_bytes"].clone()
    };
    run(&["backup", &place, "--data-dir", &data]);
    run(&["restore", &place, "--data-dir", &path("restored")]);
    run(&["log", "export", "--data-dir", &data, "-o", &file]);
    run(&["log", "import", "--exact", &file, "--data-dir", &path("imported")]);
    run(&["log", "export", "--data-dir", &data, "--format", "protobuf", "-o", &path("bytes")]);
    run(&["log", "import", "--exact", &path("bytes"), "--data-dir", &path("of-bytes")]);
    for copy in ["restored", "imported", "of-bytes"] {
        assert_eq!(slot_bytes(&path(copy)), slot_bytes(&data), "{copy}");
        // A limit far above what the log takes, and far below two slots of the usual size.
        let settings = "TAILMARK_RETENTION_MAX_BYTES=64MiB TAILMARK_RETENTION_INTERVAL=20ms exec \"$0\" \"$@\"";
        let daemon = Daemon::start_with(&dir.path().join(copy), settings);
        std::thread::sleep(std::time::Duration::from_millis(300));
        let told = daemon.output(&["status", "--json"], b"");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let bounds = [&told["oldest_seq"], &told["head_seq"]];
        assert_eq!(bounds, ["1", "4000"], "{copy}: {told}");
        daemon.stop();
    }
}
