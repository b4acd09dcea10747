//! The contract of an engine: a [`Journal`] makes commits durable, a [`Store`] reads what they said.
//!
//! ```text
//!   1 ........ oldest ..................... head  next
//!   | trimmed  | readable, immutable        |     | appended here
//! ```
//!
//! One writer, many readers. Invariants every engine keeps, and the conformance suite checks:
//! a commit is whole or absent; `bounds().head` covers durable events only; (generation, seq) is
//! never reused; what is damaged is an error with its range and never a shorter answer.
//!
//! Both halves are of one log, and what a journal has called durable its store can read. Where they
//! are one thing, a commit is written once: the local engine's slots are its journal and what it
//! reads. The half that a caller takes says what it may do.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use uuid::Uuid;

use super::{
    Chunk, Commit, Completion, EraseOrder, EraseProgress, Level, Links, LookBack, Sealed,
    StoreError, StoreStatus, TakeOut, TakenOut, TopicPage, TopicQuery,
};
use tailmark_record::topic::Filter;
use tailmark_record::{Bounds, ChainTag, Fingerprint, FingerprintKey, LogId, Seq, Timestamp};

/// Gives a log its order, and makes it durable. Blocking: callers bring their own threads.
pub trait Journal: Send + Sync + 'static {
    /// Identity of the log.
    fn id(&self) -> LogId;

    /// Secret for telling repeats.
    fn fingerprint_key(&self) -> FingerprintKey;

    /// Most bytes of events in one commit.
    fn max_commit_bytes(&self) -> usize;

    /// Makes a commit durable, then moves the bounds of the store beside it, then completes. The caller
    /// waits for one commit's completion before it appends the next.
    ///
    /// Completes with [`StoreError::Conflict`], [`StoreError::DiskFull`], [`StoreError::Busy`] or
    /// [`StoreError::Invalid`] when nothing was stored; any other error means that the outcome is
    /// unknown and that the journal has stopped for appends.
    fn append(&self, commit: Commit, done: Completion);

    /// Proves that the log has had no commits but those that this journal took, as of a moment after the
    /// call: then what depends on the end of the log may be told. Where nobody else can append it is so, and
    /// costs nothing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another appends; as [`Journal::append`].
    fn confirm(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What a commit has been given when it completes, as far as that is known before one does.
    fn level(&self) -> Level {
        Level::Fsync
    }

    /// Why every commit would be refused now; `None` when a small one would be tried. Looks at the disk, and
    /// waits for no commit; one that is under way for too long is a reason ([`StoreError::Hanging`]).
    fn refusal(&self) -> Option<StoreError> {
        None
    }
}

/// Reads a log, and looks after the space that it takes. Blocking: callers bring their own threads.
pub trait Store: Send + Sync + 'static {
    /// Durable bounds, as of now. Cheap.
    fn bounds(&self) -> Bounds;

    /// The chain at both ends of [`Store::bounds`], as of now. Cheap.
    fn links(&self) -> Links;

    /// Whether a commit of `bytes` (events and delta) must bring the caller's whole state, so that the
    /// store can be opened again from what it holds.
    fn wants_state(&self, bytes: usize) -> bool;

    /// Reads from `from` on, in `oldest <= from < end <= head + 1`: a chunk that begins exactly at
    /// `from` and ends at or before `end`. With a filter, runs that are known not to match may come
    /// as an empty chunk, and chunks may leave out events that do not match.
    ///
    /// # Errors
    /// [`StoreError::Trimmed`] below the oldest, [`StoreError::Damaged`] with the range.
    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError>;

    /// The first readable seq appended at or after `time`; `head + 1` if there is none.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn seek_time(&self, time: Timestamp) -> Result<Seq, StoreError>;

    /// The time at which a readable event was appended.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn time_of(&self, seq: Seq) -> Result<Timestamp, StoreError>;

    /// The chain at a readable event.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn tag_of(&self, seq: Seq) -> Result<ChainTag, StoreError>;

    /// A page of topics that have readable events, with exact figures as of now. The work is bounded,
    /// and so a page may be short: see [`TopicPage`].
    ///
    /// # Errors
    /// As [`Store::read`]; a damaged table of topics with the range of the events that it is of.
    fn topics(&self, query: &TopicQuery<'_>) -> Result<TopicPage, StoreError>;

    /// The last readable event of a topic, as of now; 0 if it has none. `None` while there is more to be
    /// indexed of what is not sealed than one question does: ask again.
    ///
    /// # Errors
    /// As [`Store::topics`].
    fn topic_head(&self, topic: &str) -> Result<Option<Seq>, StoreError>;

    /// Looks back from the end of a range, in `oldest <= start < end <= head + 1`, for the newest
    /// `count` events that match, at least 1. The work is bounded: it may stop before it has them,
    /// but has always come nearer to the start; go on below [`LookBack::from`].
    ///
    /// # Errors
    /// As [`Store::read`].
    fn look_back(
        &self,
        range: Range<Seq>,
        filter: &Filter,
        count: u64,
    ) -> Result<LookBack, StoreError>;

    /// Visits the events that their senders named, newest first, until `visit` answers false or
    /// `from` is reached. Those that are trimmed count too, as far as the engine is told to keep
    /// them: a repeat of one is still a repeat.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn fingerprints(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, Fingerprint) -> bool,
    ) -> Result<(), StoreError>;

    /// The seq to trim to so that what the log needs on disk is at most `max_bytes`, if trimming can do
    /// that, and no further than `limit`; whole units of storage only. What is trimmed already is not
    /// needed, also where its space is not given back yet.
    fn trim_point_for_size(&self, max_bytes: u64, limit: Seq) -> Seq;

    /// The seq to trim to so that no more than `max` events are left below `end`: never so far that fewer are. What has
    /// no events does not count. Where some were taken out of the oldest unit of storage, as many more may stay.
    fn trim_point_for_events(&self, max: u64, end: Seq) -> Seq;

    /// Gives back the space below the durable trim mark that no reader holds. Called after a commit
    /// that moved it.
    ///
    /// # Errors
    /// I/O; the trim mark stays.
    fn reclaim(&self) -> Result<(), StoreError>;

    /// Gives back up to about `bytes` on disk that hold nothing of the log, beside what
    /// [`Store::reclaim`] does; answers how many came free.
    ///
    /// # Errors
    /// I/O.
    fn release(&self, bytes: u64) -> Result<u64, StoreError>;

    /// Leaves shells of events, and nothing of what they said in anything that the store keeps; those that are
    /// trimmed and are still there go too. What was read before may still be held by who read it. Blocks, and one at
    /// a time. From when it has begun the order is kept, see [`Store::erasing`]; given again, it goes on.
    /// `watch` hears how far it is, and may stop it. Answers how many segments were written anew.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where another order is not through, or this engine cannot erase;
    /// [`StoreError::Stopped`] where `watch` said so; as [`Store::read`]; I/O.
    fn erase(
        &self,
        order: &Arc<EraseOrder>,
        watch: &mut dyn FnMut(EraseProgress) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        let _ = (order, watch);
        Err(StoreError::Invalid("this engine cannot erase"))
    }

    /// The order that is not through, also one from before a restart.
    fn erasing(&self) -> Option<Arc<EraseOrder>> {
        None
    }

    /// The order is through, with all that its caller had to do: it is kept no more.
    ///
    /// # Errors
    /// I/O; it stays.
    fn erased(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Takes back the order of this name, which is not at work, if nothing was erased by it: then it is kept no more.
    /// Answers whether that was so. Reads about one event.
    ///
    /// # Errors
    /// As [`Store::read`]; I/O: it stays.
    fn cancel_erasing(&self, id: Uuid) -> Result<bool, StoreError> {
        let _ = id;
        Ok(false)
    }

    /// Whether some readable seqs have no events any more. Cheap.
    fn has_gaps(&self) -> bool {
        false
    }

    /// What events can be taken out of, oldest first. An engine without such has none.
    fn sealed(&self) -> Vec<Sealed> {
        Vec::new()
    }

    /// Takes events out: from then on a read of everything that comes to them answers [`StoreError::Removed`], and one
    /// of some topics passes over them. Their space comes free when nobody reads it any more. Blocks; beside appends
    /// and reads. `None` where that run is there no more as it was.
    ///
    /// # Errors
    /// As [`Store::read`]; [`StoreError::DiskFull`]; [`StoreError::Busy`] where nothing can be written anew now; I/O.
    fn take_out(&self, order: &TakeOut) -> Result<Option<TakenOut>, StoreError> {
        let _ = order;
        Err(StoreError::Invalid("this engine cannot take events out"))
    }

    /// What was there when, at the latest, of what is stamped later than `wall`: heads and times up to
    /// then, both only going up. What the store cannot tell, or what cannot be, is left out.
    fn seen(&self, wall: Timestamp) -> Vec<(Seq, Timestamp)> {
        let _ = wall;
        Vec::new()
    }

    /// Figures for operators.
    fn status(&self) -> StoreStatus;

    /// Finishes background work and marks a clean stop. Appends after it fail where the store is the
    /// journal too.
    ///
    /// # Errors
    /// I/O; what was acked is durable all the same.
    fn close(&self) -> Result<(), StoreError>;
}

/// Both halves of one log: what is appended to its [`Journal`] is read from its [`Store`].
pub trait Engine: Journal + Store {}

impl<E: Journal + Store> Engine for E {}
