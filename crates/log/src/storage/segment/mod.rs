//! Sealed segments: immutable runs of events, each in a sled database of its own.
//!
//! ```text
//! segments/00000000000000000001-1/footer    what is known without opening the database
//!                                 db/       one value per block, or per part of a large one
//!          ...                             the same without db/: a range whose events are gone
//!          .tmp-*                           being built; deleted at start
//!          trash-*                          no longer readable; deleted when there is time
//! ```
//!
//! Owns the bytes of such a directory, and everything that is done with sled. Must not know the
//! journal, or who appends and who reads. Invariants: a directory with a segment's name was
//! compared with its source and synced before it got that name, and its database never changes; a
//! database is opened only after its files were checked against the footer; what is missing or
//! altered is [`StoreError::Damaged`](crate::storage::StoreError::Damaged) with its range and never a shorter answer; a directory is
//! moved away only when nobody holds a [`Lease`] on it.

mod block;
mod blocks;
mod build;
mod comparing;
mod database;
mod describe;
mod digest;
mod dir;
mod direct;
mod files;
mod filter_room;
mod footer;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handle;
mod identity;
mod index;
mod lookup;
mod open;
mod problem;
mod readers;
mod remains;
mod removed;
mod run_block;
mod scan;
mod sled;
mod store;
mod topic_search;
mod topics;
mod transfer;
mod verify;

pub use block::{Compression, HAS_ZSTD};
pub use build::{BLOCK_BYTES, BuildSpec, DB_CACHE_BYTES, MANY_EVENTS, Progress, Source, build};
use dir::{DB, FOOTER};
pub use dir::{clean, clean_but, delete, names, parse_name, revision_of, trash};
pub use footer::RunTotals;
pub use handle::{Lease, Segment};
pub use lookup::TopicCounts;
pub use readers::{Cache, CacheOptions, CacheStatus};
pub use remains::{Remains, Unit, remains, removed_from, units};
pub use removed::RemovedRange;
pub use scan::{Scan, scan};
pub use topic_search::SegmentTopics;
pub use transfer::{Copied, Opened, Part, Written, write_file};
pub use verify::{Examined, OfflineReader, examine, verify};

#[cfg(test)]
mod tests;
