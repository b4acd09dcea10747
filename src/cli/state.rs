//! The cursor of a watch, kept across runs in a small file.
//!
//! Replaced atomically: written beside, synced, renamed, and the directory synced. After a crash it
//! holds the old cursor or the new one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Exit, Failure};
use crate::record::Cursor;

const VERSION: u32 = 1;

/// What the file holds, as one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    version: u32,
    /// Resume after it.
    pub cursor: String,
    /// What was watched; empty = everything.
    #[serde(default)]
    pub patterns: Vec<String>,
}

/// A file that keeps a cursor.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    temporary: PathBuf,
    directory: PathBuf,
    saved: Option<Saved>,
    patterns: Vec<String>,
}

impl StateFile {
    /// Reads the file, if it is there. A file that makes no sense is an error: starting anew would
    /// miss or repeat events in silence. So is one of a watch of other topics: what its cursor has
    /// passed was never looked at for these.
    pub fn open(path: &Path, patterns: &[String]) -> Result<StateFile, Failure> {
        let saved = match fs::read(path) {
            Ok(bytes) => Some(parse(&bytes).map_err(|why| {
                Failure::new(Exit::Usage, format!("{}: {why}", path.display()))
                    .hint("give the right file, or remove it and start with --from or --after")
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let what = format!("cannot read {}", path.display());
                return Err(Failure::new(Exit::Failure, what).because(&error));
            }
        };
        if let Some(saved) = &saved
            && !same_set(&saved.patterns, patterns)
        {
            let what = format!(
                "{} keeps the cursor of a watch of {}, not of {}",
                path.display(),
                topics_text(&saved.patterns),
                topics_text(patterns)
            );
            return Err(
                Failure::new(Exit::Usage, what).hint("give each set of patterns a file of its own")
            );
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(StateFile {
            path: path.to_owned(),
            temporary: PathBuf::from(temporary),
            directory: parent.unwrap_or(Path::new(".")).to_owned(),
            saved,
            patterns: patterns.to_vec(),
        })
    }

    /// What was saved last.
    pub fn saved(&self) -> Option<&Saved> {
        self.saved.as_ref()
    }

    /// Saves a cursor durably, unless it is saved already.
    pub fn save(&mut self, cursor: &str) -> Result<(), Failure> {
        let is_same = |saved: &Saved| saved.cursor == cursor && saved.patterns == self.patterns;
        if self.saved.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let saved =
            Saved { version: VERSION, cursor: cursor.to_owned(), patterns: self.patterns.clone() };
        self.replace(&saved).map_err(|error| {
            let what = format!("cannot save the cursor {cursor} in {}", self.path.display());
            Failure::new(Exit::Failure, what).because(&error)
        })?;
        self.saved = Some(saved);
        Ok(())
    }

    fn replace(&self, saved: &Saved) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(saved)?;
        bytes.push(b'\n');
        let mut file = File::create(&self.temporary)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        drop(file);
        fs::rename(&self.temporary, &self.path)?;
        File::open(&self.directory)?.sync_all()
    }
}

/// Whether both name the same topics, in whatever order.
fn same_set(a: &[String], b: &[String]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

fn topics_text(patterns: &[String]) -> String {
    if patterns.is_empty() { "everything".to_owned() } else { patterns.join(" ") }
}

fn parse(bytes: &[u8]) -> Result<Saved, String> {
    let saved: Saved =
        serde_json::from_slice(bytes).map_err(|error| format!("not a state file: {error}"))?;
    if saved.version != VERSION {
        return Err(format!("state file version {}, this program knows {VERSION}", saved.version));
    }
    Cursor::parse(&saved.cursor).map_err(|error| error.to_string())?;
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let patterns = ["a.>".to_owned()];
        let mut state = StateFile::open(&path, &patterns).unwrap();
        assert_eq!(state.saved(), None);
        state.save("7").unwrap();
        state.save("8").unwrap();
        let state = StateFile::open(&path, &patterns).unwrap();
        let saved = state.saved().unwrap();
        assert_eq!((saved.cursor.as_str(), &saved.patterns[..]), ("8", &patterns[..]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for (text, part) in [
            ("", "not a state file"),
            ("7", "not a state file"),
            (r#"{"version":2,"cursor":"7"}"#, "version 2"),
            (r#"{"version":1,"cursor":"xyz"}"#, "malformed cursor"),
            (r#"{"version":1,"cursor":""}"#, "malformed cursor"),
            (r#"{"version":1,"cursor":"7","more":1}"#, "not a state file"),
        ] {
            fs::write(&path, text).unwrap();
            let failure = StateFile::open(&path, &[]).unwrap_err();
            assert!(failure.message().contains(part), "{text}: {}", failure.message());
            assert_eq!(failure.exit(), Exit::Usage);
        }
    }

    #[test]
    fn a_file_of_other_topics_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let both = ["a.>".to_owned(), "b".to_owned()];
        StateFile::open(&path, &both).unwrap().save("7").unwrap();
        let turned = ["b".to_owned(), "a.>".to_owned()];
        assert!(StateFile::open(&path, &turned).is_ok());
        for other in [&both[..1], &[]] {
            let failure = StateFile::open(&path, other).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.message().contains("a watch of a.> b, not"), "{}", failure.message());
        }
    }

    #[test]
    fn a_state_that_cannot_be_saved_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateFile::open(&dir.path().join("missing/state"), &[]).unwrap();
        assert!(state.save("7").unwrap_err().message().contains("cannot save the cursor 7"));
        assert_eq!(state.saved(), None);
    }
}
