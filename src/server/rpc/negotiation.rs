//! Content negotiation: the media type and codings of a body, and `Accept` (RFC 9110, sections
//! 12.4.2 and 12.5.1).
//!
//! `Accept` is parsed as leniently as scrapers need it: a malformed part is skipped, and only the
//! parameters `q` and `version` count, so that `charset` or `escaping` keep nobody from an answer.
//! Several headers form one list.

use std::cmp::Reverse;

use http::{HeaderMap, header};

/// Something that could be answered.
pub(crate) struct Offer {
    /// The media type without parameters, in lower case.
    pub(crate) essence: &'static str,
    /// Empty where it has none.
    pub(crate) version: &'static str,
}

/// A media range and how much it is wanted, in thousandths.
struct Range {
    kind: String,
    subtype: String,
    version: Option<String>,
    quality: u16,
}

/// Which of these is wanted most; `None` when none of them is. Of what is wanted the same, what is
/// named goes before what is only covered by a `*`, then what the client names first, then what is
/// offered first.
pub(crate) fn choose(headers: &HeaderMap, offers: &[Offer]) -> Option<usize> {
    let ranges = ranges(headers);
    let rated = offers.iter().enumerate().filter_map(|(at, offer)| {
        let matching = ranges.iter().enumerate().filter_map(|(place, range)| {
            Some((range.closeness(offer)?, Reverse(place), range.quality))
        });
        // The closest range says how much it is wanted, whatever the others say.
        let (closeness, place, quality) = matching.max()?;
        (quality > 0).then_some((quality, closeness, place, Reverse(at)))
    });
    rated.max().map(|(.., Reverse(at))| at)
}

impl Range {
    /// How closely it names an offer; `None` when it does not.
    fn closeness(&self, offer: &Offer) -> Option<u8> {
        let (kind, subtype) = offer.essence.split_once('/')?;
        if self.kind == "*" && self.subtype == "*" {
            return Some(0);
        }
        if self.kind != kind {
            return None;
        }
        if self.subtype == "*" {
            return Some(1);
        }
        match &self.version {
            _ if self.subtype != subtype => None,
            None => Some(2),
            Some(version) => (version == offer.version).then_some(3),
        }
    }
}

fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let values = headers.get_all(header::ACCEPT).iter();
    let texts: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    texts.iter().flat_map(|text| split(text, ',')).filter_map(range).collect()
}

fn range(text: &str) -> Option<Range> {
    let mut parts = split(text, ';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let mut range = Range {
        kind: kind.to_ascii_lowercase(),
        subtype: subtype.to_ascii_lowercase(),
        version: None,
        quality: 1000,
    };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => range.quality = quality(value.trim())?,
            "version" => range.version = Some(value.trim().trim_matches('"').to_owned()),
            _ => {}
        }
    }
    Some(range)
}

/// `0.5` and the like in thousandths.
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// Splits where a separator stands outside of quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => is_escaped = true,
            _ => {}
        }
        c == separator && !is_quoted
    })
}

/// The content type without its parameters, in lower case; of several that differ all, which is none
/// that anybody takes. Parameters may hold any bytes.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut essences = headers.get_all(header::CONTENT_TYPE).iter().map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    });
    let first = essences.next().filter(|essence| !essence.is_empty())?;
    Some(essences.filter(|other| *other != first).fold(first.clone(), |all, one| all + ", " + &one))
}

/// The codings that a header lists, where one is another than `identity`.
pub(crate) fn codings(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let lists: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let all = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
    let mut others = all.filter(|one| !one.is_empty() && !one.eq_ignore_ascii_case("identity"));
    let first = others.next()?.to_owned();
    Some(others.fold(first, |all, one| all + ", " + one))
}
