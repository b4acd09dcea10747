//! What watches and room streams share: the state machine, the reader with its read-ahead, the
//! cache of parked chunks, the cache of framed events, and the cursors of places.

pub(crate) mod machine;
pub(crate) mod naming;
pub(crate) mod parked;
pub(crate) mod reading;
pub(crate) mod shared_frames;
