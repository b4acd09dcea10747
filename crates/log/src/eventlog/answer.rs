//! What a queued batch is answered.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::error::lost_answer;
use super::{AppendError, Appended};

/// Answers an [`Answer`].
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Result<Appended, AppendError>>);

impl Reply {
    /// What became of the batch. Nobody need wait for it any more.
    pub fn send(self, done: Result<Appended, AppendError>) {
        let _ = self.0.send(done);
    }
}

/// What will become of a batch that is queued. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct Answer(oneshot::Receiver<Result<Appended, AppendError>>);

impl Answer {
    pub(super) fn new(answer: oneshot::Receiver<Result<Appended, AppendError>>) -> Answer {
        Answer(answer)
    }

    /// An answer that somebody else gives. One who drops the reply has said that the outcome is unknown.
    pub fn of_reply() -> (Reply, Answer) {
        let (reply, answer) = oneshot::channel();
        (Reply(reply), Answer(answer))
    }
}

impl Future for Answer {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(lost_answer())))
    }
}
