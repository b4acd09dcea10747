//! The cursor of a watch, kept across runs in a small file: `client::FileStore`, and what to say when
//! it cannot be used.

use std::path::Path;

use super::{Exit, Failure};
use tailmark_client::{CursorFileError, FileStore};

/// Reads the file, if it is there.
pub(super) fn open(path: &Path, patterns: &[String]) -> Result<FileStore, Failure> {
    FileStore::open(path, patterns).map_err(Failure::from)
}

impl From<CursorFileError> for Failure {
    fn from(error: CursorFileError) -> Failure {
        let what = error.to_string();
        match &error {
            CursorFileError::Malformed { .. } => Failure::new(Exit::Usage, what)
                .hint("give the right file, or remove it and start with --from or --after"),
            CursorFileError::OtherTopics { .. } => {
                Failure::new(Exit::Usage, what).hint("give each set of patterns a file of its own")
            }
            CursorFileError::Read { source, .. } | CursorFileError::Write { source, .. } => {
                let exit = match source.kind() {
                    // What can be no state file, whatever happens.
                    std::io::ErrorKind::IsADirectory | std::io::ErrorKind::InvalidInput => {
                        Exit::Usage
                    }
                    _ => Exit::Failure,
                };
                Failure::new(exit, what).because(source)
            }
            _ => Failure::new(Exit::Failure, what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_the_callers_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        std::fs::write(&path, "7").unwrap();
        let failure = open(&path, &[]).unwrap_err();
        assert!(failure.message().contains("not a state file"), "{}", failure.message());
        assert_eq!(failure.exit(), Exit::Usage);
        let mut store = open(&dir.path().join("missing/state"), &[]).unwrap();
        let failure = Failure::from(store.save("7").unwrap_err());
        assert!(failure.message().contains("cannot save the cursor 7"));
        assert_eq!(failure.exit(), Exit::Failure);
    }
}
