//! The generated wire types, the only place that includes them, and their JSON.

#[cfg(any(feature = "client", feature = "server"))]
pub mod code;
pub mod json;

/// `feed.v1`, as `proto/feed/v1/feed.proto` documents it.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod feed_v1 {
    include!(concat!(env!("OUT_DIR"), "/feed.v1.rs"));
}

/// `chat`, as `proto/chat/chat.proto` documents it.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod chat {
    include!(concat!(env!("OUT_DIR"), "/chat.rs"));
}

/// Encoded `FileDescriptorSet` of every proto file, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
