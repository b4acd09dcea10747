//! The whole daemon under a wall clock that is wrong. Debian's `libfaketime` makes it so.

use std::path::Path;
use std::process::Command;

use crate::support::daemon::{Daemon, program};

/// What makes the clock of one process wrong, and no other. `$LIB` is the loader's.
fn off(by: &str) -> [(&'static str, String); 3] {
    [
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1".to_owned()),
        ("FAKETIME", by.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// Whether clocks can be made wrong here; it is tried. Where they cannot the tests fail, unless they were told
/// to go without.
fn is_there() -> bool {
    let year = Command::new("date").arg("+%Y").envs(off("-60y")).output().unwrap().stdout;
    if year.starts_with(b"19") {
        return true;
    }
    assert!(
        std::env::var_os("WITHOUT_FAKETIME").is_some(),
        "libfaketime is missing: install it (Debian: apt-get install libfaketime), or set \
         WITHOUT_FAKETIME=1 to leave these tests out"
    );
    println!("LEFT OUT: libfaketime is missing and WITHOUT_FAKETIME is set");
    false
}

/// A daemon whose clock is off by so much; what it says is in `errors`.
fn start(dir: &Path, by: &str, errors: &Path) -> Daemon {
    let settings: Vec<_> =
        off(by).iter().map(|(name, value)| format!("{name}='{value}'")).collect();
    let shell = format!("exec env {} \"$0\" \"$@\" 2>'{}'", settings.join(" "), errors.display());
    Daemon::start_with(dir, &shell)
}

/// One request over HTTP/1.1, and all that is answered.
fn http(daemon: &Daemon, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(daemon.address()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(daemon: &Daemon, path: &str) -> String {
    let host = daemon.address();
    http(daemon, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
}

/// Something of each kind; every answer must come.
fn use_it(daemon: &Daemon, has_date: bool) {
    daemon.output(&["publish", "orders", "one"], b"");
    daemon.output(&["upload", "--topic", "orders"], b"two\nthree\n");
    let seen = daemon.output(&["watch", "--from", "oldest", "--until-caught-up", "--json"], b"");
    assert_eq!(seen.lines().filter(|line| line.contains("\"seq\"")).count(), 3, "{seen}");
    daemon.output(&["status"], b"");
    daemon.output(&["topics"], b"");
    let paths = ["/healthz", "/readyz", "/metrics", "/v1/log", "/v1/events/1", "/v1/topics", "/"];
    for path in paths {
        let answer = get(daemon, path);
        let status = if has_date { "200" } else { "503" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        assert_eq!(head.contains("\r\ndate: "), has_date, "{path}: {head}");
    }
    let body = format!(r#"{{"topic":"orders","body":"{}"}}"#, "x".repeat(50_000));
    let (host, len) = (daemon.address(), body.len());
    let stored = http(
        daemon,
        &format!(
            "POST /v1/events HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        ),
    );
    if has_date {
        assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
        // By its own clock, not by ours.
        let recent = get(daemon, "/v1/watch?from=15m&until_caught_up=true");
        assert!(recent.contains("three"), "{recent}");
    } else {
        assert!(stored.contains("CLOCK_OUT_OF_RANGE"), "{stored}");
    }
    daemon.output(&["trim", "--before", "2", "--yes"], b"");
}

#[test]
fn a_daemon_serves_whatever_its_clock_says() {
    if !is_there() {
        return;
    }
    // Now; before 1970, where dates cannot be written; far ahead; beyond year 9999.
    for (by, has_date) in [("+0s", true), ("-60y", false), ("+200y", true), ("+8000y", false)] {
        let place = tempfile::tempdir().unwrap();
        let (dir, errors) = (place.path().join("data"), place.path().join("errors"));
        let daemon = start(&dir, by, &errors);
        use_it(&daemon, has_date);
        assert_eq!(daemon.stop(), Some(0), "{by}");
        let said = std::fs::read_to_string(&errors).unwrap();
        assert!(!said.contains("panic"), "{by}: {said}");
        // Opened again under a clock that is right, and looked at.
        let daemon = start(&dir, "+0s", &errors);
        daemon.output(&["publish", "orders", "after"], b"");
        let page = get(&daemon, "/metrics");
        let is_ahead = by.starts_with('+') && by != "+0s";
        let trouble = format!("tailmark_trouble{{part=\"clock\"}} {}", u8::from(is_ahead));
        assert!(page.contains(&trouble), "{by}: {page}");
        // The log itself works: nobody is to be woken for it.
        assert!(page.contains("tailmark_trouble{part=\"log\"} 0"), "{by}: {page}");
        let status = daemon.output(&["status"], b"");
        assert_eq!(status.contains("stamped ahead"), is_ahead, "{by}: {status}");
        assert_eq!(daemon.stop(), Some(0), "{by}");
        let said = std::fs::read_to_string(&errors).unwrap();
        assert_eq!(said.contains("ahead of this machine's clock"), is_ahead, "{by}: {said}");
        let verified = program(&["log", "verify", "--data-dir"]).arg(&dir).output().unwrap();
        assert!(verified.status.success(), "{by}: {verified:?}");
    }
}

#[test]
fn commands_run_whatever_their_clock_says() {
    if !is_there() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&place.path().join("data"));
    for by in ["-60y", "+200y", "+8000y"] {
        for args in [
            &["publish", "orders", "one"][..],
            &["watch", "--from", "15m", "--limit", "1", "--until-caught-up"],
            &["watch", "--from", "oldest", "--until-caught-up", "--json"],
            &["status"],
            &["topics"],
            &["bench", "append", "--events", "100", "--ids"],
        ] {
            let mut command = program(args);
            let output = command.arg("--addr").arg(daemon.url()).envs(off(by)).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            let is_fine = output.status.success() && !errors.contains("panic");
            assert!(is_fine, "{by} {args:?}: {errors}");
        }
    }
}

#[test]
fn commands_that_go_by_time_say_that_stamps_lie_ahead() {
    if !is_there() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (dir, errors) = (place.path().join("data"), place.path().join("errors"));
    let right = Daemon::start(&dir);
    right.output(&["publish", "orders", "one"], b"");
    let by_time: [&[&str]; 2] = [
        &["trim", "--before", "1h", "--yes"],
        &["watch", "--from", "1h", "--until-caught-up", "--json"],
    ];
    let said = |daemon: &Daemon, args: &[&str]| {
        let output = daemon.run(args, b"");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    for args in by_time {
        assert!(!said(&right, args).1.contains("ahead"), "{args:?}");
    }
    assert_eq!(right.stop(), Some(0));
    let ahead = start(&dir, "+365d", &errors);
    ahead.output(&["publish", "orders", "two"], b"");
    assert_eq!(ahead.stop(), Some(0));
    let right = Daemon::start(&dir);
    right.output(&["publish", "orders", "three"], b"");
    for args in by_time {
        let (_, said) = said(&right, args);
        assert!(said.contains("stamped ahead of this machine's clock"), "{args:?}: {said}");
    }
    let (seen, _) = said(&right, by_time[1]);
    assert_eq!(seen.lines().filter(|line| line.contains("\"seq\"")).count(), 3, "{seen}");
    // By sequence number nothing is to be said.
    for args in [&["watch", "--from", "1", "--limit", "1"][..], &["trim", "--before", "2", "--yes"]]
    {
        assert!(!said(&right, args).1.contains("ahead"), "{args:?}");
    }
    // A trim by time has kept what is stamped ahead, and one more by time does.
    let (answer, told) = said(&right, &["trim", "--before", "0s", "--yes", "--json"]);
    assert!(answer.contains("\"oldest_seq\":\"2\""), "{answer}");
    assert!(told.contains("--before SEQ removes them"), "{told}");
    assert_eq!(right.stop(), Some(0));
}
