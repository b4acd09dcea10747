//! The structure that ARCHITECTURE.md draws, held against the code.

use std::path::{Path, PathBuf};

mod layers;
mod reliability;

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut dirs = vec![root.join(below)];
    while let Some(dir) = dirs.pop() {
        let dir_entries = std::fs::read_dir(&dir).unwrap();
        for path in dir_entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    let file = root.join(format!("{below}.rs"));
    if file.is_file() {
        found.push((format!("{below}.rs").into(), std::fs::read_to_string(file).unwrap()));
    }
    assert!(!found.is_empty(), "{below} has no sources");
    found
}

/// Code without comments and without what is there for tests only.
fn code(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]") {
            // The item after it: it ends where a line ends it at the margin.
            for line in lines.by_ref() {
                let is_attribute = line.starts_with("#[");
                let at_margin = !line.starts_with([' ', '#', '/']) && !line.is_empty();
                if !is_attribute && at_margin && line.ends_with([';', '}']) {
                    break;
                }
            }
        } else if !line.trim_start().starts_with("//") {
            kept.push(line);
        }
    }
    kept.join("\n")
}

#[test]
fn code_after_a_test_item_is_looked_at() {
    let text = "a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nmod t;\n// x\nd";
    assert_eq!(code(text), "a\nc\nd");
}

fn refuse(below: &str, words: &[&str]) {
    for (path, text) in sources(below) {
        let is_test = path.components().any(|part| {
            matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "conformance"))
        });
        if is_test {
            continue;
        }
        for (at, line) in code(&text).lines().enumerate() {
            for word in words {
                assert!(!line.contains(word), "{}:{}: {word} in: {line}", path.display(), at + 1);
            }
        }
    }
}

/// The arrows between crates are the compiler's business, those between rooms of one `layers`'s; these
/// are what beside them no folder may know.
#[test]
fn every_module_knows_only_what_lies_below_it() {
    refuse("crates/log/src/storage", &["tokio"]);
    let engines = ["engines::", "storage::local", "storage::memory"];
    for (folder, other) in [("journal", "segment::"), ("segment", "journal::")] {
        let folder = format!("crates/log/src/storage/{folder}");
        refuse(&folder, &[&engines[..], &[other]].concat());
    }
    refuse(
        "crates/log/src/eventlog",
        &["sled", "fsync", "storage::local", "storage::journal", "storage::segment"],
    );
    let insides = ["storage::local", "storage::journal", "storage::segment"];
    refuse(
        "src/server",
        &["crate::config", "crate::inspect", "crate::telemetry", "tailmark_client"],
    );
    refuse("src/server", &insides);
    refuse("src/inspect", &["crate::config", "tailmark_client", "tonic"]);
    refuse("src/export", &["crate::config", "tailmark_client", "tonic"]);
    refuse("src/backup", &["crate::config", "tailmark_client", "tonic"]);
}

/// A user of the client or of the log takes in little else.
#[test]
fn the_crates_need_only_what_lies_below_them() {
    for (name, allowed) in [
        ("record", &[][..]),
        ("wire", &["record"][..]),
        ("log", &["record"][..]),
        ("client", &["record", "wire"][..]),
        ("journal-nats", &["log", "record"][..]),
    ] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = root.join("crates").join(name).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
        let needed = manifest["dependencies"].as_table().unwrap().keys();
        for needed in needed.filter_map(|key| key.strip_prefix("tailmark-")) {
            assert!(allowed.contains(&needed), "{name} needs {needed}");
        }
    }
}

/// The daemon's start, the translation of errors and the offline work reach below the client.
#[test]
fn commands_reach_the_log_through_glue_alone() {
    let glue = [
        "backup.rs",
        "restore.rs",
        "daemon.rs",
        "failure.rs",
        "journal/repair/work.rs",
        "layer_options.rs",
        "live.rs",
        "log.rs",
        "part.rs",
        "shared.rs",
    ];
    for (path, text) in sources("src/cli") {
        if glue.iter().any(|file| path == Path::new("src/cli").join(file))
            || path.starts_with("src/cli/log")
        {
            continue;
        }
        // To a server only through the client library: there is no second way on the wire.
        let wire = ["tonic::", "hyper", "h2::", "service_client::", "TcpStream"];
        let below = ["tailmark_log", "crate::server", "crate::inspect"];
        for word in below.into_iter().chain(wire) {
            assert!(!code(&text).contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn one_folder_names_sled() {
    for (path, text) in sources("src").into_iter().chain(sources("crates")) {
        if path.starts_with("crates/log/src/storage/segment/sled") {
            continue;
        }
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        // Where the segments choose their database, the module of that name is asked.
        let chooses = path.ends_with("segment/database.rs");
        let text = code(&text);
        let text = if chooses { text.replace("super::sled::", "") } else { text };
        if is_test {
            continue;
        }
        for word in ["sled::", "use sled", "extern crate sled"] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn files_are_read_in_one_sitting() {
    for below in ["src", "crates", "tests", "benches"] {
        for (path, text) in sources(below) {
            if path.parent().is_some_and(|folder| folder.ends_with("generated")) {
                continue;
            }
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines", path.display());
            assert!(
                text.lines().all(|line| line.chars().count() <= 140),
                "{} has a line over 140 characters",
                path.display()
            );
        }
    }
}
