//! A slot of the journal with frames whose checksums are right and whose contents are not, and one that
//! is no slot at all: scanned to its end or refused, and nothing is made of it that lies outside.
#![no_main]

use std::fs::File;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::journal::{
    FRAME_HEADER_BYTES, Frame, FrameKind, Known, SLOT_HEADER_BYTES, SlotHeader, StateFrame,
    body_crc, read_header, scan_slot,
};
use tailmark_log::{LogId, Seq, Timestamp};
use tailmark_record::Generation;

const SLOT_BYTES: u64 = 64 << 10;
const NONCE: u64 = 0x7461_696c;

/// Takes numbers from the input; zero at its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let byte = self.0.first().copied().unwrap_or(0);
        self.0 = self.0.get(1..).unwrap_or(&[]);
        byte
    }

    fn number(&mut self) -> u64 {
        // Mostly small, and now and then anything.
        let size = self.byte() % 10;
        if size < 8 {
            u64::from(self.byte())
        } else {
            (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte()))
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes.to_vec()
    }
}

fn file_of(bytes: &[u8], len: u64) -> File {
    let file = rustix::fs::memfd_create("slot", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    rustix::io::write(&file, bytes).expect("room");
    rustix::fs::ftruncate(&file, len).expect("room");
    file.into()
}

fn scan(bytes: &[u8], len: u64, known: Known) {
    let (disk, file, path) = (Disk::real(), file_of(bytes, len), Path::new("/slot-0"));
    let _ = read_header(&disk, &file, path);
    let Ok(header) = SlotHeader::decode(bytes) else { return };
    let Ok(slot) = scan_slot(&disk, &file, path, &header, known) else { return };
    assert!(slot.end <= header.slot_bytes.max(SLOT_HEADER_BYTES), "{slot:?}");
    let mut end = SLOT_HEADER_BYTES;
    for frame in &slot.frames {
        assert!(frame.offset >= end, "frames overlap: {slot:?}");
        end = frame.offset + u64::from(frame.len);
        assert!(end <= slot.end, "{slot:?}");
    }
}

/// Frames as the input wants them, each with checksums that fit.
fn slot_of(input: &mut Input<'_>) -> Vec<u8> {
    let first = Seq::new(1 + u64::from(input.byte()));
    let header = SlotHeader {
        nonce: NONCE,
        number: 1,
        first,
        format: tailmark_log::storage::FORMAT_VERSION,
        log: LogId::new(uuid::Uuid::nil()),
        slot_bytes: SLOT_BYTES,
        created_at: Timestamp::EPOCH,
        generation: Generation { counter: 1, nonce: 1 },
        previous: Default::default(),
    };
    let mut slot = header.encode();
    slot.resize(SLOT_HEADER_BYTES as usize, 0);
    let (mut next, mut previous_crc) = (first, 0);
    let mut link = Default::default();
    while !input.0.is_empty() && slot.len() < SLOT_BYTES as usize {
        let kinds = [FrameKind::Commit, FrameKind::State, FrameKind::Close, FrameKind::Ignored];
        let choice = input.byte();
        let kind = kinds[usize::from(choice & 3)];
        let delta = if kind == FrameKind::State && choice & 4 == 0 {
            let meta = usize::from(input.byte());
            StateFrame { meta: input.bytes(meta), ..StateFrame::default() }.encode()
        } else {
            let len = usize::from(input.byte());
            input.bytes(len)
        };
        let events = usize::from(input.byte());
        let events = input.bytes(events);
        let mut frame = Frame {
            header_bytes: FRAME_HEADER_BYTES,
            kind,
            delta_len: delta.len() as u32,
            events_len: events.len() as u32,
            count: u32::from(input.byte() % 8),
            first: next,
            oldest: Seq::new(1),
            oldest_tag: None,
            link_before: link,
            link,
            appended_at: Timestamp::EPOCH,
            durable_upto: slot.len() as u64,
            previous_crc,
            offset: slot.len() as u64,
            body_crc: body_crc(NONCE, &delta, &events),
            crc: 0,
        };
        // What does not fit the rest.
        match choice >> 3 {
            1 => frame.first = Seq::new(input.number()),
            2 => frame.count = input.number() as u32,
            3 => frame.delta_len = input.number() as u32,
            4 => frame.events_len = input.number() as u32,
            5 => frame.oldest = Seq::new(input.number()),
            6 => frame.durable_upto = input.number(),
            7 => frame.previous_crc = input.number() as u32,
            8 => frame.offset = input.number(),
            9 => frame.body_crc = input.number() as u32,
            10 => frame.appended_at = Timestamp::from_nanos(input.number() as i64),
            _ => {}
        }
        slot.extend(frame.encode(NONCE));
        slot.extend(delta);
        slot.extend(events);
        slot.resize(slot.len().next_multiple_of(8), 0);
        (previous_crc, next) =
            (frame.crc, Seq::new(frame.first.get().saturating_add(u64::from(frame.count))));
        link = frame.link;
    }
    slot
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let known = match input.byte() {
        0 => Known { end: Some(input.number()), synced: None },
        1 => Known { end: None, synced: Some((input.number(), Seq::new(input.number()))) },
        _ => Known::default(),
    };
    if input.byte() == 0 {
        scan(input.0, SLOT_BYTES.min(input.number()), known);
    } else {
        let slot = slot_of(&mut input);
        scan(&slot, SLOT_BYTES, known);
    }
});
