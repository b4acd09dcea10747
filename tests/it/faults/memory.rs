//! The limit of memory of a container, which is one of a cgroup: within it where the settings fit it, and
//! where they do not a kill that costs nothing that was acked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tailmark_client::Client;
use tailmark_wire::feed_v1 as pb;
use tokio::task::JoinSet;

use super::{event, stored};
use crate::abuse::memory::{Peak, told, unread_watches};
use crate::support::daemon::Daemon;
use crate::support::server::{until, within};

const MIB: u64 = 1 << 20;

/// A cgroup with a limit, of either version; gone with this.
struct Group {
    path: PathBuf,
    /// Of the limit, and of what counts the kills.
    files: (&'static str, &'static str),
}

impl Group {
    /// Where one may be made.
    fn new(name: &str, limit: u64) -> Option<Group> {
        let made = Group::try_new(name, limit);
        if made.is_none() {
            println!(
                "LEFT OUT: no cgroup with a limit of memory can be made here (it is for root)"
            );
        }
        made
    }

    fn try_new(name: &str, limit: u64) -> Option<Group> {
        let name = format!("tailmark-test-{}-{name}", std::process::id());
        let first =
            (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control");
        let second = (Path::new("/sys/fs/cgroup"), "memory.max", "memory.events");
        for (root, limits, kills) in [first, second] {
            let path = root.join(&name);
            if !root.join("cgroup.procs").exists() || std::fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Group { path, files: (limits, kills) };
            if std::fs::write(group.path.join(limits), limit.to_string()).is_ok() {
                // Or the rest goes there: version 2, and version 1 where it counts that.
                let swap = ["memory.swap.max", "memory.memsw.limit_in_bytes"].into_iter();
                for (file, most) in swap.zip([0, limit]) {
                    let _ = std::fs::write(group.path.join(file), most.to_string());
                }
                return Some(group);
            }
        }
        None
    }

    /// Starts a daemon in it.
    fn start(&self, dir: &Path, settings: &str) -> Daemon {
        let procs = self.path.join("cgroup.procs");
        let shell = format!(
            "echo $$ >'{}' && {settings} TAILMARK_TELEMETRY_LOG_LEVEL=error exec \"$0\" \"$@\"",
            procs.display()
        );
        let daemon = Daemon::start_with(dir, &shell);
        let members = std::fs::read_to_string(procs).unwrap();
        assert!(members.lines().any(|id| id == daemon.id().to_string()), "it is elsewhere");
        daemon
    }

    /// Processes that were killed because they needed more.
    fn kills(&self) -> u64 {
        let text = std::fs::read_to_string(self.path.join(self.files.1)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap_or_else(|| panic!("no count of kills: {text}")).trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process may need a moment to be gone.
        for _ in 0..1_000 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("{} is left behind", self.path.display());
    }
}

/// What was acked: the seq of each event, by its id.
type Acked = Arc<Mutex<BTreeMap<u64, u64>>>;

/// Publishers that note what they were told, until it is over.
fn publishers(url: &str, round: u64, acked: &Acked, is_over: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for who in 0..8 {
        let (client, acked) = (Client::new(url).unwrap(), Arc::clone(acked));
        let is_over = Arc::clone(is_over);
        all.spawn(async move {
            let mut numbers = round * 1_000_000_000 + who * 1_000_000..;
            while !is_over.load(Ordering::Relaxed) {
                let Some(number) = numbers.next() else { return };
                match client.publish(event(number), None).await {
                    Ok(result) => drop(acked.lock().insert(number, result.seq)),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }
    all
}

/// Everything that was acked is there where it was said to be, once.
async fn holds(client: &Client, acked: &Acked) {
    let stored = stored(client).await;
    let acked = acked.lock();
    println!("{} acked, {} stored", acked.len(), stored.len());
    assert!(acked.len() > 50, "{} acked", acked.len());
    for (number, seq) in &*acked {
        assert_eq!(stored.get(seq), Some(&format!("id-{number}")), "seq {seq}");
    }
    let ids: BTreeSet<_> = stored.values().collect();
    assert_eq!(ids.len(), stored.len(), "there twice");
}

/// Uploads that never pause, and come again where they are refused, until they are dropped.
fn uploads(url: &str, count: usize) -> JoinSet<()> {
    let mut all = JoinSet::new();
    let event = pb::Event { topic: "busy".into(), body: "x".repeat(50_000), ..Default::default() };
    let event = bytes::Bytes::from(prost::Message::encode_to_vec(&event));
    for client in (0..count).step_by(20).map(|_| Client::new(url).unwrap()) {
        for _ in 0..20 {
            let (client, event) = (client.clone(), event.clone());
            all.spawn(async move {
                loop {
                    let events = std::iter::repeat(event.clone());
                    let _ = client.upload(tokio_stream::iter(events)).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    }
    all
}

/// Waits until the daemon says that it holds so much.
async fn until_told(daemon: &Daemon, kind: &str, bytes: u64) {
    within(kind, async {
        while told(daemon).await[kind] < bytes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// What `docs/operations.md` says a container of 1 GiB is safe with.
const OF_A_GIB: [(&str, &str); 6] = [
    ("limits.connections", "128"),
    ("limits.watches", "2000"),
    ("limits.unread_bytes", "32 MiB"),
    ("limits.unsent_bytes", "16 MiB"),
    ("limits.parked_bytes", "16 MiB"),
    ("log.in_flight_bytes", "24 MiB"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_of_1_gib_with_the_settings_for_it_lives_through_attacks() {
    let operations = include_str!("../../../docs/operations.md");
    let settings = OF_A_GIB.map(|(key, value)| {
        let said = |value: &str| operations.contains(&format!("`{key} = {value}`"));
        assert!(said(value) || said(&format!("\"{value}\"")), "{key} = {value} is not in the docs");
        format!("TAILMARK_{}='{value}'", key.replace('.', "_").to_uppercase())
    });
    let Some(group) = Group::new("fits", 1024 * MIB) else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let daemon = group.start(&log, &settings.join(" "));
    let peak = Peak::of(daemon.id());
    let (acked, is_over) = (Acked::default(), Arc::default());
    let publishers = publishers(daemon.url(), 0, &acked, &is_over);
    // Something to be read, of many events.
    let client = Client::new(daemon.url()).unwrap();
    let small = pb::Event { topic: "small".into(), body: "x".repeat(1_000), ..Default::default() };
    let small = bytes::Bytes::from(prost::Message::encode_to_vec(&small));
    client.upload(tokio_stream::iter(vec![small; 20_000])).await.unwrap();
    let alike = unread_watches(&daemon, 4, 240, "").await;
    let unread = unread_watches(&daemon, 4, 240, "small").await;
    // The controls: of each kind there is what is asked for.
    until_told(&daemon, "unsent", 8 * MIB).await;
    let uploads = uploads(daemon.url(), 200);
    until_told(&daemon, "in_flight", MIB).await;
    until_told(&daemon, "arriving", MIB).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    until("acks", || acked.lock().len() > 50).await;
    is_over.store(true, Ordering::Relaxed);
    within("the publishers", publishers.join_all()).await;
    println!("{} MiB at most, {} kills", peak.bytes() / MIB, group.kills());
    assert_eq!(group.kills(), 0);
    drop((uploads, alike, unread));
    holds(&client, &acked).await;
    assert_eq!(group.kills(), 0);
    // What it has not sealed yet is much.
    daemon.kill();
    let daemon = Daemon::start(&log);
    holds(&Client::new(daemon.url()).unwrap(), &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_for_its_memory_has_all_that_it_acked() {
    // What the budgets allow by default is far more.
    let Some(group) = Group::new("small", 64 * MIB) else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let acked = Acked::default();
    for round in 1..=3 {
        let daemon = group.start(&log, "");
        let (before, is_over) = (acked.lock().len(), Arc::default());
        let publishers = publishers(daemon.url(), round, &acked, &is_over);
        until("some acks", || acked.lock().len() > before + 200).await;
        let uploads = uploads(daemon.url(), 200);
        until("a kill", || group.kills() >= round).await;
        let ended = daemon.ended();
        assert_eq!(ended, None, "it ended by itself");
        is_over.store(true, Ordering::Relaxed);
        drop((uploads, publishers));
        let daemon = Daemon::start(&log);
        holds(&Client::new(daemon.url()).unwrap(), &acked).await;
        assert_eq!(daemon.stop(), Some(0));
    }
}
