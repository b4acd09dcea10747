//! What the integration tests have, too.

#[path = "../it/support/checker.rs"]
pub mod checker;
#[path = "../it/support/disk.rs"]
pub mod disk;
#[path = "../it/support/port.rs"]
pub mod port;
#[path = "../it/support/server.rs"]
pub mod server;
