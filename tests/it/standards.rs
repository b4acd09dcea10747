//! The standards that docs/standards.md claims, each beside its text.

mod exposition;
mod grpc;
mod health;
mod http;
mod reflection;
