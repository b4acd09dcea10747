//! News about a watch, as it comes between the events: a view of `feed.v1.Marker`.

use std::time::Duration;

use super::varint::{Reader, Value, int32};
use super::{EventError, Seq, Timestamp};

/// What a marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerKind {
    /// First: where the watch really starts.
    Resumed,
    /// Everything up to the head has been delivered; live from here.
    CaughtUp,
    /// No longer live: reading from storage again.
    FellBehind,
    /// Still there; the cursor tells how far a filtered watch has looked.
    Heartbeat,
    /// Events that this watch will not get.
    Gap,
    /// The server is about to end this watch.
    Closing,
    /// A kind that this program does not know, to be passed over.
    Other(i32),
}

impl MarkerKind {
    fn from_wire(number: i32) -> Self {
        match number {
            1 => MarkerKind::Resumed,
            2 => MarkerKind::CaughtUp,
            3 => MarkerKind::FellBehind,
            4 => MarkerKind::Heartbeat,
            5 => MarkerKind::Gap,
            6 => MarkerKind::Closing,
            other => MarkerKind::Other(other),
        }
    }

    /// Its number in the proto.
    pub fn number(self) -> i32 {
        match self {
            MarkerKind::Resumed => 1,
            MarkerKind::CaughtUp => 2,
            MarkerKind::FellBehind => 3,
            MarkerKind::Heartbeat => 4,
            MarkerKind::Gap => 5,
            MarkerKind::Closing => 6,
            MarkerKind::Other(number) => number,
        }
    }

    /// Its name in the proto; `None` for one that this program does not know.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            MarkerKind::Resumed => "RESUMED",
            MarkerKind::CaughtUp => "CAUGHT_UP",
            MarkerKind::FellBehind => "FELL_BEHIND",
            MarkerKind::Heartbeat => "HEARTBEAT",
            MarkerKind::Gap => "GAP",
            MarkerKind::Closing => "CLOSING",
            MarkerKind::Other(_) => return None,
        })
    }
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Removed by retention or a trim.
    Trimmed,
    /// Lost to damage on disk.
    Damaged,
    /// Erased on request.
    Erased,
    /// The cursor belongs to another log.
    LogChanged,
    /// The cursor's history ended differently.
    LogDiverged,
    /// The cursor was beyond the head.
    Ahead,
    /// Let go by the retention of their topics.
    Expired,
    /// Newer events have taken the place of at least one; others may have expired.
    Compacted,
    /// A reason that this program does not know.
    Other(i32),
}

impl GapReason {
    fn from_wire(number: i32) -> Self {
        match number {
            1 => GapReason::Trimmed,
            2 => GapReason::Damaged,
            3 => GapReason::Erased,
            4 => GapReason::LogChanged,
            5 => GapReason::LogDiverged,
            6 => GapReason::Ahead,
            7 => GapReason::Expired,
            8 => GapReason::Compacted,
            other => GapReason::Other(other),
        }
    }

    /// Its number in the proto.
    pub fn number(self) -> i32 {
        match self {
            GapReason::Trimmed => 1,
            GapReason::Damaged => 2,
            GapReason::Erased => 3,
            GapReason::LogChanged => 4,
            GapReason::LogDiverged => 5,
            GapReason::Ahead => 6,
            GapReason::Expired => 7,
            GapReason::Compacted => 8,
            GapReason::Other(number) => number,
        }
    }

    /// Its name in the proto; `None` for one that this program does not know.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            GapReason::Trimmed => "TRIMMED",
            GapReason::Damaged => "DAMAGED",
            GapReason::Erased => "ERASED",
            GapReason::LogChanged => "LOG_CHANGED",
            GapReason::LogDiverged => "LOG_DIVERGED",
            GapReason::Ahead => "AHEAD",
            GapReason::Expired => "EXPIRED",
            GapReason::Compacted => "COMPACTED",
            GapReason::Other(_) => return None,
        })
    }

    /// Whether the events were meant to go, by rules for their topics. Nothing was lost then.
    pub fn is_intended(self) -> bool {
        matches!(self, GapReason::Expired | GapReason::Compacted)
    }
}

/// A range of missing events, inclusive; 0 and 0 where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First missing seq.
    pub from: Seq,
    /// Last missing seq.
    pub to: Seq,
    /// Why.
    pub reason: GapReason,
}

/// One marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// What it says.
    pub kind: MarkerKind,
    /// Where a watch may resume from here.
    pub cursor: String,
    /// The server's clock.
    pub at: Option<Timestamp>,
    /// First readable seq.
    pub oldest: Seq,
    /// Seq of the last durable event.
    pub head: Seq,
    /// Events between the watch's position and the head, matching or not.
    pub lag_events: u64,
    /// With [`MarkerKind::Gap`].
    pub gap: Option<Gap>,
    /// With [`MarkerKind::Closing`]: wait this long before reconnecting.
    pub retry_delay: Option<Duration>,
}

impl Marker {
    /// A marker that says nothing but its kind and place.
    pub fn new(kind: MarkerKind, cursor: impl Into<String>) -> Self {
        Marker {
            kind,
            cursor: cursor.into(),
            at: None,
            oldest: Seq::ZERO,
            head: Seq::ZERO,
            lag_events: 0,
            gap: None,
            retry_delay: None,
        }
    }

    /// Reads the marker of an encoded `feed.v1.Event`, if it carries one.
    ///
    /// # Errors
    /// When the bytes are not protobuf, or a known field has another type.
    pub fn of_event(bytes: &[u8]) -> Result<Option<Marker>, EventError> {
        let mut reader = Reader { rest: bytes };
        while let Some((number, value)) = reader.field()? {
            if let (15, Value::Bytes(marker)) = (number, value) {
                return Marker::parse(marker).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads an encoded `feed.v1.Marker`.
    ///
    /// # Errors
    /// As [`Marker::of_event`].
    pub fn parse(bytes: &[u8]) -> Result<Marker, EventError> {
        let mut marker = Marker::new(MarkerKind::Other(0), "");
        let mut reader = Reader { rest: bytes };
        while let Some((number, value)) = reader.field()? {
            match (number, value) {
                (1, Value::Varint(v)) => marker.kind = MarkerKind::from_wire(int32(v)),
                (2, Value::Bytes(v)) => {
                    marker.cursor = std::str::from_utf8(v)
                        .map_err(|_| EventError::new("text is not UTF-8"))?
                        .to_owned();
                }
                (3, Value::Bytes(v)) => {
                    let (seconds, nanos) = seconds_and_nanos(v)?;
                    marker.at = Some(Timestamp { seconds, nanos });
                }
                (4, Value::Varint(v)) => marker.oldest = Seq::new(v),
                (5, Value::Varint(v)) => marker.head = Seq::new(v),
                (6, Value::Varint(v)) => marker.lag_events = v,
                (7, Value::Bytes(v)) => marker.gap = Some(gap(v)?),
                (8, Value::Bytes(v)) => {
                    let (seconds, nanos) = seconds_and_nanos(v)?;
                    // A negative delay means nothing; take it as none.
                    marker.retry_delay = u64::try_from(seconds).ok().map(|seconds| {
                        Duration::new(seconds, nanos.clamp(0, 999_999_999).unsigned_abs())
                    });
                }
                (1..=8, _) => return Err(EventError::new("a field has another type")),
                _ => {}
            }
        }
        Ok(marker)
    }
}

/// `google.protobuf.Timestamp` and `Duration` have the same shape.
fn seconds_and_nanos(bytes: &[u8]) -> Result<(i64, i32), EventError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Varint(v)) => seconds = v.cast_signed(),
            (2, Value::Varint(v)) => nanos = int32(v),
            (1 | 2, _) => return Err(EventError::new("a time has another type")),
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

fn gap(bytes: &[u8]) -> Result<Gap, EventError> {
    let mut gap = Gap { from: Seq::ZERO, to: Seq::ZERO, reason: GapReason::Other(0) };
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Varint(v)) => gap.from = Seq::new(v),
            (2, Value::Varint(v)) => gap.to = Seq::new(v),
            (3, Value::Varint(v)) => gap.reason = GapReason::from_wire(int32(v)),
            (1..=3, _) => return Err(EventError::new("a gap has another type")),
            _ => {}
        }
    }
    Ok(gap)
}
