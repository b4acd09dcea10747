//! What a segment asks of the database that its blocks rest in.
//!
//! What is below may be another database, as long as it keeps what [`Store`] says; `database` chooses.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::block::Row;
use tailmark_record::Seq;

/// What a call into the database came to.
#[derive(Debug)]
pub(super) enum Fault {
    /// The operating system refused.
    Io(io::Error),
    /// The database says that it is damaged, or panicked over it.
    Corrupt(String),
}

/// A database in a directory of its own: filled once, then only read. What it gives back is not
/// believed: whoever asks compares it with the checksums of the block's [`Row`].
pub(super) trait Store: Sized {
    /// The file of the directory that has the values, each in one piece after its header.
    const VALUES_FILE: &'static str;
    /// Directories beside its files, in which nothing may lie.
    const EMPTY_DIRS: &'static [&'static str];
    /// The size that the footer notes with it, for [`Store::open`].
    const UNIT_BYTES: u32;
    /// Memory that an open one takes before anything was read.
    const OPEN_BYTES: u64;
    /// How often it keeps in memory what it has read.
    const COPIES: u64;

    /// Opens the one in `dir`, or begins one where nothing is. `unit_bytes` is
    /// [`Store::UNIT_BYTES`] of the program that made it; it may take about so much memory.
    fn open(dir: &Path, unit_bytes: u32, cache_bytes: u64) -> Result<Self, Fault>;

    /// Makes room for a block of at most so many parts, before any of its window is put in.
    fn reserve(&self, first: Seq, parts: usize) -> Result<(), Fault>;

    /// Puts a block in: its parts, each behind its header, made in `value`.
    fn put(&self, row: &Row, stored: &[u8], value: &mut Vec<u8>) -> Result<(), Fault>;

    /// Writes all of it, and what it needs to keep the last block safe. Closed, opened and closed
    /// once more after this, it does not change a byte when it is opened.
    fn finish(&self) -> Result<(), Fault>;

    /// Waits until nothing of the program writes to a closed one any more, and removes its
    /// leftovers.
    fn release(dir: &Path) -> io::Result<()>;

    /// Reads one block into `out`, which has its raw length.
    fn fetch(&self, row: &Row, out: &mut [u8]) -> Result<(), Fault>;

    /// One block that is stored as it is, and in one piece, without copying it.
    fn plain(&self, row: &Row) -> Result<Bytes, Fault>;

    /// Closes it, and tells whether that failed.
    fn close(self) -> Result<(), Fault>;

    /// Whether a file is one that a crash may leave, and no part of the database.
    fn is_leftover(name: &str) -> bool;

    /// Deletes those. Only for whoever is about to open the database in `dir`: checks pass over
    /// them.
    fn remove_leftovers(dir: &Path) -> io::Result<()>;
}
