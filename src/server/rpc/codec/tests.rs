use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use http_body_util::BodyExt;
use tonic::codec::EncodeBody;

use super::*;
use tailmark_wire::feed_v1 as pb;

/// What a stream answers; `None`: nothing more is ready.
struct Answers<T>(VecDeque<Option<T>>);

impl<T: Unpin> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.pop_front() {
            Some(Some(answer)) => Poll::Ready(Some(Ok(answer))),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }
}

/// What goes to HTTP/2, buffer by buffer.
async fn buffers<E>(encoder: E, answers: Vec<Option<E::Item>>) -> Vec<Bytes>
where
    E: Encoder<Error = Status>,
    E::Item: Unpin,
{
    let answers = Answers(answers.into());
    let body = EncodeBody::new_server(encoder, answers, None, Default::default(), None);
    let mut body = std::pin::pin!(body);
    let mut buffers = Vec::new();
    while let Some(frame) = body.frame().await {
        buffers.extend(frame.unwrap().into_data());
    }
    buffers
}

fn event(body_bytes: usize) -> pb::Event {
    pb::Event { body: "x".repeat(body_bytes), seq: 7, ..Default::default() }
}

fn encoded(body_bytes: usize) -> Encoded {
    Encoded(event(body_bytes).encode_to_vec().into())
}

/// The messages of a buffer.
fn messages(mut buffer: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !buffer.is_empty() {
        assert_eq!(buffer.get_u8(), 0);
        let len = buffer.get_u32() as usize;
        messages.push(buffer.split_to(len));
    }
    messages
}

#[tokio::test]
async fn no_buffer_is_small_and_no_message_changes_its_meaning() {
    for body_bytes in 0..300 {
        let alone = vec![Some(event(body_bytes)), None, Some(event(body_bytes))];
        let buffers = buffers(Filled::new(ProstEncoder::default()), alone).await;
        assert_eq!(buffers.len(), 2);
        for buffer in buffers {
            let plain = PREFIX_BYTES + encoded(body_bytes).0.len();
            // A field takes three bytes at least.
            let most = if plain < FRAME_BYTES { FRAME_BYTES + 3 } else { plain };
            assert!((FRAME_BYTES..=most).contains(&buffer.len()), "{body_bytes}: {}", buffer.len());
            let [message] = &messages(buffer)[..] else { panic!("one message") };
            assert_eq!(pb::Event::decode(message.clone()).unwrap(), event(body_bytes));
            assert_eq!(tailmark_record::Event::parse(message).unwrap().body.len(), body_bytes);
        }
    }
}

#[tokio::test]
async fn only_the_first_message_of_a_buffer_is_filled() {
    let several = |count| (0..count).map(|_| Some(event(10)));
    let answers = several(3).chain([None]).chain(several(20_000)).chain([None]).chain(several(2));
    let buffers = buffers(Filled::new(ProstEncoder::default()), answers.collect()).await;
    assert!(buffers.len() > 4, "the second group is more than one buffer");
    assert!(buffers[1].len() >= 32 << 10);
    let mut count = 0;
    for buffer in buffers {
        for (at, message) in messages(buffer).into_iter().enumerate() {
            assert_eq!(message.len() > encoded(10).0.len(), at == 0);
            count += 1;
        }
    }
    assert_eq!(count, 20_005);
}

#[tokio::test]
async fn one_answer_is_left_as_it_is() {
    let stored = buffers(CopyEncoder, vec![Some(encoded(10))]).await;
    assert_eq!(messages(stored[0].clone()), [encoded(10).0]);
}
