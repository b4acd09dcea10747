//! Certificates that are replaced while the server runs.

use std::time::Duration;

use tailmark_wire::feed_v1 as pb;

use crate::support::server::{PATIENCE, TestServer, from_oldest, new_log, start_with, watch};
use crate::support::tls::{
    Authority, Dir, Pair, Trust, der, for_a_day, options, server, valid_for,
};

/// Waits until the server shows this certificate.
async fn shows(trust: &Trust, server: &TestServer, pair: &Pair) {
    let begun = std::time::Instant::now();
    while trust.shown(server.address).await.unwrap() != der(pair) {
        assert!(begun.elapsed() < PATIENCE, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_no_stream_notices() {
    let authority = Authority::new("tests");
    let (server, dir) = crate::support::tls::start(&authority).await;
    let trust = Trust::new(&authority);
    let mut client = trust.client(&server).await;
    let request = pb::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut watching = watch(&mut client, request).await.unwrap();
    let mut seq = 0;
    for round in 0..4 {
        let pair = authority.server();
        match round {
            0 => dir.put(&pair),
            // As a careful writer does it: another file in its place.
            1 => {
                std::fs::write(dir.path("new.pem"), &pair.key).unwrap();
                std::fs::rename(dir.path("new.pem"), dir.path("key.pem")).unwrap();
                std::fs::write(dir.path("new.pem"), &pair.cert).unwrap();
                std::fs::rename(dir.path("new.pem"), dir.path("cert.pem")).unwrap();
            }
            // As Kubernetes does it: a link to a folder is swapped under links to its files.
            _ => swap(&dir, &pair, round),
        }
        while trust.shown(server.address).await.unwrap() != der(&pair) {
            server.store("a", 10).await;
            for _ in 0..10 {
                seq += 1;
                assert_eq!(watching.event().await.seq, seq);
            }
        }
        shows(&trust, &server, &pair).await;
    }
    assert!(seq > 0);
    server.stop().await;
}

fn swap(dir: &Dir, pair: &Pair, round: u32) {
    use std::os::unix::fs::symlink;
    let folder = format!("..{round}");
    std::fs::create_dir(dir.path(&folder)).unwrap();
    std::fs::write(dir.path(&folder).join("cert.pem"), &pair.cert).unwrap();
    std::fs::write(dir.path(&folder).join("key.pem"), &pair.key).unwrap();
    symlink(&folder, dir.path("..tmp")).unwrap();
    std::fs::rename(dir.path("..tmp"), dir.path("..data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        if !dir.path(name).is_symlink() {
            std::fs::remove_file(dir.path(name)).unwrap();
            symlink(format!("..data/{name}"), dir.path(name)).unwrap();
        }
    }
}

/// What the figures say of the certificate: whether there is trouble, and when it expires.
async fn figures(trust: &Trust, server: &TestServer) -> (bool, f64) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = trust.connect(server.address).await.unwrap();
    let host = server.address;
    let head = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let trouble = value("tailmark_trouble{part=\"tls\"}");
    (trouble > 0.0, value("tailmark_tls_certificate_not_after_seconds"))
}

#[tokio::test]
async fn a_bad_certificate_is_kept_out_and_told() {
    let authority = Authority::new("tests");
    let dir = Dir::new(&authority.server());
    let log = new_log();
    let test = start_with(log, options(dir.files())).await;
    let trust = Trust::new(&authority);
    let good = Pair {
        cert: std::fs::read_to_string(dir.path("cert.pem")).unwrap(),
        key: std::fs::read_to_string(dir.path("key.pem")).unwrap(),
    };
    assert!(!figures(&trust, &test).await.0);
    let other = authority.server();
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let bad = [
        ("expired", authority.sign(&for_a_day(server(), -3))),
        ("early", authority.sign(&for_a_day(server(), 3))),
        ("foreign key", Pair { key: other.key.clone(), ..good.clone() }),
        ("swapped", Pair { cert: other.key.clone(), key: other.cert.clone() }),
        ("half a certificate", Pair { cert: half(&other.cert), key: other.key.clone() }),
        ("half a key", Pair { cert: other.cert.clone(), key: half(&other.key) }),
        ("empty", Pair { cert: String::new(), key: String::new() }),
        ("no PEM", Pair { cert: "hello".to_owned(), key: other.key.clone() }),
    ];
    for (what, pair) in bad {
        dir.put(&pair);
        let begun = std::time::Instant::now();
        while !figures(&trust, &test).await.0 {
            assert!(begun.elapsed() < PATIENCE, "{what}: no trouble");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(trust.shown(test.address).await.unwrap() == der(&good), "{what}");
        dir.put(&good);
        while figures(&trust, &test).await.0 {
            assert!(begun.elapsed() < PATIENCE, "{what}: still trouble");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    std::fs::remove_file(dir.path("key.pem")).unwrap();
    let begun = std::time::Instant::now();
    while !figures(&trust, &test).await.0 {
        assert!(begun.elapsed() < PATIENCE, "gone: no trouble");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // And the next good one is taken.
    let next = authority.sign(&valid_for(server(), Duration::from_secs(40 * 86_400)));
    dir.put(&next);
    shows(&trust, &test, &next).await;
    let (is_trouble, end) = figures(&trust, &test).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let days = (end - now.as_secs_f64()) / 86_400.0;
    assert!(!is_trouble && days > 39.9 && days <= 40.0, "{days}");
    test.stop().await;
}

#[tokio::test]
async fn at_the_start_bad_files_are_refused_and_an_expired_certificate_is_not() {
    use tailmark::server::Server;
    let authority = Authority::new("tests");
    let dir = Dir::new(&Pair { cert: authority.server().cert, key: authority.server().key });
    let error = |dir: &Dir| match Server::new(new_log(), options(dir.files())) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    };
    assert!(error(&dir).contains("does not belong"), "{}", error(&dir));
    std::fs::remove_file(dir.path("cert.pem")).unwrap();
    assert!(error(&dir).contains("tls.cert_file: cannot read"), "{}", error(&dir));
    dir.put(&authority.sign(&for_a_day(server(), -3)));
    let server = start_with(new_log(), options(dir.files())).await;
    let error = Trust::new(&authority).connect(server.address).await.unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
    server.stop().await;
}
