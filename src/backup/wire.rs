//! What a backup is made of, as messages of `Backup`, and back.

use std::collections::HashSet;

use super::sink::{Hash, Look, Sink};
use super::{Error, Reason, RemovedRow, SegmentRow};
use pb::backup_part::Part;
use tailmark_record::{ChainTag, Seq};
use tailmark_wire::feed_v1 as pb;

/// Bytes of a file in one message.
const DATA_BYTES: usize = 64 << 10;
/// Rows of segments in one message.
const ROWS: usize = 500;
/// Segments that a request may name.
const MAX_SAID: usize = 8_000;
/// More segments no log has.
const MAX_SEGMENTS: usize = 1_000_000;

/// What tells a segment in a request: the first bytes of the hash in its name.
type Short = [u8; 8];

/// What a request says of the segments that there are; the newest, if there are too many.
pub(super) fn request(mut names: Vec<&str>) -> pb::BackupRequest {
    names.sort_unstable();
    let newest = names.iter().rev().take(MAX_SAID);
    let has: Vec<u8> = newest.filter_map(|name| short(name)).flatten().collect();
    pb::BackupRequest { has: has.into() }
}

fn short(name: &str) -> Option<Short> {
    let (_, hex) = name.rsplit_once('-')?;
    let hash = u128::from_str_radix(hex, 16).ok()?.to_be_bytes();
    hash.first_chunk().copied()
}

/// Makes messages of it.
pub struct Messages<F> {
    /// Segments that the other side has.
    has: HashSet<Short>,
    send: F,
}

impl<F: FnMut(pb::BackupPart) -> Result<(), Error>> Messages<F> {
    /// Hands them to `send`.
    ///
    /// # Errors
    /// [`Error::Senseless`] where the request is none.
    pub fn new(request: &pb::BackupRequest, send: F) -> Result<Messages<F>, Error> {
        let (has, rest) = request.has.as_chunks();
        if !rest.is_empty() || has.len() > MAX_SAID {
            return Err(Error::Senseless { what: "8 bytes for each of at most 8,000 segments" });
        }
        Ok(Messages { has: has.iter().copied().collect(), send })
    }

    fn say(&mut self, part: Part) -> Result<(), Error> {
        (self.send)(pb::BackupPart { part: Some(part) })
    }
}

impl<F: FnMut(pb::BackupPart) -> Result<(), Error>> Sink for Messages<F> {
    fn begin(&mut self, look: Look) -> Result<(), Error> {
        let segments = u32::try_from(look.segments.len());
        self.say(Part::Look(pb::BackupLook {
            log_id: look.log_id,
            oldest_seq: look.oldest.get(),
            oldest_tag: look.oldest_tag.map(|tag| tag.get()),
            head_seq: look.head.get(),
            segments: segments.map_err(|_| Error::Senseless { what: "too many segments" })?,
            removed: look.removed.iter().map(removed).collect(),
        }))?;
        for rows in look.segments.chunks(ROWS) {
            let row = |row: &SegmentRow| pb::BackupSegment {
                name: row.name.clone(),
                first_seq: row.first_seq,
                last_seq: row.last_seq,
                bytes: row.bytes,
            };
            let segments = rows.iter().map(row).collect();
            self.say(Part::Segments(pb::BackupSegments { segments }))?;
        }
        Ok(())
    }

    fn has(&self, segment: &SegmentRow) -> bool {
        short(&segment.name).is_some_and(|short| self.has.contains(&short))
    }

    fn file(&mut self, name: &str) -> Result<(), Error> {
        self.say(Part::File(name.to_owned()))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut pieces = bytes.chunks(DATA_BYTES);
        pieces.try_for_each(|piece| self.say(Part::Data(piece.to_vec().into())))
    }

    fn close(&mut self, len: u64, hash: Hash) -> Result<(), Error> {
        self.say(Part::FileEnd(pb::BackupFileEnd { bytes: len, hash: hash.to_vec().into() }))
    }

    fn end(&mut self) -> Result<(), Error> {
        self.say(Part::End(pb::BackupEnd {}))
    }
}

fn removed(row: &RemovedRow) -> pb::BackupRemoved {
    let reason = match row.reason {
        Reason::Expired => pb::gap::Reason::Expired,
        Reason::Compacted => pb::gap::Reason::Compacted,
        Reason::Damaged => pb::gap::Reason::Damaged,
    };
    pb::BackupRemoved {
        first_seq: row.first_seq,
        last_seq: row.last_seq,
        reason: reason.into(),
        link_before: row.link_before.to_vec().into(),
        link: row.link.to_vec().into(),
    }
}

fn removed_row(range: &pb::BackupRemoved) -> Result<RemovedRow, Error> {
    const OTHERS: Error = Error::Senseless { what: "a range without events makes no sense" };
    let link = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map_err(|_| OTHERS);
    let reason = match range.reason() {
        pb::gap::Reason::Expired => Reason::Expired,
        pb::gap::Reason::Compacted => Reason::Compacted,
        pb::gap::Reason::Damaged => Reason::Damaged,
        _ => return Err(Error::Senseless { what: "a range without events is of a newer form" }),
    };
    if range.first_seq == 0 || range.first_seq > range.last_seq {
        return Err(OTHERS);
    }
    Ok(RemovedRow {
        first_seq: range.first_seq,
        last_seq: range.last_seq,
        reason,
        link_before: link(&range.link_before)?,
        link: link(&range.link)?,
    })
}

/// Makes of messages what a backup is made of.
#[derive(Debug, Default)]
pub struct Reading {
    /// A look whose segments have not all come, and how many there are.
    look: Option<(Look, usize)>,
    is_over: bool,
}

impl Reading {
    /// Hands the next one to `sink`.
    ///
    /// # Errors
    /// [`Error::Senseless`], and what `sink` answers.
    pub fn take(&mut self, part: pb::BackupPart, sink: &mut dyn Sink) -> Result<(), Error> {
        const OTHERS: Error = Error::Senseless { what: "its messages are not in their order" };
        match part.part {
            _ if self.is_over => return Err(OTHERS),
            Some(Part::Look(look)) => {
                let count = usize::try_from(look.segments).unwrap_or(usize::MAX);
                if count > MAX_SEGMENTS {
                    return Err(Error::Senseless { what: "more segments than any log has" });
                }
                let look = Look {
                    log_id: look.log_id,
                    oldest: Seq::new(look.oldest_seq),
                    oldest_tag: look.oldest_tag.map(ChainTag::new),
                    head: Seq::new(look.head_seq),
                    segments: Vec::new(),
                    removed: look.removed.iter().map(removed_row).collect::<Result<_, _>>()?,
                };
                self.look = Some((look, count));
                self.begin(sink)?;
            }
            Some(Part::Segments(rows)) => {
                let (look, count) = self.look.as_mut().ok_or(OTHERS)?;
                look.segments.extend(rows.segments.into_iter().map(|row| SegmentRow {
                    name: row.name,
                    first_seq: row.first_seq,
                    last_seq: row.last_seq,
                    bytes: row.bytes,
                }));
                if look.segments.len() > *count {
                    return Err(OTHERS);
                }
                self.begin(sink)?;
            }
            _ if self.look.is_some() => return Err(OTHERS),
            Some(Part::File(name)) => sink.file(&name)?,
            Some(Part::Data(bytes)) => sink.data(&bytes)?,
            Some(Part::FileEnd(end)) => {
                let hash = Hash::try_from(&end.hash[..]).map_err(|_| OTHERS)?;
                sink.close(end.bytes, hash)?;
            }
            Some(Part::End(_)) => {
                sink.end()?;
                self.is_over = true;
            }
            None => return Err(Error::Senseless { what: "a message is of a newer form" }),
        }
        Ok(())
    }

    /// Whether all has come.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Tells of the look once all of it is there.
    fn begin(&mut self, sink: &mut dyn Sink) -> Result<(), Error> {
        match self.look.take_if(|(look, count)| look.segments.len() == *count) {
            Some((look, _)) => sink.begin(look),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it hears.
    #[derive(Default)]
    struct Heard(Vec<String>);

    impl Sink for Heard {
        fn begin(&mut self, look: Look) -> Result<(), Error> {
            self.0.push(format!("{look:?}"));
            Ok(())
        }

        fn has(&self, _: &SegmentRow) -> bool {
            false
        }

        fn file(&mut self, name: &str) -> Result<(), Error> {
            self.0.push(name.to_owned());
            Ok(())
        }

        fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
            self.0.push(format!("{} bytes", bytes.len()));
            Ok(())
        }

        fn close(&mut self, len: u64, hash: Hash) -> Result<(), Error> {
            self.0.push(format!("{len} {hash:?}"));
            Ok(())
        }

        fn end(&mut self) -> Result<(), Error> {
            self.0.push("end".to_owned());
            Ok(())
        }
    }

    fn look(segments: u64) -> Look {
        let row = |at: u64| SegmentRow {
            name: format!("{at:020}-1-{:032x}", u128::from(at) << 64 | 7),
            first_seq: at,
            last_seq: at + 9,
            bytes: 5,
        };
        Look {
            log_id: "log".to_owned(),
            oldest: Seq::new(4),
            oldest_tag: Some(ChainTag::new(9)),
            head: Seq::new(70),
            segments: (1..=segments).map(row).collect(),
            removed: vec![RemovedRow {
                first_seq: 11,
                last_seq: 12,
                reason: Reason::Damaged,
                link_before: [1; 16],
                link: [2; 16],
            }],
        }
    }

    fn say(sink: &mut dyn Sink, segments: u64) {
        sink.begin(look(segments)).unwrap();
        sink.file("tail").unwrap();
        sink.data(&[1; DATA_BYTES]).unwrap();
        sink.close(DATA_BYTES as u64, [3; 16]).unwrap();
        sink.end().unwrap();
    }

    fn messages(segments: u64) -> Vec<pb::BackupPart> {
        let mut all = Vec::new();
        let keep = |part| {
            all.push(part);
            Ok(())
        };
        say(&mut Messages::new(&pb::BackupRequest::default(), keep).unwrap(), segments);
        all
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        for segments in [0, 1, 500, 1_700] {
            let (mut heard, mut wanted) = (Heard::default(), Heard::default());
            say(&mut wanted, segments);
            let mut reading = Reading::default();
            for part in messages(segments) {
                assert!(!reading.is_over());
                reading.take(part, &mut heard).unwrap();
            }
            assert!(reading.is_over());
            assert_eq!(heard.0, wanted.0);
        }
    }

    #[test]
    fn what_is_missing_or_comes_twice_is_refused() {
        let all = messages(1_700);
        let is_taken = |all: Vec<pb::BackupPart>| {
            let mut reading = Reading::default();
            let mut heard = Heard::default();
            let taken = all.into_iter().try_for_each(|part| reading.take(part, &mut heard));
            taken.is_ok() && reading.is_over()
        };
        assert!(is_taken(all.clone()));
        // The rows of segments, the first of which is behind the look.
        for at in 1..5 {
            let (mut less, mut more) = (all.clone(), all.clone());
            less.remove(at);
            more.insert(at, all[at].clone());
            assert!(!is_taken(less) && !is_taken(more), "{at}");
        }
        let mut more = all.clone();
        more.push(pb::BackupPart::default());
        assert!(!is_taken(more));
        assert!(!is_taken(all[..all.len() - 1].to_vec()));
    }

    #[test]
    fn a_request_names_the_newest_segments_and_they_are_not_sent() {
        let rows = look(9_000).segments;
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let request = request(names);
        assert_eq!(request.has.len(), 8 * MAX_SAID);
        let messages = Messages::new(&request, |_| Ok(())).unwrap();
        let said: Vec<_> = rows.iter().map(|row| messages.has(row)).collect();
        assert!(said[1_000..].iter().all(|has| *has) && !said[..1_000].iter().any(|has| *has));
        for has in [vec![0; 9], vec![0; 8 * (MAX_SAID + 1)]] {
            let request = pb::BackupRequest { has: has.into() };
            assert!(Messages::new(&request, |_| Ok(())).is_err());
        }
    }
}
