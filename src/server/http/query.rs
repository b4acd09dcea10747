//! Query parameters, parsed strictly: an unknown, repeated or malformed one is an error that names
//! it. Only parameters that libraries add by themselves are ignored.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::server::rpc::status::{self, Failure};

/// What jQuery, Ext JS and htmx add to a URL so that no cache answers it. Who uses them cannot always
/// leave it out, and it asks for nothing.
const CACHE_BUSTERS: [&str; 3] = ["_", "_dc", "org.htmx.cache-buster"];

/// What stands after the `?`.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Takes a query apart and refuses names that are not `known`.
    pub(super) fn read(text: Option<&str>, known: &[&str]) -> Result<Query, Failure> {
        Query::read_with(text, known, |_| false)
    }

    /// The same, where names may also be such that `is_known` tells.
    pub(super) fn read_with(
        text: Option<&str>,
        known: &[&str],
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Query, Failure> {
        let mut pairs = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = decode(name) else {
                return Err(status::bad_field("query", "the name of a parameter is not UTF-8"));
            };
            if CACHE_BUSTERS.contains(&&*name) {
                continue;
            }
            if !known.contains(&&*name) && !is_known(&name) {
                return Err(status::unknown_parameter(&name, known));
            }
            let value = decode(value).ok_or_else(|| status::bad_field(&name, "is not UTF-8"))?;
            pairs.push((name, value));
        }
        Ok(Query { pairs })
    }

    /// All values of a name, in their order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// The last value that is not empty, of all names that `is_meant` tells, and its name.
    pub(super) fn last(&self, is_meant: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
        let meant =
            self.pairs.iter().rev().find(|(name, value)| !value.is_empty() && is_meant(name));
        meant.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The only value of a name; empty counts as absent.
    pub(super) fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Failure> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(status::bad_field(name, "is given twice"));
        }
        Ok(first.filter(|value| !value.is_empty()))
    }

    /// The only value of a name, read by `parse`.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        parse(value).map(Some).ok_or_else(|| status::bad_field(name, expected))
    }

    /// A number without a sign.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.parsed(name, "expected a whole number that is not too large", |value| {
            value.bytes().all(|c| c.is_ascii_digit()).then(|| value.parse().ok()).flatten()
        })
    }

    /// True or false; a name without a value is true.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        if self.all(name).any(str::is_empty) {
            self.one(name)?;
            return Ok(true);
        }
        let value = self.parsed(name, "expected true or false", |value| match value {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })?;
        Ok(value.unwrap_or(false))
    }
}

/// Decodes `%` escapes and `+`.
fn decode(text: &str) -> Option<String> {
    let text: Cow<'_, str> =
        if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;
    use tonic_types::StatusExt;

    fn field(failure: Failure) -> String {
        let status = Status::from(failure);
        status.get_details_error_info().unwrap().metadata["field"].clone()
    }

    fn read(text: &str) -> Query {
        Query::read(Some(text), &["topic", "limit", "flag"]).unwrap()
    }

    #[test]
    fn escapes_and_repeats_are_read() {
        let query = read("topic=a.%3E&topic=*.b&&topic=a+b%20c&limit=5&flag");
        assert_eq!(query.all("topic").collect::<Vec<_>>(), ["a.>", "*.b", "a b c"]);
        assert_eq!(query.number::<i64>("limit").unwrap(), Some(5));
        assert!(query.flag("flag").unwrap());
        assert!(read("flag=true").flag("flag").unwrap());
        assert!(!read("flag=0").flag("flag").unwrap());
        assert!(!read("").flag("flag").unwrap());
        assert_eq!(read("limit=").number::<i64>("limit").unwrap(), None);
        assert_eq!(Query::read(None, &[]).unwrap().one("limit").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, name) in [("topics=a", "topics"), ("topic=%ff", "topic"), ("a%ff=1", "query")] {
            assert_eq!(field(Query::read(Some(text), &["topic"]).unwrap_err()), name, "{text}");
        }
        for bad in ["limit=-1", "limit=+1", "limit=x", "limit=9223372036854775808"] {
            assert_eq!(field(read(bad).number::<i64>("limit").unwrap_err()), "limit", "{bad}");
        }
        assert_eq!(field(read("limit=1&limit=1").number::<i64>("limit").unwrap_err()), "limit");
        assert_eq!(field(read("flag=yes").flag("flag").unwrap_err()), "flag");
        assert_eq!(field(read("flag&flag").flag("flag").unwrap_err()), "flag");
    }
}
