//! `tailmark watch --state FILE` against a real daemon, ended in the middle of an upload and
//! started again, several times: what docs/cli.md promises, and no more.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_record::Cursor;

use crate::support::server::PATIENCE;

const LINES: u64 = 6_000;

fn tailmark(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailmark"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TAILMARK_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").args(args);
    command
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

fn serve(dir: &Path) -> (Running, String) {
    let mut child = tailmark(&["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .env("TAILMARK_STORAGE_SLOT_BYTES", "1 MiB")
        .env("TAILMARK_STORAGE_MIN_FREE_BYTES", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.strip_prefix("ready on ").and_then(|rest| rest.split(',').next());
    let url = format!("http://{}", address.unwrap_or_else(|| panic!("{ready}")));
    (Running(child), url)
}

/// What one run printed: seqs, without what was cut off in the middle of a line.
fn printed(output: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(output).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let seq = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let seq: u64 = event["seq"].as_str().unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        let body = event["body"].as_str().unwrap_or_else(|| panic!("{line}"));
        assert_eq!(body.split(' ').next(), Some(seq.to_string().as_str()), "{line}");
        seq
    };
    whole.lines().map(seq).collect()
}

fn saved(state: &Path) -> u64 {
    // Killed before the server had answered: there is no file, and nothing was printed.
    let Ok(bytes) = std::fs::read(state) else { return 0 };
    let state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    Cursor::parse(state["cursor"].as_str().unwrap()).unwrap().seq().get()
}

/// Uploads slowly enough to be ended many times in the middle: each part waits for a token.
fn upload(url: &str) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let mut child = tailmark(&["upload", "--topic", "t", "--addr", url])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (go, turns) = std::sync::mpsc::channel();
    let feeding = std::thread::spawn(move || {
        let filler = "x".repeat(900);
        for n in 1..=LINES {
            if n % 1_000 == 1 {
                turns.recv().unwrap();
            }
            writeln!(stdin, "{n} {filler}").unwrap();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    });
    (go, feeding)
}

/// Runs the watch again and again, ended by `signal`. The seqs that each run printed, and what was
/// saved when it began.
fn run_again_and_again(signal: &str, seed: u64) -> Vec<(u64, Vec<u64>)> {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, url) = serve(&dir.path().join("data"));
    let state = dir.path().join("state");
    let mut rng = StdRng::seed_from_u64(seed);
    let (go, feeding) = upload(&url);
    let mut runs: Vec<(u64, Vec<u64>)> = Vec::new();
    let begin = |n: u64, extra: &[&str]| -> (Running, PathBuf, u64) {
        let output = dir.path().join(format!("out-{n}"));
        let mut command = tailmark(&["watch", "--from", "oldest", "--json", "--addr", &url]);
        command.arg("--state").arg(&state).args(extra);
        command.stdout(File::create(&output).unwrap()).stderr(Stdio::null());
        // Before it runs, for it saves from the beginning.
        let from = saved(&state);
        (Running(command.spawn().unwrap()), output, from)
    };
    for n in 0..LINES / 1_000 {
        let (mut watch, output, from) = begin(n, &[]);
        go.send(()).unwrap();
        // Somewhere in what is being uploaded now.
        let enough = rng.random_range(1..900_000);
        let begun = Instant::now();
        while std::fs::metadata(&output).unwrap().len() < enough {
            assert!(begun.elapsed() < PATIENCE, "nothing is printed");
            std::thread::yield_now();
        }
        watch.signal(signal);
        let status = watch.0.wait().unwrap();
        assert_eq!(status.code(), (signal == "INT").then_some(130));
        runs.push((from, printed(&output)));
    }
    feeding.join().unwrap();
    let (mut watch, output, from) = begin(99, &["--until-caught-up"]);
    assert!(watch.0.wait().unwrap().success());
    runs.push((from, printed(&output)));
    assert_eq!(saved(&state), LINES);
    drop(daemon);
    runs
}

#[test]
fn a_killed_watch_skips_nothing_and_prints_again_only_what_was_not_saved() {
    let runs = run_again_and_again("KILL", 3);
    let mut last = 0;
    for (from, seqs) in &runs {
        // It goes on exactly after what was saved, and never saves what it has not printed.
        assert!(*from <= last, "saved {from}, printed {last}");
        let expected: Vec<u64> = (from + 1..).take(seqs.len()).collect();
        assert_eq!(seqs, &expected);
        last = last.max(from + seqs.len() as u64);
    }
    assert_eq!(last, LINES);
}

#[test]
fn an_interrupted_watch_prints_every_event_exactly_once() {
    let runs = run_again_and_again("INT", 4);
    let all: Vec<u64> = runs.into_iter().flat_map(|(_, seqs)| seqs).collect();
    assert_eq!(all, (1..=LINES).collect::<Vec<_>>());
}
