//! Pages of the documentation, run as they stand: their commands in one shell, and what they say that those print.
//!
//! `…` in an expected line stands for anything. Only the ports are others, so that a daemon of this
//! machine is left alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::{feed, program};
use crate::support::port::Port;
use crate::support::reverse_proxy::are_there;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
const NETWORK: &str = include_str!("../../docs/network.md");
const MARK: &str = "@@ done";

/// A command, and the lines that it prints.
struct Step {
    command: String,
    expected: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_inside = line == "```console";
        } else if is_inside {
            match (line.strip_prefix("$ "), line.strip_prefix("> "), steps.last_mut()) {
                (Some(command), ..) => {
                    steps.push(Step { command: command.to_owned(), expected: Vec::new() });
                }
                (None, Some(more), Some(step)) => step.command.push_str(&format!("\n{more}")),
                (None, None, Some(step)) => step.expected.push(line.to_owned()),
                _ => panic!("no command before {line:?}"),
            }
        }
    }
    steps
}

/// Whether a line is as it is expected, `…` being anything.
fn is_as(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn lines_are_compared_with_what_is_left_open() {
    for (line, expected, is_it) in [
        ("1  abc", "1  …", true),
        ("1  abc  (was)", "1  …  (was)", true),
        ("1  abc", "1  …  (was)", false),
        ("2  abc", "1  …", false),
        ("abc", "abc", true),
        ("abcd", "abc", false),
        ("{a,b,c}", "{…,b,…}", true),
        ("{a,c}", "{…,b,…}", false),
    ] {
        assert_eq!(is_as(line, expected), is_it, "{line} {expected}");
    }
}

/// Runs all commands of a page in one shell in `place`, with what is `swapped` in them, and compares what they print.
fn run(page: &str, place: &Path, variables: &[(&str, &str)], swapped: &[(&str, &str)]) {
    let steps = steps(page);
    assert!(steps.len() > 15, "{} commands", steps.len());
    let mut script = String::new();
    for step in &steps {
        let swap = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        let command = swapped.iter().fold(step.command.clone(), swap);
        script.push_str(&format!("{command}\necho '{MARK}'\n"));
    }
    // Whatever happens, no daemon and no proxy stays.
    let end = "kill -9 $(jobs -p); kill $(find -name nginx.pid -exec cat {} +)";
    let script = format!("exec 2>&1\ntrap '{{ {end}; }} 2> /dev/null' EXIT\n{script}");
    let program = Path::new(env!("CARGO_BIN_EXE_tailmark")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TAILMARK_")) {
        command.env_remove(name);
    }
    let output = command
        .args(["-c", &script])
        .current_dir(place)
        .env("PATH", path)
        .env("XDG_CONFIG_HOME", place)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let end = format!("{MARK}\n");
    let mut found = said.split(&end);
    for Step { command, expected } in &steps {
        let lines: Vec<_> = found.next().unwrap_or_default().lines().collect();
        let is_right = lines.len() == expected.len()
            && lines.iter().zip(expected).all(|(line, expected)| is_as(line, expected));
        assert!(is_right, "{command}\n{lines:#?}\nin place of\n{expected:#?}");
    }
}

#[test]
fn the_tutorial_does_what_it_says() {
    let (port, place) = (Port::reserve(), tempfile::tempdir().unwrap());
    let address = &*port.address.to_string();
    let variables = ["TAILMARK_SERVER_LISTEN", "TAILMARK_ADDR"].map(|name| (name, address));
    run(TUTORIAL, place.path(), &variables, &[("localhost:50051", address)]);
}

/// A clone, for what the page takes of it: on other ports, and it leaves nothing.
#[test]
fn a_watch_behind_nginx_with_a_token_is_had_by_one_page() {
    if !are_there() {
        return;
    }
    let (own, proxy, place) = (Port::reserve(), Port::reserve(), tempfile::tempdir().unwrap());
    let file = "deploy/nginx/tailmark.conf";
    let deployed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let address = own.address.to_string();
    assert!(deployed.contains("127.0.0.1:50051"));
    fs::create_dir_all(place.path().join("deploy/nginx")).unwrap();
    fs::write(place.path().join(file), deployed.replace("127.0.0.1:50051", &address)).unwrap();
    let (own, proxy) = (own.address.port().to_string(), proxy.address.port().to_string());
    run(NETWORK, place.path(), &[], &[("50051", &own), ("8443", &proxy)]);
    assert_eq!(fs::read_dir(place.path().join("target")).unwrap().count(), 0);
}

/// The rest of that page is for a server, where it takes systemd and a name of one's own: its settings and
/// commands are understood.
#[test]
fn what_one_page_says_for_a_server_is_understood() {
    let (mut settings, mut commands) = (Vec::new(), 0);
    let mut blocks = NETWORK.split("\n```");
    while let Some(block) = blocks.nth(1) {
        let (kind, text) = block.split_once('\n').unwrap();
        if kind == "toml" {
            settings.push(text);
        }
        for line in text.lines().filter(|_| kind.is_empty()) {
            let line = line.strip_prefix("sudo ").unwrap_or(line);
            let Some(args) = line.strip_prefix("tailmark ") else { continue };
            let args = args.split(" #").next().unwrap().split(" > ").next().unwrap();
            // What is quoted is one argument.
            let parts = args.split('\'').enumerate();
            let mut args: Vec<_> = parts
                .flat_map(|(at, part)| match at % 2 {
                    0 => part.split_whitespace().collect(),
                    _ => vec![part],
                })
                .collect();
            // Understood, and then not done.
            args.push("--help");
            let output = feed(&mut program(&args), b"");
            assert_eq!(output.status.code(), Some(0), "{line}");
            args.insert(args.len() - 1, "--no-such-flag");
            assert_eq!(feed(&mut program(&args), b"").status.code(), Some(2), "{line}");
            commands += 1;
        }
    }
    assert!(commands > 8 && settings.len() == 3, "{commands}, {}", settings.len());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, settings.join("\n")).unwrap();
    let output = feed(&mut program(&["config", "print", "--config", file.to_str().unwrap()]), b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
