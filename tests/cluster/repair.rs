//! A journal that lost its end, and what an operator does: `tailmark journal repair` on real servers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tailmark_client::WatchOptions;

use crate::servers::program;
use crate::world::World;
use crate::{event, load, wait_for};

const KEPT: u64 = 8;
const LOST: u64 = 12;

async fn publish(world: &World, events: u64, cursors: &mut Vec<String>) {
    for _ in 0..events {
        let nth = cursors.len();
        let client = world.client(nth % 2);
        let begun = std::time::Instant::now();
        let stored = loop {
            match client.publish(event(&format!("e{nth}"), "a"), None).await {
                Ok(stored) => break stored,
                Err(error) => assert!(begun.elapsed() < crate::world::PATIENCE, "{error:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        };
        assert_eq!(stored.seq, nth as u64 + 1);
        cursors.push(stored.cursor);
    }
    for at in 0..2 {
        wait_for(&world.client(at), cursors.len() as u64).await;
    }
}

/// Two daemons, which are stopped, and a server that was put back to what it had before the last events.
async fn lost(program: &Path) -> (World, Vec<String>) {
    let mut world = World::start(program, 1, 2);
    (0..2).for_each(|at| world.wait_ready(at));
    let mut cursors = Vec::new();
    publish(&world, KEPT, &mut cursors).await;
    world.servers.kill(0);
    world.servers.save(0);
    world.servers.begin(0);
    world.servers.wait(0);
    publish(&world, LOST, &mut cursors).await;
    for at in 0..2 {
        world.stop_daemon(at);
    }
    world.servers.kill(0);
    world.servers.put_back(0);
    world.servers.begin(0);
    world.servers.wait(0);
    (world, cursors)
}

fn repair(world: &World, at: usize, args: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailmark"));
    command.args(["journal", "repair", "--json", "--config"]).arg(world.settings(at, "key"));
    let output = command.args(args).stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

/// All that was acked is read at a daemon, by its cursors and by a watch.
async fn has_all(world: &World, at: usize, cursors: &[String]) {
    let client = world.client(at);
    for (seq, cursor) in (1..).zip(cursors) {
        let event = client.event_at(cursor).await.unwrap();
        assert_eq!((event.seq, &event.cursor, event.id), (seq, cursor, format!("e{}", seq - 1)));
    }
    let mut options = WatchOptions::default();
    options.after_cursor = cursors.first().cloned();
    options.until_caught_up = true;
    let seen = load::read_all(&client, options).await.unwrap();
    let seqs: Vec<_> = seen.iter().map(|it| it.seq).collect();
    assert_eq!(seqs, (2..=cursors.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_journal_lost_is_put_back_from_a_copy() {
    let Some(program) = program() else { return };
    let (mut world, mut cursors) = lost(&program).await;
    let outsider = world.outsider();
    let end = || outsider.info(crate::world::LOG).unwrap()["state"]["last_seq"].as_u64();

    // It is only said.
    let before = end();
    let (code, said, error) = repair(&world, 0, &["--reappend", "--dry-run"]);
    assert_eq!(code, Some(0), "{error}");
    let missing = (&said["relation"], &said["last_common_seq"], &said["missing"]);
    assert_eq!(
        missing,
        (&json!("AHEAD"), &json!(KEPT.to_string()), &json!(LOST.to_string())),
        "{said}"
    );
    // Nobody is there to be asked.
    let (code, _, error) = repair(&world, 0, &["--reappend"]);
    assert!(code == Some(2) && error.contains("--yes"), "{code:?}: {error}");
    // A daemon runs: on this directory, or elsewhere.
    world.begin_daemon(0);
    world.wait_ready(0);
    for at in 0..2 {
        let (code, _, error) = repair(&world, at, &["--reappend", "--yes"]);
        assert_eq!(code, Some(5), "{error}");
        assert!(error.contains(["in use", "d1"][at]), "{error}");
    }
    world.stop_daemon(0);
    assert!(end() <= before.map(|end| end + 1), "more than a proof was written");

    let (code, said, error) = repair(&world, 0, &["--reappend", "--yes"]);
    assert_eq!((code, &said["put_back"]), (Some(0), &json!(LOST.to_string())), "{error}");
    let (code, _, error) = repair(&world, 0, &["--reappend", "--yes"]);
    assert!(code == Some(1) && error.contains("nothing to repair"), "{code:?}: {error}");
    // The other copy has the frames that were: it is begun anew, and nothing is lost by it.
    let (code, said, error) = repair(&world, 1, &["--accept", "--yes"]);
    assert_eq!((code, &said["missing"]), (Some(0), &Value::Null), "{error}");

    (0..2).for_each(|at| world.begin_daemon(at));
    (0..2).for_each(|at| world.wait_ready(at));
    publish(&world, 3, &mut cursors).await;
    for at in 0..2 {
        has_all(&world, at, &cursors).await;
        // A repeat of what was put back is one.
        let again = world.client(at).publish(event("e15", "a"), None).await.unwrap();
        assert_eq!((again.seq, again.duplicate, &again.cursor), (16, true, &cursors[15]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_that_is_accepted_is_told_by_cursors() {
    let Some(program) = program() else { return };
    let (mut world, cursors) = lost(&program).await;
    for at in 0..2 {
        let (code, said, error) = repair(&world, at, &["--accept", "--yes"]);
        assert_eq!((code, &said["missing"]), (Some(0), &json!(LOST.to_string())), "{error}");
        // Kept, with all that it had.
        let aside = Path::new(said["set_aside"].as_str().unwrap());
        assert!(aside.join("log.meta").exists(), "{said}");
    }
    (0..2).for_each(|at| world.begin_daemon(at));
    (0..2).for_each(|at| world.wait_ready(at));
    let mut kept = cursors[..KEPT as usize].to_vec();
    publish(&world, 2, &mut kept).await;
    for at in 0..2 {
        has_all(&world, at, &kept).await;
        for cursor in &cursors[KEPT as usize..] {
            let mut options = WatchOptions::default();
            options.after_cursor = Some(cursor.clone());
            options.until_caught_up = true;
            let error = load::read_all(&world.client(at), options).await.unwrap_err();
            assert_eq!(error.reason(), "LOG_DIVERGED", "{error:?}");
        }
    }
    // A copy that is what the journal has is not set aside.
    world.stop_daemon(0);
    let (code, _, error) = repair(&world, 0, &["--accept", "--yes"]);
    assert!(code == Some(1) && error.contains("nothing to repair"), "{code:?}: {error}");
}
