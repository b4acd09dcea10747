//! What is written to a terminal that understands nothing, of which there are several kinds, beside what
//! a good one gets.

use rustix::process::Signal;

use super::*;
use crate::support::logdir;
use crate::support::terminal::Terminal;

/// Variables beside those that a test sets.
type Setting = (&'static str, &'static str);

/// A program on a terminal where these are set, and nothing else that matters.
fn on_terminal(mut command: Command, settings: &[Setting]) -> Terminal {
    for name in ["TERM", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "COLORTERM"] {
        command.env_remove(name);
    }
    command.envs(settings.iter().copied());
    Terminal::start(command)
}

/// What a command shows there from beginning to end.
fn shown(daemon: &Daemon, command: Command, settings: &[Setting]) -> String {
    daemon.runtime.block_on(async {
        let mut terminal = on_terminal(command, settings);
        terminal.ends().await;
        terminal.screen()
    })
}

/// Sequences that set colours and other attributes: `ESC [ ... m`.
fn has_colour(screen: &str) -> bool {
    screen.split("\u{1b}[").skip(1).any(|rest| {
        rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m')
    })
}

const DUMB: [&[Setting]; 5] = [
    &[("TERM", "dumb")],
    &[],
    &[("TERM", "")],
    &[("TERM", "dumb"), ("CI", "true")],
    &[("TERM", "dumb"), ("CLICOLOR", "1")],
];
const GOOD: &[Setting] = &[("TERM", "xterm")];
const COLOURLESS: &[Setting] = &[("TERM", "xterm"), ("NO_COLOR", "1")];

#[test]
fn a_dumb_terminal_gets_no_escape_sequence_from_any_command() {
    let daemon = Daemon::start();
    daemon.store("a", &["1", "2"]);
    let dir = logdir::sealed_log();
    let log_dir = dir.path().to_str().unwrap();
    let input = tempfile::tempdir().unwrap();
    let file = input.path().join("lines");
    std::fs::write(&file, "one\n".repeat(100)).unwrap();
    let file = file.to_str().unwrap();
    // With whether a good terminal gets some, which shows that the test can see them.
    let online: [(&[&str], bool); 10] = [
        (&["status"], false),
        (&["topics"], false),
        (&["watch", "--from", "oldest", "--limit", "2"], false),
        (&["watch", "--after", "nonsense"], true),
        (&["watch", "--from", "9999"], true),
        (&["metrics", "--once"], false),
        (&["upload", "--topic", "a", file], true),
        (&["publish", "a..b", "x"], true),
        (&["trim", "--before", "1", "--yes"], false),
        (&["bench", "append", "--events", "10"], false),
    ];
    let offline: [(&[&str], bool); 8] = [
        (&["--help"], true),
        (&["watch", "--help"], true),
        (&["no-such-command"], true),
        (&["config", "print"], false),
        (&["config", "check", "--listen", "nonsense"], true),
        (&["log", "info", "--data-dir", log_dir], false),
        (&["log", "verify", "--data-dir", log_dir], true),
        (&["log", "info", "--data-dir", "/nonexistent"], true),
    ];
    let commands = online.iter().map(|(args, is_marked)| (daemon.command(args), args, is_marked));
    let alone = offline.iter().map(|(args, is_marked)| (tailmark(args), args, is_marked));
    for (command, args, is_marked) in commands.chain(alone) {
        let again = || {
            let mut again = Command::new(command.get_program());
            again.args(command.get_args());
            again
        };
        let good = shown(&daemon, again(), GOOD);
        assert_eq!(good.contains('\u{1b}'), *is_marked, "{args:?}: {good:?}");
        assert!(!has_colour(&shown(&daemon, again(), COLOURLESS)), "{args:?}");
        for settings in DUMB {
            let screen = shown(&daemon, again(), settings);
            assert!(!screen.contains('\u{1b}'), "{args:?} {settings:?}: {screen:?}");
        }
    }
}

#[test]
fn live_figures_are_lines_on_a_dumb_terminal_and_a_picture_on_a_good_one() {
    let daemon = Daemon::start();
    let look = |settings: &'static [Setting]| {
        daemon.runtime.block_on(async {
            let command = daemon.command(&["metrics", "--interval", "1s"]);
            let mut terminal = on_terminal(command, settings);
            // The second is where a picture covers the first.
            let samples = || terminal.screen().matches("Z").count() >= 2;
            crate::support::server::until("two samples", samples).await;
            terminal.signal(Signal::INT);
            assert_eq!(terminal.ends().await, Some(0));
            terminal.screen()
        })
    };
    for settings in &DUMB[..2] {
        let screen = look(settings);
        assert!(!screen.contains('\u{1b}') && screen.contains("head 0"), "{screen:?}");
    }
    assert!(look(GOOD).contains("\u{1b}[J"));
    // Without colour the picture is the same: it has none.
    assert!(!has_colour(&look(COLOURLESS)));
}

#[test]
fn a_chat_on_a_dumb_terminal_takes_whole_lines_and_shows_no_escape_sequence() {
    let daemon = Daemon::start();
    let talk = |settings: &'static [Setting]| {
        daemon.runtime.block_on(async {
            let before = daemon.log.head();
            let mut terminal =
                on_terminal(daemon.command(&["chat", "ops", "--as", "bob"]), settings);
            terminal.shows("Ctrl-D leaves").await;
            terminal.type_keys("hello\r");
            let is_stored = || daemon.log.head() > before;
            crate::support::server::until("stored", is_stored).await;
            terminal.type_keys("\u{4}");
            assert_eq!(terminal.ends().await, Some(0), "{}", terminal.screen());
            terminal.screen()
        })
    };
    for settings in &DUMB[..2] {
        let screen = talk(settings);
        assert!(!screen.contains('\u{1b}') && screen.contains("hello"), "{screen:?}");
    }
    assert!(talk(GOOD).contains('\u{1b}'));
    assert!(!has_colour(&talk(COLOURLESS)));
}

#[test]
fn the_log_of_a_daemon_on_a_dumb_terminal_has_no_escape_sequence() {
    let runtime = Runtime::new().unwrap();
    let look = |settings: &'static [Setting]| {
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut command = tailmark(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
            command.arg(dir.path()).env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0");
            command.env("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB");
            let mut terminal = on_terminal(command, settings);
            terminal.shows("ready on").await;
            terminal.signal(Signal::TERM);
            assert_eq!(terminal.ends().await, Some(0));
            terminal.screen()
        })
    };
    for settings in &DUMB[..2] {
        let screen = look(settings);
        assert!(!screen.contains('\u{1b}') && screen.contains("INFO"), "{screen:?}");
    }
    assert!(has_colour(&look(GOOD)));
    assert!(!has_colour(&look(COLOURLESS)));
}

/// What a watch says on a terminal while it waits, which nobody else gets.
#[test]
fn a_watch_on_a_terminal_says_when_it_is_live_and_how_much_matched() {
    let daemon = Daemon::start();
    daemon.store("a", &["1", "2", "3"]);
    daemon.store("b", &["4"]);
    let live = |args: &[&str], words: &str| {
        daemon.runtime.block_on(async {
            let mut terminal = on_terminal(daemon.command(args), COLOURLESS);
            terminal.shows(words).await;
            terminal.signal(Signal::INT);
            terminal.ends().await;
            let screen = terminal.screen();
            // After what was there, and once.
            assert_eq!(screen.matches("live: ").count(), 1, "{screen:?}");
            screen
        })
    };
    let screen = live(
        &["watch", "a", "--from", "oldest"],
        "live: 3 events up to the head, 4; waiting for more",
    );
    assert!(screen.find("3\r\n") < screen.find("live: "), "{screen:?}");
    live(&["watch", "b", "--from", "oldest"], "live: 1 event up to the head, 4; waiting for more");
    live(&["watch", "c", "--from", "oldest"], "live: no event up to the head, 4; waiting");
    live(&["watch", "a"], "live: what comes after the head, 4, appears here");
    // One that ends says how much there was, and is not live.
    let ends = |args: &[&str]| shown(&daemon, daemon.command(args), COLOURLESS);
    let screen = ends(&["watch", "a", "--from", "oldest", "--until-caught-up"]);
    assert!(screen.contains("3 events up to the head, 4"), "{screen:?}");
    assert!(!screen.contains("live"), "{screen:?}");
    let screen =
        live(&["watch", "a", "--from", "oldest", "--json"], "live: 3 events up to the head");
    assert!(screen.contains("\"seq\":\"3\""), "{screen:?}");
    // A program reads the events alone, from either output.
    let output = daemon.run(&["watch", "a", "--from", "oldest", "--until-caught-up"]);
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// The command's last line may have no end.
#[test]
fn what_is_said_after_a_command_stands_on_a_line_of_its_own() {
    let daemon = Daemon::start();
    daemon.store("a", &["1", "2"]);
    let on_its_own = |settings: &[Setting], script: &str, words: &str| {
        let watch =
            ["watch", "a", "--from", "oldest", "--until-caught-up", "--", "sh", "-c", script];
        let address = daemon.port.address.to_string();
        let command = tailmark(&[&["--addr", &address], &watch[..]].concat());
        let screen = shown(&daemon, command, settings);
        let before = screen.split(words).next().unwrap();
        assert!(before.len() < screen.len(), "{words}: {screen:?}");
        // To the next line, or over a line of spaces, which wraps where something stood before it.
        let last = before.rsplit('x').next().unwrap();
        last.contains('\n') || last.contains('\r') && last.matches(' ').count() >= 80
    };
    assert!(on_its_own(COLOURLESS, "printf x", "2 events up to the head"));
    assert!(on_its_own(COLOURLESS, "printf x; exit 3", "error: sh failed at event 1"));
    // One that can nothing is left alone.
    assert!(!on_its_own(DUMB[0], "printf x", "2 events up to the head"));
}

#[test]
fn a_topic_with_parts_that_are_none_is_told_to_a_person() {
    let daemon = Daemon::start();
    let screen = shown(&daemon, daemon.command(&["publish", "orders/eu", "x"]), COLOURLESS);
    assert!(screen.contains("dots part segments: 'orders.eu'"), "{screen:?}");
    let output = daemon.run(&["publish", "orders/eu", "x"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
