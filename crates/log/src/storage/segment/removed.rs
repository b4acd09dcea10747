//! Ranges without events, as they lie among the segments: a directory with a footer and no database.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::footer::{
    HEADER_BYTES, Header, KIND_REMOVED, Reader, SECTION_HEADER_BYTES, Section, encode, kind,
};
use super::problem::{FORMAT, Problem, Result};
use super::{FOOTER, dir};
use crate::chain::Link;
use crate::storage::disk::Disk;
use crate::storage::{Damage, Removed, RemovedReason, StoreError};
use tailmark_record::{LogId, Seq};

/// On disk.
const REASON_EXPIRED: u8 = 1;
const REASON_COMPACTED: u8 = 2;
const REASON_DAMAGED: u8 = 3;
/// Such a file is some hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A range without events, in its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedRange {
    /// Its directory.
    pub dir: PathBuf,
    /// The log it belongs to.
    pub log: LogId,
    /// How often it was written, from 1.
    pub revision: u32,
    /// Which, and why.
    pub range: Removed,
}

impl RemovedRange {
    /// Puts it into `parent`. It survives a power loss when this returns.
    ///
    /// # Errors
    /// I/O.
    pub fn store(
        parent: &Path,
        log: LogId,
        revision: u32,
        range: Removed,
        disk: &Disk,
    ) -> Result<RemovedRange, StoreError> {
        let tmp = parent.join(dir::tmp_name(range.first, revision));
        disk.remove_tree(&tmp)?;
        disk.create_dir(&tmp)?;
        let footer = tmp.join(FOOTER);
        let section = encode_range(log, revision, &range);
        disk.write_new(&footer, &encode(KIND_REMOVED, &[(kind::REMOVED, section.into())]))?;
        disk.sync_file(&footer)?;
        disk.sync_dir(&tmp)?;
        let target = parent.join(dir::name(range.first, revision));
        if let Err(error) = disk.rename(&tmp, &target).and_then(|()| disk.sync_dir(parent)) {
            if target.exists() {
                // Nobody is told of it.
                let _ = dir::trash(&target, disk);
            }
            return Err(error);
        }
        Ok(RemovedRange { dir: target, log, revision, range })
    }

    /// Reads the one in `dir`; `None` where that is none, but a segment with events perhaps.
    ///
    /// # Errors
    /// Damage of one that is one; I/O.
    pub fn load(dir: &Path, disk: &Disk) -> Result<Option<RemovedRange>, StoreError> {
        let path = dir.join(FOOTER);
        let is_small = std::fs::metadata(&path).is_ok_and(|it| it.len() <= MAX_BYTES);
        if !is_small {
            return Ok(None);
        }
        let Some(bytes) = disk.read(&path)? else { return Ok(None) };
        let from = dir::parse_name(dir).map_or(Seq::ZERO, |(first, _)| first);
        match decode(&bytes) {
            Ok((log, revision, range)) if dir::parse_name(dir) == Some((range.first, revision)) => {
                Ok(Some(RemovedRange { dir: dir.to_owned(), log, revision, range }))
            }
            Err(Problem::Version(_)) => Ok(None),
            Ok(_) => Err(damage(from, path, "the footer is that of another range").into()),
            Err(Problem::Damaged(what)) => Err(damage(from, path, what).into()),
        }
    }
}

/// A reason as it is on disk.
pub(super) fn reason_byte(reason: RemovedReason) -> u8 {
    match reason {
        RemovedReason::Expired => REASON_EXPIRED,
        RemovedReason::Compacted => REASON_COMPACTED,
        RemovedReason::Damaged => REASON_DAMAGED,
    }
}

/// What such a byte says; `None` for one that this program does not know.
pub(super) fn reason_of(byte: u8) -> Option<RemovedReason> {
    match byte {
        REASON_EXPIRED => Some(RemovedReason::Expired),
        REASON_COMPACTED => Some(RemovedReason::Compacted),
        REASON_DAMAGED => Some(RemovedReason::Damaged),
        _ => None,
    }
}

fn damage(from: Seq, file: PathBuf, detail: &str) -> Damage {
    Damage { from, to: Seq::ZERO, file, detail: detail.to_owned() }
}

fn encode_range(log: LogId, revision: u32, range: &Removed) -> Vec<u8> {
    let reason = reason_byte(range.reason);
    let mut out = log.uuid().as_bytes().to_vec();
    out.extend_from_slice(&range.first.get().to_le_bytes());
    out.extend_from_slice(&range.end.get().to_le_bytes());
    out.extend_from_slice(&revision.to_le_bytes());
    out.extend_from_slice(&[reason, 0, 0, 0]);
    out.extend_from_slice(&range.link_before.bytes());
    out.extend_from_slice(&range.link.bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<(LogId, u32, Removed)> {
    let header = Header::decode_kind(bytes, u32::from(FORMAT), KIND_REMOVED)?;
    if header.file_len != bytes.len() as u64 || usize::from(header.header_len) != HEADER_BYTES {
        return Err("its length is not what it was".into());
    }
    const CUT: Problem = Problem::Damaged("a section reaches beyond its end");
    let (head, payload) =
        bytes[HEADER_BYTES..].split_at_checked(SECTION_HEADER_BYTES).ok_or(CUT)?;
    let (section, _) = Section::decode(head)?;
    if header.sections != 1 || section.kind != kind::REMOVED {
        return Err(Problem::Version(FORMAT));
    }
    section.check(payload)?;
    let mut r = Reader(payload);
    let log = LogId::new(Uuid::from_bytes(r.hash()?));
    let (first, end) = (Seq::new(r.u64()?), Seq::new(r.u64()?));
    let revision = r.u32()?;
    let reason = reason_of(r.u8()?).ok_or(Problem::Version(FORMAT))?;
    r.take(3)?;
    let (link_before, link) = (Link::new(r.hash()?), Link::new(r.hash()?));
    r.end()?;
    if first == Seq::ZERO || first >= end {
        return Err("its range makes no sense".into());
    }
    Ok((log, revision, Removed { first, end, reason, link_before, link }))
}
