//! Why a footer cannot be read.

/// Version of a footer.
pub(super) const FORMAT: u16 = 2;

/// Why a footer cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Its bytes are not what was written.
    Damaged(&'static str),
    /// Another version wrote it.
    Version(u16),
}

impl From<&'static str> for Problem {
    fn from(what: &'static str) -> Self {
        Problem::Damaged(what)
    }
}

pub(super) type Result<T, E = Problem> = std::result::Result<T, E>;
