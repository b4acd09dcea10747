//! Records out of a file, of either format.

use std::borrow::Cow;
use std::io::{BufRead, Read as _};

use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::{Error, Format, MAGIC, MAX_RECORD_BYTES, header};
use tailmark_record::json::EventJson;
use tailmark_record::{
    ChainTag, CursorMint, Events, Generation, LogId, Seq, Stamp, take_varint, write_entry,
    write_shell_entry,
};
use tailmark_wire::feed_v1 as pb;

/// What a file has, in its order.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The first.
    Header(Box<pb::ExportHeader>),
    /// A stored event; of its cursor nothing is promised.
    Event(Vec<u8>),
    /// Events that are gone.
    Removed(pb::ExportRemoved),
    /// The last.
    End(pb::ExportEnd),
}

/// Reads records. Nothing is held but the one that is read.
pub struct Reader<R> {
    input: R,
    format: Format,
    hash: Xxh3,
    record: Vec<u8>,
    /// Whole ones so far.
    records: u64,
    bytes: u64,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Tells the format by the first bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] where they are of no export; what reading answers.
    pub fn new(mut input: R) -> Result<Reader<R>, Error> {
        let mut hash = Xxh3::new();
        let format = match input.fill_buf().map_err(Error::Input)?.first() {
            Some(b'{') => Format::Jsonl,
            Some(first) if *first == MAGIC[0] => {
                let mut magic = [0; MAGIC.len()];
                let read = input.read_exact(&mut magic);
                if read.is_err() || &magic != MAGIC {
                    return Err(no_export());
                }
                hash.update(&magic);
                Format::Protobuf
            }
            _ => return Err(no_export()),
        };
        let (record, records, bytes) = (Vec::new(), 0, 0);
        Ok(Reader { input, format, hash, record, records, bytes, is_over: false })
    }

    /// Which it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next record; `None` after the end.
    ///
    /// # Errors
    /// [`Error::Cut`] where the file stops before its end, [`Error::Altered`] where it is not what was
    /// written, [`Error::Malformed`].
    pub fn read(&mut self) -> Result<Option<Record>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let before = self.hash.digest128();
        let read = match self.format {
            Format::Jsonl => self.read_line()?,
            Format::Protobuf => self.read_message()?,
        };
        if !read {
            return Err(Error::Cut { records: self.records });
        }
        let record = match self.format {
            Format::Jsonl => of_line(&self.record),
            Format::Protobuf => of_message(&self.record),
        };
        self.records += 1;
        let record = record.map_err(|what| Error::Malformed { record: self.records, what })?;
        let is_first = matches!(record, Record::Header(_));
        if is_first != (self.records == 1) {
            let what = "the header comes first, and once".to_owned();
            return Err(Error::Malformed { record: self.records, what });
        }
        if let Record::End(end) = &record {
            self.is_over = true;
            if end.hash != before.to_be_bytes()[..] {
                return Err(Error::Altered { what: "its bytes are not those that were written" });
            }
            if !self.input.fill_buf().map_err(Error::Input)?.is_empty() {
                return Err(Error::Altered { what: "something stands behind its end" });
            }
        }
        Ok(Some(record))
    }

    fn take(&mut self) {
        self.hash.update(&self.record);
        self.bytes += self.record.len() as u64;
    }

    /// Answers whether there was a whole line.
    fn read_line(&mut self) -> Result<bool, Error> {
        self.record.clear();
        let limit = MAX_RECORD_BYTES as u64 + 1;
        let mut input = std::io::Read::take(&mut self.input, limit);
        input.read_until(b'\n', &mut self.record).map_err(Error::Input)?;
        self.take();
        let is_whole = self.record.last() == Some(&b'\n');
        if !is_whole && self.record.len() > MAX_RECORD_BYTES {
            return Err(self.too_long());
        }
        Ok(is_whole)
    }

    /// Answers whether there was a whole message.
    fn read_message(&mut self) -> Result<bool, Error> {
        let mut head = Vec::with_capacity(10);
        loop {
            let mut byte = [0];
            if !self.fill(&mut byte)? {
                return Ok(false);
            }
            head.push(byte[0]);
            if byte[0] < 0x80 || head.len() == 10 {
                break;
            }
        }
        let len = take_varint(&mut head.as_slice()).and_then(|len| usize::try_from(len).ok());
        let Some(len) = len.filter(|len| *len <= MAX_RECORD_BYTES) else {
            return Err(self.too_long());
        };
        self.hash.update(&head);
        self.bytes += head.len() as u64;
        self.record.clear();
        // Grows as it comes: a length that is a lie takes no memory.
        let mut input = std::io::Read::take(&mut self.input, len as u64);
        input.read_to_end(&mut self.record).map_err(Error::Input)?;
        self.take();
        Ok(self.record.len() == len)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, Error> {
        match self.input.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::Input(error)),
        }
    }

    fn too_long(&self) -> Error {
        let what = format!("longer than {MAX_RECORD_BYTES} bytes");
        Error::Malformed { record: self.records + 1, what }
    }
}

fn no_export() -> Error {
    let what = "this is no file of `tailmark log export`".to_owned();
    Error::Malformed { record: 1, what }
}

fn of_message(bytes: &[u8]) -> Result<Record, String> {
    // An event as it stands: the order of its fields says who gave what.
    if let Some((0x12, mut rest)) = bytes.split_first() {
        let len = take_varint(&mut rest).ok_or("an event is cut")?;
        return match usize::try_from(len) {
            Ok(len) if len == rest.len() => Ok(Record::Event(rest.to_vec())),
            _ => Err("an event is not alone in its record".to_owned()),
        };
    }
    let record = pb::ExportRecord::decode(bytes).map_err(|error| error.to_string())?;
    match record.record {
        Some(pb::export_record::Record::Header(header)) => Ok(Record::Header(Box::new(header))),
        Some(pb::export_record::Record::Removed(range)) => Ok(Record::Removed(range)),
        Some(pb::export_record::Record::End(end)) => Ok(Record::End(end)),
        _ => Err("the record is of a newer form".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    header: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    removed: Option<&'a RawValue>,
    #[serde(borrow)]
    end: Option<&'a RawValue>,
    #[serde(default)]
    server_id: bool,
    #[serde(default)]
    server_at: bool,
}

/// What the server said of an event.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    seq: Cow<'a, str>,
    #[serde(borrow)]
    appended_at: Cow<'a, str>,
}

fn of_line(bytes: &[u8]) -> Result<Record, String> {
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match (line.header, line.event, line.removed, line.end) {
        (Some(header), None, None, None) => {
            Ok(Record::Header(Box::new(header::read_json(header.get())?)))
        }
        (None, None, None, Some(end)) => Ok(Record::End(header::read_end_json(end.get())?)),
        (None, None, Some(range), None) => {
            Ok(Record::Removed(header::read_removed_json(range.get())?))
        }
        (None, Some(event), None, None) => {
            stored(event.get(), line.server_id, line.server_at).map(Record::Event)
        }
        _ => Err("expected a header, an event, what is removed, or an end".to_owned()),
    }
}

/// The stored form of an event in JSON.
fn stored(text: &str, server_id: bool, server_at: bool) -> Result<Vec<u8>, String> {
    let json = EventJson::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    let place: Place<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut event = json.event();
    let id = std::mem::take(&mut event.id);
    if !server_id {
        event.id = id;
    }
    if server_at {
        event.at = None;
    }
    let mut part = Vec::with_capacity(text.len());
    event.write_client_part(&mut part);
    // Whoever stores it gives it the cursor that it has there.
    let mint = CursorMint::new(LogId::new(uuid::Uuid::nil()), Generation { counter: 0, nonce: 0 });
    let stamp = Stamp {
        seq: Seq::new(header::number(&place.seq)?),
        mint: &mint,
        tag: ChainTag::START,
        appended_at: header::timestamp(&place.appended_at)?.into(),
        fill_at: server_at,
        fill_id: server_id.then_some(id),
    };
    let mut entry = Vec::with_capacity(part.len() + 128);
    match &event.erased {
        None => write_entry(&mut entry, &part, &stamp),
        Some(erased) => {
            let written = write_shell_entry(&mut entry, &part, &stamp, erased);
            written.map_err(|error| error.what().to_owned())?;
        }
    }
    let event = Events::new(&entry).next().and_then(Result::ok).unwrap_or_default();
    Ok(event.to_vec())
}
