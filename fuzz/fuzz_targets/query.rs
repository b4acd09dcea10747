//! Queries of plain HTTP, those of server-sent events above all: an answer, and never that the server is at
//! fault. First byte: the path. Then the query; behind a line end the `Last-Event-ID` of a browser that
//! comes back.
#![no_main]

use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use tailmark::server::{Options, Server};
use tailmark::testing::TestServer;
use tonic::service::Routes;
use tower::ServiceExt as _;

struct World {
    runtime: tokio::runtime::Runtime,
    routes: Routes,
    _server: Server,
    _log: TestServer,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = runtime.block_on(tailmark::testing::serve()).unwrap();
    let _guard = runtime.enter();
    let mut server = Server::new(log.log().clone(), Options::default()).unwrap();
    let routes = server.routes_mut().clone().prepare();
    drop(_guard);
    World { runtime, routes, _server: server, _log: log }
});

const PATHS: [&str; 4] = ["/v1/watch", "/v1/topics", "/v1/history", "/v1/events/1"];

/// Streams go on for ever; what they do at once is enough.
const PATIENCE: Duration = Duration::from_millis(3);

fuzz_target!(|bytes: &[u8]| {
    let Some((&path, rest)) = bytes.split_first() else { return };
    let path = PATHS[usize::from(path) % PATHS.len()];
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let Ok(query) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let mut request = http::Request::get(format!("http://fuzz{path}?{query}"));
    if let Some(last) = parts.next() {
        request = request.header("last-event-id", last);
    }
    // What is no URI or no header does not come this far.
    let Ok(request) = request.body(tonic::body::Body::empty()) else { return };
    let world = &*WORLD;
    world.runtime.block_on(async {
        let call = async {
            let response = world.routes.clone().oneshot(request).await.unwrap();
            let status = response.status();
            assert!(!status.is_server_error(), "{path}?{query}: {status}");
            let (mut body, mut text) = (pin!(response.into_body()), Vec::new());
            while let Some(Ok(frame)) = body.frame().await {
                text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            let is_told = text.starts_with(b"{\"code\":");
            // Whoever was told that it has seen all is told to stay away.
            let is_over = status == 204 && text.is_empty();
            assert!(
                status == 200 || is_over || is_told,
                "{status}: {}",
                String::from_utf8_lossy(&text)
            );
        };
        let _ = tokio::time::timeout(PATIENCE, call).await;
    });
});
