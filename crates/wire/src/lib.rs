//! What goes over the wire: the generated types, and answers as JSON.
//!
//! The types are checked in; `cargo run -p tailmark-codegen` writes them anew after a change in
//! `proto/`.

pub mod code;
pub mod json;
pub mod methods;
pub mod values;

/// `feed.v1`, as `proto/feed/v1/feed.proto` documents it.
#[allow(missing_docs, clippy::all, rustdoc::all, reason = "generated")]
pub mod feed_v1 {
    include!("generated/feed.v1.rs");
}

/// `chat`, as `proto/chat/chat.proto` documents it.
#[allow(missing_docs, clippy::all, rustdoc::all, reason = "generated")]
pub mod chat {
    include!("generated/chat.rs");
}

/// Encoded `FileDescriptorSet` of every proto file, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
