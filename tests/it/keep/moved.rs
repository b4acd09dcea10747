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
