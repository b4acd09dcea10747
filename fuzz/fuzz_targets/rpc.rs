//! Every method of gRPC over the whole service and a log in memory: an answer, whatever the messages
//! say. First byte: the method. Then messages, each after its length in two bytes.
#![no_main]

use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use libfuzzer_sys::fuzz_target;
use tailmark::server::{Options, Server};
use tailmark::testing::TestServer;
use tailmark_wire::methods;
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

/// Streams go on for ever; what they do at once is enough.
const PATIENCE: Duration = Duration::from_millis(3);

fuzz_target!(|bytes: &[u8]| {
    let Some((&method, mut rest)) = bytes.split_first() else { return };
    let method = methods::all().nth(usize::from(method) % methods::COUNT).unwrap();
    let mut body = Vec::new();
    while let [high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (message, after) = after.split_at(length);
        body.push(0);
        body.extend((length as u32).to_be_bytes());
        body.extend(message);
        rest = after;
    }
    let world = &*WORLD;
    let request = http::Request::post(format!("http://fuzz{}", method.path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::new(Bytes::from(body))))
        .unwrap();
    world.runtime.block_on(async {
        let call = async {
            let response = world.routes.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200, "{}", method.path);
            let mut body = pin!(response.into_body());
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { break };
                if let Some(trailers) = frame.trailers_ref() {
                    assert!(trailers.contains_key("grpc-status"));
                    // What comes after the end nobody asks for: tonic would say it again and again.
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, call).await;
    });
});
