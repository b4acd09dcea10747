//! What is refused is named as it was typed, and never repeated at length.

use super::*;

#[test]
fn an_error_names_the_parameter_as_it_was_typed() {
    let daemon = Daemon::start();
    daemon.store("a", &["1"]);
    let long = "x".repeat(300);
    let headers = format!("a={}", "x".repeat(9_000));
    for (args, expected) in [
        (&["publish", &long][..], "TOPIC: 300 is over the limit of 255"),
        (&["publish", "a..b"], "TOPIC: has an empty segment"),
        (&["publish", "a", "--id", &long], "--id: 300 is over the limit of 255"),
        (&["publish", "a", "--type", &long], "--type: 300 is over the limit of 255"),
        (&["publish", "a", "--key", &long], "--key: 300 is over the limit of 255"),
        (&["publish", "a", "--header", &headers], "--header: 9001 is over the limit of 8192"),
        (&["publish", "a", "--at", "soon"], "'--at <TIME>'"),
        (&["watch", &long], "'[PATTERN]...': 300 is over the limit of 255"),
        (&["watch", "a", &vec!["a"; 33].join(".")], "PATTERN 2: topic_segments: 33 is over"),
        (&["publish", &vec!["a"; 33].join(".")], "TOPIC: topic_segments: 33 is over"),
        (&["watch", "--after", "x"], "'--after <CURSOR>'"),
        (&["watch", "--from", "x"], "'--from <START>'"),
        (&["chat", &long], "ROOM: 305 is over the limit of 255"),
        (&["chat", "--as", &long], "'--as <NAME>'"),
        (&["trim", "--before", "99", "--yes"], "--before: lies beyond the next event"),
        (&["upload", "--topic", "a..b"], "--topic a..b: has an empty segment"),
        (&["bench", "append", "--events", "1", "--topic", "a..b"], "--topic: has an empty segment"),
        (&["bench", "append", "--events", "1", "--producer", &long], "--producer: 300 is over"),
        (&["bench", "replay", "--pattern", "a..b"], "--pattern: has an empty segment"),
        (&["metrics", "--interval", "2h"], "'--interval <TIME>'"),
    ] {
        let output = daemon.run(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        let said = stderr(&output).lines().next().unwrap();
        assert!(said.starts_with("error: ") && said.contains(expected), "{args:?}: {said}");
        // The wire's name is nobody's whom it was not typed by.
        assert!(!said.contains(" field="), "{args:?}: {said}");
    }
    for (args, expected) in [
        (&["config", "check", "--listen", "nowhere"][..], "error: --listen: server.listen: "),
        (&["config", "check", "--log-level", "loud"], "error: --log-level: telemetry.log_level: "),
        (&["status", "--addr", "no where"], "error: --addr: address `no where`: "),
    ] {
        let said = run(args);
        assert!(stderr(&said).starts_with(expected), "{args:?}: {}", stderr(&said));
    }
}

#[test]
fn an_error_never_repeats_much_of_what_was_given() {
    let daemon = Daemon::start();
    let long = "y".repeat(100_000);
    let flag = format!("--{long}");
    let header = format!("a={long}");
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let large = file("large", &"z".repeat(3_000_000));
    let line = file("line", &format!("{{\"{}\": 1}}", "k".repeat(500_000)));
    let topic = file("topic", &format!("{{\"topic\": \"{}\"}}", "k".repeat(500_000)));
    let state = file("state", &"s".repeat(500_000));
    for args in [
        &["publish", &long][..],
        &["publish", "a", "--id", &long],
        &["publish", "a", "--at", &long],
        &["publish", "a", "--header", &long],
        &["publish", "a", "--header", &header],
        &["publish", "a", "--header", &header, "--header", &header],
        &["publish", "a", "--file", &large],
        &["publish", "a", "--file", &long],
        &["publish", "a", &flag],
        &["watch", &long],
        &["watch", "--after", &long],
        &["watch", "--from", &long],
        &["watch", "--limit", &long],
        &["watch", "--on-lost", &long],
        &["watch", "--state", &state],
        &["watch", "--state", &long],
        &["chat", &long],
        &["chat", "--as", &long],
        &["trim", "--before", &long],
        &["topics", "a", &long],
        &["upload", "--topic", &long],
        &["upload", "--format", "jsonl", &line],
        &["upload", "--format", "jsonl", &topic],
        &["bench", "append", "--events", "1", "--topic", &long],
        &["bench", "append", "--events", "1", "--producer", &long],
        &["bench", "replay", "--pattern", &long],
        &["metrics", "--interval", &long],
        &[&flag],
        &[&long],
    ] {
        let short: Vec<_> = args.iter().map(|arg| &arg[..arg.len().min(20)]).collect();
        let output = daemon.run(args);
        assert_ne!(code(&output), 0, "{short:?}");
        let said = stderr(&output);
        assert!(said.len() < 2_000, "{short:?}: {} bytes: {}", said.len(), &said[..2_000]);
        assert!(said.contains("error: "), "{short:?}: {said}");
    }
    for args in [
        &["log", "dump", &long][..],
        &["log", "dump", "--seq", &long],
        &["log", "info", "--data-dir", &long],
        &["log", "explain", &long],
        &["config", "check", "--config", &long],
        &["config", "check", "--listen", &long],
        &["config", "check", "--log-level", &long],
        &["status", "--addr", &long],
        &["completions", &long],
    ] {
        let output = run(args);
        let said = stderr(&output);
        assert_ne!(code(&output), 0, "{}", &args[..2].join(" "));
        assert!(said.len() < 2_000, "{:?}: {} bytes", &args[..2], said.len());
    }
}

#[test]
fn what_was_typed_drives_no_terminal_when_it_is_refused() {
    for args in [
        &["watch", "a..\u{1b}[2J\u{202e}"][..],
        &["watch", "--from", "\u{1b}[2J\u{202e}"],
        &["watch", "--\u{1b}[2J\u{202e}"],
        &["\u{1b}[2J\u{202e}"],
        &["completions", "\u{1b}[2J\u{202e}"],
        &["log", "dump", "a..\u{1b}[2J\u{202e}"],
        &["config", "check", "--listen", "\u{1b}[2J\u{202e}"],
        &["config", "check", "--config", "/no/\u{1b}[2J\u{202e}"],
        &["publish", "a", "--file", "/no/\u{1b}[2J\u{202e}"],
        &["status", "--addr", "\u{1b}[2J\u{202e}"],
        &[
            "publish",
            "a",
            "b",
            "--header",
            "\u{1b}[2J\u{202e}=1",
            "--header",
            "\u{1b}[2J\u{202e}=2",
        ],
    ] {
        let output = run(args);
        assert_ne!(code(&output), 0, "{args:?}");
        let said = stderr(&output);
        assert!(said.contains("\\u{1b}[2J\\u{202e}"), "{args:?}: {said:?}");
        assert!(!said.contains(['\u{1b}', '\u{202e}']), "{args:?}: {said:?}");
    }
}
