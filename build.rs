//! Builds the service traits of the server, with a codec a method, and the page's files compressed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tonic_build::manual;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=web");
    manual::Builder::new().build_client(false).compile(&[feed_service(), chat_service()]);
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    compress(Path::new("web"), &out.join("web"))
}

/// Every file of a folder once more, with `.gz` behind its name. Nothing of when it was made goes in,
/// so that the same files give the same program.
fn compress(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            compress(&path, &to.join(name))?;
            continue;
        }
        let mut target = name;
        target.push(".gz");
        let file = File::create(to.join(target))?;
        let mut writer = GzBuilder::new().write(file, Compression::best());
        writer.write_all(&fs::read(&path)?)?;
        writer.finish()?;
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
                .codec_path("crate::server::rpc::codec::Watch")
                .server_streaming()
                .build(),
        )
        .method(
            method("upload_events", "UploadEvents", "Event", "UploadResult")
                .input_type("bytes::Bytes")
                .codec_path("crate::server::rpc::codec::Upload")
                .client_streaming()
                .build(),
        )
        .method(
            method("chat", "Chat", "ChatMessage", "ChatMessage")
                .client_streaming()
                .server_streaming()
                .codec_path("crate::server::rpc::codec::Streamed")
                .build(),
        )
        .method(method("publish", "Publish", "PublishRequest", "PublishResult").build())
        .method(
            method("append", "Append", "AppendRequest", "AppendResponse")
                .input_type("bytes::Bytes")
                .client_streaming()
                .server_streaming()
                .codec_path("crate::server::rpc::codec::Taken")
                .build(),
        )
        .method(
            method("watch_batches", "WatchBatches", "WatchRequest", "EventBatch")
                .server_streaming()
                .output_type("std::convert::Infallible")
                .codec_path("crate::server::rpc::codec::Watch")
                .build(),
        )
        .method(
            method("get_event", "GetEvent", "GetEventRequest", "Event")
                .output_type("crate::server::rpc::codec::Encoded")
                .codec_path("crate::server::rpc::codec::Stored")
                .build(),
        )
        .method(method("get_log", "GetLog", "GetLogRequest", "LogStatus").build())
        .method(
            method("list_topics", "ListTopics", "ListTopicsRequest", "ListTopicsResponse").build(),
        )
        .method(method("trim", "Trim", "TrimRequest", "TrimResult").build())
        .method(method("get_principal", "GetPrincipal", "GetPrincipalRequest", "Principal").build())
        .method(
            method("backup", "Backup", "BackupRequest", "BackupPart")
                .server_streaming()
                .codec_path("crate::server::rpc::codec::Streamed")
                .build(),
        )
        .method(
            method("erase", "Erase", "EraseRequest", "EraseProgress")
                .server_streaming()
                .codec_path("crate::server::rpc::codec::Streamed")
                .build(),
        )
        .method(
            method("get_retention", "GetRetention", "GetRetentionRequest", "RetentionReport")
                .server_streaming()
                .codec_path("crate::server::rpc::codec::Streamed")
                .build(),
        )
        .method(
            method(
                "report_progress",
                "ReportProgress",
                "ReportProgressRequest",
                "ReportProgressResult",
            )
            .build(),
        )
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
                .codec_path("crate::server::rpc::codec::Streamed")
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
                .codec_path("crate::server::rpc::codec::Streamed")
                .build(),
        )
        .method(
            method("stream_metrics", "StreamMetrics", "MetricsRequest", "Metric")
                .server_streaming()
                .codec_path("crate::server::rpc::codec::Streamed")
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
        .input_type(format!("tailmark_wire::{package}::{input}"))
        .output_type(format!("tailmark_wire::{package}::{output}"))
        .codec_path("crate::server::rpc::codec::Prost")
}
