//! sled: the databases that segments rest in. The only folder that names it.
//!
//! Owns what sled needs to be trusted with anything: how it is called, and what is put into it so
//! that its leaves stay small and its end is padded. Everybody else asks [`super::store::Store`].

#[cfg(test)]
mod against;
mod blocks;
mod db;

pub(super) use db::Database;
