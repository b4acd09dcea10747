//! What is wrong with a text that is no event, in our words: which field, and where.

use std::borrow::Cow;
use std::fmt;

use crate::{excerpt, shorten};

/// A text that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    message: String,
    /// The field that it is about, as it was sent.
    field: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
}

/// The fields whose errors name them.
const NAMED: [&str; 2] = ["body", "headers"];

/// What the parser says of texts that are no JSON, and what we say.
const SYNTAX: [(&str, &str); 17] = [
    ("EOF while parsing an object", "the JSON ends within an object"),
    ("EOF while parsing a list", "the JSON ends within an array"),
    ("EOF while parsing a string", "the JSON ends within a string"),
    ("EOF while parsing a value", "the JSON ends where a value should be"),
    ("expected value", "expected a JSON value"),
    ("expected ident", "expected `true`, `false` or `null`"),
    ("key must be a string", "expected a name in double quotes"),
    ("trailing characters", "more follows the JSON value"),
    ("trailing comma", "a comma with nothing behind it"),
    ("invalid number", "a number that is none in JSON"),
    ("number out of range", "a number beyond a double"),
    ("invalid escape", "an escape that JSON does not have"),
    ("invalid unicode code point", "a string that is not UTF-8"),
    ("control character (\\u0000-\\u001F) found while parsing a string", CONTROL),
    ("unexpected end of hex escape", "half of a surrogate pair"),
    ("lone leading surrogate in hex escape", "half of a surrogate pair"),
    ("recursion limit exceeded", "nested more than 127 levels"),
];
const CONTROL: &str = "a control character in a string must be escaped, as in \\n";

impl JsonError {
    /// One without a place.
    pub fn saying(message: &str) -> JsonError {
        JsonError { message: message.to_owned(), field: None, line: None, column: None }
    }

    /// One about a field, or an attribute.
    pub(super) fn about(field: &str, problem: impl fmt::Display) -> JsonError {
        JsonError::saying(&problem.to_string()).of_field(field)
    }

    pub(super) fn of_field(self, field: &str) -> JsonError {
        let message = format!("{}: {}", excerpt(field), self.message);
        JsonError { message, field: Some(field.to_owned()), ..self }
    }

    pub(super) fn at_column(self, column: usize) -> JsonError {
        JsonError { column: Some(column), ..self }
    }

    /// Whether it says which field it is about.
    pub(super) fn is_named(&self) -> bool {
        self.field.is_some() || self.message.contains("field `")
    }

    /// The same about a field that goes by another name where it came from.
    #[must_use]
    pub fn called(mut self, ours: &str, theirs: &str) -> JsonError {
        if self.field.as_deref() == Some(ours) {
            if let Some(rest) = self.message.strip_prefix(ours) {
                self.message = format!("{theirs}{rest}");
            }
            self.field = Some(theirs.to_owned());
        }
        self
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field that it is about, where that is known.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// In which line of a text of several, from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// Where in its line, in bytes from 1, as far as is known.
    pub fn column(&self) -> Option<usize> {
        self.column
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, " (line {line}, column {column})"),
            (None, Some(column)) => write!(f, " (column {column})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for JsonError {}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        JsonError::from(&error)
    }
}

impl From<&serde_json::Error> for JsonError {
    fn from(error: &serde_json::Error) -> Self {
        let said = error.to_string();
        // The place is told apart. Where there is one line, whoever has it knows which.
        let mut message = in_our_words(without_places(&said)).into_owned();
        // It may hold a name or a value as it was sent.
        shorten(&mut message);
        let named = NAMED.into_iter().find(|name| message.starts_with(&format!("{name}: ")));
        let field = named.or_else(|| {
            let rest =
                ["unknown field `", "field `"].iter().find_map(|it| message.strip_prefix(it));
            rest.and_then(|rest| rest.split_once('`')).map(|(name, _)| name)
        });
        JsonError {
            field: field.map(str::to_owned),
            line: Some(error.line()).filter(|&line| line > 1),
            column: Some(error.column()).filter(|&column| column > 0),
            message,
        }
    }
}

/// A text without the places at its end: a value that was looked at by itself has brought one along.
fn without_places(mut said: &str) -> &str {
    while let Some((before, place)) = said.rsplit_once(" at line ")
        && place.split(" column ").all(|number| number.bytes().all(|c| c.is_ascii_digit()))
    {
        said = before;
    }
    said
}

fn in_our_words(said: &str) -> Cow<'_, str> {
    if let Some((_, ours)) = SYNTAX.iter().find(|(theirs, _)| *theirs == said) {
        return Cow::Borrowed(ours);
    }
    if let Some(field) = said.strip_prefix("duplicate field ") {
        return Cow::Owned(format!("field {field} is given twice"));
    }
    if let Some(field) = said.strip_prefix("missing field ") {
        return Cow::Owned(format!("field {field} is missing"));
    }
    // What was sent may hold these words; what is expected does not.
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let found = kinds.iter().find_map(|kind| said.strip_prefix(kind));
    match found.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let expected = match expected {
                "u64" | "usize" => "a whole number from 0 on",
                "i64" => "a whole number",
                "a sequence" => "an array",
                "a map" => "a JSON object",
                other if other.starts_with("struct ") => "a JSON object",
                other => other,
            };
            Cow::Owned(format!("expected {expected}, not {}", kind(found)))
        }
        // What nobody may send is nothing to offer.
        None if said.starts_with("unknown field ") => {
            let without = said.replace("`appendedAt`, ", "").replace(", `erased`, `marker`", "");
            Cow::Owned(without)
        }
        None => Cow::Borrowed(said),
    }
}

/// A value of a kind, as JSON calls it.
fn kind(found: &str) -> Cow<'_, str> {
    match found {
        "map" => Cow::Borrowed("an object"),
        "sequence" => Cow::Borrowed("an array"),
        other => {
            let number =
                ["integer ", "floating point "].iter().find_map(|it| other.strip_prefix(it));
            let other = number.or_else(|| other.strip_prefix("string ")).unwrap_or(other);
            let plain = other.strip_prefix("boolean ").unwrap_or(other);
            Cow::Borrowed(plain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let error = super::super::EventJson::parse(text.as_bytes()).unwrap_err();
        error.to_string()
    }

    #[test]
    fn what_is_no_json_is_told_in_our_words_with_its_place() {
        for (text, words) in [
            ("{", "the JSON ends within an object (column 1)"),
            (r#"{"topic":"a"#, "the JSON ends within a string (column 11)"),
            (r#"{"topic":"#, "the JSON ends where a value should be (column 9)"),
            (r#"{"body":["x""#, "the JSON ends within an array (column 12)"),
            (r#"{"topic":}"#, "expected a JSON value (column 10)"),
            (r#"{topic:"a"}"#, "expected a name in double quotes (column 2)"),
            (r#"{"topic":"a"} x"#, "more follows the JSON value (column 15)"),
            (r#"{"topic":"a",}"#, "a comma with nothing behind it (column 14)"),
            (r#"{"topic":tru}"#, "expected `true`, `false` or `null` (column 13)"),
            (r#"{"body":01}"#, "a number that is none in JSON (column 10)"),
            (r#"{"topic":"\q"}"#, "an escape that JSON does not have (column 12)"),
            ("{\"topic\":\"a\tb\"}", CONTROL),
            (r#"{"topic" "a"}"#, "expected `:` (column 10)"),
            ("{\n  \"topic\": \"a\",\n  \"key\": }", "expected a JSON value (line 3, column 10)"),
            (r#"{"key":5}"#, "key: expected a string, not `5` (column 8)"),
            (r#"{"key":true}"#, "key: expected a string, not `true` (column 11)"),
            (r#"{"key":[1]}"#, "key: expected a string, not an array"),
            (r#"{"key":{}}"#, "key: expected a string, not an object"),
            (r#"{"at":"x, expected y"}"#, "at: expected a time as in"),
            (r#"{"topic":"a","topic":"b"}"#, "field `topic` is given twice"),
        ] {
            let said = said(text);
            assert!(said.contains(words), "{text}: {said}");
            for theirs in ["EOF", "invalid type", "trailing", "integer", "expected value"] {
                assert!(!said.contains(theirs), "{text}: {said}");
            }
        }
        let error = super::super::EventJson::parse(br#"{"headers":{"a":1}}"#).unwrap_err();
        assert_eq!(error.field(), Some("headers"));
    }
}
