//! TLS: every protocol on one port, certificates that are renewed, clients that show theirs.

mod cli;
mod client;
mod mutual;
mod plain;
mod protocols;
mod renewal;
mod stalled;
