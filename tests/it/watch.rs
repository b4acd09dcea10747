//! Watching over real sockets: the contract's section 3.

mod cursors;
mod ends;
mod markers;
mod starts;
