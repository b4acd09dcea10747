//! Power loss of the whole cluster: what the store directories of three servers may hold when it ends at any moment of a
//! recorded run, each of them at its own last sync; from these begin three servers, and a daemon that has nothing.
//! `CLUSTER_IMAGES=20 CRASH_SEED=3` for more.
//!
//! Names are taken to be durable with any later sync of the same file system, as on ext4 and XFS: nats-server syncs
//! its files, and not the directories in which it makes them. Pages and sectors of what was not synced survive each by
//! itself. The daemon's own directory is lost.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{Client, Error};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

use crate::crash::model::{Recording, Without};
use crate::crash::{self, strace};
use crate::event;
use crate::servers::{Place, program};
use crate::world::{PATIENCE, World};

/// What was acked, and when, in seconds since 1970.
struct Acked {
    at: f64,
    seq: u64,
    id: String,
}

/// A run of the cluster that was recorded, and ended.
struct Recorded {
    world: World,
    traces: Vec<Vec<u8>>,
    acked: Vec<Acked>,
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

async fn record(program: &Path, is_synced: bool) -> Recorded {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::traced(program, is_synced, dir.path());
    world.begin_servers();
    world.begin_daemon(0);
    world.wait_ready(0);
    world.writer().await;
    let (client, mut acked) = (world.client(0), Vec::new());
    let until = now() + 6.0;
    while now() < until {
        let id = format!("e{}", acked.len());
        let stored = client.publish(event(&id, "a"), None).await.unwrap();
        acked.push(Acked { at: now(), seq: stored.seq, id });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.kill_daemon(0);
    (0..3).for_each(|at| world.servers.kill(at));
    // The tracers end behind what they trace.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let read = |at: usize| std::fs::read(dir.path().join(world.servers.name(at))).unwrap();
    let traces: Vec<_> = (0..3).map(read).collect();
    (0..3).for_each(|at| world.servers.set_place(at, Place::loopback()));
    Recorded { world, traces, acked }
}

/// What is told of an event, once the daemon knows where the log ends.
async fn told(client: &Client, seq: u64) -> Result<pb::Event, Error> {
    let begun = Instant::now();
    loop {
        match client.event(Seq::new(seq)).await {
            Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            told => return told,
        }
    }
}

impl Recorded {
    /// What is wrong when all servers lost power at a moment, if something is.
    async fn lost(&mut self, rng: &mut StdRng) -> Option<String> {
        let (first, last) = (self.acked[0].at, self.acked[self.acked.len() - 1].at);
        let time = rng.random_range(first..=last);
        for (at, trace) in self.traces.iter().enumerate() {
            let store = self.world.servers.store(at);
            let steps = strace::parse(&strace::upto(trace, time));
            let recording = Recording::new(&steps, &store, Without::Nothing).with_one_journal();
            let _ = std::fs::remove_dir_all(&store);
            recording.image(recording.len(), rng.random(), &store);
        }
        let known: Vec<_> = self.acked.iter().filter(|it| it.at <= time).collect();
        self.world.empty_daemon(0);
        self.world.begin_servers();
        self.world.begin_daemon(0);
        let lost = match self.world.is_ready(0) {
            false => Some("no daemon begins".to_owned()),
            true => {
                let client = self.world.client(0);
                let mut lost = None;
                for it in &known {
                    match told(&client, it.seq).await {
                        Ok(event) if event.id == it.id => {}
                        other => {
                            let what = other.map(|it| it.id).map_err(|error| error.to_string());
                            lost = Some(format!("{} of {}: {what:?}", it.seq, known.len()));
                            break;
                        }
                    }
                }
                lost
            }
        };
        self.world.kill_daemon(0);
        (0..3).for_each(|at| self.world.servers.kill(at));
        let came = format!("{:.2} s after the first of {} acks", time - first, known.len());
        println!("power lost {came}: {}", lost.as_deref().unwrap_or("all is there"));
        lost
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_loss_of_all_servers_loses_what_was_acked() {
    let Some(program) = program() else { return };
    if !strace::is_there() {
        return;
    }
    strace::self_test();
    let (images, seed) = (crash::env_number("CLUSTER_IMAGES", 4), crash::seed());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut recorded = record(&program, true).await;
    println!("{} events were acked, with sync_interval: always", recorded.acked.len());
    for _ in 0..images {
        assert_eq!(recorded.lost(&mut rng).await, None);
    }
    // The control: servers that ack before they sync. Else the images prove nothing.
    let mut recorded = record(&program, false).await;
    println!("{} events were acked, and synced some time", recorded.acked.len());
    for _ in 0..5 {
        if recorded.lost(&mut rng).await.is_some() {
            return;
        }
    }
    panic!("nothing was lost of what no server had synced");
}
