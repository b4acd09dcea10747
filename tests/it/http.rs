//! Plain HTTP, server-sent events and gRPC-Web on the port of gRPC.

mod events;
mod grpc_web;
mod half_closed;
mod reads;
mod ready;
mod refusals;
mod resume;
mod rules;
mod watch;
mod words;
