//! Layers within a crate: each room names only rooms below it. So there is no circle among them,
//! and no arrow back up.

use std::collections::HashMap;
use std::path::Path;

use super::{code, sources};

/// The rooms of a folder, from the ground up.
struct House<'a> {
    /// From the root of the repository.
    folder: &'a str,
    /// The folder's module within its crate.
    module: &'a [&'a str],
    /// `room/attic` is a part of a room that lies higher than the rest of it.
    rooms: &'a [&'a str],
}

const SERVER: House<'_> = House {
    folder: "src/server",
    module: &["server"],
    rooms: &[
        "tls",
        "options",
        "peers",
        "served",
        "unsent",
        "permits",
        "shares",
        "quotas",
        "report",
        "coding",
        "rpc",
        "principal",
        "figures",
        "transport",
        "auth",
        "feed",
        "shared",
        "asked",
        "read",
        "backup",
        "ingest",
        "watch",
        "chat",
        "http",
        "service",
        "run",
    ],
};

const ROOT: House<'_> = House {
    folder: "src",
    module: &[],
    rooms: &[
        "escape",
        "certificate",
        "telemetry",
        "config",
        "inspect",
        "export",
        "backup",
        "server",
        "cluster",
        "testing",
        "doctor",
        "tokens",
        "cli",
        "bin",
    ],
};

const LOG: House<'_> = House {
    folder: "crates/log/src",
    module: &[],
    rooms: &["bounded", "width", "chain", "storage", "eventlog", "directory", "testing"],
};

const EVENTLOG: House<'_> = House {
    folder: "crates/log/src/eventlog",
    module: &["eventlog"],
    rooms: &[
        "topic_rules",
        "options",
        "append",
        "error",
        "answer",
        "age_clock",
        "batch",
        "reservation",
        "maintenance",
        "metrics",
        "producers",
        "queue",
        "elsewhere",
        "filter_cache",
        "topic_index",
        "recent",
        "hot",
        "fair_queue",
        "unfetched",
        "reader_pool",
        "topic_heads",
        "repeats_ready",
        "trouble",
        "readiness",
        "interest",
        "read_path",
        "matcher",
        "eraser",
        "core",
        "repeats",
        "state",
        "group_commit",
        "retention",
        "topic_retention",
        "writer",
        "erase",
        "open",
        "progress",
        "stretch",
        "read",
        "reader",
        "topics",
        "trim",
        "status",
        "resolve",
        "cursors",
        "log",
        "following",
        "producer",
    ],
};

const SEGMENT: House<'_> = House {
    folder: "crates/log/src/storage/segment",
    module: &["storage", "segment"],
    rooms: &[
        "block",
        "digest",
        "problem",
        "identity",
        "topics",
        "footer",
        "dir",
        "removed",
        "filter_room",
        "handle",
        "topic_search",
        "scan",
        "index",
        "run_block",
        "blocks",
        "store",
        "sled",
        "database",
        "describe",
        "direct",
        "build",
        "files",
        "transfer",
        "remains",
        "open",
        "comparing",
        "readers",
        "lookup",
        "verify",
        "fuzzing",
    ],
};

const CLI: House<'_> = House {
    folder: "src/cli",
    module: &["cli"],
    rooms: &[
        "message",
        "address",
        "failure",
        "output",
        "contexts",
        "online",
        "pattern",
        "ahead",
        "signals",
        "terminal",
        "progress",
        "moment",
        "state",
        "form",
        "each",
        "input",
        "layer_options",
        "shared",
        "part",
        "live",
        "notify",
        "reload",
        "daemon",
        "heap",
        "serve",
        "token",
        "context",
        "config",
        "completions",
        "doctor",
        "bench",
        "watch",
        "get",
        "chat",
        "log",
        "backup",
        "restore",
        "erase",
        "retention",
        "journal",
        "status",
        "metrics",
        "publish",
        "topics",
        "trim",
        "upload",
        "usage",
    ],
};

#[test]
fn no_wing_of_the_server_names_one_above_it() {
    assert_eq!(SERVER.climbs(), [""; 0]);
}

#[test]
fn no_part_of_the_program_names_one_above_it() {
    assert_eq!(ROOT.climbs(), [""; 0]);
}

#[test]
fn no_part_of_the_log_names_one_above_it() {
    assert_eq!(LOG.climbs(), [""; 0]);
}

#[test]
fn no_part_of_the_event_log_names_one_above_it() {
    assert_eq!(EVENTLOG.climbs(), [""; 0]);
}

#[test]
fn no_part_of_a_segment_names_one_above_it() {
    assert_eq!(SEGMENT.climbs(), [""; 0]);
}

#[test]
fn no_command_names_one_above_it() {
    assert_eq!(CLI.climbs(), [""; 0]);
}

/// What the checks above would not see, they could not refuse.
#[test]
fn a_name_from_above_is_seen_however_it_is_written() {
    let house = House { folder: "", module: &["server"], rooms: &["low", "middle", "high"] };
    let face = HashMap::from([("Tower".to_owned(), "high".to_owned())]);
    let seen = |file: &str, text: &str| house.climbs_of(file, text, &face);
    for text in [
        "use crate::server::high::Thing;",
        "use crate::server::{low::A, high};",
        "use crate::{cli, server::{low, high::{self, B}}};",
        "use super::super::high::Thing;",
        "use super::super::{low::A,\n    high::B};",
        "fn f() -> crate::server::high::Thing {}",
        "pub(in crate::server) fn f(a: super::super::high::Thing) {}",
        "use crate::server::Tower;",
        "use super::super::Tower as T;",
        "fn f() { let x = Some(super::super::Tower::new()); }",
    ] {
        assert_eq!(seen("middle/file.rs", text), ["middle/file.rs names high"], "{text}");
        assert_eq!(seen("high/mod.rs", &text.replace("super::super", "super")), [""; 0], "{text}");
    }
    assert_eq!(seen("middle.rs", "use super::high;"), ["middle.rs names high"]);
    assert_eq!(seen("middle/mod.rs", "use super::low; use super::middle::a;"), [""; 0]);
    // What is hidden behind a name that is nobody's, or in a room that is nowhere.
    for text in ["use crate::server;", "use crate::server::*;", "use super::Unknown;"] {
        assert_eq!(seen("middle.rs", text).len(), 1, "{text}");
    }
    assert_eq!(seen("cellar/file.rs", "").len(), 1);
    // Within the room, and outside of the house.
    let text = "pub(in crate::server) use super::next; use crate::cli::Exit; use tokio::high;";
    assert_eq!(seen("middle/file.rs", text), [""; 0]);
}

impl House<'_> {
    fn climbs(&self) -> Vec<String> {
        let files = sources(self.folder).into_iter().filter_map(|(path, text)| {
            let path = path.strip_prefix(self.folder).ok()?.to_str()?.to_owned();
            Some((path, code(&text)))
        });
        let (faces, files): (Vec<_>, Vec<_>) =
            files.partition(|(path, _)| matches!(path.as_str(), "mod.rs" | "lib.rs"));
        let face = self.shown(&faces.into_iter().map(|(_, text)| text).collect::<String>());
        let is_test = |path: &str| path.split('/').any(|part| matches!(part, "tests" | "tests.rs"));
        let files = files.iter().filter(|(path, _)| !is_test(path));
        files.flat_map(|(path, text)| self.climbs_of(path, text, &face)).collect()
    }

    /// Whose the names are that the face shows.
    fn shown(&self, face: &str) -> HashMap<String, String> {
        let rooms = self.rooms.iter().flat_map(|room| paths(face, &[room]));
        rooms.filter_map(|path| Some((path.last()?.clone(), path.first()?.clone()))).collect()
    }

    /// Where a room lies.
    fn floor(&self, room: &str) -> Option<usize> {
        self.rooms.iter().position(|it| *it == room)
    }

    fn climbs_of(&self, file: &str, text: &str, face: &HashMap<String, String>) -> Vec<String> {
        let mut here: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
        here.pop_if(|last| *last == "mod");
        let Some(floor) = self.floor(here.first().copied().unwrap_or_default()) else {
            return vec![format!("{file} lies in no room")];
        };
        let here: Vec<String> =
            self.module.iter().chain(&here).map(|part| (*part).to_owned()).collect();
        let mut climbs = Vec::new();
        for path in paths(text, &["crate", "super"]) {
            let path = absolute(&here, &path);
            let Some(path) = path.strip_prefix(&owned(self.module)[..]) else { continue };
            let Some(name) = path.first() else {
                climbs.push(format!("{file} names the face"));
                continue;
            };
            let room = face.get(name).unwrap_or(name);
            match self.floor(room) {
                Some(at) if at <= floor => {}
                Some(at) => climbs.push(format!("{file} names {}", self.rooms[at])),
                None => climbs.push(format!("{file} names {name}, which is no room's")),
            }
        }
        climbs.dedup();
        climbs
    }
}

fn owned(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

/// A path from the crate's root on.
fn absolute(here: &[String], path: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    if ups == 0 {
        return path[1..].to_vec();
    }
    let module = here.len().saturating_sub(ups);
    here[..module].iter().chain(&path[ups..]).cloned().collect()
}

/// Every path in some code that begins with one of these words, groups in braces taken apart.
fn paths(text: &str, begins: &[&str]) -> Vec<Vec<String>> {
    let tokens = tokens(text);
    let mut all = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |before| tokens[before]);
        // The inside of a path, or a visibility.
        if begins.contains(token) && !matches!(before, "::" | "in" | "pub(") {
            tree(&tokens, at, &[], &mut all);
        }
    }
    all
}

/// Reads one path or group; returns where it ends.
fn tree(tokens: &[&str], mut at: usize, before: &[String], all: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = tree(tokens, at, &path, all).max(at + 1);
                    while tokens.get(at).is_some_and(|token| !matches!(*token, "," | "}")) {
                        at += 1;
                    }
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            Some(&"self") if !path.is_empty() => at += 1,
            Some(name) => {
                path.push((*name).to_owned());
                at += 1;
            }
            None => {}
        }
        if tokens.get(at) != Some(&"::") {
            all.push(path);
            return at;
        }
        at += 1;
    }
}

/// Words, `::` and what else there is.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(first) = rest.chars().next() {
        let len = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    // `pub(crate)` and the like name nothing.
    let mut joined = Vec::with_capacity(tokens.len());
    for token in tokens {
        if token == "(" && joined.last() == Some(&"pub") {
            joined.push("pub(");
        } else {
            joined.push(token);
        }
    }
    joined
}

#[test]
fn every_room_of_a_house_is_there() {
    for house in [SERVER, ROOT, LOG, EVENTLOG, SEGMENT, CLI] {
        for room in house.rooms {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(house.folder);
            let is_there =
                folder.join(room).is_dir() || folder.join(format!("{room}.rs")).is_file();
            assert!(is_there, "{}: {room}", house.folder);
        }
    }
}
