//! Generates the wire types from `proto/` without an installed protoc, and the service traits.

use std::path::{Path, PathBuf};

use prost::Message;
use tonic_build::manual;

/// The fields of the public sketches only, for tests that speak as their clients do.
const SEED_PROTO: &str = "tests/it/seed";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed={SEED_PROTO}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = protox::compile(["feed/v1/feed.proto", "chat/chat.proto"], ["proto"])?;
    // What reflection answers with.
    std::fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;

    let has_client = std::env::var_os("CARGO_FEATURE_CLIENT").is_some();
    tonic_prost_build::configure()
        .build_client(has_client)
        .build_server(false)
        .bytes(".feed.v1")
        .compile_fds(files)?;
    if std::env::var_os("CARGO_FEATURE_SERVER").is_some() {
        manual::Builder::new().build_client(false).compile(&[feed_service(), chat_service()]);
    }
    if has_client && Path::new(SEED_PROTO).is_dir() {
        let seed = out.join("seed");
        std::fs::create_dir_all(&seed)?;
        let files = protox::compile(["feed/v1/feed.proto", "chat/chat.proto"], [SEED_PROTO])?;
        tonic_prost_build::configure().build_server(false).out_dir(seed).compile_fds(files)?;
    }
    Ok(())
}

/// The server side of `feed.v1.FeedService`, with a codec a method: events leave as the bytes that
/// are stored and arrive as the bytes that were sent.
fn feed_service() -> manual::Service {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        method("feed_v1", name, route, input, output)
    };
    manual::Service::builder()
        .package("feed.v1")
        .name("FeedService")
        .comment("The feed.")
        .method(
            method("watch", "Watch", "WatchRequest", "Event")
                .output_type("std::convert::Infallible")
                .codec_path("crate::server::codec::Watch")
                .server_streaming()
                .build(),
        )
        .method(
            method("upload_events", "UploadEvents", "Event", "UploadResult")
                .input_type("bytes::Bytes")
                .codec_path("crate::server::codec::Upload")
                .client_streaming()
                .build(),
        )
        .method(
            method("chat", "Chat", "ChatMessage", "ChatMessage")
                .client_streaming()
                .server_streaming()
                .codec_path("crate::server::codec::Streamed")
                .build(),
        )
        .method(method("publish", "Publish", "PublishRequest", "PublishResult").build())
        .method(
            method("append", "Append", "AppendRequest", "AppendResponse")
                .input_type("bytes::Bytes")
                .client_streaming()
                .server_streaming()
                .codec_path("crate::server::codec::Taken")
                .build(),
        )
        .method(
            method("watch_batches", "WatchBatches", "WatchRequest", "EventBatch")
                .server_streaming()
                .output_type("std::convert::Infallible")
                .codec_path("crate::server::codec::Watch")
                .build(),
        )
        .method(
            method("get_event", "GetEvent", "GetEventRequest", "Event")
                .output_type("crate::server::codec::Encoded")
                .codec_path("crate::server::codec::Stored")
                .build(),
        )
        .method(method("get_log", "GetLog", "GetLogRequest", "LogStatus").build())
        .method(
            method("list_topics", "ListTopics", "ListTopicsRequest", "ListTopicsResponse").build(),
        )
        .method(method("trim", "Trim", "TrimRequest", "TrimResult").build())
        .build()
}

/// The server side of `chat.ChatService`.
fn chat_service() -> manual::Service {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        method("chat", name, route, input, output)
    };
    manual::Service::builder()
        .package("chat")
        .name("ChatService")
        .comment("Rooms.")
        .method(
            method("send_message", "SendMessage", "SendMessageRequest", "SendMessageResponse")
                .build(),
        )
        .method(
            method("subscribe_messages", "SubscribeMessages", "SubscribeRequest", "Message")
                .server_streaming()
                .codec_path("crate::server::codec::Streamed")
                .build(),
        )
        .method(
            method("upload_messages", "UploadMessages", "Message", "UploadResponse")
                .client_streaming()
                .build(),
        )
        .method(
            method("chat", "Chat", "Message", "Message")
                .client_streaming()
                .server_streaming()
                .codec_path("crate::server::codec::Streamed")
                .build(),
        )
        .method(
            method("stream_metrics", "StreamMetrics", "MetricsRequest", "Metric")
                .server_streaming()
                .codec_path("crate::server::codec::Streamed")
                .build(),
        )
        .build()
}

fn method(
    package: &str,
    name: &str,
    route: &str,
    input: &str,
    output: &str,
) -> manual::MethodBuilder {
    manual::Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::wire::{package}::{input}"))
        .output_type(format!("crate::wire::{package}::{output}"))
        .codec_path("crate::server::codec::Prost")
}
