//! `tailmark chat`.
//!
//! Three parts that never wait for each other: what is typed (`typing`), what is said to the server
//! (`saying`), and what comes from the room, which this file prints. Each thing said has an id of
//! its own and is sent until its outcome is known, so a cut connection never stores it twice.

mod print;
mod saying;
mod typing;

use std::collections::{HashSet, VecDeque};
use std::io::IsTerminal;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::message::excerpt;
use super::online::interruption;
use super::signals::Stop;
use super::terminal::is_capable;
use super::{Exit, Failure};
use print::Screen;
use saying::Told;
use tailmark_client::{Client, Error, RoomItem};

/// Items that may wait to be printed; the rest waits in the log.
const WAITING: usize = 64;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The room; it need not exist
    #[arg(default_value = tailmark_record::room::DEFAULT)]
    room: String,
    /// Your name; without one you only listen, unseen
    #[arg(long = "as", value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    /// Messages to show from before [default: 10 on a terminal, else 0]
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Print each message as one JSON object a line, your own too
    #[arg(long)]
    json: bool,
}

fn parse_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a name has at least one character".to_owned()),
        text if text.len() > 255 => Err("a name has at most 255 bytes".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// Why it failed; what the server calls the arguments is named as it was typed.
fn failed(error: Error) -> Failure {
    let typed = [("room", "ROOM"), ("topic", "ROOM"), ("topics", "ROOM"), ("user", "--as")];
    Failure::from(error).naming(&typed)
}

/// Ids of what was said here and has not come back yet.
#[derive(Clone, Debug, Default)]
struct Own(Arc<Mutex<HashSet<String>>>);

impl Own {
    fn add(&self, id: &str) {
        self.0.lock().insert(id.to_owned());
    }

    fn take(&self, id: &str) -> bool {
        self.0.lock().remove(id)
    }
}

pub(super) async fn run(args: Args, client: Client) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let last = args.last.unwrap_or(if is_terminal { 10 } else { 0 });
    let (history, cursor) = tokio::select! {
        exit = stop.wait() => return Err(Failure::silent(exit)),
        history = async {
            super::watch::meet(&client).await?;
            client.room_history(&args.room, last).await.map_err(failed)
        } => history?,
    };
    // Without editing a terminal shows what is typed by itself.
    let is_edited =
        is_terminal && is_capable(&std::io::stdout()) && !args.json && args.name.is_some();
    let name = args.name.clone().unwrap_or_default();
    let (typed, screen) = match (&args.name, is_edited) {
        (Some(name), true) => typing::terminal(name)?,
        (Some(_), false) => (typing::lines(), Screen::plain(args.json)),
        // Never closed: there is nothing to wait for.
        (None, _) => (typing::nothing(), Screen::plain(args.json)),
    };
    let mut chat = Chat {
        screen,
        own: Own::default(),
        is_edited,
        open: VecDeque::new(),
        is_interrupted: false,
        seen: 0,
        wanted: None,
    };
    let room = tailmark_record::room::named(&args.room);
    chat.screen.greet(room, args.name.as_deref(), history.len())?;
    for message in &history {
        chat.seen = message.seq;
        chat.screen.message(message)?;
    }
    let room = listen(&client, &args.room, &name, &cursor);
    let told = saying::run(client, args.room, name, typed, chat.own.clone(), is_edited);
    chat.follow(room, told, &mut stop).await
}

/// Listens in a task of its own.
fn listen(
    client: &Client,
    room: &str,
    name: &str,
    cursor: &str,
) -> mpsc::Receiver<Result<RoomItem, Error>> {
    let mut room = client.room(room, name, cursor);
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let item = room.next().await;
            let is_last = item.is_err();
            if sender.send(item).await.is_err() || is_last {
                break;
            }
        }
    });
    receiver
}

struct Chat {
    screen: Screen,
    own: Own,
    is_edited: bool,
    /// What is said and not durable yet.
    open: VecDeque<String>,
    /// The connection was lost, and it was said.
    is_interrupted: bool,
    /// Seq of the newest message seen.
    seen: u64,
    /// All is said: the end comes when this seq has been seen.
    wanted: Option<u64>,
}

impl Chat {
    async fn follow(
        &mut self,
        mut room: mpsc::Receiver<Result<RoomItem, Error>>,
        mut told: mpsc::Receiver<Told>,
        stop: &mut Stop,
    ) -> Result<(), Failure> {
        while self.wanted.is_none_or(|wanted| self.seen < wanted) {
            tokio::select! {
                exit = stop.wait() => return Err(self.leave(exit)),
                item = room.recv() => match item {
                    Some(Ok(item)) => self.heard(item)?,
                    Some(Err(error)) => return Err(failed(error)),
                    None => return Err(Failure::new(Exit::Failure, "the room was lost")),
                },
                news = told.recv(), if self.wanted.is_none() => match news {
                    Some(news) => self.told(news)?,
                    None => return Err(Failure::new(Exit::Failure, "the input was lost")),
                },
            }
        }
        Ok(())
    }

    fn told(&mut self, news: Told) -> Result<(), Failure> {
        match news {
            Told::Saying(text) => self.open.push_back(text),
            Told::Stored => drop(self.open.pop_front()),
            Told::Again(error) => {
                self.screen.note(&format!("not stored yet, it is sent again: {error}"))?;
            }
            Told::StoredAfterAll => self.screen.note("stored now")?,
            Told::Refused(error) => {
                let text = self.open.pop_front().unwrap_or_default();
                self.refused(&text, error)?;
            }
            Told::Waiting(count) => {
                self.screen.typing_ended();
                let what = if count == 1 { "one message is" } else { "all messages are" };
                self.screen.note(&format!("waiting until {what} stored; Ctrl-C gives up"))?;
            }
            Told::Done(last) => {
                self.screen.typing_ended();
                self.wanted = Some(last);
            }
            Told::Interrupted => {
                self.screen.typing_ended();
                return Err(self.leave(Exit::Interrupted));
            }
        }
        Ok(())
    }

    fn heard(&mut self, item: RoomItem) -> Result<(), Failure> {
        match item {
            RoomItem::Message(message) => {
                self.seen = message.seq;
                // On a terminal it stands there as it was typed.
                let is_own = self.own.take(&message.id);
                if is_own && !self.screen.has_json() {
                    Ok(())
                } else {
                    self.screen.message(&message)
                }
            }
            RoomItem::Came(user) => self.screen.presence(&user, true),
            RoomItem::Left(user) => self.screen.presence(&user, false),
            // Once for each outage: how often it is tried is nothing to read.
            RoomItem::Interrupted { cause, .. } => {
                if std::mem::replace(&mut self.is_interrupted, true) {
                    return Ok(());
                }
                let cause = interruption(&cause);
                self.screen.note(&format!("{cause}; connecting again until it works"))
            }
            RoomItem::Resumed => {
                self.is_interrupted = false;
                self.screen.note("connected again; no message was missed")
            }
            _ => Ok(()),
        }
    }

    /// A message was not taken. A person can do better; a pipe cannot.
    fn refused(&mut self, text: &str, error: Error) -> Result<(), Failure> {
        let outcome = if error.may_have_applied() { "may be stored or not" } else { "not stored" };
        if !self.is_edited {
            let hint = format!("\"{}\" is {outcome}", excerpt(text));
            return Err(failed(error).hint(hint));
        }
        let why = failed(error);
        self.screen.note(&format!("\"{}\" is {outcome}: {}", excerpt(text), why.message()))
    }

    /// Leaves before all is said.
    fn leave(&mut self, exit: Exit) -> Failure {
        self.screen.stop_editing();
        for text in std::mem::take(&mut self.open) {
            let note = format!("may be stored or not: \"{}\"", excerpt(&text));
            // There is nobody left to tell when this fails.
            let _ = self.screen.note(&note);
        }
        Failure::silent(exit)
    }
}
