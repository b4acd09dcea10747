//! Plain HTTP, server-sent events and gRPC-Web on the port of gRPC.

mod cloudevents;
mod codings;
mod events;
mod grpc_web;
mod half_closed;
mod openapi;
mod reads;
mod ready;
mod refusals;
mod resume;
mod rules;
mod values;
mod watch;
mod words;
#[cfg(feature = "zstd")]
mod zstd;
