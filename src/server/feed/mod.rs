//! What streams of events share, watches and rooms alike: where a stream is, chunks parked while a client does not take
//! more, and events framed once for all who stand at the same place.

pub(crate) mod machine;
pub(crate) mod parked;
pub(crate) mod shared_frames;
