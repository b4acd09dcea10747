//! The journal: preallocated, reused files (slots) that take every commit first.
//!
//! Owns the slot files and the order of writing: header and state at the start of a slot, one frame
//! a commit, each synced before the next is written. Must not know of segments, topics or clients.
//!
//! Invariants:
//! - A frame's `durable_upto` names bytes that were synced before the frame was written, so a bad
//!   frame below any such mark is rot, never a torn write. So does the tip, a note beside the
//!   slots.
//! - Every write ends with zeros up to the end of its page (a whole page where it ends on one), so
//!   the bytes after the last frame are zero, also in a reused slot, and no page is read to write
//!   it.
//! - When a slot is used again its new head is written before any byte of its old frames is, so
//!   that an offline reader who finds the old head after them has read what they were.
//! - Recovery never appends to a slot that it found: it begins a new one.

mod append;
mod format;
mod recover;
mod slot;
mod slots;
mod tip;

pub use append::{Failure, Origin, SlotJournal, max_body_bytes};
pub use format::{
    FRAME_HEADER_BYTES, Frame, FrameKind, Previous, SLOT_HEADER_BYTES, SlotHeader, StateFrame,
    body_crc,
};
pub use recover::{Known, Scan, ScannedSlot, Tail, read_header, scan_slot};
pub use slot::{CommitRead, FrameRef, Slot};
pub(crate) use slots::sealing_bytes;
pub use slots::{
    FreeSlot, JournalOptions, SlotSet, is_slot_file, is_slot_name, open_slot, slot_name,
};
pub use tip::{TIP_FILE, Tip, TipState};
