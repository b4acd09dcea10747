//! The daemon's face: one log served over gRPC, gRPC-Web and plain HTTP.
//!
//! Owns connections, requests, limits and deadlines. Must not know how events are stored, nor of
//! configuration files.
//!
//! From the ground up; each wing names only those above it in this table:
//!
//! | wing | owns |
//! |---|---|
//! | `tls` | certificates, and when they are read again |
//! | `coding` | gzip, both ways |
//! | `rpc` | what a request is, codecs; errors and values mapped to the wire and back |
//! | `principal` | who asks, and what they may |
//! | `figures` | the daemon's metrics |
//! | `transport` | connections and bytes |
//! | `auth` | from a token or a certificate to a principal |
//! | `feed` | what streams of events share |
//! | `read` | the calls that only read |
//! | `backup` | what a backup of the log is made of |
//! | `ingest` | the calls that change the log |
//! | `watch` | streams of events |
//! | `chat` | rooms |
//! | `http` | plain HTTP, one file a path |

mod asked;
mod auth;
mod backup;
mod chat;
mod coding;
mod feed;
mod figures;
mod http;
mod ingest;
mod options;
mod peers;
mod permits;
mod principal;
mod quotas;
mod read;
mod report;
mod rpc;
mod run;
mod served;
mod service;
mod shared;
mod shares;
mod tls;
mod transport;
mod unsent;
mod watch;

pub use auth::{Certificate, Credentials, Keys, KeysError, Token, TokenHash, new_token};
pub use options::{AccessRules, Auth, Http, Http2, Jwt, JwtAlgorithm, Options, Rates};
pub use peers::{Confirmed, LogEnd, Peers};
pub use permits::Gauges;
pub use principal::Rights;
pub use quotas::sockets_of;
pub use rpc::status::DOMAIN;
pub use run::{ServeError, Server, serve};
pub use shared::ServedLog;
pub use tls::{Certificates, TlsError, TlsFiles};

use shared::Shared;
