//! The commands as processes, against a server over a log in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use tailmark::server::{Options, ServeError, Server};
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::Recovered;
use tailmark_log::storage::memory::{self, Memory};
use tailmark_record::{Event, FingerprintKey, Generation, GenerationTable, LogId, Seq, Timestamp};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::port::Port;
use crate::support::server::within;

mod contexts;
mod files;
mod forms;
mod outputs;
mod refused;
mod shown;
mod signals;
mod terminals;

/// A server that can be stopped and started again over the same log.
struct Daemon {
    runtime: Runtime,
    log: EventLog,
    port: Port,
    task: Option<JoinHandle<Result<(), ServeError>>>,
    shutdown: CancellationToken,
}

impl Daemon {
    fn start() -> Daemon {
        let runtime = Runtime::new().unwrap();
        let generation = Generation { counter: 1, nonce: 1 };
        let id = LogId::new(uuid::Uuid::from_u128(0x1b4e_28ba_2fa1_41d2_883f_0016_d3cc_a427));
        let generations = GenerationTable::created(generation.nonce, Timestamp::EPOCH);
        let key = FingerprintKey::new([7; 16]);
        let engine = Arc::new(Memory::new(id, key, generations, memory::Options::default()));
        let options = eventlog::Options::default();
        let log = EventLog::open(engine, Recovered::default(), options).unwrap();
        let shutdown = CancellationToken::new();
        let mut daemon = Daemon { runtime, log, port: Port::reserve(), task: None, shutdown };
        daemon.listen();
        daemon
    }

    /// Begins to listen, on the same port as before, once the server before has ended.
    fn listen(&mut self) {
        let log = self.log.clone();
        let shutdown = CancellationToken::new();
        self.shutdown = shutdown.clone();
        let (port, before) = (&self.port, self.task.take());
        let listener = self.runtime.block_on(async {
            if let Some(before) = before {
                within("the end of the server before", before).await.unwrap().unwrap();
            }
            port.listen()
        });
        let server = Server::new(log, Options::default()).unwrap();
        self.task = Some(self.runtime.spawn(server.run(vec![listener], shutdown)));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = tailmark(args);
        command.arg("--addr").arg(format!("http://{}", self.port.address));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts with its three streams in our hands.
    fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs with standard input.
    fn feed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn(args);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that stops at a bad line leaves the rest unread.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    fn store(&self, topic: &str, bodies: &[&str]) {
        let mut batch = self.log.batch();
        for body in bodies {
            batch.push(&Event { topic, body, ..Event::default() }).unwrap();
        }
        let appended = self.log.append(batch, eventlog::AppendOptions::default());
        self.runtime.block_on(appended).unwrap();
    }

    fn head(&self) -> u64 {
        self.log.bounds().head.get()
    }
}

fn tailmark(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailmark"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TAILMARK_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").env("XDG_CONFIG_HOME", "/nonexistent").args(args);
    command
}

fn run(args: &[&str]) -> Output {
    tailmark(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

#[track_caller]
fn assert_ok(output: &Output) {
    assert_eq!(code(output), 0, "{}", stderr(output));
}

/// Ends a command as a user does.
fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

fn bodies(jsonl: &str) -> Vec<String> {
    let body = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["body"].as_str().unwrap().to_owned()
    };
    jsonl.lines().map(body).collect()
}

#[test]
fn every_command_has_help() {
    for command in [
        "serve",
        "publish",
        "upload",
        "watch",
        "status",
        "context",
        "context add",
        "get",
        "topics",
        "trim",
        "config",
        "config check",
        "config print",
        "log",
        "log info",
        "log dump",
        "log verify",
        "log explain",
        "log migrate",
        "completions",
    ] {
        let mut args: Vec<_> = command.split(' ').collect();
        args.push("--help");
        let output = run(&args);
        assert_ok(&output);
        assert!(stdout(&output).contains("Usage: tailmark"), "{command}");
    }
    let help = run(&["--help"]);
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "130 "] {
        assert!(stdout(&help).contains(&format!("\n  {code}")), "{code}");
    }
    assert_eq!(code(&run(&["frobnicate"])), 2);
    assert_eq!(code(&run(&[])), 2);
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_ok(&output);
        assert!(stdout(&output).contains("until-caught-up"), "{shell}");
    }
}

#[test]
fn config_commands_check_and_print() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, "[server]\nlisten = \"127.0.0.1:7\"\n").unwrap();
    let path = path.to_str().unwrap();

    assert_ok(&run(&["config", "check", "--config", path]));
    let printed = run(&["config", "print", "--config", path]);
    assert!(stdout(&printed).contains("listen = \"127.0.0.1:7\""), "{}", stdout(&printed));
    assert!(stdout(&printed).contains("t.toml") && stdout(&printed).contains("# default"));
    // What is printed can be read back.
    let again = dir.path().join("again.toml");
    std::fs::write(&again, &printed.stdout).unwrap();
    assert_ok(&run(&["config", "check", "--config", again.to_str().unwrap()]));
    let default = run(&["config", "print", "--default"]);
    assert_eq!(stdout(&default).trim_end(), tailmark::config::DEFAULT_TOML.trim_end());
    for line in stdout(&run(&["config", "print", "--json"])).lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["origin"], "default", "{line}");
    }

    std::fs::write(dir.path().join("bad.toml"), "[server]\n\nlisen = 1\n").unwrap();
    let bad = run(&["config", "check", "--config", dir.path().join("bad.toml").to_str().unwrap()]);
    assert_eq!(code(&bad), 2);
    assert!(stderr(&bad).contains("bad.toml:3: unknown field `lisen`"), "{}", stderr(&bad));
    assert_eq!(code(&run(&["config", "check", "--config", "/nonexistent"])), 3);
    let open = run(&["config", "check", "--listen", "0.0.0.0:1"]);
    assert_eq!(code(&open), 2);
    assert!(stderr(&open).contains("--insecure"), "{}", stderr(&open));
    assert_ok(&run(&["config", "check", "--listen", "0.0.0.0:1", "--insecure"]));
    let printed = run(&["config", "print", "--data-dir", "elsewhere"]);
    assert!(stdout(&printed).contains("data_dir = \"elsewhere\""), "{}", stdout(&printed));
    let typo = tailmark(&["config", "check"]).env("TAILMARK_SERVER_LISEN", "x").output().unwrap();
    assert_eq!(code(&typo), 2);
    assert!(stderr(&typo).contains("TAILMARK_SERVER_LISTEN"), "{}", stderr(&typo));
}

#[test]
fn serve_refuses_what_is_not_safe() {
    let output = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--insecure"), "{}", stderr(&output));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(&["serve", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(code(&output), 5);
    assert!(stderr(&output).contains("cannot listen on"), "{}", stderr(&output));
}

#[test]
fn an_address_to_connect_to_is_for_clients() {
    for args in [&["serve", "--addr", "127.0.0.1:0"][..], &["config", "check", "--addr", "x"]] {
        assert_eq!(code(&run(args)), 2, "{args:?}");
    }
    let output = run(&["serve", "--addr", "127.0.0.1:0"]);
    assert!(stderr(&output).contains("--listen"), "{}", stderr(&output));
    for args in [&["status", "--help"][..], &["bench", "append", "--help"]] {
        assert!(stdout(&run(args)).contains("--addr <URL>"), "{args:?}");
    }
    assert!(stdout(&run(&["upload", "--help"])).contains("nothing is stored twice"));
}

#[test]
fn a_published_event_is_watched() {
    let daemon = Daemon::start();
    let published = daemon.run(&[
        "publish",
        "orders.eu",
        "größe \u{1b}[31m",
        "--id",
        "i-1",
        "--type",
        "created",
        "--key",
        "k",
        "--header",
        "a=b",
        "--at",
        "2026-01-31T10:00:00+01:00",
        "--json",
    ]);
    assert_ok(&published);
    let result: serde_json::Value = serde_json::from_slice(&published.stdout).unwrap();
    assert_eq!((&result["seq"], &result["durability"]), (&"1".into(), &"FSYNC".into()));

    let watched = daemon.run(&["watch", "--from", "oldest", "--until-caught-up", "--json"]);
    assert_ok(&watched);
    let event: serde_json::Value = serde_json::from_slice(&watched.stdout).unwrap();
    assert_eq!(event["cursor"], result["cursor"]);
    assert_eq!(event["body"], "größe \u{1b}[31m");
    assert_eq!(event["at"], "2026-01-31T09:00:00Z");
    assert_eq!(event["headers"]["a"], "b");

    let shown = daemon.run(&["watch", "orders.*", "--from", "1", "--limit", "1"]);
    assert_ok(&shown);
    let at = event["appended_at"].as_str().unwrap();
    assert_eq!(stdout(&shown), format!("{at}  orders.eu  1  größe \\u{{1b}}[31m\n"));

    let labelled = daemon.run(&["watch", "-v", "--from", "1", "--limit", "1"]);
    assert!(
        stdout(&labelled)
            .contains("1  at=2026-01-31T09:00:00Z  id=i-1  type=created  key=k  a=b  größe")
    );

    let again = daemon.run(&["publish", "orders.eu", "other", "--expect-head", "7"]);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("HEAD_MOVED"), "{}", stderr(&again));
    let piped = daemon.feed(&["publish", "bytes", "-"], b"\xff\x00");
    assert_ok(&piped);
    let data = daemon.run(&["watch", "bytes", "--from", "last:1", "--until-caught-up", "--json"]);
    assert!(stdout(&data).contains("\"data\":\"/wA=\""), "{}", stdout(&data));
}

#[test]
fn bad_input_is_told_apart_by_exit_code() {
    let daemon = Daemon::start();
    for (args, expected, part) in [
        (&["publish", "bad topic", "x"][..], 2, "TOPIC: has white space"),
        (&["publish", "a", "--file", "/nonexistent"], 3, "cannot read /nonexistent"),
        (&["publish", "a", "b", "--header", "x"], 2, "NAME=VALUE"),
        (&["publish", "a", "b", "--header", "x=1", "--header", "x=2"], 2, "x: given twice"),
        (&["watch", "a..b"], 2, "empty segment"),
        (&["watch", "--from", "soon"], 2, "last:N"),
        (&["watch", "--after", "tBAD"], 2, "malformed cursor"),
        (&["watch", "--after", ""], 2, "--after"),
        (&["trim", "--before", "1"], 2, "--yes"),
        (&["watch", "--after", "999"], 3, "--after 999: the head is 0 [CURSOR_AHEAD]"),
        (&["watch", "--from", "999"], 3, "--from 999: the head is 0 [CURSOR_AHEAD]"),
        (&["watch", "--limit", "-1"], 2, ""),
        (&["trim", "--before", "x", "--yes"], 2, "expected a sequence number"),
        (&["upload", "--topic", "a", "/nonexistent"], 3, "cannot read /nonexistent"),
        (&["upload", "-"], 2, "lines need a topic"),
        (&["upload", "--topic", "a..b", "-"], 2, "empty segment"),
    ] {
        let output = daemon.run(args);
        assert_eq!(code(&output), expected, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{args:?}");
    }
    assert_eq!(daemon.head(), 0);
    for (addr, expected) in [
        ("http://127.0.0.1:1", 5),
        ("https://localhost:1", 5),
        ("ftp://localhost:1", 2),
        ("no sense", 2),
    ] {
        let output = run(&["status", "--addr", addr]);
        assert_eq!(code(&output), expected, "{addr}: {}", stderr(&output));
    }
    // A watch does not wait for a server that was never there, unless asked to.
    assert_eq!(code(&run(&["watch", "--addr", "http://127.0.0.1:1"])), 5);
}

#[test]
fn what_is_no_tailmark_is_told_and_not_waited_for() {
    let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("http://{}", web.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in web.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            // Until the client leaves: what was not read would cut the answer short.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    for args in
        [&["watch"][..], &["status"], &["publish", "a", "b"], &["trim", "--yes", "--before=1"]]
    {
        let output = tailmark(args).arg("--addr").arg(&addr).output().unwrap();
        assert_eq!(code(&output), 5, "{args:?}: {}", stderr(&output));
        let said = stderr(&output);
        // A write to a peer that closes before its answer is seen may have been done.
        if matches!(args[0], "watch" | "status") {
            assert!(said.contains("is this a tailmark server?"), "{args:?}: {said}");
            assert!(!said.contains("it may"), "{args:?}: {said}");
        }
    }
}

#[test]
fn an_upload_stops_before_the_bad_line_and_keeps_what_came_before() {
    let daemon = Daemon::start();
    let input = b"{\"topic\":\"a\",\"body\":\"1\"}\n\n{\"body\":\"2\"}\n{\"topik\":\"a\"}\n{\"topic\":\"a\"}\n";
    let output = daemon.feed(&["upload", "--format", "jsonl", "--topic", "b", "--json"], input);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("line 4: unknown field `topik`"), "{}", stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["received"], &result["stored"]), (&2.into(), &"2".into()));
    assert_eq!(daemon.head(), 2);
}

#[test]
fn lines_become_bodies_and_bytes_become_data() {
    let daemon = Daemon::start();
    let output =
        daemon.feed(&["upload", "--topic", "l"], b"\xef\xbb\xbfone\r\n\ntwo\n\xff\xfe\nlast");
    assert_ok(&output);
    assert!(stderr(&output).contains("5 events received, 5 stored"), "{}", stderr(&output));
    let watched = daemon.run(&["watch", "l", "--from", "oldest", "--until-caught-up"]);
    let bodies: Vec<_> =
        stdout(&watched).lines().map(|line| line.splitn(4, "  ").nth(3).unwrap()).collect();
    assert_eq!(bodies, ["one", "", "two", "(2 bytes of data)", "last"]);
}

#[test]
fn what_was_printed_can_be_uploaded_again() {
    let daemon = Daemon::start();
    let mut input = String::new();
    for n in 0..5_000 {
        input.push_str(&format!(
            "{{\"id\":\"id-{n}\",\"topic\":\"t.{}\",\"at\":\"2013-06-06T17:43:32-07:00\",\
             \"body\":\"größe {n}\"}}\n",
            n % 7
        ));
    }
    let upload = ["upload", "--format", "jsonl", "--json"];
    assert_ok(&daemon.feed(&upload, input.as_bytes()));
    let again = daemon.feed(&upload, input.as_bytes());
    assert_ok(&again);
    let result: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&result["received"], &result["duplicates"]), (&5000.into(), &"5000".into()));
    assert_eq!(daemon.head(), 5_000);

    let all = daemon.run(&["watch", "--from", "oldest", "--until-caught-up", "--json"]);
    assert_ok(&all);
    let dumped = daemon.feed(&upload, &all.stdout);
    let result: serde_json::Value = serde_json::from_slice(&dumped.stdout).unwrap();
    assert_eq!(result["duplicates"], "5000", "{}", stderr(&dumped));
    let one = daemon.run(&["watch", "t.3", "--from", "oldest", "--until-caught-up", "--json"]);
    let expected: Vec<_> =
        (0..5_000).filter(|n| n % 7 == 3).map(|n| format!("größe {n}")).collect();
    assert_eq!(bodies(stdout(&one)), expected);
}

#[test]
fn status_topics_and_trim_tell_the_same_story() {
    let daemon = Daemon::start();
    assert_ok(&daemon.run(&["topics"]));
    daemon.store("a.x", &["1", "2", "3"]);
    daemon.store("b", &["4"]);
    let topics = daemon.run(&["topics"]);
    let lines: Vec<Vec<_>> =
        stdout(&topics).lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..3], ["a.x", "3", "3"], "{}", stdout(&topics));
    assert_eq!(lines[2][..3], ["b", "1", "4"], "{}", stdout(&topics));
    for (args, count) in [
        (&["topics", "--json", "--prefix", "a"][..], 1),
        (&["topics", "--json", "a.>"], 1),
        (&["topics", "--json", "a.*", "b"], 2),
        (&["topics", "--json", "a.*", "b", "--prefix", "b"], 1),
        (&["topics", "--json", "c"], 0),
    ] {
        let listed = daemon.run(args);
        assert_ok(&listed);
        assert_eq!(stdout(&listed).lines().count(), count, "{args:?}");
    }

    let trimmed = daemon.run(&["trim", "--before", "3", "--yes"]);
    assert_ok(&trimmed);
    assert_eq!(stdout(&trimmed), "2 events removed, oldest is now 3, head 4\n");
    let status: serde_json::Value =
        serde_json::from_slice(&daemon.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!((&status["oldest_seq"], &status["head_seq"]), (&"3".into(), &"4".into()));
    assert!(stdout(&daemon.run(&["status"])).contains("readable     2 events"));

    let gone = daemon.run(&["watch", "--after", "1", "--until-caught-up"]);
    assert_eq!(code(&gone), 3);
    assert!(stderr(&gone).contains("CURSOR_TRIMMED"), "{}", stderr(&gone));
    let typed = daemon.run(&["watch", "--from", "1"]);
    assert_eq!(code(&typed), 3);
    let said = "--from 1: what follows was trimmed, the oldest is 3";
    assert!(stderr(&typed).contains(said), "{}", stderr(&typed));
    let args = ["watch", "--after", "1", "--until-caught-up", "--on-lost", "oldest", "--json"];
    let jumped = daemon.run(&args);
    assert_ok(&jumped);
    assert_eq!(bodies(stdout(&jumped)), ["3", "4"]);
    assert!(
        stderr(&jumped).contains("events 2 to 2 are not there (trimmed)"),
        "{}",
        stderr(&jumped)
    );
}

#[test]
fn the_state_file_goes_on_where_the_last_run_ended() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let state = state.to_str().unwrap();
    daemon.store("a", &["1", "2", "3"]);
    let watch = |extra: &[&str]| {
        let mut args = vec!["watch", "--json", "--state", state];
        args.extend(extra);
        let output = daemon.run(&args);
        assert_ok(&output);
        bodies(stdout(&output))
    };
    assert_eq!(watch(&["--from", "oldest", "--limit", "2"]), ["1", "2"]);
    assert_eq!(watch(&["--until-caught-up"]), ["3"]);
    daemon.store("a", &["4"]);
    assert_eq!(watch(&["--from", "oldest", "--until-caught-up"]), ["4"], "the file wins");
    assert_eq!(watch(&["--until-caught-up"]), [] as [&str; 0]);
    let output = daemon.run(&["watch", "b.>", "--state", state, "--until-caught-up"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("a watch of everything, not of b.>"), "{}", stderr(&output));
    std::fs::write(state, "nonsense").unwrap();
    let output = daemon.run(&["watch", "--state", state]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn the_resolved_start_is_kept_before_the_first_event() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    daemon.store("a", &["1"]);
    let state_text = state.to_str().unwrap();
    let mut child = daemon
        .command(&["watch", "--markers", "--json", "--state", state_text])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("RESUMED"));
    assert!(lines.next().unwrap().unwrap().contains("CAUGHT_UP"));
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    daemon.store("a", &["2"]);
    let output = daemon.run(&["watch", "--json", "--state", state_text, "--until-caught-up"]);
    assert_eq!(bodies(stdout(&output)), ["2"]);
}

#[test]
fn a_watch_survives_a_restart_of_the_server() {
    let mut daemon = Daemon::start();
    daemon.store("a", &["1", "2"]);
    let mut child = daemon
        .command(&["watch", "--from", "oldest", "--json", "--limit", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen: Vec<String> = (0..2).map(|_| lines.next().unwrap().unwrap()).collect();
    daemon.shutdown.cancel();
    // Said once the connection is gone.
    let mut notices = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(notices.next().unwrap().unwrap().contains("connecting again"));
    daemon.store("a", &["3"]);
    daemon.listen();
    seen.push(lines.next().unwrap().unwrap());
    daemon.store("a", &["4"]);
    seen.push(lines.next().unwrap().unwrap());
    assert_eq!(bodies(&seen.join("\n")), ["1", "2", "3", "4"]);
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let daemon = Daemon::start();
    let body = "x".repeat(1_000);
    daemon.store("a", &vec![body.as_str(); 3_000]);
    let mut child = daemon
        .command(&["watch", "--from", "oldest"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_ok(&output);
    assert_eq!(stderr(&output), "");
}

#[test]
fn an_interrupted_upload_reports_what_is_durable() {
    let daemon = Daemon::start();
    let mut child = daemon.spawn(&["upload", "--topic", "a", "--json"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    // A line is sent as it comes, not when the input ends.
    let mut watch = daemon
        .command(&["watch", "--from", "oldest", "--limit", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    assert!(stdout(&output).contains("\"stored\":\"2\""), "{}", stdout(&output));
}
