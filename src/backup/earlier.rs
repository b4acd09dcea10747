//! What was trimmed before a backup was taken: other backups of the place may still have it.
//!
//! A trim that was a mistake is undone this way. Parts are looked for backwards from where the backup begins,
//! and one counts only if the chain over its events leads to what follows it: the place may hold backups of two
//! lives of a log.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

use super::tail::Tail;
use super::{Error, Manifest, SegmentRow, Target};
use tailmark_log::chain::Link;
use tailmark_log::storage::segment::{OfflineReader, Segment};
use tailmark_log::storage::{Removed, StoreError};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Cursor, Event, Events, Seq};

/// A run of events, or of seqs without them, as a backup has it.
pub(super) struct Part {
    pub(super) source: Source,
    /// The first that is taken of it.
    pub(super) first: Seq,
    /// The seq after the last that is taken of it.
    pub(super) end: Seq,
    pub(super) link_before: Link,
}

/// Where it lies.
pub(super) enum Source {
    /// A segment.
    Segment(Arc<Segment>, SegmentRow),
    /// What was not sealed when the backup of this name was taken.
    Tail(String),
    /// There are no events.
    Gone(Removed),
}

impl Part {
    pub(super) fn segment(segment: Arc<Segment>, row: SegmentRow) -> Part {
        let (first, end) = (segment.first(), segment.end());
        let link_before = segment.link_before();
        Part { source: Source::Segment(segment, row), first, end, link_before }
    }

    pub(super) fn gone(range: Removed) -> Part {
        let Removed { first, end, link_before, .. } = range;
        Part { source: Source::Gone(range), first, end, link_before }
    }
}

/// The parts of other backups that lead to `begin`, where `link` is the chain before it, in order: as far
/// back as `from` if there are so many. `seen` hears that it goes on.
pub(super) fn before(
    target: &Target,
    name: &str,
    (begin, link): (Seq, Link),
    from: Seq,
    seen: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Vec<Part>, Error> {
    let (mut others, mut unread) = (Vec::new(), Unread(None));
    // The newest first: what was erased since is erased there.
    for other in target.names()?.into_iter().rev().filter(|other| other != name) {
        others.extend(unread.note(target.backup(Some(&other)))?);
    }
    let (mut at, mut link, mut parts) = (begin, link, Vec::new());
    while at > from {
        let part = part_before(target, &others, (at, link), &mut unread, seen)?;
        let Some(part) = part else { break };
        (at, link) = (part.first, part.link_before);
        parts.push(part);
    }
    // It may have had what is missing.
    if let (Some(error), true) = (unread.0, at > from) {
        return Err(error);
    }
    parts.reverse();
    Ok(parts)
}

/// Why something could not be read that another backup may have too.
struct Unread(Option<Error>);

impl Unread {
    /// What was read. Damage is kept for the end; any other error ends it.
    fn note<T>(&mut self, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(
                error
                @ (Error::Damaged { .. } | Error::Store(_) | Error::Tail(_) | Error::Place(_)),
            ) => {
                if matches!(&error, Error::Tail(crate::export::Error::Output(_))) {
                    return Err(error);
                }
                self.0.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Which time a segment was written, by its name: `FIRST-REVISION-HASH`.
fn revision(name: &str) -> u32 {
    name.split('-').nth(1).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// One that leads to `at`: whole segments before parts of one, and those before what was not sealed.
fn part_before(
    target: &Target,
    others: &[(String, Manifest)],
    (at, link): (Seq, Link),
    unread: &mut Unread,
    seen: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Option<Part>, Error> {
    let mut rows: Vec<_> = others
        .iter()
        .flat_map(|(_, manifest)| manifest.segments.iter().map(move |row| (row, manifest)))
        .filter(|(row, _)| row.first_seq < at.get() && at.get() <= row.last_seq + 1)
        .collect();
    // The longest first, and of the same events what was written last: others have what was erased since. Each once.
    rows.sort_by_key(|(row, _)| (row.first_seq, Reverse(revision(&row.name)), row.name.clone()));
    rows.dedup_by(|(a, _), (b, _)| a.name == b.name);
    let (whole, cut): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(row, _)| row.last_seq + 1 == at.get());
    for (row, manifest) in whole {
        let Some(segment) = unread.note(target.segment(row, manifest))? else { continue };
        if segment.link().joins(link) {
            return Ok(Some(Part::segment(Arc::new(segment), row.clone())));
        }
    }
    let gone = others.iter().flat_map(|(_, manifest)| &manifest.removed);
    let mut gone = gone.map(super::RemovedRow::range);
    if let Some(range) = gone.find(|range| range.end == at && range.link.joins(link)) {
        return Ok(Some(Part::gone(range)));
    }
    for (row, manifest) in cut {
        seen()?;
        let here = target
            .segment(row, manifest)
            .and_then(|segment| target.fetch(&segment, row, &mut |_| Ok(())))
            .and_then(|here| Ok((tag_at(&here, at.prev())?, here)));
        let Some((tag, here)) = unread.note(here)? else { continue };
        if Link::of_tag(tag).joins(link) {
            return Ok(Some(Part { end: at, ..Part::segment(here, row.clone()) }));
        }
    }
    for (name, manifest) in others {
        if manifest.head_seq < at.prev().get() {
            continue;
        }
        seen()?;
        let leads = leading_tail(target, (name, manifest), (at, link), seen);
        if let Some(part) = unread.note(leads)?.flatten() {
            return Ok(Some(part));
        }
    }
    Ok(None)
}

/// What was not sealed in a backup, if it leads to `at`.
fn leading_tail(
    target: &Target,
    (name, manifest): (&str, &Manifest),
    (at, link): (Seq, Link),
    seen: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Option<Part>, Error> {
    let mut tail = Tail::open(target.open_tail(name)?)?;
    let (first, link_before) = (tail.next, tail.link);
    if first >= at {
        return Ok(None);
    }
    while tail.next < at && tail.read()?.is_some() {}
    if tail.next != at || !tail.link.joins(link) {
        return Ok(None);
    }
    target.prove_tail(name, manifest, &mut *seen)?;
    let source = Source::Tail(name.to_owned());
    Ok(Some(Part { source, first, end: at, link_before }))
}

/// The chain's tag at an event of a segment that lies on this machine; of those that are gone at the last of
/// neighbours alone.
pub(super) fn tag_at(segment: &Arc<Segment>, seq: Seq) -> Result<ChainTag, Error> {
    const MALFORMED: StoreError = StoreError::Invalid("an event is malformed");
    let scratch = segment.dir().parent().unwrap_or(Path::new("."));
    let reader = OfflineReader::of(Arc::clone(segment), scratch)?;
    let chunk = match reader.read(seq, seq.next(), &Filter::ALL) {
        Err(StoreError::Removed(range)) if range.end == seq.next() => {
            let tag = range.link.known_tag();
            return tag.ok_or_else(|| StoreError::Removed(range).into());
        }
        chunk => chunk?,
    };
    let event = Events::new(&chunk.events).next().and_then(Result::ok);
    let event = event.and_then(|event| Event::parse(event).ok()).ok_or(MALFORMED)?;
    match Cursor::parse(event.cursor) {
        Ok(Cursor::Token { tag: Some(tag), .. }) => Ok(tag),
        _ => Err(MALFORMED.into()),
    }
}
