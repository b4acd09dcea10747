//! Three daemons on three NATS servers, all of them as processes: what a client is told wherever it asks, and that all
//! of it holds while daemons and servers are killed and stopped under load. `tests/nats/ci.sh` brings the servers;
//! without them all of it is left out, and says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test ends where something is not as it must be"
)]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../it/support/checker.rs"]
mod checker;
mod controls;
#[path = "../crash/mod.rs"]
mod crash;
mod destroyed;
mod faults;
mod load;
mod network;
#[allow(dead_code, reason = "shared with the tests of the journal")]
#[path = "../nats/outsider.rs"]
mod outsider;
mod power;
mod repair;
#[allow(dead_code, reason = "shared with the tests of the journal")]
#[path = "../nats/servers.rs"]
mod servers;
mod world;

use std::time::{Duration, Instant};

use tailmark_client::{Client, Expect, Kind, ProducerOptions, WatchOptions};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

use self::servers::program as nats_server;
use self::world::{PATIENCE, World};

fn event(id: &str, topic: &str) -> pb::Event {
    pb::Event { id: id.into(), topic: topic.into(), body: format!("{id}|"), ..pb::Event::default() }
}

async fn head(client: &Client) -> u64 {
    client.log().await.unwrap().head_seq
}

/// Until a daemon has all up to a seq.
async fn wait_for(client: &Client, seq: u64) {
    let begun = Instant::now();
    while head(client).await < seq {
        assert!(begun.elapsed() < PATIENCE, "{seq} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is asked of any daemon is answered as of one log, whichever writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_one_at_every_daemon() {
    let Some(program) = nats_server() else { return };
    let mut world = World::start(&program, 3, 3);
    (0..3).for_each(|at| world.wait_ready(at));
    let writer = world.writer().await;
    let clients: Vec<_> = (0..3).map(|nth| world.client(writer + nth)).collect();

    // Stored wherever it comes, once, and acked as what it is.
    let mut cursors = Vec::new();
    for (nth, client) in clients.iter().enumerate() {
        let stored = client.publish(event(&format!("e{nth}"), "a.b"), None).await.unwrap();
        assert_eq!((stored.seq, stored.duplicate), (nth as u64 + 1, false));
        assert_eq!(stored.durability(), pb::Durability::Replicated);
        cursors.push(stored.cursor);
    }
    for client in &clients {
        let again = client.publish(event("e1", "a.b"), None).await.unwrap();
        assert_eq!((again.seq, again.duplicate, &again.cursor), (2, true, &cursors[1]));
    }
    // A cursor of one daemon's ack is no news at another, even at once.
    for nth in 0..30 {
        let (here, there) = (&clients[nth % 3], &clients[(nth + 1) % 3]);
        let stored = here.publish(event("", "a.b"), None).await.unwrap();
        let read = there.event_at(&stored.cursor).await.unwrap();
        assert_eq!((read.seq, read.cursor), (stored.seq, stored.cursor.clone()));
        // What is acked anywhere before a watch begins is seen before it says that this is all.
        let mut options = WatchOptions::default();
        options.after_cursor = Some(cursors[0].clone());
        options.until_caught_up = true;
        let seen = load::read_all(&clients[(nth + 2) % 3], options).await.unwrap();
        assert_eq!(seen.last().map(|it| it.seq), Some(stored.seq));
    }
    let all = head(&clients[0]).await;

    // Verdicts: of a head that moved, and of a cursor that is beyond the end, or of another log.
    for client in &clients {
        let moved = Some(Expect { topic: String::new(), seq: Seq::new(1) });
        let error = client.publish(event("", "a.b"), moved).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.metadata("actual")),
            (Kind::Conflict, Some(&*all.to_string()))
        );
        let error = client.event(Seq::new(all + 1)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        let mut options = WatchOptions::default();
        options.after_cursor = Some((all + 7).to_string());
        options.until_caught_up = true;
        let error = load::read_all(client, options).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (Kind::Gone, "CURSOR_AHEAD"));
    }

    // A producer at a daemon that does not write; its epoch and its batches count for the log.
    let at_reader = clients[1].producer("p", ProducerOptions::default()).await.unwrap();
    for nth in 0..200 {
        at_reader.send(&event(&format!("p{nth}"), "p.a")).await.unwrap();
    }
    at_reader.flush().await.unwrap();
    let relieved = clients[2].producer("p", ProducerOptions::default()).await.unwrap();
    relieved.send(&event("p-new", "p.a")).await.unwrap();
    relieved.flush().await.unwrap();
    let _ = at_reader.send(&event("p-old", "p.a")).await;
    let fenced = at_reader.flush().await.unwrap_err();
    assert_eq!(fenced.reason(), "FENCED");
    relieved.close().await.unwrap();
    let all = head(&clients[2]).await.max(head(&clients[0]).await);
    assert_eq!(all, 33 + 200 + 1);

    // Trimmed everywhere, and by everyone.
    let trimmed = clients[1].trim(tailmark_client::Moment::Seq(Seq::new(11))).await.unwrap();
    assert_eq!((trimmed.oldest_seq, trimmed.removed), (11, 10));
    for client in &clients {
        let begun = Instant::now();
        while client.log().await.unwrap().oldest_seq != 11 {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    // Each says who it is, and who the others are.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for nth in 0..3 {
        let journal = world.journal(writer + nth).await.unwrap();
        let name = |at: usize| format!("d{}", at % 3 + 1);
        assert_eq!((&*journal.daemon, &*journal.writer), (&*name(writer + nth), &*name(writer)));
        assert_eq!(journal.role() == pb::DaemonRole::Writing, nth == 0);
        assert_eq!((journal.term, journal.daemons.len(), journal.replicas.len()), (1, 3, 3));
        assert!(journal.trouble.is_empty() && journal.weaknesses.is_empty());
        assert!(
            journal.daemons.iter().all(|it| it.lag_slots == 0 && it.address.starts_with("http"))
        );
        assert!(nth == 0 || journal.forwarded > 0);
    }

    // Nobody who is no daemon of the log stores by the way that they use.
    let stranger = tonic_stranger(&world.address(writer)).await;
    assert_eq!(stranger, tonic::Code::PermissionDenied);
}

/// Asks as a daemon would, and has no secret.
async fn tonic_stranger(address: &str) -> tonic::Code {
    let channel = tonic::transport::Endpoint::from_shared(address.to_owned()).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/tailmark.cluster.v1.PeerService/Store");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let asked = grpc.unary(tonic::Request::new(()), path, codec).await;
    asked.map(|_| ()).unwrap_err().code()
}

/// A planned stop hands over in a moment, and a kill in a few seconds; nobody has to do anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_daemon_writes_where_one_goes() {
    let Some(program) = nats_server() else { return };
    let mut world = World::start(&program, 3, 3);
    (0..3).for_each(|at| world.wait_ready(at));
    let (mut planned, mut killed) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let writer = world.writer().await;
        let client = world.client(writer + 1);
        let stored = client.publish(event(&format!("before{round}"), "a"), None).await.unwrap();
        for nth in 1..3 {
            wait_for(&world.client(writer + nth), stored.seq).await;
        }
        let begun = Instant::now();
        let is_planned = round % 2 == 0;
        let publishing = tokio::spawn(async move {
            let label = format!("after{round}");
            client.publish(event(&label, "a"), None).await.map(|_| begun.elapsed())
        });
        match is_planned {
            true => drop(world.stop_daemon(writer)),
            false => world.kill_daemon(writer),
        }
        // Sent while the writer went: it waits for the next one, and is stored.
        publishing.await.unwrap().unwrap();
        let next = world.client(writer + 2);
        next.publish(event(&format!("next{round}"), "a"), None).await.unwrap();
        let took = begun.elapsed();
        if is_planned { &mut planned } else { &mut killed }.push(took);
        world.begin_daemon(writer);
        world.wait_ready(writer);
    }
    println!("planned {planned:?}, killed {killed:?}");
    let most = |all: &[Duration]| all.iter().max().copied().unwrap();
    // Machines are busy with other tests; what is usual stands in docs/reliability.md.
    assert!(most(&planned) < Duration::from_secs(3), "{planned:?}");
    assert!(most(&killed) < Duration::from_secs(12), "{killed:?}");
}

/// Under load, with clients that move from daemon to daemon. `CLUSTER_FAULTS=200 CLUSTER_SEED=3` for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_seen_twice_while_daemons_and_servers_go() {
    let Some(program) = nats_server() else { return };
    if !network::is_inside("nothing_is_lost_or_seen_twice_while_daemons_and_servers_go") {
        return;
    }
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |it| it.parse::<usize>().unwrap())
    };
    faults::run(&program, number("CLUSTER_FAULTS", 20), number("CLUSTER_SEED", 1) as u64).await;
}

/// A daemon with another secret is none of the log, and hears so before it serves anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_of_another_secret_or_of_a_weak_journal_does_not_begin() {
    let Some(program) = nats_server() else { return };
    let mut world = World::start(&program, 1, 1);
    world.wait_ready(0);
    std::fs::write(world.settings(0, "other").with_file_name("other"), "another secret of all")
        .unwrap();
    let run = |settings: &std::path::Path, extra: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tailmark"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(settings);
        command.envs(extra.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&world.settings(0, "other"), &[]);
    assert!(code == Some(2) && said.contains("another key"), "{code:?}: {said}");
    let more = [("TAILMARK_JOURNAL_REPLICAS", "3"), ("TAILMARK_JOURNAL_MONITORS", "")];
    let (code, said) = run(&world.settings(0, "key"), &more);
    assert!(
        code == Some(2) && said.contains("weaker") && said.contains("replicas"),
        "{code:?}: {said}"
    );
    assert!(said.contains("allow_weaker_durability"), "{said}");
}
