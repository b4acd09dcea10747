//! A client that knows only the fields of the first public sketch, and `after_cursor`.

use crate::seed::feed_v1 as seed;
use seed::feed_service_client::FeedServiceClient;

use crate::support::server::{start, until, within};

fn event(id: &str, body: &str) -> seed::Event {
    let (id, topic, body) = (id.to_owned(), "alerts".to_owned(), body.to_owned());
    seed::Event { id, topic, body, at: None }
}

#[tokio::test]
async fn a_seed_client_uploads_watches_is_cut_and_resumes_from_the_header() {
    let server = start().await;
    let mut client = FeedServiceClient::new(server.channel().await);
    let uploaded = client.upload_events(tokio_stream::iter([event("1", "before")])).await.unwrap();
    assert_eq!(uploaded.into_inner(), seed::UploadResult { received: 1 });

    // Live, as the sketch has it: what was before does not come.
    let request = seed::WatchRequest { topic: "alerts".into(), after_cursor: String::new() };
    let response = within("watch", client.watch(request.clone())).await.unwrap();
    let cursor = response.metadata().get("feed-cursor").unwrap().to_str().unwrap().to_owned();
    // Cut before the first event.
    drop(response);
    drop(client);
    until("the cut", || server.gauges.watches() == 0 && server.gauges.connections() == 0).await;

    let mut client = FeedServiceClient::new(server.channel().await);
    let events = [event("2", "missed"), event("3", "missed too")];
    let uploaded = client.upload_events(tokio_stream::iter(events)).await.unwrap();
    assert_eq!(uploaded.into_inner().received, 2);

    // By the field, and by metadata for a client without even that.
    let by_field =
        tonic::Request::new(seed::WatchRequest { after_cursor: cursor.clone(), ..request.clone() });
    let mut by_metadata = tonic::Request::new(request);
    by_metadata.metadata_mut().insert("feed-after-cursor", cursor.parse().unwrap());
    for request in [by_field, by_metadata] {
        let mut stream = within("watch", client.watch(request)).await.unwrap().into_inner();
        for (id, body) in [("2", "missed"), ("3", "missed too")] {
            let event = within("event", stream.message()).await.unwrap().unwrap();
            assert_eq!((event.id.as_str(), event.body.as_str()), (id, body));
            assert_eq!(event.topic, "alerts");
            assert!(event.at.is_some());
        }
    }
    server.stop().await;
}
