//! sled: the databases that segments rest in. The only folder that names it.

mod copy;
pub(super) mod db;
pub(super) mod open;
