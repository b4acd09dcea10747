//! Merges settings: flag, then environment, then file, then default, each with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{Config, DEFAULT_TOML, Invalid, foreign, read};
use tailmark_record::excerpt;

/// Variables that begin with `TAILMARK_` and are no settings of the daemon.
const OTHER_VARIABLES: [&str; 8] = [
    "TAILMARK_ADDR",
    "TAILMARK_CA",
    "TAILMARK_CERT",
    "TAILMARK_CONFIG",
    "TAILMARK_CONTEXT",
    "TAILMARK_KEY",
    "TAILMARK_TOKEN",
    "TAILMARK_TOKEN_FILE",
];
/// Paths that begin at the directory of the file of settings, where they are relative and nobody says
/// otherwise: what is run elsewhere with the same file means the same.
const BESIDE_FILE: [&str; 10] = [
    "auth.tokens_file",
    "auth.jwt_keys_file",
    "journal.key_file",
    "journal.peers_ca_file",
    "journal.credentials_file",
    "journal.token_file",
    "journal.password_file",
    "journal.ca_file",
    "journal.cert_file",
    "journal.cert_key_file",
];
/// Holds tables, not texts.
const OF_TABLES: &str = "retention.topics";
const TABLES: &str = "tables in one line, as in [{ pattern = \"a.>\", max_age = \"7d\" }]";
const PREFIX: &str = "TAILMARK_";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything else.
    Default,
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or value that is not allowed.
    #[error("{}:{line}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// There is no such setting.
    #[error("unknown environment variable {name}{}", nearest.as_ref().map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    UnknownVariable {
        /// Which.
        name: String,
        /// One that looks like it.
        nearest: Option<String>,
    },
    /// A flag or variable has a value that cannot be read.
    #[error("{origin}: {message}")]
    Value {
        /// Which.
        origin: Origin,
        /// What is wrong.
        message: String,
    },
    /// A value is out of range.
    #[error("{origin}: {invalid}")]
    Invalid {
        /// Which, and what is wrong.
        invalid: Invalid,
        /// Where it comes from.
        origin: Origin,
    },
}

/// What to merge.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file of settings, if one was named.
    pub file: Option<PathBuf>,
    /// Where one is looked for if none was named: the first that is there, each time anew.
    pub candidates: Vec<PathBuf>,
    /// Where the log lives if nobody says.
    pub state_directory: Option<PathBuf>,
    /// The environment; only what begins with `TAILMARK_` is looked at.
    pub environment: Vec<(String, String)>,
    /// Flag, `section.key` and value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// Of what the service manager tells, in variables of its own (systemd.exec(5)).
const CONFIGURATION_DIRECTORY: &str = "CONFIGURATION_DIRECTORY";
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";
/// Of a file in the first of these.
const FILE_NAME: &str = "config.toml";

impl Sources {
    /// The file that was named, and this process's environment. As a service of systemd's that has such
    /// directories: where no file was named, `config.toml` in the one of configuration, if it is there; and the
    /// one of state is where the log lives unless somebody says otherwise.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let directories = |name| {
            let paths = std::env::var_os(name).unwrap_or_default();
            std::env::split_paths(&paths).filter(|path| path.is_absolute()).collect::<Vec<_>>()
        };
        let candidates = directories(CONFIGURATION_DIRECTORY).into_iter();
        let candidates = candidates.map(|path| path.join(FILE_NAME)).collect();
        let state_directory = directories(STATE_DIRECTORY).into_iter().next();
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        Sources { file, candidates, state_directory, environment, flags: Vec::new() }
    }

    /// Merges and checks once more, while what came of it the first time is in use.
    ///
    /// # Errors
    /// Also where the file is a pipe: that can be read once.
    pub fn load_again(&self) -> Result<Loaded, ConfigError> {
        if let Some(path) = self.found()?
            && path.metadata().is_ok_and(|found| !found.is_file())
        {
            let source = std::io::Error::other("it is no file, and can be read only once");
            return Err(ConfigError::Read { path: path.to_owned(), source });
        }
        self.load()
    }

    /// The file that is read. One that cannot be looked at is no absent one: its settings would be missed
    /// without a word. A link that leads nowhere is there too, and reading it fails.
    fn found(&self) -> Result<Option<&Path>, ConfigError> {
        if let Some(path) = &self.file {
            return Ok(Some(path));
        }
        for path in &self.candidates {
            match path.symlink_metadata() {
                Ok(_) => return Ok(Some(path)),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(ConfigError::Read { path: path.clone(), source }),
            }
        }
        Ok(None)
    }

    /// Adds a flag if it was given.
    pub fn flag(&mut self, flag: &'static str, key: &'static str, value: Option<String>) {
        self.flags.extend(value.map(|value| (flag, key, value)));
    }

    /// Merges and checks.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut merged = Merged::default();
        if let Some(path) = self.state_directory.as_ref().and_then(|path| path.to_str()) {
            let origin = Origin::Environment(STATE_DIRECTORY.to_owned());
            merged.add_text("storage.data_dir", path, origin)?;
        }
        let file = self.found()?;
        if let Some(path) = file {
            merged.add_file(path)?;
        }
        merged.add_environment(&self.environment)?;
        for (flag, key, value) in &self.flags {
            merged.add_text(key, value, Origin::Flag(flag))?;
        }
        // A pipe lies beside nothing.
        if let Some(directory) = file.filter(|path| path.is_file()).and_then(Path::parent) {
            merged.begin_at(directory);
        }
        let loaded = merged.finish()?;
        loaded.config.check().map_err(|invalid| loaded.refuse(invalid))?;
        Ok(loaded)
    }
}

/// Settings in force, and where each comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    origins: BTreeMap<String, Origin>,
    /// Where the file says what it says; from 1.
    lines: BTreeMap<String, usize>,
}

impl Loaded {
    /// Where the value of `section.key` comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Each `section.key` with its value as TOML, in the order of the commented default.
    pub fn entries(&self) -> Vec<(String, Value)> {
        let places = places(DEFAULT_TOML);
        let mut entries = leaves(&self.config);
        entries.sort_by_key(|(key, _)| places.get(key).copied().unwrap_or(usize::MAX));
        entries
    }

    /// Names where the value comes from that is wrong; where that is the default, the one that it
    /// does not go with.
    fn refuse(&self, invalid: Invalid) -> ConfigError {
        let keys = [Some(invalid.key), invalid.against].into_iter().flatten();
        let said = keys.map(|key| (key, self.origin(key)));
        let said = said.filter(|(_, origin)| *origin != Origin::Default).collect::<Vec<_>>();
        let (key, origin) = said.into_iter().next().unwrap_or((invalid.key, Origin::Default));
        match origin {
            Origin::File(path) => {
                let line = self.lines.get(key).copied().unwrap_or(1);
                ConfigError::File { path, line, message: invalid.to_string() }
            }
            origin => ConfigError::Invalid { invalid, origin },
        }
    }
}

impl Config {
    /// `section.key` of each setting that is another in `new`.
    pub fn changes(&self, new: &Config) -> Vec<String> {
        let pairs = leaves(self).into_iter().zip(leaves(new));
        pairs.filter(|(before, after)| before != after).map(|(_, (key, _))| key).collect()
    }
}

/// `section.key` of every setting, with its value.
pub(super) fn leaves(config: &Config) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    // Settings are tables of plain values, which TOML can always express.
    let table = Table::try_from(config).unwrap_or_default();
    for (section, values) in table {
        if let Value::Table(values) = values {
            leaves.extend(values.into_iter().map(|(k, v)| (format!("{section}.{k}"), v)));
        }
    }
    leaves
}

/// Where each `section.key` stands in a text, in bytes.
fn places(text: &str) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    // A text that is no TOML has been refused before.
    let Ok(sections) = DeTable::parse(text) else { return places };
    for (section, values) in sections.get_ref() {
        let DeValue::Table(values) = values.get_ref() else { continue };
        for key in values.keys() {
            places.insert(format!("{}.{}", section.get_ref(), key.get_ref()), key.span().start);
        }
    }
    places
}

/// The environment variable of `section.key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

#[derive(Default)]
struct Merged {
    table: Table,
    origins: BTreeMap<String, Origin>,
    lines: BTreeMap<String, usize>,
}

impl Merged {
    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = read::read(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let failed = |error: toml::de::Error| ConfigError::File {
            path: path.to_owned(),
            line: line_of(&text, error.span()),
            message: message_of(&error, &text),
        };
        // Once into the type, for errors that know their line; once into a table, to merge.
        toml::from_str::<Config>(&text).map_err(failed)?;
        let table: Table = toml::from_str(&text).map_err(failed)?;
        let lines = places(&text).into_iter().map(|(key, at)| (key, line_of(&text, Some(at..at))));
        self.lines.extend(lines);
        for (section, values) in table {
            let Value::Table(values) = values else { continue };
            for (key, value) in values {
                self.set(&format!("{section}.{key}"), value, Origin::File(path.to_owned()));
            }
        }
        Ok(())
    }

    fn add_environment(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        let keys: BTreeMap<String, String> =
            leaves(&Config::default()).into_iter().map(|(key, _)| (variable(&key), key)).collect();
        for (name, value) in variables {
            if !name.starts_with(PREFIX) || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let Some(key) = keys.get(name) else {
                if foreign::is_service_link(name, value, variables) {
                    continue;
                }
                let nearest = nearest(name, keys.keys());
                return Err(ConfigError::UnknownVariable { name: name.clone(), nearest });
            };
            self.add_text(key, value, Origin::Environment(name.clone()))?;
        }
        Ok(())
    }

    /// Adds a value that came as text: what type it must have, the default shows.
    fn add_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let bad = |message: String| ConfigError::Value { origin: origin.clone(), message };
        let default = leaves(&Config::default()).into_iter().find(|(name, _)| name == key);
        let value = match default {
            Some((_, Value::Boolean(_))) => Value::Boolean(
                text.parse().map_err(|_| bad(format!("`{text}`: expected true or false")))?,
            ),
            Some((_, Value::Integer(_))) => Value::Integer(
                text.parse().map_err(|_| bad(format!("`{text}`: expected a whole number")))?,
            ),
            // Tables, as TOML has them in one line.
            Some((_, Value::Array(_))) if key == OF_TABLES => {
                let read = toml::from_str::<Table>(&format!("it = {text}")).ok();
                let read = read.and_then(|mut table| table.remove("it")).filter(Value::is_array);
                read.ok_or_else(|| bad(format!("`{text}`: expected {TABLES}")))?
            }
            // Separated by commas; empty = none.
            Some((_, Value::Array(_))) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
            }
            Some(_) => Value::String(text.to_owned()),
            None => return Err(bad(format!("there is no setting {key}"))),
        };
        let (section, name) = key.split_once('.').unwrap_or((key, ""));
        let alone = Table::from_iter([(
            section.to_owned(),
            Value::Table(Table::from_iter([(name.to_owned(), value.clone())])),
        )]);
        // By itself first, so that the error names the variable or the flag.
        Config::deserialize(Value::Table(alone))
            .map_err(|error| bad(error.message().to_owned()))?;
        self.set(key, value, origin);
        Ok(())
    }

    /// Makes paths that the file, or nobody, says relative to the file.
    fn begin_at(&mut self, directory: &Path) {
        for key in BESIDE_FILE {
            let said = key.split_once('.').and_then(|(section, name)| {
                let values = self.table.get(section).and_then(Value::as_table)?;
                values.get(name).and_then(Value::as_str).map(str::to_owned)
            });
            let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
            let default = || leaves(&Config::default()).into_iter().find(|(name, _)| name == key);
            let path = match (&origin, said) {
                (Origin::File(_), Some(path)) => path,
                (Origin::Default, _) => match default() {
                    Some((_, Value::String(path))) => path,
                    _ => continue,
                },
                _ => continue,
            };
            // Joined, an absolute path stays as it is.
            if !path.is_empty()
                && let Some(path) = directory.join(&path).to_str()
            {
                self.set(key, Value::String(path.to_owned()), origin);
            }
        }
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) {
        let (section, name) = key.split_once('.').unwrap_or((key, ""));
        let section = self.table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(values) = section {
            values.insert(name.to_owned(), value);
        }
        self.origins.insert(key.to_owned(), origin);
    }

    fn finish(self) -> Result<Loaded, ConfigError> {
        let config = Config::deserialize(Value::Table(self.table)).map_err(|error| {
            // Each source was read by itself before.
            ConfigError::Value { origin: Origin::Default, message: error.message().to_owned() }
        })?;
        Ok(Loaded { config, origins: self.origins, lines: self.lines })
    }
}

/// What is wrong, with the key that is there twice.
fn message_of(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().to_owned();
    match error.span().and_then(|span| text.get(span)) {
        Some(key) if message == "duplicate key" => format!("{message} `{}`", excerpt(key)),
        _ => message,
    }
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    let at = span.map_or(0, |span| span.start).min(text.len());
    text.as_bytes()[..at].iter().filter(|&&c| c == b'\n').count() + 1
}

/// The known name that differs least, if any comes close.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 4)
        .map(|(_, candidate)| candidate.clone())
}

/// How many bytes must be put in, taken out or replaced.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
