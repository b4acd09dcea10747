//! A log's shared journal on a stream of NATS JetStream: a message is a frame, a sequence of the stream is
//! a slot, and `Nats-Expected-Last-Sequence` is the fence.
//!
//! Owns how the journal is reached, what its stream must be, and what each answer means. Must not know the
//! protocol of the daemons, which is `tailmark_log::storage::shared`, nor what a frame says.
//!
//! What an answer means is decided with one rule: only a message that says so proves that something is
//! stored, or that it is not. Everything else, silence above all, is doubt.

mod answers;
mod client;
mod consumer;
mod journal;
mod replicas;
mod settings;
mod speech;
mod stream;
mod tail;
mod varz;
mod witness;

pub use client::Failure;
pub use journal::NatsJournal;
pub use replicas::Replica;
pub use settings::{Login, Settings};
pub use speech::Listening;
pub use stream::Strength;
pub use witness::Stray;

/// Why there is no journal to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be meant.
    #[error("{0}")]
    Setting(String),
    /// No server, or none that lets us in.
    #[error("cannot connect to NATS at {servers}: {reason}")]
    Connect {
        /// Where.
        servers: String,
        /// Why not.
        reason: String,
    },
    /// A server that does not answer, or says no.
    #[error("cannot {action} the stream {stream}: {failure}")]
    Stream {
        /// In the imperative.
        action: &'static str,
        /// Which.
        stream: String,
        /// Why not.
        failure: Failure,
    },
    /// The stream is not, or not only, a journal of this log.
    #[error("the stream {stream} cannot be the journal: {}", .reasons.join("; "))]
    Unusable {
        /// Which.
        stream: String,
        /// All that is wrong.
        reasons: Vec<String>,
    },
    /// It is one, and promises less than was asked for.
    #[error("the stream {stream} is weaker than is asked for: {}", .reasons.join("; "))]
    Weaker {
        /// Which.
        stream: String,
        /// All that is weaker.
        reasons: Vec<String>,
    },
}
