//! A client of the feed: calls, uploads, producers, and watches that resume by themselves.
//!
//! Owns connections, reconnecting and the reading of errors. Must not know of the server, of
//! storage or of the command line. Events pass through as the bytes that came, and are decoded by
//! whoever looks at them.
//!
//! What it takes and gives is here by name, so that it is one dependency: plain values beside the
//! client, and the generated messages in [`feed_v1`] and [`chat`].
//!
//! A watch of everything, from the oldest event on and then live:
//!
//! ```
//! use tailmark_client::{Client, Item, Start, WatchOptions};
//! use tokio_stream::StreamExt;
//! # use tailmark_client::feed_v1::Event;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = tailmark::testing::serve().await?;
//! # let address = server.url();
//! # let event = Event { topic: "orders.eu".into(), body: "hello".into(), ..Event::default() };
//! # Client::new(&address)?.publish(event, None).await?;
//! // As in http://127.0.0.1:50051.
//! let client = Client::new(&address)?;
//! let mut options = WatchOptions::default();
//! options.start = Start::Oldest;
//! let mut watch = client.watch(options);
//! while let Some(item) = watch.next().await {
//!     match item? {
//!         Item::Event(received) => {
//!             let event = received.event()?;
//!             println!("{} {} {}", event.seq, event.topic, event.body);
//! #           assert_eq!((event.seq.get(), event.body), (1, "hello"));
//! #           break;
//!         }
//!         // It connects again by itself, and goes on exactly where it was.
//!         Item::Interrupted { cause, retry_in } => eprintln!("{cause}; again in {retry_in:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! |---|---|
//! | go on where the last run of the program ended | [`Client::watch_kept`]; `examples/watch.rs` is a whole program |
//! | append exactly once, over restarts of either side | [`Client::producer`]; `examples/producer.rs` is a whole program |
//! | store one event, also only if nobody else was faster | [`Client::publish`] |
//! | store a stream of events | [`Client::upload`] |
//! | listen and speak in a chat room | [`Client::room`], [`Client::say`] |
//! | speak TLS | [`Tls`] in [`Options`], and an address that begins with `https://` |
//! | say who asks, with tokens that are renewed | [`TokenProvider`] |
//! | decide what to do about a failure | [`Error`] |
#![deny(missing_docs)]

mod backoff;
mod backup;
mod calls;
mod channel;
mod connect;
mod connector;
mod cursors;
mod doubt;
mod erase;
mod error;
mod intermediary;
mod kept;
mod metrics;
mod producer;
#[doc(hidden)]
pub mod raw;
mod retention;
mod room;
mod tls;
mod token;
mod topics;
mod watch;

pub use backoff::Backoff;
pub use backup::BackupParts;
pub use calls::Expect;
pub use connect::{Client, Options};
pub use cursors::{CursorFileError, CursorStore, CursorStoreError, FileStore, MemoryStore};
pub use erase::Erasing;
pub use error::{Error, Kind};
pub use kept::KeptWatch;
pub use metrics::{Metrics, MetricsItem};
pub use producer::{Ack, Durable, Position, Producer, ProducerOptions};
pub use retention::Retaining;
pub use room::{Room, RoomItem, Saying};
#[cfg(feature = "tls")]
#[doc(hidden)]
pub use tls::look;
pub use tls::{Pem, Tls, TlsProblem};
pub use token::TokenProvider;
pub use topics::TopicPages;
pub use watch::{Item, Received, Watch, WatchOptions};

pub use tailmark_record::moment::Moment;
pub use tailmark_record::{
    Content, Cursor, Event, EventError, Gap, GapReason, LogId, Marker, MarkerKind, OnLost, Reason,
    Seq, Start, Timestamp,
};
pub use tailmark_wire::{chat, feed_v1};

/// The example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
