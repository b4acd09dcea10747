//! Durations and sizes as people write them: `15m`, `7 days`, `64 MiB`, `10GB`.
//!
//! Exact: what is written by `*_text` reads back as the same value. Durations are read by
//! humantime; sizes by ourselves, since crates read them as floating point and round.

use std::time::Duration;

const SECOND: u64 = 1_000;
/// Milliseconds a unit, largest first, so that `duration_text` prefers large ones. Weeks are read, never written.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400 * SECOND), ("h", 3_600 * SECOND), ("m", 60 * SECOND), ("s", SECOND), ("ms", 1)];
/// Bytes a unit, largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// A text that is no duration or no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}{or_unlimited}")]
pub struct UnitError {
    expected: &'static str,
    or_unlimited: &'static str,
}

const fn expected(expected: &'static str) -> UnitError {
    UnitError { expected, or_unlimited: "" }
}

const DURATION: UnitError = expected("a duration as in 500ms, 15m, 1h30m or 7 days");
const SIZE: UnitError = expected("a size as in 64 MiB (of 1,024), 10 GB (of 1,000) or plain bytes");
const TOO_LARGE: UnitError = expected("a size of less than 16 EiB");
const NUMBER: UnitError = expected("a whole number as in 1000, 1_000, 10k or 2M");

/// Reads numbers with units from weeks down to milliseconds: `1h30m`, `5min`, `7 days`. A day is 24
/// hours. Months and years have no fixed length and are refused, as is what a millisecond does not
/// divide.
///
/// # Errors
/// When it is no such duration.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut units = text.split(|c: char| !c.is_ascii_alphabetic());
    if units.any(|unit| unit == "M" || unit.starts_with("mon") || unit.starts_with('y')) {
        return Err(DURATION);
    }
    let duration = humantime::parse_duration(text).map_err(|_| DURATION)?;
    if duration.subsec_nanos().is_multiple_of(1_000_000) { Ok(duration) } else { Err(DURATION) }
}

/// The shortest text that [`parse_duration`] reads back, to the millisecond.
pub fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, factor) in DURATION_UNITS {
        if rest >= factor {
            text.push_str(&format!("{}{name}", rest / factor));
            rest %= factor;
        }
    }
    text
}

/// Reads plain bytes, or a size in powers of 1,024 (`MiB`) or of 1,000 (`MB`), in any case; decimals
/// are fine where whole bytes come of them. `M` alone is refused: programs differ on what it means.
///
/// # Errors
/// When it is no such size.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (whole, rest) = split_number(text.trim()).ok_or(SIZE)?;
    let (decimals, unit) = match rest.strip_prefix('.') {
        Some(rest) => {
            let len = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (decimals, unit) = rest.split_at(len);
            if decimals.is_empty() {
                return Err(SIZE);
            }
            (decimals, unit)
        }
        None => ("", rest),
    };
    let factor = match unit.trim() {
        "" => 1,
        unit => {
            let mut units = SIZE_UNITS.iter();
            units.find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(SIZE)?.1
        }
    };
    let whole = whole.checked_mul(factor).ok_or(TOO_LARGE)?;
    let Some((decimals, of)) = fraction(decimals) else { return Err(SIZE) };
    let part = u128::from(decimals) * u128::from(factor);
    if !part.is_multiple_of(u128::from(of)) {
        return Err(SIZE);
    }
    let part = u64::try_from(part / u128::from(of)).map_err(|_| SIZE)?;
    whole.checked_add(part).ok_or(TOO_LARGE)
}

/// Reads a number as people write it: `1000`, `1_000`, `1,000`, `10k`, `2M`, powers of 1,000.
///
/// # Errors
/// When it is no such number.
pub fn parse_number(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let is_grouped = digits.contains(['_', ',']);
    let mut groups = digits.split(['_', ',']);
    let first = groups.next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let are_whole = is_number(first) && groups.all(|group| group.len() == 3 && is_number(group));
    if !are_whole || is_grouped && first.len() > 3 {
        return Err(NUMBER);
    }
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or(NUMBER)
}

/// Digits behind a point: how many, of how many.
fn fraction(digits: &str) -> Option<(u64, u64)> {
    let of = 10u64.checked_pow(u32::try_from(digits.len()).ok()?)?;
    if digits.is_empty() { Some((0, of)) } else { Some((digits.parse().ok()?, of)) }
}

/// The text in the largest unit that divides `bytes`, be it of 1,024 or of 1,000: as it was probably written.
pub fn size_text(bytes: u64) -> String {
    let unit =
        SIZE_UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{} {name}", bytes / factor),
        None => "0 B".to_owned(),
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    Some((digits.parse().ok()?, rest))
}

/// Gives a serde module that reads text (or a plain number) and writes text.
macro_rules! as_text {
    ($(#[$doc:meta])* $module:ident, $type:ty, $parse:expr, $number:expr, $text:expr) => {
        $(#[$doc])*
        pub mod $module {
            use serde::de::{Deserializer, Error, Visitor};
            use serde::ser::Serializer;

            #[allow(unused_imports, reason = "not every unit needs what is beside it")]
            use super::*;

            /// Writes it as text.
            pub fn serialize<S: Serializer>(value: &$type, s: S) -> Result<S::Ok, S::Error> {
                let text: String = $text(*value);
                s.serialize_str(&text)
            }

            /// Reads text, or a plain number where that has one meaning.
            pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(stringify!($module))
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        $parse(text).map_err(|error: UnitError| E::custom(format_args!("`{text}`: {error}")))
                    }

                    fn visit_i64<E: Error>(self, number: i64) -> Result<$type, E> {
                        let number = u64::try_from(number).map_err(|_| E::custom("must not be negative"))?;
                        $number(number).map_err(|error: UnitError| E::custom(format_args!("{number}: {error}")))
                    }
                }
                d.deserialize_any(Text)
            }
        }
    };
}

const UNLIMITED: &str = "unlimited";

fn or_unlimited<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, UnitError>,
) -> Result<Option<T>, UnitError> {
    if text.trim() == UNLIMITED {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|error| UnitError { or_unlimited: ", or unlimited", ..error })
}

fn parse_count(text: &str) -> Result<u64, UnitError> {
    text.trim().parse().map_err(|_| expected("a whole number"))
}

fn text_or_unlimited<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNLIMITED.to_owned(), text)
}

as_text!(
    /// For `#[serde(with)]` on a `Duration`.
    duration, Duration, parse_duration, |_| Err(DURATION), duration_text
);
as_text!(
    /// For `#[serde(with)]` on a number of bytes.
    size, u64, parse_size, Ok, size_text
);
as_text!(
    /// For `#[serde(with)]` on a duration that may be `unlimited`.
    duration_or_unlimited, Option<Duration>,
    |text: &str| or_unlimited(text, parse_duration), |_| Err(DURATION),
    |value: Option<Duration>| text_or_unlimited(value, duration_text)
);
as_text!(
    /// For `#[serde(with)]` on a number of bytes that may be `unlimited`.
    size_or_unlimited, Option<u64>,
    |text: &str| or_unlimited(text, parse_size), |number| Ok(Some(number)),
    |value: Option<u64>| text_or_unlimited(value, size_text)
);
as_text!(
    /// For `#[serde(with)]` on a count that may be `unlimited`.
    count_or_unlimited, Option<u64>,
    |text: &str| or_unlimited(text, parse_count), |number| Ok(Some(number)),
    |value: Option<u64>| text_or_unlimited(value, |n| n.to_string())
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        let ms = |n| Ok(Duration::from_millis(n));
        for (text, expected) in [
            ("15m", ms(900_000)),
            ("1h30m", ms(5_400_000)),
            (" 1h 30m ", ms(5_400_000)),
            ("500 ms", ms(500)),
            ("7d", ms(604_800_000)),
            ("2w", ms(1_209_600_000)),
            ("0", ms(0)),
            ("0s", ms(0)),
            ("", Err(DURATION)),
            ("15", Err(DURATION)),
            ("m", Err(DURATION)),
            ("5min", ms(300_000)),
            ("5 minutes", ms(300_000)),
            ("7 days", ms(604_800_000)),
            ("1 week 2 days", ms(777_600_000)),
            ("30sec", ms(30_000)),
            ("1 hour ago", Err(DURATION)),
            ("1 month", Err(DURATION)),
            ("1M", Err(DURATION)),
            ("2 years", Err(DURATION)),
            ("5 apples", Err(DURATION)),
            ("500us", Err(DURATION)),
            ("-1h", Err(DURATION)),
            ("1h30", Err(DURATION)),
            ("1y", Err(DURATION)),
            ("99999999999999999999s", Err(DURATION)),
            ("18446744073709551615w", Err(DURATION)),
            ("1\u{b5}s", Err(DURATION)),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
        for millis in [0, 1, 999, 1_000, 61_001, 5_400_000, 604_800_000, u64::MAX] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }
        for text in ["1h30m", "7d", "30d", "500ms"] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("1000", Ok(1_000)),
            ("1_000_000", Ok(1_000_000)),
            ("12,345", Ok(12_345)),
            ("10k", Ok(10_000)),
            (" 10K ", Ok(10_000)),
            ("2M", Ok(2_000_000)),
            ("1,000k", Ok(1_000_000)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(NUMBER)),
            ("18446744073709552k", Err(NUMBER)),
            ("1,00", Err(NUMBER)),
            ("1000,000", Err(NUMBER)),
            (",000", Err(NUMBER)),
            ("1,", Err(NUMBER)),
            ("1.5k", Err(NUMBER)),
            ("-1", Err(NUMBER)),
            ("+1", Err(NUMBER)),
            ("k", Err(NUMBER)),
            ("", Err(NUMBER)),
            ("10 k", Err(NUMBER)),
        ] {
            assert_eq!(parse_number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_read_and_write() {
        for (text, expected) in [
            ("64 MiB", Ok(64 << 20)),
            ("64MiB", Ok(64 << 20)),
            ("4 KiB", Ok(4096)),
            ("1 GiB", Ok(1 << 30)),
            ("2 TiB", Ok(2 << 40)),
            ("17", Ok(17)),
            ("17 B", Ok(17)),
            ("", Err(SIZE)),
            ("MiB", Err(SIZE)),
            ("64 mib", Ok(64 << 20)),
            ("10GB", Ok(10_000_000_000)),
            ("64 kB", Ok(64_000)),
            ("1.5 GiB", Ok(3 << 29)),
            ("0.5 B", Err(SIZE)),
            ("1.0000000000000000000000001 GiB", Err(SIZE)),
            ("1. GiB", Err(SIZE)),
            ("9007199254740993 B", Ok(9_007_199_254_740_993)),
            ("64 M", Err(SIZE)),
            ("-1", Err(SIZE)),
            ("18446744073709551615 KiB", Err(TOO_LARGE)),
        ] {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
        for bytes in [0, 1, 1023, 1024, 1025, 64 << 20, u64::MAX] {
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
        assert_eq!(size_text(64 << 20), "64 MiB");
    }
}
