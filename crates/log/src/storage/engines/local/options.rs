//! How a log lies on disk.

use std::time::Duration;

use crate::storage::Clocks;
use crate::storage::disk::Disk;
use crate::storage::journal::JournalOptions;
use crate::storage::segment;

/// How a log lies on disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// Create a log where there is none.
    pub create: bool,
    /// Bytes of a journal slot, and so of a segment; fixed when the log is created. 256 KiB to
    /// 1 GiB.
    pub slot_bytes: u64,
    /// Most slots that may wait to be sealed, the active one included. At least 3.
    pub max_slots: usize,
    /// How sealed blocks are compressed.
    pub compression: segment::Compression,
    /// Unsealed events older than this are sealed even if their slot is not full, whatever the clock said
    /// when it was begun.
    pub seal_after: Duration,
    /// Bytes of the file system that are left to others.
    pub min_free_bytes: u64,
    /// A pause of this length is marked in the journal, which tells later that all was synced.
    pub mark_after: Duration,
    /// Sealing that makes no progress for so long hangs: nothing is sealed any more until the log
    /// is opened again.
    pub seal_timeout: Duration,
    /// Memory that open sealed databases may take, as far as it can be told.
    pub open_bytes: u64,
    /// Sealed databases that may stay open.
    pub open_segments: usize,
    /// Named events that are still known as such when they are trimmed, over a restart too: the
    /// window of repeats. 20 bytes on disk each.
    pub kept_fingerprints: usize,
    /// A log that is found in another directory than it was in when it was open last begins a generation, so
    /// that it and a log that goes on elsewhere can name where they parted. Without this only the chain
    /// over the events tells: for whoever carries one directory about and never has two of it.
    pub tells_copies: bool,
    /// File operations; real, but in tests.
    pub disk: Disk,
    /// What slots age by; real, but in tests.
    pub clocks: Clocks,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create: true,
            slot_bytes: 64 << 20,
            max_slots: 4,
            compression: segment::Compression::default(),
            seal_after: Duration::from_secs(3600),
            min_free_bytes: 256 << 20,
            mark_after: Duration::from_millis(50),
            seal_timeout: Duration::from_secs(60),
            open_bytes: 64 << 20,
            open_segments: 64,
            kept_fingerprints: 1_000_000,
            tells_copies: true,
            disk: Disk::real(),
            clocks: Clocks::default(),
        }
    }
}

impl Options {
    pub(super) fn journal(&self, slot_bytes: u64) -> JournalOptions {
        JournalOptions {
            slot_bytes,
            max_slots: self.max_slots,
            min_free_bytes: self.min_free_bytes,
            clocks: self.clocks.clone(),
        }
    }
}
