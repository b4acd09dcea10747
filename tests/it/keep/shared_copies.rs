//! The directory of a daemon whose journal is shared with others: what looks at it sees a log, nothing takes it for a
//! log of its own, and what is made of it is one.

use std::path::Path;
use std::sync::Arc;

use tailmark::backup::Upto;
use tailmark::inspect;
use tailmark_log::StoreError;
use tailmark_log::eventlog::whole_state;
use tailmark_log::storage::shared::{
    CopyStore, Identity, Place, Replica, StateOf, Stream, copy_in_memory, open_copy,
};
use tailmark_log::storage::{Level, local, memory};
use tailmark_record::{FingerprintKey, LogId, Timestamp};

use super::backups::{restored, taken};
use crate::support::daemon::{feed, program};
use crate::support::kept::{self, events, expect_clean};
use crate::support::logdir::{self, log_command, snapshot};

const LARGEST: usize = 32 << 10;

fn replica(name: u64, stream: &Arc<Stream>, copy: Arc<dyn CopyStore>) -> Replica {
    let state_of: StateOf = Box::new(|recovered| {
        whole_state(recovered, &tailmark_log::eventlog::Options::default(), LARGEST)
    });
    Replica::new((name, name), stream.connect(), copy, state_of, &[]).unwrap()
}

/// A copy of a journal with three thousand events, and where it ends.
fn copy_in(dir: &Path) -> Place {
    let identity = Identity {
        id: LogId::new(uuid::Uuid::from_u128(16)),
        key: FingerprintKey::new([7; 16]),
        max_commit_bytes: LARGEST,
        level: Level::Replicated,
        created_at: Timestamp { seconds: 1_700_000_000, nanos: 0 },
    };
    let stream = Stream::new(identity, true);
    let connection = stream.connect();
    let memory = copy_in_memory(memory::Options::default(), &*connection).unwrap();
    let writer = replica(1, &stream, memory);
    writer.take_over(Timestamp { seconds: 1_700_000_001, nanos: 0 }).unwrap();
    logdir::fill(&writer, 3_000, 50);
    let engine = open_copy(dir, logdir::options(), &*connection).unwrap();
    let copy = replica(2, &stream, engine.clone());
    while copy.follow().unwrap().is_some() {}
    logdir::wait_for_sealing(&*engine);
    let place = copy.place();
    copy.close().unwrap();
    drop(copy);
    logdir::kill(dir, engine);
    place
}

#[test]
fn all_that_looks_at_a_log_looks_at_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let place = copy_in(dir.path());
    let before = snapshot(dir.path());
    expect_clean(dir.path());
    assert_eq!(events(dir.path()).len(), 3_000);
    let info = inspect::info(dir.path()).unwrap();
    assert_eq!(info.copy.and_then(|copy| copy.place), Some(place));
    assert_eq!(info.generations.len(), 2);
    let said = log_command(dir.path(), &["info"]);
    let text = String::from_utf8(said.stdout).unwrap();
    let wanted =
        "copy of      the shared journal a journal in memory, up to its slot 61, in term 1\n";
    assert!(said.status.success() && text.contains(wanted), "{text}");
    let said = log_command(dir.path(), &["info", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let copy = &json["copy"];
    assert_eq!((&copy["journal"], &copy["slot"]), (&"a journal in memory".into(), &"61".into()));
    assert_eq!(copy["chain"], place.chain.to_string());
    assert!(log_command(dir.path(), &["verify"]).status.success());
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn nothing_takes_a_copy_for_a_log_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    copy_in(&data);
    let before = snapshot(&data);
    let refused = local::open(&data, logdir::options()).map(drop);
    assert!(matches!(refused, Err(StoreError::IsCopy { .. })), "{refused:?}");
    for command in [&["serve", "--data-dir"][..], &["log", "compact-offline", "--from"]] {
        let mut command = program(command);
        command.arg(&data);
        if command.get_args().any(|arg| arg == "--from") {
            command.arg("--to").arg(&to);
        } else {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let done = feed(&mut command, b"");
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{said}");
        let wanted = "is a copy of the shared journal a journal in memory";
        assert!(said.contains(wanted) && said.contains("a log of its own"), "{said}");
    }
    assert!(!to.exists());
    let is_lock = |path: &Path| path.file_name().is_some_and(|name| name == "LOCK");
    let files = |of: std::collections::BTreeMap<_, _>| {
        let kept = of.into_iter().filter(|(path, _): &(std::path::PathBuf, _)| !is_lock(path));
        kept.map(|(path, (.., bytes)): (_, (u64, i64, i64, i64, Vec<u8>))| (path, bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!(files(snapshot(&data)), files(before));
}

/// By a salvage, a backup that is restored, and an export that is imported: with the same events, and a generation.
#[tokio::test]
async fn what_is_made_of_a_copy_is_a_log_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let data = path("data");
    copy_in(&data);
    let wanted = events(&data);
    let run = |command: &mut std::process::Command| {
        let done = feed(command, b"");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(program(&["log", "salvage", "--from"]).arg(&data).arg("--to").arg(path("salvaged")));
    taken(&data, &path("backup"));
    restored(&path("backup"), None, Upto::Head, &path("restored")).unwrap();
    run(program(&["log", "export", "--data-dir"]).arg(&data).arg("--output").arg(path("file")));
    let mut import = program(&["log", "import", "--exact"]);
    run(import.arg(path("file")).arg("--data-dir").arg(path("imported")));
    for name in ["salvaged", "restored", "imported"] {
        let made = path(name);
        expect_clean(&made);
        assert_eq!(events(&made), wanted, "{name}");
        let info = inspect::info(&made).unwrap();
        assert!(info.copy.is_none());
        assert_eq!(info.generations.len(), 3, "{name}");
        let log = kept::open(&made);
        assert!(kept::store(&log, 0..3).await.is_some());
        log.close().await.unwrap();
    }
}
