//! Event logs over one journal in memory, what is done to them, and what their clients saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_log::storage::shared::{Body, Fault, Followed, Role, Slot, Stream};
use tailmark_log::{
    AppendError, AppendOptions, Appended, CursorError, EventLog, ExpectedHead, Options,
    ResolveError,
};
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{Cursor, Event, Events, Limits, Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

use crate::checker::{History, Note, Outcome, Request, Sent, Watched};
use crate::daemon::{Daemon, PATIENCE, Without, identity, within};

const TOPICS: [&str; 4] = ["orders.eu", "orders.us", "users", "users.eu.new"];
/// The topic of the last event of a run.
const END: &str = "end";

/// What is wrong: of which kind, and what. The checker's kinds are its guarantees.
pub type Wrong = (&'static str, String);

/// What happened in a run, so that it can be told that nothing was left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Covered {
    pub stored: u64,
    pub duplicates: u64,
    pub unknown: u64,
    pub refused: u64,
    pub forwarded: u64,
    pub terms: u64,
    /// Writers who found that they are none.
    pub fenced: u64,
    pub doubts: u64,
    pub kills: u64,
    pub asked_the_writer: u64,
    pub late: u64,
    pub moved: u64,
    /// Verdicts on where the log ends.
    pub heads: u64,
}

impl Covered {
    pub fn add(&mut self, other: &Covered) {
        let Covered { stored, duplicates, unknown, refused, forwarded, terms, .. } = other;
        self.stored += stored;
        self.duplicates += duplicates;
        self.unknown += unknown;
        self.refused += refused;
        self.forwarded += forwarded;
        self.terms += terms;
        self.fenced += other.fenced;
        self.doubts += other.doubts;
        self.kills += other.kills;
        self.asked_the_writer += other.asked_the_writer;
        self.late += other.late;
        self.moved += other.moved;
        self.heads += other.heads;
    }

    /// Whether each kind of thing has happened.
    pub fn is_all(&self) -> bool {
        let first = [self.stored, self.duplicates, self.unknown, self.refused, self.forwarded];
        let rest = [self.terms, self.fenced, self.doubts, self.kills, self.asked_the_writer];
        first
            .iter()
            .chain(&rest)
            .chain(&[self.late, self.moved, self.heads])
            .all(|count| *count > 0)
    }
}

/// A client that watches, wherever it is let.
pub struct Seer {
    pub at: usize,
    patterns: Vec<&'static str>,
    pub cursor: Option<String>,
    notes: Vec<Note>,
    /// It has seen the last event.
    is_through: bool,
}

pub struct Cluster {
    pub stream: Arc<Stream>,
    pub daemons: Vec<Daemon>,
    pub seers: Vec<Seer>,
    pub requests: Vec<Request>,
    pub covered: Covered,
    /// What nobody should have been told.
    pub wrong: Vec<Wrong>,
    pub rng: StdRng,
    without: Without,
    now: Arc<AtomicI64>,
    sent: SoFar,
}

fn filter(patterns: &[&str]) -> Filter {
    let parse = |text: &&str| Pattern::parse(text, &Limits::default()).unwrap();
    Filter::new(patterns.iter().map(parse).collect())
}

/// What clients have sent so far.
#[derive(Default)]
struct SoFar {
    count: u64,
    /// Events with ids, which may be sent again.
    named: Vec<Sent>,
}

/// New events, or one that was sent before.
fn events(rng: &mut StdRng, so_far: &mut SoFar) -> Vec<Sent> {
    let is_named = rng.random_bool(0.5);
    if is_named && !so_far.named.is_empty() && rng.random_bool(0.4) {
        return vec![so_far.named[rng.random_range(0..so_far.named.len())].clone()];
    }
    let mut sent = Vec::new();
    for _ in 0..if is_named { 1 } else { rng.random_range(1..4) } {
        so_far.count += 1;
        let label = format!("e{}", so_far.count);
        let id = if is_named { format!("id-{label}") } else { String::new() };
        let filler = "x".repeat(rng.random_range(0..300));
        let topic = TOPICS[rng.random_range(0..TOPICS.len())].to_owned();
        let body = format!("{label}|{filler}");
        sent.push(Sent { label, event: pb::Event { id, topic, body, ..pb::Event::default() } });
    }
    if is_named {
        so_far.named.extend(sent.iter().cloned());
    }
    sent
}

async fn append(log: EventLog, sent: Vec<Sent>) -> Result<Appended, AppendError> {
    let mut batch = log.batch();
    for Sent { event, .. } in &sent {
        let (id, topic, body) = (&*event.id, &*event.topic, &*event.body);
        batch.push(&Event { id, topic, body, ..Event::default() }).unwrap();
    }
    let options = AppendOptions { dedup: true, atomic: true, ..AppendOptions::default() };
    log.append(batch, options).await
}

impl Cluster {
    /// Copies of every fifth are on disk.
    pub fn new(count: u64, seed: u64, without: Without) -> Cluster {
        let is_on_disk =
            seed % 5 == 4 || std::env::var("SHARED_COPIES").is_ok_and(|it| it == "disk");
        let mut rng = StdRng::seed_from_u64(seed);
        let stream = Stream::new(identity(), without != Without::CompareAndSwap);
        let now = Arc::new(AtomicI64::new(1_700_000_000));
        let mut daemons = Vec::new();
        for name in 1..=count {
            // Their clocks are apart.
            let (clock, apart) = (now.clone(), rng.random_range(-30..30));
            let clock =
                move || Timestamp { seconds: clock.load(Ordering::SeqCst) + apart, nanos: 0 };
            let options = Options {
                clock: Arc::new(clock),
                recent_bytes: [0, 5_000, 1 << 20][rng.random_range(0..3)],
                dedup_window: 10_000,
                reader_threads: 1,
                ..Options::default()
            };
            daemons.push(Daemon::new(name, &stream, options, without, is_on_disk));
        }
        let plans = [&[][..], &[], &[], &["orders.>", END], &["users", "*.us", END]];
        let seer = |patterns: &&[&'static str]| Seer {
            at: 0,
            patterns: patterns.to_vec(),
            cursor: None,
            notes: Vec::new(),
            is_through: false,
        };
        Cluster {
            stream,
            daemons,
            seers: plans.iter().map(seer).collect(),
            requests: Vec::new(),
            covered: Covered::default(),
            wrong: Vec::new(),
            rng,
            without,
            now,
            sent: SoFar::default(),
        }
    }

    pub fn any(&mut self) -> usize {
        self.rng.random_range(0..self.daemons.len())
    }

    async fn refresh(&mut self, at: usize) {
        if let Err(what) = self.daemons[at].refresh().await {
            self.wrong.push(("Closing", what));
        }
    }

    /// A daemon takes what the journal has for it, at most so many slots.
    pub async fn follow(&mut self, at: usize, slots: usize) {
        for _ in 0..slots {
            let daemon = &mut self.daemons[at];
            let role = daemon.replica.role();
            match daemon.replica.follow() {
                Ok(Some(Followed::Commit(commit))) => {
                    if let Some(following) = &daemon.following {
                        following.applied(&commit);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.refresh(at).await;
                    break;
                }
            }
            let is_fenced = role == Role::Writing && daemon.replica.role() == Role::Following;
            self.covered.fenced += u64::from(is_fenced);
            self.refresh(at).await;
        }
    }

    pub async fn take_over(&mut self, at: usize) -> bool {
        let now = Timestamp { seconds: self.now.load(Ordering::SeqCst), nanos: 0 };
        let daemon = &mut self.daemons[at];
        let taken = daemon.replica.take_over(now);
        // What it followed before that was not shown.
        daemon.has_ended = true;
        self.covered.terms += u64::from(taken.is_ok());
        self.refresh(at).await;
        taken.is_ok()
    }

    /// A daemon asks again what became of what it published.
    pub async fn resolve(&mut self, at: usize) -> bool {
        let daemon = &mut self.daemons[at];
        if !daemon.replica.is_in_doubt() {
            return true;
        }
        let is_known = daemon.replica.resolve().is_ok();
        daemon.has_ended = true;
        self.refresh(at).await;
        is_known
    }

    /// A daemon dies and comes back, with its copy or with none.
    pub async fn kill(&mut self, at: usize, forgets: bool) {
        self.covered.kills += 1;
        if let Err(what) = self.daemons[at].dies(&self.stream, forgets, self.without).await {
            self.wrong.push(("Closing", what));
        }
        self.refresh(at).await;
    }

    /// A client publishes at a daemon, which passes it on to whom it takes for the writer.
    pub async fn publish(&mut self, at: usize) {
        let sent = events(&mut self.rng, &mut self.sent);
        self.send(at, sent).await;
    }

    /// A client appends at a daemon only if the head is what it takes it for, and is told another: that
    /// must be the head.
    async fn expect(&mut self, at: usize) {
        self.refresh(at).await;
        let log = &self.daemons[at].log;
        let seq = log.head().plus(1 + u64::from(self.rng.random_bool(0.5)));
        let mut batch = log.batch();
        batch.push(&Event { topic: "users", ..Event::default() }).unwrap();
        let expected_head = Some(ExpectedHead { topic: None, seq });
        let options = AppendOptions { expected_head, ..AppendOptions::default() };
        match within("append", log.append(batch, options)).await {
            Err(AppendError::HeadMoved { actual }) => {
                self.covered.heads += 1;
                let head = self.head();
                if actual != head {
                    self.wrong
                        .push(("Verdict", format!("daemon {} says {actual} of {head}", at + 1)));
                }
            }
            Ok(done) => self.wrong.push(("Verdict", format!("stored behind another: {done:?}"))),
            Err(AppendError::Busy(_)) => {}
            Err(AppendError::Unknown(_) | AppendError::NotWriter(_) | AppendError::Diverged(_)) => {
                self.daemons[at].has_ended |= self.daemons[at].opened.0 == Role::Writing;
            }
            Err(error) => self.wrong.push(("Appends", format!("refused: {error}"))),
        }
    }

    /// Where the log ends, by all that the journal holds.
    fn head(&self) -> Seq {
        let slots = self.stream.slots();
        let ends = slots.iter().filter_map(|slot| match slot {
            Slot::Frame(frame) => match &frame.body {
                Body::Commit(commit) => Some(commit.first.plus(commit.count.into()).prev()),
                Body::Term(_) | Body::Empty | Body::Checkpoint(_) => None,
            },
            Slot::Foreign | Slot::Unreadable(_) | Slot::Gone => None,
        });
        ends.max().unwrap_or(Seq::ZERO)
    }

    pub async fn end(&mut self, at: usize) -> bool {
        let label = "end".to_owned();
        let event =
            pb::Event { topic: END.to_owned(), body: "end|".into(), ..pb::Event::default() };
        self.send(at, vec![Sent { label, event }]).await;
        matches!(self.requests.last(), Some(Request { outcome: Outcome::Uploaded(_), .. }))
    }

    async fn send(&mut self, at: usize, sent: Vec<Sent>) {
        self.now.fetch_add(self.rng.random_range(0..3), Ordering::SeqCst);
        let outcome = self.forward(at, &sent).await;
        self.record(sent, outcome);
    }

    fn record(&mut self, sent: Vec<Sent>, outcome: Outcome) {
        match &outcome {
            Outcome::Uploaded(result) => {
                self.covered.stored += result.stored;
                self.covered.duplicates += result.duplicates;
            }
            Outcome::Unknown => self.covered.unknown += 1,
            _ => self.covered.refused += 1,
        }
        self.requests.push(Request { sent, outcome });
    }

    async fn forward(&mut self, first: usize, sent: &[Sent]) -> Outcome {
        let (mut at, mut hop) = (first, 0);
        loop {
            self.refresh(at).await;
            let log = self.daemons[at].log.clone();
            let appended = within("append", append(log, sent.to_vec())).await;
            self.covered.forwarded += u64::from(hop > 0 && appended.is_ok());
            let outcome = self.told(at, sent, &appended);
            let daemon = &self.daemons[at];
            let writer = daemon.replica.writer().filter(|writer| *writer != daemon.name);
            match (appended, writer) {
                (Err(AppendError::NotWriter(_)), Some(writer)) if hop < 2 => {
                    at = self.daemons.iter().position(|it| it.name == writer).unwrap();
                    hop += 1;
                }
                _ => return outcome,
            }
        }
    }

    /// Clients publish at a daemon at the same time, and nothing is passed on.
    async fn burst(&mut self, at: usize) {
        self.refresh(at).await;
        let count = self.rng.random_range(2..7);
        let log = &self.daemons[at].log;
        let mut calls = Vec::new();
        let events: Vec<_> = (0..count).map(|_| events(&mut self.rng, &mut self.sent)).collect();
        for sent in events {
            calls.push((sent.clone(), tokio::spawn(append(log.clone(), sent))));
        }
        for (sent, call) in calls {
            let appended = within("append", call).await.unwrap();
            let outcome = self.told(at, &sent, &appended);
            self.record(sent, outcome);
        }
    }

    /// What a client is told, and what it says of the daemon.
    fn told(
        &mut self,
        at: usize,
        sent: &[Sent],
        appended: &Result<Appended, AppendError>,
    ) -> Outcome {
        let daemon = &mut self.daemons[at];
        match appended {
            Ok(done) => {
                return Outcome::Uploaded(pb::UploadResult {
                    received: i32::try_from(sent.len()).unwrap(),
                    stored: done.stored,
                    duplicates: done.duplicates,
                    last_seq: done.last_event.get(),
                    ..pb::UploadResult::default()
                });
            }
            Err(AppendError::Unknown(_)) => {
                daemon.has_ended = true;
                self.covered.doubts += u64::from(daemon.replica.is_in_doubt());
                return Outcome::Unknown;
            }
            Err(AppendError::NotWriter(_) | AppendError::Diverged(_)) => {
                let was_writer = daemon.opened.0 == Role::Writing;
                daemon.has_ended |= was_writer;
                self.covered.fenced += u64::from(was_writer);
            }
            Err(AppendError::Busy(_)) => {}
            Err(error) => self.wrong.push(("Appends", format!("refused: {error}"))),
        }
        // Of a repeat the first may be there.
        if sent[0].event.id.is_empty() { Outcome::Refused } else { Outcome::Unknown }
    }

    /// A watcher goes on where it is, for as many reads at most.
    pub async fn look(&mut self, who: usize, reads: usize) {
        let (at, cursor) = (self.seers[who].at, self.seers[who].cursor.clone());
        let Some(next) = self.begins(at, cursor.as_deref()).await else { return };
        let log = self.daemons[at].log.clone();
        let seer = &mut self.seers[who];
        seer.notes.push(Note::Opened(next.get()));
        let filter = filter(&seer.patterns);
        let mut reader = log.reader(next, filter.clone());
        for _ in 0..reads {
            let end = log.head().next();
            if reader.position() >= end || seer.is_through {
                break;
            }
            let delivery = match tokio::time::timeout(PATIENCE, reader.next(end)).await {
                Ok(Ok(delivery)) => delivery,
                Ok(Err(error)) => {
                    self.wrong.push(("Reads", format!("a read fails: {error}")));
                    return;
                }
                Err(_) => {
                    self.wrong.push(("Progress", "a read below the head waits".to_owned()));
                    return;
                }
            };
            for event in Events::new(&delivery.chunk.events) {
                let event = pb::Event::decode(event.unwrap()).unwrap();
                if filter.matches(&event.topic) {
                    seer.cursor = Some(event.cursor.clone());
                    seer.is_through |= event.topic == END;
                    seer.notes.push(Note::Event(Box::new(event)));
                }
            }
        }
    }

    /// Where a watch after a cursor begins; `None` where nobody can tell yet.
    async fn begins(&mut self, at: usize, cursor: Option<&str>) -> Option<Seq> {
        let Some(text) = cursor else { return Some(Seq::FIRST) };
        let cursor = Cursor::parse(text).unwrap();
        let error = match within("resolve", self.daemons[at].log.resolve(cursor)).await {
            Ok(next) => return Some(next),
            Err(error) => error,
        };
        if self.without == Without::AheadIsConfirmed {
            self.wrong.push(("Verdict", format!("daemon {} says of {text}: {error}", at + 1)));
            return None;
        }
        let is_verdict = matches!(
            error,
            ResolveError::Cursor(CursorError::Ahead { .. } | CursorError::LogDiverged { .. })
        );
        if !is_verdict {
            self.wrong.push(("Reads", format!("a cursor is refused: {error}")));
            return None;
        }
        // Only the writer knows, and it only once it has proved that it is one.
        let writer = self.daemons[at].replica.writer()?;
        let writer = self.daemons.iter().position(|it| it.name == writer)?;
        let daemon = &self.daemons[writer];
        if !daemon.is_as_opened() || daemon.replica.confirm().is_err() {
            return None;
        }
        self.covered.asked_the_writer += 1;
        let answer = within("resolve", self.daemons[writer].log.resolve(cursor)).await;
        if let Err(error) = answer {
            self.wrong.push(("Verdict", format!("the writer says of {text}: {error}")));
        }
        None
    }

    /// A step of a random schedule.
    pub async fn step(&mut self) {
        let at = self.any();
        match self.rng.random_range(0..100) {
            0..28 => self.publish(at).await,
            28..32 => self.burst(at).await,
            32..35 => self.expect(at).await,
            35..60 => {
                let slots = self.rng.random_range(1..8);
                self.follow(at, slots).await;
            }
            60..75 => {
                let who = self.rng.random_range(0..self.seers.len());
                let reads = self.rng.random_range(1..5);
                self.look(who, reads).await;
                if self.rng.random_bool(0.3) {
                    self.covered.moved += u64::from(self.seers[who].at != at);
                    self.seers[who].at = at;
                }
            }
            75..79 => drop(self.take_over(at).await),
            79..86 => {
                let faults = [
                    Fault::LoseRequest,
                    Fault::DelayRequest,
                    Fault::LoseAnswer,
                    Fault::OldLeader,
                    Fault::Pass,
                ];
                for _ in 0..self.rng.random_range(1..6) {
                    let fault = faults[self.rng.random_range(0..faults.len())];
                    self.daemons[at].connection.fail([fault]);
                }
            }
            86..89 => {
                let nth = self.rng.random_range(0..10);
                self.covered.late += u64::from(self.stream.deliver_late(nth));
            }
            89 => self.stream.put_foreign(),
            90..92 => self.daemons[at].connection.cut(),
            92..95 => self.daemons[at].connection.heal(),
            95..98 => drop(self.resolve(at).await),
            _ => {
                let forgets = self.rng.random_bool(0.3);
                self.kill(at, forgets).await;
            }
        }
    }

    /// Everything works again: a writer, the last event, and everybody reads up to it.
    pub async fn settle(&mut self) {
        self.daemons.iter().for_each(|it| it.connection.heal());
        while self.stream.deliver_late(0) {}
        let mut is_ended = false;
        for round in 0..20 {
            let at = round % self.daemons.len();
            if self.resolve(at).await && self.take_over(at).await && self.end(at).await {
                is_ended = true;
                break;
            }
        }
        if !is_ended {
            self.wrong.push(("Progress", "nobody could write at the end".to_owned()));
        }
        for at in 0..self.daemons.len() {
            self.resolve(at).await;
            self.follow(at, 100_000).await;
        }
        for who in 0..self.seers.len() {
            for _ in 0..1_000 {
                if self.seers[who].is_through || !self.wrong.is_empty() {
                    break;
                }
                self.look(who, 50).await;
            }
        }
    }

    /// All that a daemon can read.
    pub async fn read_all(&mut self, at: usize) -> Vec<pb::Event> {
        let log = self.daemons[at].log.clone();
        let (mut next, end, mut events) = (Seq::FIRST, log.head().next(), Vec::new());
        while next < end {
            let mut reader = log.reader(next, Filter::ALL);
            match within("read", reader.next(end)).await {
                Ok(delivery) => {
                    for event in Events::new(&delivery.chunk.events) {
                        events.push(pb::Event::decode(event.unwrap()).unwrap());
                    }
                    next = delivery.chunk.end;
                }
                Err(error) => {
                    self.wrong.push(("Reads", format!("daemon {}: {error}", at + 1)));
                    break;
                }
            }
        }
        events
    }

    /// What all saw, after [`Cluster::settle`]; every copy is compared with the first.
    pub async fn history(&mut self) -> History {
        let log = self.read_all(0).await;
        for at in 1..self.daemons.len() {
            if self.read_all(at).await != log {
                self.wrong.push(("OneLog", format!("daemon {} has another log", at + 1)));
            }
        }
        for at in 0..self.daemons.len() {
            if let Err(error) = within("close", self.daemons[at].log.close()).await {
                self.wrong.push(("Closing", format!("daemon {}: {error}", at + 1)));
            }
        }
        let seers = std::mem::take(&mut self.seers).into_iter().enumerate();
        let watches = seers.map(|(who, seer)| Watched {
            name: format!("watcher {who} of {:?}", seer.patterns),
            filter: filter(&seer.patterns),
            notes: seer.notes,
            is_paused: false,
            is_early: true,
        });
        let (watches, head) = (watches.collect(), log.len() as u64);
        let requests = std::mem::take(&mut self.requests);
        History { requests, watches, restarts: Vec::new(), log, oldest: 1, head }
    }
}
