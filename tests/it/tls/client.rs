//! The Rust client over TLS: all that it does, what it says of what is wrong, and what it waits for.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tailmark::server::TlsFiles;
use tailmark_client::{
    Client, Error, Item, Kind, Options, Pem, ProducerOptions, Saying, Start, TlsProblem, Watch,
    WatchOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::server::{
    TestServer, event, new_log, start as start_plain, start_with, within,
};
use crate::support::tls::{
    Authority, Dir, Pair, client, for_a_day, options as server_options, server, start,
};

fn url(server: &TestServer) -> String {
    format!("https://{}", server.address)
}

fn trusting(authority: &Authority) -> Options {
    let mut options = Options::default();
    options.tls.ca = Some(Pem::bytes(authority.pem.clone().into_bytes()));
    options
}

fn showing(authority: &Authority, pair: &Pair) -> Options {
    let mut options = trusting(authority);
    options.tls.cert = Some(Pem::bytes(pair.cert.clone().into_bytes()));
    options.tls.key = Some(Pem::bytes(pair.key.clone().into_bytes()));
    options
}

fn watching() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    options.shortest_retry = Duration::from_millis(1);
    options.longest_retry = Duration::from_millis(20);
    options
}

async fn item(watch: &mut Watch) -> Result<Item, Error> {
    within("item", poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx))).await.expect("no end")
}

/// The next event, over whatever interruptions.
async fn seq(watch: &mut Watch) -> u64 {
    loop {
        if let Item::Event(received) = item(watch).await.unwrap() {
            return received.seq().get();
        }
    }
}

#[tokio::test]
async fn all_that_a_client_does_goes_over_tls() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let dir = Dir::new(&servers.server());
    let options = server_options(dir.files_with_clients(&clients));
    let server = start_with(new_log(), options).await;
    let client =
        Client::with_options(&url(&server), showing(&servers, &clients.client("alice"))).unwrap();
    assert_eq!(client.publish(event("a", "1"), None).await.unwrap().seq, 1);
    let uploaded = client
        .upload(tokio_stream::iter([bytes::Bytes::from(event("a", "2").encode_to_vec())]))
        .await
        .unwrap();
    assert_eq!(uploaded.received, 1);
    let producer = client.producer("p", ProducerOptions::default()).await.unwrap();
    producer.send(&event("a", "3")).await.unwrap();
    within("close", producer.close()).await.unwrap();
    client.say(&Saying::new("room", "alice", "hello")).await.unwrap();
    let mut watch = client.watch(watching());
    for expected in 1..=4 {
        assert_eq!(seq(&mut watch).await, expected);
    }
    assert_eq!(client.log().await.unwrap().head_seq, 4);
    server.stop().await;
}

/// Asks once, and says what went wrong.
async fn failure(url: &str, options: Options) -> Error {
    let client = Client::with_options(url, options).unwrap();
    let error = within("answer", client.log()).await.unwrap_err();
    // Whoever watches is not left waiting for what does not pass.
    let mut watch = client.watch(watching());
    let of_watch = item(&mut watch).await.unwrap_err();
    assert_eq!(of_watch.tls_problem(), error.tls_problem(), "{of_watch}");
    assert!(!error.is_retryable() && !error.may_have_applied(), "{error}");
    error
}

#[tokio::test]
async fn what_is_wrong_is_told_in_words() {
    let ours = Authority::new("ours");
    let (good, dir) = start(&ours).await;
    let expect = |error: &Error, what: TlsProblem, kind: Kind, words: &[&str]| {
        let text = error.to_string();
        assert_eq!((error.tls_problem(), error.kind()), (Some(what), kind), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} in {text:?}");
        }
    };
    let url = url(&good);
    let other = Authority::new("others");
    let error = failure(&url, trusting(&other)).await;
    expect(&error, TlsProblem::UnknownIssuer, Kind::Untrusted, &["not trusted"]);
    let mut named = trusting(&ours);
    named.tls.server_name = Some("log.example".to_owned());
    let error = failure(&url, named).await;
    let words = ["for localhost, 127.0.0.1, not for log.example"];
    expect(&error, TlsProblem::WrongName, Kind::Untrusted, &words);
    for (from, what, word) in [
        (-3, TlsProblem::Expired, "expired at 20"),
        (3, TlsProblem::NotYetValid, "not valid before 20"),
    ] {
        dir.put(&ours.sign(&for_a_day(server(), from)));
        let bad = start_with(new_log(), server_options(dir.files())).await;
        let error = failure(&self::url(&bad), trusting(&ours)).await;
        expect(&error, what, Kind::Untrusted, &[word, "here it is 20"]);
        bad.stop().await;
    }
    // The wrong scheme, both ways.
    let plain = start_plain().await;
    let error = failure(&self::url(&plain), trusting(&ours)).await;
    expect(&error, TlsProblem::NotSpoken, Kind::Untrusted, &["http://"]);
    let error = failure(&format!("http://{}", good.address), Options::default()).await;
    expect(&error, TlsProblem::Required, Kind::InvalidRequest, &["https://"]);
    assert_eq!(error.reason(), "TLS_REQUIRED");
    // Of a server that is not ours there is only an alert.
    let alert = answering(b"\x15\x03\x01\x00\x02\x02\x46").await;
    let error = failure(&format!("http://{alert}"), Options::default()).await;
    expect(&error, TlsProblem::Required, Kind::InvalidRequest, &["https://"]);
    let error = failure(&no_http2(&ours).await, trusting(&ours)).await;
    expect(&error, TlsProblem::NoHttp2, Kind::Untrusted, &["HTTP/2"]);
    let mut missing = trusting(&ours);
    missing.tls.ca = Some(Pem::file("/nonexistent/ca.pem"));
    let error = failure(&url, missing).await;
    let words = ["/nonexistent/ca.pem: cannot read it"];
    expect(&error, TlsProblem::Files, Kind::InvalidRequest, &words);
    let mut garbage = trusting(&ours);
    garbage.tls.ca = Some(Pem::bytes(*b"hello"));
    let error = failure(&url, garbage).await;
    expect(&error, TlsProblem::Files, Kind::InvalidRequest, &["no certificate"]);
    let (one, two) = (ours.client("a"), ours.client("b"));
    let error = failure(&url, showing(&ours, &Pair { key: two.key, ..one })).await;
    expect(&error, TlsProblem::Files, Kind::InvalidRequest, &["does not belong"]);
    good.stop().await;
    plain.stop().await;
}

#[tokio::test]
async fn a_refused_client_is_told_why() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let dir = Dir::new(&servers.server());
    let options = server_options(dir.files_with_clients(&clients));
    let server = start_with(new_log(), options).await;
    let foreign = Authority::new("others").client("alice");
    let expired = clients.sign(&for_a_day(client("alice"), -3));
    for (options, word) in [
        (trusting(&servers), "got none"),
        (showing(&servers, &foreign), "does not trust who signed it"),
        (showing(&servers, &expired), "not valid now"),
    ] {
        let error = failure(&url(&server), options).await;
        assert_eq!(error.tls_problem(), Some(TlsProblem::ClientRefused), "{error}");
        assert!(error.kind() == Kind::Untrusted && error.to_string().contains(word), "{error}");
    }
    server.stop().await;
}

/// A watch outlives the renewal of every certificate there is, and misses and repeats nothing.
#[tokio::test]
async fn what_is_renewed_is_taken_up_when_it_connects_again() {
    let mut servers = Authority::new("servers");
    let mut clients = Authority::new("clients");
    let dir = Dir::new(&servers.server());
    let own = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { own.path().join(name) };
    let write = |servers: &Authority, clients: &Authority| {
        let pair = clients.client("alice");
        std::fs::write(path("ca.pem"), &servers.pem).unwrap();
        std::fs::write(path("cert.pem"), pair.cert).unwrap();
        std::fs::write(path("key.pem"), pair.key).unwrap();
    };
    write(&servers, &clients);
    let mut options = Options::default();
    options.tls.ca = Some(Pem::file(path("ca.pem")));
    options.tls.cert = Some(Pem::file(path("cert.pem")));
    options.tls.key = Some(Pem::file(path("key.pem")));
    let log = new_log();
    let files = dir.files_with_clients(&clients);
    let mut server = start_with(log.clone(), server_options(files)).await;
    let client = Client::with_options(&url(&server), options).unwrap();
    let mut watch = client.watch(watching());
    server.store("a", 10).await;
    for expected in 1..=10 {
        assert_eq!(seq(&mut watch).await, expected);
    }
    for round in 1..4 {
        // All authorities are replaced, and the client hears of it a little later.
        (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        dir.put(&servers.server());
        let files: TlsFiles = dir.files_with_clients(&clients);
        let port = server.port.clone();
        server.stop().await;
        server = restart(port, log.clone(), files).await;
        let cause = loop {
            match item(&mut watch).await.unwrap() {
                Item::Interrupted { cause, .. } if cause.tls_problem().is_some() => break cause,
                Item::Interrupted { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(cause.tls_problem(), Some(TlsProblem::UnknownIssuer), "{cause}");
        write(&servers, &clients);
        server.store("a", 10).await;
        for expected in round * 10 + 1..=round * 10 + 10 {
            assert_eq!(seq(&mut watch).await, expected);
        }
    }
    server.stop().await;
}

/// What stays is not waited for for ever.
#[tokio::test]
async fn a_certificate_that_nobody_renews_ends_a_watch() {
    let authority = Authority::new("tests");
    let (server, dir) = start(&authority).await;
    let log = server.log.clone();
    let client = Client::with_options(&url(&server), trusting(&authority)).unwrap();
    let mut watch = client.watch(watching());
    server.store("a", 1).await;
    assert_eq!(seq(&mut watch).await, 1);
    dir.put(&authority.sign(&for_a_day(crate::support::tls::server(), -3)));
    let port = server.port.clone();
    server.stop().await;
    let server = restart(port, log, dir.files()).await;
    let mut interrupted = 0;
    let error = loop {
        match item(&mut watch).await {
            Ok(Item::Interrupted { cause, .. }) if cause.tls_problem().is_some() => {
                interrupted += 1;
            }
            Ok(Item::Interrupted { .. }) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.tls_problem()), (Kind::Untrusted, Some(TlsProblem::Expired)));
    assert!(error.to_string().contains("10 times in a row") && interrupted == 9, "{error}");
    server.stop().await;
}

async fn restart(
    port: crate::support::port::Port,
    log: tailmark_log::eventlog::EventLog,
    files: TlsFiles,
) -> TestServer {
    crate::support::server::start_on(port, log, server_options(files)).await
}

/// A server that answers whatever comes with these bytes, and ends.
async fn answering(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut some = [0; 1_024];
                let _ = stream.read(&mut some).await;
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                while stream.read(&mut some).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

/// A server whose TLS is good, for HTTP/1.1 only.
async fn no_http2(authority: &Authority) -> String {
    let pair = authority.server();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let _ = acceptor.accept(stream).await;
            });
        }
    });
    format!("https://{address}")
}
