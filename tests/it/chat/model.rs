//! Random joins, words, cuts and resumes on both services, held against the log.
//!
//! Every stream must have heard exactly a prefix of what its rooms hold from its start on, in that
//! order, its own messages as confirmations and all others as they were said.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tailmark_record::{Event, Seq};
use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tailmark_wire::{chat, feed_v1 as feed};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Streaming};

use super::talk::send;
use crate::support::inprocess::InProcess;
use crate::support::server::{until, within};

const ROOMS: [&str; 2] = ["a", "b.c"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Feed,
    Chat,
    Listen,
}

const ACTORS: [Kind; 5] = [Kind::Feed, Kind::Chat, Kind::Listen, Kind::Chat, Kind::Feed];

#[derive(Clone, Debug)]
enum Step {
    /// Says so many things; opens or resumes first if need be.
    Say(usize, usize, usize),
    /// Reads until all that was said here is confirmed.
    Settle(usize),
    /// Reads a few, while confirmations are outstanding.
    Read(usize, usize),
    /// Goes away without a word.
    Cut(usize),
    /// Half-closes and reads to the end.
    HalfClose(usize),
    /// Somebody else says something.
    Other(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..ACTORS.len();
    let step = prop_oneof![
        4 => (who.clone(), 0..ROOMS.len(), 1..6_usize).prop_map(|(w, r, n)| Step::Say(w, r, n)),
        2 => who.clone().prop_map(Step::Settle),
        2 => (who.clone(), 1..8_usize).prop_map(|(w, n)| Step::Read(w, n)),
        2 => who.clone().prop_map(Step::Cut),
        1 => who.prop_map(Step::HalfClose),
        2 => (0..ROOMS.len()).prop_map(Step::Other),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a stream handed over: a message in its place.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    seq: u64,
    room: String,
    text: String,
    is_confirmation: bool,
}

enum Wire {
    Feed(Option<mpsc::UnboundedSender<feed::ChatMessage>>, Streaming<feed::ChatMessage>),
    Chat(Option<mpsc::UnboundedSender<chat::Message>>, Streaming<chat::Message>),
    Listen(Streaming<chat::Message>),
    Gone,
}

struct Session {
    kind: Kind,
    wire: Wire,
    /// It begins after this seq.
    start: u64,
    /// A chat of the second service that resumes.
    resumes: bool,
    cursor: String,
    said: Vec<String>,
    /// The room of its first message.
    first_room: Option<usize>,
    heard: Vec<Heard>,
    unconfirmed: usize,
    half_closed: bool,
}

struct World {
    server: InProcess,
    open: BTreeMap<usize, Session>,
    over: Vec<Session>,
    /// Where each actor goes on, and after which seq.
    resume: BTreeMap<usize, (String, u64)>,
    count: usize,
}

impl World {
    async fn session(&mut self, who: usize) -> &mut Session {
        if !self.open.contains_key(&who) {
            let session = self.begin(who).await;
            self.open.insert(who, session);
        }
        self.open.get_mut(&who).unwrap()
    }

    async fn begin(&mut self, who: usize) -> Session {
        let channel = self.server.channel().await;
        let resume = self.resume.get(&who).cloned();
        let (cursor, _) = resume.clone().unwrap_or_default();
        let with = |mut request: Request<()>| {
            if !cursor.is_empty() {
                request.metadata_mut().insert("feed-after-cursor", cursor.parse().unwrap());
            }
            request.into_parts()
        };
        let (metadata, extensions, ()) = with(Request::new(()));
        let (wire, headers) = match ACTORS[who] {
            Kind::Feed => {
                let (sender, receiver) = mpsc::unbounded_channel();
                let messages = UnboundedReceiverStream::new(receiver);
                let request = Request::from_parts(metadata, extensions, messages);
                let mut client = FeedServiceClient::new(channel);
                let response = within("chat", client.chat(request)).await.unwrap();
                let (headers, stream, _) = response.into_parts();
                let room = ROOMS[0].to_owned();
                sender.send(feed::ChatMessage { room, ..Default::default() }).unwrap();
                (Wire::Feed(Some(sender), stream), headers)
            }
            Kind::Chat => {
                let (sender, receiver) = mpsc::unbounded_channel();
                let messages = UnboundedReceiverStream::new(receiver);
                let request = Request::from_parts(metadata, extensions, messages);
                let mut client = ChatServiceClient::new(channel);
                let response = within("chat", client.chat(request)).await.unwrap();
                let (headers, stream, _) = response.into_parts();
                (Wire::Chat(Some(sender), stream), headers)
            }
            Kind::Listen => {
                let room = ROOMS[0].to_owned();
                let user = format!("user {who}");
                let message = chat::SubscribeRequest { room, user, after_cursor: cursor };
                let mut client = ChatServiceClient::new(channel);
                let response = within("subscribe", client.subscribe_messages(message)).await;
                let (headers, stream, _) = response.unwrap().into_parts();
                (Wire::Listen(stream), headers)
            }
        };
        let cursor = headers.get("feed-cursor").unwrap().to_str().unwrap().to_owned();
        let parsed = tailmark_record::Cursor::parse(&cursor).unwrap();
        let start = parsed.seq().get();
        if let Some((_, seq)) = resume {
            assert_eq!(start, seq, "resumed elsewhere");
        }
        Session {
            kind: ACTORS[who],
            wire,
            start,
            resumes: self.resume.contains_key(&who),
            cursor,
            said: Vec::new(),
            first_room: None,
            heard: Vec::new(),
            unconfirmed: 0,
            half_closed: false,
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Say(who, room, count) => {
                for _ in 0..count {
                    self.count += 1;
                    let text = format!("{who}-{}", self.count);
                    self.session(who).await.say(room, &text);
                }
            }
            Step::Settle(who) => self.session(who).await.settle().await,
            Step::Read(who, count) => {
                let session = self.session(who).await;
                for _ in 0..count {
                    if session.unconfirmed > 0 {
                        session.next().await;
                    }
                }
            }
            Step::Cut(who) => {
                if let Some(session) = self.open.remove(&who) {
                    self.end(who, session);
                }
            }
            Step::HalfClose(who) => {
                if let Some(mut session) = self.open.remove(&who) {
                    session.half_close().await;
                    self.end(who, session);
                }
            }
            Step::Other(room) => {
                self.count += 1;
                let text = format!("other-{}", self.count);
                send(self.server.channel().await, ROOMS[room], "other", &text).await;
            }
        }
    }

    fn end(&mut self, who: usize, mut session: Session) {
        let seq = session.heard.last().map_or(session.start, |heard| heard.seq);
        self.resume.insert(who, (session.cursor.clone(), seq));
        // The stream goes, in the middle of what it is at; what it heard stays.
        session.wire = Wire::Gone;
        self.over.push(session);
    }

    /// Lets everything come to rest, reads all that is open to its end, and checks every stream.
    async fn check(mut self) {
        let open = self.open.len();
        let server = &self.server;
        until("rest", || server.gauges.watches() == open).await;
        for session in self.open.values_mut() {
            session.settle().await;
        }
        let log = self.log().await;
        for session in self.open.values_mut() {
            let expected = session.expected(&log);
            while session.heard.len() < expected.len() {
                session.next().await;
            }
        }
        for session in self.over.iter().chain(self.open.values()) {
            let expected = session.expected(&log);
            let heard = &session.heard;
            assert!(heard.len() <= expected.len(), "{:?}: {heard:?}", session.kind);
            assert_eq!(heard[..], expected[..heard.len()], "{:?}", session.kind);
            if session.half_closed {
                // Others' messages may have come after the last own one before it half-closed.
                let own = heard.iter().filter(|heard| heard.is_confirmation).count();
                assert_eq!(own, session.said.len(), "{:?}", session.kind);
            }
        }
        // Nothing was stored twice.
        let texts: HashSet<_> = log.iter().map(|(_, _, text)| text).collect();
        assert_eq!(texts.len(), log.len());
    }

    async fn log(&self) -> Vec<(u64, String, String)> {
        let mut log = Vec::new();
        for seq in 1..=self.server.head() {
            let bytes = self.server.log.event(Seq::new(seq)).await.unwrap().unwrap();
            let event = Event::parse(&bytes).unwrap();
            let room = ROOMS.iter().find(|room| tailmark_record::room::topic(room) == event.topic);
            log.push((seq, (*room.unwrap()).to_owned(), event.body.to_owned()));
        }
        log
    }
}

impl Session {
    fn say(&mut self, room: usize, text: &str) {
        let from = "somebody".to_owned();
        match &self.wire {
            Wire::Feed(Some(sender), _) => {
                let text = text.to_owned();
                sender.send(feed::ChatMessage { from, text, ..Default::default() }).unwrap();
            }
            Wire::Chat(Some(sender), _) => {
                self.first_room.get_or_insert(room);
                let message = chat::Message {
                    user: from,
                    content: text.to_owned(),
                    room: ROOMS[room].to_owned(),
                    ..Default::default()
                };
                sender.send(message).unwrap();
            }
            // It has no voice.
            _ => return,
        }
        self.said.push(text.to_owned());
        self.unconfirmed += 1;
    }

    /// The next message in its place; `None` at a regular end.
    async fn take(&mut self) -> Option<Heard> {
        loop {
            let (cursor, heard) = match &mut self.wire {
                Wire::Feed(_, stream) => {
                    let message = within("message", stream.message()).await.unwrap()?;
                    let is_confirmation = message.kind() == feed::chat_message::Kind::System;
                    let text = message.text.trim_start_matches("echo: ").to_owned();
                    let (seq, room) = (message.seq, message.room);
                    (message.cursor, Heard { seq, room, text, is_confirmation })
                }
                Wire::Chat(_, stream) | Wire::Listen(stream) => {
                    let message = within("message", stream.message()).await.unwrap()?;
                    let is_confirmation = message.r#type() == chat::MessageType::System;
                    let text = message.content.trim_start_matches("Echo: ").to_owned();
                    let (seq, room) = (message.seq, message.room);
                    (message.cursor, Heard { seq, room, text, is_confirmation })
                }
                Wire::Gone => return None,
            };
            // Presence, welcome and signs of life have no place in the log.
            if heard.seq > 0 {
                self.cursor = cursor;
                self.unconfirmed -= usize::from(heard.is_confirmation);
                return Some(heard);
            }
        }
    }

    async fn next(&mut self) {
        let heard = self.take().await.expect("an early end");
        self.heard.push(heard);
    }

    async fn settle(&mut self) {
        while self.unconfirmed > 0 {
            self.next().await;
        }
    }

    async fn half_close(&mut self) {
        match &mut self.wire {
            Wire::Feed(sender, _) => *sender = None,
            Wire::Chat(sender, _) => *sender = None,
            Wire::Listen(_) | Wire::Gone => return,
        }
        self.half_closed = true;
        while let Some(heard) = self.take().await {
            self.heard.push(heard);
        }
    }

    /// All that it should hear if it stayed.
    fn expected(&self, log: &[(u64, String, String)]) -> Vec<Heard> {
        let is_own = |text: &String| self.said.contains(text);
        let start_of = |room: &str| match self.kind {
            Kind::Feed | Kind::Listen => (room == ROOMS[0]).then_some(self.start + 1),
            Kind::Chat => {
                let is_first = self.first_room.is_some_and(|first| ROOMS[first] == room);
                let own = log.iter().find(|(_, of, text)| of == room && is_own(text));
                let own = own.map(|(seq, _, _)| *seq);
                // A room is joined by what is said there and stored.
                own.map(|own| if is_first && self.resumes { self.start + 1 } else { own })
            }
        };
        log.iter()
            .filter(|(seq, room, _)| start_of(room).is_some_and(|start| *seq >= start))
            .map(|(seq, room, text)| Heard {
                seq: *seq,
                room: room.clone(),
                text: text.clone(),
                is_confirmation: is_own(text),
            })
            .collect()
    }
}

#[test]
fn every_stream_hears_its_part_of_the_log() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let result = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let mut world = World {
                server: InProcess::start(),
                open: BTreeMap::new(),
                over: Vec::new(),
                resume: BTreeMap::new(),
                count: 0,
            };
            for step in &steps {
                world.step(step).await;
            }
            world.check().await;
        });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
