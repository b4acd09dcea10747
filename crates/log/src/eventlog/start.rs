//! Where a reader begins.

use std::sync::Arc;

use super::core::Core;
use super::{ReadError, reader};
use crate::storage::{Engine, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, Events, Seq, Timestamp};

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// First readable event.
    Oldest,
    /// After the head.
    Latest,
    /// This seq, inclusive; 0 is taken for 1.
    Seq(Seq),
    /// First event appended at or after; before the oldest = oldest, after the head = latest.
    Time(Timestamp),
    /// The newest N matching events.
    Last(u64),
}

/// Seqs that one step of a backward search looks at: at first, and at most.
const FIRST_STEP: u64 = 1 << 10;
const LARGEST_STEP: u64 = 1 << 16;

impl Core {
    /// The seq a reader from `start` begins with.
    pub async fn start(&self, start: Start, filter: &Filter) -> Result<Seq, ReadError> {
        let now = *self.published.borrow();
        match start {
            Start::Oldest => Ok(now.oldest),
            Start::Latest => Ok(now.head.next()),
            Start::Seq(seq) => {
                let from = seq.max(Seq::FIRST);
                if from < now.oldest {
                    return Err(ReadError::Trimmed { from, oldest: now.oldest });
                }
                Ok(from)
            }
            Start::Time(time) => self.seek_time(time).await,
            Start::Last(0) => Ok(now.head.next()),
            Start::Last(count) if filter.is_all() => {
                let end = now.head.next().get();
                Ok(Seq::new(end.saturating_sub(count)).max(now.oldest))
            }
            Start::Last(count) => {
                self.last_matching(count, now.oldest, now.head, Arc::new(filter.clone())).await
            }
        }
    }

    /// The first seq appended at or after `time`, as published.
    pub async fn seek_time(&self, time: Timestamp) -> Result<Seq, ReadError> {
        let seq = self.cold.ask(Seq::ZERO, move |engine| engine.seek_time(time)).await?;
        // The engine's head is published a moment after it is durable.
        let mut published = self.published.subscribe();
        let wait = published.wait_for(|now| now.head.next() >= seq || now.is_closed);
        wait.await.map_err(|_| ReadError::Closing)?;
        Ok(seq)
    }

    /// Searches backward in steps that grow, each a request of its own to the reader threads.
    async fn last_matching(
        &self,
        count: u64,
        oldest: Seq,
        head: Seq,
        filter: Arc<Filter>,
    ) -> Result<Seq, ReadError> {
        let topics = self.cold.ask(oldest, Engine::topics).await?;
        let matching = topics.iter().filter(|(topic, _)| filter.matches(topic));
        let (total, last) = matching.fold((0, Seq::ZERO), |(total, last), (_, stats)| {
            (total + stats.events, last.max(stats.last_seq))
        });
        if total == 0 {
            return Ok(head.next());
        }
        let mut missing = count;
        let mut end = last.min(head).next();
        let mut step = FIRST_STEP;
        while end > oldest {
            let from = Seq::new(end.get().saturating_sub(step)).max(oldest);
            let filter = filter.clone();
            let found =
                self.cold.ask(from, move |engine| matches(engine, from, end, &filter)).await;
            let found = match found {
                Ok(found) => found,
                // Trimmed meanwhile: fewer are left than were wanted, so all of them.
                Err(ReadError::Trimmed { oldest, .. }) => return Ok(oldest),
                Err(error) => return Err(error),
            };
            match (found.len() as u64).checked_sub(missing) {
                Some(before) => {
                    let at = usize::try_from(before).unwrap_or(usize::MAX);
                    return Ok(found.get(at).copied().unwrap_or(end));
                }
                None => missing -= found.len() as u64,
            }
            end = from;
            step = (step * 2).min(LARGEST_STEP);
        }
        Ok(oldest)
    }
}

/// The seqs in `from..end` that match.
fn matches(
    engine: &dyn Engine,
    from: Seq,
    end: Seq,
    filter: &Filter,
) -> Result<Vec<Seq>, StoreError> {
    let mut found = Vec::new();
    let mut next = from;
    while next < end {
        let chunk = engine.read(next, end, filter)?;
        if chunk.first != next || chunk.end <= next {
            return Err(reader::damage(next, end, "a read that is not contiguous").into());
        }
        for event in Events::new(&chunk.events) {
            let seq = event.and_then(|event| {
                let is_match = filter.matches(Event::topic_of(event)?);
                Ok(if is_match { Some(Event::seq_of(event)?) } else { None })
            });
            let seq = seq.map_err(|error| reader::damage(next, chunk.end, error.what()))?;
            found.extend(seq);
        }
        next = chunk.end;
    }
    Ok(found)
}
