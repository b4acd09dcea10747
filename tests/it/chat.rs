//! Rooms: the contract's section 4, spoken by clients made from the sketches' own protos.

mod daemon;
mod durable;
mod ends;
mod limits;
mod model;
mod resume;
mod rooms;
mod talk;
mod terminal;
