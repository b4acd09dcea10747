//! What every engine must do, as tests that any engine can be put to.
//!
//! An engine brings a [`Factory`]; [`run`] puts it to every case, each with a log of its own, and
//! panics with the case's name where one fails. There are cases of the journal, of the store, and of
//! what one keeps of the other's. A case that only some engines could pass does not belong here.
#![allow(clippy::expect_used, reason = "a case that fails panics")]

mod cases;
mod erasing;
mod journal;
mod listing;
mod support;

use std::ops::Range;
use std::sync::Arc;

pub use self::listing::{all_topics, topic_head, topics_of};
use crate::storage::{Engine, Recovered};
use tailmark_record::Seq;

/// An engine and what it recovered.
pub struct Opened {
    /// Open.
    pub engine: Arc<dyn Engine>,
    /// As the engine's own open function returned it.
    pub recovered: Recovered,
}

/// How a log is left before it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopen {
    /// `close` was called.
    Clean,
    /// The process died: everything that was not durable is gone.
    Crash,
}

/// Makes one log, and opens it again.
pub trait Factory {
    /// Makes an empty log. Called once.
    fn create(&mut self) -> Opened;

    /// Opens the log again. For [`Reopen::Clean`] the suite has called `close`; it holds no other
    /// handle on `engine` than the one given here.
    fn reopen(&mut self, engine: Arc<dyn Engine>, how: Reopen) -> Opened;

    /// Opens what is left of the log when these ranges are lost for good, of which only the tags of the chain
    /// behind them are known. They are readable, in order, and none is next to another.
    fn lose(&mut self, engine: Arc<dyn Engine>, ranges: &[Range<Seq>]) -> Opened;
}

/// Puts an engine to every case; `make` gives a factory for a new log each time.
pub fn run<F: Factory>(make: impl Fn() -> F) {
    for (name, case) in cases::all::<F>() {
        // Seen only when a test fails.
        println!("conformance: {name}");
        case(&mut make());
    }
}

#[cfg(test)]
mod tests;
