//! `tailmark chat` as a process, with pipes and on a terminal.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::Value;

use super::talk::{send, subscribe};
use crate::seed::chat::MessageType::Chat;
use crate::support::daemon::{feed, program};
use crate::support::proxy::Proxy;
use crate::support::server::{TestServer, start, until, within};
use crate::support::terminal::Terminal;

async fn run(addr: String, args: &'static [&'static str], input: &str) -> (i32, String, String) {
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut command = program(&["chat"]);
        command.args(args).arg("--addr").arg(addr).env("TZ", "UTC");
        feed(&mut command, input.as_bytes())
    });
    let output = within("tailmark chat", output).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn url(server: &TestServer) -> String {
    format!("http://{}", server.address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_from_a_pipe_is_said_and_durable_at_the_end() {
    let server = start().await;
    let mut listening = subscribe(server.channel().await, "ops", "", "").await.unwrap();
    let (code, out, err) = run(url(&server), &["ops", "--as", "bot"], "hi there\n\n").await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    assert_eq!(server.head(), 1);
    let mut message = listening.message().await;
    while message.r#type() != Chat {
        message = listening.message().await;
    }
    assert_eq!((message.user.as_str(), message.content.as_str()), ("bot", "hi there"));
    // What was said before, on request, in words that a terminal cannot act on.
    send(server.channel().await, "ops", "ev\u{1b}il", "\u{1b}[2J").await;
    let (code, out, _) = run(url(&server), &["ops", "--as", "bot", "--last", "5"], "").await;
    let lines: Vec<_> = out.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!((code, lines), (0, vec!["bot: hi there", "ev\\u{1b}il: \\u{1b}[2J"]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_every_message_with_its_place() {
    let server = start().await;
    send(server.channel().await, "", "Ann", "before").await;
    let args = &["--as", "bot", "--json", "--last", "1"];
    let (code, out, err) = run(url(&server), args, "one\ntwo\n").await;
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> = lines
        .iter()
        .map(|line| {
            [&line["user"], &line["content"], &line["room"], &line["seq"]]
                .map(|v| v.as_str().unwrap())
        })
        .collect();
    assert_eq!(
        said,
        [
            ["Ann", "before", "general", "1"],
            ["bot", "one", "general", "2"],
            ["bot", "two", "general", "3"]
        ]
    );
    assert_eq!(lines[2]["cursor"].as_str().unwrap(), server.cursor(3));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_and_goes_is_told_apart_from_who_reads_alike() {
    let server = start().await;
    send(server.channel().await, "ops", "Ann", "before").await;
    let mut command = program(&["chat", "ops", "--last", "1", "--addr"]);
    command.arg(url(&server)).env("NO_COLOR", "1");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
    // What was said before is read before the room is entered; what is said after that is shown by who is there.
    let mut said = BufReader::new(child.stdout.take().unwrap());
    for message in ["before", "after"] {
        let mut line = String::new();
        let shown = tokio::task::spawn_blocking(move || {
            said.read_line(&mut line).unwrap();
            (line, said)
        });
        // Kept: the program ends when nobody reads what it says.
        let (line, rest) = within("a message", shown).await.unwrap();
        said = rest;
        assert!(line.ends_with(&format!("Ann: {message}\n")), "{line}");
        if message == "before" {
            send(server.channel().await, "ops", "Ann", "after").await;
        }
    }
    for (user, shown) in
        [("ann", "ann"), ("ann\u{200b}", "ann\\u{200b}"), ("\u{202e}nna", "\\u{202e}nna")]
    {
        let mut coming = Some(subscribe(server.channel().await, "ops", user, "").await.unwrap());
        for what in ["came", "left"] {
            let note = tokio::task::spawn_blocking(move || (notes.next().unwrap().unwrap(), notes));
            let (note, rest) = within("a note", note).await.unwrap();
            notes = rest;
            assert_eq!(note, format!("-- {shown} {what}"));
            drop(coming.take());
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_said() {
    let server = start().await;
    let long = "x".repeat(2 << 20);
    let (code, out, err) = run(url(&server), &["--as", "bot"], &format!("good\n{long}\n")).await;
    assert_eq!((code, out.as_str(), server.head()), (1, "", 1));
    assert!(err.contains("LIMIT_EXCEEDED") && err.contains("not stored"), "{err}");
    let (code, _, err) = run("http://127.0.0.1:1".to_owned(), &["--as", "bot"], "x\n").await;
    assert_eq!(code, 5, "{err}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_is_cut_again_and_again_says_and_hears_everything_once() {
    const LINES: usize = 120;
    let server = start().await;
    let proxy = Proxy::to(server.address).await;
    let mut command = program(&["chat", "--as", "bot", "--json", "--last", "9", "--addr"]);
    command.arg(proxy.url()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        stdout.lines().map(|line| line.unwrap()).collect::<Vec<_>>()
    });
    let channel = server.channel().await;
    for at in 0..LINES {
        writeln!(stdin, "line {at}").unwrap();
        if at % 20 == 10 {
            // Somewhere in the middle of it.
            until("some of it", || server.head() >= at as u64 / 2).await;
            until("a connection to cut", || proxy.cut() > 0).await;
        }
        if at % 10 == 0 {
            send(channel.clone(), "", "Ann", "between").await;
        }
    }
    drop(stdin);
    let lines = within("the output", reading).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait());
    assert!(within("the end", ended).await.unwrap().unwrap().success());
    let messages: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> =
        messages.iter().map(|m| m["seq"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(seqs.len() as u64, server.head());
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    let own: Vec<_> = messages
        .iter()
        .filter(|message| message["user"] == "bot")
        .map(|message| message["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(own, (0..LINES).map(|at| format!("line {at}")).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_without_a_name_listens_until_it_is_asked_to_stop() {
    let server = start().await;
    let mut command = program(&["chat", "ops", "--last", "1", "--addr"]);
    command.arg(url(&server)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    send(server.channel().await, "ops", "Ann", "before").await;
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, mut printed) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let line = within("history", printed.recv()).await.unwrap();
    assert!(line.ends_with(" Ann: before"), "{line}");
    until("it listens", || server.gauges.watches() == 1).await;
    send(server.channel().await, "ops", "Ann", "now").await;
    let line = within("live", printed.recv()).await.unwrap();
    assert!(line.ends_with(" Ann: now"), "{line}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    server.stop().await;
}

fn on_terminal(server: &TestServer, args: &[&str]) -> Terminal {
    let mut command = program(&["chat"]);
    command.args(args).arg("--addr").arg(url(server)).env("TERM", "xterm").env("TZ", "UTC");
    Terminal::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_nothing_that_was_typed_is_lost() {
    let server = start().await;
    send(server.channel().await, "ops", "Ann", "before").await;
    let mut terminal = on_terminal(&server, &["ops", "--as", "bob"]);
    terminal.shows("the last message:").await;
    terminal.shows("before").await;
    terminal.shows("bob> ").await;
    until("it listens", || server.gauges.watches() == 1).await;
    // Faster than one line is taken from the editor.
    terminal.type_keys("one\rtwo\rthree\rhalf a l");
    until("three lines", || server.head() == 4).await;
    // While a line is being typed.
    send(server.channel().await, "ops", "Ann", "in between").await;
    terminal.shows("in between").await;
    terminal.type_keys("ine\r");
    until("the whole line", || server.head() == 6).await;
    for (seq, text) in [(2, "one"), (3, "two"), (4, "three"), (6, "half a line")] {
        let bytes = server.log.event(tailmark_record::Seq::new(seq)).await.unwrap().unwrap();
        assert_eq!(tailmark_record::Event::parse(&bytes).unwrap().body, text);
    }
    // Its own words stand there once, as they were typed.
    assert!(!terminal.screen().contains("bob\u{1b}[0m: one"));
    terminal.type_keys("\u{4}");
    assert_eq!(terminal.ends().await, Some(0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_and_says_what_is_open() {
    let server = start().await;
    let mut terminal = on_terminal(&server, &["--as", "bob", "--last", "0"]);
    terminal.shows("bob> ").await;
    until("it listens", || server.gauges.watches() == 1).await;
    server.stop().await;
    terminal.type_keys("never stored\r");
    terminal.shows("not stored yet").await;
    terminal.type_keys("\u{3}");
    assert_eq!(terminal.ends().await, Some(130));
    terminal.shows("may be stored or not: \"never stored\"").await;
}
