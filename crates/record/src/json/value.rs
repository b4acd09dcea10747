//! Bodies that are JSON themselves: taken as any value, and given as one when that is asked for.
//!
//! What is stored is always text: that of the value as it was sent, numbers and the order of keys
//! included. Given as a value is a body whose text is an object, an array, a number, `true` or `false`;
//! every other body stays a string, also one that reads like a JSON string, or one that many readers
//! would fail at, with everything around it: nested without end, a number beyond a double. So a string is
//! always the body itself, and nothing has to be guessed on either side. Such a value is not taken as a value
//! either, only as text: what was sent as a value is given as one.

use std::borrow::Cow;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::{JsonError, Object, Text};

/// How bodies are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bodies {
    /// As strings.
    #[default]
    Text,
    /// As the values that they are the text of, where they are.
    Value,
}

impl Bodies {
    /// By its name in flags and URLs.
    pub fn parse(name: &str) -> Option<Bodies> {
        match name {
            "text" => Some(Bodies::Text),
            "value" => Some(Bodies::Value),
            _ => None,
        }
    }
}

/// The value that a body is the text of, if it is given as one.
pub fn value_of(body: &str) -> Option<&RawValue> {
    let first = body.bytes().find(|c| !c.is_ascii_whitespace())?;
    let may_be = matches!(first, b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f');
    if may_be { json_of(body) } else { None }
}

/// The JSON value of any kind that a text is, if any reader can be expected to take it.
pub(super) fn json_of(text: &str) -> Option<&RawValue> {
    let _: Readable = serde_json::from_str(text).ok()?;
    serde_json::from_str(text).ok()
}

/// The JSON value of any kind that a text is.
///
/// # Errors
/// It is none, or one that not every reader takes.
pub fn readable(text: &str) -> Result<&RawValue, JsonError> {
    match json_of(text) {
        Some(value) => Ok(value),
        // Which of the two it is costs nothing where all is well.
        None => {
            let _: &RawValue = serde_json::from_str(text)?;
            Err(JsonError::saying(UNREADABLE))
        }
    }
}

/// What is said of a value that not every reader takes.
pub(super) const UNREADABLE: &str = "a value with a number beyond a double, half of a surrogate pair or more than 127 levels \
     is taken as text only: send it as a string";

/// A value that any reader of JSON can be expected to take: it is not nested without end, its numbers are
/// within those of a double, its strings are text. Looked at, and not kept.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // It is this way of reading that has a limit on depth.
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Readable;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_str<E>(self, _: &str) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Readable, A::Error> {
        while seq.next_element::<Readable>()?.is_some() {}
        Ok(Readable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Readable, A::Error> {
        while map.next_entry::<Readable, Readable>()?.is_some() {}
        Ok(Readable)
    }
}

impl Object<'_> {
    /// A JSON value, on one line and safe on a terminal: line ends between its parts become spaces, and
    /// what controls a terminal is escaped as in any string.
    pub fn value(&mut self, name: &'static str, value: &RawValue) {
        self.name(name);
        let out = &mut *self.out;
        for c in value.get().chars() {
            match c {
                // Within strings JSON has none of these as they are.
                '\n' | '\r' | '\t' => out.push(b' '),
                '\u{7f}'..='\u{9f}' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}

/// A body that was sent as any JSON value.
#[derive(Debug, Default)]
pub(super) struct AnyValue<'a>(pub(super) Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for AnyValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        match raw.as_bytes().first() {
            Some(b'"' | b'n') => serde_json::from_str(raw).map(AnyValue).map_err(de::Error::custom),
            _ if json_of(raw).is_none() => {
                Err(de::Error::custom(format_args!("body: {UNREADABLE}")))
            }
            _ => Ok(AnyValue(Text(Cow::Borrowed(raw)))),
        }
    }
}

/// The fields of an object in their order, each as the text that it is.
#[derive(Debug, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &'a str) -> Result<Fields<'a>, JsonError> {
        Ok(serde_json::from_str(text)?)
    }

    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// A name that comes twice.
    pub(super) fn twice(&self) -> Option<&str> {
        let mut names: Vec<_> = self.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    /// The first with this name.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The same object without what no event has.
    pub fn only_of_events(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        for (name, value) in self.0.iter().filter(|(name, _)| OF_EVENTS.contains(&&**name)) {
            object.key(name);
            object.out.extend_from_slice(value.get().as_bytes());
        }
        object.close();
        out
    }
}

/// The error of reading an object, with the field that it is about: the parser says only where it stood.
pub(super) fn named(text: &[u8], error: &serde_json::Error) -> JsonError {
    let said = JsonError::from(error);
    // What is no JSON has no fields, and some say theirs themselves.
    if !error.is_data() || said.is_named() {
        return said;
    }
    let lines = text.split_inclusive(|&c| c == b'\n').take(error.line().saturating_sub(1));
    let at = lines.map(<[u8]>::len).sum::<usize>() + error.column();
    let fields = std::str::from_utf8(text).ok().and_then(|text| Fields::parse(text).ok());
    let ends_at = |value: &RawValue| {
        let begin = value.get().as_ptr().addr() - text.as_ptr().addr();
        begin + value.get().len()
    };
    // The parser has read on to the end of the value, or stands in it; of the last, to that of the object.
    let field = fields.as_ref().and_then(|fields| {
        let mut all = fields.iter();
        let found = all.find(|(_, value)| at <= ends_at(value));
        found.or_else(|| fields.iter().last()).map(|(name, _)| name)
    });
    match field {
        Some(name) => said.of_field(name),
        None => said,
    }
}

/// The objects of a JSON array, one at a time, each as the text that it is. However many there are, nothing
/// is held but a place.
#[derive(Clone, Copy, Debug)]
pub struct Elements {
    at: usize,
}

impl Elements {
    /// At the first.
    ///
    /// # Errors
    /// When it is no array of JSON.
    pub fn of(text: &[u8]) -> Result<Elements, JsonError> {
        // Takes no space, as its items have none.
        let _all: Vec<IgnoredAny> = serde_json::from_slice(text)?;
        let bracket = text.iter().position(|&c| c == b'[');
        Ok(Elements { at: bracket.map_or(text.len(), |at| at + 1) })
    }

    /// The next object of the same text; `None` after the last.
    ///
    /// # Errors
    /// When it is none.
    pub fn next<'a>(&mut self, text: &'a [u8]) -> Result<Option<&'a [u8]>, JsonError> {
        let rest = text.get(self.at..).unwrap_or_default();
        // White space, and what stands before an element.
        let is_between = |c: &u8| c.is_ascii_whitespace() || *c == b',';
        let between = rest.iter().take_while(|c| is_between(c)).count();
        let rest = rest.get(between..).unwrap_or_default();
        match rest.first() {
            None | Some(b']') => return Ok(None),
            Some(b'{') => {}
            Some(_) => return Err(JsonError::saying("expected a JSON object")),
        }
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        let Some(one) = values.next().transpose()? else { return Ok(None) };
        self.at += between + values.byte_offset();
        Ok(Some(one.get().as_bytes()))
    }
}

/// What an event has, either spelling.
const OF_EVENTS: [&str; 14] = [
    "id",
    "topic",
    "body",
    "at",
    "data",
    "type",
    "key",
    "headers",
    "seq",
    "cursor",
    "appended_at",
    "appendedAt",
    // Refused where it is told, and so not to be passed over.
    "erased",
    "marker",
];

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &RawValue>()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EventJson, write_event_as};
    use super::*;
    use crate::Event;

    fn body_of(json: &str) -> Result<String, String> {
        let event = EventJson::parse(json.as_bytes()).map_err(|error| error.to_string())?;
        Ok(event.event().body.to_owned())
    }

    fn written(body: &str, bodies: Bodies) -> String {
        let mut out = Vec::new();
        write_event_as(&mut out, &Event { body, ..Event::default() }, bodies);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_value_is_stored_as_its_text() {
        for (sent, body) in [
            (r#"{"topic":"a","body":{"x":1, "a":1.10}}"#, r#"{"x":1, "a":1.10}"#),
            (r#"{"body": [1, 2]}"#, "[1, 2]"),
            (r#"{"body":12345678901234567890.123456789}"#, "12345678901234567890.123456789"),
            (r#"{"body":1e-400}"#, "1e-400"),
            (r#"{"body":"1e400"}"#, "1e400"),
            (r#"{"body":true}"#, "true"),
            (r#"{"body":null}"#, ""),
            (r#"{"body":"é\n"}"#, "é\n"),
            (r#"{"body":"{\"x\":1}"}"#, r#"{"x":1}"#),
            (r#"{"body":{"b":1,"a":2,"b":3}}"#, r#"{"b":1,"a":2,"b":3}"#),
        ] {
            assert_eq!(body_of(sent).as_deref(), Ok(body), "{sent}");
        }
        // Only there, and nothing that is no JSON.
        for (sent, said) in [
            (r#"{"topic":{"x":1},"body":{}}"#, "a string"),
            // What could not be given as a value again.
            (r#"{"body":{"z":1e400}}"#, "send it as a string"),
            (r#"{"body":["\ud800"]}"#, "send it as a string"),
            (r#"{"body":{"x":1},"boddy":1}"#, "unknown field `boddy`"),
            (r#"{"body":{"x":}}"#, "expected a JSON value"),
            (r#"{"body":{},"body":{}}"#, "field `body` is given twice"),
        ] {
            let error = body_of(sent).unwrap_err();
            assert!(error.contains(said), "{sent}: {error}");
        }
    }

    #[test]
    fn a_body_is_given_as_a_value_only_where_it_is_one() {
        for (body, value) in [
            (r#"{"x":1,"a":1.10}"#, r#"{"body":{"x":1,"a":1.10}}"#),
            ("[1,\n 2]\n", r#"{"body":[1,  2]}"#),
            ("-0.50", r#"{"body":-0.50}"#),
            ("true", r#"{"body":true}"#),
            ("null", r#"{"body":"null"}"#),
            ("\"abc\"", r#"{"body":"\"abc\""}"#),
            ("abc", r#"{"body":"abc"}"#),
            ("01", r#"{"body":"01"}"#),
            ("{\"x\":1} ", r#"{"body":{"x":1}}"#),
            ("{\"x\":1}x", r#"{"body":"{\"x\":1}x"}"#),
            ("{\"\u{9b}\":\"\u{7f}é\"}", r#"{"body":{"\u009b":"\u007fé"}}"#),
            ("1e999", r#"{"body":"1e999"}"#),
            ("[\"\\ud800\"]", r#"{"body":"[\"\\ud800\"]"}"#),
            ("", "{}"),
        ] {
            let as_value = written(body, Bodies::Value);
            assert_eq!(as_value, value, "{body:?}");
            // What is read of it is the same body, but for white space.
            let again = body_of(&as_value).unwrap();
            match serde_json::from_str::<serde_json::Value>(body) {
                Ok(value) => {
                    assert_eq!(serde_json::from_str::<serde_json::Value>(&again).unwrap(), value)
                }
                Err(_) => assert_eq!(again, body),
            }
            let as_text = written(body, Bodies::Text);
            assert_eq!(body_of(&as_text).unwrap(), body);
        }
    }

    #[test]
    fn what_is_nested_without_end_is_given_as_text() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(value_of(&nested(100)).is_some());
        assert!(value_of(&nested(1_000)).is_none());
        assert_eq!(value_of(&nested(1_000_000)).map(RawValue::get), None);
    }

    #[test]
    fn the_objects_of_an_array_come_one_by_one() {
        let all = |text: &str| {
            let (text, mut found) = (text.as_bytes(), Vec::new());
            let mut elements = Elements::of(text).map_err(|error| error.to_string())?;
            while let Some(one) = elements.next(text).map_err(|error| error.to_string())? {
                found.push(String::from_utf8(one.to_vec()).unwrap());
            }
            Ok::<_, String>(found)
        };
        let text = " [ {\"a\":\"]}\\\"\"} ,\n{}, {\"b\":[{\"c\":[]}]}\t] ";
        let found = all(text).unwrap();
        assert_eq!(found, ["{\"a\":\"]}\\\"\"}", "{}", "{\"b\":[{\"c\":[]}]}"]);
        assert!(all("[]").unwrap().is_empty() && all(" [ ] ").unwrap().is_empty());
        for bad in ["", "{}", "7", "[{}", "[{},]", "[{} {}]", "[{}]x", "[,{}]", "[[{}]]", "[1]"] {
            assert!(all(bad).is_err(), "{bad}");
        }
        // What stands before it has come.
        let text = b"[{},7]";
        let mut elements = Elements::of(text).unwrap();
        assert_eq!(elements.next(text).unwrap(), Some(&b"{}"[..]));
        assert!(elements.next(text).is_err());
    }

    #[test]
    fn what_no_event_has_is_left_out() {
        let text = r#"{"topic":"a","x":{"y":1},"body":[1.0],"z":2}"#;
        let fields = Fields::parse(text).unwrap();
        assert_eq!(fields.only_of_events(), br#"{"topic":"a","body":[1.0]}"#);
        assert_eq!(fields.get("x").unwrap().get(), r#"{"y":1}"#);
        assert!(Fields::parse("[1]").is_err());
    }
}
