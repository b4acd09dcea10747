//! What is done to daemons and servers, and what is held against every guarantee in the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::WatchOptions;
use tailmark_record::topic::Filter;
use tailmark_wire::feed_v1 as pb;

use crate::checker::{History, Outcome, Request, Sent, Watched, violations};
use crate::controls;
use crate::load::{self, Told};
use crate::network::Ways;
use crate::world::{LOG, PATIENCE, World};

/// Between faults, from the beginning of one: an election of the servers takes 4 to 9 s.
const APART: Duration = Duration::from_secs(8);
/// After what was done is put right.
const AFTER: Duration = Duration::from_secs(4);

/// What is done, and put right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    WriterKilled,
    WriterStopped,
    WriterHangs,
    WriterCutOff,
    /// What it says arrives, and no answer comes back.
    WriterDeaf,
    ReaderKilled,
    ReaderCutOff,
    DaemonsKilled,
    DaemonsHang,
    LeaderKilled,
    LeaderHangs,
    LeaderCutOff,
    FollowerCutOff,
    ServerAndWriterKilled,
    TwoServersKilled,
    TwoServersHang,
    ServersKilled,
    ServersHang,
    ForeignMessages,
    DiskFull,
}

const FAULTS: [Fault; 20] = [
    Fault::WriterKilled,
    Fault::WriterStopped,
    Fault::WriterHangs,
    Fault::WriterCutOff,
    Fault::WriterDeaf,
    Fault::ReaderKilled,
    Fault::ReaderCutOff,
    Fault::DaemonsKilled,
    Fault::DaemonsHang,
    Fault::LeaderKilled,
    Fault::LeaderHangs,
    Fault::LeaderCutOff,
    Fault::FollowerCutOff,
    Fault::ServerAndWriterKilled,
    Fault::TwoServersKilled,
    Fault::TwoServersHang,
    Fault::ServersKilled,
    Fault::ServersHang,
    Fault::ForeignMessages,
    Fault::DiskFull,
];

impl Fault {
    /// Whether it takes a network and a disk of the test's own.
    fn is_apart(self) -> bool {
        matches!(
            self,
            Fault::WriterCutOff
                | Fault::WriterDeaf
                | Fault::ReaderCutOff
                | Fault::LeaderCutOff
                | Fault::FollowerCutOff
                | Fault::DiskFull
        )
    }

    async fn happens(self, world: &mut World, rng: &mut StdRng) {
        let (writer, leader) = (world.writer().await, world.leader().await);
        let servers = world.servers.count();
        let (reader, follower) = ((writer + 1) % world.daemons(), (leader + 1) % servers);
        let time = Duration::from_millis(rng.random_range(1_000..9_000));
        let down = time / 2;
        match self {
            Fault::WriterKilled => daemons_killed(world, &[writer], down).await,
            Fault::WriterStopped => {
                world.stop_daemon(writer);
                world.begin_daemon(writer);
                world.wait_ready(writer);
            }
            Fault::WriterHangs => daemons_hang(world, &[writer], time).await,
            Fault::WriterCutOff => daemon_cut_off(world, writer, Ways::Both, time).await,
            Fault::WriterDeaf => daemon_cut_off(world, writer, Ways::In, time).await,
            Fault::ReaderKilled => daemons_killed(world, &[reader], down).await,
            Fault::ReaderCutOff => daemon_cut_off(world, reader, Ways::Both, time).await,
            Fault::DaemonsKilled => daemons_killed(world, &[0, 1, 2], down).await,
            Fault::DaemonsHang => daemons_hang(world, &[0, 1, 2], time).await,
            Fault::LeaderKilled => servers_killed(world, &[leader], down).await,
            Fault::LeaderHangs => servers_hang(world, &[leader], time).await,
            Fault::LeaderCutOff => server_cut_off(world, leader, time).await,
            Fault::FollowerCutOff => server_cut_off(world, follower, time).await,
            Fault::ServerAndWriterKilled => {
                world.servers.kill(follower);
                daemons_killed(world, &[writer], down).await;
                world.servers.begin(follower);
            }
            Fault::TwoServersKilled => servers_killed(world, &[leader, follower], down).await,
            Fault::TwoServersHang => servers_hang(world, &[leader, follower], time).await,
            Fault::ServersKilled => servers_killed(world, &[0, 1, 2], down).await,
            Fault::ServersHang => servers_hang(world, &[0, 1, 2], time).await,
            Fault::ForeignMessages => {
                let (outsider, mut stored) = (world.outsider(), 0);
                for _ in 0..20 {
                    let answer = outsider.publish(&format!("tm.{LOG}.j"), b"somebody else's");
                    // While servers elect nobody answers.
                    stored += u32::from(answer.is_some_and(|it| it.get("seq").is_some()));
                    tokio::time::sleep(down / 20).await;
                }
                assert!(stored > 0, "nothing is stored of what others write");
            }
            Fault::DiskFull => {
                world.fill_disk();
                tokio::time::sleep(time).await;
                world.empty_disk();
            }
        }
    }
}

async fn daemons_killed(world: &mut World, all: &[usize], down: Duration) {
    all.iter().for_each(|at| world.kill_daemon(*at));
    tokio::time::sleep(down).await;
    all.iter().for_each(|at| world.begin_daemon(*at));
    all.iter().for_each(|at| world.wait_ready(*at));
}

async fn daemons_hang(world: &World, all: &[usize], time: Duration) {
    all.iter().for_each(|at| world.hang_daemon(*at));
    tokio::time::sleep(time).await;
    all.iter().for_each(|at| world.go_on_daemon(*at));
}

async fn daemon_cut_off(world: &World, at: usize, ways: Ways, time: Duration) {
    let join = world.cut_daemon(at, ways);
    tokio::time::sleep(time).await;
    join(world);
}

async fn servers_killed(world: &mut World, all: &[usize], down: Duration) {
    all.iter().for_each(|at| world.servers.kill(*at));
    tokio::time::sleep(down).await;
    all.iter().for_each(|at| world.servers.begin(*at));
}

async fn servers_hang(world: &World, all: &[usize], time: Duration) {
    all.iter().for_each(|at| world.servers.hang(*at));
    tokio::time::sleep(time).await;
    all.iter().for_each(|at| world.servers.go_on(*at));
}

async fn server_cut_off(world: &World, at: usize, time: Duration) {
    let join = world.cut_server(at, Ways::Both);
    tokio::time::sleep(time).await;
    join(world);
}

/// So many faults, each kind as often as the others and in another order each time.
fn deck(count: usize, is_apart: bool, rng: &mut StdRng) -> Vec<Fault> {
    let kinds: Vec<_> = FAULTS.into_iter().filter(|it| is_apart || !it.is_apart()).collect();
    let mut deck = Vec::new();
    while deck.len() < count {
        let mut next = kinds.clone();
        next.shuffle(rng);
        deck.extend(next);
    }
    deck.truncate(count);
    deck
}

/// So many faults under load; then everything is held against every guarantee.
pub async fn run(program: &Path, faults: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::apart(program);
    (0..3).for_each(|at| world.wait_ready(at));
    world.writer().await;
    let told = Arc::new(Told::default());
    let addresses: Vec<_> = (0..3).map(|at| world.address(at)).collect();
    let mut senders = Vec::new();
    for nth in 0..4 {
        let (name, all, told) = (format!("u{nth}"), addresses.clone(), told.clone());
        senders.push(tokio::spawn(load::publish(name, all, told)));
    }
    for nth in 0..2 {
        let (name, all, told) = (format!("a{nth}"), addresses.clone(), told.clone());
        senders.push(tokio::spawn(load::ask(name, all, told)));
    }
    for (nth, address) in addresses.iter().enumerate() {
        let (name, told) = (format!("producer{nth}"), told.clone());
        senders.push(tokio::spawn(load::produce(name, address.clone(), told)));
    }
    let watchers: Vec<_> = (0..4)
        .map(|nth| tokio::spawn(load::watch(format!("w{nth}"), addresses.clone(), told.clone())))
        .collect();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut longest_of: BTreeMap<String, Duration> = BTreeMap::new();
    for (nth, fault) in deck(faults, world.is_apart(), &mut rng).into_iter().enumerate() {
        let at = Instant::now();
        fault.happens(&mut world, &mut rng).await;
        let took = at.elapsed();
        tokio::time::sleep(APART.saturating_sub(took).max(AFTER)).await;
        let longest = longest(&told.acks.lock(), at);
        let most = longest_of.entry(format!("{fault:?}")).or_default();
        *most = longest.max(*most);
        let (took, longest) = (took.as_secs_f64(), longest.as_secs_f64());
        println!("fault {}: {fault:?}, {took:.1} s; {longest:.1} s without an ack", nth + 1);
    }
    let (time, longest) = (begun.elapsed(), longest(&told.acks.lock(), begun));
    told.is_over.store(true, Ordering::Relaxed);
    for sender in senders {
        tokio::time::timeout(PATIENCE, sender).await.expect("a client that does not end").unwrap();
    }
    let end = publish_end(&world).await;
    told.requests.lock().push(end);
    let mut watches = Vec::new();
    for (nth, watcher) in watchers.into_iter().enumerate() {
        let notes = tokio::time::timeout(PATIENCE, watcher).await;
        let notes = notes.unwrap_or_else(|_| panic!("watcher {nth} does not see the end")).unwrap();
        let (name, filter) = (format!("watcher {nth}"), Filter::ALL);
        watches.push(Watched { name, filter, notes, is_paused: false, is_early: true });
    }
    let log = all_have_one_log(&world).await;
    let mut wrong: Vec<String> = std::mem::take(&mut *told.wrong.lock());
    let requests = std::mem::take(&mut *told.requests.lock());
    let acked = requests
        .iter()
        .filter(|it| !matches!(it.outcome, Outcome::Unknown | Outcome::Refused))
        .count();
    let mut terms = 0;
    for at in 0..3 {
        terms = terms.max(world.journal(at).await.unwrap().term);
    }
    let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
    println!(
        "{:.0} s, {faults} faults: {acked} acked, {} unknown, {} refused, {} verdicts, {} moves of clients, \
         {} events, {terms} terms; {:.1} s at most without an ack",
        time.as_secs_f64(),
        count(&told.unknown),
        count(&told.refused),
        count(&told.verdicts),
        count(&told.moves),
        log.len(),
        longest.as_secs_f64(),
    );
    println!("at most without an ack: {longest_of:.1?}");
    let head = log.len() as u64;
    if count(&told.head) > head {
        wrong.push(format!("a head of {} was told, and it is {head}", count(&told.head)));
    }
    let mut history = History { requests, watches, restarts: Vec::new(), log, oldest: 1, head };
    wrong.extend(violations(&history).into_iter().map(|(kind, what)| format!("{kind}: {what}")));
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(acked > 100, "{acked} acked");
    // Of all kinds some take the writer away.
    assert!(faults < FAULTS.len() || terms > 1, "{acked} acked in {terms} terms");
    assert!(count(&told.verdicts) > 10, "nobody was told where the log ends");
    controls::check(&mut history);
}

/// The longest time without an ack since a moment.
fn longest(acks: &[Instant], since: Instant) -> Duration {
    let mut all: Vec<_> = acks.iter().copied().filter(|at| *at >= since).collect();
    all.sort_unstable();
    let first = all.first().map(|first| *first - since);
    let pairs = all.windows(2).map(|two| two[1] - two[0]);
    // Also one that is not over.
    let last = all.last().map(Instant::elapsed);
    pairs.chain(first).chain(last).max().unwrap_or_else(|| since.elapsed())
}

async fn publish_end(world: &World) -> Request {
    let begun = Instant::now();
    for at in 0.. {
        let (id, topic, body) = ("end".to_owned(), "end".to_owned(), "end|".into());
        let event = pb::Event { id, topic, body, ..pb::Event::default() };
        match world.client(at).publish(event.clone(), None).await {
            Ok(stored) => {
                let outcome = Outcome::Published { seq: stored.seq, duplicate: stored.duplicate };
                return Request { sent: vec![Sent { label: "end".to_owned(), event }], outcome };
            }
            Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody writes in the end: {error}"),
        }
    }
    unreachable!("it goes on for ever")
}

async fn all_have_one_log(world: &World) -> Vec<pb::Event> {
    let mut logs = Vec::new();
    for at in 0..world.daemons() {
        let mut options = WatchOptions::default();
        options.after_cursor = Some("0".to_owned());
        options.until_caught_up = true;
        logs.push(load::read_all(&world.client(at), options).await.unwrap());
    }
    let (first, rest) = logs.split_first().unwrap();
    for (nth, other) in rest.iter().enumerate() {
        assert!(
            other == first,
            "daemon {} has another log: {} of {}",
            nth + 2,
            other.len(),
            first.len()
        );
    }
    logs.swap_remove(0)
}
