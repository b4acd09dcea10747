//! Which events an erasure is about.
//!
//! They are looked for as a reader reads: in bounded steps, on the reader threads, in turn with everybody
//! else. What is kept of them is runs of neighbours, at most [`MAX_RUNS`], and a hundred topics.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::server::Shared;
use crate::server::rpc::convert;
use crate::server::rpc::status::{self, Failure};
use crate::server::{read, report};
use tailmark_log::eventlog::{EventLog, ReadError};
use tailmark_log::storage::Chunk;
use tailmark_record::topic::{Filter, Pattern};
use tailmark_record::{Erased, Event, Events, Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

/// Most ranges of seqs in a request.
const MAX_RANGES: usize = 4_000;
/// Most runs of neighbours that are kept: 32 MiB.
pub(super) const MAX_RUNS: usize = 1 << 21;
/// Topics that are named in an answer.
const NAMED_TOPICS: usize = 100;

/// What was asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Where to look, in order, without an overlap, at or below the head.
    ranges: Vec<Range<Seq>>,
    /// What was looked up to, inclusive.
    up_to: Seq,
    filter: Filter,
    /// `None`: any, or none.
    key: Option<String>,
    /// Whatever these seqs are.
    is_by_seq: bool,
    before: Option<Timestamp>,
}

impl Wanted {
    pub(super) fn of(shared: &Shared, request: &pb::EraseRequest) -> Result<Wanted, Failure> {
        let most = Erased::MAX_REASON_BYTES;
        match request.reason.len() {
            0 if !request.dry_run => return Err(status::bad_field("reason", "say why")),
            actual if actual > most => return Err(status::over_limit("reason", most, actual)),
            _ => {}
        }
        let head = shared.log.bounds().head;
        match (request.seqs.is_empty(), request.topic.is_empty()) {
            (true, true) => Err(status::bad_field("seqs", "name seqs, or a topic")),
            (false, false) => Err(status::bad_field("topic", "goes without seqs")),
            (false, true) => Wanted::by_seq(request, head),
            (true, false) => Wanted::by_topic(shared, request, head),
        }
    }

    fn by_seq(request: &pb::EraseRequest, head: Seq) -> Result<Wanted, Failure> {
        for (name, is_set) in [
            ("key", request.key.is_some()),
            ("before", request.before.is_some()),
            ("up_to_seq", request.up_to_seq != 0),
        ] {
            if is_set {
                return Err(status::bad_field(name, "goes with a topic"));
            }
        }
        if request.seqs.len() > MAX_RANGES {
            return Err(status::over_limit("seqs", MAX_RANGES, request.seqs.len()));
        }
        let mut ranges = Vec::with_capacity(request.seqs.len());
        for (at, range) in request.seqs.iter().enumerate() {
            let (first, last) = (Seq::new(range.first_seq), Seq::new(range.last_seq));
            let refused = |why| Err(status::bad_field(&format!("seqs[{at}]"), why));
            match () {
                () if first == Seq::ZERO => return refused("the first event has seq 1"),
                () if last < first => return refused("ends before it begins"),
                () if last > head => {
                    return refused("lies beyond the head")
                        .map_err(|it: Failure| it.with("head", head));
                }
                () => ranges.push(first..last.next()),
            }
        }
        let (filter, key) = (Filter::ALL, None);
        let ranges = joined(ranges);
        Ok(Wanted { ranges, up_to: head, filter, key, is_by_seq: true, before: None })
    }

    fn by_topic(shared: &Shared, request: &pb::EraseRequest, head: Seq) -> Result<Wanted, Failure> {
        let limits = shared.log.limits();
        let pattern = Pattern::parse(&request.topic, limits)
            .map_err(|problem| status::bad_pattern("topic", &request.topic, &problem))?;
        match request.key.as_deref() {
            // A script whose variable is not set must not erase all of a topic.
            Some("") => {
                let problem = "is empty; leave it out for events with any key, or none";
                return Err(status::bad_field("key", problem));
            }
            Some(key) if key.len() > limits.name_bytes => {
                return Err(status::over_limit("key", limits.name_bytes, key.len()));
            }
            _ => {}
        }
        let up_to = match Seq::new(request.up_to_seq) {
            Seq::ZERO => head,
            seq if seq > head => {
                return Err(
                    status::bad_field("up_to_seq", "lies beyond the head").with("head", head)
                );
            }
            seq => seq,
        };
        let before = request.before.map(convert::from_timestamp);
        if before.is_some_and(|time| !time.is_valid()) {
            let problem = "outside the years 1 to 9999, or nanos out of range";
            return Err(status::bad_field("before", problem));
        }
        Ok(Wanted {
            ranges: vec![shared.log.bounds().oldest..up_to.next()],
            up_to,
            filter: Filter::new(vec![pattern]),
            key: request.key.clone(),
            is_by_seq: false,
            before,
        })
    }

    /// Finds them. `progress` hears how many seqs were looked at, of how many.
    pub(super) async fn find(
        mut self,
        shared: &Shared,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Found, Failure> {
        if let Some(time) = self.before {
            let end = shared.log.seek_time(time).await;
            let end = match end {
                Ok(seq) => seq,
                Err(error) => return Err(read::failure(shared, &error).await),
            };
            for range in &mut self.ranges {
                range.end = range.end.min(end);
            }
        }
        match self.look(&shared.log, progress).await {
            Ok(found) => Ok(found),
            Err(Stopped::Read(error)) => Err(read::failure(shared, &error).await),
            Err(Stopped::TooManyRuns) => {
                Err(status::over_limit("erase_runs", MAX_RUNS, MAX_RUNS + 1))
            }
            Err(Stopped::NoEvent(what)) => {
                report::defect(what);
                Err(status::internal())
            }
        }
    }

    async fn look(
        &self,
        log: &EventLog,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Found, Stopped> {
        let all = self.ranges.iter().map(|range| range.start.distance_to(range.end)).sum();
        let mut found = Found { up_to: self.up_to, ..Found::default() };
        let first = self.ranges.first().map_or(Seq::FIRST, |range| range.start);
        let mut reader = log.reader(first, self.filter.clone());
        let mut looked = 0;
        for range in &self.ranges {
            reader.jump(range.start);
            // Where something is gone behind the position, what lies before it is read first.
            let mut end = range.end;
            while reader.position() < range.end {
                let from = reader.position();
                if end <= from {
                    end = range.end;
                }
                match reader.next(end).await {
                    Ok(delivery) => found.take(self, &delivery.chunk)?,
                    Err(ReadError::Removed(gone)) if gone.first > from && gone.first < end => {
                        end = gone.first;
                    }
                    Err(error) => {
                        let is_trimmed = matches!(error, ReadError::Trimmed { .. });
                        let to = past(&error, from).ok_or(Stopped::Read(error))?.min(range.end);
                        if self.is_by_seq {
                            let count = from.distance_to(to);
                            match is_trimmed {
                                true => found.trimmed += count,
                                false => found.removed += count,
                            }
                            // Nobody can read it, but it may be on disk for a while.
                            found.gone.push(from..to);
                        }
                        reader.jump(to);
                    }
                }
                looked += from.distance_to(reader.position());
                progress(looked, all);
            }
        }
        Ok(found)
    }

    /// Whether an event of the topics is one of those that were asked for.
    fn is(&self, event: &Event<'_>) -> bool {
        self.is_by_seq
            || self.key.as_ref().is_none_or(|key| key == event.key)
                && self.filter.matches(event.topic)
    }

    /// Whether one of those stays all the same. A sender can make an event that looks like a notice: so they are counted.
    fn leaves(&self, event: &Event<'_>) -> bool {
        !self.is_by_seq && event.is_notice()
    }
}

/// Where what is gone ends, if it is gone in good order.
fn past(error: &ReadError, from: Seq) -> Option<Seq> {
    let to = match error {
        ReadError::Trimmed { oldest, .. } => *oldest,
        ReadError::Removed(gone) => gone.end,
        _ => return None,
    };
    (to > from).then_some(to)
}

/// In order, and each but once.
fn joined(mut ranges: Vec<Range<Seq>>) -> Vec<Range<Seq>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut all: Vec<Range<Seq>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match all.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => all.push(range),
        }
    }
    all
}

/// Why looking ended before its end.
enum Stopped {
    Read(ReadError),
    TooManyRuns,
    NoEvent(&'static str),
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In order, neighbours together.
    runs: Vec<Range<Seq>>,
    /// Named, and gone for readers.
    gone: Vec<Range<Seq>>,
    pub(super) events: u64,
    /// Of the seqs that were named: erased before, trimmed, and gone out of the middle.
    pub(super) already: u64,
    pub(super) trimmed: u64,
    pub(super) removed: u64,
    /// Of the topics, what tells of erasures or seems to.
    pub(super) left_notices: u64,
    /// Those that come first by name.
    topics: BTreeMap<Box<str>, u64>,
    has_more_topics: bool,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    up_to: Seq,
}

impl Found {
    fn take(&mut self, wanted: &Wanted, chunk: &Chunk) -> Result<(), Stopped> {
        for event in Events::new(&chunk.events) {
            let event =
                event.and_then(Event::parse).map_err(|error| Stopped::NoEvent(error.what()))?;
            if event.is_erased() {
                self.already += u64::from(wanted.is_by_seq);
            } else if wanted.is(&event) && wanted.leaves(&event) {
                self.left_notices += 1;
            } else if wanted.is(&event) {
                self.add(&event)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, event: &Event<'_>) -> Result<(), Stopped> {
        let is_full = self.runs.len() >= MAX_RUNS;
        match self.runs.last_mut() {
            Some(last) if last.end == event.seq => last.end = event.seq.next(),
            _ if is_full => return Err(Stopped::TooManyRuns),
            _ => self.runs.push(event.seq..event.seq.next()),
        }
        self.events += 1;
        self.first_at = self.first_at.or(event.appended_at);
        self.last_at = event.appended_at;
        match self.topics.get_mut(event.topic) {
            Some(count) => *count += 1,
            None => self.add_topic(event.topic),
        }
        Ok(())
    }

    /// A name that had to leave room once comes after all that are kept, for good: no count is of a part.
    fn add_topic(&mut self, topic: &str) {
        self.topics.insert(topic.into(), 1);
        if self.topics.len() > NAMED_TOPICS {
            self.topics.pop_last();
            self.has_more_topics = true;
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.gone.is_empty()
    }

    /// All that is to be erased, in order.
    pub(super) fn into_seqs(mut self) -> Vec<Range<Seq>> {
        if self.gone.is_empty() {
            return self.runs;
        }
        self.runs.append(&mut self.gone);
        joined(self.runs)
    }

    pub(super) fn summary(&self) -> pb::EraseSelection {
        let seq = |seq: Option<Seq>| seq.unwrap_or_default().get();
        pb::EraseSelection {
            events: self.events,
            first_seq: seq(self.runs.first().map(|run| run.start)),
            last_seq: seq(self.runs.last().map(|run| run.end.prev())),
            first_at: self.first_at.map(convert::timestamp),
            last_at: self.last_at.map(convert::timestamp),
            topics: self
                .topics
                .iter()
                .map(|(topic, events)| pb::TopicCount { topic: topic.to_string(), events: *events })
                .collect(),
            has_more_topics: self.has_more_topics,
            already: self.already,
            trimmed: self.trimmed,
            removed: self.removed,
            left_notices: self.left_notices,
            up_to_seq: self.up_to.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u64, end: u64) -> Range<Seq> {
        Seq::new(from)..Seq::new(end)
    }

    #[test]
    fn ranges_are_joined_where_they_meet() {
        let all = vec![range(9, 10), range(1, 3), range(2, 5), range(5, 6), range(2, 3)];
        assert_eq!(joined(all), [range(1, 6), range(9, 10)]);
        assert!(joined(Vec::new()).is_empty());
    }

    #[test]
    fn topics_of_a_summary_are_the_first_by_name_with_their_whole_counts() {
        let mut found = Found::default();
        // Backwards, so that each new one drives out the last.
        let names: Vec<String> = (0..250).rev().map(|at| format!("t{at:03}")).collect();
        for seq in 1..=500_u64 {
            let topic = names[usize::try_from((seq - 1) / 2).unwrap()].as_str();
            let event = Event { topic, seq: Seq::new(2 * seq), ..Event::default() };
            assert!(found.add(&event).is_ok());
        }
        let summary = found.summary();
        assert!(summary.has_more_topics);
        assert_eq!((summary.events, summary.first_seq, summary.last_seq), (500, 2, 1_000));
        assert_eq!(found.runs.len(), 500);
        let named: Vec<_> =
            summary.topics.iter().map(|it| (it.topic.as_str(), it.events)).collect();
        let expected: Vec<_> = names.iter().rev().take(100).map(|it| (it.as_str(), 2)).collect();
        assert_eq!(named, expected);
    }

    #[test]
    fn neighbours_are_one_run() {
        let mut found = Found::default();
        for seq in [3, 4, 5, 9] {
            let event = Event { topic: "a", seq: Seq::new(seq), ..Event::default() };
            assert!(found.add(&event).is_ok());
        }
        assert_eq!(found.runs, [range(3, 6), range(9, 10)]);
    }
}
