//! What tests of engines share: commits whose every byte follows from their seqs.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use bytes::Bytes;

use crate::chain::Said;
pub use crate::storage::conformance::{all_topics, topic_head, topics_of};
use crate::storage::{Commit, Engine, Journal, Links, Receipt, StoreError};
use tailmark_record::{CursorMint, Event, Seq, Stamp, Timestamp, write_entry};

/// Says that something is over when it is dropped, by a panic too: what goes on beside a check that fails would go
/// on for ever.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A commit of `count` events after the head. Each is named `id-<seq>`, has one of the topics `t.0`
/// to `t.4`, by seq, and the body that it is given.
pub fn commit(engine: &dyn Engine, count: u32, body_of: impl Fn(Seq) -> String) -> Commit {
    let first = engine.bounds().next();
    let topics = (0..u64::from(count)).map(|at| format!("t.{}", first.plus(at).get() % 5));
    commit_of(engine, topics, body_of)
}

/// The same with an event of each of these topics.
pub fn commit_of(
    engine: &dyn Engine,
    topics: impl IntoIterator<Item = String>,
    body_of: impl Fn(Seq) -> String,
) -> Commit {
    let bounds = engine.bounds();
    let first = bounds.next();
    let mint = CursorMint::new(engine.id(), bounds.generations.current().generation);
    let appended_at = time_of(first);
    let Links { head: mut link, oldest_tag } = engine.links();
    let (mut events, mut count) = (Vec::new(), 0);
    for topic in topics {
        let seq = first.plus(u64::from(count));
        count += 1;
        let (id, body) = (format!("id-{seq}"), body_of(seq));
        let event = Event { id: &id, topic: &topic, body: &body, ..Event::default() };
        let mut client_part = Vec::new();
        event.write_client_part(&mut client_part);
        link = link.then(seq, appended_at, Said::of_part(&client_part, "").unwrap_or_default());
        let (tag, appended_at) = (link.tag(), appended_at.into());
        let stamp = Stamp { seq, mint: &mint, tag, appended_at, fill_at: true, fill_id: None };
        write_entry(&mut events, &client_part, &stamp);
    }
    let state = engine.wants_state(events.len()).then(Bytes::new);
    let (events, delta, oldest) = (events.into(), Bytes::new(), bounds.oldest);
    Commit { first, count, appended_at, events, delta, state, link, oldest, oldest_tag }
}

/// When the commit that begins with `first` was appended.
pub fn time_of(first: Seq) -> Timestamp {
    Timestamp { seconds: 1_700_000_000 + first.get().cast_signed(), nanos: 0 }
}

/// Appends a commit and waits for what becomes of it.
///
/// # Errors
/// The journal's; [`StoreError::Stopped`] where it gave no answer.
pub fn append(journal: &dyn Journal, commit: Commit) -> Result<Receipt, StoreError> {
    let (done, outcome) = mpsc::channel();
    journal.append(commit, Box::new(move |result| drop(done.send(result))));
    let dropped = |_| StoreError::Stopped { reason: "the commit got no answer".into() };
    outcome.recv().unwrap_or_else(|error| Err(dropped(error)))
}

/// Copies a directory: what a kill leaves on the disk at this moment.
///
/// # Errors
/// I/O.
pub fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
