//! Plain HTTP, server-sent events and gRPC-Web on the port of gRPC.

mod events;
mod reads;
mod watch;
