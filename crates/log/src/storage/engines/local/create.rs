//! Creating a data directory.
//!
//! Order: directories, slots of zeros, the first slot's head, then `log.meta`. A creation that was
//! cut leaves either nothing but zeros, which the next one uses, or a whole log but for `log.meta`.

use std::path::Path;

use super::erase::ERASING_FILE;
use super::trimmed::TRIMMED_DIR;
use super::whereabouts::whereabouts;
use super::{JOURNAL_DIR, LOCK_FILE, Options, QUARANTINE_DIR, SEGMENTS_DIR};
use crate::chain::Link;
use crate::storage::StoreError;
use crate::storage::journal::{
    Failure, Origin, Previous, SlotJournal, SlotSet, max_body_bytes, open_slot, slot_name,
};
use crate::storage::meta::{CleanStop, META_FILE, Meta};
use crate::storage::unfinished::UNFINISHED;
use crate::width::to_u32;
use tailmark_record::{ChainTag, FingerprintKey, GenerationTable, LogId, Seq, Timestamp};

/// Slot files of a new log, and the fewest that it is left with.
pub(super) const FIRST_SLOTS: usize = 2;

/// Creates a log in a directory that has none.
pub(super) fn create(dir: &Path, options: &Options) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let generations = GenerationTable::created(rand::random(), now);
    let meta = Meta {
        log: LogId::new(uuid::Uuid::new_v4()),
        key: FingerprintKey::new(rand::random()),
        generations,
        created_at: now,
        slot_bytes: options.slot_bytes,
        slot_files: to_u32(FIRST_SLOTS),
        clean_stop: None,
        whereabouts: whereabouts(dir),
        copy_of: None,
    };
    create_with(dir, options, meta)
}

/// Creates an empty log of a known identity and history, as a migration needs it. Of `meta` the
/// sizes and the last stop do not count.
///
/// # Errors
/// The directory holds something else; a full disk, I/O.
pub fn create_with(dir: &Path, options: &Options, meta: Meta) -> Result<(), StoreError> {
    prepare(dir, options)?;
    let origin = Origin {
        log: meta.log,
        meta: Vec::new(),
        generation: meta.generations.current().generation,
        previous: Previous::default(),
        number: 1,
        next: Seq::FIRST,
        link: Link::START,
        oldest: Seq::FIRST,
        oldest_tag: Some(ChainTag::START),
        last_at: Timestamp::EPOCH,
        snapshot: Vec::new(),
        deltas: Vec::new(),
    };
    begin(dir, options, meta, origin, false)
}

/// Makes the directories and the first slots of a log, all zeros.
///
/// # Errors
/// The directory holds something else; a full disk, I/O.
pub(in crate::storage) fn prepare(dir: &Path, options: &Options) -> Result<(), StoreError> {
    check_sizes(options)?;
    refuse_foreign(dir)?;
    let disk = &options.disk;
    for name in [JOURNAL_DIR, SEGMENTS_DIR, QUARANTINE_DIR] {
        disk.create_dir(&dir.join(name))?;
    }
    let slots = options.slot_bytes * FIRST_SLOTS as u64;
    let needed_bytes = slots.saturating_add(options.min_free_bytes);
    let journal = dir.join(JOURNAL_DIR);
    // It may be a link to another disk.
    let available_bytes = disk.available(&journal)?;
    if available_bytes < needed_bytes {
        return Err(StoreError::DiskFull { available_bytes, needed_bytes });
    }
    for n in 1..=FIRST_SLOTS {
        disk.allocate(&journal.join(slot_name(n)), options.slot_bytes)?;
    }
    disk.sync_dir(dir)?;
    disk.sync_names(dir)
}

/// Writes the head of the first slot, then `log.meta`: from here on a log without any slot is damaged, never
/// new. Of `meta` the sizes and the last stop do not count. A log `at_rest` has stopped in order: nobody goes
/// on with it now.
///
/// # Errors
/// I/O.
pub(in crate::storage) fn begin(
    dir: &Path,
    options: &Options,
    meta: Meta,
    origin: Origin,
    at_rest: bool,
) -> Result<(), StoreError> {
    let disk = &options.disk;
    let journal = dir.join(JOURNAL_DIR);
    let mut meta = Meta {
        slot_bytes: options.slot_bytes,
        slot_files: to_u32(FIRST_SLOTS),
        clean_stop: None,
        ..meta
    };
    let free = (1..=FIRST_SLOTS)
        .rev()
        .map(|n| open_slot(disk, &journal.join(slot_name(n))))
        .collect::<Result<Vec<_>, _>>()?;
    let sizes = options.journal(options.slot_bytes);
    let slots = SlotSet::new(journal, disk.clone(), sizes, free, FIRST_SLOTS);
    let origin = Origin { meta: meta.encode()?, ..origin };
    let mut journal = SlotJournal::begin(disk.clone(), slots, origin)?;
    journal.rewrite(&[]).map_err(Failure::into_error)?;
    if at_rest {
        journal.close()?;
        meta.clean_stop = Some(CleanStop {
            slot: journal.active().header().number,
            end: journal.end(),
            head: journal.next().prev().get(),
        });
    }
    meta.store(disk, dir)
}

fn check_sizes(options: &Options) -> Result<(), StoreError> {
    if !(256 << 10..=1 << 30).contains(&options.slot_bytes)
        || !options.slot_bytes.is_multiple_of(4096)
    {
        return Err(StoreError::Invalid("slot_bytes must be 256 KiB to 1 GiB, a multiple of 4096"));
    }
    if options.max_slots < 3 || max_body_bytes(options.slot_bytes) == 0 {
        return Err(StoreError::Invalid("max_slots must be at least 3"));
    }
    Ok(())
}

/// A directory that holds something else is left alone.
pub(super) fn refuse_foreign(dir: &Path) -> Result<(), StoreError> {
    let dirs = [JOURNAL_DIR, SEGMENTS_DIR, QUARANTINE_DIR, TRIMMED_DIR];
    let known =
        [&dirs[..], &[LOCK_FILE, META_FILE, ERASING_FILE, "lost+found", UNFINISHED]].concat();
    let entries = std::fs::read_dir(dir).map_err(StoreError::io("list", dir))?;
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        let name = name.to_string_lossy();
        if !known.contains(&name.trim_end_matches(".new")) {
            return Err(StoreError::Foreign { path: dir.to_owned(), entry: name.into_owned() });
        }
    }
    Ok(())
}
