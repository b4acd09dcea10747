//! Searching a table: to a name, and on from there in order.

use super::page::{Entry, Link, Origin, SENSELESS, Walk, check_list, each_block};
use super::{Blocks, Pages, Summary};
use crate::storage::TopicStats;
use crate::storage::segment::problem::Result as Read;

/// A place in a table. Reads a page when it comes to it.
#[derive(Debug)]
pub(in crate::storage::segment) struct Cursor {
    origin: Origin,
    /// The pages above the leaf, from the root down.
    above: Vec<Walk>,
    leaf: Walk,
    /// The name that it is at; `None` at the end.
    name: Option<String>,
    /// Pages that were read.
    pub(in crate::storage::segment) pages_read: u64,
}

impl Cursor {
    /// At the first name that is not below `from`.
    pub(in crate::storage::segment) fn seek<P: Pages>(
        pages: &P,
        summary: &Summary,
        origin: Origin,
        from: &str,
    ) -> Result<Cursor, P::Error> {
        let (above, leaf) = (Vec::new(), Walk::default());
        let mut cursor = Cursor { origin, above, leaf, name: None, pages_read: 0 };
        let mut link = summary.root;
        for _ in 0..summary.levels {
            let mut walk = cursor.read(pages, link)?;
            // The last page that does not begin above it.
            link = walk.next_link()?.ok_or(SENSELESS)?;
            while let Some(next) = walk.next_link()? {
                if *walk.name > *from.as_bytes() {
                    walk.put_back(next);
                    break;
                }
                link = next;
            }
            cursor.above.push(walk);
        }
        cursor.leaf = cursor.read(pages, link)?;
        while cursor.step(pages)? {
            if *cursor.leaf.name >= *from.as_bytes() {
                cursor.take_name()?;
                break;
            }
        }
        Ok(cursor)
    }

    /// The name that it is at; `None` at the end.
    pub(in crate::storage::segment) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What is known of it.
    pub(in crate::storage::segment) fn stats(&self) -> &TopicStats {
        &self.leaf.stats
    }

    /// The blocks of it.
    pub(in crate::storage::segment) fn blocks(&self) -> Blocks {
        self.leaf.blocks()
    }

    /// Moves to the next name.
    pub(in crate::storage::segment) fn advance<P: Pages>(
        &mut self,
        pages: &P,
    ) -> Result<(), P::Error> {
        if self.step(pages)? {
            self.take_name()?;
        } else {
            self.name = None;
        }
        Ok(())
    }

    fn take_name(&mut self) -> Read<()> {
        let name = std::str::from_utf8(&self.leaf.name).map_err(|_| SENSELESS)?;
        let kept = self.name.get_or_insert_default();
        kept.clear();
        kept.push_str(name);
        Ok(())
    }

    /// Moves to the next entry; false at the end.
    fn step<P: Pages>(&mut self, pages: &P) -> Result<bool, P::Error> {
        if self.leaf.next_entry(&self.origin)? {
            return Ok(true);
        }
        // Up to a page that goes on, and down along the left.
        let depth = self.above.len();
        let mut link = None;
        while let Some(walk) = self.above.last_mut() {
            link = walk.next_link()?;
            if link.is_some() {
                break;
            }
            self.above.pop();
        }
        let Some(mut link) = link else { return Ok(false) };
        while self.above.len() < depth {
            let mut walk = self.read(pages, link)?;
            link = walk.next_link()?.ok_or(SENSELESS)?;
            self.above.push(walk);
        }
        self.leaf = self.read(pages, link)?;
        Ok(self.leaf.next_entry(&self.origin)?)
    }

    fn read<P: Pages>(&mut self, pages: &P, link: Link) -> Result<Walk, P::Error> {
        self.pages_read += 1;
        let bytes = pages.page(link.offset, link.len as usize)?;
        Ok(Walk::of(bytes, link)?)
    }
}

/// What a table has of one topic.
pub(in crate::storage::segment) fn find<P: Pages>(
    pages: &P,
    summary: &Summary,
    origin: Origin,
    name: &str,
) -> Result<Option<Entry>, P::Error> {
    if name < &*summary.first || name > &*summary.last {
        return Ok(None);
    }
    let cursor = Cursor::seek(pages, summary, origin, name)?;
    let is_it = cursor.name() == Some(name);
    Ok(is_it.then(|| Entry { stats: *cursor.stats(), blocks: cursor.blocks() }))
}

impl Blocks {
    /// Visits the blocks, in order.
    pub(in crate::storage::segment) fn each<P: Pages>(
        &self,
        pages: &P,
        visit: impl FnMut(u32),
    ) -> Result<(), P::Error> {
        match self {
            Blocks::Here(list) => each_block(list, visit)?,
            Blocks::There { link, crc } => {
                let list = pages.list(link.offset, link.len as usize)?;
                check_list(*link, *crc, &list)?;
                each_block(&list, visit)?;
            }
        }
        Ok(())
    }
}
