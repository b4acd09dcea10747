//! Points in the log and in time, as people write them.

use tailmark_record::moment::{self, whole};
use tailmark_record::{Cursor, Seq, Start, Timestamp};

pub(super) use tailmark_record::moment::Moment;

/// Reads a seq, a time, a date (UTC) or an age before now.
pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    moment::moment(text, Timestamp::now()).ok_or_else(|| moment::MOMENT.to_owned())
}

/// What a time looks like.
const TIME: &str =
    "expected a time (2026-01-31T09:30:00Z or 2026-01-31 09:30, in UTC) or an age (15m, 7 days)";

/// Reads a time, a date (UTC) or an age before now.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    match moment::moment(text, Timestamp::now()) {
        Some(Moment::Time(time)) => Ok(time),
        _ => Err(TIME.to_owned()),
    }
}

/// Whether it is where a watch may begin, and no number.
fn is_elsewhere(text: &str) -> bool {
    let start = moment::start(text, Timestamp::now());
    start.is_some_and(|start| !matches!(start, Start::Seq(_)))
}

/// Reads the shape of a cursor; what it means, the server knows.
pub(super) fn parse_cursor(text: &str) -> Result<String, String> {
    match Cursor::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if is_elsewhere(text) => Err(format!(
            "expected a cursor or a sequence number; `tailmark watch --from {text}` begins there"
        )),
        Err(error) => Err(format!(
            "expected a cursor, whole as `watch --json` prints it, or a sequence number ({error})"
        )),
    }
}

/// Reads where a watch begins.
pub(super) fn parse_start(text: &str) -> Result<Start, String> {
    moment::start(text, Timestamp::now()).ok_or_else(|| match Cursor::parse(text) {
        Ok(_) => "this is a cursor: --after begins behind its event".to_owned(),
        Err(_) => moment::START.to_owned(),
    })
}

/// Reads the number of one event.
pub(super) fn parse_seq(text: &str) -> Result<Seq, String> {
    whole(text).map(Seq::new).ok_or_else(|| "expected a sequence number".to_owned())
}

/// A range of seqs, inclusive; an open end is the oldest or the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeqRange {
    pub from: Option<Seq>,
    pub to: Option<Seq>,
}

/// Reads `5`, `5..9` (both inclusive), `5..` or `..9`.
pub(super) fn parse_range(text: &str) -> Result<SeqRange, String> {
    let expected = || "expected SEQ, FROM..TO (both inclusive), FROM.. or ..TO".to_owned();
    let bound = |text: &str| match text {
        "" => Ok(None),
        text => whole(text).map(|seq| Some(Seq::new(seq))).ok_or_else(expected),
    };
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (bound(from)?, bound(to)?),
        None => {
            let seq = Some(Seq::new(whole(text).ok_or_else(expected)?));
            (seq, seq)
        }
    };
    match (from, to) {
        (Some(from), Some(to)) if from > to => Err(format!("{from} is above {to}")),
        _ => Ok(SeqRange { from, to }),
    }
}

/// Reads `5`, or `7-9` or `7..9` (both inclusive).
pub(super) fn parse_seqs(text: &str) -> Result<(Seq, Seq), String> {
    let expected = || "expected SEQ or FIRST-LAST (both inclusive)".to_owned();
    let parts = text.split_once("..").or_else(|| text.split_once('-'));
    let (first, last) = parts.unwrap_or((text, text));
    let seq = |text: &str| whole(text).map(Seq::new).ok_or_else(expected);
    match (seq(first)?, seq(last)?) {
        (first, _) if first == Seq::ZERO => Err("the first event has seq 1".to_owned()),
        (first, last) if first > last => Err(format!("{first} is above {last}")),
        range => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_read() {
        let now = Timestamp::parse("2026-01-31T12:00:00Z").unwrap();
        let time = |text: &str| Some(Start::Time(Timestamp::parse(text).unwrap()));
        for (text, expected) in [
            ("oldest", Some(Start::Oldest)),
            ("latest", Some(Start::Latest)),
            ("0", Some(Start::Seq(Seq::ZERO))),
            ("15", Some(Start::Seq(Seq::new(15)))),
            ("18446744073709551615", Some(Start::Seq(Seq::MAX))),
            ("last:1", Some(Start::Last(1))),
            ("2026-01-30", time("2026-01-30T00:00:00Z")),
            ("2026-01-30T10:00:00+02:00", time("2026-01-30T08:00:00Z")),
            ("2026-01-30 07:14:27", time("2026-01-30T07:14:27Z")),
            ("2026-01-30 07:14:27.25 UTC", time("2026-01-30T07:14:27.25Z")),
            ("2026-01-30 07:14:27+02:00", time("2026-01-30T05:14:27Z")),
            ("2026-01-30 07:14", time("2026-01-30T07:14:00Z")),
            ("2026-01-30 7:14", None),
            ("2026-01-30 ", time("2026-01-30T00:00:00Z")),
            ("5min", time("2026-01-31T11:55:00Z")),
            ("7 days", time("2026-01-24T12:00:00Z")),
            ("15m", time("2026-01-31T11:45:00Z")),
            ("1h30m", time("2026-01-31T10:30:00Z")),
            ("7d", time("2026-01-24T12:00:00Z")),
            ("10000w", time("1834-06-07T12:00:00Z")),
            ("", None),
            ("last:0", None),
            ("last:", None),
            ("last:-1", None),
            ("+5", None),
            ("-5", None),
            ("18446744073709551616", None),
            ("yesterday", None),
            ("Oldest", None),
            ("2026-02-30", None),
        ] {
            assert_eq!(moment::start(text, now), expected, "{text:?}");
        }
        assert!(parse_start("soon").unwrap_err().contains("last:N"));
    }

    #[test]
    fn seqs_are_single_or_a_range() {
        let range = |first, last| Ok((Seq::new(first), Seq::new(last)));
        assert_eq!(parse_seqs("5"), range(5, 5));
        assert_eq!((parse_seqs("7-9"), parse_seqs("7..9")), (range(7, 9), range(7, 9)));
        for bad in ["", "-", "0", "9-7", "7-", "-7", "7-8-9", "a", "7 - 9", "7.."] {
            assert!(parse_seqs(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_has_a_shape() {
        assert_eq!(parse_cursor("17"), Ok("17".to_owned()));
        for bad in ["", "t", "017", "-1", "nonsense"] {
            assert!(parse_cursor(bad).unwrap_err().contains("malformed cursor"), "{bad:?}");
        }
        for start in ["latest", "5min", "last:3", "2026-01-30 07:14:27"] {
            let said = parse_cursor(start).unwrap_err();
            assert!(said.contains(&format!("`tailmark watch --from {start}`")), "{said}");
        }
    }

    #[test]
    fn moments_and_ranges_are_read() {
        assert_eq!(parse_moment("7"), Ok(Moment::Seq(Seq::new(7))));
        assert!(parse_moment("oldest").is_err());
        assert!(parse_time("7").is_err());
        let seqs = |from: Option<u64>, to: Option<u64>| {
            Ok(SeqRange { from: from.map(Seq::new), to: to.map(Seq::new) })
        };
        assert_eq!(parse_range("5"), seqs(Some(5), Some(5)));
        assert_eq!(parse_range("5..9"), seqs(Some(5), Some(9)));
        assert_eq!(parse_range("5.."), seqs(Some(5), None));
        assert_eq!(parse_range("..9"), seqs(None, Some(9)));
        for bad in ["", "9..5", "a", "1..b", "-1", "1-2"] {
            assert!(parse_range(bad).is_err(), "{bad:?}");
        }
    }
}
