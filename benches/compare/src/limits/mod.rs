//! What the machine can do at most: the wire with no log behind it, and the disk with no wire.

mod file;
mod passthrough;
mod tonic;

pub use self::file::File;
pub use self::passthrough::serve;
#[cfg(test)]
pub use self::passthrough::serve_on;
pub use self::tonic::Tonic;
