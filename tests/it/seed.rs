//! The wire types of clients that know only what the two public sketches of this service have.

/// The first sketch, and `after_cursor`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod feed_v1 {
    include!("seed/generated/feed.v1.rs");
}

/// The second sketch.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod chat {
    include!("seed/generated/chat.rs");
}
