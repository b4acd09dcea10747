//! The log against a plain list, many seeds: appends, repeats, trims, readers that are slow, cut
//! and reconnect by cursor, crashes and reopenings. Each reader must see every event from its
//! start on, once and in order, or hear exactly which are gone.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

struct World {
    rng: StdRng,
    memory: Arc<Memory>,
    log: EventLog,
    options: Options,
    /// Topic and body of every event ever stored; `[n]` has seq n + 1.
    events: Vec<(usize, String)>,
    /// Id and body of the events that are named, and their seqs.
    names: Vec<(u32, u64)>,
    oldest: u64,
    watchers: Vec<Watcher>,
}

/// A client: it keeps a cursor, and loses its connection now and then.
struct Watcher {
    reader: Option<Reader>,
    cursor: String,
    /// Seq it must see next.
    next: u64,
    topic: Option<usize>,
}

const TOPICS: [&str; 3] = ["a", "b.c", "d"];
const WINDOW: usize = 20;

impl World {
    fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = Options {
            recent_bytes: [0, 2_000, 1 << 20][rng.random_range(0..3)],
            dedup_window: WINDOW,
            reader_threads: rng.random_range(1..3),
            ..options()
        };
        let memory = Arc::new(engine(memory::Options {
            max_commit_bytes: rng.random_range(600..4_000),
            chunk_bytes: rng.random_range(1..2_000),
            state_every_bytes: rng.random_range(1..5_000),
            hold: false,
        }));
        let log = EventLog::open(memory.clone(), Recovered::default(), options.clone()).unwrap();
        let mut world = World {
            rng,
            memory,
            log,
            options,
            events: Vec::new(),
            names: Vec::new(),
            oldest: 1,
            watchers: Vec::new(),
        };
        for n in 0..4 {
            let cursor = world.log.known_cursor(Seq::ZERO).unwrap();
            let topic = [None, None, Some(0), Some(1)][n];
            world.watchers.push(Watcher { reader: None, cursor, next: 1, topic });
        }
        world
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0 => self.reopen().await,
            1 => {
                let before = self.rng.random_range(self.oldest..=self.events.len() as u64 + 2);
                let trimmed = self.log.trim(Seq::new(before)).await.unwrap();
                self.oldest = self.oldest.max(before.min(self.events.len() as u64 + 1));
                assert_eq!(trimmed.oldest.get(), self.oldest);
            }
            2..10 => self.append().await,
            _ => {
                let at = self.rng.random_range(0..self.watchers.len());
                self.watch(at).await;
            }
        }
        let bounds = self.log.bounds();
        assert_eq!(bounds.head.get(), self.events.len() as u64);
        assert_eq!(bounds.oldest.get(), self.oldest);
    }

    async fn reopen(&mut self) {
        let is_clean = self.rng.random_bool(0.5);
        if is_clean {
            self.log.close().await.unwrap();
        }
        let (memory, recovered) = if is_clean { self.memory.reopen() } else { self.memory.crash() };
        self.memory = Arc::new(memory);
        for watcher in &mut self.watchers {
            watcher.reader = None;
        }
        self.log = EventLog::open(self.memory.clone(), recovered, self.options.clone()).unwrap();
        self.log.repeats_ready().await.unwrap();
    }

    async fn append(&mut self) {
        let mut batch = self.log.batch();
        let mut duplicates = 0;
        let mut expected = self.events.clone();
        // The window moves with each commit, and a batch may take several: so that the list can
        // tell which, repeats are of the newest events only or of none.
        for _ in 0..self.rng.random_range(1..6) {
            let topic = self.rng.random_range(0..3);
            let seq = expected.len() as u64 + 1;
            if self.rng.random_bool(0.5) {
                let name = self.rng.random_range(0..30u32);
                let id = format!("id {name}");
                batch.push(&event(&id, TOPICS[0], "named")).unwrap();
                let in_window = self.names.len().saturating_sub(WINDOW - 6);
                if self.names[in_window..].iter().any(|(n, _)| *n == name) {
                    duplicates += 1;
                } else if self.names.iter().any(|(n, _)| *n == name) {
                    // May or may not be in the window: not tried.
                    batch = self.log.batch();
                    expected = self.events.clone();
                    self.names.retain(|(_, seq)| *seq <= expected.len() as u64);
                    duplicates = 0;
                } else {
                    self.names.push((name, seq));
                    expected.push((0, "named".into()));
                }
            } else {
                let body = "x".repeat(self.rng.random_range(0..300));
                batch.push(&event("", TOPICS[topic], &body)).unwrap();
                expected.push((topic, body));
            }
        }
        let before = self.events.len() as u64;
        let dedup = AppendOptions { dedup: true, ..AppendOptions::default() };
        let done = self.log.append(batch, dedup).await.unwrap();
        self.events = expected;
        assert_eq!((done.stored, done.duplicates), (self.events.len() as u64 - before, duplicates));
        let first = (done.stored > 0).then_some(Seq::new(before + 1));
        assert_eq!(done.first, first);
    }

    async fn watch(&mut self, at: usize) {
        let head = self.events.len() as u64;
        let watcher = &mut self.watchers[at];
        if watcher.reader.is_none() {
            let cursor = Cursor::parse(&watcher.cursor).unwrap();
            let next = match self.log.resolve(cursor).await {
                Ok(next) => next,
                Err(ResolveError::Cursor(CursorError::Trimmed { oldest, missed })) => {
                    assert_eq!((oldest.get(), missed), (self.oldest, self.oldest - watcher.next));
                    watcher.next = self.oldest;
                    watcher.cursor = self.log.cursor(oldest.prev()).await;
                    oldest
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!(next.get(), watcher.next);
            let pattern = watcher.topic.map(|topic| {
                tailmark_record::topic::Pattern::parse(TOPICS[topic], &Limits::default()).unwrap()
            });
            watcher.reader =
                Some(self.log.reader(next, Filter::new(pattern.into_iter().collect())));
        }
        let Some(reader) = &mut watcher.reader else { return };
        let end = Seq::new(watcher.next + self.rng.random_range(1..40));
        let mut read = Box::pin(reader.next(end));
        let result = if self.rng.random_bool(0.2) {
            // Cancelled at its first rest, or through.
            poll_once(read.as_mut()).await
        } else if watcher.next <= head {
            Some(read.as_mut().await)
        } else {
            assert!(poll_once(read.as_mut()).await.is_none(), "there is nothing to read");
            None
        };
        drop(read);
        if let Some(result) = result {
            Self::receive(&self.events, &self.log, self.oldest, watcher, result).await;
        }
        if self.rng.random_bool(0.2) {
            watcher.reader = None;
        }
    }

    async fn receive(
        events: &[(usize, String)],
        log: &EventLog,
        oldest: u64,
        watcher: &mut Watcher,
        result: Result<Delivery, ReadError>,
    ) {
        let chunk = match result {
            Ok(delivery) => delivery.chunk,
            Err(ReadError::Trimmed { from, oldest: said }) => {
                assert_eq!((from.get(), said.get()), (watcher.next, oldest));
                assert!(watcher.next < oldest);
                watcher.reader = None;
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(watcher.next >= oldest, "served what is trimmed");
        assert_eq!(chunk.first.get(), watcher.next);
        let is_wanted = |topic: usize| watcher.topic.is_none_or(|wanted| wanted == topic);
        let found: Vec<_> = Events::new(&chunk.events)
            .map(|event| Event::parse(event.unwrap()).unwrap())
            .filter(|event| watcher.topic.is_none_or(|wanted| TOPICS[wanted] == event.topic))
            .collect();
        for event in &found {
            let cursor = log.cursor(event.seq).await;
            assert_eq!(event.cursor, cursor);
        }
        let found: Vec<_> = found
            .iter()
            .map(|event| (event.seq.get(), event.topic.to_owned(), event.body.to_owned()))
            .collect();
        let expected: Vec<_> = (chunk.first.get()..chunk.end.get())
            .map(|seq| (seq, &events[seq as usize - 1]))
            .filter(|(_, (topic, _))| is_wanted(*topic))
            .map(|(seq, (topic, body))| (seq, TOPICS[*topic].to_owned(), body.clone()))
            .collect();
        assert_eq!(found, expected);
        watcher.next = chunk.end.get();
        watcher.cursor = log.cursor(chunk.end.prev()).await;
    }
}

#[tokio::test]
async fn the_log_equals_a_plain_list() {
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..80 {
            world.step().await;
        }
        // Every reader gets to the end.
        for at in 0..world.watchers.len() {
            while world.watchers[at].next <= world.events.len() as u64 {
                world.watch(at).await;
            }
        }
        world.log.close().await.unwrap();
    }
}

/// Readers on other threads while events are appended and trimmed: contiguous, or told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_a_writer_miss_nothing_and_repeat_nothing() {
    const LAST: u64 = 4_000;
    for recent_bytes in [0, 3_000, 1 << 20] {
        let (log, _) = open(Options { recent_bytes, ..options() });
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..6u64 {
            let mut reader = log.reader(Seq::FIRST, Filter::ALL);
            tasks.spawn(async move {
                let mut next = 1;
                while next <= LAST {
                    let end = if n % 2 == 0 { Seq::MAX } else { Seq::new(next + n) };
                    match reader.next(end).await {
                        Ok(delivery) => {
                            for event in Events::new(&delivery.chunk.events) {
                                let seq = Event::seq_of(event.unwrap()).unwrap();
                                assert_eq!(seq.get(), next);
                                next += 1;
                            }
                            assert_eq!(delivery.chunk.end.get(), next);
                        }
                        Err(ReadError::Trimmed { from, oldest }) => {
                            assert!(from.get() == next && oldest > from);
                            next = oldest.get();
                            reader.jump(oldest);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let mut appended = 0;
        while appended < LAST {
            let count = (appended % 37 + 1).min(LAST - appended);
            let events: Vec<_> = (0..count).map(|_| ("a", "body")).collect();
            log.append(batch(&log, &events), AppendOptions::default()).await.unwrap();
            appended += count;
            if appended % 5 == 0 {
                log.trim(Seq::new(appended.saturating_sub(200))).await.unwrap();
            }
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        log.close().await.unwrap();
    }
}
