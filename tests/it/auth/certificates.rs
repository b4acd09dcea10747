//! Certificates of clients as principals.

use tailmark::server::{Auth, Certificate, Options};
use tailmark_wire::feed_v1 as feed;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tonic::Code;

use super::{Known, bearing, rights};
use crate::support::server::{event, expect, new_log, start_with, watch};
use crate::support::tls::{Authority, Dir, Trust, options};

#[tokio::test]
async fn a_certificate_stands_for_whom_it_names() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let dir = Dir::new(&servers.server());
    let auth = Auth { required: true, ..Auth::default() };
    let options = Options { auth, ..options(dir.files_with_clients(&clients)) };
    let server = start_with(new_log(), options).await;
    let mut known = Known::default();
    let token = known.give("ann", rights(&["a"], &[], false));
    let entry = |rights| Certificate { name: "worker.example".to_owned(), rights };
    let set = |rights| server.credentials.set_known(known.0.clone(), vec![entry(rights)]);
    set(rights(&["jobs.>"], &["jobs.>"], false));
    let client = async |name: &str| {
        let trust = Trust::showing(&servers, &clients.client(name));
        FeedServiceClient::new(trust.channel(server.address).await.unwrap())
    };
    let publish =
        |topic: &str| feed::PublishRequest { event: Some(event(topic, "b")), expected_head: None };
    let mut worker = client("worker.example").await;
    let who = worker.get_principal(feed::GetPrincipalRequest {}).await.unwrap().into_inner();
    assert_eq!((&*who.name, &who.watch[..]), ("worker.example", &["jobs.>".to_owned()][..]));
    worker.publish(publish("jobs.1")).await.unwrap();
    let status = worker.publish(publish("a")).await.unwrap_err();
    expect(&status, Code::PermissionDenied, "RIGHT_MISSING");
    // A token that comes with it counts, and not the certificate.
    worker.publish(bearing(publish("a"), &token)).await.unwrap();
    let status = worker.publish(bearing(publish("jobs.1"), &token)).await.unwrap_err();
    expect(&status, Code::PermissionDenied, "RIGHT_MISSING");
    let status = worker.publish(bearing(publish("jobs.1"), "tailmark_wrong")).await.unwrap_err();
    expect(&status, Code::Unauthenticated, "TOKEN_INVALID");

    // Who shows one that nobody knows by name is nobody.
    let mut stranger = client("stranger.example").await;
    let status = stranger.publish(publish("jobs.1")).await.unwrap_err();
    let metadata = expect(&status, Code::Unauthenticated, "TOKEN_INVALID");
    assert_eq!(metadata["certificate"], "stranger.example");

    // Other rights end what the old ones began.
    let request = feed::WatchRequest { topic: "jobs.>".into(), ..Default::default() };
    let mut watching = watch(&mut worker, tonic::Request::new(request)).await.unwrap();
    set(rights(&[], &["jobs.1"], false));
    expect(&watching.failure().await, Code::Unauthenticated, "TOKEN_REVOKED");
    server.stop().await;
}
