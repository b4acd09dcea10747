//! What a cursor means, and what a watch after it would answer now.

use std::path::Path;

use super::Error;
use super::cover::{bounds_of, look};
use super::dump::{Found, Selection, dump};
use tailmark_log::eventlog::{CursorError, parted, resolve};
use tailmark_log::storage::StoreError;
use tailmark_record::json::write_event;
use tailmark_record::{
    Bounds, ChainTag, Cursor, CursorFormatError, Generation, GenerationEntry, LogId, Seq, Timestamp,
};

/// What a token says, beside its seq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Version of its form.
    pub version: u8,
    /// The short id of the log it comes from.
    pub log: u32,
    /// That is this log.
    pub is_of_this_log: bool,
    /// The generation of its event.
    pub generation: Generation,
    /// That generation, where this log knows it.
    pub known_as: Option<GenerationEntry>,
    /// The chain at its event; cursors of version 1 do not say it.
    pub tag: Option<ChainTag>,
}

/// What a watch would answer now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It would begin at `next`, with `ready` events to replay first.
    Starts {
        /// The first event that it would deliver.
        next: Seq,
        /// Events from there to the head.
        ready: u64,
    },
    /// It would refuse.
    Refuses(CursorError),
}

/// What a cursor means.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The log that was asked.
    pub log: LogId,
    /// What it has now.
    pub bounds: Bounds,
    /// The event that the cursor names; 0 = before the first.
    pub seq: Seq,
    /// What else it says; nothing if it is a bare number.
    pub token: Option<Token>,
    /// What a watch would answer.
    pub answer: Answer,
    /// The event it names, as JSON, where that is of this log's history and can be read.
    pub event: Option<String>,
    /// When that event was appended.
    pub appended_at: Option<Timestamp>,
    /// Why its event can't be shown although it should be there.
    pub unreadable: Option<String>,
    /// The chain at that event, as the log has it.
    here: Option<ChainTag>,
}

/// Explains a cursor to the log in `dir`. The inner error is about the text alone.
///
/// # Errors
/// No log, another format, I/O.
pub fn explain(dir: &Path, text: &str) -> Result<Result<Explanation, CursorFormatError>, Error> {
    let cursor = match Cursor::parse(text) {
        Ok(cursor) => cursor,
        Err(error) => return Ok(Err(error)),
    };
    let found = look(dir)?;
    let oldest_tag = found.slots.last().and_then(|slot| slot.scan.oldest_tag);
    let (Some(log), Some(bounds)) = (found.meta.as_ref().map(|meta| meta.log), bounds_of(&found))
    else {
        return Err(StoreError::Invalid("the log has no identity").into());
    };
    let token = match cursor {
        Cursor::Bare(_) => None,
        Cursor::Token { log: short, generation, tag, .. } => {
            let mut known = bounds.generations.entries().iter();
            let known_as = known.find(|entry| entry.generation == generation).cloned();
            let is_of_this_log = short == log.short();
            let version = if tag.is_some() { 2 } else { 1 };
            Some(Token { version, log: short, is_of_this_log, generation, known_as, tag })
        }
    };
    let answer = match resolve(cursor, log, &bounds) {
        Ok(next) => Answer::Starts { next, ready: next.distance_to(bounds.next()) },
        Err(error) => Answer::Refuses(error),
    };
    let mut explanation = Explanation {
        log,
        bounds,
        seq: cursor.seq(),
        token,
        answer,
        event: None,
        appended_at: None,
        unreadable: None,
        here: None,
    };
    if explanation.names_a_readable_event() {
        explanation.read(dir)?;
    }
    let here = match explanation.seq {
        Seq::ZERO => Some(ChainTag::START),
        seq if seq.next() == explanation.bounds.oldest => oldest_tag,
        _ => explanation.here,
    };
    explanation.compare(cursor, here);
    Ok(Ok(explanation))
}

impl Explanation {
    fn names_a_readable_event(&self) -> bool {
        let is_ours = match (&self.answer, &self.token) {
            (Answer::Refuses(CursorError::LogChanged | CursorError::LogDiverged { .. }), _) => {
                false
            }
            (_, Some(token)) => token.is_of_this_log,
            (_, None) => true,
        };
        is_ours && self.seq >= self.bounds.oldest && self.seq <= self.bounds.head
    }

    /// A cursor whose event is another one here is of another history.
    fn compare(&mut self, cursor: Cursor, here: Option<ChainTag>) {
        let tag = self.token.as_ref().and_then(|token| token.tag);
        if matches!(self.answer, Answer::Starts { .. })
            && tag.zip(here).is_some_and(|(tag, here)| tag != here)
        {
            self.answer = Answer::Refuses(parted(cursor, &self.bounds));
            (self.event, self.appended_at) = (None, None);
        }
    }

    fn read(&mut self, dir: &Path) -> Result<(), Error> {
        let only = Some(self.seq);
        let selection = Selection { from: only, to: only, ..Selection::default() };
        dump(dir, &selection, |found| {
            match found {
                Found::Event(event) => {
                    let mut json = Vec::new();
                    write_event(&mut json, event);
                    self.event = Some(String::from_utf8_lossy(&json).into_owned());
                    self.appended_at = event.appended_at;
                    self.here = match Cursor::parse(event.cursor) {
                        Ok(Cursor::Token { tag, .. }) => tag,
                        _ => None,
                    };
                }
                Found::Lost(damage) => self.unreadable = Some(damage.to_string()),
                Found::Removed(range) => self.unreadable = Some(range.to_string()),
                Found::Trimmed { .. } => {}
            }
            Ok(())
        })?;
        Ok(())
    }
}
