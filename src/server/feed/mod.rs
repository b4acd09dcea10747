//! What streams of events share, watches and rooms alike: where a stream is, how it reads, chunks parked while
//! a client does not take more, and events framed once for all who stand at the same place.

pub(crate) mod machine;
pub(crate) mod parked;
pub(crate) mod reading;
pub(crate) mod shared_frames;
