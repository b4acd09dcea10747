//! Who a log is, as an export says it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Error, VERSION};
use crate::inspect::{History, State};
use tailmark_log::chain::Link;
use tailmark_log::storage::local::{order_bytes, order_of};
use tailmark_log::storage::meta::Meta;
use tailmark_log::storage::{EraseOrder, Removed, RemovedReason};
use tailmark_record::json::Object;
use tailmark_record::{
    FingerprintKey, GapReason, Generation, GenerationEntry, GenerationTable, LogId, Seq, Timestamp,
};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::values::{from_timestamp, timestamp as to_time};

/// Of a log that is about to be exported.
pub(super) fn of(history: &History) -> pb::ExportHeader {
    let meta = &history.meta;
    let entries = meta.generations.entries().iter();
    // By then producers may have sent less than the state knows of.
    let state = if history.reaches_head { history.state.clone() } else { State::default() };
    let delta = |(first, end, delta): (Seq, Seq, Vec<u8>)| pb::ExportDelta {
        first_seq: first.get(),
        end_seq: end.get(),
        delta: delta.into(),
    };
    let erasing = history.erasing.as_ref().map(|order| order_bytes(meta.log, order));
    pb::ExportHeader {
        version: VERSION,
        log_id: meta.log.to_string(),
        generations: entries
            .map(|entry| pb::Generation {
                counter: u32::from(entry.generation.counter),
                nonce: entry.generation.nonce,
                first_seq: entry.first.get(),
                since: Some(to_time(entry.since)),
                cause: entry.cause.clone(),
            })
            .collect(),
        created_at: Some(to_time(meta.created_at)),
        first_seq: history.first.get(),
        last_seq: history.end.prev().get(),
        link_before: history.link_before.bytes().to_vec().into(),
        key: meta.key.bytes().to_vec().into(),
        state: state.state.into(),
        deltas: state.deltas.into_iter().map(delta).collect(),
        last_at: Some(to_time(history.state.last_at)),
        slot_bytes: meta.slot_bytes,
        erasing: erasing.unwrap_or_default().into(),
    }
}

/// What a header says, understood.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) meta: Meta,
    pub(crate) first: Seq,
    pub(crate) end: Seq,
    pub(crate) link_before: Link,
    pub(crate) state: State,
    pub(crate) erasing: Option<Arc<EraseOrder>>,
}

impl Origin {
    pub(crate) fn of(header: pb::ExportHeader) -> Result<Origin, Error> {
        let malformed = |what: &str| Error::Malformed { record: 1, what: what.to_owned() };
        Origin::understood(header).map_err(malformed)
    }

    fn understood(header: pb::ExportHeader) -> Result<Origin, &'static str> {
        if header.version != VERSION {
            return Err("the export has a newer form, or none");
        }
        let log = uuid::Uuid::parse_str(&header.log_id).map_err(|_| "log_id is no UUID")?;
        let rows = header.generations.into_iter().map(row).collect::<Result<_, _>>()?;
        let generations = GenerationTable::new(rows).ok_or("the generations are out of order")?;
        let sixteen = |bytes: &[u8]| <[u8; 16]>::try_from(bytes);
        let key = sixteen(&header.key).map_err(|_| "key has not 16 bytes")?;
        let link = sixteen(&header.link_before).map_err(|_| "link_before has not 16 bytes")?;
        let (first, end) = (Seq::new(header.first_seq), Seq::new(header.last_seq).next());
        if first < Seq::FIRST || end < first {
            return Err("first_seq and last_seq make no sense");
        }
        let log = LogId::new(log);
        let erasing = match header.erasing.is_empty() {
            true => None,
            // Its file is this one.
            false => Some(
                order_of(&header.erasing, log, Path::new(""))
                    .map_err(|_| "what was to be erased cannot be read")?,
            ),
        };
        let deltas = header.deltas.into_iter().map(|delta| {
            (Seq::new(delta.first_seq), Seq::new(delta.end_seq), delta.delta.to_vec())
        });
        Ok(Origin {
            meta: Meta {
                log,
                key: FingerprintKey::new(key),
                generations,
                created_at: header.created_at.map(from_timestamp).unwrap_or_default(),
                slot_bytes: header.slot_bytes,
                slot_files: 0,
                clean_stop: None,
                whereabouts: [0; 16],
                copy_of: None,
            },
            first,
            end,
            link_before: Link::new(link),
            state: State {
                state: header.state.to_vec(),
                deltas: deltas.collect(),
                last_at: header.last_at.map(from_timestamp).unwrap_or_default(),
            },
            erasing: erasing.map(Arc::new),
        })
    }
}

fn row(row: pb::Generation) -> Result<GenerationEntry, &'static str> {
    let counter = u16::try_from(row.counter).map_err(|_| "a generation's counter is too high")?;
    Ok(GenerationEntry {
        generation: Generation { counter, nonce: row.nonce },
        first: Seq::new(row.first_seq),
        since: row.since.map(from_timestamp).unwrap_or_default(),
        cause: row.cause,
    })
}

/// Writes a header as JSON.
pub(super) fn write_json(object: &mut Object<'_>, header: &pb::ExportHeader) {
    let time = |time: &Option<prost_types::Timestamp>| time.map(from_timestamp);
    object.unsigned("version", header.version);
    object.text("log_id", &header.log_id);
    object.objects("generations", &header.generations, |object, row| {
        object.unsigned("counter", row.counter);
        object.unsigned("nonce", row.nonce);
        object.number("first_seq", row.first_seq);
        object.time("since", time(&row.since));
        object.text("cause", &row.cause);
    });
    object.time("created_at", time(&header.created_at));
    object.number("first_seq", header.first_seq);
    object.number("last_seq", header.last_seq);
    object.text("link_before", &STANDARD.encode(&header.link_before));
    object.text("key", &STANDARD.encode(&header.key));
    object.text("state", &STANDARD.encode(&header.state));
    object.objects("deltas", &header.deltas, |object, delta| {
        object.number("first_seq", delta.first_seq);
        object.number("end_seq", delta.end_seq);
        object.text("delta", &STANDARD.encode(&delta.delta));
    });
    object.time("last_at", time(&header.last_at));
    object.number("slot_bytes", header.slot_bytes);
    object.text("erasing", &STANDARD.encode(&header.erasing));
}

/// Events that are gone.
pub(super) fn of_removed(range: &Removed) -> pb::ExportRemoved {
    pb::ExportRemoved {
        first_seq: range.first.get(),
        last_seq: range.end.prev().get(),
        reason: GapReason::from(range.reason).number(),
        link: range.link.bytes().to_vec().into(),
    }
}

/// What a range says, understood: why, the seq after its last, and the chain there.
pub(crate) fn understood(
    range: &pb::ExportRemoved,
    next: Seq,
) -> Result<(RemovedReason, Seq, Link), &'static str> {
    let reason = match range.reason() {
        pb::gap::Reason::Expired => RemovedReason::Expired,
        pb::gap::Reason::Compacted => RemovedReason::Compacted,
        pb::gap::Reason::Damaged => RemovedReason::Damaged,
        _ => return Err("a range without events is of a newer form"),
    };
    let link = <[u8; 16]>::try_from(&range.link[..]).map_err(|_| "link has not 16 bytes")?;
    let (first, last) = (Seq::new(range.first_seq), Seq::new(range.last_seq));
    if first != next || last < first || last == Seq::MAX {
        return Err("a range without events is not in its place");
    }
    Ok((reason, last.next(), Link::new(link)))
}

/// Writes a range as JSON.
pub(super) fn write_removed_json(object: &mut Object<'_>, range: &pb::ExportRemoved) {
    object.number("first_seq", range.first_seq);
    object.number("last_seq", range.last_seq);
    object.text("reason", range.reason().as_str_name());
    object.text("link", &STANDARD.encode(&range.link));
}

/// Writes the last record as JSON.
pub(super) fn write_end_json(object: &mut Object<'_>, end: &pb::ExportEnd) {
    object.number("events", end.events);
    object.text("link", &STANDARD.encode(&end.link));
    object.text("hash", &STANDARD.encode(&end.hash));
    object.number("removed", end.removed);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct HeaderJson<'a> {
    version: u32,
    #[serde(borrow)]
    log_id: Cow<'a, str>,
    #[serde(borrow)]
    generations: Vec<GenerationJson<'a>>,
    created_at: Cow<'a, str>,
    first_seq: Cow<'a, str>,
    last_seq: Cow<'a, str>,
    link_before: Cow<'a, str>,
    key: Cow<'a, str>,
    state: Cow<'a, str>,
    deltas: Vec<DeltaJson<'a>>,
    last_at: Cow<'a, str>,
    /// Exports of before it was said have none.
    slot_bytes: Cow<'a, str>,
    erasing: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GenerationJson<'a> {
    counter: u32,
    nonce: u32,
    #[serde(borrow)]
    first_seq: Cow<'a, str>,
    since: Cow<'a, str>,
    cause: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeltaJson<'a> {
    #[serde(borrow)]
    first_seq: Cow<'a, str>,
    end_seq: Cow<'a, str>,
    delta: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EndJson<'a> {
    #[serde(borrow)]
    events: Cow<'a, str>,
    link: Cow<'a, str>,
    hash: Cow<'a, str>,
    removed: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RemovedJson<'a> {
    #[serde(borrow)]
    first_seq: Cow<'a, str>,
    last_seq: Cow<'a, str>,
    reason: Cow<'a, str>,
    link: Cow<'a, str>,
}

/// Reads what [`write_json`] wrote.
pub(super) fn read_json(text: &str) -> Result<pb::ExportHeader, String> {
    let header: HeaderJson<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let generation = |row: GenerationJson<'_>| {
        Ok(pb::Generation {
            counter: row.counter,
            nonce: row.nonce,
            first_seq: number(&row.first_seq)?,
            since: time(&row.since)?,
            cause: row.cause.into_owned(),
        })
    };
    let delta = |row: DeltaJson<'_>| {
        Ok(pb::ExportDelta {
            first_seq: number(&row.first_seq)?,
            end_seq: number(&row.end_seq)?,
            delta: bytes(&row.delta)?.into(),
        })
    };
    Ok(pb::ExportHeader {
        version: header.version,
        log_id: header.log_id.into_owned(),
        generations: header
            .generations
            .into_iter()
            .map(generation)
            .collect::<Result<_, String>>()?,
        created_at: time(&header.created_at)?,
        first_seq: number(&header.first_seq)?,
        last_seq: number(&header.last_seq)?,
        link_before: bytes(&header.link_before)?.into(),
        key: bytes(&header.key)?.into(),
        state: bytes(&header.state)?.into(),
        deltas: header.deltas.into_iter().map(delta).collect::<Result<_, String>>()?,
        last_at: time(&header.last_at)?,
        slot_bytes: number(&header.slot_bytes)?,
        erasing: bytes(&header.erasing)?.into(),
    })
}

/// Reads what [`write_end_json`] wrote.
pub(super) fn read_end_json(text: &str) -> Result<pb::ExportEnd, String> {
    let end: EndJson<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(pb::ExportEnd {
        events: number(&end.events)?,
        link: bytes(&end.link)?.into(),
        hash: bytes(&end.hash)?.into(),
        removed: number(&end.removed)?,
    })
}

/// Reads what [`write_removed_json`] wrote.
pub(super) fn read_removed_json(text: &str) -> Result<pb::ExportRemoved, String> {
    let range: RemovedJson<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let reason = pb::gap::Reason::from_str_name(&range.reason);
    Ok(pb::ExportRemoved {
        first_seq: number(&range.first_seq)?,
        last_seq: number(&range.last_seq)?,
        reason: reason.ok_or("a range without events is of a newer form")?.into(),
        link: bytes(&range.link)?.into(),
    })
}

/// A 64-bit number, as proto3 JSON has it; empty is 0.
pub(super) fn number(text: &str) -> Result<u64, String> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| format!("`{text}` is no number")) }
}

pub(super) fn timestamp(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| format!("`{text}` is no time"))
}

fn time(text: &str) -> Result<Option<prost_types::Timestamp>, String> {
    if text.is_empty() { Ok(None) } else { Ok(Some(to_time(timestamp(text)?))) }
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("not base64: {error}"))
}
