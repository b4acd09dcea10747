//! The task of a producer: connects, sends, reads acks, waits, as the machine says.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstDecoder;

use super::gather::{Batch, Gather};
use super::step::{Action, Input, MAX_UNDER_WAY, Machine};
use super::{Position, ProducerOptions};
use crate::channel::Channel;
use crate::{Backoff, Client, Error, backoff, calls};
use pb::append_response::Kind as Answer;
use tailmark_record::{put_varint, varint_len};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::methods::feed_service;

/// For the server's good-bye, which nothing depends on.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Task {
    client: Client,
    channel: Channel,
    id: String,
    options: ProducerOptions,
    gather: Arc<Gather>,
    machine: Machine,
    backoff: Backoff,
    /// Not durable yet, in order.
    waiting: VecDeque<Batch>,
    /// Whom to tell that it stands.
    opened: Option<oneshot::Sender<Result<Position, Error>>>,
}

impl Task {
    pub(super) fn new(
        client: Client,
        id: String,
        options: ProducerOptions,
        gather: Arc<Gather>,
        opened: oneshot::Sender<Result<Position, Error>>,
    ) -> Task {
        Task {
            channel: client.channel(),
            client,
            id,
            machine: Machine::new(options.waits_for_server),
            backoff: Backoff::new(options.shortest_retry, options.longest_retry),
            options,
            gather,
            waiting: VecDeque::new(),
            opened: Some(opened),
        }
    }

    /// Works until the producer is closed or has failed.
    pub(super) async fn run(mut self) {
        let mut action = self.machine.step(Input::Woke);
        loop {
            action = match action {
                Action::Open { epoch } => match self.attempt(epoch).await {
                    Some(action) => action,
                    None => return,
                },
                Action::Reject(error) => {
                    if let Some(batch) = self.waiting.pop_front() {
                        self.gather.settle(batch, Err(error));
                    }
                    self.machine.step(Input::Woke)
                }
                Action::Wait { cause, at_least, fresh_connection } => {
                    let delay = self.backoff.after(&cause, at_least);
                    self.gather.set_interruption(Some(cause));
                    if fresh_connection {
                        self.channel = self.client.fresh_channel();
                    }
                    tokio::select! {
                        () = sleep(delay) => self.machine.step(Input::Woke),
                        () = self.closed() => return,
                    }
                }
                Action::Fail(error) => return self.fail(error),
                // Dealt with while the attempt lasts.
                Action::Rest | Action::Settle => return,
            };
        }
    }

    /// One attempt, to its end; `None` = closed, and nothing waits.
    async fn attempt(&mut self, epoch: u64) -> Option<Action> {
        // The opening and every batch under way fit: sending never waits.
        let (sender, receiver) = mpsc::channel(MAX_UNDER_WAY + 1);
        let open = pb::append_request::Open { producer_id: self.id.clone(), epoch };
        let _ = sender.try_send(Outgoing::open(open));
        let opening = open_stream(self.client.grpc(self.channel.clone()), receiver);
        let opening = tokio::select! {
            opening = timeout(self.options.ack_timeout, opening) => opening,
            () = self.closed() => return None,
        };
        let mut answers = match opening {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                let error = self.client.weigh(error);
                return Some(self.machine.step(Input::Failed(error)));
            }
            Err(_) => return Some(self.machine.step(Input::Silent)),
        };
        let mut heard = Instant::now();
        let mut is_open = false;
        loop {
            let found = self.gather.take(&mut self.waiting);
            if found.is_closing && self.waiting.is_empty() {
                drop(sender);
                let _ = timeout(CLOSE_PATIENCE, answers.message()).await;
                return None;
            }
            let was_waiting = self.machine.is_waiting();
            while let Some((at, seq)) = self.machine.send_next(self.waiting.len()) {
                let Some(batch) = self.waiting.get(at) else { break };
                // A stream that is over says why when it is read.
                let _ = sender.try_send(Outgoing::batch(seq, batch));
            }
            if !was_waiting && is_open {
                heard = Instant::now();
            }
            let is_due = self.machine.is_waiting() || !is_open;
            let silence = is_due.then(|| backoff::after(heard, self.options.ack_timeout));
            let came = tokio::select! {
                answer = answers.message() => Came::Answer(answer),
                () = self.gather.changed.notified() => continue,
                () = until(found.due) => continue,
                () = until(silence) => Came::Nothing,
            };
            heard = Instant::now();
            let action = match came {
                Came::Nothing => self.machine.step(Input::Silent),
                Came::Answer(Ok(None)) => self.machine.step(Input::Ended),
                Came::Answer(Err(status)) => {
                    let error = self.client.weigh(Error::from_status(status));
                    self.machine.step(Input::Failed(error))
                }
                Came::Answer(Ok(Some(answer))) => self.hear(answer.kind),
            };
            match action {
                Action::Rest => is_open = true,
                action => return Some(action),
            }
        }
    }

    /// Waits until the producer is closed and nothing waits.
    async fn closed(&self) {
        while !(self.waiting.is_empty() && self.gather.is_done()) {
            self.gather.changed.notified().await;
        }
    }

    /// What the server says; `Rest` = the attempt goes on.
    fn hear(&mut self, answer: Option<Answer>) -> Action {
        match answer {
            Some(Answer::Opened(opened)) => {
                let (epoch, last_seq) = (opened.epoch, opened.last_producer_seq);
                let action = self.machine.step(Input::Opened { epoch, last_seq });
                self.gather.set_interruption(None);
                if matches!(action, Action::Rest)
                    && let Some(told) = self.opened.take()
                {
                    // Nobody waits any more: the task is about to be ended.
                    let _ = told.send(Ok(Position::of(opened)));
                }
                action
            }
            Some(Answer::Acked(acked)) => {
                let action = self.machine.step(Input::Acked { seq: acked.producer_seq });
                if self.machine.take_progress() {
                    self.backoff.reset();
                }
                if !matches!(action, Action::Settle) {
                    return action;
                }
                if let Some(batch) = self.waiting.pop_front() {
                    self.gather.settle(batch, Ok(acked));
                }
                Action::Rest
            }
            // Of a later server.
            None => Action::Rest,
        }
    }

    /// Everyone who waits hears of it.
    fn fail(mut self, error: Error) {
        for (at, batch) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let own = error.duplicate();
            let own = match self.machine.may_be_stored(at) {
                true => own.maybe_applied(),
                false => own.of_read(),
            };
            self.gather.settle(batch, Err(own));
        }
        self.gather.fail(&error);
        if let Some(opened) = self.opened.take() {
            let _ = opened.send(Err(error));
        }
    }
}

/// What an attempt waits for.
enum Came {
    Answer(Result<Option<pb::AppendResponse>, Status>),
    Nothing,
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn open_stream(
    mut grpc: tonic::client::Grpc<Channel>,
    messages: mpsc::Receiver<Outgoing>,
) -> Result<Streaming<pb::AppendResponse>, Error> {
    calls::ready(&mut grpc).await?;
    let path = PathAndQuery::from_static(feed_service::APPEND.path);
    let request = Request::new(ReceiverStream::new(messages));
    let answer = grpc.streaming(request, path, Wire).await.map_err(Error::from_status)?;
    Ok(answer.into_inner())
}

/// An `AppendRequest` in two parts, so that a batch's events are not copied to get their number.
#[derive(Debug)]
struct Outgoing {
    head: Vec<u8>,
    body: Bytes,
}

const BATCH_TAG: u8 = 2 << 3 | 2;
const PRODUCER_SEQ_TAG: u8 = 1 << 3;

impl Outgoing {
    fn open(open: pb::append_request::Open) -> Outgoing {
        let kind = Some(pb::append_request::Kind::Open(open));
        Outgoing { head: pb::AppendRequest { kind }.encode_to_vec(), body: Bytes::new() }
    }

    fn batch(seq: u64, batch: &Batch) -> Outgoing {
        let len = 1 + varint_len(seq) + batch.body.len();
        let mut head = vec![BATCH_TAG];
        put_varint(&mut head, len as u64);
        head.push(PRODUCER_SEQ_TAG);
        put_varint(&mut head, seq);
        Outgoing { head, body: batch.body.clone() }
    }
}

/// [`Outgoing`] out, answers in.
#[derive(Clone, Copy, Debug, Default)]
struct Wire;

impl Codec for Wire {
    type Encode = Outgoing;
    type Decode = pb::AppendResponse;
    type Encoder = Wire;
    type Decoder = ProstDecoder<pb::AppendResponse>;

    fn encoder(&mut self) -> Wire {
        Wire
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for Wire {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.head.len() + item.body.len());
        dst.put_slice(&item.head);
        dst.put_slice(&item.body);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(64 << 10, 64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_in_two_parts_is_a_message() {
        let gather = Gather::new(ProducerOptions::default());
        let event = pb::Event { topic: "a".into(), ..pb::Event::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let expect = crate::Expect { topic: String::new(), seq: tailmark_record::Seq::FIRST };
        let _ = runtime
            .block_on(gather.push_batch(std::slice::from_ref(&event), Some(&expect)))
            .unwrap();
        let mut waiting = VecDeque::new();
        gather.take(&mut waiting);
        let outgoing = Outgoing::batch(300, &waiting[0]);
        let bytes = [&outgoing.head[..], &outgoing.body[..]].concat();
        let expected = pb::append_request::Batch {
            producer_seq: 300,
            events: vec![event],
            expected_head: Some(pb::ExpectedHead { topic: String::new(), seq: 1 }),
        };
        let kind = pb::AppendRequest::decode(&bytes[..]).unwrap().kind;
        assert_eq!(kind, Some(pb::append_request::Kind::Batch(expected)));
    }
}
