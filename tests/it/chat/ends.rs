//! How streams of rooms end.
