//! Commits whose every byte is known from their seqs, the script that writes them, and the checker
//! that reads them back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tailmark_log::chain::Link;
use tailmark_log::storage::local::{self, LocalEngine, Options};
use tailmark_log::storage::{
    Commit, Engine, Receipt, Recovered, RemovedReason, Sealed, Store, StoreError, TakeOut,
};
use tailmark_log::testing;
use tailmark_record::topic::Filter;
use tailmark_record::{Bounds, ChainTag, Cursor, CursorMint, Event, Events, Facts, Seq, Timestamp};

/// The smallest slot there is.
pub const SLOT_BYTES: u64 = 256 << 10;

pub fn options() -> Options {
    Options {
        // Images are copies; what begins a generation beside that is to be seen.
        tells_copies: false,
        slot_bytes: SLOT_BYTES,
        max_slots: 3,
        min_free_bytes: 0,
        mark_after: Duration::from_millis(3),
        ..Options::default()
    }
}

/// Opens a log; its lock is freed a moment after the last handle.
pub fn open(dir: &Path) -> Result<(Arc<LocalEngine>, Recovered), StoreError> {
    open_with(dir, options())
}

pub fn open_with(
    dir: &Path,
    options: Options,
) -> Result<(Arc<LocalEngine>, Recovered), StoreError> {
    let begun = Instant::now();
    loop {
        match local::open(dir, options.clone()) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < Duration::from_secs(30) => {
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}

/// The body of an event: anything but regular, and known from its seq. `salt` tells histories apart.
pub fn body_of(seq: u64, salt: u64) -> String {
    let mut x = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xd134_2543_de82_ef95);
    let len = 40 + (x >> 33) % 400;
    let mut body = format!("event {seq} of {salt}: ");
    while (body.len() as u64) < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        body.push_str(&format!("{:x}", x & 0xffff_ffff));
    }
    body
}

fn topic_of(seq: u64) -> String {
    format!("t.{}", seq % 5)
}

/// A commit of `count` events after the head. Its delta is its first seq; the state is the next
/// seq before it, so that recovery can be checked for holes.
pub fn commit(engine: &dyn Engine, count: u32, salt: u64) -> Commit {
    let commit = testing::commit(engine, count, |seq| body_of(seq.get(), salt));
    let first = || Bytes::copy_from_slice(&commit.first.get().to_le_bytes());
    let delta = if count > 0 { first() } else { Bytes::new() };
    let state = engine.wants_state(commit.events.len() + delta.len()).then(first);
    Commit { delta, state, ..commit }
}

pub fn time_of(seq: u64) -> Timestamp {
    testing::time_of(Seq::new(seq))
}

pub fn append(engine: &dyn Engine, commit: Commit) -> Result<Receipt, StoreError> {
    testing::append(engine, commit)
}

/// Moves the trim mark and gives back space.
pub fn trim(engine: &dyn Engine, oldest: Seq) -> Result<(), StoreError> {
    let commit = Commit { oldest, ..commit(engine, 0, 0) };
    append(engine, commit)?;
    engine.reclaim()
}

/// What is wrong with what a log serves.
#[derive(Debug)]
pub enum Wrong {
    /// It said so itself.
    Refused(StoreError),
    /// It served something else.
    Served(String),
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Wrong::Refused(error)
    }
}

impl Wrong {
    /// Damage, said with its range: what a damaged log is to answer.
    pub fn is_reported_damage(&self) -> bool {
        matches!(self, Wrong::Refused(StoreError::Damaged(_) | StoreError::Format { .. }))
    }
}

macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(Wrong::Served(format!($($what)+)));
        }
    };
}

/// Reads everything and compares each event with what was appended; `salt_of` names the history
/// that a seq belongs to. Answers how many events were compared.
pub fn check_events(engine: &dyn Engine, salt_of: impl Fn(u64) -> u64) -> Result<u64, Wrong> {
    let bounds = engine.bounds();
    let (mut at, mut seen, mut gone) = (bounds.oldest, 0u64, 0u64);
    // What is trimmed has left no link to go on from.
    let mut link = (bounds.oldest == Seq::FIRST).then_some(Link::START);
    while at <= bounds.head {
        let chunk = match engine.read(at, bounds.next(), &Filter::ALL) {
            Err(StoreError::Removed(range)) if range.is_intended() => {
                let all_may = (at.get()..range.end.get()).all(may_go);
                ensure!(all_may, "{range}: nobody took all of them out");
                ensure!(range.first <= at && at < range.end, "a read at {at}: {range}");
                gone += at.distance_to(range.end);
                // What the range says is compared with what comes behind it.
                link = link.map(|_| range.link);
                at = range.end;
                continue;
            }
            read => read?,
        };
        ensure!(chunk.first == at && chunk.complete, "a read at {at} began at {}", chunk.first);
        let mut seq = at;
        for event in Events::new(&chunk.events) {
            let event = event.and_then(|bytes| Ok((bytes, Event::parse(bytes)?)));
            let event = event.map_err(|error| Wrong::Served(format!("event {seq}: {error}")));
            let (bytes, event) = event?;
            check_event(&event, seq, &bounds, engine, salt_of(seq.get()))?;
            if let Some(before) = link {
                let facts = Facts::scan(bytes);
                let facts =
                    facts.map_err(|error| Wrong::Served(format!("event {seq}: {error}")))?;
                let here = before.then_event(bytes, &facts);
                ensure!(tag_in(&event) == Some(here.tag()), "the chain at {seq} is another");
                link = Some(here);
            }
            (seq, seen) = (seq.next(), seen + 1);
        }
        ensure!(seq == chunk.end && seq > at, "a read from {at} to {} held {seen}", chunk.end);
        at = chunk.end;
    }
    ensure!(
        link.is_none_or(|link| link == engine.links().head),
        "the chain at the head is another"
    );
    let all = seen + gone;
    ensure!(all == bounds.oldest.distance_to(bounds.next()), "{seen} and {gone} in {bounds:?}");
    Ok(seen)
}

/// Whether an event may be taken out: runs of a third of all.
pub fn may_go(seq: u64) -> bool {
    (seq / 16).is_multiple_of(3)
}

/// Takes such events out of a segment.
pub fn take_out(engine: &dyn Engine, sealed: Sealed) -> Result<(), StoreError> {
    let mut seqs: Vec<(std::ops::Range<Seq>, RemovedReason)> = Vec::new();
    for seq in (sealed.first.get()..sealed.end.get()).filter(|seq| may_go(*seq)) {
        let reason = [RemovedReason::Expired, RemovedReason::Compacted][(seq / 48 % 2) as usize];
        match seqs.last_mut() {
            Some((range, last)) if range.end.get() == seq && *last == reason => {
                range.end = range.end.next();
            }
            _ => seqs.push((Seq::new(seq)..Seq::new(seq + 1), reason)),
        }
    }
    engine.take_out(&TakeOut { sealed: vec![sealed], seqs, named_from: Seq::ZERO }).map(drop)
}

fn check_event(
    event: &Event<'_>,
    seq: Seq,
    bounds: &Bounds,
    engine: &dyn Engine,
    salt: u64,
) -> Result<(), Wrong> {
    let n = seq.get();
    ensure!(event.seq == seq, "event {seq} says that it is {}", event.seq);
    ensure!(event.body == body_of(n, salt), "event {seq} has another body: {}", event.body);
    ensure!(event.topic == topic_of(n) && event.id == format!("id-{n}"), "event {seq}: {event:?}");
    let owner = bounds.generations.entries().iter().rev().find(|entry| entry.first <= seq);
    let tag = tag_in(event).unwrap_or_default();
    // Each is a read.
    if n.is_multiple_of(97) {
        ensure!(engine.tag_of(seq)? == tag, "event {seq} has another tag");
    }
    let mint =
        owner.map(|entry| CursorMint::new(engine.id(), entry.generation).mint_string(seq, tag));
    ensure!(mint.as_deref() == Some(event.cursor), "event {seq} has another cursor");
    Ok(())
}

/// What an event's cursor says of the chain.
fn tag_in(event: &Event<'_>) -> Option<ChainTag> {
    match Cursor::parse(event.cursor) {
        Ok(Cursor::Token { tag, .. }) => tag,
        _ => None,
    }
}

/// The other questions a log answers, against the same model.
pub fn check_answers(engine: &dyn Engine, seen: u64) -> Result<(), Wrong> {
    let bounds = engine.bounds();
    let topics = tailmark_log::testing::all_topics(engine, 3)?;
    let events: u64 = topics.values().map(|stats| stats.events).sum();
    ensure!(events == seen, "topics count {events} events, not {seen}");
    let last = topics.values().map(|stats| stats.last_seq).max().unwrap_or(Seq::ZERO);
    for (topic, stats) in &topics {
        let head = tailmark_log::testing::topic_head(engine, topic)?;
        ensure!(head == stats.last_seq, "the head of {topic} is {head}, not {}", stats.last_seq);
        let found = engine.look_back(bounds.oldest..bounds.next(), &Filter::one(topic), 1)?;
        ensure!(
            found.events == 0 || found.from == head,
            "the last of {topic} is {found:?}, not {head}"
        );
    }
    ensure!(
        events == 0 || last == bounds.head || may_go(bounds.head.get()),
        "topics end at {last}"
    );
    let mut expected = bounds.head;
    let mut odd = None;
    // Also those of trimmed events: a repeat of one is still a repeat.
    engine.fingerprints(Seq::FIRST, &mut |seq, _| {
        if seq != expected {
            odd.get_or_insert((seq, expected));
        }
        expected = expected.prev();
        true
    })?;
    // A damaged file of trimmed events costs nothing but what tells their repeats, and is told.
    let is_told = engine.status().trouble.is_some_and(|trouble| trouble.contains("trimmed/"));
    ensure!(is_told || odd.is_none(), "fingerprints: {odd:?}");
    ensure!(is_told || expected == Seq::ZERO, "fingerprints end at {expected}");
    Ok(())
}

/// State and deltas lead without a hole to the head.
pub fn check_recovered(recovered: &Recovered, bounds: &Bounds) -> Result<(), Wrong> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or([0xff; 8]));
    let mut next = if recovered.state.is_empty() { 1 } else { number(&recovered.state) };
    for (first, end, delta) in &recovered.deltas {
        ensure!(first.get() == next, "a delta of {first} after {next}");
        ensure!(number(delta) == next, "the delta of {first} is that of {}", number(delta));
        next = end.get();
    }
    ensure!(next == bounds.next().get(), "state and deltas end at {next} in {bounds:?}");
    Ok(())
}

/// Tells the world, in one `writev`: what the trace and the parent go by. Nothing else in the
/// child calls it, so that a failing `write` does not silence it.
pub fn tell(line: &str) {
    let line = [std::io::IoSlice::new(line.as_bytes())];
    let written = rustix::io::writev(std::io::stdout(), &line);
    written.expect("stdout");
}

/// The scripted run: commits of many sizes over several lives of the log, with rolls, seals,
/// folds, trims, space given back, clean stops and hard ones. Tells `T head oldest` before each
/// step and `A head oldest` after it. When an append fails everything is read once more: `R` if all
/// is right, `N` if it was refused, `W` if it was wrong.
pub fn script(dir: &Path, lives: u64, bytes_per_life: u64, salt: u64) -> Result<(), StoreError> {
    for life in 0..lives {
        let (engine, recovered) = open(dir)?;
        check_recovered(&recovered, &engine.bounds()).expect("recovery");
        let bounds = engine.bounds();
        tell(&format!("A {} {}\n", bounds.head, bounds.oldest));
        // Short lives leave small segments, which the next ones fold in.
        let bytes_per_life = if life % 3 == 0 { bytes_per_life } else { 90_000 };
        let mut bytes = 0;
        let mut step = life * 1000;
        while bytes < bytes_per_life {
            step += 1;
            let count = [1, 1, 3, 1, 40, 2, 1, 90, 7, 1][(step % 10) as usize];
            let next = commit(&*engine, count, salt);
            bytes += next.events.len() as u64;
            let head = next.first.plus(u64::from(count)).prev();
            tell(&format!("T {head} {}\n", next.oldest));
            if let Err(error) = append(&*engine, next) {
                tell(&match check_events(&*engine, |_| salt) {
                    Ok(_) => "R\n".to_owned(),
                    Err(Wrong::Refused(error)) => format!("N {error:?}\n"),
                    Err(Wrong::Served(what)) => format!("W {what}\n"),
                });
                return Err(error);
            }
            tell(&format!("A {head} {}\n", engine.bounds().oldest));
            if step % 37 == 36 {
                let keep = 700 + (step % 5) * 200;
                let oldest = Seq::new(head.get().saturating_sub(keep).max(1));
                if oldest > engine.bounds().oldest {
                    tell(&format!("T {head} {oldest}\n"));
                    trim(&*engine, oldest)?;
                    tell(&format!("A {head} {oldest}\n"));
                }
            }
            if step % 29 == 17
                && let Some(sealed) = engine.sealed().first().filter(|sealed| sealed.removed == 0)
            {
                // One that was trimmed meanwhile is there no more.
                take_out(&*engine, *sealed)?;
                tell(&format!("A {head} {}\n", engine.bounds().oldest));
            }
            if step % 11 == 5 {
                // A pause long enough for a mark; whatever else wakes it comes too early at worst.
                std::thread::park_timeout(Duration::from_millis(6));
            }
        }
        if life % 2 == 0 {
            engine.close()?;
            tell("C\n");
        }
        drop(engine);
    }
    Ok(())
}
