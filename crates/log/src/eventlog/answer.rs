//! What a queued batch is answered.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::error::lost_answer;
use super::{AppendError, Appended};

/// What will become of a batch that is queued. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct Answer(oneshot::Receiver<Result<Appended, AppendError>>);

impl Answer {
    pub(super) fn new(answer: oneshot::Receiver<Result<Appended, AppendError>>) -> Answer {
        Answer(answer)
    }
}

impl Future for Answer {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(lost_answer())))
    }
}
