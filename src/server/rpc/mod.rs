//! What a request is, its deadline and what it takes for an answer; gRPC's framing and codecs; and the
//! two places that map, errors in `status` and values in `convert` (and `retention`). Knows no connection.

pub(crate) mod classify;
pub(crate) mod codec;
pub(crate) mod convert;
pub(crate) mod deadline;
pub(crate) mod frames;
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all, reason = "generated")]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/feed.v1.FeedService.rs"));
    include!(concat!(env!("OUT_DIR"), "/chat.ChatService.rs"));
}
pub(crate) mod health;
pub(crate) mod negotiation;
pub(crate) mod reflection;
pub(crate) mod retention;
pub(crate) mod silence;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod web;

#[cfg(test)]
mod tests;
