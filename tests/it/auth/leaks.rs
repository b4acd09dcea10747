//! Nothing that one may not watch shows, whatever is asked: two logs that differ in nothing but what is
//! hidden answer alike. Compared is every answer of every call in random order, its status, its words and
//! its numbers; what is left out are clocks, and the checksums in cursors, which say nothing but where an
//! event lies.
//!
//! What shows by design is where events lie (seqs) and when they came: docs/security.md.

use std::fmt::Debug;

use proptest::prelude::*;
use tailmark_record::{Cursor, Event, Seq};
use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::{chat, feed_v1 as feed};
use tonic::Status;
use tonic_types::StatusExt;

use super::{Known, bearing, rights, start};
use crate::support::server::{Client, TestServer, event, from_oldest, watch, within};

const TOPICS: [&str; 6] = ["seen.a", "seen.b", "seen.a.deep", "chat.seen", "hid", "seen.hid.x"];
const HIDDEN: [&str; 5] = ["hid", "hid.b", "other", "chat.hid", "seen.hid.x"];

/// What the limited one may watch: of `seen` not all.
const WATCH: [&str; 4] = ["seen.a", "seen.b", "seen.a.>", "chat.seen"];

/// An event of the log: visible ones are the same in both, hidden ones differ in everything.
#[derive(Clone, Debug)]
enum Stored {
    Seen(&'static str, u8),
    Hidden([(&'static str, u8); 2]),
}

#[derive(Clone, Debug)]
enum Asked {
    Event(u64),
    EventByCursor(u64),
    Topics(&'static str, Vec<&'static str>, i32),
    Watch(Vec<&'static str>, u64),
    Publish(&'static str, Option<(&'static str, u64)>),
    Produce(&'static str),
    Upload(&'static str),
    Trim(u64),
    Log,
    Principal,
    Listen(&'static str),
    Say(&'static str),
}

fn topic() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(TOPICS.to_vec())
}

fn stored() -> impl Strategy<Value = Stored> {
    let hidden = || (proptest::sample::select(HIDDEN.to_vec()), any::<u8>());
    let seen = proptest::sample::select(TOPICS[..4].to_vec());
    prop_oneof![
        (seen, any::<u8>()).prop_map(|(topic, body)| Stored::Seen(topic, body)),
        (hidden(), hidden()).prop_map(|(one, two)| Stored::Hidden([one, two])),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let patterns =
        ["seen.a", "seen.*", "seen.>", "seen.a.*", ">", "hid", "hid.>", "*", "chat.seen"];
    let patterns = proptest::collection::vec(proptest::sample::select(patterns.to_vec()), 0..3);
    let prefixes = ["", "", "seen", "seen.", "h", "hid", "chat."];
    let expected = proptest::option::of((topic(), 0..20_u64));
    let room = || proptest::sample::select(vec!["seen", "hid", "new"]);
    prop_oneof![
        (1..24_u64).prop_map(Asked::Event),
        (1..24_u64).prop_map(Asked::EventByCursor),
        (proptest::sample::select(prefixes.to_vec()), patterns.clone(), 0..3_i32)
            .prop_map(|(prefix, patterns, size)| Asked::Topics(prefix, patterns, size)),
        (patterns, 0..24_u64).prop_map(|(patterns, after)| Asked::Watch(patterns, after)),
        (topic(), expected).prop_map(|(topic, expected)| Asked::Publish(topic, expected)),
        topic().prop_map(Asked::Produce),
        topic().prop_map(Asked::Upload),
        (0..24_u64).prop_map(Asked::Trim),
        Just(Asked::Log),
        Just(Asked::Principal),
        room().prop_map(Asked::Listen),
        room().prop_map(Asked::Say),
    ]
}

/// One of the two logs, and who asks it.
struct World {
    server: TestServer,
    token: String,
    feed: Client,
    rooms: ChatServiceClient<tonic::transport::Channel>,
}

impl World {
    /// `which` of the hidden events are in it.
    async fn new(log: &[Stored], which: usize, watch: &[&str]) -> World {
        let server = start().await;
        for stored in log {
            let (topic, body) = match stored {
                Stored::Seen(topic, body) => (*topic, *body),
                Stored::Hidden(both) => both[which],
            };
            let mut batch = server.log.batch();
            let (id, body) = (format!("id-{body}"), body.to_string());
            batch.push(&Event { topic, id: &id, body: &body, ..Event::default() }).unwrap();
            // What repeats of hidden events are is another matter: they are told to whoever knows
            // the event already, and here nobody does.
            let options =
                tailmark_log::eventlog::AppendOptions { dedup: false, ..Default::default() };
            server.log.append(batch, options).await.unwrap();
        }
        let mut known = Known::default();
        let publish = ["seen.a", "seen.b", "hid", "chat.>"];
        let token = known.give("ann", rights(&publish, watch, false));
        known.enforce(&server);
        let feed = server.client().await;
        let rooms = ChatServiceClient::new(server.channel().await);
        World { server, token, feed, rooms }
    }

    fn asks<T>(&self, message: T) -> tonic::Request<T> {
        bearing(message, &self.token)
    }

    /// All that it answers.
    async fn answer(&mut self, asked: &Asked) -> String {
        use feed::get_event_request::By;
        let get = |by| feed::GetEventRequest { by: Some(by) };
        match asked {
            Asked::Event(seq) => {
                let asked = self.asks(get(By::Seq(*seq)));
                shown(self.feed.get_event(asked).await.map(|it| timeless(it.into_inner())))
            }
            Asked::EventByCursor(seq) => {
                let cursor = self.server.log.cursor(Seq::new(*seq)).await;
                let asked = self.asks(get(By::Cursor(cursor)));
                shown(self.feed.get_event(asked).await.map(|it| timeless(it.into_inner())))
            }
            Asked::Topics(prefix, patterns, size) => self.topics(prefix, patterns, *size).await,
            Asked::Watch(patterns, after) => self.watch(patterns, *after).await,
            Asked::Publish(topic, expected) => {
                let expected_head = expected
                    .map(|(topic, seq)| feed::ExpectedHead { topic: topic.to_owned(), seq });
                let event = Some(event(topic, "published"));
                let asked = self.asks(feed::PublishRequest { event, expected_head });
                let answer = self.feed.publish(asked).await.map(|answer| {
                    let answer = answer.into_inner();
                    feed::PublishResult { id: String::new(), appended_at: None, ..answer }
                });
                shown(answer)
            }
            Asked::Produce(topic) => self.produce(topic).await,
            Asked::Upload(topic) => {
                let events = vec![event("seen.a", "first"), event(topic, "second")];
                let asked = self.asks(tokio_stream::iter(events));
                shown(self.feed.upload_events(asked).await.map(tonic::Response::into_inner))
            }
            Asked::Trim(seq) => {
                let before = Some(feed::trim_request::Before::Seq(*seq));
                let asked = self.asks(feed::TrimRequest { before });
                shown(self.feed.trim(asked).await.map(tonic::Response::into_inner))
            }
            Asked::Log => {
                let asked = self.asks(feed::GetLogRequest {});
                let answer = self.feed.get_log(asked).await.map(|answer| {
                    let (oldest_time, head_time, uptime) = (None, None, None);
                    feed::LogStatus { oldest_time, head_time, uptime, ..answer.into_inner() }
                });
                shown(answer)
            }
            Asked::Principal => {
                let asked = self.asks(feed::GetPrincipalRequest {});
                shown(self.feed.get_principal(asked).await.map(tonic::Response::into_inner))
            }
            Asked::Listen(room) => {
                let request = chat::SubscribeRequest {
                    room: (*room).to_owned(),
                    ..chat::SubscribeRequest::default()
                };
                let asked = self.asks(request);
                match self.rooms.subscribe_messages(asked).await {
                    Err(status) => shown::<()>(Err(status)),
                    Ok(answers) => {
                        let first = within("welcome", answers.into_inner().message()).await;
                        shown(first.map(|it| it.map(|it| (it.user, it.content, it.room, it.seq))))
                    }
                }
            }
            Asked::Say(room) => {
                let (room, content) = ((*room).to_owned(), "said".to_owned());
                let request = chat::SendMessageRequest { room, content, user: "bob".into() };
                shown(self.rooms.send_message(self.asks(request)).await.map(|_| ()))
            }
        }
    }

    async fn topics(&mut self, prefix: &str, patterns: &[&str], page_size: i32) -> String {
        let mut all = String::new();
        let mut page_token = String::new();
        loop {
            let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            let request = feed::ListTopicsRequest {
                prefix: prefix.to_owned(),
                page_size,
                page_token,
                patterns,
            };
            let asked = self.asks(request);
            let page = self.feed.list_topics(asked).await.map(|page| {
                let mut page = page.into_inner();
                page.topics.iter_mut().for_each(|topic| topic.last_at = None);
                page
            });
            all.push_str(&shown(page.clone()));
            page_token = page.map_or_else(|_| String::new(), |page| page.next_page_token);
            if page_token.is_empty() {
                return all;
            }
        }
    }

    async fn watch(&mut self, patterns: &[&str], after: u64) -> String {
        let request = feed::WatchRequest {
            topics: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            after_cursor: if after == 0 { String::new() } else { after.to_string() },
            start: if after == 0 { from_oldest() } else { None },
            until_caught_up: true,
            ..feed::WatchRequest::default()
        };
        let asked = self.asks(request);
        match watch(&mut self.feed, asked).await {
            Err(status) => shown::<()>(Err(status)),
            Ok(mut watching) => {
                let headers = ["feed-cursor", "feed-oldest", "feed-head"];
                let headers = headers.map(|name| watching.header(name).to_owned());
                let (events, cursor) = watching.rest().await;
                let events: Vec<_> = events.into_iter().map(timeless).collect();
                shown(Ok((headers, events, cursor)))
            }
        }
    }

    async fn produce(&mut self, topic: &str) -> String {
        use feed::append_request::{Batch, Kind, Open};
        let append = |kind| feed::AppendRequest { kind: Some(kind) };
        let expected_head = Some(feed::ExpectedHead { topic: topic.to_owned(), seq: 3 });
        let batch = Batch { producer_seq: 1, events: vec![event(topic, "made")], expected_head };
        let messages = vec![
            append(Kind::Open(Open { producer_id: "p".into(), epoch: 0 })),
            append(Kind::Batch(batch)),
        ];
        let asked = self.asks(tokio_stream::iter(messages));
        let mut answers = match self.feed.append(asked).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return shown::<()>(Err(status)),
        };
        let mut all = String::new();
        loop {
            match within("answer", answers.message()).await {
                Ok(Some(answer)) => all.push_str(&shown(Ok(answer))),
                Ok(None) => return all,
                Err(status) => return all + &shown::<()>(Err(status)),
            }
        }
    }
}

/// Ids of ours are random where the client gave none.
fn timeless(event: feed::Event) -> feed::Event {
    let id = if event.id.starts_with("id-") { event.id } else { String::new() };
    feed::Event { id, at: None, appended_at: None, ..event }
}

/// As text, without what tells the time, and cursors as what they point at.
fn shown<T: Debug>(answer: Result<T, Status>) -> String {
    let text = match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(status) => {
            let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
            let mut facts: Vec<_> = info.metadata.into_iter().collect();
            facts.retain(|(name, _)| name != "oldest_time");
            facts.sort();
            format!("{:?} {} {} {facts:?}", status.code(), info.reason, status.message())
        }
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut out = String::new();
    for word in text.split_inclusive(|c| !is_word(c)) {
        let bare = word.trim_end_matches(|c| !is_word(c));
        let is_number = bare.bytes().all(|c| c.is_ascii_digit());
        match Cursor::parse(bare) {
            Ok(cursor) if !is_number => {
                out.push_str(&format!("cursor({}){}", cursor.seq(), &word[bare.len()..]));
            }
            _ => out.push_str(word),
        }
    }
    out
}

/// What both worlds answer, one question after the other.
fn compare(log: &[Stored], questions: &[Asked], watch: &[&str]) -> Vec<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut one = World::new(log, 0, watch).await;
        let mut two = World::new(log, 1, watch).await;
        let mut answers = Vec::new();
        for asked in questions {
            answers.push((one.answer(asked).await, two.answer(asked).await));
        }
        one.server.stop().await;
        two.server.stop().await;
        answers
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn what_is_hidden_does_not_show(
        log in proptest::collection::vec(stored(), 1..20),
        questions in proptest::collection::vec(asked(), 1..25),
    ) {
        for (at, (one, two)) in compare(&log, &questions, &WATCH).into_iter().enumerate() {
            prop_assert_eq!(one, two, "{:?}", &questions[at]);
        }
    }
}

/// The null control: who may see everything sees the difference, by each question that could show it.
#[test]
fn what_is_not_hidden_shows() {
    let log = [Stored::Seen("seen.a", 1), Stored::Hidden([("hid", 2), ("other", 3)])];
    let questions = [
        Asked::Event(2),
        Asked::EventByCursor(2),
        Asked::Topics("", vec![], 0),
        Asked::Watch(vec![], 0),
        Asked::Publish("seen.a", Some(("hid", 0))),
        Asked::Produce("hid"),
    ];
    for (at, (one, two)) in compare(&log, &questions, &[">"]).into_iter().enumerate() {
        assert_ne!(one, two, "{:?}", questions[at]);
    }
    // And who may not does not.
    for (at, (one, two)) in compare(&log, &questions, &WATCH).into_iter().enumerate() {
        assert_eq!(one, two, "{:?}", questions[at]);
    }
}
