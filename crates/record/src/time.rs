//! Points in time, as `google.protobuf.Timestamp` has them.

use std::fmt;

/// Seconds and nanoseconds since 1970-01-01T00:00:00Z, years 1 to 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forward also before 1970.
    pub nanos: i32,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp { seconds: 0, nanos: 0 };
    const MIN_SECONDS: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
    const MAX_SECONDS: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z

    /// The last that nanoseconds since 1970 in 64 bits can say, in the year 2262: the last at which an
    /// event can be appended.
    pub const LAST_OF_NANOS: Timestamp = Timestamp::from_nanos(i64::MAX);

    /// Whether it lies in the years 1 to 9999 and its nanoseconds are in range, as the protobuf
    /// definition of Timestamp requires.
    pub fn is_valid(self) -> bool {
        (Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&self.seconds)
            && (0..1_000_000_000).contains(&self.nanos)
    }

    /// The machine's wall clock, clamped to the valid range.
    pub fn now() -> Timestamp {
        Timestamp::of(std::time::SystemTime::now())
    }

    /// A system time, clamped to the valid range and to no earlier than 1970.
    pub fn of(time: std::time::SystemTime) -> Timestamp {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Timestamp {
                seconds: since.as_secs().min(Self::MAX_SECONDS.unsigned_abs()).cast_signed(),
                nanos: since.subsec_nanos().cast_signed(),
            },
            Err(_) => Timestamp::EPOCH,
        }
    }

    /// Nanoseconds since 1970, saturating; for comparing and storing.
    pub fn as_nanos(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }

    /// The reverse of [`Timestamp::as_nanos`].
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below 1e9")]
    pub const fn from_nanos(nanos: i64) -> Timestamp {
        Timestamp {
            seconds: nanos.div_euclid(1_000_000_000),
            nanos: nanos.rem_euclid(1_000_000_000) as i32,
        }
    }

    /// This time moved back by `by`, stopping at year 1.
    pub fn before(self, by: std::time::Duration) -> Timestamp {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let t = Timestamp::from_nanos(self.as_nanos().saturating_sub(by));
        if t.is_valid() { t } else { Timestamp { seconds: Self::MIN_SECONDS, nanos: 0 } }
    }

    /// Parses RFC 3339 with `Z` or an offset; a leap second counts as the second before it.
    /// Decimals beyond nanoseconds are cut off.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let b = text.as_bytes();
        if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
            return None;
        }
        if !matches!(b[10], b'T' | b't') {
            return None;
        }
        let (year, month, day) = (digits(&b[..4])?, digits(&b[5..7])?, digits(&b[8..10])?);
        let (hour, minute, second) =
            (digits(&b[11..13])?, digits(&b[14..16])?, digits(&b[17..19])?);
        if day < 1 || day > days_in_month(year, month)? || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (nanos, zone) = decimals(&b[19..])?;
        let offset = match zone {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let of_day = hour * 3600 + minute * 60 + second.min(59);
        let seconds = days_from_civil(year, month, day) * 86_400 + of_day - offset;
        let t = Timestamp { seconds, nanos };
        t.is_valid().then_some(t)
    }

    /// Appends the RFC 3339 text of a valid time; see `Display`.
    pub fn write_to(self, out: &mut Vec<u8>) {
        if !self.is_valid() {
            // Nothing that was stored gets here; say what it is rather than something else.
            out.extend_from_slice(format!("{}.{:09}s", self.seconds, self.nanos).as_bytes());
            return;
        }
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(86_400));
        let of_day = self.seconds.rem_euclid(86_400);
        push_digits(out, year, 4);
        for (separator, value) in [
            (b'-', month),
            (b'-', day),
            (b'T', of_day / 3600),
            (b':', of_day / 60 % 60),
            (b':', of_day % 60),
        ] {
            out.push(separator);
            push_digits(out, value, 2);
        }
        let (value, width) = match i64::from(self.nanos) {
            0 => (0, 0),
            n if n % 1_000_000 == 0 => (n / 1_000_000, 3),
            n if n % 1_000 == 0 => (n / 1_000, 6),
            n => (n, 9),
        };
        if width > 0 {
            out.push(b'.');
            push_digits(out, value, width);
        }
        out.push(b'Z');
    }
}

/// RFC 3339 in UTC with as many decimals as the value has (0, 3, 6 or 9), as proto3 JSON has it.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(30);
        self.write_to(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

#[expect(clippy::cast_sign_loss, reason = "the parts of a valid time are not negative")]
fn push_digits(out: &mut Vec<u8>, value: i64, width: u32) {
    for at in (0..width).rev() {
        out.push(b'0' + (value / 10i64.pow(at) % 10) as u8);
    }
}

/// The nanoseconds of an optional fraction, and what follows it.
fn decimals(text: &[u8]) -> Option<(i32, &[u8])> {
    let Some(fraction) = text.strip_prefix(b".") else { return Some((0, text)) };
    let len = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
    let mut nanos = 0;
    let digits = fraction[..len].iter().map(|c| c - b'0').chain(std::iter::repeat(0));
    for digit in digits.take(9) {
        nanos = nanos * 10 + i32::from(digit);
    }
    (len > 0).then(|| (nanos, &fraction[len..]))
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    })
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar, and back: the method of
/// <https://howardhinnant.github.io/date_algorithms.html>. Years begin in March there, so that the
/// leap day comes last. jiff, which the tests compare with, ends a day before year 9999 does.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_and_write_as_jiff_does() {
        // Every 13 hours and some over the whole range that jiff has.
        let mut seconds = Timestamp::MIN_SECONDS;
        while seconds < Timestamp::MAX_SECONDS - 200_000 {
            let t = Timestamp {
                seconds,
                nanos: i32::try_from(seconds.rem_euclid(1_000) * 1_000_000).unwrap(),
            };
            let text = t.to_string();
            assert_eq!(Timestamp::parse(&text), Some(t), "{text}");
            let jiff = jiff::Timestamp::new(seconds, 0).unwrap().strftime("%Y-%m-%dT%H:%M:%S");
            assert_eq!(text[..19], jiff.to_string(), "{seconds}");
            seconds += 46_800 * 97 + 61;
        }
        for (text, expected) in [
            ("9999-12-31T23:59:59.999999999Z", Some((Timestamp::MAX_SECONDS, 999_999_999))),
            ("0001-01-01T00:00:00Z", Some((Timestamp::MIN_SECONDS, 0))),
            ("1970-01-01T00:00:00.1Z", Some((0, 100_000_000))),
            ("1969-12-31T23:59:59.5Z", Some((-1, 500_000_000))),
            ("2013-06-06T17:43:32-07:00", Some((1_370_565_812, 0))),
            ("2013-06-06t17:43:32+05:30", Some((1_370_520_812, 0))),
            ("2016-12-31T23:59:60Z", Some((1_483_228_799, 0))),
            ("1970-01-01T00:00:00.1234567899Z", Some((0, 123_456_789))),
            ("0001-01-01T00:00:00+00:01", None),
            ("2013-02-29T00:00:00Z", None),
            ("2013-13-01T00:00:00Z", None),
            ("2013-01-01T24:00:00Z", None),
            ("2013-01-01T00:00:00", None),
            ("2013-01-01T00:00:00.Z", None),
            ("2013-01-01 00:00:00Z", None),
            ("2013-01-01T00:00:00+0100", None),
            ("2013-01-01T00:00:00Zx", None),
            ("", None),
            ("\u{e4}013-01-01T00:00:00Z000", None),
        ] {
            let expected = expected.map(|(seconds, nanos)| Timestamp { seconds, nanos });
            assert_eq!(Timestamp::parse(text), expected, "{text}");
        }
    }
}
