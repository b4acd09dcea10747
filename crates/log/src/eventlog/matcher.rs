//! The thread that asks the index of each commit.
//!
//! Neither on the writer's path between the disk and the answer, nor on any thread that serves.

use std::time::Instant;

use super::interest::{Interest, Waking};
use super::read_path::ReadPath;
use super::recent::Held;
use super::topic_index;
use tailmark_record::{Event, EventError, Seq};

/// Topics of a commit that are read at once.
const TOPICS_AT_ONCE: usize = 256;

/// Works until the log is closed.
pub(super) fn run(log: &ReadPath) {
    let interest = &log.interest;
    // Also when this thread panics: who sleeps then waits for the head.
    let _guard = Close(interest);
    while interest.wait() {
        let head = log.published.borrow().head;
        // Looked at after the head: who registers now reads up to that by itself.
        if interest.len() > 0 {
            match_upto(log, head);
            interest.report(head, Instant::now());
        }
        interest.examined(head);
    }
}

/// Matches what was published since the last time.
fn match_upto(log: &ReadPath, head: Seq) {
    let interest = &log.interest;
    let mut next = interest.examined_upto().next();
    while next <= head {
        let mut woken = Waking::default();
        let last = match log.hot.recent.held(next) {
            Some(commit) => {
                let last = commit.end.prev();
                if match_commit(interest, &commit, &mut woken).is_err() {
                    // Readers find out what is wrong with it.
                    interest.missed(next, last, &mut woken);
                }
                last
            }
            // The ring has lost it already.
            None => {
                let last = log.hot.recent.first_from(next).map_or(head, Seq::prev).min(head);
                interest.missed(next, last, &mut woken);
                last
            }
        };
        // First noted, then examined, then woken.
        interest.examined(last);
        woken.wake();
        next = last.next();
    }
}

fn match_commit(interest: &Interest, commit: &Held, woken: &mut Waking) -> Result<(), EventError> {
    let run = &commit.events;
    let index = commit.topics()?;
    let mut topics = index.each(run).map(|topic| {
        let (text, places) = topic?;
        let seq = |place: Option<&u32>| {
            let place = *place.ok_or(EventError::new("a topic without an event"))?;
            Event::seq_of(topic_index::entry(run, place)?.1)
        };
        Ok((text, seq(places.first())?, seq(places.last())?))
    });
    loop {
        // Read without the lock of the index.
        let some = topics.by_ref().take(TOPICS_AT_ONCE).collect::<Result<Vec<_>, EventError>>()?;
        if some.is_empty() {
            return Ok(());
        }
        let mut some = some.into_iter();
        while interest.matched(&mut some, woken) {}
    }
}

/// Lets nobody sleep on an index that nobody asks.
struct Close<'a>(&'a Interest);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "the thread that wakes watches is gone; they all wake at each commit from now on"
            );
        }
        self.0.close();
    }
}
