//! What the file says: tables of TOML, one a token or certificate.

use std::collections::HashSet;

use toml_edit::{DocumentMut, Item, Table, TableLike};

use super::Tokens;
use crate::server::{Rights, TokenHash};
use tailmark_record::topic::{Meant, Pattern};
use tailmark_record::{Limits, Timestamp};

/// Of a name.
const MAX_NAME_BYTES: usize = 128;
/// Of one right; a watch is held against all of them.
const MAX_PATTERNS: usize = 256;

/// A token that was given out, or a certificate that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of the principal.
    pub name: String,
    /// What is kept of the token; `None` for a certificate.
    pub hash: Option<TokenHash>,
    /// What it may publish to.
    pub publish: Vec<Pattern>,
    /// What it may watch.
    pub watch: Vec<Pattern>,
    /// Whether it may do what concerns the log as a whole.
    pub admin: bool,
    /// When it was given out, where that is said.
    pub created: Option<Timestamp>,
    /// From then on it is not taken.
    pub expires: Option<Timestamp>,
}

/// Line, from 1, and what is wrong there.
pub(super) type Wrong = (usize, String);

impl Entry {
    /// What it allows.
    pub fn rights(&self) -> Rights {
        Rights::new(self.publish.clone(), self.watch.clone(), self.admin)
    }

    /// As the file has it.
    pub(super) fn table(&self) -> Table {
        let list = |patterns: &[Pattern]| {
            toml_edit::value(patterns.iter().map(Pattern::as_str).collect::<toml_edit::Array>())
        };
        let mut table = Table::new();
        table["name"] = toml_edit::value(&self.name);
        if let Some(hash) = &self.hash {
            table["hash"] = toml_edit::value(hash.to_string());
        }
        table["publish"] = list(&self.publish);
        table["watch"] = list(&self.watch);
        table["admin"] = toml_edit::value(self.admin);
        for (name, time) in [("created", self.created), ("expires", self.expires)] {
            let text = time.map(|time| time.to_string());
            if let Some(Ok(time)) = text.map(|text| text.parse::<toml_edit::Datetime>()) {
                table[name] = toml_edit::value(time);
            }
        }
        table
    }
}

/// Checks the name of a principal.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes"));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err("a name has no control characters, and no space at its ends".to_owned());
    }
    Ok(())
}

/// Checks one right.
pub(super) fn check_patterns(count: usize) -> Result<(), String> {
    if count > MAX_PATTERNS {
        return Err(format!("{count} patterns are more than {MAX_PATTERNS}"));
    }
    Ok(())
}

pub(super) fn parse(text: &str) -> Result<Tokens, Wrong> {
    let mut seen = Seen::default();
    let line = |at: Option<std::ops::Range<usize>>| {
        let at = at.map_or(0, |at| at.start).min(text.len());
        text.as_bytes()[..at].iter().filter(|&&c| c == b'\n').count() + 1
    };
    // With spans, which a document that can be changed has not.
    let document = toml_edit::Document::parse(text)
        .map_err(|error| (line(error.span()), error.message().to_owned()))?;
    let mut tokens = Tokens::default();
    for (key, item) in document.as_table() {
        let list = match key {
            "token" => &mut tokens.tokens,
            "certificate" => &mut tokens.certificates,
            _ => {
                let message =
                    format!("`{key}` is not known; expected [[token]] or [[certificate]]");
                return Err((line(item.span()), message));
            }
        };
        let Some(tables) = item.as_array_of_tables() else {
            return Err((line(item.span()), format!("expected [[{key}]]")));
        };
        for table in tables {
            let entry = entry(table, key == "token")
                .map_err(|(span, message)| (line(span.or(table.span())), message))?;
            if !seen.is_new(key, &entry) {
                return Err((line(table.span()), "its name or its hash is there twice".to_owned()));
            }
            list.push(entry);
        }
    }
    Ok(tokens)
}

/// What stood in the file before.
#[derive(Default)]
struct Seen {
    names: HashSet<(bool, String)>,
    hashes: HashSet<String>,
}

impl Seen {
    /// Whether neither the name, among tokens or among certificates, nor the hash was there.
    fn is_new(&mut self, key: &str, entry: &Entry) -> bool {
        let hash = entry.hash.as_ref().is_none_or(|hash| self.hashes.insert(hash.to_string()));
        self.names.insert((key == "token", entry.name.clone())) && hash
    }
}

type At = (Option<std::ops::Range<usize>>, String);

fn entry(table: &dyn TableLike, is_token: bool) -> Result<Entry, At> {
    let mut entry = Entry {
        name: String::new(),
        hash: None,
        publish: Vec::new(),
        watch: Vec::new(),
        admin: false,
        created: None,
        expires: None,
    };
    for (key, item) in table.iter() {
        let at = |message: String| (item.span(), format!("{key}: {message}"));
        let expected = |what: &str| at(format!("expected {what}"));
        let text = || item.as_str().ok_or_else(|| expected("a text"));
        match key {
            "name" => {
                entry.name = text()?.to_owned();
                check_name(&entry.name).map_err(at)?;
            }
            "hash" if is_token => {
                let hash = TokenHash::parse(text()?);
                entry.hash = Some(hash.ok_or_else(|| expected("sha256: and 64 digits"))?);
            }
            "publish" => entry.publish = patterns(item).map_err(at)?,
            "watch" => entry.watch = patterns(item).map_err(at)?,
            "admin" => entry.admin = item.as_bool().ok_or_else(|| expected("true or false"))?,
            "created" => entry.created = Some(time(item).ok_or_else(|| expected(TIME))?),
            "expires" if is_token => {
                entry.expires = Some(time(item).ok_or_else(|| expected(TIME))?);
            }
            _ => return Err(at("is not known here".to_owned())),
        }
    }
    let missing = |key| Err((None, format!("has no {key}")));
    match (&*entry.name, entry.hash) {
        ("", _) => missing("name"),
        (_, None) if is_token => missing("hash"),
        _ => Ok(entry),
    }
}

const TIME: &str = "a time with its offset, as in 2027-01-31T09:30:00Z";

/// As TOML has times, or as a text.
fn time(item: &Item) -> Option<Timestamp> {
    match item.as_datetime() {
        Some(time) => Timestamp::parse(&time.to_string()),
        None => Timestamp::parse(item.as_str()?),
    }
}

fn patterns(item: &Item) -> Result<Vec<Pattern>, String> {
    let list = item.as_array().ok_or("expected a list of patterns")?;
    check_patterns(list.len())?;
    let limits = Limits::default();
    let read = |value: &toml_edit::Value| {
        let text = value.as_str().ok_or("expected a list of patterns")?;
        Pattern::parse(text, &limits)
            .map_err(|problem| format!("`{text}` {}", Meant::instead_of(text, &problem)))
    };
    list.iter().map(read).collect()
}

/// A file as it can be changed, with all that is in it besides.
pub(super) fn document(text: &str) -> Option<DocumentMut> {
    text.parse().ok()
}
