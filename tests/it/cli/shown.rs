//! Names that others chose, in every command that shows them: two of them never read alike.

use std::collections::HashSet;
use std::fs::File;

use super::*;
use crate::support::{daemon, logdir, terminal};

/// Names that read alike, or worse, where they are shown as they are; and how they are shown.
const NAMES: [(&str, &str); 18] = [
    ("a", "a"),
    ("a\u{200b}", "a\\u{200b}"),
    ("\u{200d}a", "\\u{200d}a"),
    ("a\u{2060}", "a\\u{2060}"),
    ("a\u{feff}", "a\\u{feff}"),
    ("a\u{ad}", "a\\u{ad}"),
    ("a\u{fe0f}", "a\\u{fe0f}"),
    ("a\u{e0041}", "a\\u{e0041}"),
    ("a\u{3164}", "a\\u{3164}"),
    ("a\u{202e}b", "a\\u{202e}b"),
    ("a\u{2067}b", "a\\u{2067}b"),
    ("a\u{61c}b", "a\\u{61c}b"),
    ("a\u{e000}", "a\\u{e000}"),
    ("a\u{fdd0}", "a\\u{fdd0}"),
    ("é", "é"),
    ("e\u{301}", "e\\u{301}"),
    ("a\\u{200b}", "a\\u{5c}u{200b}"),
    ("שלום", "שלום"),
];

/// What topics cannot hold, and other names can.
const OTHERS: [(&str, &str); 8] = [
    ("a\u{1b}[2J", "a\\u{1b}[2J"),
    ("a\u{9b}2J", "a\\u{9b}2J"),
    ("a\u{85}", "a\\u{85}"),
    ("a\u{2028}b", "a\\u{2028}b"),
    ("a\nb", "a\\u{a}b"),
    ("a ", "a\\u{20}"),
    ("a\u{a0}b", "a\\u{a0}b"),
    ("a b", "a b"),
];

fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.into_iter().chain(OTHERS)
}

/// Nothing in an output may be unseen: what the terminal would act on, and what has no shape.
#[track_caller]
fn assert_seen(text: &str) {
    let odd = all().flat_map(|(raw, _)| raw.chars());
    let odd: HashSet<char> = odd.filter(|c| !"aeb\\{}u20Jשלוםé []".contains(*c)).collect();
    let text = text.replace('\n', "");
    assert!(!text.contains(|c| odd.contains(&c)), "{text:?}");
}

/// A log with an event of each name in each of its places.
fn filled() -> Daemon {
    let daemon = Daemon::start();
    let mut batch = daemon.log.batch();
    for (raw, _) in NAMES {
        batch.push(&Event { topic: raw, body: "topic", ..Event::default() }).unwrap();
    }
    for (raw, _) in all() {
        let headers = vec![(raw, raw)];
        let named = Event { topic: "t", id: raw, kind: raw, key: raw, headers, ..Event::default() };
        batch.push(&named).unwrap();
        let said = Event {
            topic: "chat.general",
            body: "hi",
            headers: vec![("from", raw)],
            ..Event::default()
        };
        batch.push(&said).unwrap();
    }
    let appended = daemon.log.append(batch, eventlog::AppendOptions::default());
    daemon.runtime.block_on(appended).unwrap();
    daemon
}

#[test]
fn topics_read_apart_in_watches_and_lists() {
    let daemon = filled();
    let watched = daemon.run(&["watch", "*", "--from", "oldest", "--until-caught-up"]);
    assert_ok(&watched);
    assert_seen(stdout(&watched));
    let lines: Vec<_> =
        stdout(&watched).lines().map(|line| line.split("  ").nth(1).unwrap()).collect();
    let shown: Vec<_> = NAMES.iter().map(|(_, shown)| *shown).collect();
    assert_eq!(lines[..NAMES.len()], shown);

    let listed = daemon.run(&["topics"]);
    assert_ok(&listed);
    assert_seen(stdout(&listed));
    let topics: HashSet<_> =
        stdout(&listed).lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    for (raw, shown) in NAMES {
        assert!(topics.contains(shown), "{raw:?}: {}", stdout(&listed));
    }
    // The columns stand below each other, wide characters or none.
    daemon.store("日本語", &["wide"]);
    let listed = daemon.run(&["topics", "--prefix", "日本"]);
    let lines: Vec<_> = stdout(&listed).lines().collect();
    let until = |line: &str| {
        unicode_width::UnicodeWidthStr::width(&line[..line.find("1 ").unwrap_or(line.len())])
    };
    assert_eq!(until(lines[1]) + 1, lines[0].find("EVENTS").unwrap() + "EVENTS".len());
}

#[test]
fn ids_types_keys_and_headers_read_apart() {
    let daemon = filled();
    let watched = daemon.run(&["watch", "t", "-v", "--from", "oldest", "--until-caught-up"]);
    assert_ok(&watched);
    assert_seen(stdout(&watched));
    assert_eq!(stdout(&watched).lines().count(), all().count());
    for ((raw, shown), line) in all().zip(stdout(&watched).lines()) {
        let labels = format!("  id={shown}  type={shown}  key={shown}  {shown}={shown}  ");
        assert!(line.ends_with(&labels), "{raw:?}: {line}");
    }
}

#[test]
fn users_and_rooms_read_apart_in_a_chat() {
    let daemon = filled();
    let heard = daemon.run(&["chat", "--as", "me", "--last", "100"]);
    assert_ok(&heard);
    assert_seen(stdout(&heard));
    let users: Vec<_> = stdout(&heard)
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.strip_suffix(": hi").unwrap())
        .collect();
    // The day before the time, if it became another meanwhile.
    let users: Vec<_> = users
        .iter()
        .map(|user| user.trim_start_matches(|c| "0123456789:-".contains(c)).trim_start())
        .collect();
    assert_eq!(users, all().map(|(_, shown)| shown).collect::<Vec<_>>());
    for (raw, shown) in NAMES {
        let (mut near, far) = terminal::open();
        let mut command = daemon.command(&["chat", raw, "--as", raw]);
        terminal::attach(&mut command, far);
        let mut child = command.env("TERM", "xterm").spawn().unwrap();
        drop(command);
        let seen = read_until(&mut near, &format!("room {shown} as {shown};"));
        assert_seen(&seen.replace(['\u{1b}', '\r'], ""));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Reads what a program writes to its terminal until it has said `text`.
fn read_until(terminal: &mut File, text: &str) -> String {
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let count = terminal.read(&mut bytes).unwrap();
        seen.extend_from_slice(&bytes[..count]);
        let so_far = String::from_utf8_lossy(&seen);
        if so_far.contains(text) {
            return so_far.into_owned();
        }
    }
}

/// All that a command writes to a terminal.
fn on_terminal(mut command: Command) -> String {
    let (mut near, far) = terminal::open();
    terminal::attach(&mut command, far);
    command.stdin(Stdio::null());
    let mut child = command.env("TERM", "xterm").spawn().unwrap();
    // Ours are closed, so that reading ends with the program.
    drop(command);
    let mut seen = Vec::new();
    let _ = near.read_to_end(&mut seen);
    assert!(child.wait().unwrap().success());
    String::from_utf8(seen).unwrap()
}

#[test]
fn json_keeps_its_values_and_a_terminal_sees_all_of_it() {
    let daemon = filled();
    let args = ["watch", "t", "--from", "oldest", "--until-caught-up", "--json"];
    let piped = daemon.run(&args);
    assert_ok(&piped);
    // Exact where a program reads.
    assert!(stdout(&piped).contains("a\u{202e}b") && stdout(&piped).contains("a\u{200b}"));
    let shown = on_terminal(daemon.command(&args));
    // A mark is seen; that its letter has two spellings is nothing that JSON could say.
    assert_seen(&shown.replace(['\r', '\u{301}'], ""));
    assert!(shown.contains("a\\u202eb") && shown.contains("a\\udb40\\udc41"), "{shown}");
    let values = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(values(&shown), values(stdout(&piped)));
    let ids: Vec<_> =
        values(&shown).iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, all().map(|(raw, _)| raw).collect::<Vec<_>>());
}

#[test]
fn what_is_escaped_stands_out_on_a_terminal_with_colors_alone() {
    let daemon = filled();
    let args = ["watch", "a\u{200b}", "a\\u{200b}", "--from", "oldest", "--until-caught-up"];
    let marked = "a\u{1b}[7m\\u{200b}\u{1b}[27m  2  ";
    let mut colored = daemon.command(&args);
    colored.env_remove("NO_COLOR");
    let shown = on_terminal(colored);
    assert!(
        shown.contains(marked) && shown.contains("a\u{1b}[7m\\u{5c}\u{1b}[27mu{200b}"),
        "{shown:?}"
    );
    for plain in [on_terminal(daemon.command(&args)), stdout(&daemon.run(&args)).to_owned()] {
        assert!(plain.contains("a\\u{200b}  2  ") && !plain.contains('\u{1b}'), "{plain:?}");
    }
}

#[test]
fn bodies_stay_readable_and_cannot_leave_their_line() {
    let daemon = Daemon::start();
    let bodies = [
        ("two\nlines\t\\n", "two\\nlines\\t\\n"),
        ("\u{1b}]0;title\u{7}\u{9b}2J", "\\u{1b}]0;title\\u{7}\\u{9b}2J"),
        ("\u{202e}gnp\u{2066}.exe", "\\u{202e}gnp\\u{2066}.exe"),
        ("pass\u{200b}word", "pass\\u{200b}word"),
        (
            "👩\u{200d}💻 ❤\u{fe0f} שלום می\u{200c}خواهم e\u{301}",
            "👩\u{200d}💻 ❤\u{fe0f} שלום می\u{200c}خواهم e\u{301}",
        ),
    ];
    daemon.store("chat.general", &bodies.map(|(raw, _)| raw));
    let watched = daemon.run(&["watch", "--from", "oldest", "--until-caught-up"]);
    assert_ok(&watched);
    let heard = daemon.run(&["chat", "--as", "me", "--last", "9"]);
    assert_ok(&heard);
    for (at, (_, shown)) in bodies.iter().enumerate() {
        let line = stdout(&watched).lines().nth(at).unwrap();
        assert!(line.ends_with(&format!("  {}  {shown}", at + 1)), "{line}");
        let line = stdout(&heard).lines().nth(at).unwrap();
        assert!(line.ends_with(&format!("?: {shown}")), "{line}");
    }
}

#[test]
fn offline_commands_show_directories_and_events_alike() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("lo\u{200b}g\u{202e}");
    let served = daemon::Daemon::start(&dir);
    served.output(&["publish", "a\u{200b}", "\u{202e}x"], b"");
    assert_eq!(served.stop(), Some(0));
    let shown = "lo\\u{200b}g\\u{202e}";
    let log = |args: &[&str]| {
        let mut command = tailmark(&["log"]);
        command.args(args).arg("--data-dir").arg(&dir);
        command
    };
    let info = log(&["info"]).output().unwrap();
    assert_ok(&info);
    assert!(stdout(&info).contains(shown), "{}", stdout(&info));
    let explained = log(&["explain", "1"]).output().unwrap();
    assert_ok(&explained);
    assert!(stdout(&explained).contains("\"a\\u200b\"") && stdout(&explained).contains("\\u202ex"));
    let dumped = on_terminal(log(&["dump"]));
    assert!(dumped.contains("\"a\\u200b\"") && dumped.contains("\"\\u202ex\""), "{dumped}");
    for said in [stdout(&info), stdout(&explained), &dumped.replace('\r', "")] {
        assert_seen(said);
    }
    // What names a file in an error.
    let slots = std::fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    for slot in slots.filter(|path| path.extension().is_some_and(|ext| ext != "tip")) {
        if let Some(at) = logdir::find(&slot, b"a\xe2\x80\x8b") {
            logdir::flip(&slot, at);
        }
    }
    for args in [&["verify"][..], &["info"], &["dump"], &["explain", "1"]] {
        let output = log(args).output().unwrap();
        // A program reads what is dumped.
        if args != ["dump"] {
            assert_seen(stdout(&output));
        }
        assert_seen(stderr(&output));
    }
    let gone = run(&["log", "info", "--data-dir", "no\u{200b}where"]);
    assert!(stderr(&gone).contains("no\\u{200b}where"), "{}", stderr(&gone));
}
