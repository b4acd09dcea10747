//! What was begun with a credential ends when the credential does: within seconds, with a status that
//! says so, and with the place where the next one goes on.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use prost::Message;
use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::{chat, feed_v1 as feed};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Known, SOON, after, bearing, options, rights, start};
use crate::support::server::{
    TestServer, event, expect, from_oldest, new_log, start_with, until, watch, watch_batches,
    within,
};
use crate::support::web::{Events, pieces, request, send, with};

const ALL: &[&str] = &[">"];

type Ended = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The status that ends a stream of a client.
fn end_of<M: Send + 'static>(mut stream: Streaming<M>) -> Ended {
    Box::pin(async move {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    })
}

/// A stream to the server that says nothing more after these.
fn open<M: Send + 'static>(
    messages: Vec<M>,
) -> (mpsc::UnboundedSender<M>, UnboundedReceiverStream<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    messages.into_iter().for_each(|message| sender.send(message).unwrap());
    (sender, UnboundedReceiverStream::new(receiver))
}

/// One stream of each kind, by one token, and how each ends.
async fn streams(server: &TestServer, token: &str) -> Vec<(&'static str, Ended)> {
    let mut feed = server.client().await;
    let mut rooms = ChatServiceClient::new(server.channel().await);
    let mut all: Vec<(&'static str, Ended)> = Vec::new();
    let request = || feed::WatchRequest {
        start: from_oldest(),
        markers: true,
        ..feed::WatchRequest::default()
    };
    let mut watching = watch(&mut feed, bearing(request(), token)).await.unwrap();
    all.push(("Watch", Box::pin(async move { watching.failure().await })));
    let mut watching = watch_batches(&mut feed, bearing(request(), token)).await.unwrap();
    all.push(("WatchBatches", Box::pin(async move { watching.failure().await })));

    let (kept, messages) = open(vec![event("a", "in the upload")]);
    let upload = bearing(messages, token);
    let mut client = feed.clone();
    all.push((
        "UploadEvents",
        Box::pin(async move {
            let answer = client.upload_events(upload).await;
            drop(kept);
            answer.map_or_else(|status| status, |_| Status::ok(""))
        }),
    ));

    let opening = feed::append_request::Open { producer_id: "p".into(), epoch: 0 };
    let kind = Some(feed::append_request::Kind::Open(opening));
    let (kept, messages) = open(vec![feed::AppendRequest { kind }]);
    let answers = feed.append(bearing(messages, token)).await.unwrap().into_inner();
    all.push((
        "Append",
        Box::pin(async move {
            let ended = end_of(answers).await;
            drop(kept);
            ended
        }),
    ));

    let joined = feed::ChatMessage { room: "r".into(), ..Default::default() };
    let (kept, messages) = open(vec![joined]);
    let answers = feed.chat(bearing(messages, token)).await.unwrap().into_inner();
    all.push((
        "feed Chat",
        Box::pin(async move {
            let ended = end_of(answers).await;
            drop(kept);
            ended
        }),
    ));
    // One that has said nothing yet.
    let (kept, messages) = open(Vec::<feed::ChatMessage>::new());
    let answers = feed.chat(bearing(messages, token)).await.unwrap().into_inner();
    all.push((
        "silent feed Chat",
        Box::pin(async move {
            let ended = end_of(answers).await;
            drop(kept);
            ended
        }),
    ));
    let (user, content, room) = ("u".to_owned(), "c".to_owned(), "r".to_owned());
    let (kept, messages) = open(vec![chat::Message { user, content, room, ..Default::default() }]);
    let answers = rooms.chat(bearing(messages, token)).await.unwrap().into_inner();
    all.push((
        "Chat",
        Box::pin(async move {
            let ended = end_of(answers).await;
            drop(kept);
            ended
        }),
    ));
    let listen = chat::SubscribeRequest { room: "r".into(), ..Default::default() };
    let answers = rooms.subscribe_messages(bearing(listen, token)).await.unwrap().into_inner();
    all.push(("SubscribeMessages", end_of(answers)));
    let figures = chat::MetricsRequest { interval_seconds: 3_600, ..Default::default() };
    let answers = rooms.stream_metrics(bearing(figures, token)).await.unwrap().into_inner();
    all.push(("StreamMetrics", end_of(answers)));

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let (kept, messages) = open(Vec::new());
    let answers = reflection.server_reflection_info(bearing(messages, token)).await.unwrap();
    all.push((
        "reflection",
        Box::pin(async move {
            let ended = end_of(answers.into_inner()).await;
            drop(kept);
            ended
        }),
    ));
    all
}

/// Of an answer without an end that an HTTP client waits for.
fn plain_upload(
    server: &TestServer,
    token: &str,
) -> impl Future<Output = serde_json::Value> + use<> {
    let (kept, body) = pieces();
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", "application/x-ndjson"), ("authorization", &*bearer)];
    let mut post = with(request(server, "POST", "/v1/events"), &headers);
    *post.body_mut() = body;
    kept.send("{\"topic\":\"a\"}\n".into()).unwrap();
    let address = server.address;
    async move {
        let response = send(address, http::Version::HTTP_11, post).await;
        drop(kept);
        assert_eq!(response.status(), 401);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }
}

/// Every kind of stream, and server-sent events beside them, ends with this reason once `end` has ended
/// the credential.
async fn all_end(server: &TestServer, token: &str, reason: &str, end: impl AsyncFnOnce()) {
    let before = server.gauges.watches();
    server.store("a", 3).await;
    let bearer = format!("Bearer {token}");
    let asked =
        with(request(server, "GET", "/v1/watch?from=oldest"), &[("authorization", &*bearer)]);
    let mut sse = Events::send(server, http::Version::HTTP_11, asked).await;
    let upload = tokio::spawn(plain_upload(server, token));
    let streams = streams(server, token).await;
    let endings: Vec<_> =
        streams.into_iter().map(|(name, ended)| (name, tokio::spawn(ended))).collect();
    // They stand.
    until("watches", || server.gauges.watches() >= before + 6).await;
    until("uploads", || server.gauges.uploads() >= 3).await;
    end().await;
    for (name, ended) in endings {
        let status = match timeout(SOON, ended).await {
            Ok(ended) => ended.unwrap(),
            Err(_) => panic!("{name} goes on"),
        };
        expect(&status, Code::Unauthenticated, reason);
        let cursor = status.metadata().get("feed-cursor").map(|it| it.to_str().unwrap());
        if name.contains("Watch") || name.contains("Chat") || name.contains("Subscribe") {
            let seq = tailmark_record::Cursor::parse(cursor.unwrap()).unwrap().seq();
            assert!(seq.get() >= 3 || name.contains("silent"), "{name} ends at {seq}");
        }
        if name == "UploadEvents" {
            let details = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
            assert_eq!(details.metadata["received"], "1", "what came is kept, and told");
        }
    }
    let all = timeout(SOON, sse.rest()).await.expect("the watch goes on");
    let last = all.last().unwrap();
    assert_eq!((&*last.event, &last.json()["reason"]), ("failed", &reason.into()), "{last:?}");
    let told = timeout(SOON, upload).await.expect("the upload goes on").unwrap();
    assert_eq!((&told["reason"], &told["metadata"]["received"]), (&reason.into(), &"1".into()));
    until("watches", || server.gauges.watches() == before).await;
}

#[tokio::test]
async fn a_revoked_token_ends_all_that_it_began() {
    let server = start().await;
    let mut known = Known::default();
    let token = known.give("ann", rights(ALL, ALL, true));
    let other = known.give("bob", rights(ALL, ALL, true));
    known.enforce(&server);
    // The control: another's watch goes on.
    let mut feed = server.client().await;
    let request = feed::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut watching = watch(&mut feed, bearing(request, &other)).await.unwrap();
    all_end(&server, &token, "TOKEN_REVOKED", async || {
        known.take_back("ann");
        known.enforce(&server);
    })
    .await;
    assert_eq!(watching.event().await.seq, 1);
    let refused = watch(&mut feed, bearing(feed::WatchRequest::default(), &token)).await;
    expect(&refused.err().unwrap(), Code::Unauthenticated, "TOKEN_INVALID");
    server.stop().await;
}

#[tokio::test]
async fn an_expired_token_ends_all_that_it_began() {
    let server = start().await;
    let mut known = Known::default();
    let token = known.give_until("ann", rights(ALL, ALL, true), Some(after(4)));
    known.enforce(&server);
    all_end(&server, &token, "TOKEN_EXPIRED", async || {
        tokio::time::sleep(Duration::from_secs(4)).await;
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_jwt_ends_with_its_time_and_with_the_key_that_signed_it() {
    let server = start().await;
    let issuer = super::Issuer::new();
    server.credentials.set_keys(issuer.keys());
    let all = rights(ALL, ALL, true);
    let token = issuer.token("ann", &all, after(4));
    all_end(&server, &token, "TOKEN_EXPIRED", async || {
        tokio::time::sleep(Duration::from_secs(4)).await;
    })
    .await;
    let token = issuer.token("ann", &all, after(3_600));
    all_end(&server, &token, "TOKEN_REVOKED", async || {
        server.credentials.set_keys(super::Issuer::new().keys());
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn other_rights_end_what_the_old_ones_began() {
    let server = start().await;
    let mut known = Known::default();
    let token = known.give("ann", rights(ALL, ALL, true));
    known.enforce(&server);
    all_end(&server, &token, "TOKEN_REVOKED", async || {
        known.0[0].rights = rights(&["b"], &["b"], false);
        known.enforce(&server);
    })
    .await;
    let mut feed = server.client().await;
    let asked = feed::WatchRequest { topic: "a".into(), ..Default::default() };
    let status = watch(&mut feed, bearing(asked, &token)).await.err().unwrap();
    let metadata = expect(&status, Code::PermissionDenied, "RIGHT_MISSING");
    assert_eq!((&*metadata["right"], &*metadata["granted"]), ("watch", "b"));
    server.stop().await;
}

/// Nor does it hold what it has for longer than others.
#[tokio::test]
async fn a_watch_that_is_never_read_again_is_cut() {
    let server = start_with(new_log(), options()).await;
    let mut known = Known::default();
    let token = known.give("ann", rights(&[], ALL, false));
    known.enforce(&server);
    server.store("a", 100_000).await;
    let mut feed = server.client().await;
    let request = feed::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut watching = watch(&mut feed, bearing(request, &token)).await.unwrap();
    assert_eq!(watching.event().await.seq, 1);
    known.take_back("ann");
    known.enforce(&server);
    let gone = until("watches", || server.gauges.watches() == 0);
    timeout(SOON + Duration::from_secs(5), gone).await.expect("it is still there");
    drop(watching);
    server.stop().await;
}

/// A client that takes nothing is not told, and gets nothing more all the same.
#[tokio::test]
async fn a_watch_that_is_not_read_hands_out_nothing_after_the_end() {
    let server = start_with(new_log(), options()).await;
    let mut known = Known::default();
    let token = known.give("ann", rights(&[], ALL, false));
    known.enforce(&server);
    server.store("a", 20_000).await;
    let mut feed = server.client().await;
    let request = feed::WatchRequest { start: from_oldest(), ..Default::default() };
    let mut watching = watch(&mut feed, bearing(request, &token)).await.unwrap();
    assert_eq!(watching.event().await.seq, 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    known.take_back("ann");
    known.enforce(&server);
    let mut last = 1;
    let status = loop {
        match within("event", watching.next()).await {
            Ok(Some(event)) => last = event.seq,
            Ok(None) => panic!("a regular end"),
            Err(status) => break status,
        }
    };
    expect(&status, Code::Unauthenticated, "TOKEN_REVOKED");
    // What lay in the windows of HTTP/2 was on its way.
    assert!(last < 20_000, "all of it came");
    let cursor = status.metadata().get("feed-cursor").unwrap().to_str().unwrap().to_owned();
    assert_eq!(tailmark_record::Cursor::parse(&cursor).unwrap().seq().get(), last);
    let _ = feed::WatchRequest::default().encode_to_vec();
    server.stop().await;
}
