//! Lines of input, turned into encoded events: what an upload sends.
//!
//! Runs on a thread of its own, ahead of the network by a bounded number of chunks. Invariant: an
//! event is handed over only after it was checked, and nothing after the first bad line.

mod csv_rows;
mod mapping;

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::export::{self, Origin, Reader, Record};
use csv_rows::Header;
pub(super) use csv_rows::parse_delimiter;
use mapping::{KcatLine, Mapped};
pub(super) use mapping::{Mapping, parse_mapping};
use tailmark_record::json::{EventJson, Fields, readable};
use tailmark_record::{Event, Limits};

/// Events handed over at once, and their bytes: few wake-ups, little memory.
const CHUNK_EVENTS: usize = 1_000;
const CHUNK_BYTES: usize = 128 << 10;
const READ_BYTES: usize = 256 << 10;
/// A line that is longer holds no event that any server takes: the largest is 8 MiB, and JSON may
/// write each byte in six.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// How lines say events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Each line is the body of one event; needs --topic
    Lines,
    /// Each line is one JSON object: {"id", "topic", "at", "body", ...}
    Jsonl,
    /// What `tailmark log export` wrote, in either format; its events are appended as new ones
    Export,
    /// Each line is any JSON value, which becomes the body; --map takes fields out of it
    Records,
    /// Each row becomes a JSON object, by the names in the first; --map takes fields out of it
    Csv,
    /// Each line is one that `kcat -J` prints
    Kcat,
}

/// Events in order, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub events: Vec<Bytes>,
    /// Bytes of input read so far.
    pub input_bytes: u64,
}

/// Where reading stopped short.
#[derive(Debug)]
pub(super) enum InputError {
    /// This line holds no event.
    Line { line: u64, message: String },
    /// The input itself.
    Read(std::io::Error),
}

/// What the reading of the whole input came to.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub error: Option<InputError>,
    /// Events of an export that were passed over: they were erased, or are to be.
    pub erased: u64,
    /// Mappings whose field no record had, where there were records.
    pub unmet: Vec<String>,
}

/// Reads `input` to its end and hands over what it says.
pub(super) struct Encoder {
    pub format: Format,
    /// Where fields come from, of records and rows.
    pub mappings: Vec<Mapping>,
    /// What parts the columns of rows, where that was said.
    pub delimiter: Option<u8>,
    /// What no event has is passed over.
    pub ignores_unknown: bool,
    /// For events that name none.
    pub topic: String,
    pub limits: Limits,
    /// Lines read so far, whether sent or not.
    pub lines: Arc<AtomicU64>,
}

impl Encoder {
    /// Ends early when the receiver is dropped.
    pub(super) fn run(&self, input: impl Read, chunks: &mpsc::Sender<Chunk>) -> Summary {
        let mut input = BufReader::with_capacity(READ_BYTES, input);
        if self.format == Format::Export {
            return self.run_export(input, chunks);
        }
        let mut pending = Pending { met: vec![false; self.mappings.len()], ..Pending::default() };
        let mut line = Vec::new();
        let mut input_bytes = 0u64;
        let mut header = None;
        let error = loop {
            line.clear();
            // Nothing more is there without waiting: do not keep back what is.
            let at_limit = pending.ends.len() >= CHUNK_EVENTS || pending.bytes.len() >= CHUNK_BYTES;
            let may_wait = !input.buffer().contains(&b'\n');
            if (at_limit || may_wait) && !pending.send(input_bytes, chunks) {
                break None;
            }
            let number = match self.read(&mut input, &mut line) {
                Ok(0) if self.format == Format::Csv && header.is_none() => {
                    let message = "the input is empty, and a CSV file begins with a header";
                    break Some(InputError::Line { line: 1, message: message.to_owned() });
                }
                Ok(0) => break None,
                Ok(lines) => {
                    input_bytes += line.len() as u64;
                    self.lines.fetch_add(lines, Ordering::Relaxed) + 1
                }
                Err(error) => break Some(InputError::Read(error)),
            };
            let text = text_of(&line, number);
            let encoded = match self.format {
                Format::Csv => self.encode_row(text, &mut header, &mut pending),
                _ => self.encode(text, &mut pending),
            };
            if let Err(message) = encoded {
                break Some(InputError::Line { line: number, message });
            }
        };
        pending.send(input_bytes, chunks);
        let unmet = self.mappings.iter().zip(&pending.met).filter(|(_, is_met)| !**is_met);
        let unmet = unmet.filter(|_| pending.has_records).map(|(it, _)| it.to_string()).collect();
        Summary { error, unmet, ..Summary::default() }
    }

    /// The events of an export, with the ids that they had: a second run stores nothing twice.
    fn run_export(&self, input: impl BufRead, chunks: &mpsc::Sender<Chunk>) -> Summary {
        let mut pending = Pending::default();
        let refused = |error: export::Error, line: u64| match error {
            export::Error::Input(error) => InputError::Read(error),
            other => InputError::Line { line, message: other.to_string() },
        };
        let mut reader = match Reader::new(input) {
            Ok(reader) => reader,
            Err(error) => {
                return Summary { error: Some(refused(error, 1)), ..Summary::default() };
            }
        };
        let (mut erased, mut erasing) = (0, None);
        let error = loop {
            let at_limit = pending.ends.len() >= CHUNK_EVENTS || pending.bytes.len() >= CHUNK_BYTES;
            if at_limit && !pending.send(reader.bytes(), chunks) {
                break None;
            }
            let record = match reader.read() {
                Ok(Some(record)) => record,
                Ok(None) => break None,
                Err(error) => break Some(refused(error, self.lines.load(Ordering::Relaxed) + 1)),
            };
            let line = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
            let event = match record {
                Record::Event(event) => event,
                Record::Header(header) => {
                    match Origin::of(*header) {
                        Ok(origin) => erasing = origin.erasing,
                        Err(error) => break Some(refused(error, line)),
                    }
                    continue;
                }
                Record::Removed(_) | Record::End(_) => continue,
            };
            let event = Event::parse(&event).map_err(|error| error.to_string());
            // Nothing is left of it that could be stored as a new event, or is to be left.
            let is_erased = |event: &Event<'_>| {
                event.is_erased() || erasing.as_ref().is_some_and(|it| it.contains(event.seq))
            };
            if event.as_ref().is_ok_and(is_erased) {
                erased += 1;
                continue;
            }
            if let Err(message) = event.and_then(|event| self.add(&event, &mut pending)) {
                break Some(InputError::Line { line, message });
            }
        };
        pending.send(reader.bytes(), chunks);
        Summary { error, erased, ..Summary::default() }
    }

    /// Reads a line, or of CSV a whole row; answers how many lines it took, 0 at the end.
    fn read(&self, input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<u64> {
        let (mut lines, mut is_quoted) = (0, false);
        loop {
            let begin = line.len();
            let left = (MAX_LINE_BYTES + 1).saturating_sub(line.len() as u64);
            if Read::take(&mut *input, left).read_until(b'\n', line)? == 0 {
                return Ok(lines);
            }
            lines += 1;
            is_quoted ^= csv_rows::turns(line.get(begin..).unwrap_or_default());
            if self.format != Format::Csv || !is_quoted {
                return Ok(lines);
            }
        }
    }

    fn encode_row(
        &self,
        row: &[u8],
        header: &mut Option<Header>,
        pending: &mut Pending,
    ) -> Result<(), String> {
        if row.len() as u64 > MAX_LINE_BYTES {
            return Err(format!("longer than {MAX_LINE_BYTES} bytes"));
        }
        match header {
            _ if row.is_empty() => Ok(()),
            None => {
                *header = Some(Header::parse(row, self.delimiter, &self.mappings)?);
                Ok(())
            }
            Some(header) => {
                let record = header.record(row)?;
                // Of strings alone: every reader takes it.
                let record = serde_json::from_str(&record).map_err(|error| error.to_string())?;
                self.add_record(record, header.mappings(), pending)
            }
        }
    }

    fn add_record(
        &self,
        record: &RawValue,
        mappings: &[Mapping],
        pending: &mut Pending,
    ) -> Result<(), String> {
        pending.has_records = true;
        let mapped = Mapped::of(record, mappings, &mut pending.met)?;
        self.add_named(&mapped.event(&self.topic), pending)
    }

    fn encode(&self, line: &[u8], pending: &mut Pending) -> Result<(), String> {
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(format!("longer than {MAX_LINE_BYTES} bytes"));
        }
        let is_blank = line.iter().all(u8::is_ascii_whitespace);
        match self.format {
            Format::Lines => match std::str::from_utf8(line) {
                Ok(body) => {
                    let event = Event { topic: &self.topic, body, ..Event::default() };
                    self.add(&event, pending)
                }
                // What is no text is data.
                Err(_) => {
                    let event = Event { topic: &self.topic, data: line, ..Event::default() };
                    self.add(&event, pending)
                }
            },
            // Read another way.
            Format::Export => Ok(()),
            _ if is_blank => Ok(()),
            Format::Jsonl => {
                let kept = if self.ignores_unknown { Some(known(line)?) } else { None };
                let line = kept.as_deref().unwrap_or(line);
                let json = EventJson::parse(line).map_err(|error| error.to_string())?;
                let mut event = json.event();
                if event.topic.is_empty() {
                    event.topic = &self.topic;
                }
                self.add_named(&event, pending)
            }
            Format::Kcat => {
                let read = KcatLine::parse(line)?;
                self.add_named(&read.event(&self.topic), pending)
            }
            Format::Records | Format::Csv => {
                let record = readable(text(line)?).map_err(|error| error.to_string())?;
                self.add_record(record, &self.mappings, pending)
            }
        }
    }

    fn add_named(&self, event: &Event<'_>, pending: &mut Pending) -> Result<(), String> {
        if event.topic.is_empty() {
            return Err("no topic in it, and no --topic".to_owned());
        }
        self.add(event, pending)
    }

    fn add(&self, event: &Event<'_>, pending: &mut Pending) -> Result<(), String> {
        self.limits.check(event).map_err(|invalid| invalid.to_string())?;
        let start = pending.bytes.len();
        event.write_client_part(&mut pending.bytes);
        let len = pending.bytes.len() - start;
        if len > self.limits.event_bytes {
            pending.bytes.truncate(start);
            return Err(format!("{len} bytes are over the limit of {}", self.limits.event_bytes));
        }
        pending.ends.push(pending.bytes.len());
        Ok(())
    }
}

/// The object without what no event has.
fn known(line: &[u8]) -> Result<Vec<u8>, String> {
    let fields = Fields::parse(text(line)?).map_err(|error| error.to_string())?;
    Ok(fields.only_of_events())
}

fn text(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|error| format!("is not UTF-8: {error}"))
}

/// The line without its end, and without the byte order mark that some editors put first.
fn text_of(line: &[u8], number: u64) -> &[u8] {
    let line = trim_end(line);
    if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    has_records: bool,
    /// Of the mappings, those that found something.
    met: Vec<bool>,
}

impl Pending {
    /// Hands over what is there; `false` when nobody takes it any more.
    fn send(&mut self, input_bytes: u64, chunks: &mpsc::Sender<Chunk>) -> bool {
        if self.ends.is_empty() {
            return !chunks.is_closed();
        }
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let mut start = 0;
        let slice = |end| {
            let event = bytes.slice(start..end);
            start = end;
            event
        };
        let events = self.ends.drain(..).map(slice).collect();
        self.bytes.reserve(CHUNK_BYTES);
        chunks.blocking_send(Chunk { events, input_bytes }).is_ok()
    }
}

#[cfg(test)]
mod tests;
