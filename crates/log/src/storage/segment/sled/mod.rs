//! sled: the databases that segments rest in. The only folder that names it.
//!
//! Owns what sled needs to be trusted with anything: how it is called, what is put into it so that
//! its leaves stay small and its end is padded, when it is opened in place and when a copy of it
//! is, and how many are open. Everybody else asks [`super::store::Store`].

mod blocks;
mod copy;
mod db;
mod open;
mod open_databases;

pub(super) use db::Database;
pub(super) use open::Open;
pub(super) use open_databases::{Bounds, DatabaseSlot, OpenDatabases};

#[cfg(test)]
pub(super) use open::OPEN_BYTES;
