//! Cursors of places in the log, and whether a cursor's history is this one.
//!
//! A cursor carries a tag of the chain at its event. For the places that most are asked about, the
//! head, the oldest event and the ends of recent commits, memory holds the tag; for any other the
//! event tells.

use super::core::Core;
use super::fair_queue::Lane;
use super::read_path::{Published, ReadPath};
use super::reader_pool::Asker;
use super::resolve::resolve;
use super::{CursorError, ReadError};
use tailmark_record::{Bounds, ChainTag, Cursor, CursorMint, Seq};

/// Why it is not known where a cursor leads.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// A row of the cursor table.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The log could not be looked at.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ReadPath {
    /// The tag at `seq`, if memory has it.
    fn known_tag(&self, seq: Seq) -> Option<ChainTag> {
        self.known_tag_as_of(seq, *self.published.borrow())
    }

    fn known_tag_as_of(&self, seq: Seq, now: Published) -> Option<ChainTag> {
        match seq {
            Seq::ZERO => Some(ChainTag::START),
            seq if seq == now.head => Some(now.head_tag),
            seq if seq.next() == now.oldest => now.oldest_tag,
            seq => self.hot.recent.tag_of(seq),
        }
    }

    /// The tag at a seq that is readable, or just before; `None` where damage hides it, or it is gone.
    pub(super) async fn tag(&self, seq: Seq) -> Result<Option<ChainTag>, ReadError> {
        // Of one moment: a trim in between would hide what it keeps of the chain.
        let now = *self.published.borrow();
        if let Some(tag) = self.known_tag_as_of(seq, now) {
            return Ok(Some(tag));
        }
        if seq < now.oldest {
            // What was not known when the mark was set, or lies before what is kept.
            return Ok(None);
        }
        let asker = &mut Asker::default();
        match self.pool.ask(asker, Lane::Point, seq, move |store| store.tag_of(seq)).await {
            Ok(tag) => Ok(Some(tag)),
            Err(ReadError::Damaged(_) | ReadError::Removed(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Core {
    fn mint(&self, seq: Seq) -> CursorMint {
        let generation = self.generations.of(seq).generation;
        let mint = self.mints.iter().find(|mint| mint.generation() == generation);
        mint.copied().unwrap_or_else(|| CursorMint::new(self.id, generation))
    }

    /// The cursor of a seq at which the chain has this tag.
    pub(super) fn cursor_with(&self, seq: Seq, tag: Option<ChainTag>) -> String {
        match tag {
            Some(tag) => self.mint(seq).mint_string(seq, tag),
            None => self.mint(seq).mint_place(seq),
        }
    }

    /// The cursor of a seq, if memory has what it takes.
    pub(super) fn known_cursor(&self, seq: Seq) -> Option<String> {
        self.reads.known_tag(seq).map(|tag| self.cursor_with(seq, Some(tag)))
    }

    /// The cursor of a seq. Where its event can't be read it names the place and no more: what was there is
    /// then not compared when somebody comes back with it.
    pub(super) async fn cursor(&self, seq: Seq) -> String {
        let tag = self.reads.tag(seq).await.ok().flatten();
        self.cursor_with(seq, tag)
    }

    /// The seq that comes after a cursor, if its history is this one.
    pub(super) async fn resolve(&self, cursor: Cursor) -> Result<Seq, ResolveError> {
        loop {
            let bounds = self.bounds();
            let next = resolve(cursor, self.id, &bounds)?;
            let Cursor::Token { seq, tag: Some(tag), .. } = cursor else { return Ok(next) };
            return match self.reads.tag(seq).await {
                Ok(Some(here)) if here != tag => Err(parted(cursor, &bounds).into()),
                // Where damage hides the event, or it is gone, those after it are all that can be had.
                Ok(_) => Ok(next),
                // Meanwhile, so that another row applies.
                Err(ReadError::Trimmed { .. }) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

/// What is known of where two histories parted whose chains differ at a cursor.
pub fn parted(cursor: Cursor, bounds: &Bounds) -> CursorError {
    let begun = match cursor {
        Cursor::Token { generation, .. } => bounds.generations.first_of(generation),
        Cursor::Bare(_) => None,
    };
    // Its nonce was drawn once: whoever knows the generation has all before it.
    let last_common = begun.map_or(Seq::ZERO, Seq::prev);
    let at_most = cursor.seq().prev().max(last_common);
    CursorError::LogDiverged { last_common, at_most }
}
