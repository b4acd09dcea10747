//! What was not sealed, as it is read back.

use std::io::BufRead;

use super::Manifest;
use super::manifest::Joint;
use crate::export::{self, Origin, Reader, Record};
use tailmark_log::chain::Link;
use tailmark_record::{Facts, Seq, Timestamp};

/// What was not sealed, read and proved.
pub(super) struct Tail<R> {
    reader: Reader<R>,
    pub(super) origin: Origin,
    /// The seq that comes next.
    pub(super) next: Seq,
    /// The chain before it.
    pub(super) link: Link,
    /// When the last one was appended.
    pub(super) last_at: Timestamp,
}

impl<R: BufRead> Tail<R> {
    pub(super) fn open(input: R) -> Result<Tail<R>, export::Error> {
        let mut reader = Reader::new(input)?;
        let origin = match reader.read()? {
            Some(Record::Header(header)) => Origin::of(*header)?,
            _ => return Err(export::Error::Cut { records: 0 }),
        };
        let (next, link, last_at) = (origin.first, origin.link_before, Timestamp::EPOCH);
        Ok(Tail { reader, origin, next, link, last_at })
    }

    /// As the last part of a backup; before the first event is read.
    pub(super) fn joint(&self) -> Joint {
        (self.next, self.origin.end, self.link, self.link)
    }

    /// Whether it is of the log and the head that the manifest says; else what is wrong.
    pub(super) fn belongs_to(&self, manifest: &Manifest) -> Result<(), &'static str> {
        if self.origin.meta.log.to_string() != manifest.log_id {
            return Err("what was not sealed is of another log");
        }
        if self.origin.end.prev() != Seq::new(manifest.head_seq) {
            return Err("it has not the events that it says");
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.reader.bytes()
    }

    /// The next event; `None` after the last, and then the chain is what the end says.
    pub(super) fn read(&mut self) -> Result<Option<Vec<u8>>, export::Error> {
        const OTHERS: export::Error =
            export::Error::Altered { what: "it has not the events that it says" };
        match self.reader.read()? {
            Some(Record::Event(event)) => {
                let facts = Facts::scan(&event).map_err(|_| OTHERS)?;
                if facts.seq != self.next {
                    return Err(OTHERS);
                }
                self.link = self.link.then_event(&event, &facts);
                self.last_at = facts.appended_at;
                self.next = self.next.next();
                Ok(Some(event))
            }
            Some(Record::End(end)) if self.next == self.origin.end => {
                let is_same = end.link == self.link.bytes()[..];
                is_same.then_some(None).ok_or(OTHERS)
            }
            Some(_) => Err(OTHERS),
            None => Ok(None),
        }
    }
}
