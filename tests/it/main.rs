//! Integration tests: one binary, over real sockets and real data directories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test ends where something is not as it must be, and counts small numbers"
)]

mod support {
    pub mod broken;
    pub mod checker;
    pub mod daemon;
    pub mod disk;
    pub mod frames;
    pub mod inprocess;
    pub mod intermediary;
    pub mod kept;
    pub mod logdir;
    pub mod openmetrics;
    pub mod plain;
    pub mod port;
    pub mod proxy;
    pub mod raw;
    pub mod reverse_proxy;
    pub mod server;
    pub mod terminal;
    pub mod tls;
    pub mod web;
}

mod abuse;
mod append;
mod arriving;
mod auth;
mod batches;
mod chat;
mod cli;
mod client;
mod clocks;
mod compression;
mod config;
mod copied;
mod daemon;
mod doctor;
mod erase;
mod errors;
mod faults;
mod format;
mod full_journal;
mod gapless;
mod http;
mod inspect;
mod keep;
mod limits;
mod messages;
mod metrics;
mod one_owner;
mod pages;
mod peers;
mod producer;
mod protocol;
mod proxies;
mod retention_topics;
mod seed;
mod seed_client;
mod shutdown;
mod small_frames;
mod stalled;
mod stamped_ahead;
mod standards;
mod tidy;
mod tls;
mod upload;
mod watch;
