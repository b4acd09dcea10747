//! What watches and room streams share: the state machine, the reader with its read-ahead, the
//! cache of parked chunks, and the cache of framed events.

pub(crate) mod machine;
pub(crate) mod parked;
pub(crate) mod reading;
pub(crate) mod shared_frames;
