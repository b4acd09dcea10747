//! The tutorial, run as it stands: its commands in one shell, and what it says that they print.
//!
//! `…` in an expected line stands for anything. Only the port is another one, so that a daemon of this
//! machine is left alone.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::port::Port;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
const MARK: &str = "@@ tutorial";

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

#[test]
fn the_tutorial_does_what_it_says() {
    let steps = steps(TUTORIAL);
    assert!(steps.len() > 25, "{} commands", steps.len());
    let port = Port::reserve();
    let address = port.address.to_string();
    let place = tempfile::tempdir().unwrap();
    let mut script = String::new();
    for step in &steps {
        let command = step.command.replace("localhost:50051", &address);
        script.push_str(&format!("{command}\necho '{MARK}'\n"));
    }
    // Whatever happens, no daemon stays.
    let script = format!("exec 2>&1\ntrap 'kill -9 $(jobs -p) 2> /dev/null' EXIT\n{script}");
    let program = Path::new(env!("CARGO_BIN_EXE_tailmark")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TAILMARK_")) {
        command.env_remove(name);
    }
    let output = command
        .args(["-c", &script])
        .current_dir(place.path())
        .env("PATH", path)
        .env("XDG_CONFIG_HOME", place.path())
        .env("TAILMARK_SERVER_LISTEN", &address)
        .env("TAILMARK_ADDR", &address)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    drop(port);
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
