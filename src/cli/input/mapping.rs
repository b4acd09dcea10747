//! Records of other programs as events: which of their fields is which of ours.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use tailmark_record::json::{Fields, readable};
use tailmark_record::{Event, Timestamp, excerpt, moment};

/// A field of an event that a record may fill.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Topic,
    Type,
    Key,
    At,
    Body,
    Header(String),
}

/// `key=.user.id`: the field `key` is what stands at `user`, `id` in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Mapping {
    field: Field,
    path: Vec<String>,
}

impl Mapping {
    /// The field that one of them fills, and another before it.
    pub(in crate::cli) fn twice(all: &[Mapping]) -> Option<String> {
        let is_again = |at: usize| all[..at].iter().any(|before| before.field == all[at].field);
        let at = (0..all.len()).find(|at| is_again(*at))?;
        Some(all[at].field.to_string())
    }

    /// The same for rows: the whole path is a column's name, dots and all.
    ///
    /// # Errors
    /// There is no such column.
    pub(super) fn of_column(&self, names: &[String]) -> Result<Mapping, String> {
        let name = self.path.join(".");
        if !names.contains(&name) {
            let all = names.iter().map(|name| format!(".{}", excerpt(name))).collect::<Vec<_>>();
            return Err(format!(
                "--map {self}: no column is called so; there are {}",
                all.join(" ")
            ));
        }
        Ok(Mapping { field: self.field.clone(), path: vec![name] })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Id => "id",
            Field::Topic => "topic",
            Field::Type => "type",
            Field::Key => "key",
            Field::At => "at",
            Field::Body => "body",
            Field::Header(name) => return write!(f, "header.{}", excerpt(name)),
        })
    }
}

/// As it is written.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=.{}", self.field, excerpt(&self.path.join(".")))
    }
}

/// Reads `FIELD=.PATH`.
pub(in crate::cli) fn parse_mapping(text: &str) -> Result<Mapping, String> {
    const EXPECTED: &str = "expected FIELD=.PATH, as in key=.user.id; FIELD is id, topic, type, key, at, \
                            body or header.NAME";
    let (field, path) = text.split_once('=').ok_or(EXPECTED)?;
    let field = match field {
        "id" => Field::Id,
        "topic" => Field::Topic,
        "type" => Field::Type,
        "key" => Field::Key,
        "at" => Field::At,
        "body" => Field::Body,
        _ => match field.strip_prefix("header.").filter(|name| !name.is_empty()) {
            Some(name) => Field::Header(name.to_owned()),
            None => return Err(EXPECTED.to_owned()),
        },
    };
    let path = path.strip_prefix('.').ok_or(EXPECTED)?;
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err(EXPECTED.to_owned());
    }
    Ok(Mapping { field, path })
}

/// What a record says, in the order of an event's fields.
#[derive(Debug, Default)]
pub(super) struct Mapped<'a> {
    id: Cow<'a, str>,
    topic: Cow<'a, str>,
    kind: Cow<'a, str>,
    key: Cow<'a, str>,
    at: Option<Timestamp>,
    body: Option<Cow<'a, str>>,
    headers: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Mapped<'a> {
    /// Takes the fields out of a record, a JSON value.
    pub(super) fn of(
        record: &'a RawValue,
        mappings: &'a [Mapping],
        met: &mut [bool],
    ) -> Result<Mapped<'a>, String> {
        let mut mapped = Mapped::default();
        for (Mapping { field, path }, is_met) in mappings.iter().zip(met) {
            let Some(value) = at(record, path)? else { continue };
            *is_met = true;
            let text = text_of(value);
            let plain = || match value.get().as_bytes().first() {
                Some(b'{' | b'[') => Err(format!(".{}: expected a plain value", path.join("."))),
                _ => Ok(()),
            };
            match field {
                Field::Body => {
                    mapped.body = Some(text);
                    continue;
                }
                _ => plain()?,
            }
            match field {
                Field::Id => mapped.id = text,
                Field::Topic => mapped.topic = text,
                Field::Type => mapped.kind = text,
                Field::Key => mapped.key = text,
                Field::At => {
                    let time = moment::time(&text).filter(|_| value.get().starts_with('"'));
                    let bad = || {
                        format!(".{}: expected a time, as in 2026-01-31T09:30:00Z", path.join("."))
                    };
                    mapped.at = Some(time.ok_or_else(bad)?);
                }
                Field::Header(name) => mapped.headers.push((name, text)),
                Field::Body => {}
            }
        }
        mapped.body.get_or_insert(Cow::Borrowed(record.get()));
        Ok(mapped)
    }

    /// The event; `topic` is for records that say none.
    pub(super) fn event(&'a self, topic: &'a str) -> Event<'a> {
        Event {
            id: &self.id,
            topic: if self.topic.is_empty() { topic } else { &self.topic },
            kind: &self.kind,
            key: &self.key,
            at: self.at,
            body: self.body.as_deref().unwrap_or_default(),
            headers: self.headers.iter().map(|(name, value)| (*name, &**value)).collect(),
            has_client_id: !self.id.is_empty(),
            has_client_at: self.at.is_some(),
            ..Event::default()
        }
    }
}

/// What stands there; `null` is nothing. A number picks from an array.
///
/// # Errors
/// A name on the way comes twice: readers differ in which of them counts.
fn at<'a>(record: &'a RawValue, path: &[String]) -> Result<Option<&'a RawValue>, String> {
    let mut value = record;
    for name in path {
        let next = match value.get().as_bytes().first() {
            Some(b'{') => {
                let Ok(fields) = Fields::parse(value.get()) else { return Ok(None) };
                let mut all = fields.iter().filter(|(it, _)| it == name).map(|(_, value)| value);
                let first = all.next();
                if all.next().is_some() {
                    return Err(format!(".{}: `{}` is given twice", path.join("."), excerpt(name)));
                }
                first
            }
            Some(b'[') => {
                let all: Result<Vec<&RawValue>, _> = serde_json::from_str(value.get());
                let at = name.parse::<usize>().ok();
                all.ok().zip(at).and_then(|(all, at)| all.get(at).copied())
            }
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok((value.get() != "null").then_some(value))
}

/// A string without its quotes; anything else as it stands.
fn text_of(value: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) if value.get().starts_with('"') => Cow::Owned(text),
        _ => Cow::Borrowed(value.get()),
    }
}

/// A line of `kcat -J`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct KcatLine {
    topic: String,
    partition: Option<u64>,
    offset: Option<u64>,
    /// Milliseconds since 1970.
    ts: Option<i64>,
    /// A string, or where kcat was told how to read it (`-s key=i32`) any value.
    #[serde(rename = "key")]
    raw_key: Option<Box<RawValue>>,
    payload: Option<Box<RawValue>>,
    /// Names and values in turn.
    #[serde(default)]
    headers: Vec<Option<String>>,
    #[serde(skip)]
    id: String,
    #[serde(skip)]
    key: String,
    #[serde(skip)]
    body: String,
}

impl KcatLine {
    /// Reads one. Where it lay is its id, so that the same line is stored once.
    pub(super) fn parse(line: &[u8]) -> Result<KcatLine, String> {
        let read = serde_json::from_slice::<KcatLine>(line);
        let mut read =
            read.map_err(|error| tailmark_record::json::JsonError::from(error).to_string())?;
        if !read.headers.len().is_multiple_of(2) {
            return Err("`headers` has a name without a value".to_owned());
        }
        let (pairs, _) = read.headers.as_chunks::<2>();
        let mut names: Vec<_> = pairs.iter().filter_map(|[name, _]| name.as_deref()).collect();
        names.sort_unstable();
        // Kafka has such; of two values one would be lost.
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = excerpt(pair[0]);
            return Err(format!(
                "headers: `{name}` is given twice, and an event has each name once"
            ));
        }
        for (from, to) in
            [(read.raw_key.take(), &mut read.key), (read.payload.take(), &mut read.body)]
        {
            if let Some(value) = from {
                readable(value.get()).map_err(|error| error.to_string())?;
                *to = text_of(&value).into_owned();
            }
        }
        if let (Some(partition), Some(offset)) = (read.partition, read.offset) {
            read.id = format!("{}/{partition}/{offset}", read.topic);
        }
        Ok(read)
    }

    /// The event; `topic` goes before the line's own where it is not empty.
    pub(super) fn event<'a>(&'a self, topic: &'a str) -> Event<'a> {
        let (names, _) = self.headers.as_chunks::<2>();
        let header = |[name, value]: &'a [Option<String>; 2]| {
            Some((name.as_deref()?, value.as_deref().unwrap_or_default()))
        };
        let at = self.ts.filter(|ms| *ms > 0).map(|ms| {
            let (seconds, ms) = (ms.div_euclid(1_000), ms.rem_euclid(1_000));
            Timestamp { seconds, nanos: i32::try_from(ms * 1_000_000).unwrap_or_default() }
        });
        Event {
            id: &self.id,
            topic: if topic.is_empty() { &self.topic } else { topic },
            key: &self.key,
            body: &self.body,
            headers: names.iter().filter_map(header).collect(),
            at,
            has_client_id: !self.id.is_empty(),
            has_client_at: at.is_some(),
            ..Event::default()
        }
    }
}
