//! What each signal does to a daemon, with a terminal behind it and without.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::daemon::{Daemon, feed, program};
use crate::support::server::until;
use crate::support::terminal::{self, Terminal};

/// A daemon away from every terminal, as a service manager or a container starts it, and its log.
fn away(dir: &Path) -> (Daemon, PathBuf) {
    let log = dir.join("daemon.log");
    let shell = format!("exec setsid \"$0\" \"$@\" 2>{}", log.display());
    (Daemon::start_with(&dir.join("data"), &shell), log)
}

/// By its number: not all of them have a name everywhere.
fn send(pid: u32, signal: i32) {
    let mut kill = Command::new("kill");
    assert!(kill.args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap()
}

/// Waits until the daemon's log says something.
fn says(log: &Path, text: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(until(text, || said(log).contains(text)));
}

fn last_stop(data: &Path) -> String {
    let output = feed(program(&["log", "info", "--data-dir"]).arg(data), b"");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("stop")).unwrap_or_else(|| panic!("{text}"));
    line.to_owned()
}

const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const TERM: i32 = 15;
const CONT: i32 = 18;
const STOP: i32 = 19;

#[test]
fn signals_that_ask_to_stop_end_a_daemon_in_order() {
    for (signal, name) in [(TERM, "TERM"), (INT, "INT"), (QUIT, "QUIT"), (24, "XCPU"), (30, "PWR")]
    {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, log) = away(dir.path());
        daemon.output(&["publish", "a", "x"], b"");
        send(daemon.id(), signal);
        assert_eq!(daemon.ended(), Some(0), "{name}: {}", said(&log));
        assert!(said(&log).contains("closed"), "{name}: {}", said(&log));
        let stop = last_stop(&dir.path().join("data"));
        assert!(stop.contains("clean") && !stop.contains("unclean"), "{name}: {stop}");
    }
}

#[test]
fn signals_that_mean_nothing_to_a_daemon_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, log) = away(dir.path());
    let named = [
        (10, "USR1"),
        (12, "USR2"),
        (13, "PIPE"),
        (14, "ALRM"),
        (16, "STKFLT"),
        (17, "CHLD"),
        (CONT, "CONT"),
        (23, "URG"),
        (25, "XFSZ"),
        (26, "VTALRM"),
        (27, "PROF"),
        (28, "WINCH"),
        (29, "IO"),
        (34, "RTMIN"),
        (64, "RTMAX"),
    ];
    for (count, (signal, name)) in named.into_iter().enumerate() {
        send(daemon.id(), signal);
        let output = daemon.run(&["publish", "a", name], b"");
        assert!(output.status.success(), "{name}: {}", said(&log));
        let stored = String::from_utf8(output.stdout).unwrap();
        assert!(stored.starts_with(&format!("{} ", count + 1)), "{name}: {stored}");
    }
    // With a word, so that nobody waits for what does not come.
    says(&log, "SIGUSR1");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_daemon_that_was_halted_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, _) = away(dir.path());
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    send(daemon.id(), STOP);
    runtime.block_on(until("it stands", || state(daemon.id()) == 'T'));
    send(daemon.id(), CONT);
    assert!(daemon.output(&["publish", "a", "x"], b"").starts_with("1 "));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn asking_twice_ends_a_daemon_at_once() {
    for (signal, code) in [(TERM, 143), (INT, 130), (QUIT, 131)] {
        let dir = tempfile::tempdir().unwrap();
        let shell = "export TAILMARK_SERVER_SHUTDOWN_GRACE=1h; exec setsid \"$0\" \"$@\"";
        let daemon = Daemon::start_with(dir.path(), shell);
        let line = format!("{}\n", "x".repeat(1_000));
        daemon.output(&["upload", "--topic", "a", "-"], line.repeat(16_000).as_bytes());
        // Takes nothing of all that, so that the stop must wait for it.
        let mut sleeper = std::net::TcpStream::connect(daemon.address()).unwrap();
        let ask =
            format!("GET /v1/watch?from=oldest HTTP/1.1\r\nhost: {}\r\n\r\n", daemon.address());
        std::io::Write::write_all(&mut sleeper, ask.as_bytes()).unwrap();
        assert_eq!(sleeper.read(&mut [0; 1]).unwrap(), 1);
        send(daemon.id(), signal);
        // It has heard: it takes nobody any more.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let is_deaf = || std::net::TcpStream::connect(daemon.address()).is_err();
        runtime.block_on(until("the end of the port", is_deaf));
        send(daemon.id(), signal);
        assert_eq!(daemon.ended(), Some(code));
    }
}

/// `serve` on a terminal, as the first of its session.
fn on_terminal(data: &Path) -> Command {
    let mut serve = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    serve.arg(data).env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
    serve.env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
    terminal::in_session(&serve)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_hangup_stops_a_daemon_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(on_terminal(dir.path()));
    terminal.shows("ready on").await;
    terminal.signal(rustix::process::Signal::HUP);
    assert_eq!(terminal.ends().await, Some(0), "{}", terminal.screen());
    assert!(terminal.screen().contains("closed"), "{}", terminal.screen());
}

/// Reads from a terminal until it shows this; answers all of it.
fn read_until(near: &mut std::fs::File, text: &str) -> String {
    let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&shown).contains(text) {
        let count = near.read(&mut bytes).unwrap();
        shown.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn a_daemon_whose_terminal_is_closed_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut near, far) = terminal::open();
    let mut command = on_terminal(dir.path());
    terminal::attach(&mut command, far);
    let mut child = command.spawn().unwrap();
    // What it has of the far end belongs to it alone now.
    drop(command);
    read_until(&mut near, "ready on");
    drop(near);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let stop = last_stop(dir.path());
    assert!(stop.contains("clean") && !stop.contains("unclean"), "{stop}");
}

#[test]
fn under_nohup_a_daemon_outlives_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (mut near, far) = terminal::open();
    let serve = on_terminal(dir.path());
    // What nohup does, without its redirections.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    command.arg(serve.get_program()).args(serve.get_args());
    command
        .env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB")
        .env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
    terminal::attach(&mut command, far);
    let mut child = command.spawn().unwrap();
    drop(command);
    let shown = read_until(&mut near, " try:");
    let address = shown.split("ready on ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let address = format!("http://{address}");
    drop(near);
    send(child.id(), HUP);
    let mut publish = program(&["publish", "a", "x", "--addr", &address]);
    publish.stdout(Stdio::null());
    assert!(publish.status().unwrap().success());
    assert!(child.try_wait().unwrap().is_none());
    send(child.id(), TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_a_shell_runs_in_the_background_is_not_stopped_from_the_keyboard() {
    let dir = tempfile::tempdir().unwrap();
    let shell = "trap '' INT QUIT; exec setsid \"$0\" \"$@\"";
    let daemon = Daemon::start_with(dir.path(), shell);
    for signal in [INT, QUIT, INT] {
        send(daemon.id(), signal);
        daemon.output(&["publish", "a", "x"], b"");
    }
    assert_eq!(daemon.stop(), Some(0));
}
