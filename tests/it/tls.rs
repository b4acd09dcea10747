//! TLS: every protocol on one port, certificates that are renewed, clients that show theirs.

mod mutual;
mod plain;
mod protocols;
mod renewal;
mod stalled;
