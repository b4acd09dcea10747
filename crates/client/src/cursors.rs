//! Where a watch keeps its cursor from one run to the next.
//!
//! Owns the files; must not know of watches. Invariant: what a store has answered to have saved, it
//! loads again, also after a crash of the machine where it says so.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use place::Place;
use tailmark_record::Cursor;

mod place;

const VERSION: u32 = 1;

/// Why a store of your own failed.
pub type CursorStoreError = Box<dyn StdError + Send + Sync>;

/// Keeps the cursor of one watch. Calls may block; [`KeptWatch`](super::KeptWatch) makes them where
/// that does no harm, on tokio's threads for blocking work, and never two at once. So the trait needs
/// no `async`, and a `Box<dyn CursorStore>` is a store too. Whose database is asynchronous uses
/// `tokio::runtime::Handle::block_on` in there.
///
/// A store beside the data that the events change makes them take effect exactly once: write both in
/// one transaction, and let `save` do nothing.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
/// use tailmark_client::{CursorStore, CursorStoreError};
///
/// /// A row of a table, here in memory.
/// struct Row { table: Arc<Mutex<HashMap<String, String>>>, name: String }
///
/// impl CursorStore for Row {
///     fn load(&mut self) -> Result<Option<String>, CursorStoreError> {
///         let table = self.table.lock().map_err(|_| "the table is gone")?;
///         Ok(table.get(&self.name).cloned())
///     }
///
///     fn save(&mut self, cursor: &str) -> Result<(), CursorStoreError> {
///         let mut table = self.table.lock().map_err(|_| "the table is gone")?;
///         table.insert(self.name.clone(), cursor.to_owned());
///         Ok(())
///     }
/// }
///
/// let mut store: Box<dyn CursorStore> =
///     Box::new(Row { table: Arc::default(), name: "billing".into() });
/// assert_eq!(store.load().unwrap(), None);
/// store.save("1").unwrap();
/// assert_eq!(store.load().unwrap().as_deref(), Some("1"));
/// ```
pub trait CursorStore: Send {
    /// The cursor saved last; `None` when there is none yet.
    ///
    /// # Errors
    /// When that is not known. Never answer `None` then: the watch would begin anew.
    fn load(&mut self) -> Result<Option<String>, CursorStoreError>;

    /// Replaces the cursor, whole or not at all. What has been saved must be loaded by the next run,
    /// or an older one: an older one repeats events, a newer one would lose them.
    ///
    /// # Errors
    /// When it may not have been saved.
    fn save(&mut self, cursor: &str) -> Result<(), CursorStoreError>;
}

/// A store chosen while the program runs.
impl<S: CursorStore + ?Sized> CursorStore for Box<S> {
    fn load(&mut self) -> Result<Option<String>, CursorStoreError> {
        (**self).load()
    }

    fn save(&mut self, cursor: &str) -> Result<(), CursorStoreError> {
        (**self).save(cursor)
    }
}

/// Keeps a cursor for as long as the program runs. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Option<String>>>);

impl MemoryStore {
    /// A store with no cursor.
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// The cursor saved last.
    pub fn cursor(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        // A string has no invariant that a panic could break.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CursorStore for MemoryStore {
    fn load(&mut self) -> Result<Option<String>, CursorStoreError> {
        Ok(self.cursor())
    }

    fn save(&mut self, cursor: &str) -> Result<(), CursorStoreError> {
        *self.lock() = Some(cursor.to_owned());
        Ok(())
    }
}

/// Why a cursor file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CursorFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is there, and makes no sense.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It keeps the cursor of a watch of other topics: what that has passed was never looked at for
    /// these.
    #[error("{} keeps the cursor of a watch of {theirs}, not of {ours}", path.display())]
    OtherTopics {
        /// The file.
        path: PathBuf,
        /// What it was made for.
        theirs: String,
        /// What was asked for.
        ours: String,
    },
    /// It cannot be written.
    #[error("cannot save the cursor {cursor} in {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be saved.
        cursor: String,
        /// Why not.
        source: io::Error,
    },
}

/// What the file holds, as one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    /// Resume after it.
    cursor: String,
    /// What was watched; empty = everything.
    #[serde(default)]
    patterns: Vec<String>,
}

/// Keeps a cursor in a small file, replaced atomically: written beside, synced (fdatasync), renamed,
/// and the directory synced (fsync). After a crash, of the program or of the machine, the file holds
/// the old cursor or the new one.
///
/// A symbolic link is followed when the store is opened, and stays: what it leads to is replaced, or made
/// if it is not there. A new file has the mode of the old one, and its owner where we may give that. Of a
/// file with several names (hard links) the others keep the older cursor. The directory must be writable.
/// A directory, a device or a pipe is an error.
///
/// One file is for one watch at a time; nothing keeps two programs from using the same.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    place: Place,
    saved: Option<Saved>,
    patterns: Vec<String>,
}

impl FileStore {
    /// Reads the file, if it is there. `patterns` are those of the watch.
    ///
    /// # Errors
    /// A file that makes no sense, or was made for other topics, is an error and never a fresh
    /// start: that would miss or repeat events in silence.
    pub fn open(path: impl AsRef<Path>, patterns: &[String]) -> Result<FileStore, CursorFileError> {
        let path = path.as_ref();
        let unreadable = |source| CursorFileError::Read { path: path.to_owned(), source };
        let place = Place::of(path).map_err(unreadable)?;
        let saved = match place.read().map_err(unreadable)? {
            Some(bytes) => Some(
                parse(&bytes)
                    .map_err(|why| CursorFileError::Malformed { path: path.to_owned(), why })?,
            ),
            None => None,
        };
        if let Some(saved) = &saved
            && !same_set(&saved.patterns, patterns)
        {
            return Err(CursorFileError::OtherTopics {
                path: path.to_owned(),
                theirs: topics_text(&saved.patterns),
                ours: topics_text(patterns),
            });
        }
        Ok(FileStore { path: path.to_owned(), place, saved, patterns: patterns.to_vec() })
    }

    /// The cursor saved last.
    pub fn cursor(&self) -> Option<&str> {
        self.saved.as_ref().map(|saved| saved.cursor.as_str())
    }

    /// Saves a cursor durably, unless it is saved already.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&mut self, cursor: &str) -> Result<(), CursorFileError> {
        let is_same = |saved: &Saved| saved.cursor == cursor && saved.patterns == self.patterns;
        if self.saved.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let saved =
            Saved { version: VERSION, cursor: cursor.to_owned(), patterns: self.patterns.clone() };
        self.replace(&saved).map_err(|source| CursorFileError::Write {
            path: self.path.clone(),
            cursor: cursor.to_owned(),
            source,
        })?;
        self.saved = Some(saved);
        Ok(())
    }

    fn replace(&self, saved: &Saved) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(saved)?;
        bytes.push(b'\n');
        self.place.replace(&bytes)
    }
}

impl CursorStore for FileStore {
    fn load(&mut self) -> Result<Option<String>, CursorStoreError> {
        Ok(self.cursor().map(str::to_owned))
    }

    fn save(&mut self, cursor: &str) -> Result<(), CursorStoreError> {
        FileStore::save(self, cursor).map_err(Into::into)
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
    use std::fs;

    use super::*;

    #[test]
    fn a_cursor_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let patterns = ["a.>".to_owned()];
        let mut store = FileStore::open(&path, &patterns).unwrap();
        assert_eq!(store.load().unwrap(), None);
        store.save("7").unwrap();
        store.save("8").unwrap();
        let mut store = FileStore::open(&path, &patterns).unwrap();
        assert_eq!(store.load().unwrap().as_deref(), Some("8"));
        assert_eq!(store.saved.unwrap().patterns, patterns);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");

        let shared = MemoryStore::new();
        let mut store: Box<dyn CursorStore> = Box::new(shared.clone());
        assert_eq!(store.load().unwrap(), None);
        store.save("7").unwrap();
        assert_eq!(store.load().unwrap().as_deref(), Some("7"));
        assert_eq!(shared.cursor().as_deref(), Some("7"));
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
            let error = FileStore::open(&path, &[]).unwrap_err();
            assert!(matches!(error, CursorFileError::Malformed { .. }), "{error:?}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_of_other_topics_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let both = ["a.>".to_owned(), "b".to_owned()];
        FileStore::open(&path, &both).unwrap().save("7").unwrap();
        let turned = ["b".to_owned(), "a.>".to_owned()];
        assert!(FileStore::open(&path, &turned).is_ok());
        for other in [&both[..1], &[]] {
            let error = FileStore::open(&path, other).unwrap_err();
            assert!(matches!(error, CursorFileError::OtherTopics { .. }), "{error:?}");
            assert!(error.to_string().contains("a watch of a.> b, not"), "{error}");
        }
    }

    #[test]
    fn a_cursor_that_cannot_be_saved_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(dir.path().join("missing/state"), &[]).unwrap();
        assert!(store.save("7").unwrap_err().to_string().contains("cannot save the cursor 7"));
        assert_eq!(store.cursor(), None);
    }
}
