//! How far the journal is known to be synced: a note beside the slots.
//!
//! A frame is proved by what is written after it, and that may lie in the same page. So after each
//! sync its end is noted in a small file of its own: written, not synced. After a kill the note is
//! in the page cache with everything else, so no page of a slot can be lost without a word. After a
//! power loss the note may be old or missing, and then it proves less, or nothing. It never proves
//! too much: what it names was synced before it was written.

use std::fs::File;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::storage::crc::crc32c;
use crate::storage::error::chain;
use crate::storage::{StoreError, disk::Disk};
use tailmark_record::{LogId, Seq};

/// Its file, in the directory of the journal.
pub const TIP_FILE: &str = "tip";
const TIP_BYTES: usize = 64;
const MOST_BYTES: u64 = 4 << 10;
const MAGIC: &[u8; 8] = b"TMTIP\0\0\x01";

/// What is known to have been synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Whose log.
    pub log: LogId,
    /// Number of the slot.
    pub number: u64,
    /// Nonce of that use of it.
    pub nonce: u64,
    /// Everything of it below this offset was synced.
    pub upto: u64,
    /// Seq after the last event below that.
    pub next: Seq,
}

impl Tip {
    fn encode(&self) -> [u8; TIP_BYTES] {
        let mut out = [0; TIP_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..24].copy_from_slice(&self.log.uuid().into_bytes());
        let numbers = [self.number, self.nonce, self.upto, self.next.get()];
        for (at, number) in (24..).step_by(8).zip(numbers) {
            out[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c(0, &out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Tip> {
        let bytes: &[u8; TIP_BYTES] = bytes.get(..TIP_BYTES)?.try_into().ok()?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        if bytes[..8] != *MAGIC || bytes[60..] != crc32c(0, &bytes[..60]).to_le_bytes() {
            return None;
        }
        let mut log = [0; 16];
        log.copy_from_slice(&bytes[8..24]);
        Some(Tip {
            log: LogId::new(Uuid::from_bytes(log)),
            number: number(24),
            nonce: number(32),
            upto: number(40),
            next: Seq::new(number(48)),
        })
    }

    /// The note in a journal's directory. One that is missing, torn or damaged proves nothing.
    ///
    /// # Errors
    /// I/O.
    pub fn read(disk: &Disk, journal: &Path) -> Result<Option<Tip>, StoreError> {
        let path = journal.join(TIP_FILE);
        // What is no small file is no note of ours.
        if std::fs::metadata(&path).is_ok_and(|found| !found.is_file() || found.len() > MOST_BYTES)
        {
            return Ok(None);
        }
        Ok(disk.read(&path)?.and_then(|bytes| Tip::decode(&bytes)))
    }
}

/// What became of the note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipState {
    /// It proves what it says.
    Whole(Tip),
    /// It is not there, or nothing was written to it: it is not synced by itself, and a power cut may take it.
    Missing,
    /// It is not what was written.
    Damaged,
}

impl TipState {
    /// Of the note in a journal's directory.
    ///
    /// # Errors
    /// I/O.
    pub fn of(disk: &Disk, journal: &Path) -> Result<TipState, StoreError> {
        if let Some(tip) = Tip::read(disk, journal)? {
            return Ok(TipState::Whole(tip));
        }
        let path = journal.join(TIP_FILE);
        let bytes = match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() || found.len() > MOST_BYTES => {
                return Ok(TipState::Damaged);
            }
            _ => disk.read(&path)?.unwrap_or_default(),
        };
        // A daemon may just have written it.
        if let Some(tip) = Tip::decode(&bytes) {
            return Ok(TipState::Whole(tip));
        }
        let is_blank = bytes.iter().all(|byte| *byte == 0);
        Ok(if is_blank { TipState::Missing } else { TipState::Damaged })
    }
}

/// Where it is noted.
#[derive(Debug)]
pub(super) struct TipFile {
    path: PathBuf,
    /// None when it could not be written: what is there is old, and so proves less.
    file: Option<File>,
}

impl TipFile {
    pub(super) fn open(disk: &Disk, journal: &Path) -> TipFile {
        let path = journal.join(TIP_FILE);
        let file = disk.open_or_create(&path).map_err(|error| warn(&error)).ok();
        TipFile { path, file }
    }

    pub(super) fn note(&mut self, disk: &Disk, tip: &Tip) {
        let Some(file) = &self.file else { return };
        if let Err(error) = disk.write_at(file, &self.path, &[&tip.encode()], 0) {
            warn(&error);
            self.file = None;
        }
    }
}

fn warn(error: &StoreError) {
    tracing::warn!(error = %chain(error), "cannot note how far the journal is synced");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_survives_the_round_trip_and_no_flipped_bit() {
        let log = LogId::new(Uuid::from_bytes([7; 16]));
        let tip = Tip { log, number: 1, nonce: 2, upto: 3, next: Seq::new(4) };
        let bytes = tip.encode();
        assert_eq!(Tip::decode(&bytes), Some(tip));
        // Frozen.
        assert_eq!((&bytes[..8], &bytes[24..32]), (&b"TMTIP\0\0\x01"[..], &1u64.to_le_bytes()[..]));
        for at in 0..TIP_BYTES * 8 {
            let mut bad = bytes;
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(Tip::decode(&bad), None, "bit {at}");
        }
        assert_eq!(Tip::decode(&bytes[..63]), None);
    }
}
