//! Who comes without TLS where it is needed, or with it where it is not.

use std::time::Duration;

use h2::Reason;
use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::plain::{Plain, head};
use crate::support::server::{self, expect, new_log, start_with, until, within};
use crate::support::tls::{Authority, Trust, start};

#[tokio::test]
async fn a_client_without_tls_is_told_in_words() {
    let authority = Authority::new("tests");
    let (server, _dir) = start(&authority).await;
    let mut plain = Plain::connect(&server).await;
    plain.send(head(&server, "GET /v1/log", &[]) + "\r\n").await;
    let answer = plain.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.contains("\"reason\":\"TLS_REQUIRED\"") && answer.contains("https://"),
        "{answer}"
    );
    // A call of gRPC gets its status, and then the connection is closed.
    let mut client = FeedServiceClient::new(server.channel().await);
    let status = within("call", client.get_log(pb::GetLogRequest {})).await.unwrap_err();
    expect(&status, Code::InvalidArgument, "TLS_REQUIRED");
    // Nothing came to a service, and the connections are over.
    until("closed", || server.gauges.connections() == 0).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let (response, _) = {
        let mut sender = sender;
        let uri = format!("http://{}/v1/log", server.address);
        sender.send_request(http::Request::get(uri).body(()).unwrap(), true).unwrap()
    };
    assert_eq!(within("response", response).await.unwrap().status(), 400);
    let ended = within("end", ended).await.unwrap();
    assert!(ended.is_ok() || ended.unwrap_err().reason() == Some(Reason::NO_ERROR));
    server.stop().await;
}

/// Clients know plain text when they see it: Go's names HTTP, openssl's the wrong version.
#[tokio::test]
async fn a_client_with_tls_where_there_is_none_is_answered_without() {
    let server = server::start().await;
    let error = Trust::new(&Authority::new("tests")).connect(server.address).await.unwrap_err();
    assert!(error.to_string().contains("InvalidContentType"), "{error}");
    let mut plain = Plain::connect(&server).await;
    plain.send("\x16\x03\x01\x00\x05hello".to_owned() + &"x".repeat(100)).await;
    let answer = plain.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("without TLS"), "{answer}");
    drop(plain);
    until("closed", || server.gauges.connections() == 0).await;
    server.stop().await;
}

/// One too many is told so with TLS as without.
#[tokio::test]
async fn over_the_limit_of_connections_there_are_words_with_tls_too() {
    let authority = Authority::new("tests");
    let dir = crate::support::tls::Dir::new(&authority.server());
    let options = Options { connections: 1, tls: Some(dir.files()), ..Options::default() };
    let server = start_with(new_log(), options).await;
    let trust = Trust::new(&authority);
    let mut first = trust.client(&server).await;
    within("first", first.get_log(pb::GetLogRequest {})).await.unwrap();
    let mut second = trust.client(&server).await;
    let status = within("second", second.get_log(pb::GetLogRequest {})).await.unwrap_err();
    let metadata = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!(metadata["limit"], "1");
    drop(first);
    until("room again", || server.gauges.connections() == 0).await;
    tokio::time::sleep(Duration::ZERO).await;
    let mut third = trust.client(&server).await;
    within("third", third.get_log(pb::GetLogRequest {})).await.unwrap();
    server.stop().await;
}
