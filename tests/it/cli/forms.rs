//! How events are shown, one event by its number, and a command for each.

use super::*;

fn store(daemon: &Daemon) {
    for (topic, body) in [("a", r#"{"x": 1.10, "a":2}"#), ("b", "two\nlines"), ("a", "three")] {
        let args = ["publish", topic, body, "--id", body, "--key", "k", "--header", "h=v"];
        assert_ok(&daemon.run(&args));
    }
}

#[test]
fn events_are_printed_as_they_are_asked_for() {
    let daemon = Daemon::start();
    store(&daemon);
    let watch = |args: &[&str]| {
        let args = [&["watch", "--from", "oldest", "--until-caught-up"], args].concat();
        let output = daemon.run(&args);
        assert_ok(&output);
        stdout(&output).to_owned()
    };
    assert_eq!(watch(&["--raw"]), "{\"x\": 1.10, \"a\":2}\ntwo\nlines\nthree\n");
    let columns = watch(&["b", "--columns", "seq,topic,id,key,headers,body"]);
    assert_eq!(columns, "2\tb\ttwo\\u{a}lines\tk\th=v\ttwo\\nlines\n");
    let line = watch(&["b", "--cursor"]);
    let cursor = watch(&["b", "--columns", "cursor"]);
    assert!(line.contains(&format!("  b  2  {}  two", cursor.trim_end())), "{line}");
    let values = watch(&["--json=value"]);
    let lines: Vec<_> = values.lines().collect();
    assert!(lines[0].contains(r#""body":{"x": 1.10, "a":2},"#), "{values}");
    assert!(lines[2].contains(r#""body":"three""#), "{values}");
    assert!(watch(&["--json"]).contains(r#""body":"{\"x\": 1.10"#));
    // What is read of either is the same.
    let copy = daemon.feed(&["upload", "--format", "jsonl"], values.as_bytes());
    assert_ok(&copy);
    let bodies = "{\"x\": 1.10, \"a\":2}\ntwo\nlines\nthree\n";
    assert_eq!(watch(&["--raw"]), bodies.repeat(2));

    let get = |args: &[&str]| daemon.run(&[&["get"], args].concat());
    let cursor = cursor.trim_end();
    for which in ["2", cursor] {
        let event = get(&[which, "--raw"]);
        assert_ok(&event);
        assert_eq!(stdout(&event), "two\nlines\n");
    }
    assert_eq!(stdout(&get(&["1", "--json=value"])).trim_end(), lines[0]);
    for (which, exit, words) in [
        ("9", 3, "no event 9; the head is 6"),
        ("x", 2, "expected a cursor, whole as"),
        ("ueuvwFAAB-Ev0dQAAAAAAAAAB8g06_mvu", 3, "LOG_CHANGED"),
    ] {
        let output = get(&[which]);
        assert_eq!(code(&output), exit, "{which}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{which}: {}", stderr(&output));
    }
}

/// The first column is when an event was appended, and when it happened is said where it is asked for.
#[test]
fn one_clock_is_shown() {
    let daemon = Daemon::start();
    assert_ok(&daemon.run(&["publish", "a", "x", "--at", "2001-02-03 04:05:06"]));
    let watch = |args: &[&str]| {
        let args = [&["watch", "--from", "oldest", "--until-caught-up"], args].concat();
        stdout(&daemon.run(&args)).to_owned()
    };
    assert!(!watch(&[]).contains("2001"), "{}", watch(&[]));
    assert!(watch(&["--verbose"]).contains("at=2001-02-03T04:05:06Z"));
    assert_eq!(watch(&["--columns", "at"]), "2001-02-03T04:05:06Z\n");
}

#[test]
fn a_command_is_run_for_each_event_and_what_it_has_done_is_kept() {
    let daemon = Daemon::start();
    store(&daemon);
    let dir = tempfile::tempdir().unwrap();
    let (state, seen) = (dir.path().join("state"), dir.path().join("seen"));
    let (state, seen) = (state.to_str().unwrap(), seen.to_str().unwrap());
    let run = |script: &str| {
        let script = format!("{{ {script}; }} >> '{seen}'");
        let args = ["watch", "--from", "oldest", "--until-caught-up", "--state", state];
        let args = [&args[..], &["--addr", daemon.port.address.to_string().leak()]].concat();
        let args = [&args[..], &["--", "sh", "-c", &script]].concat();
        tailmark(&args).stdin(Stdio::null()).output().unwrap()
    };
    // The second is refused: it and what follows come again, the first does not.
    let first = run("printf '%s=' \"$EVENT_SEQ$EVENT_TOPIC$EVENT_KEY\"; cat; test $EVENT_SEQ != 2");
    assert_eq!(code(&first), 1, "{}", stderr(&first));
    assert!(stderr(&first).contains("sh failed at event 2: exit status: 1"), "{}", stderr(&first));
    let kept = std::fs::read_to_string(state).unwrap();
    let event = daemon.run(&["get", "1", "--columns", "cursor"]);
    assert!(kept.contains(stdout(&event).trim_end()), "{kept}");
    std::fs::remove_file(seen).unwrap_or_default();
    let second = run("printf '%s=' \"$EVENT_SEQ$EVENT_TOPIC$EVENT_KEY\"; cat");
    assert_ok(&second);
    assert_eq!(std::fs::read_to_string(seen).unwrap(), "2bk=two\nlines3ak=three");
    // Nothing is left, and a command that reads nothing is none the worse.
    std::fs::remove_file(seen).unwrap();
    assert_ok(&run("true"));
    assert!(std::fs::read(seen).unwrap_or_default().is_empty());
    let missing = daemon.run(&["status"]);
    assert_ok(&missing);
    let args = ["--from", "oldest", "--limit", "1", "--", "/nonexistent/command"];
    let address = daemon.port.address.to_string();
    let missing = tailmark(&[&["watch", "--addr", &address], &args[..]].concat()).output().unwrap();
    assert_eq!(code(&missing), 3, "{}", stderr(&missing));
    assert!(stderr(&missing).contains("cannot run /nonexistent/command"), "{}", stderr(&missing));
}

/// The start is kept before the first command is run: with one that is relative, the event would be passed over
/// by the next run.
#[test]
fn the_first_event_comes_again_where_its_command_failed() {
    let daemon = Daemon::start();
    let address = daemon.port.address.to_string();
    for from in ["last:1", "15m"] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        daemon.store(from, &["first"]);
        let run = |command: &str| {
            let args = ["watch", from, "--from", from, "--until-caught-up", "--addr", &address];
            let args = [&args[..], &["--state", state.to_str().unwrap(), "--", command]].concat();
            tailmark(&args).stdin(Stdio::null()).output().unwrap()
        };
        for command in ["false", "/nonexistent/command"] {
            assert_ne!(code(&run(command)), 0);
            assert!(state.exists(), "{from}: {command}");
        }
        daemon.store(from, &["second"]);
        assert_eq!(stdout(&run("cat")), "firstsecond", "{from}");
        assert_eq!(stdout(&run("cat")), "", "{from}");
    }
}

/// A child that it leaves behind holds the pipe, and reads nothing of it.
#[test]
fn a_command_that_has_ended_is_fed_no_more() {
    let daemon = Daemon::start();
    let body = "x".repeat(500_000);
    assert_ok(&daemon.feed(&["upload", "--topic", "a", "-"], body.as_bytes()));
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("left");
    let script =
        format!("exec 3<&0; sleep 60 <&3 >/dev/null 2>&1 & echo $! > '{}'", left.display());
    let begun = std::time::Instant::now();
    let address = daemon.port.address.to_string();
    let args = ["watch", "--addr", &address, "--from", "oldest", "--until-caught-up"];
    let mut command = tailmark(&[&args[..], &["--", "sh", "-c", &script]].concat());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let took = begun.elapsed();
    let pid = std::fs::read_to_string(left).unwrap();
    let killed = Command::new("kill").arg(pid.trim()).status().unwrap();
    assert_ok(&output);
    assert!(killed.success() && took < std::time::Duration::from_secs(30), "{took:?}");
}

/// Asked to stop, a watch waits for the command that is at work, and keeps what it has done.
#[test]
fn a_command_that_is_at_work_is_waited_for() {
    let daemon = Daemon::start();
    store(&daemon);
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let begun = dir.path().join("begun");
    let script =
        format!("touch '{}'; read x < '{}'", begun.display(), dir.path().join("go").display());
    let made = Command::new("mkfifo").arg(dir.path().join("go")).status().unwrap();
    assert!(made.success());
    let address = daemon.port.address.to_string();
    let args =
        ["watch", "--addr", &address, "--from", "oldest", "--state", state.to_str().unwrap()];
    let mut command = tailmark(&[&args[..], &["--", "sh", "-c", &script]].concat());
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !begun.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    signal(&child, "TERM");
    std::fs::write(dir.path().join("go"), "\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 143, "{}", stderr(&output));
    let event = daemon.run(&["get", "1", "--columns", "cursor"]);
    let kept = std::fs::read_to_string(&state).unwrap();
    assert!(kept.contains(stdout(&event).trim_end()), "{kept}");
}

/// All that is to come fits into the connection's buffers at once: what counts is what the commands have done.
#[test]
fn a_command_that_is_slow_is_behind_by_the_events_that_it_has_not_done() {
    let daemon = Daemon::start();
    let body: String = (1..=2_000).map(|at| format!("job {at}\n")).collect();
    assert_ok(&daemon.feed(&["upload", "--topic", "jobs", "-"], body.as_bytes()));
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let address = daemon.port.address.to_string();
    let args = ["watch", "--addr", &address, "--from", "oldest", "--name", "slow", "--state"];
    let args = [&args[..], &[state.to_str().unwrap(), "--", "sleep", "0.3"]].concat();
    let child = tailmark(&args).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let told = || {
        let status = daemon.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(stdout(&status)).unwrap();
        let number = |name: &str| {
            status["consumers"][0][name].as_str().unwrap_or("0").parse::<u64>().unwrap()
        };
        (number("watches"), number("delivered"), number("lag_events"))
    };
    let (watches, done, behind) = loop {
        let told = told();
        if told.1 >= 3 {
            break told;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(watches == 1 && done < 1_000 && done + behind == 2_000, "{done} done, {behind} behind");
    signal(&child, "TERM");
    assert_eq!(code(&child.wait_with_output().unwrap()), 143);
    // What it tells last is what it has kept.
    let cursor = std::fs::read_to_string(&state).unwrap();
    let (watches, done, behind) = told();
    let last = daemon.run(&["get", &done.to_string(), "--columns", "cursor"]);
    assert!(cursor.contains(stdout(&last).trim_end()), "{done}: {cursor}");
    assert_eq!((watches, done + behind), (0, 2_000));
    assert_ok(&daemon.run(&["publish", "jobs", "one more"]));
    assert_eq!(told(), (0, done, behind + 1));
    let line = daemon.run(&["status"]);
    assert!(
        stdout(&line).contains(&format!("slow: gone, up to {} behind", behind + 1)),
        "{}",
        stdout(&line)
    );
}

#[test]
fn records_of_other_programs_become_events() {
    let daemon = Daemon::start();
    let upload =
        |args: &[&str], input: &str| daemon.feed(&[&["upload"], args].concat(), input.as_bytes());
    let last = || {
        let output = daemon.run(&["get", &daemon.head().to_string(), "--json=value"]);
        assert_ok(&output);
        serde_json::from_str::<serde_json::Value>(stdout(&output)).unwrap()
    };
    let record = r#"{"user":{"id":7},"ts":"2026-01-31 09:30","tags":["x","y"],"n":1.10}"#;
    let maps = ["--map", "key=.user.id", "--map", "at=.ts", "--map", "header.tag=.tags.1"];
    assert_ok(&upload(&[&["--format", "records", "--topic", "t"], &maps[..]].concat(), record));
    let event = last();
    assert_eq!((&event["key"], &event["headers"]["tag"]), (&"7".into(), &"y".into()));
    assert_eq!(event["at"], "2026-01-31T09:30:00Z");
    assert_eq!(event["body"]["n"].as_f64(), Some(1.1));

    let rows = "id,name,note\n1,\"Ann, B.\",\"two\nlines \"\"q\"\"\"\n2,Bob,\n";
    let args = ["--format", "csv", "--topic", "t", "--map", "id=.id", "--map", "key=.name"];
    assert_ok(&upload(&args, rows));
    assert_eq!(daemon.head(), 3);
    assert_eq!((&last()["id"], &last()["key"]), (&"2".into(), &"Bob".into()));
    let output = daemon.run(&["get", "2", "--json=value"]);
    let event: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(event["body"]["note"], "two\nlines \"q\"");
    assert_eq!(event["body"]["name"], "Ann, B.");

    let line = concat!(
        r#"{"topic":"k.t","partition":1,"offset":42,"tstype":"create","ts":1767225600123,"#,
        r#""broker":1,"key":"k","payload":"p","headers":["h","v"]}"#
    );
    for stored in ["1 stored", "0 stored"] {
        let output = upload(&["--format", "kcat"], line);
        assert_ok(&output);
        assert!(stdout(&output).contains(stored) || stderr(&output).contains(stored), "{output:?}");
    }
    let event = last();
    assert_eq!((&event["topic"], &event["id"]), (&"k.t".into(), &"k.t/1/42".into()));
    assert_eq!((&event["at"], &event["body"]), (&"2026-01-01T00:00:00.123Z".into(), &"p".into()));
    assert_eq!(event["headers"]["h"], "v");

    for (key, kept) in [
        ("null", serde_json::Value::Null),
        ("5", "5".into()),
        (r#"{"k":1.0}"#, r#"{"k":1.0}"#.into()),
    ] {
        let at = 43 + kept.as_str().map_or(0, str::len);
        let line = format!(
            r#"{{"topic":"k.t","partition":1,"offset":{at},"payload":{{"n":1.50}},"key":{key}}}"#
        );
        assert_ok(&upload(&["--format", "kcat"], &line));
        assert_eq!((&last()["body"]["n"], &last()["key"]), (&1.5.into(), &kept));
    }

    for (args, rows) in [(";", "a;b\n1;\"2;3\"\n"), ("tab", "a\tb\n1\t2;3\n")] {
        assert_ok(&upload(&["--format", "csv", "--topic", "t", "--delimiter", args], rows));
        assert_eq!(last()["body"], serde_json::json!({"a": "1", "b": "2;3"}));
    }

    let unknown = r#"{"topic":"a","body":"x","level":{"a":[1]}}"#;
    assert_ok(&upload(&["--format", "jsonl", "--ignore-unknown"], unknown));
    assert_eq!((&last()["topic"], &last()["body"]), (&"a".into(), &"x".into()));

    for (args, input, words) in [
        (&["--format", "jsonl"][..], unknown, "line 1: unknown field `level`"),
        (
            &["--format", "records", "--topic", "t", "--map", "at=.n"],
            r#"{"n":1}"#,
            "line 1: .n: expected a time",
        ),
        (
            &["--format", "records", "--topic", "t", "--map", "key=.n"],
            r#"{"n":{}}"#,
            "line 1: .n: expected a plain value",
        ),
        (
            &["--format", "records", "--topic", "t"],
            "{\"n\":1}\n{",
            "line 2: the JSON ends within an object",
        ),
        (
            &["--format", "csv", "--topic", "t"],
            "a,b\n1\n",
            "line 2: has 1 column, and the header 2",
        ),
        (&["--format", "csv", "--topic", "t"], "a,a\n1,2\n", "line 1: column 2 of the header"),
        (&["--format", "csv", "--topic", "t"], "a;b\n1;2\n", "--delimiter ';' parts it"),
        (&["--format", "csv", "--topic", "t"], "a\tb\n", "--delimiter tab parts it"),
        (&["--format", "csv", "--delimiter", ";;"], "a;b\n", "expected one character"),
        (&["--format", "records", "--delimiter", ";"], "{}", "--delimiter is for --format csv"),
        (
            &["--format", "records", "--map", "key=.a", "--map", "id=.a", "--map", "key=.b"],
            "{}",
            "--map key: given twice",
        ),
        (&["--format", "jsonl"], unknown, "--ignore-unknown passes over"),
        (&["--format", "kcat"], "{}", "line 1: field `topic` is missing"),
        (&["--format", "records"], "{}", "line 1: no topic"),
        (&["--format", "lines", "--topic", "t", "--map", "key=.a"], "x", "--map is for records"),
        (&["--format", "records", "--map", "keys=.a"], "x", "expected FIELD=.PATH"),
    ] {
        let output = upload(args, input);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
}
