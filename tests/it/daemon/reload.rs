//! SIGHUP where no terminal is: the settings are read again.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::server::until;

struct Reloading {
    daemon: Daemon,
    settings: PathBuf,
    log: PathBuf,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Reloading {
    fn start(settings: &str) -> Reloading {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (file, log) = (path("config.toml"), path("daemon.log"));
        std::fs::write(&file, settings).unwrap();
        let shell = format!(
            "export TAILMARK_CONFIG={}; exec setsid \"$0\" \"$@\" 2>{}",
            file.display(),
            log.display()
        );
        let daemon = Daemon::start_with(&path("data"), &shell);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Reloading { daemon, settings: file, log, runtime, _dir: dir }
    }

    fn hang_up(&self) {
        let pid = rustix::process::Pid::from_raw(self.daemon.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// Puts these settings in the file, and waits until the log says this for the `nth` time.
    fn reload(&self, settings: &str, text: &str, nth: usize) {
        std::fs::write(&self.settings, settings).unwrap();
        self.hang_up();
        self.says(text, nth);
    }

    fn says(&self, text: &str, nth: usize) {
        self.runtime.block_on(until(text, || said(&self.log).matches(text).count() >= nth));
    }

    fn oldest(&self) -> String {
        let status = self.daemon.output(&["status", "--json"], b"");
        let status: Value = serde_json::from_str(&status).unwrap();
        status["oldest_seq"].as_str().unwrap_or("0").to_owned()
    }

    /// The status of an answer to a request for this host.
    fn ask(&self, host: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.daemon.address()).unwrap();
        let ask = format!("GET /v1/log HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap()
}

#[test]
fn what_may_change_changes_and_what_needs_a_restart_is_named() {
    let it = Reloading::start("[retention]\ninterval = \"10ms\"\n");
    it.daemon.output(&["upload", "--topic", "a", "-"], "x\n".repeat(10).as_bytes());
    assert_eq!((it.oldest().as_str(), it.ask("log.example").as_str()), ("1", "403"));
    assert!(!said(&it.log).contains("DEBUG"));
    it.reload(
        "[retention]\ninterval = \"10ms\"\nmax_events = 3\n\
         [telemetry]\nlog_level = \"debug\"\n\
         [http]\nallowed_hosts = [\"log.example\"]\n\
         [storage]\nseal_after = \"2h\"\n[limits]\nwatches = 7\n",
        "some need a restart",
        1,
    );
    let line = said(&it.log);
    let line = line.lines().find(|line| line.contains("some need a restart")).unwrap();
    for (field, keys) in [
        ("taken", &["telemetry.log_level", "retention.max_events", "http.allowed_hosts"][..]),
        ("need_restart", &["storage.seal_after", "limits.watches"]),
    ] {
        let value = line.split(&format!("{field}=\"")).nth(1).unwrap().split('"').next().unwrap();
        let mut told: Vec<_> = value.split(' ').collect();
        let mut expected = keys.to_vec();
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!(told, expected, "{field}");
    }
    it.runtime.block_on(until("retention", || it.oldest() == "8"));
    assert_eq!(it.ask("log.example"), "200");
    assert!(said(&it.log).contains("DEBUG"));
    // Once more: what needs a restart still does.
    it.hang_up();
    it.says("some need a restart", 2);
    // And back.
    it.reload("", "retention.max_events", 2);
    assert_eq!(it.ask("log.example"), "403");
    it.daemon.output(&["upload", "--topic", "a", "-"], "x\n".repeat(10).as_bytes());
    assert_eq!(it.oldest(), "8");
    it.hang_up();
    it.says("none has changed", 1);
    assert_eq!(it.daemon.stop(), Some(0));
}

#[test]
fn settings_that_are_wrong_change_nothing_and_are_said_loudly() {
    let good = "[retention]\ninterval = \"10ms\"\nmax_events = 3\n";
    let it = Reloading::start(good);
    for (nth, (bad, part)) in [
        ("[retention\n", "config.toml:1"),
        ("[retention]\nmax_evnts = 1\n", "unknown field `max_evnts`"),
        ("[retention]\nmax_events = 1\n[telemetry]\nlog_level = \"loud\"\n", "`loud` is no level"),
        ("[retention]\nmax_events = 1\ninterval = \"2h\"\n", "config.toml:3: retention.interval"),
    ]
    .into_iter()
    .enumerate()
    {
        it.reload(bad, "the settings are not taken", nth + 1);
        let said = said(&it.log);
        let line = said.lines().rfind(|line| line.contains("not taken")).unwrap();
        assert!(line.contains("ERROR") && line.contains(part), "{bad}: {line}");
    }
    std::fs::remove_file(&it.settings).unwrap();
    it.hang_up();
    it.says("cannot read", 1);
    // The old ones are in force.
    it.daemon.output(&["upload", "--topic", "a", "-"], "x\n".repeat(10).as_bytes());
    it.runtime.block_on(until("retention", || it.oldest() == "8"));
    // And a good file is taken after all.
    it.reload("[telemetry]\nlog_level = \"debug\"\n", "taken=", 1);
    assert_eq!(it.daemon.stop(), Some(0));
}

#[test]
fn a_level_that_hides_the_report_is_reported_before_it_is_in_force() {
    let it = Reloading::start("");
    let off = "[telemetry]\nlog_level = \"off\"\n[limits]\nwatches = 7\n";
    it.reload(off, "taken=\"telemetry.log_level\" need_restart=\"limits.watches\"", 1);
    // And after, where that is louder.
    it.reload("[telemetry]\nlog_level = \"info\"\n", "taken=\"telemetry.log_level\"", 2);
    // One line that only information tells, and which is hidden at once.
    it.reload("[telemetry]\nlog_level = \"error\"\n", "taken=\"telemetry.log_level\"", 3);
    assert_eq!(it.daemon.stop(), Some(0));
    assert!(!said(&it.log).contains("closed"), "{}", said(&it.log));
}
