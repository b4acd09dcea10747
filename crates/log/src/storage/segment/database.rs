//! Which database the blocks of segments rest in. The one place outside its folder that names sled.

pub(super) use super::sled::Database;
