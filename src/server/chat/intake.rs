//! The inbound half of a chat: a task that appends what the client sends.
//!
//! The task keeps reading while the client does not read its answers. It holds at most two batches:
//! one being made durable, one being filled. It ends at the client's half-close, on a bad message,
//! at the deadline, or when the outbound stream is gone.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::Chat;
use super::link::{Joined, Link};
use super::messages::{ChatDialect, FeedDialect, Room, Said, check_user};
use crate::server::ingest::upload::{self, Source, Upload};
use crate::server::principal::Caller;
use crate::server::rpc::status::{self, Failure};
use crate::server::transport::ending::Endings;
use crate::server::{Shared, report, watch};
use tailmark_log::eventlog::{AppendOptions, Appended, Batch};
use tailmark_record::{Limits, Seq};
use tailmark_wire::{chat as chat_pb, feed_v1 as feed_pb};

/// Whole batches, so that their seqs are known; no two messages are ever the same one.
const OPTIONS: AppendOptions = AppendOptions { dedup: false, expected_head: None, atomic: true };

/// Tells the link how it ended, however it ended.
struct EndOnDrop(Arc<Link>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if !self.0.is_ended() {
            report::defect("a chat's task ended early");
            self.0.end(Some(status::internal().into()));
        }
    }
}

/// What ends a chat from outside, and whose it is.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) deadline: Option<Instant>,
    pub(super) caller: Caller,
}

/// Takes messages until they end, and tells the link.
async fn take<M, S>(
    shared: &Arc<Shared>,
    messages: M,
    source: S,
    Ends { deadline, caller }: Ends,
) -> Result<(), Status>
where
    M: Stream<Item = Result<S::Message, Status>> + Unpin,
    S: Source,
{
    Upload::new(shared, messages, source, deadline, caller).take_all().await.map(|_| ())
}

/// The rest of a `chat.ChatService.Chat`: joins each room that it sends to.
pub(super) async fn run_chat(
    chat: Chat,
    link: Arc<Link>,
    messages: Streaming<chat_pb::Message>,
    replay: Option<Seq>,
    ends: Ends,
) {
    let ending = EndOnDrop(Arc::clone(&link));
    let shared = Arc::clone(&chat.shared);
    let source = ChatSource {
        chat,
        link,
        replay,
        rooms: Vec::new(),
        gathered: Vec::new(),
        under_way: Vec::new(),
    };
    let result = take(&shared, messages, source, ends).await;
    ending.0.end(result.err());
}

struct ChatSource {
    chat: Chat,
    link: Arc<Link>,
    /// Where the first room begins, if its client resumes.
    replay: Option<Seq>,
    rooms: Vec<Room>,
    /// Rooms that the batch is the first to name: number, user, place in the batch.
    gathered: Vec<(usize, String, u64)>,
    /// The same of the batch under way.
    under_way: Vec<(usize, u64)>,
}

impl ChatSource {
    fn limits(&self) -> &Limits {
        self.chat.shared.log.limits()
    }

    /// The number of a room, and whether it is new.
    fn room(&mut self, name: &str, caller: &Caller) -> Result<(usize, bool), Failure> {
        let room = Room::read(name, self.limits())?;
        // Who speaks in a room here hears it, too.
        caller.may_publish(&room.topic)?;
        caller.may_watch_topic(&room.topic)?;
        if let Some(at) = self.rooms.iter().position(|known| *known == room) {
            return Ok((at, false));
        }
        let (count, most) = (self.rooms.len() + 1, self.chat.shared.options.patterns_per_watch);
        if count > most {
            return Err(status::over_limit("rooms_per_chat", most, count));
        }
        self.rooms.push(room);
        Ok((count - 1, true))
    }
}

impl Source for ChatSource {
    type Message = chat_pb::Message;

    fn options(&self) -> AppendOptions {
        OPTIONS
    }

    fn stored_bytes(&self, message: &chat_pb::Message) -> usize {
        ChatDialect::stored_bytes(message)
    }

    fn take(
        &mut self,
        message: chat_pb::Message,
        caller: &Caller,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let user = caller.speaks_as(&message.user);
        ChatDialect::check(&message, user, self.limits())?;
        let (room, is_new) = self.room(&message.room, caller)?;
        let place = batch.len() as u64;
        let pushed = upload::charged(caller, batch, |batch| {
            ChatDialect::push(&message, user, &self.rooms[room], batch)
        });
        if is_new {
            match pushed {
                Ok(()) => self.gathered.push((room, user.to_owned(), place)),
                Err(_) => self.rooms.truncate(room),
            }
        }
        pushed
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.poll_room(cx)
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.poll_left(cx)
    }

    fn appending(&mut self) {
        let mut joined = Vec::new();
        for (at, user, place) in std::mem::take(&mut self.gathered) {
            let room = self.rooms[at].clone();
            let log = &self.chat.shared.log;
            let stay = self.chat.presence.enter(log, &room.name, &user);
            let from = if at == 0 { self.replay } else { None };
            if let Some(start) = from {
                self.link.join_at(room, stay, start);
            } else {
                joined.push(Joined { room, from, stay });
            }
            self.under_way.push((at, place));
        }
        self.link.appending(joined);
    }

    fn appended(&mut self, appended: &Appended) {
        let Some((first, last)) = appended.first.zip(appended.last) else { return };
        let firsts: Vec<_> = std::mem::take(&mut self.under_way)
            .into_iter()
            .map(|(room, place)| (room, Seq::new(first.get() + place)))
            .collect();
        self.link.appended(first, last, &firsts);
    }
}

/// The rest of a `feed.v1.FeedService.Chat`: its first message names the room.
pub(super) async fn run_feed(
    chat: Chat,
    link: Arc<Link>,
    mut messages: Streaming<feed_pb::ChatMessage>,
    begin: Begin,
    ends: Ends,
) {
    let ending = EndOnDrop(Arc::clone(&link));
    let result = feed(&chat, &link, &mut messages, begin, ends).await;
    ending.0.end(result.err());
}

/// Where a chat begins as far as its metadata tell.
pub(super) struct Begin {
    /// The cursor of the metadata; empty = none.
    pub(super) cursor: String,
    /// What it stands for; without one, the seq after the head when the call came.
    pub(super) start: Seq,
}

async fn feed(
    chat: &Chat,
    link: &Arc<Link>,
    messages: &mut Streaming<feed_pb::ChatMessage>,
    begin: Begin,
    ends: Ends,
) -> Result<(), Status> {
    let shared = &chat.shared;
    let mut credential = Endings::new(None, &shared.stop, ends.caller.clone());
    let first = tokio::select! {
        biased;
        () = poll_fn(|cx| link.poll_left(cx)) => return Ok(()),
        () = shared.stop.cancelled() => {
            return Err(status::stopping(shared.options.retry_delay).into());
        }
        () = at(ends.deadline) => return Err(status::deadline().into()),
        failure = poll_fn(|cx| credential.poll_revoked(cx)) => return Err(failure.into()),
        first = messages.message() => first.map_err(|error| status::upload_broken(&error))?,
    };
    let Some(first) = first else { return Ok(()) };
    let limits = shared.log.limits();
    let index = |failure: Failure| failure.with("index", 0);
    FeedDialect::check(&first, limits).map_err(index)?;
    let room = Room::read(&first.room, limits).map_err(index)?;
    let caller = &ends.caller;
    caller.may_watch_topic(&room.topic).map_err(index)?;
    let start = start(shared, &begin, &first.after_cursor).await.map_err(index)?;
    let stay = chat.presence.enter(&shared.log, &room.name, caller.listens_as(&first.from));
    link.join_at(room.clone(), stay, start);
    let source = FeedSource {
        shared: Arc::clone(shared),
        link: Arc::clone(link),
        room,
        cursors: [begin.cursor, first.after_cursor.clone()],
        is_first: true,
    };
    let messages = tokio_stream::once(Ok(first)).chain(messages);
    take(shared, messages, source, ends).await
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Where the first message begins.
async fn start(shared: &Shared, begin: &Begin, after_cursor: &str) -> Result<Seq, Failure> {
    match (begin.cursor.as_str(), after_cursor) {
        (_, "") => Ok(begin.start),
        ("", field) => watch::start_after(shared, field).await,
        (metadata, field) if metadata == field => Ok(begin.start),
        _ => Err(watch::two_cursors()),
    }
}

struct FeedSource {
    shared: Arc<Shared>,
    link: Arc<Link>,
    room: Room,
    /// What `after_cursor` may repeat.
    cursors: [String; 2],
    is_first: bool,
}

impl Source for FeedSource {
    type Message = feed_pb::ChatMessage;

    fn options(&self) -> AppendOptions {
        OPTIONS
    }

    fn stored_bytes(&self, message: &feed_pb::ChatMessage) -> usize {
        FeedDialect::stored_bytes(message)
    }

    fn take(
        &mut self,
        message: feed_pb::ChatMessage,
        caller: &Caller,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let limits = self.shared.log.limits();
        if std::mem::take(&mut self.is_first) {
            if message.text.is_empty() {
                return Ok(());
            }
        } else {
            FeedDialect::check(&message, limits)?;
            if !message.room.is_empty() && Room::read(&message.room, limits)? != self.room {
                return Err(status::bad_field(
                    "room",
                    "a stream stays in its first message's room",
                ));
            }
            let cursor = &message.after_cursor;
            if !cursor.is_empty() && !self.cursors.contains(cursor) {
                let problem = "only the first message says where to begin";
                return Err(status::bad_field("after_cursor", problem));
            }
        }
        caller.may_publish(&self.room.topic)?;
        let from = caller.speaks_as(&message.from);
        check_user("from", from, limits)?;
        let said = Said { id: "", from, text: &message.text, at: message.at };
        upload::charged(caller, batch, |batch| said.push(&self.room, batch, "at"))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.poll_room(cx)
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.poll_left(cx)
    }

    fn appending(&mut self) {
        self.link.appending(Vec::new());
    }

    fn appended(&mut self, appended: &Appended) {
        if let Some((first, last)) = appended.first.zip(appended.last) {
            self.link.appended(first, last, &[]);
        }
    }
}
