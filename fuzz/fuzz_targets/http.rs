//! Bytes on a connection of HTTP/1.1: gRPC-Web, server-sent events, queries and JSON. The server answers
//! in HTTP or closes, and goes on to serve others.
#![no_main]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tailmark::testing::TestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct World {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    _server: TestServer,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(tailmark::testing::serve()).unwrap();
    let address = server.url().trim_start_matches("http://").parse().unwrap();
    World { runtime, address, _server: server }
});

const PATIENCE: Duration = Duration::from_millis(5);

async fn ask(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Nothing is to be left over on the machine's side: there are many of these.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    let mut answer = Vec::new();
    let talk = async {
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_buf(&mut answer).await;
    };
    let _ = tokio::time::timeout(PATIENCE, talk).await;
    answer
}

fuzz_target!(|bytes: &[u8]| {
    let world = &*WORLD;
    world.runtime.block_on(async {
        let answer = ask(world.address, bytes).await;
        // HTTP/1.1, or frames of HTTP/2 where it was asked for those.
        let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.") || answer[0] == 0;
        assert!(is_http, "{:?}", String::from_utf8_lossy(&answer));
    });
});
