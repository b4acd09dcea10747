//! Servers known by name: a small file in the user's directory of configuration.
//!
//! It names files of tokens and certificates and holds none of what they hold.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Exit, Failure};

/// The name of what is there without any context.
pub(super) const DEFAULT: &str = "default";
const DIRECTORY: &str = "tailmark";
const FILE: &str = "contexts.toml";

/// A server, and as whom it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    pub addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    /// The one that is used if nobody says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// Where the file is: `$XDG_CONFIG_HOME/tailmark`, or `~/.config/tailmark`.
pub(super) fn path() -> Option<PathBuf> {
    // The XDG Base Directory Specification: a relative path is to be ignored.
    let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = named.filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(base.join(DIRECTORY).join(FILE))
}

impl Contexts {
    /// Reads the file; no file holds none.
    pub(super) fn read() -> Result<Contexts, Failure> {
        path().map_or_else(|| Ok(Contexts::default()), |path| Contexts::read_from(&path))
    }

    fn read_from(path: &Path) -> Result<Contexts, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => {
                let what = format!("cannot read {}", path.display());
                return Err(Failure::new(Exit::Failure, what).because(&error));
            }
        };
        toml::from_str(&text).map_err(|error| {
            let what = format!("{}: {}", path.display(), error.message());
            Failure::new(Exit::Usage, what)
                .hint("correct the file or remove it; with --addr it is not read")
        })
    }

    /// The one with this name.
    pub(super) fn get(&self, name: &str) -> Result<Option<&Context>, Failure> {
        if name == DEFAULT {
            return Ok(None);
        }
        self.contexts.get(name).map(Some).ok_or_else(|| {
            let known = self.contexts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { String::new() } else { format!("known: {known}; ") };
            Failure::new(Exit::NotFound, format!("there is no context {name}"))
                .hint(format!("{known}`tailmark context add {name} URL` adds it"))
        })
    }

    /// Changes the file. Two who do so at once wait for each other; whoever is stopped in between
    /// leaves it as it was.
    pub(super) fn change<T>(
        change: impl FnOnce(&mut Contexts) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let path = path().ok_or_else(|| {
            Failure::new(Exit::Failure, "there is no directory for configuration")
                .hint("set HOME, or XDG_CONFIG_HOME")
        })?;
        let unwritten = |error: io::Error| {
            Failure::new(Exit::Failure, format!("cannot write {}", path.display())).because(&error)
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(unwritten)?;
        let lock = File::open(directory).map_err(unwritten)?;
        lock.lock().map_err(unwritten)?;
        let mut contexts = Contexts::read_from(&path)?;
        let outcome = change(&mut contexts)?;
        contexts.write(&path, &lock).map_err(unwritten)?;
        Ok(outcome)
    }

    fn write(&self, path: &Path, directory: &File) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let new = path.with_extension("toml.new");
        // Left behind by somebody who was stopped; the lock is ours.
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        directory.sync_all()
    }
}
