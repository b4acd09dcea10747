//! Plain HTTP, server-sent events and gRPC-Web on the port of gRPC.

mod events;
mod grpc_web;
mod reads;
mod resume;
mod rules;
mod watch;
