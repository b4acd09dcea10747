//! Points in the log and in time, as people write them; the same on the command line and in a URL.

use crate::units::parse_duration;
use crate::{Seq, Start, Timestamp};

/// A seq or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A seq.
    Seq(Seq),
    /// A time of appending.
    Time(Timestamp),
}

macro_rules! moment {
    () => {
        "a sequence number, a time (2026-01-31T09:30:00Z or 2026-01-31 09:30, in UTC) or an age (15m, 7 days)"
    };
}

/// What a moment looks like.
pub const MOMENT: &str = concat!("expected ", moment!());
/// What a start looks like.
pub const START: &str = concat!("expected oldest, latest, last:N, ", moment!());

/// Reads where a watch begins; an age counts back from `now`.
pub fn start(text: &str, now: Timestamp) -> Option<Start> {
    Some(match text {
        "oldest" => Start::Oldest,
        "latest" => Start::Latest,
        _ => match text.strip_prefix("last:") {
            Some(count) => Start::Last(whole(count).filter(|&count| count > 0)?),
            None => match moment(text, now)? {
                Moment::Seq(seq) => Start::Seq(seq),
                Moment::Time(time) => Start::Time(time),
            },
        },
    })
}

/// Reads a seq, a time, a date (UTC) or an age before `now`.
pub fn moment(text: &str, now: Timestamp) -> Option<Moment> {
    if let Some(seq) = whole(text) {
        return Some(Moment::Seq(Seq::new(seq)));
    }
    let time = time(text).or_else(|| parse_duration(text).ok().map(|age| now.before(age)))?;
    Some(Moment::Time(time))
}

/// Reads a time as people and logs write it: RFC 3339, also with a space in place of the `T`, without
/// seconds, or the date alone. Without an offset it is UTC, as everything that is printed is.
pub fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.strip_suffix("UTC").map_or(text, str::trim_end);
    let (date, clock) = text.split_once([' ', 'T', 't']).unwrap_or((text, "00:00:00"));
    let seconds = if clock.len() == "07:14".len() { ":00" } else { "" };
    let time = format!("{date}T{clock}{seconds}");
    Timestamp::parse(&time).or_else(|| Timestamp::parse(&format!("{time}Z")))
}

/// Digits and nothing else: `str::parse` would take a sign.
pub fn whole(text: &str) -> Option<u64> {
    if text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}
