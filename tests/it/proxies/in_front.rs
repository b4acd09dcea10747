//! nginx, HAProxy and Envoy as `deploy/` has them, with TLS in front: the client library and the command
//! line through each, compressed and not. `browsers` has what comes without either.

use tailmark::server::{self, Http};
use tailmark_client::{Client, Item, Options, Pem, Start, WatchOptions};

use crate::support::daemon::{feed, program};
use crate::support::reverse_proxy::{Brand, ReverseProxy, are_there};
use crate::support::server::{event, new_log, start_with, within};
use crate::support::tls::Authority;

/// As whom the proxies of `deploy/` serve.
const NAME: &str = "log.example";

/// What is worth compressing.
fn body(number: usize) -> String {
    format!("{{\"order\":{number},\"lines\":[{}]}}", "\"one of many\",".repeat(400))
}

async fn is_served(brand: Brand) {
    // The name that is in all three.
    let http = Http { allowed_hosts: vec![NAME.to_owned()], ..Http::default() };
    let server = start_with(new_log(), server::Options { http, ..Default::default() }).await;
    let authority = Authority::new("the tests");
    let proxy = ReverseProxy::start_tls(brand, server.address, &authority.server()).await;
    let url = proxy.url();
    for compress in [false, true] {
        let topic = format!("orders.{compress}");
        let mut options = Options::default();
        options.compress = compress;
        options.tls.ca = Some(Pem::bytes(authority.pem.clone().into_bytes()));
        let client = Client::with_options(&url, options).unwrap();
        let mut watched = WatchOptions::default();
        watched.patterns = vec![topic.clone()];
        watched.start = Start::Oldest;
        let mut watch = client.watch(watched);
        for number in 0..20 {
            let stored = client.publish(event(&topic, &body(number)), None);
            within("a publish", stored).await.unwrap();
            // Live: before the next one is stored.
            let received = loop {
                let item = std::future::poll_fn(|cx| {
                    futures_core::Stream::poll_next(std::pin::Pin::new(&mut watch), cx)
                });
                if let Item::Event(received) = within("an event", item).await.unwrap().unwrap() {
                    break received;
                }
            };
            assert!(received.event().unwrap().body == body(number), "{number}");
        }
    }
    // And as somebody types it.
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let ca = ca.to_str().unwrap();
    for flags in [&[][..], &["--compress"]] {
        let args = ["watch", "--from", "oldest", "--until-caught-up", "--raw", "--addr", &url];
        let mut command = program(&[&args[..], &["--ca", ca], flags].concat());
        let output = tokio::task::spawn_blocking(move || feed(&mut command, b"")).await.unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.lines().count(), 40, "{:?}", String::from_utf8_lossy(&output.stderr));
    }
    drop(proxy);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_served_behind_nginx_with_tls() {
    if are_there() {
        is_served(Brand::Nginx).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_served_behind_haproxy_with_tls() {
    if are_there() {
        is_served(Brand::HaProxy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs ENVOY to name the program"]
async fn a_daemon_behind_envoy_is_served_with_tls() {
    is_served(Brand::Envoy).await;
}
