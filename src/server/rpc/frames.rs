//! gRPC framing for messages that are encoded already: a length prefix before each, and padding so
//! that no DATA frame is small. All it knows of the messages is that each has the padding field.

use bytes::{BufMut, Bytes};

/// What gRPC puts before a message.
pub(crate) const PREFIX_BYTES: usize = 5;
/// Payload of a DATA frame that costs its receiver nothing but window. h2 (0.4.16 and later) books
/// the difference of a smaller one, until it is read, on a budget of the connection, and ends the
/// connection with all its streams when that is used up. docs/decisions/0004.
pub(crate) const FRAME_BYTES: usize = 256;
/// Tag of the field that every message we stream reserves for filler: number 2047, bytes.
const FILLER_TAG: [u8; 2] = [0xfa, 0x7f];
/// A stream waits until this much is ready before it hands a buffer to HTTP/2, unless nothing more
/// is ready now.
pub(crate) const YIELD_BYTES: usize = 64 << 10;

/// Adds a message.
pub(crate) fn push(frames: &mut Vec<u8>, message: &[u8]) {
    frames.extend_from_slice(&prefix(message.len()));
    frames.extend_from_slice(message);
}

#[expect(clippy::cast_possible_truncation, reason = "what is stored, or a batch of it: a few MiB")]
fn prefix(len: usize) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = (len as u32).to_be_bytes();
    [0, a, b, c, d]
}

/// Adds the prefix of a message that is compressed and not there yet; for [`close`].
pub(crate) fn open(frames: &mut Vec<u8>) -> usize {
    frames.extend_from_slice(&[0; PREFIX_BYTES]);
    frames.len()
}

/// Says how long the compressed message is that begins there and ends here.
pub(crate) fn close(frames: &mut [u8], at: usize) {
    let mut prefix = prefix(frames.len() - at);
    prefix[0] = COMPRESSED;
    frames[at - PREFIX_BYTES..at].copy_from_slice(&prefix);
}

/// The flag of a message that is compressed.
pub(crate) const COMPRESSED: u8 = 1;

/// Length of the first message, with its prefix; `None` where it is not whole.
pub(crate) fn first(frames: &[u8]) -> Option<usize> {
    let [_, a, b, c, d] = *frames.first_chunk::<PREFIX_BYTES>()?;
    let len = PREFIX_BYTES + u32::from_be_bytes([a, b, c, d]) as usize;
    (frames.len() >= len).then_some(len)
}

/// Without much more room than it takes.
pub(crate) fn finished(mut frames: Vec<u8>) -> Bytes {
    if frames.capacity() - frames.len() > frames.len() / 4 {
        frames.shrink_to_fit();
    }
    frames.into()
}

/// Makes of whole messages a payload that is not small: the last one is filled up.
pub(crate) fn fill_up(frames: &mut Vec<u8>) {
    if frames.is_empty() || frames.len() >= FRAME_BYTES {
        return;
    }
    let last = last_message(frames);
    fill(FRAME_BYTES - frames.len(), frames);
    let filled = prefix(frames.len() - last - PREFIX_BYTES);
    frames[last..last + PREFIX_BYTES].copy_from_slice(&filled);
}

/// Where the last message begins, with its prefix.
fn last_message(frames: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&[_, a, b, c, d]) = frames[at..].first_chunk() {
        let next = at + PREFIX_BYTES + u32::from_be_bytes([a, b, c, d]) as usize;
        if next >= frames.len() {
            break;
        }
        at = next;
    }
    at
}

/// Adds a field of at least so many bytes in all, at most three more.
pub(crate) fn fill(bytes: usize, buffer: &mut impl BufMut) {
    // The tag, and a length of one byte or two.
    let len = bytes.saturating_sub(FILLER_TAG.len() + 1);
    buffer.put_slice(&FILLER_TAG);
    prost::encoding::encode_varint(len as u64, buffer);
    buffer.put_bytes(0, len);
}

/// The same, of bytes that no compressor makes shorter: each comes once.
pub(crate) fn fill_for_good(buffer: &mut impl BufMut) {
    const OTHERS: [u8; FRAME_BYTES] = {
        let mut bytes = [0_u8; FRAME_BYTES];
        let mut at = 1;
        while at < FRAME_BYTES {
            bytes[at] = bytes[at - 1].wrapping_mul(5).wrapping_add(113);
            at += 1;
        }
        bytes
    };
    buffer.put_slice(&FILLER_TAG);
    prost::encoding::encode_varint(FRAME_BYTES as u64, buffer);
    buffer.put_slice(&OTHERS);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use tailmark_wire::feed_v1 as pb;

    fn event(body_bytes: usize) -> pb::Event {
        pb::Event { body: "x".repeat(body_bytes), seq: 7, ..Default::default() }
    }

    fn messages(mut frames: &[u8]) -> Vec<pb::Event> {
        let mut messages = Vec::new();
        while let Some((&[flag, a, b, c, d], rest)) = frames.split_first_chunk() {
            assert_eq!(flag, 0);
            let (message, rest) = rest.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
            messages.push(pb::Event::decode(message).unwrap());
            frames = rest;
        }
        assert!(frames.is_empty());
        messages
    }

    #[test]
    fn no_payload_is_small_and_no_message_changes_its_meaning() {
        for count in 1..4 {
            for body_bytes in 0..300 {
                let sent = vec![event(body_bytes); count];
                let mut frames = Vec::new();
                sent.iter().for_each(|event| push(&mut frames, &event.encode_to_vec()));
                let plain = frames.len();
                fill_up(&mut frames);
                // A field takes three bytes at least.
                let most = if plain < FRAME_BYTES { FRAME_BYTES + 3 } else { plain };
                assert!((FRAME_BYTES..=most).contains(&frames.len()), "{body_bytes}");
                assert_eq!(messages(&frames), sent);
            }
        }
        let mut nothing = Vec::new();
        fill_up(&mut nothing);
        assert!(nothing.is_empty());
    }
}
