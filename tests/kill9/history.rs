//! What the clients were told, and what the log says after each restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use futures_core::Stream;
use tailmark_client::{Client, Item, OnLost, WatchOptions};
use tailmark_record::{Gap, GapReason, Marker, Timestamp};

use crate::crash::workload::body_of;
use crate::limits::{Limit, Sample};
use crate::rules::Allowed;

/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// An event that a client was told of.
#[derive(Clone, Debug)]
pub struct Known {
    pub id: String,
    /// Not every ack says it.
    pub appended_at: Option<Timestamp>,
}

impl Known {
    fn is(&self, other: &Known) -> bool {
        let times = self.appended_at.zip(other.appended_at);
        self.id == other.id && times.is_none_or(|(a, b)| a == b)
    }
}

/// What clients were told between two restarts.
#[derive(Default)]
pub struct Told {
    pub acks: Vec<(u64, Known)>,
    /// Seen by a live watch, in order.
    pub seen: Vec<(u64, Known)>,
    /// Gaps in what it saw.
    pub gaps: Vec<Gap>,
    /// The highest trim mark that was asked for, and the highest that was confirmed.
    pub trims: (u64, u64),
    /// How far the log was trimmed, by and by.
    pub samples: Vec<Sample>,
}

/// Everything that clients know.
#[derive(Default)]
pub struct History {
    /// Events of the log as verified so far, by seq from 1; `None` where one was removed before.
    events: Vec<Option<Known>>,
    places: HashMap<String, u64>,
    cursor: Option<String>,
    /// Since the last restart.
    told: Told,
    /// Of the present daemon.
    limit: Option<Limit>,
    /// Of all daemons since the last look at how far the log is trimmed.
    limits: BTreeSet<Option<Limit>>,
    /// Of the present daemon: whether it has rules for topics.
    rules: bool,
    /// Some daemon since the last look had them.
    has_rules: bool,
    /// Readable seqs that rules have taken out: nobody sees them again.
    gone: BTreeSet<u64>,
    taken_out: u64,
    /// How far the log was trimmed when last looked at.
    oldest: u64,
    /// Events that limits removed, by the first limit that allows it.
    removed: BTreeMap<Limit, u64>,
    /// Last event that was removed before it was verified.
    last_gone: u64,
    /// Events removed before they were verified that may be what a stream misses.
    hidden: u64,
    /// Per stream of an upload: how many of its events are in the log, in order.
    streams: BTreeMap<String, u64>,
    /// The highest trim mark that was asked for, and the highest that was confirmed.
    trims: (u64, u64),
    total_acked: u64,
    total_seen: u64,
    unacked_kept: u64,
    removed_unseen: u64,
    restarts: u64,
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events, {} of them acked, {} not (their ack was cut); {} seen live; {} restarts \
             verified, the oldest is {}; removed by limits {:?}, {} of them before they were \
             compared; {} taken out by rules; 0 lost, 0 reordered, 0 repeated",
            self.events.len(),
            self.total_acked,
            self.unacked_kept,
            self.total_seen,
            self.restarts,
            self.oldest,
            self.removed,
            self.removed_unseen,
            self.taken_out
        )
    }
}

impl History {
    pub fn acked(&self) -> u64 {
        self.total_acked
    }

    pub fn cursor(&self) -> Option<String> {
        self.cursor.clone()
    }

    /// The next seq that is not verified.
    pub fn next(&self) -> u64 {
        self.events.len() as u64 + 1
    }

    pub fn removed_by(&self, limit: Limit) -> u64 {
        self.removed.get(&limit).copied().unwrap_or(0)
    }

    pub fn taken_out(&self) -> u64 {
        self.taken_out
    }

    /// A daemon that removes by itself what is beyond this, and perhaps has rules for topics.
    pub fn is_limited_by(&mut self, limit: Option<Limit>, has_rules: bool) {
        self.limit = limit;
        self.limits.insert(limit);
        self.rules = has_rules;
        self.has_rules |= has_rules;
    }

    /// What was told until a kill.
    pub fn add(&mut self, told: Told) {
        self.trims = (self.trims.0.max(told.trims.0), self.trims.1.max(told.trims.1));
        self.told = told;
    }

    /// Reads on from the last verified cursor, and compares.
    pub async fn verify(&mut self, address: &str, data: &Path) {
        let client = Client::new(address).expect("a client");
        let mut samples = std::mem::take(&mut self.told.samples);
        samples.push(sample(&client, data).await.expect("the log's status"));
        let options = watch_options(self.cursor(), true);
        let mut watch = client.watch(options);
        let before = self.events.len();
        self.hidden = 0;
        loop {
            let next = tokio::time::timeout(PATIENCE, next(&mut watch)).await;
            match next.expect("a watch after a restart takes too long") {
                Some(Ok(Item::Event(received))) => self.take(&received),
                Some(Ok(Item::Marker(marker))) => self.pass(&marker),
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(error)) => panic!(
                    "the watch after {:?} (seq {}) does not go on: {error:?}",
                    self.cursor,
                    self.events.len()
                ),
                None => break,
            }
        }
        let fresh = self.events[before..].iter().flatten().count() as u64;
        let Told { acks, seen, gaps, .. } = std::mem::take(&mut self.told);
        for (what, told) in [("acked", &acks), ("seen live", &seen)] {
            for (seq, known) in told {
                let head = self.events.len();
                let found = self.events.get_mut((*seq - 1) as usize);
                match found.unwrap_or_else(|| panic!("{what} as {seq}, head {head}")) {
                    Some(found) => {
                        assert!(found.is(known), "{what} as {seq}: {known:?}, not {found:?}");
                    }
                    // Removed before it could be compared: whether it may be is told below.
                    removed => *removed = Some(known.clone()),
                }
            }
        }
        samples.push(sample(&client, data).await.expect("the log's status"));
        samples.iter().for_each(|sample| self.check_oldest(sample));
        let (trimmed, taken_out): (Vec<Gap>, Vec<Gap>) =
            gaps.into_iter().partition(|gap| gap.reason == GapReason::Trimmed);
        let last_gap =
            trimmed.iter().map(|gap| gap.to.get()).max().unwrap_or(0).max(self.last_gone);
        assert!(last_gap < self.oldest, "a gap up to {last_gap}, oldest {}", self.oldest);
        self.look_back(&client).await;
        // What a live watch was told to be gone is gone.
        let told = taken_out.iter().flat_map(|gap| gap.from.get()..=gap.to.get());
        for seq in told.filter(|seq| *seq >= self.oldest) {
            assert!(self.gone.contains(&seq), "{seq} was told to be gone");
        }
        // The daemon goes on with its own.
        self.limits = BTreeSet::from([self.limit]);
        self.has_rules = self.rules;
        let acked = acks.len() as u64;
        self.total_acked += acked;
        self.total_seen += seen.len() as u64;
        self.unacked_kept += fresh.saturating_sub(acked);
        self.restarts += 1;
    }

    /// Reads all again: what rules have taken out is what they may, and stays away; all else is as it was.
    async fn look_back(&mut self, client: &Client) {
        let mut watch = client.watch(watch_options(None, true));
        let mut next_seq = 1;
        // Trims go on beside it.
        let first = self.oldest;
        let allowed = Allowed::of(&self.events[first as usize - 1..]);
        loop {
            let item = tokio::time::timeout(PATIENCE, next(&mut watch)).await;
            match item.expect("a watch of everything takes too long") {
                Some(Ok(Item::Event(received))) => {
                    let seq = received.seq().get();
                    assert_eq!(seq, next_seq, "a watch of everything is not contiguous");
                    assert!(!self.gone.contains(&seq), "{seq} is there again");
                    let known = self.events[seq as usize - 1].as_ref();
                    let found = known_of(&received.event().expect("an event"));
                    assert!(
                        known.is_some_and(|known| known.is(&found)),
                        "{seq}: {found:?}, not {known:?}"
                    );
                    next_seq += 1;
                }
                Some(Ok(Item::Marker(marker))) => {
                    let Some(gap) = marker.gap else { continue };
                    assert_eq!(gap.from.get(), next_seq, "{marker:?}");
                    next_seq = gap.to.get() + 1;
                    if gap.reason == GapReason::Trimmed {
                        continue;
                    }
                    for seq in (gap.from.get()..next_seq).filter(|seq| *seq >= first) {
                        let at = (seq - first) as usize;
                        let known = self.events[seq as usize - 1].as_ref();
                        let is_allowed = known.is_none_or(|known| allowed.is_gone(at, known));
                        assert!(is_allowed, "no rule takes {seq} out: {known:?}");
                        if self.gone.insert(seq) {
                            assert!(self.has_rules, "{seq} is gone, and there was no rule");
                            self.taken_out += 1;
                        }
                    }
                }
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(error)) => panic!("a watch of everything does not go on: {error:?}"),
                None => break,
            }
        }
        assert_eq!(next_seq, self.next(), "a watch of everything ends early");
        self.gone = self.gone.split_off(&first);
    }

    /// The oldest never goes back, never stays behind a trim that was confirmed, and is not beyond
    /// what clients asked for or what a limit allows.
    fn check_oldest(&mut self, sample: &Sample) {
        let Sample { oldest, .. } = *sample;
        let known = self.oldest.max(1);
        assert!(oldest >= known, "{oldest} is the oldest, {known} was before");
        let asked = self.trims.0.max(known);
        if oldest > asked {
            let gone = &self.events[..(oldest as usize - 1).min(self.events.len())];
            let newest = gone.iter().rev().flatten().find_map(|known| known.appended_at);
            let mut limits = self.limits.iter().flatten();
            let by = limits.find(|limit| limit.allows(sample, newest)).unwrap_or_else(|| {
                panic!(
                    "{oldest} is the oldest, up to {asked} was asked for; {:?} do not allow it: \
                     {sample:?}, the newest known before it is of {newest:?}",
                    self.limits
                )
            });
            *self.removed.entry(*by).or_default() += oldest - asked;
        }
        self.oldest = oldest;
    }

    /// What is gone before it was verified.
    fn pass(&mut self, marker: &Marker) {
        let Some(gap) = marker.gap else { return };
        let is_taken_out = matches!(gap.reason, GapReason::Expired | GapReason::Compacted);
        let is_allowed = gap.reason == GapReason::Trimmed || is_taken_out && self.has_rules;
        assert!(gap.from.get() == self.next() && is_allowed, "{marker:?}");
        let count = gap.to.get() - gap.from.get() + 1;
        self.events.extend((0..count).map(|_| None));
        self.hidden += count;
        self.removed_unseen += count;
        if !is_taken_out {
            self.last_gone = gap.to.get();
        }
        self.cursor = Some(marker.cursor.clone());
    }

    fn take(&mut self, received: &tailmark_client::Received) {
        let seq = received.seq().get();
        assert_eq!(seq, self.next(), "the watch does not go on where it was");
        let event = received.event().expect("an event");
        let id = event.id.to_owned();
        assert_eq!(event.body, body_of(number_of(&id), 9), "{id} has another body");
        // Ids are STREAM-NUMBER; the events of one stream keep their order, without a hole.
        let (stream, n) = id.rsplit_once('-').expect("an id of ours");
        let n: u64 = n.parse().expect("a number");
        let is_stream = stream.starts_with('u');
        let had = self.streams.entry(stream.to_owned()).or_default();
        if is_stream {
            let missing = n.checked_sub(*had);
            let missing = missing.unwrap_or_else(|| panic!("{stream} is reordered at {n}"));
            let rest = self.hidden.checked_sub(missing);
            self.hidden = rest.unwrap_or_else(|| panic!("{stream} has a hole before {n}"));
            *had = n;
        }
        *had += 1;
        if let Some(place) = self.places.insert(id.clone(), seq) {
            panic!("{id} is there twice: {place} and {seq}");
        }
        self.cursor = Some(received.cursor().to_owned());
        self.events.push(Some(known_of(&event)));
    }
}

pub fn known_of(event: &tailmark_record::Event<'_>) -> Known {
    assert!(event.appended_at.is_some(), "no time of the append: {event:?}");
    Known { id: event.id.to_owned(), appended_at: event.appended_at }
}

/// How far a log is trimmed now, unless its daemon is gone.
pub async fn sample(client: &Client, data: &Path) -> Option<Sample> {
    let log = client.log().await.ok()?;
    Some(Sample::new((log.oldest_seq, log.head_seq), data))
}

/// What the body of an event is made from.
pub fn number_of(id: &str) -> u64 {
    id.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(131).wrapping_add(byte.into()))
}

pub fn watch_options(after_cursor: Option<String>, until_caught_up: bool) -> WatchOptions {
    let mut options = WatchOptions::default();
    options.after_cursor = Some(after_cursor.unwrap_or_else(|| "0".to_owned()));
    options.on_lost = OnLost::Oldest;
    options.markers = true;
    options.until_caught_up = until_caught_up;
    options
}

pub async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *stream).poll_next(cx)).await
}
