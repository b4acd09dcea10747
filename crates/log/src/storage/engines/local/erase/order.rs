//! The order of an erasure, as it lies in the data directory until all is done.
//!
//! It is there, synced, before anything is erased, so that a cut erasure goes on at the next start.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::storage::crc::crc32c;
use crate::storage::disk::Disk;
use crate::storage::erase::MAX_RANGES;
use crate::storage::{Damage, EraseOrder, StoreError};
use crate::width::to_u32;
use tailmark_record::{Erased, LogId, Seq, Timestamp};

/// Its file, in the data directory.
pub const ERASING_FILE: &str = "erasing";
const MAGIC: &[u8; 8] = b"TMERASE\x01";
const HEADER_BYTES: usize = 96;
const RANGE_BYTES: usize = 16;
/// 1 while nothing is erased, for certain.
const UNTOUCHED_AT: usize = 64;

/// Puts it down. It survives a power loss when this returns.
///
/// # Errors
/// I/O; it may be there, or not.
pub(in crate::storage) fn store(
    dir: &Path,
    disk: &Disk,
    log: LogId,
    order: &EraseOrder,
) -> Result<(), StoreError> {
    disk.replace(&dir.join(ERASING_FILE), &order_bytes(log, order))
}

/// The same of one by which nothing is erased yet, for certain. Before anything is, it has to be put down without that.
///
/// # Errors
/// As [`store`].
pub(super) fn store_untouched(
    dir: &Path,
    disk: &Disk,
    log: LogId,
    order: &EraseOrder,
) -> Result<(), StoreError> {
    let mut bytes = order_bytes(log, order);
    bytes[UNTOUCHED_AT] = 1;
    seal_header(&mut bytes);
    disk.replace(&dir.join(ERASING_FILE), &bytes)
}

/// Whether the one in a data directory, if it can be read, says that nothing is erased by it yet.
pub(super) fn is_untouched(dir: &Path, disk: &Disk, log: LogId) -> bool {
    let bytes = disk.read(&dir.join(ERASING_FILE)).ok().flatten();
    let whole = bytes.filter(|bytes| decode(bytes, log).is_some());
    whole.is_some_and(|bytes| bytes.get(UNTOUCHED_AT) == Some(&1))
}

/// Takes it away.
///
/// # Errors
/// I/O.
pub(super) fn remove(dir: &Path, disk: &Disk) -> Result<(), StoreError> {
    disk.remove_file(&dir.join(ERASING_FILE))?;
    disk.sync_dir(dir)
}

/// The one in a data directory.
///
/// # Errors
/// Damage where it is none of this log; I/O.
pub fn load_order(
    dir: &Path,
    disk: &Disk,
    log: LogId,
) -> Result<Option<Arc<EraseOrder>>, StoreError> {
    let file = dir.join(ERASING_FILE);
    let Some(bytes) = disk.read(&file)? else { return Ok(None) };
    order_of(&bytes, log, &file).map(Arc::new).map(Some)
}

/// The one that the bytes of such a `file` say.
///
/// # Errors
/// Damage where it is none of this log.
pub fn order_of(bytes: &[u8], log: LogId, file: &Path) -> Result<EraseOrder, StoreError> {
    decode(bytes, log).ok_or_else(|| {
        let detail =
            "this order to erase events cannot be read; delete the file, and erase them again"
                .to_owned();
        Damage { from: Seq::ZERO, to: Seq::ZERO, file: file.to_owned(), detail }.into()
    })
}

/// The bytes of such a file.
pub fn order_bytes(log: LogId, order: &EraseOrder) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    out.extend_from_slice(order.reason.as_bytes());
    for range in &order.seqs {
        out.extend_from_slice(&range.start.get().to_le_bytes());
        out.extend_from_slice(&range.end.get().to_le_bytes());
    }
    out[..8].copy_from_slice(MAGIC);
    out[8..24].copy_from_slice(&log.uuid().into_bytes());
    out[24..40].copy_from_slice(&order.id.into_bytes());
    out[40..48].copy_from_slice(&order.at.as_nanos().to_le_bytes());
    out[48..56].copy_from_slice(&(order.seqs.len() as u64).to_le_bytes());
    out[56..60].copy_from_slice(&to_u32(order.reason.len()).to_le_bytes());
    let crc = crc32c(0, &out[HEADER_BYTES..]);
    out[60..64].copy_from_slice(&crc.to_le_bytes());
    seal_header(&mut out);
    out
}

fn seal_header(out: &mut [u8]) {
    let crc = crc32c(0, &out[..HEADER_BYTES - 4]);
    out[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn decode(bytes: &[u8], log: LogId) -> Option<EraseOrder> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let is_whole = header[..8] == *MAGIC
        && header[8..24] == log.uuid().into_bytes()
        && header[60..64] == crc32c(0, body).to_le_bytes()
        && header[92..] == crc32c(0, &header[..92]).to_le_bytes();
    let (ranges, reason_len) = (number(48), usize::try_from(number(56) & 0xffff_ffff).ok()?);
    if !is_whole || ranges > MAX_RANGES as u64 || reason_len > Erased::MAX_REASON_BYTES {
        return None;
    }
    let (reason, ranges_of) = body.split_at_checked(reason_len)?;
    if ranges_of.len() as u64 != ranges * RANGE_BYTES as u64 {
        return None;
    }
    let range = |range: &[u8]| {
        let (start, end) = range.split_first_chunk::<8>()?;
        let seq = |bytes: [u8; 8]| Seq::new(u64::from_le_bytes(bytes));
        Some(seq(*start)..seq(end.try_into().ok()?))
    };
    let mut id = [0; 16];
    id.copy_from_slice(&header[24..40]);
    let order = EraseOrder {
        id: Uuid::from_bytes(id),
        reason: String::from_utf8(reason.to_vec()).ok()?,
        at: Timestamp::from_nanos(number(40).cast_signed()),
        seqs: ranges_of.chunks_exact(RANGE_BYTES).map(range).collect::<Option<_>>()?,
    };
    order.check(Seq::MAX).ok().map(|()| order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_the_round_trip_and_no_flipped_bit() {
        let log = LogId::new(Uuid::from_bytes([7; 16]));
        let order = EraseOrder {
            id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            reason: "größe".to_owned(),
            at: Timestamp { seconds: 9, nanos: 5 },
            seqs: vec![Seq::new(3)..Seq::new(5), Seq::new(5)..Seq::new(9)],
        };
        let bytes = order_bytes(log, &order);
        assert_eq!(decode(&bytes, log), Some(order.clone()));
        assert_eq!(decode(&bytes, LogId::new(Uuid::from_bytes([8; 16]))), None);
        // Frozen.
        assert_eq!((&bytes[..8], bytes.len()), (&b"TMERASE\x01"[..], 96 + 7 + 32));
        assert_eq!(&bytes[24..28], [1, 2, 3, 4]);
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&bad, log), None, "bit {at}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], log), None);
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        assert!(load_order(dir.path(), &disk, log).unwrap().is_none());
        store(dir.path(), &disk, log, &order).unwrap();
        assert_eq!(load_order(dir.path(), &disk, log).unwrap().as_deref(), Some(&order));
        remove(dir.path(), &disk).unwrap();
        assert!(load_order(dir.path(), &disk, log).unwrap().is_none());
    }
}
