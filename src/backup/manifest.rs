//! What belongs to one backup.

use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::Error;
use super::target::is_plain;
use tailmark_log::chain::Link;
use tailmark_log::storage::{Removed, RemovedReason};
use tailmark_record::Seq;

/// Of this form.
const VERSION: u32 = 1;

/// What belongs to one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of the form: 1.
    pub version: u32,
    /// Whose.
    pub log_id: String,
    /// First readable seq.
    pub oldest_seq: u64,
    /// The chain at the event before that, if it is known.
    pub oldest_tag: Option<u32>,
    /// Last seq.
    pub head_seq: u64,
    /// When it was taken, in seconds since 1970.
    pub taken_at: i64,
    /// What is sealed, in order.
    pub segments: Vec<SegmentRow>,
    /// Ranges without events, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedRow>,
    /// Names of the files that tell repeats of trimmed events, each with its hash behind.
    pub trimmed: Vec<String>,
    /// Bytes of what was not sealed.
    pub tail_bytes: u64,
    /// XXH3-128 of that, in hex; backups of before it was written down have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_hash: Option<String>,
}

/// A segment of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRow {
    /// Its directory.
    pub name: String,
    /// First seq.
    pub first_seq: u64,
    /// Last seq.
    pub last_seq: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A range without events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedRow {
    /// First seq.
    pub first_seq: u64,
    /// Last seq.
    pub last_seq: u64,
    /// Why.
    pub reason: Reason,
    /// The chain before it.
    pub link_before: [u8; 16],
    /// The chain at its last event, as far as it is known.
    pub link: [u8; 16],
}

/// Why there are no events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The retention of their topics let them go.
    Expired,
    /// Newer ones have taken the place of at least one; others may have expired.
    Compacted,
    /// They were damaged, and lost when the log was salvaged.
    Damaged,
}

impl RemovedRow {
    pub(super) fn of(range: &Removed) -> RemovedRow {
        RemovedRow {
            first_seq: range.first.get(),
            last_seq: range.end.prev().get(),
            reason: match range.reason {
                RemovedReason::Expired => Reason::Expired,
                RemovedReason::Compacted => Reason::Compacted,
                RemovedReason::Damaged => Reason::Damaged,
            },
            link_before: range.link_before.bytes(),
            link: range.link.bytes(),
        }
    }

    pub(super) fn range(&self) -> Removed {
        Removed {
            first: Seq::new(self.first_seq),
            end: Seq::new(self.last_seq).next(),
            reason: match self.reason {
                Reason::Expired => RemovedReason::Expired,
                Reason::Compacted => RemovedReason::Compacted,
                Reason::Damaged => RemovedReason::Damaged,
            },
            link_before: Link::new(self.link_before),
            link: Link::new(self.link),
        }
    }
}

/// A part of a backup: where it begins and ends, and the chain before it and at its end.
pub(super) type Joint = (Seq, Seq, Link, Link);

/// Of a range without events.
pub(super) fn joint_of(range: &Removed) -> Joint {
    (range.first, range.end, range.link_before, range.link)
}

/// The first seq at which a part does not go on where the one before it ends, if any does not.
pub(super) fn parted(mut parts: Vec<Joint>) -> Option<Seq> {
    parts.sort_by_key(|(first, ..)| *first);
    let goes_on = |two: &[Joint]| {
        let ((_, end, _, link), (first, _, before, _)) = (two[0], two[1]);
        end == first && link.joins(before)
    };
    parts.windows(2).find(|two| !goes_on(two)).map(|two| two[0].1)
}

impl Manifest {
    /// Of the form that this program writes.
    pub(super) const VERSION: u32 = VERSION;

    /// Bytes of all its parts, those that it shares with others too.
    pub fn bytes(&self) -> u64 {
        self.tail_bytes + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Its bytes, with their hash behind.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Error> {
        let unwritable = |_| Error::Senseless { what: "it cannot be written down" };
        let body = serde_json::to_string(self).map_err(unwritable)?;
        Ok(format!("{body}\n{:032x}\n", xxh3_128(body.as_bytes())).into_bytes())
    }

    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Manifest, Error> {
        let damaged = |what| Error::Damaged { path: path.to_owned(), what };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let (body, hash) = text.split_once('\n').ok_or_else(|| damaged("it is cut"))?;
        if hash != format!("{:032x}\n", xxh3_128(body.as_bytes())) {
            return Err(damaged("it is not what was written"));
        }
        let manifest: Manifest =
            serde_json::from_str(body).map_err(|_| damaged("it is of a newer form"))?;
        if manifest.version != VERSION {
            return Err(damaged("it is of a newer form"));
        }
        // Its hash says that nothing rotted, not who wrote it.
        let mut names = manifest.segments.iter().map(|row| &row.name).chain(&manifest.trimmed);
        if !names.all(|name| is_plain(name)) {
            return Err(damaged("it has a name that leads elsewhere"));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(segment: &str, trimmed: &str) -> Manifest {
        let name = segment.to_owned();
        Manifest {
            version: VERSION,
            log_id: "l".to_owned(),
            oldest_seq: 1,
            oldest_tag: None,
            head_seq: 1,
            taken_at: 0,
            segments: vec![SegmentRow { name, first_seq: 1, last_seq: 1, bytes: 1 }],
            removed: Vec::new(),
            trimmed: vec![trimmed.to_owned()],
            tail_bytes: 0,
            tail_hash: None,
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let decoded = |manifest: &Manifest| {
            Manifest::decode(Path::new("x"), &manifest.encode().unwrap()).map_err(|e| e.to_string())
        };
        for name in ["/tmp/x", "../x", "..", ".", "", "a/b", "a\0", "a\\b"] {
            for manifest in [naming(name, "1-2-ab"), naming("1-1-ab", name)] {
                let told = decoded(&manifest).unwrap_err();
                assert!(told.contains("leads elsewhere"), "{name}: {told}");
            }
        }
        // The null control.
        let plain = naming("1-1-ab", "1-2-ab");
        assert_eq!(decoded(&plain).unwrap(), plain);
    }

    #[test]
    fn one_without_the_hash_of_its_tail_is_read_too() {
        let old = naming("1-1-ab", "1-2-ab");
        let bytes = old.encode().unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("tail_hash"));
        assert_eq!(Manifest::decode(Path::new("x"), &bytes).unwrap(), old);
        let new = Manifest { tail_hash: Some("ab".to_owned()), ..old };
        assert_eq!(Manifest::decode(Path::new("x"), &new.encode().unwrap()).unwrap(), new);
    }
}
