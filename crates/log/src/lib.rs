//! A durable event log to embed: appends with one order, exact cursors, reads that replay and then
//! go on live. It is the log of Tailmark without the server; its README says what it promises.
//!
//! ```
//! use tailmark_log::{AppendOptions, DiskOptions, Event, Events, Filter, Options, Seq};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! // Blocks while it recovers: outside a runtime, or in `spawn_blocking`.
//! let log = tailmark_log::open(dir, DiskOptions::default(), Options::default())?;
//!
//! let mut batch = log.batch();
//! batch.push(&Event { topic: "orders.eu", body: "hello", ..Event::default() })?;
//! // Durable when this returns.
//! let appended = log.append(batch, AppendOptions::default()).await?;
//! assert_eq!(appended.last, Some(Seq::new(1)));
//!
//! // From the first event on; at the head it waits for more.
//! let mut reader = log.reader(Seq::FIRST, Filter::ALL);
//! let delivery = reader.next(Seq::MAX).await?;
//! for event in Events::new(&delivery.chunk.events) {
//!     let event = Event::parse(event?)?;
//!     println!("{} {} {}", event.seq, event.topic, event.body);
//! #   assert_eq!(event.body, "hello");
//! }
//! log.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! |---|---|
//! | go on after a cursor that somebody kept | [`Cursor::parse`], [`EventLog::resolve`], [`EventLog::reader`] |
//! | begin at a time, or with the newest events | [`Start`] and [`EventLog::start`] |
//! | append once, however often it is sent | [`AppendOptions::dedup`] with ids, or [`EventLog::open_producer`] |
//! | append only if nobody else did meanwhile | [`ExpectedHead`] |
//! | remove what some events said | [`EventLog::erase`] |
//! | remove old events | [`Retention`], [`EventLog::trim`] |
//! | keep it in memory, or elsewhere | [`EventLog::open`] over another [`storage::Engine`]: its journal and its store |
//! | know how far a reader is that waits for what a filter selects | [`eventlog::Reader::progress`] |
//! | see how it does | [`EventLog::status`] |
//!
//! `examples/embed.rs` is a whole program. It needs a tokio runtime for what waits; what blocks
//! runs on threads of its own.
//!
//! What is not listed here, the modules that are hidden above all, is how the log does it. They are
//! open to Tailmark's own tools and tests, and no part of the versioned interface.
#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "tests count small numbers"
    )
)]

#[doc(hidden)]
pub mod bounded;
pub mod chain;
mod directory;
pub mod eventlog;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod width;

// The log.
pub use directory::open;
pub use eventlog::{
    Clock, Counters, CursorError, EventLog, Options, ReadError, ResolveError, Retention, Status,
    Trimmed,
};
pub use storage::local::Options as DiskOptions;
pub use storage::segment::{Compression, HAS_ZSTD};
// Appending.
pub use eventlog::{Answer, AppendError, AppendOptions, Appended, Batch, ExpectedHead, Producer};
pub use eventlog::{EraseError, Erased, Erasure};
pub use storage::{ErasePhase, EraseProgress};
// Reading.
pub use eventlog::{Ahead, Delivery, Reader};
// What lies below.
pub use storage::{Chunk, Damage, StoreError, StoreStatus, TopicStats};
// The values that all of it speaks of.
pub use tailmark_record::topic::{Filter, Pattern};
pub use tailmark_record::{
    Bounds, ChainTag, Cursor, Event, Events, Generation, InvalidEvent, Limits, LogId, Seq, Start,
    Timestamp,
};
