//! An erasure that waits, and is taken back; one that has begun, and is not.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tailmark_log::storage::{EraseOrder, Store as _};
use tailmark_record::Seq;
use uuid::Uuid;

use crate::support::daemon::Daemon;
use crate::support::logdir;
use crate::support::server::PATIENCE;

/// A log in which these events are to be erased, and the second segment is damaged. Answers the seqs of that one.
fn ordered(dir: &Path, from: u64) -> Uuid {
    std::fs::create_dir(dir).unwrap();
    let (engine, _) = logdir::open(dir);
    logdir::fill(&*engine, 4_000, 50);
    logdir::wait_for_sealing(&*engine);
    let id = Uuid::from_u128(17);
    let seqs = vec![Seq::new(from)..Seq::new(4_001)];
    let (reason, at) = ("asked".to_owned(), logdir::time_of(1));
    let order = Arc::new(EraseOrder { id, reason, at, seqs });
    assert!(engine.erase(&order, &mut |_| ControlFlow::Break(())).is_err());
    logdir::close(dir, engine);
    let db = logdir::segments(dir).remove(1).join("db/db");
    let len = std::fs::metadata(&db).unwrap().len();
    (0..len).step_by(503).for_each(|at| logdir::flip(&db, at));
    id
}

/// The first seq of the second segment.
fn second(dir: &Path) -> u64 {
    let info = tailmark::inspect::info(dir).unwrap();
    info.segments[1].first.get()
}

fn cancel(daemon: &Daemon, id: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let done = daemon.run(&[&["erase", "--cancel", id], more].concat(), b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

/// As soon as it waits.
fn cancelled(daemon: &Daemon, id: &str) -> (Option<i32>, String, String) {
    let begun = Instant::now();
    loop {
        let done = cancel(daemon, id, &[]);
        let is_at_work = done.2.contains("ERASURE_BEGUN");
        if !is_at_work || begun.elapsed() > PATIENCE / 4 {
            return done;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn one_that_waits_is_taken_back_and_nothing_is_erased() {
    let dir = tempfile::tempdir().unwrap();
    let measured = dir.path().join("measured");
    ordered(&measured, 1);
    let data = dir.path().join("data");
    let id = ordered(&data, second(&measured)).to_string();
    let daemon = Daemon::start(&data);
    assert!(daemon.output(&["status"], b"").contains(&id));
    for (args, says) in [
        (&["--cancel", "x"][..], "--cancel: names no erasure"),
        (&["--cancel", &id, "--reason", "r"], "cannot be used with"),
        (&["5", "--cancel", &id], "cannot be used with"),
    ] {
        let done = daemon.run(&[&["erase"], args].concat(), b"");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(2) && said.contains(says), "{args:?}: {said}");
    }
    let (code, _, said) = cancel(&daemon, "00000000-0000-0000-0000-000000000001", &[]);
    assert!(code == Some(3) && said.contains("ERASURE_NOT_FOUND"), "{said}");
    let (code, out, said) = cancelled(&daemon, &id);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(out, format!("taken back, and nothing was erased: erasure {id}\n"));
    assert!(!daemon.output(&["status"], b"").contains(&id));
    assert!(!data.join("erasing").exists());
    let (code, _, said) = cancel(&daemon, &id, &["--json"]);
    assert!(code == Some(3) && said.contains("ERASURE_NOT_FOUND"), "{said}");
    // What is whole of it says what it said.
    let all =
        ["watch", "--from", "oldest", "--until-caught-up", "--on-lost", "oldest", "--markers"];
    assert!(!daemon.output(&all, b"").contains("(erased"));
    // Another one can be ordered.
    let last = daemon.output(&["erase", "4000", "--reason", "r", "--yes"], b"");
    assert!(last.starts_with("1 event erased"), "{last}");
    daemon.stop();
}

#[test]
fn one_that_has_begun_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let id = ordered(&data, 10).to_string();
    let daemon = Daemon::start(&data);
    // The first segment is written anew by then.
    let begun = Instant::now();
    while !daemon.output(&["get", "10"], b"").contains("(erased: asked)") {
        assert!(begun.elapsed() < PATIENCE);
    }
    // Once it is through with that, it waits.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (code, out, said) = cancel(&daemon, &id, &[]);
    assert!(code == Some(1) && said.contains("ERASURE_BEGUN"), "{said}{out}");
    assert!(daemon.output(&["status"], b"").contains(&id));
    assert!(data.join("erasing").exists());
    daemon.stop();
}
