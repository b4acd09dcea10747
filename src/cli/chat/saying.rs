//! What is typed, on its way to the server: one after the other, each until its outcome is known.

use tokio::sync::mpsc;

use super::Own;
use super::typing::Typed;
use tailmark_client::{Backoff, Client, Error, Saying};

/// News about what is said.
#[derive(Debug)]
pub(super) enum Told {
    /// It is about to be sent.
    Saying(String),
    /// The oldest is durable.
    Stored,
    /// The oldest will be sent again.
    Again(Error),
    /// The one that was sent again is durable.
    StoredAfterAll,
    /// The oldest will not be sent again.
    Refused(Error),
    /// The input has ended, and so many are not durable yet.
    Waiting(usize),
    /// All is said; the seq of the last message.
    Done(u64),
    /// Ctrl-C was typed.
    Interrupted,
}

/// Says what is typed, in a task of its own.
pub(super) fn run(
    client: Client,
    room: String,
    name: String,
    typed: mpsc::Receiver<Typed>,
    own: Own,
    is_edited: bool,
) -> mpsc::Receiver<Told> {
    let (tell, told) = mpsc::channel(super::WAITING);
    let speaker = Speaker { client, room, name, own, tell, last: 0 };
    tokio::spawn(speaker.run(typed, is_edited));
    told
}

struct Speaker {
    client: Client,
    room: String,
    name: String,
    own: Own,
    tell: mpsc::Sender<Told>,
    last: u64,
}

/// Nobody listens any more.
struct Left;

impl Speaker {
    async fn run(mut self, mut typed: mpsc::Receiver<Typed>, is_edited: bool) {
        // Dropped with the program; an error means that nobody listens.
        let _ = self.say_all(&mut typed, is_edited).await;
    }

    async fn say_all(
        &mut self,
        typed: &mut mpsc::Receiver<Typed>,
        is_edited: bool,
    ) -> Result<(), Left> {
        let mut ended = None;
        let mut waiting: std::collections::VecDeque<Saying> = Default::default();
        loop {
            let Some(saying) = waiting.front().cloned() else {
                match ended.take() {
                    Some(Typed::Interrupted) => return self.tell(Told::Interrupted).await,
                    Some(_) => return self.tell(Told::Done(self.last)).await,
                    None => {}
                }
                match typed.recv().await {
                    Some(Typed::Line(text)) => waiting.push_back(self.begin(&text).await?),
                    other => ended = Some(other.unwrap_or(Typed::Ended)),
                }
                continue;
            };
            let (client, tell) = (self.client.clone(), self.tell.clone());
            let mut sent = std::pin::pin!(send(&client, &saying, &tell));
            let outcome = loop {
                tokio::select! {
                    outcome = &mut sent => break outcome?,
                    // What is typed meanwhile is kept, and Ctrl-C is heard.
                    next = typed.recv(), if ended.is_none() && waiting.len() < super::WAITING => {
                        match next {
                            Some(Typed::Line(text)) => waiting.push_back(self.begin(&text).await?),
                            Some(Typed::Interrupted) => return self.tell(Told::Interrupted).await,
                            Some(Typed::Ended) | None => {
                                ended = Some(Typed::Ended);
                                if is_edited {
                                    self.tell(Told::Waiting(waiting.len())).await?;
                                }
                            }
                        }
                    }
                }
            };
            waiting.pop_front();
            if let Some(seq) = outcome {
                self.last = seq;
            }
        }
    }

    async fn begin(&self, text: &str) -> Result<Saying, Left> {
        let saying = Saying::new(&self.room, &self.name, text);
        self.own.add(saying.id());
        self.tell(Told::Saying(text.to_owned())).await?;
        Ok(saying)
    }

    async fn tell(&self, news: Told) -> Result<(), Left> {
        self.tell.send(news).await.map_err(|_| Left)
    }
}

/// Sends one thing until its outcome is known: its seq, or `None` where it was refused. Its id makes
/// that safe: what an earlier attempt stored is answered, not stored again.
async fn send(
    client: &Client,
    saying: &Saying,
    tell: &mpsc::Sender<Told>,
) -> Result<Option<u64>, Left> {
    let mut backoff = Backoff::default();
    let mut is_again = false;
    loop {
        let error = match client.say(saying).await {
            Ok(result) => {
                if is_again {
                    tell.send(Told::StoredAfterAll).await.map_err(|_| Left)?;
                }
                tell.send(Told::Stored).await.map_err(|_| Left)?;
                return Ok(Some(result.seq));
            }
            Err(error) => error,
        };
        if !error.is_retryable() {
            tell.send(Told::Refused(error)).await.map_err(|_| Left)?;
            return Ok(None);
        }
        let delay = backoff.next_after(&error);
        if !std::mem::replace(&mut is_again, true) {
            tell.send(Told::Again(error)).await.map_err(|_| Left)?;
        }
        tokio::time::sleep(delay).await;
    }
}
