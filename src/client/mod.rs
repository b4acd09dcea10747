//! A client of the feed: calls, uploads, producers, and watches that resume by themselves.
//!
//! Owns connections, reconnecting and the reading of errors. Must not know of the server, of
//! storage or of the command line: it is built alone by the feature `client`. Events pass through
//! as the bytes that came, and are decoded by whoever looks at them.
//!
//! A watch of everything, from the oldest event on and then live:
//!
//! ```no_run
//! # async fn example() -> Result<(), tailmark::client::Error> {
//! use tailmark::client::{Client, Item, Start, WatchOptions};
//! use tokio_stream::StreamExt;
//!
//! let client = Client::new("http://127.0.0.1:50051")?;
//! let mut options = WatchOptions::default();
//! options.start = Start::Oldest;
//! let mut watch = client.watch(options);
//! while let Some(item) = watch.next().await {
//!     match item? {
//!         Item::Event(event) => println!("{} {}", event.seq(), event.cursor()),
//!         Item::Interrupted { cause, retry_in } => eprintln!("{cause}; again in {retry_in:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Client::watch_kept`] goes on where the last run of the program ended. `examples/watch.rs` is a
//! whole program.
#![deny(missing_docs)]

mod backoff;
mod calls;
mod connect;
mod cursors;
mod error;
mod kept;
mod metrics;
mod producer;
mod raw;
mod room;
mod watch;

pub use backoff::Backoff;
pub use calls::{Expect, TrimBefore};
pub use connect::{Client, Options};
pub use cursors::{CursorFileError, CursorStore, CursorStoreError, FileStore, MemoryStore};
pub use error::{Error, Kind};
pub use kept::KeptWatch;
pub use metrics::{Metrics, MetricsItem};
pub use producer::{Ack, Durable, Position, Producer, ProducerOptions};
pub use room::{Room, RoomItem, Saying};
pub use watch::{Item, OnLost, Received, Start, Watch, WatchOptions};

#[cfg(all(test, feature = "server"))]
mod tests;
