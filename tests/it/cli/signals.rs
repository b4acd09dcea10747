//! What each signal does to a command that runs until it is told to end.

use super::*;

/// With the code that each leaves.
const ENDS: [(&str, i32); 4] = [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143)];

#[test]
fn a_watch_ends_in_order_on_every_signal_that_asks_and_goes_on_where_it_was() {
    for (name, expected) in ENDS {
        let daemon = Daemon::start();
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        daemon.store("a", &["1"]);
        let args = ["watch", "--json", "--from", "oldest", "--state", state.to_str().unwrap()];
        let mut child = daemon.spawn(&args);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("\"body\":\"1\""));
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{name}");
        daemon.store("a", &["2"]);
        let output = daemon.run(&[&args[..], &["--until-caught-up"]].concat());
        assert_eq!(bodies(stdout(&output)), ["2"], "{name}");
    }
}

#[test]
fn an_upload_ends_in_order_on_every_signal_that_asks_and_says_what_is_stored() {
    for (name, expected) in ENDS {
        let daemon = Daemon::start();
        let mut child = daemon.spawn(&["upload", "--topic", "a", "-"]);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").unwrap();
        daemon.runtime.block_on(crate::support::server::until("stored", || daemon.head() == 2));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), expected, "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains("2 events received"), "{name}: {}", stderr(&output));
        drop(stdin);
    }
}

#[test]
fn a_chat_and_figures_end_on_every_signal_that_asks() {
    let daemon = Daemon::start();
    for (name, expected) in ENDS {
        for args in [&["chat", "ops"][..], &["metrics", "--json"]] {
            let mut child = daemon.spawn(args);
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let said = if args[0] == "chat" {
                let listens = || daemon.log.status().readers > 0;
                daemon.runtime.block_on(crate::support::server::until("it listens", listens));
                daemon.store("chat.ops", &["hello"]);
                lines.next().unwrap().unwrap()
            } else {
                lines.next().unwrap().unwrap()
            };
            assert!(!said.is_empty());
            signal(&child, name);
            assert_eq!(child.wait().unwrap().code(), Some(expected), "{name} {args:?}");
            let is_gone = || daemon.log.status().readers == 0;
            daemon.runtime.block_on(crate::support::server::until("it is gone", is_gone));
        }
    }
}

#[test]
fn what_was_ignored_when_a_command_began_stays_so() {
    let daemon = Daemon::start();
    let watch = daemon.command(&["watch", "--json"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT QUIT; exec \"$0\" \"$@\""]);
    command.arg(watch.get_program()).args(watch.get_args());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let listens = || daemon.log.status().readers > 0;
    daemon.runtime.block_on(crate::support::server::until("it listens", listens));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for name in ["HUP", "INT", "QUIT", "INT"] {
        signal(&child, name);
        daemon.store("a", &[name]);
        assert!(lines.next().unwrap().unwrap().contains(name), "{name}");
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
