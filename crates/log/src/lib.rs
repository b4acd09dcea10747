//! A durable event log: appends with one order, reads that replay and go on live.

pub mod eventlog;
pub mod storage;

pub use storage::segment::HAS_ZSTD;
