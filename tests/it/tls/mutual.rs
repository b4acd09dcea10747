//! Clients that show a certificate, and those who should and do not.

use std::time::Duration;

use rcgen::{DnType, SanType};
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use crate::support::server::{TestServer, expect, new_log, start_with, within};
use crate::support::tls::{
    Authority, DAY, Dir, Pair, Trust, client, for_a_day, options, valid_for,
};

struct World {
    servers: Authority,
    clients: Authority,
    server: TestServer,
    _dir: Dir,
}

impl World {
    async fn new() -> World {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let dir = Dir::new(&servers.server());
        let options = options(dir.files_with_clients(&clients));
        let server = start_with(new_log(), options).await;
        World { servers, clients, server, _dir: dir }
    }

    async fn ask(&self, shown: Option<&Pair>) -> Result<(), String> {
        let mut last = String::new();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let trust = Trust::of(&self.servers, shown, &[version]);
            let outcome = match trust.channel(self.server.address).await {
                Ok(channel) => {
                    use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
                    let mut client = FeedServiceClient::new(channel);
                    let answer = within("ask", client.get_log(pb::GetLogRequest {})).await;
                    answer.map(drop).map_err(|status| chain(&status))
                }
                Err(error) => Err(chain(&error)),
            };
            match outcome {
                Ok(()) => assert_eq!(last, "", "{version:?}"),
                Err(error) => last = error,
            }
        }
        if last.is_empty() { Ok(()) } else { Err(last) }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn only_who_shows_a_good_certificate_gets_in_and_the_others_hear_why() {
    let world = World::new().await;
    world.ask(Some(&world.clients.client("alice.example"))).await.unwrap();
    let none = world.ask(None).await.unwrap_err();
    assert!(none.contains("CertificateRequired"), "{none}");
    let foreign = Authority::new("others").client("alice.example");
    let foreign = world.ask(Some(&foreign)).await.unwrap_err();
    assert!(foreign.contains("UnknownCA"), "{foreign}");
    let expired = world.clients.sign(&for_a_day(client("alice.example"), -3));
    let expired = world.ask(Some(&expired)).await.unwrap_err();
    assert!(expired.contains("CertificateExpired"), "{expired}");
    let early = world.clients.sign(&for_a_day(client("alice.example"), 3));
    assert!(world.ask(Some(&early)).await.is_err());
    // A certificate of who vouches for servers is none of a client's.
    assert!(world.ask(Some(&world.servers.client("alice.example"))).await.is_err());
    world.server.stop().await;
}

/// It is good, and says not who is there.
#[tokio::test]
async fn who_names_nobody_is_told_so() {
    let world = World::new().await;
    for (names, common) in [
        (vec![], ""),
        (vec![SanType::IpAddress([127, 0, 0, 1].into())], ""),
        (vec![SanType::DnsName("x".repeat(256).try_into().unwrap())], "alice"),
        (vec![], "alice\nroot"),
    ] {
        let mut params = client("x.example");
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        let trust = Trust::showing(&world.servers, &world.clients.sign(&params));
        let mut client = trust.client(&world.server).await;
        let status = within("ask", client.get_log(pb::GetLogRequest {})).await.unwrap_err();
        expect(&status, Code::Unauthenticated, "CERTIFICATE_UNNAMED");
    }
    world.server.stop().await;
}

/// A session that is taken up again would not show the certificate again.
#[tokio::test]
async fn who_comes_again_shows_the_certificate_again() {
    let world = World::new().await;
    let short = world.clients.sign(&valid_for(client("alice.example"), Duration::from_secs(6)));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let resuming = Trust::of(&world.servers, Some(&short), &[version]).resuming();
        let mut client = resuming.client(&world.server).await;
        within("ask", client.get_log(pb::GetLogRequest {})).await.unwrap();
        drop(client);
        let stream = resuming.connect(world.server.address).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full), "{version:?}");
    }
    // The null control: without certificates of clients sessions are taken up.
    let (server, _dir) = crate::support::tls::start(&world.servers).await;
    let resuming = Trust::new(&world.servers).resuming();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut client = resuming.client(&server).await;
        within("ask", client.get_log(pb::GetLogRequest {})).await.unwrap();
        let stream = resuming.clone().alpn(&["h2"]).connect(server.address).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind());
    }
    assert!(kinds.contains(&Some(rustls::HandshakeKind::Resumed)), "{kinds:?}");
    assert!(DAY > Duration::ZERO);
    server.stop().await;
    world.server.stop().await;
}
