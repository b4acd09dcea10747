//! Rooms: the contract's section 4, spoken by clients made from the sketches' own protos.

mod ends;
mod rooms;
mod talk;
