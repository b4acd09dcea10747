//! Records on their way into a file.

use std::io::{self, Write};

use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use super::{MAGIC, header};
use tailmark_log::storage::Removed;
use tailmark_record::json::{Object, write_event};
use tailmark_record::{Event, EventError, put_varint, varint_len};
use tailmark_wire::feed_v1 as pb;

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Messages of protobuf, each behind its length.
    Protobuf,
}

/// Of `ExportRecord.event`, and its wire type.
const EVENT_TAG: u8 = 2 << 3 | 2;
/// Records are handed over in pieces of this size.
const FLUSH_BYTES: usize = 128 << 10;

/// Writes records, and hashes what it writes.
pub(super) struct Writer<W> {
    format: Format,
    to: W,
    buffer: Vec<u8>,
    /// An event in the making.
    json: Vec<u8>,
    hash: Xxh3,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(format: Format, to: W) -> Writer<W> {
        let buffer = match format {
            Format::Jsonl => Vec::new(),
            Format::Protobuf => MAGIC.to_vec(),
        };
        Writer { format, to, buffer, json: Vec::new(), hash: Xxh3::new() }
    }

    pub(super) fn header(&mut self, header: pb::ExportHeader) -> io::Result<()> {
        match self.format {
            Format::Jsonl => self.line(|object| {
                object.object("header", |object| header::write_json(object, &header));
            }),
            Format::Protobuf => self.message(pb::export_record::Record::Header(header)),
        }
        self.flush()
    }

    /// A stored event.
    pub(super) fn event(&mut self, event: &[u8]) -> Result<io::Result<()>, EventError> {
        match self.format {
            Format::Jsonl => {
                let event = Event::parse(event)?;
                self.json.clear();
                write_event(&mut self.json, &event);
                self.buffer.extend_from_slice(b"{\"event\":");
                self.buffer.extend_from_slice(&self.json);
                if !event.has_client_id && !event.id.is_empty() {
                    self.buffer.extend_from_slice(b",\"server_id\":true");
                }
                if !event.has_client_at {
                    self.buffer.extend_from_slice(b",\"server_at\":true");
                }
                self.buffer.extend_from_slice(b"}\n");
            }
            Format::Protobuf => {
                let len = event.len() as u64;
                put_varint(&mut self.buffer, 1 + varint_len(len) as u64 + len);
                self.buffer.push(EVENT_TAG);
                put_varint(&mut self.buffer, len);
                self.buffer.extend_from_slice(event);
            }
        }
        Ok(if self.buffer.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) })
    }

    /// Events that are gone.
    pub(super) fn removed(&mut self, range: &Removed) -> io::Result<()> {
        let removed = header::of_removed(range);
        match self.format {
            Format::Jsonl => self.line(|object| {
                object.object("removed", |object| header::write_removed_json(object, &removed));
            }),
            Format::Protobuf => self.message(pb::export_record::Record::Removed(removed)),
        }
        if self.buffer.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    /// The last record.
    pub(super) fn end(&mut self, events: u64, removed: u64, link: [u8; 16]) -> io::Result<()> {
        self.flush()?;
        let hash = self.hash.digest128().to_be_bytes().to_vec().into();
        let end = pb::ExportEnd { events, link: link.to_vec().into(), hash, removed };
        match self.format {
            Format::Jsonl => self.line(|object| {
                object.object("end", |object| header::write_end_json(object, &end));
            }),
            Format::Protobuf => self.message(pb::export_record::Record::End(end)),
        }
        self.flush()?;
        self.to.flush()
    }

    fn line(&mut self, fill: impl FnOnce(&mut Object<'_>)) {
        let mut object = Object::open(&mut self.buffer);
        fill(&mut object);
        object.close();
        self.buffer.push(b'\n');
    }

    fn message(&mut self, record: pb::export_record::Record) {
        let record = pb::ExportRecord { record: Some(record), ..pb::ExportRecord::default() };
        self.buffer.extend_from_slice(&record.encode_length_delimited_to_vec());
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.buffer);
        let written = self.to.write_all(&self.buffer);
        self.buffer.clear();
        written
    }
}
