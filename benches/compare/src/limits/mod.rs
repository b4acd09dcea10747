//! What the machine can do at most: the wire with no log behind it, and the disk with no wire.

mod file;
mod passthrough;
mod tonic;

pub(crate) use self::file::File;
pub(crate) use self::passthrough::serve;
#[cfg(test)]
pub(crate) use self::passthrough::serve_on;
pub(crate) use self::tonic::Tonic;
