//! Watching over real sockets: the contract's section 3. `batches` runs all of it over the other
//! RPC.

mod cursors;
mod ends;
mod markers;
mod starts;

use crate::support::server::watch;
