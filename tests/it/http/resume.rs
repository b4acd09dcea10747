//! Coming back as browsers and their libraries do it: by the header where they can set one, by a
//! parameter where they cannot, and with what they add to a URL by themselves.

use http::{HeaderValue, Version};

use crate::support::server::{TestServer, start};
use crate::support::web::{Answer, Events, ask, get, request, seqs, with};

/// As Yaffle's event-source-polyfill and reconnecting-eventsource say it, Mercure's two spellings,
/// and amvtek's eventsource-polyfill.
const SPELLINGS: [&str; 6] = [
    "lastEventId",
    "lastEventID",
    "Last-Event-ID",
    "last-event-id",
    "last_event_id",
    "evs_last_event_id",
];

/// The seqs that a watch up to the head sends.
async fn seqs_of(server: &TestServer, query: &str, header: Option<&str>) -> Vec<u64> {
    let path = format!("/v1/watch?until_caught_up&{query}");
    let mut asked = request(server, "GET", &path);
    if let Some(header) = header {
        asked.headers_mut().insert("last-event-id", header.parse().unwrap());
    }
    let mut events = Events::send(server, Version::HTTP_11, asked).await;
    assert_eq!(events.status, 200, "{query}");
    seqs(&events.rest().await)
}

async fn answer(server: &TestServer, path: &str, header: Option<&[u8]>) -> Answer {
    let mut asked = request(server, "GET", path);
    if let Some(header) = header {
        asked.headers_mut().insert("last-event-id", HeaderValue::from_bytes(header).unwrap());
    }
    ask(server.address, Version::HTTP_11, asked).await
}

/// Checks that a watch is told that its position is of no use, and by which name that came.
#[track_caller]
fn expect_lost(answer: &Answer, name: &str) {
    assert_eq!(answer.status, 200, "{name}");
    let text = answer.text();
    assert!(text.starts_with("id: end:\nevent: lost\ndata: {"), "{text}");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let json: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(json["reason"], "CURSOR_MALFORMED", "{text}");
    assert_eq!(json["metadata"]["field"], name, "{text}");
}

#[tokio::test]
async fn a_library_that_sets_no_header_resumes_by_a_parameter() {
    let server = start().await;
    server.store("a", 5).await;
    for name in SPELLINGS {
        let resume = format!("from=oldest&{name}={}", server.cursor(3));
        assert_eq!(seqs_of(&server, &resume, None).await, [4, 5], "{name}");
        // What it has not got yet it says as nothing.
        assert_eq!(seqs_of(&server, &format!("from=3&{name}="), None).await, [3, 4, 5], "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_newest_word_on_the_position_counts() {
    let server = start().await;
    server.store("a", 6).await;
    let at = |seq| server.cursor(seq);
    let (two, three, four) = (at(2), at(3), at(4));
    for (query, header, expected) in [
        // The header, which a browser moves on, before the URL, which stays as it was.
        (format!("lastEventId={three}&from=oldest"), Some(&four), &[5, 6][..]),
        (format!("after_cursor={two}"), Some(&four), &[5, 6]),
        // The parameter of a library before what the page wrote.
        (format!("after_cursor={two}&lastEventId={four}"), None, &[5, 6]),
        (format!("lastEventId={four}&after_cursor={two}&from=oldest"), None, &[5, 6]),
        // Of several the last: libraries append theirs to a URL that may have one.
        (format!("lastEventId={two}&lastEventId={four}"), None, &[5, 6]),
        (format!("lastEventID={two}&evs_last_event_id={four}"), None, &[5, 6]),
        (format!("lastEventId={four}&lastEventId="), None, &[5, 6]),
        // An empty header says nothing.
        (format!("lastEventId={four}"), Some(&String::new()), &[5, 6]),
    ] {
        let header = header.map(String::as_str);
        assert_eq!(seqs_of(&server, &query, header).await, expected, "{query} {header:?}");
    }
    // Without any of them, two words of the page itself are still a mistake of its own.
    let path = format!("/v1/watch?after_cursor={two}&from=oldest");
    let metadata = get(&server, &path).await.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
    assert_eq!(metadata["field"], "from");
    server.stop().await;
}

#[tokio::test]
async fn what_has_ended_for_good_is_told_so_however_it_is_said() {
    let server = start().await;
    server.store("a", 5).await;
    let cursor = server.cursor(3);
    for end in ["end:".to_owned(), format!("end:{cursor}")] {
        let (raw, escaped) = (end.clone(), end.replace(':', "%3A"));
        let over = answer(&server, "/v1/watch", Some(end.as_bytes())).await;
        assert_eq!((over.status.as_u16(), over.body.len()), (204, 0), "{end}");
        for name in SPELLINGS.into_iter().chain(["after_cursor"]) {
            for value in [&raw, &escaped] {
                let path = format!("/v1/watch?topic=a&{name}={value}");
                let over = answer(&server, &path, None).await;
                assert_eq!((over.status.as_u16(), over.body.len()), (204, 0), "{path}");
            }
        }
        // What the browser knows by now counts more than what the URL says.
        let path = format!("/v1/watch?after_cursor={end}&until_caught_up");
        let again = answer(&server, &path, Some(cursor.as_bytes())).await;
        assert_eq!(again.status, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_id_of_another_server_is_lost_under_the_name_that_it_came_by() {
    let server = start().await;
    server.store("a", 1).await;
    let foreign: [&[u8]; 4] = [b"42x", b"gr\xc3\xb6\xc3\x9fe", b"\xff\xfe", b"a b"];
    for id in foreign {
        let lost = answer(&server, "/v1/watch", Some(id)).await;
        expect_lost(&lost, "last-event-id");
    }
    for name in ["lastEventId", "evs_last_event_id", "after_cursor"] {
        let lost = answer(&server, &format!("/v1/watch?{name}=gr%C3%B6%C3%9Fe+1"), None).await;
        expect_lost(&lost, name);
    }
    let twice = [("last-event-id", "1"), ("last-event-id", "0")];
    let asked = with(request(&server, "GET", "/v1/watch"), &twice);
    let refused = ask(server.address, Version::HTTP_11, asked).await;
    let metadata = refused.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
    assert_eq!(metadata["field"], "last-event-id");
    server.stop().await;
}

#[tokio::test]
async fn what_libraries_add_by_themselves_is_passed_over_and_nothing_else() {
    let server = start().await;
    server.store("a", 2).await;
    let polyfill = "evs_buffer_size_limit=262144&evs_preamble=2056";
    for extra in ["_=1732871000000", "_dc=17", "org.htmx.cache-buster=x", "_=1&_=2", polyfill] {
        assert_eq!(seqs_of(&server, &format!("from=oldest&{extra}"), None).await, [1, 2]);
    }
    for path in ["/v1/log?_=1", "/v1/topics?_=1&prefix=a", "/v1/events/1?_dc=1"] {
        assert_eq!(get(&server, path).await.status, 200, "{path}");
    }
    for (path, name) in [
        ("/v1/watch?lastEvent=1", "lastEvent"),
        ("/v1/watch?access_token=secret", "access_token"),
        ("/v1/watch?Topic=a", "Topic"),
        ("/v1/log?lastEventId=1", "lastEventId"),
        ("/v1/log?evs_preamble=1", "evs_preamble"),
    ] {
        let metadata = get(&server, path).await.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
        assert_eq!(metadata["field"], name, "{path}");
    }
    server.stop().await;
}
