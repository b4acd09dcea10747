//! What clients did and saw, held against each guarantee by its name.
//!
//! A [`History`] is what uploaders were answered, what watchers were sent, and the log at the end.
//! Each guarantee has one check over it; a run is good when all are content.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use tailmark_record::topic::Filter;
use tailmark_wire::feed_v1 as pb;

/// One event as an uploader sent it. Its body begins with `label|`, which no other event has.
#[derive(Clone, Debug)]
pub struct Sent {
    pub label: String,
    pub event: pb::Event,
}

/// What an uploader was told.
#[derive(Clone, Debug)]
pub enum Outcome {
    Published {
        seq: u64,
        duplicate: bool,
    },
    Uploaded(pb::UploadResult),
    /// An error that names how many of the events are durable.
    Prefix(usize),
    /// An error that says that nothing was stored.
    Refused,
    /// Neither: the connection was cut.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub sent: Vec<Sent>,
    pub outcome: Outcome,
}

/// What a watcher heard, in order.
#[derive(Clone, Debug)]
pub enum Note {
    /// The server said that it begins, or goes on, with this seq.
    Opened(u64),
    Event(Box<pb::Event>),
    /// A gap marker: both inclusive.
    Gap {
        from: u64,
        to: u64,
        reason: pb::gap::Reason,
    },
    /// Refused or ended by `CURSOR_TRIMMED`; it goes on at `oldest`.
    Trimmed {
        oldest: u64,
        missed: u64,
    },
    /// The connection was lost.
    Cut,
}

#[derive(Clone, Debug)]
pub struct Watched {
    pub name: String,
    pub filter: Filter,
    pub notes: Vec<Note>,
    /// It stopped reading until all others were through.
    pub is_paused: bool,
    /// It was through when the paused ones were let go.
    pub is_early: bool,
}

/// A stop, or a crash, and what clients knew before it.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Highest seq that an uploader was told.
    pub acked: u64,
    /// Highest seq that a watcher was sent.
    pub seen: u64,
    /// The head afterwards.
    pub head: u64,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub requests: Vec<Request>,
    pub watches: Vec<Watched>,
    pub restarts: Vec<Restart>,
    /// All that can be read at the end.
    pub log: Vec<pb::Event>,
    pub oldest: u64,
    pub head: u64,
}

type Check = fn(&Facts<'_>) -> Result<(), String>;

/// Every guarantee with its check.
pub const GUARANTEES: [(&str, Check); 9] = [
    ("Durable", durable),
    ("Ordered", ordered),
    ("Gapless", gapless),
    ("NoRepeat", no_repeat),
    ("HonestLoss", honest_loss),
    ("Atomic", atomic),
    ("Idempotent", idempotent),
    ("Isolated", isolated),
    ("Visible-after-durable", visible_after_durable),
];

/// The names of the guarantees that do not hold, each with what is wrong.
pub fn violations(history: &History) -> Vec<(&'static str, String)> {
    let facts = Facts::new(history);
    let failed = |(name, check): &(&'static str, Check)| Some((*name, check(&facts).err()?));
    GUARANTEES.iter().filter_map(failed).collect()
}

/// A history and what follows from it.
pub struct Facts<'a> {
    history: &'a History,
    /// Every event that anyone saw, by seq.
    truth: BTreeMap<u64, &'a pb::Event>,
    /// Two different events under one seq.
    conflict: Option<String>,
    /// Where each label lies.
    places: HashMap<&'a str, Vec<u64>>,
    /// Seqs that were trimmed before anyone saw them.
    unknown: u64,
}

pub fn label_of(event: &pb::Event) -> &str {
    event.body.split('|').next().unwrap_or_default()
}

impl<'a> Facts<'a> {
    fn new(history: &'a History) -> Facts<'a> {
        let mut truth: BTreeMap<u64, &pb::Event> = BTreeMap::new();
        let mut conflict = None;
        let notes = history.watches.iter().flat_map(|watched| &watched.notes);
        let seen = notes.filter_map(|note| match note {
            Note::Event(event) => Some(&**event),
            _ => None,
        });
        for event in history.log.iter().chain(seen) {
            let first = *truth.entry(event.seq).or_insert(event);
            if first != event {
                conflict = Some(format!("seq {} was {first:?} and {event:?}", event.seq));
            }
        }
        let mut places: HashMap<&str, Vec<u64>> = HashMap::new();
        for (seq, event) in &truth {
            places.entry(label_of(event)).or_default().push(*seq);
        }
        let unknown = (1..history.oldest).filter(|seq| !truth.contains_key(seq)).count() as u64;
        Facts { history, truth, conflict, places, unknown }
    }

    fn seqs_of(&self, label: &str) -> &[u64] {
        self.places.get(label).map_or(&[], Vec::as_slice)
    }

    /// All that is known of one event, for whoever has to find out what happened.
    fn story_of(&self, label: &str) -> String {
        let History { requests, restarts, oldest, head, .. } = self.history;
        let about = |request: &&Request| request.sent.iter().any(|sent| sent.label == label);
        let outcomes: Vec<_> = requests.iter().filter(about).map(|r| &r.outcome).collect();
        let at: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Published { seq, .. } => {
                    Some((seq, self.truth.get(seq).map(|e| label_of(e))))
                }
                _ => None,
            })
            .collect();
        format!("{label}: {outcomes:?}, there lies {at:?}; {oldest} to {head}, {restarts:?}")
    }

    /// The first event that a watch with this filter should have got of this range.
    fn matching(&self, filter: &Filter, range: RangeInclusive<u64>) -> Option<u64> {
        if range.is_empty() {
            return None;
        }
        let mut events = self.truth.range(range);
        events.find(|(_, event)| filter.matches(&event.topic)).map(|(seq, _)| *seq)
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// What was acked is there, as it was sent, after every restart.
fn durable(facts: &Facts<'_>) -> Result<(), String> {
    let History { requests, restarts, oldest, head, .. } = facts.history;
    for restart in restarts {
        ensure(restart.acked <= restart.head, || format!("an ack is lost: {restart:?}"))?;
    }
    let mut missing = BTreeSet::new();
    for Request { sent, outcome } in requests {
        let acked = match outcome {
            Outcome::Published { .. } | Outcome::Uploaded(_) => sent.len(),
            Outcome::Prefix(count) => *count,
            Outcome::Refused | Outcome::Unknown => 0,
        };
        for sent in &sent[..acked] {
            let Some(seq) = facts.seqs_of(&sent.label).first() else {
                missing.insert(&sent.label);
                ensure(missing.len() as u64 <= facts.unknown, || {
                    format!("acked, not there: {}", facts.story_of(&sent.label))
                })?;
                continue;
            };
            let stored = facts.truth[seq];
            let is_same = (&stored.topic, &stored.body) == (&sent.event.topic, &sent.event.body);
            ensure(is_same, || format!("sent {sent:?}, stored {stored:?}"))?;
            ensure(sent.event.id.is_empty() || stored.id == sent.event.id, || {
                format!("sent {sent:?}, stored {stored:?}")
            })?;
        }
        if let Outcome::Published { seq, .. } = outcome {
            ensure(seq <= head, || format!("{} acked as {seq}, head {head}", sent[0].label))?;
            let found = facts.truth.get(seq).map(|event| label_of(event));
            ensure(found == Some(&sent[0].label) || (found.is_none() && seq < oldest), || {
                format!("{} acked as {seq}, where there is {found:?}", sent[0].label)
            })?;
        }
        if let Outcome::Uploaded(result) = outcome {
            ensure(result.last_seq <= *head, || format!("{result:?}, head {head}"))?;
        }
        if let Outcome::Refused = outcome {
            let found = facts.seqs_of(&sent[0].label);
            ensure(found.is_empty(), || format!("refused, yet there: {}", sent[0].label))?;
        }
    }
    Ok(())
}

/// One order for all, time included; an uploader's events keep theirs.
fn ordered(facts: &Facts<'_>) -> Result<(), String> {
    let time = |event: &pb::Event| event.appended_at.map(|at| (at.seconds, at.nanos));
    let events: Vec<_> = facts.truth.values().collect();
    for pair in events.windows(2) {
        ensure(time(pair[0]) <= time(pair[1]), || format!("time goes back: {pair:?}"))?;
    }
    for watched in &facts.history.watches {
        let mut last = 0;
        for event in events_of(watched) {
            ensure(event.seq > last, || format!("{}: {} after {last}", watched.name, event.seq))?;
            last = event.seq;
        }
    }
    for request in &facts.history.requests {
        // An event that was stored again after the first was trimmed has lost its place; where
        // something was trimmed unseen, that can't be told of one with an id.
        let is_told = |sent: &&Sent| facts.unknown == 0 || sent.event.id.is_empty();
        let told = request.sent.iter().filter(is_told).map(|sent| facts.seqs_of(&sent.label));
        let seqs: Vec<_> = told.filter(|seqs| seqs.len() == 1).map(|seqs| seqs[0]).collect();
        let bad = seqs.windows(2).find(|pair| pair[0] >= pair[1]);
        ensure(bad.is_none(), || format!("one upload's events are reordered: {bad:?}"))?;
    }
    Ok(())
}

fn events_of(watched: &Watched) -> impl Iterator<Item = &pb::Event> {
    watched.notes.iter().filter_map(|note| match note {
        Note::Event(event) => Some(&**event),
        _ => None,
    })
}

/// From its start to the head every event that matches, or a gap that says which are gone; seqs
/// without a hole, and under each the same event for everyone.
fn gapless(facts: &Facts<'_>) -> Result<(), String> {
    if let Some(conflict) = &facts.conflict {
        return Err(conflict.clone());
    }
    let History { oldest, head, watches, log, .. } = facts.history;
    for (event, seq) in log.iter().zip(*oldest..) {
        ensure(event.seq == seq, || format!("the log has {} where {seq} belongs", event.seq))?;
    }
    let count = log.len() as u64;
    ensure(oldest + count == head + 1, || format!("{oldest} to {head} are {count} events"))?;
    for watched in watches {
        walk(facts, watched).map_err(|why| format!("{}: {why}", watched.name))?;
    }
    Ok(())
}

fn walk(facts: &Facts<'_>, watched: &Watched) -> Result<(), String> {
    let mut next = None;
    for note in &watched.notes {
        // What the note begins with, and what is next after it.
        let (from, then) = match note {
            Note::Cut => continue,
            Note::Opened(seq) => (*seq, *seq),
            Note::Event(event) => (event.seq, event.seq + 1),
            Note::Gap { from, to, .. } => (*from, to + 1),
            Note::Trimmed { oldest, missed } => (oldest - missed, *oldest),
        };
        let next = next.replace(then).unwrap_or(from);
        ensure(from >= next, || format!("{note:?} goes back before {next}"))?;
        let is_exact = from == next || !watched.filter.is_all();
        ensure(is_exact, || format!("{note:?} where {next} was due"))?;
        let missed = facts.matching(&watched.filter, next..=from.saturating_sub(1));
        ensure(missed.is_none(), || format!("{missed:?} is missed before {note:?}"))?;
        if let Note::Event(event) = note {
            let matches = watched.filter.matches(&event.topic);
            ensure(matches, || format!("{event:?} was not asked for"))?;
        }
    }
    let head = facts.history.head;
    let next = next.unwrap_or(0);
    ensure(next == head + 1, || format!("it ended before {next}, the head is {head}"))
}

/// Nobody is sent an event twice, reconnecting or not.
fn no_repeat(facts: &Facts<'_>) -> Result<(), String> {
    for watched in &facts.history.watches {
        let mut seen = BTreeSet::new();
        for event in events_of(watched) {
            let is_new = seen.insert(event.seq);
            ensure(is_new, || format!("{}: {} twice", watched.name, event.seq))?;
        }
    }
    Ok(())
}

/// What is said to be gone is gone, and only by a trim or retention.
fn honest_loss(facts: &Facts<'_>) -> Result<(), String> {
    let last_oldest = facts.history.oldest;
    for watched in &facts.history.watches {
        for note in &watched.notes {
            let is_honest = match note {
                Note::Gap { from, to, reason } => {
                    *reason == pb::gap::Reason::Trimmed && from <= to && *to < last_oldest
                }
                Note::Trimmed { oldest, missed } => {
                    *missed > 0 && missed < oldest && *oldest <= last_oldest
                }
                _ => true,
            };
            ensure(is_honest, || format!("{}: {note:?}, oldest {last_oldest}", watched.name))?;
        }
    }
    Ok(())
}

/// A batch is whole or absent. No call promises it yet: `UploadEvents` is not atomic, and one
/// event cannot be half there. To be filled in with `Append`.
fn atomic(_: &Facts<'_>) -> Result<(), String> {
    Ok(())
}

/// An event with an id is stored once however often it is sent, and every answer names that one;
/// nothing is stored that nobody sent, or more often than it was sent.
fn idempotent(facts: &Facts<'_>) -> Result<(), String> {
    let mut sent_labels: HashMap<&str, &Sent> = HashMap::new();
    for request in &facts.history.requests {
        for sent in &request.sent {
            sent_labels.insert(&sent.label, sent);
        }
        match &request.outcome {
            Outcome::Published { seq, duplicate: true } => {
                let seqs = facts.seqs_of(&request.sent[0].label);
                let is_told = seqs.is_empty() || seqs.contains(seq);
                ensure(is_told, || format!("a duplicate of {seqs:?}, answered as {seq}"))?;
            }
            Outcome::Uploaded(result) => {
                let count = request.sent.len() as u64;
                let is_sum =
                    result.received as u64 == count && result.stored + result.duplicates == count;
                ensure(is_sum, || format!("{count} events sent: {result:?}"))?;
            }
            _ => {}
        }
    }
    for (label, seqs) in &facts.places {
        let sent = sent_labels.get(label).ok_or_else(|| format!("nobody sent {label}"))?;
        // What is trimmed is known no longer after a restart.
        let readable = seqs.iter().filter(|seq| **seq >= facts.history.oldest).count();
        let copies = if sent.event.id.is_empty() { seqs.len() } else { readable };
        ensure(copies <= 1, || format!("{label} is stored as {seqs:?}"))?;
    }
    Ok(())
}

/// Those who read nothing hold nobody up.
fn isolated(facts: &Facts<'_>) -> Result<(), String> {
    for watched in &facts.history.watches {
        let is_free = watched.is_paused || watched.is_early;
        ensure(is_free, || format!("{} waited for one that was paused", watched.name))?;
    }
    Ok(())
}

/// Nobody was sent what a restart took back.
fn visible_after_durable(facts: &Facts<'_>) -> Result<(), String> {
    let History { restarts, watches, oldest, head, .. } = facts.history;
    for restart in restarts {
        ensure(restart.seen <= restart.head, || format!("seen and undone: {restart:?}"))?;
    }
    let last = facts.truth.keys().next_back().copied().unwrap_or(0);
    ensure(last <= *head, || format!("{last} was seen, the head is {head}"))?;
    let log: BTreeMap<_, _> = facts.history.log.iter().map(|event| (event.seq, event)).collect();
    for seen in watches.iter().flat_map(events_of).filter(|event| event.seq >= *oldest) {
        let stored = log.get(&seen.seq).copied();
        ensure(stored == Some(seen), || format!("{seen:?} was seen, and it is {stored:?}"))?;
    }
    Ok(())
}
