//! The log as the service sees it: append, read, watch, trim.
//!
//! Owns the writer thread, the head that watchers wait for, the cache of recent commits, the one
//! reader loop, retention, the window of repeats and the producers. Must not know of tonic,
//! generated types or configuration, nor of how an engine stores bytes.
//!
//! ```text
//! append -> queue -> writer -> engine (durable) -> recent, published -> answer
//!                                                       |
//!                         reader: wait for the head, memory or engine, move on
//! ```

mod age_clock;
mod answer;
mod append;
mod batch;
mod core;
mod cursors;
mod elsewhere;
mod erase;
mod eraser;
mod error;
mod fair_queue;
mod filter_cache;
#[cfg(any(test, feature = "shared"))]
mod following;
mod group_commit;
mod hot;
mod interest;
mod log;
mod maintenance;
mod matcher;
mod metrics;
mod open;
mod options;
mod producer;
mod producers;
mod progress;
mod queue;
mod read;
mod read_path;
mod reader;
mod reader_pool;
mod readiness;
mod recent;
mod repeats;
mod repeats_ready;
mod reservation;
mod resolve;
mod retention;
mod state;
mod status;
mod stretch;
mod topic_heads;
mod topic_index;
mod topic_retention;
mod topic_rules;
mod topics;
mod trim;
mod trouble;
mod unfetched;
mod writer;

pub use answer::{Answer, Reply};
pub use append::{AppendOptions, Appended, ExpectedHead};
pub use batch::{Batch, Mark};
pub use cursors::{ResolveError, parted};
#[doc(hidden)]
pub use elsewhere::{Done, Elsewhere, OpenedElsewhere, ProducerElsewhere};
pub use eraser::{CancelError, EraseError, Erased, Erasure};
pub use error::{AppendError, CursorError, ReadError};
#[cfg(any(test, feature = "shared"))]
#[doc(hidden)]
pub use following::{Following, needed_from, restated, whole_state};
pub use log::{Append, EventLog};
pub use metrics::{Counters, LATENCY_BUCKETS};
pub use options::{Clock, Elapsed, Options, Retention};
pub use producer::Producer;
pub use progress::Progress;
pub use queue::Trimmed;
pub use reader::{Ahead, Delivery, Reader};
pub use reservation::Reservation;
pub use resolve::resolve;
pub use status::Status;
pub use topic_rules::{Keep, RuleFound, TopicPass, TopicRetention, TopicRule, TopicRules};
pub use topics::Topics;

#[cfg(test)]
mod tests;
