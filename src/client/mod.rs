//! A client of the feed: calls, uploads, producers, and watches that resume by themselves.
//!
//! Owns connections, reconnecting and the reading of errors. Must not know of the server, of
//! storage or of the command line: it is built alone by the feature `client`. Events pass through
//! as the bytes that came, and are decoded by whoever looks at them.

mod backoff;
mod calls;
mod connect;
mod error;
mod metrics;
mod producer;
mod raw;
mod room;
mod watch;

pub use backoff::Backoff;
pub use calls::{Expect, TrimBefore};
pub use connect::{Client, Options};
pub use error::{Error, Kind};
pub use metrics::{Metrics, MetricsItem};
pub use producer::{Ack, Durable, Position, Producer, ProducerOptions};
pub use room::{Room, RoomItem, Saying};
pub use watch::{Item, OnLost, Received, Start, Watch, WatchOptions};

#[cfg(all(test, feature = "server"))]
mod tests;
