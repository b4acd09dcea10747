//! The certificates that the server shows, and what those of its clients say.
//!
//! Owns the files, when they are read again, and which of them is in force. Knows no connection: who
//! shakes hands asks for what is in force at that moment. Invariant: what is in force has been read
//! whole, its key belongs to it, and nothing that is worse takes its place.

mod certificate;
mod files;
mod keeper;

pub(crate) use certificate::ClientCertificate;
pub use files::{TlsError, TlsFiles};
pub use keeper::Certificates;
