//! The daemon's face: one log served over gRPC, gRPC-Web and plain HTTP.
//!
//! Owns connections, requests, limits and deadlines. Must not know how events are stored, nor of
//! configuration files.
//!
//! | wing | owns |
//! |---|---|
//! | `transport` | connections and bytes |
//! | `rpc` | what a request is, codecs; errors and values mapped to the wire and back |
//! | `feed` | what streams of events share |
//! | `ingest` | the calls that change the log |
//! | `read` | the calls that ask for one answer |
//! | `watch` | streams of events |
//! | `chat` | rooms |
//! | `http` | plain HTTP, one file a path |
//! | `figures` | what the daemon measures of itself |

mod chat;
mod feed;
mod figures;
mod http;
mod ingest;
mod options;
mod permits;
mod read;
mod report;
mod rpc;
mod run;
mod service;
mod shared;
mod transport;
mod watch;

pub use options::{AccessRules, Http, Http2, Options};
pub use permits::Gauges;
pub use rpc::status::DOMAIN;
pub use run::{ServeError, Server, serve};

use shared::Shared;
