//! Questions about topics, answered by counting all events.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Memory, damage};
use crate::storage::{LookBack, StoreError, TopicPage, TopicQuery, TopicStats};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Seq, Timestamp};

impl Memory {
    /// Visits the readable events in order.
    fn each_event(&self, mut visit: impl FnMut(Seq, Timestamp, &str)) -> Result<(), StoreError> {
        let (commits, oldest) = self.snapshot();
        for run in commits {
            let mut seq = run.first;
            for event in Events::new(&run.events) {
                let topic = event.and_then(Event::topic_of).map_err(|e| damage(&run, &e))?;
                if seq >= oldest {
                    visit(seq, run.at, topic);
                }
                seq = seq.next();
            }
        }
        Ok(())
    }

    pub(super) fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError> {
        let mut topics = BTreeMap::<Box<str>, TopicStats>::new();
        self.each_event(|seq, at, topic| {
            if topic < query.from || !topic.starts_with(query.prefix) {
                return;
            }
            if !topics.contains_key(topic) && query.filter.matches(topic) {
                topics.insert(topic.into(), TopicStats::default());
            }
            if let Some(stats) = topics.get_mut(topic) {
                stats.events += 1;
                (stats.last_seq, stats.last_at) = (seq, at);
            }
        })?;
        let mut rest = topics.into_iter();
        let topics = rest.by_ref().take(query.limit.max(1)).collect();
        Ok(TopicPage { topics, next: rest.next().map(|(name, _)| name) })
    }

    pub(super) fn topic_head(&self, wanted: &str) -> Result<Seq, StoreError> {
        let mut head = Seq::ZERO;
        self.each_event(|seq, _, topic| {
            if topic == wanted {
                head = seq;
            }
        })?;
        Ok(head)
    }

    pub(super) fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError> {
        let (oldest, next) = {
            let log = self.log.lock();
            (log.oldest, log.head.next())
        };
        if range.start < oldest {
            return Err(StoreError::Trimmed { oldest });
        }
        if range.is_empty() || range.end > next || count == 0 {
            return Err(StoreError::Invalid("an empty range, or one beyond the head"));
        }
        let mut seqs = Vec::new();
        self.each_event(|seq, _, topic| {
            if range.contains(&seq) && filter.matches(topic) {
                seqs.push(seq);
            }
        })?;
        let mut found = LookBack { from: range.start, events: 0 };
        found.take(&seqs, count);
        Ok(found)
    }
}
