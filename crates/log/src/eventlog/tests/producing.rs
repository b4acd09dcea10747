//! Producers over a whole log: each batch once, whole, in order, whatever is lost or cut.
//!
//! The model drives clients that lose acks, resend, die and come back, over an engine that fills
//! up, fails and crashes; then the log must hold exactly the batches that each client's last word
//! says. The same clients without producers' numbers must be caught.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::storage::faulty::{AppendFault, Faulty};

/// Batches of events that name their place.
fn numbered(log: &EventLog, bodies: &[String]) -> Batch {
    let mut batch = log.batch();
    for body in bodies {
        batch.push(&event("", "a", body)).unwrap();
    }
    batch
}

#[derive(Default)]
struct Client {
    id: String,
    stream: Option<Producer>,
    /// Streams that were replaced.
    zombies: Vec<Producer>,
    epoch: u64,
    /// What each batch has, from number 1 on; those that are not stored may still change.
    batches: Vec<Vec<String>>,
    acked: BTreeMap<u64, (Seq, Seq)>,
}

struct World {
    rng: StdRng,
    memory: Arc<Memory>,
    faulty: Arc<Faulty>,
    log: EventLog,
    options: Options,
    clients: Vec<Client>,
    /// Without, batches are sent as they are.
    with_numbers: bool,
}

impl World {
    fn new(seed: u64, with_numbers: bool) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = options();
        let memory = Arc::new(engine(memory::Options {
            state_every_bytes: rng.random_range(1..5_000),
            max_commit_bytes: rng.random_range(10_000..50_000),
            ..memory::Options::default()
        }));
        let faulty = Arc::new(Faulty::new(memory.clone()));
        let log = EventLog::open(faulty.clone(), Recovered::default(), options.clone()).unwrap();
        let client = |n| Client { id: format!("client {n}"), ..Client::default() };
        let clients = (0..3).map(client).collect();
        World { rng, memory, faulty, log, options, clients, with_numbers }
    }

    async fn crash(&mut self) {
        drop(self.log.close().await);
        let (memory, recovered) = self.memory.crash();
        self.memory = Arc::new(memory);
        self.faulty = Arc::new(Faulty::new(self.memory.clone()));
        self.log = EventLog::open(self.faulty.clone(), recovered, self.options.clone()).unwrap();
        for client in &mut self.clients {
            client.stream = None;
            // No stream outlives the log.
            client.zombies.clear();
        }
    }

    /// Opens the client's stream, as a new life or as the same.
    async fn open(&mut self, at: usize, is_new: bool) {
        let client = &mut self.clients[at];
        let epoch = if is_new { 0 } else { client.epoch };
        let opened = self.log.open_producer(&client.id, epoch).await;
        let Ok(stream) = opened else { return self.crash().await };
        let acked = client.acked.keys().next_back().copied().unwrap_or(0);
        // Without numbers only acks tell.
        let last = if self.with_numbers { stream.last_seq() } else { acked };
        assert!((acked..=client.batches.len() as u64).contains(&last), "{acked} {last}");
        if stream.epoch() == client.epoch {
            assert!(!is_new);
        } else {
            assert!(stream.epoch() > client.epoch);
            // A new life makes up its own mind on what is not stored.
            client.batches.truncate(last as usize);
        }
        client.epoch = stream.epoch();
        client.zombies.extend(client.stream.replace(stream));
    }

    async fn step(&mut self) {
        let at = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..20) {
            0 => self.crash().await,
            1 => self.open(at, true).await,
            2 => self.open(at, false).await,
            3 => {
                let (passed, fault) = (self.rng.random_range(0..3), self.rng.random_range(0..3));
                let fault =
                    [AppendFault::DiskFull, AppendFault::StoreAndStop, AppendFault::LoseAndStop]
                        [fault];
                self.faulty.fail_append(passed, fault);
            }
            4 => {
                let before = self.rng.random_range(0..=self.log.bounds().head.get() + 1);
                // What is trimmed is not looked at in the end.
                if self.rng.random_bool(0.2) {
                    drop(self.log.trim(Seq::new(before)).await);
                }
            }
            5 => self.zombie(at).await,
            _ => self.send(at).await,
        }
    }

    /// A stream that was replaced tries its luck.
    async fn zombie(&mut self, at: usize) {
        let client = &self.clients[at];
        let Some(zombie) = client.zombies.last() else { return };
        let batch = numbered(&self.log, &["zombie".to_owned()]);
        let seq = self.rng.random_range(1..=client.batches.len() as u64 + 1);
        let Ok(answer) = zombie.submit(seq, batch, None).await else { return };
        match answer.await {
            Err(AppendError::Fenced { .. } | AppendError::Stopped(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Sends what is not acked and some more, all at once; some acks are lost.
    async fn send(&mut self, at: usize) {
        if self.clients[at].stream.is_none() {
            let is_new = self.clients[at].epoch == 0 || self.rng.random_bool(0.3);
            self.open(at, is_new).await;
        }
        let client = &mut self.clients[at];
        let Some(stream) = client.stream.clone() else { return };
        for _ in 0..self.rng.random_range(0..4) {
            let number = client.batches.len() + 1;
            let events = self.rng.random_range(1..5);
            let body = |n| format!("{} batch {number} event {n} of {events}", client.id);
            client.batches.push((1..=events).map(body).collect());
        }
        let first = client.acked.keys().next_back().copied().unwrap_or(0) + 1;
        let mut answers = Vec::new();
        for seq in first..=client.batches.len() as u64 {
            let batch = numbered(&self.log, &client.batches[seq as usize - 1]);
            let queued = match self.with_numbers {
                true => stream.submit(seq, batch, None).await,
                false => {
                    self.log
                        .submit(batch, AppendOptions::default(), None, Reservation::default())
                        .await
                }
            };
            if let Ok(answer) = queued {
                answers.push((seq, answer));
            }
        }
        let mut has_failed = answers.is_empty();
        for (seq, answer) in answers {
            match answer.await {
                // A lost ack: sent again next time.
                Ok(_) if self.rng.random_bool(0.2) => break,
                Ok(done) => {
                    let events = client.batches[seq as usize - 1].len() as u64;
                    assert_eq!(done.stored + done.duplicates, events);
                    let (first, last) = (done.first.unwrap(), done.last.unwrap());
                    assert_eq!(first.distance_to(last) + 1, events);
                    client.acked.insert(seq, (first, last));
                }
                Err(AppendError::DiskFull(_) | AppendError::ProducerHole { .. }) => break,
                Err(AppendError::Unknown(_) | AppendError::Stopped(_)) => {
                    has_failed = true;
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        if has_failed {
            self.crash().await;
        }
    }

    /// Everything is sent and acked in the end, by the same life.
    async fn finish(&mut self) {
        self.crash().await;
        for at in 0..self.clients.len() {
            while self.clients[at].acked.len() < self.clients[at].batches.len()
                || self.clients[at].batches.is_empty()
            {
                self.send(at).await;
            }
        }
    }

    /// What is wrong, if anything.
    async fn check(&self) -> Result<(), String> {
        let oldest = self.log.bounds().oldest.get();
        let found: BTreeMap<u64, String> =
            read_all(&self.log, oldest, Filter::ALL).await.into_iter().collect();
        let mut expected = BTreeMap::new();
        for client in &self.clients {
            let mut before = 0;
            for (seq, batch) in client.batches.iter().enumerate() {
                let (first, last) = client.acked[&(seq as u64 + 1)];
                if first.get() <= before {
                    return Err(format!("{} batch {} is out of order", client.id, seq + 1));
                }
                before = last.get();
                for (n, body) in batch.iter().enumerate() {
                    expected.insert(first.get() + n as u64, body.clone());
                }
            }
        }
        expected.retain(|&seq, _| seq >= oldest);
        let difference = found.iter().find(|(seq, body)| expected.get(seq) != Some(body));
        match difference {
            Some((seq, body)) => Err(format!("{seq} is {body:?}, not {:?}", expected.get(seq))),
            None if found.len() == expected.len() => Ok(()),
            None => Err(format!("{} of {} are there", found.len(), expected.len())),
        }
    }
}

async fn run(seed: u64, with_numbers: bool) -> Result<(), String> {
    let mut world = World::new(seed, with_numbers);
    for _ in 0..60 {
        world.step().await;
    }
    world.finish().await;
    let result = world.check().await;
    world.log.close().await.unwrap();
    result
}

#[tokio::test]
async fn every_batch_is_stored_once_and_in_order_whatever_is_lost() {
    for seed in 0..150 {
        run(seed, true).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[tokio::test]
async fn without_numbers_the_same_clients_are_caught() {
    let mut caught = 0;
    for seed in 0..20 {
        caught += usize::from(run(seed, false).await.is_err());
    }
    assert!(caught > 15, "{caught} of 20");
}

async fn store(stream: &Producer, log: &EventLog, seq: u64) -> Result<Appended, AppendError> {
    let body = format!("batch {seq}");
    stream.submit(seq, numbered(log, &[body]), None).await?.await
}

#[tokio::test]
async fn an_epoch_is_durable_before_it_is_told() {
    let memory = Arc::new(engine(memory::Options { hold: true, ..memory::Options::default() }));
    let log = EventLog::open(memory.clone(), Recovered::default(), options()).unwrap();
    let mut opening = Box::pin(log.open_producer("p", 0));
    while memory.held() == 0 {
        assert!(poll_once(opening.as_mut()).await.is_none());
    }
    assert!(poll_once(opening.as_mut()).await.is_none());
    // A crash takes it back: nobody had heard of it.
    let (again, recovered) = memory.crash();
    assert!(opening.await.is_err());
    let log = EventLog::open(Arc::new(again), recovered, options()).unwrap();
    assert!(matches!(log.open_producer("p", 1).await, Err(AppendError::ProducerUnknown)));
}

#[tokio::test]
async fn a_batch_is_one_commit_and_its_repeat_says_where_it_lies() {
    let (log, _) = open(options());
    let stream = log.open_producer("p", 0).await.unwrap();
    assert_eq!((stream.last_seq(), stream.last_event()), (0, None));
    let bodies: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    let commits = log.status().counters.commits;
    let done = stream.submit(1, numbered(&log, &bodies), None).await.unwrap().await.unwrap();
    assert_eq!((done.stored, log.status().counters.commits), (500, commits + 1));
    // The very same content, and another: the number decides.
    for bodies in [&bodies[..], &bodies[..1]] {
        let again = stream.submit(1, numbered(&log, bodies), None).await.unwrap().await.unwrap();
        assert_eq!((again.stored, again.last_is_duplicate), (0, true));
        assert_eq!((again.first, again.last), (Some(Seq::FIRST), Some(Seq::new(500))));
    }
    assert_eq!(log.bounds().head, Seq::new(500));
    let again = log.open_producer("p", stream.epoch()).await.unwrap();
    assert_eq!((again.last_seq(), again.last_event()), (1, Some(Seq::new(500))));
    assert!(matches!(store(&stream, &log, 2).await, Err(AppendError::Fenced { .. })));
    store(&again, &log, 2).await.unwrap();
    log.close().await.unwrap();
}

#[tokio::test]
async fn an_expected_head_in_a_batch_is_judged_when_its_turn_comes() {
    let (log, _) = open(options());
    let stream = log.open_producer("p", 0).await.unwrap();
    let expect = |topic: Option<&str>, seq| {
        Some(ExpectedHead { topic: topic.map(str::to_owned), seq: Seq::new(seq) })
    };
    let one = || numbered(&log, &["x".to_owned()]);
    // All at once: each sees the one before, though that is not durable yet.
    let mut answers = Vec::new();
    for seq in 1..=20 {
        answers.push(stream.submit(seq, one(), expect(Some("a"), seq - 1)).await.unwrap());
    }
    for answer in answers {
        answer.await.unwrap();
    }
    let lost = stream.submit(21, one(), expect(None, 19)).await.unwrap().await;
    let Err(AppendError::HeadMoved { actual }) = lost else { panic!("{lost:?}") };
    assert_eq!(actual, Seq::new(20));
    // Its number is free, and a repeat is one whatever it expects.
    stream.submit(21, one(), expect(None, 20)).await.unwrap().await.unwrap();
    let again = stream.submit(21, one(), expect(None, 5)).await.unwrap().await.unwrap();
    assert_eq!((again.last_is_duplicate, again.last), (true, Some(Seq::new(21))));
    log.close().await.unwrap();
}

#[tokio::test]
async fn the_last_64_batches_are_known_by_their_seqs_over_a_restart_and_a_trim() {
    let memory = Arc::new(engine(memory::Options::default()));
    let log = EventLog::open(memory.clone(), Recovered::default(), options()).unwrap();
    let stream = log.open_producer("p", 0).await.unwrap();
    for seq in 1..=100 {
        store(&stream, &log, seq).await.unwrap();
    }
    log.trim(Seq::new(101)).await.unwrap();
    log.close().await.unwrap();
    let (memory, recovered) = memory.reopen();
    let log = EventLog::open(Arc::new(memory), recovered, options()).unwrap();
    assert_eq!(log.status().producers, 1);
    let stream = log.open_producer("p", stream.epoch()).await.unwrap();
    assert_eq!((stream.last_seq(), stream.last_event()), (100, Some(Seq::new(100))));
    for seq in 1..=100 {
        let done = store(&stream, &log, seq).await.unwrap();
        assert!(done.last_is_duplicate);
        assert_eq!(done.last, (seq > 36).then_some(Seq::new(seq)), "{seq}");
    }
    let hole = store(&stream, &log, 102).await;
    assert!(matches!(hole, Err(AppendError::ProducerHole { expected: 101 })), "{hole:?}");
    log.close().await.unwrap();
}

#[tokio::test]
async fn who_is_forgotten_is_unknown_and_never_begun_again_in_silence() {
    let (log, _) = open(Options { producers: 2, ..options() });
    let first = log.open_producer("1", 0).await.unwrap();
    store(&first, &log, 1).await.unwrap();
    for id in ["2", "3"] {
        log.open_producer(id, 0).await.unwrap();
    }
    assert_eq!(log.status().producers, 2);
    let unknown = store(&first, &log, 2).await;
    assert!(matches!(unknown, Err(AppendError::ProducerUnknown)), "{unknown:?}");
    let unknown = log.open_producer("1", first.epoch()).await.err().unwrap();
    assert!(matches!(unknown, AppendError::ProducerUnknown), "{unknown:?}");
    // Who asks for a new life gets one, and sees that nothing is known of an older.
    let again = log.open_producer("1", 0).await.unwrap();
    assert_eq!(again.last_seq(), 0);
    assert!(again.epoch() > first.epoch());
    let hole = store(&again, &log, 2).await;
    assert!(matches!(hole, Err(AppendError::ProducerHole { expected: 1 })), "{hole:?}");
    log.close().await.unwrap();
}
