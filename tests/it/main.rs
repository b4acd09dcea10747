//! Integration tests: one binary, over real sockets and real data directories.

mod support {
    pub mod broken;
    pub mod checker;
    pub mod daemon;
    pub mod disk;
    pub mod frames;
    pub mod logdir;
    pub mod proxy;
    pub mod raw;
    pub mod server;
    pub mod web;
}

mod cli;
mod config;
mod daemon;
mod errors;
mod format;
mod full_journal;
mod gapless;
mod http;
mod inspect;
mod limits;
mod protocol;
mod seed_client;
mod shutdown;
mod tidy;
mod upload;
mod watch;
