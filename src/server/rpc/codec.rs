//! Message codecs: stored events go out as their bytes, uploads come in as theirs, everything else
//! passes through prost. Streamed answers are padded so that no DATA frame is small.

use std::cell::Cell;
use std::convert::Infallible;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstEncoder;

use crate::server::rpc::frames::{self, FRAME_BYTES, PREFIX_BYTES, YIELD_BYTES};
use crate::server::rpc::status;

/// An encoded message.
#[derive(Clone, Debug)]
pub(crate) struct Encoded(pub Bytes);

/// First buffer of one answer.
const FIRST_BUFFER_BYTES: usize = 2 << 10;

/// Requests through prost; what is answered is none of its business (`watch/body.rs`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<T>(std::marker::PhantomData<T>);

impl<T> Default for Watch<T> {
    fn default() -> Self {
        Watch(std::marker::PhantomData)
    }
}

impl<T: Message + Default + 'static> Codec for Watch<T> {
    type Encode = Infallible;
    type Decode = T;
    type Encoder = NoEncoder;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> NoEncoder {
        NoEncoder
    }

    fn decoder(&mut self) -> ProstDecoder<T> {
        ProstDecoder::default()
    }
}

/// Requests through prost, one answer as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<T>(std::marker::PhantomData<T>);

impl<T> Default for Stored<T> {
    fn default() -> Self {
        Stored(std::marker::PhantomData)
    }
}

impl<T: Message + Default + 'static> Codec for Stored<T> {
    type Encode = Encoded;
    type Decode = T;
    type Encoder = CopyEncoder;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> CopyEncoder {
        CopyEncoder
    }

    fn decoder(&mut self) -> ProstDecoder<T> {
        ProstDecoder::default()
    }
}

/// Encodes nothing, and takes no buffer for it.
#[derive(Debug)]
pub(crate) struct NoEncoder;

impl Encoder for NoEncoder {
    type Item = Infallible;
    type Error = Status;

    fn encode(&mut self, item: Infallible, _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {}
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(0, YIELD_BYTES)
    }
}

/// Copies an encoded message.
#[derive(Debug)]
pub(crate) struct CopyEncoder;

impl Encoder for CopyEncoder {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, item: Encoded, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item.0);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(FIRST_BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Requests as they are, answers through prost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upload<T>(std::marker::PhantomData<T>);

impl<T> Default for Upload<T> {
    fn default() -> Self {
        Upload(std::marker::PhantomData)
    }
}

impl<T: Message + 'static> Codec for Upload<T> {
    type Encode = T;
    type Decode = Bytes;
    type Encoder = ProstEncoder<T>;
    type Decoder = TakeDecoder;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> TakeDecoder {
        TakeDecoder
    }
}

/// Requests as they are, a stream of answers through prost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<T>(std::marker::PhantomData<T>);

impl<T> Default for Taken<T> {
    fn default() -> Self {
        Taken(std::marker::PhantomData)
    }
}

impl<T: Message + 'static> Codec for Taken<T> {
    type Encode = T;
    type Decode = Bytes;
    type Encoder = Filled<ProstEncoder<T>>;
    type Decoder = TakeDecoder;

    fn encoder(&mut self) -> Filled<ProstEncoder<T>> {
        Filled::new(ProstEncoder::default())
    }

    fn decoder(&mut self) -> TakeDecoder {
        TakeDecoder
    }
}

/// Hands over the bytes of each message.
#[derive(Debug)]
pub(crate) struct TakeDecoder;

impl Decoder for TakeDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        if let Some(message) = handed(buffer) {
            return Ok(Some(message));
        }
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }

    /// A stream that says nothing takes nothing.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(0, YIELD_BYTES)
    }
}

/// Both ways through prost, with a stream of answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streamed<T, U>(std::marker::PhantomData<(T, U)>);

impl<T, U> Default for Streamed<T, U> {
    fn default() -> Self {
        Streamed(std::marker::PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for Streamed<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Filled<ProstEncoder<T>>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Filled<ProstEncoder<T>> {
        Filled::new(ProstEncoder::default())
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::default()
    }
}

/// Both ways through prost, one answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prost<T, U>(std::marker::PhantomData<(T, U)>);

impl<T, U> Default for Prost<T, U> {
    fn default() -> Self {
        Prost(std::marker::PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for Prost<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::default()
    }
}

/// tonic-prost's answers INTERNAL to bytes that are no message, but those are the client's fault.
#[derive(Debug)]
pub(crate) struct ProstDecoder<T>(std::marker::PhantomData<T>);

impl<T> Default for ProstDecoder<T> {
    fn default() -> Self {
        ProstDecoder(std::marker::PhantomData)
    }
}

impl<T: Message + Default> Decoder for ProstDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let message = match handed(buffer) {
            Some(message) => T::decode(message),
            None => T::decode(buffer),
        };
        message.map(Some).map_err(|error| status::malformed_message(&error).into())
    }

    /// A call that says nothing takes nothing.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(0, YIELD_BYTES)
    }
}

thread_local! {
    /// A message on its way past tonic's buffer, from a body to the decoder that has asked it.
    static HANDED: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// Hands a whole message to the decoder of this file that polls the body which calls this: it takes it in
/// place of an empty message, which is what the body has to answer now. tonic would gather a long
/// message in a buffer that it keeps for as long as the stream is open; and nobody could tell how
/// long it has it. Sound, because tonic decodes a message in the same call that gave it the last byte.
pub(crate) fn hand_over(message: Bytes) -> Bytes {
    HANDED.set(Some(message));
    Bytes::from_static(&[0; PREFIX_BYTES])
}

/// As a decoder takes it.
#[cfg(test)]
pub(crate) fn handed_in_test() -> Option<Bytes> {
    HANDED.take()
}

fn handed(buffer: &DecodeBuf<'_>) -> Option<Bytes> {
    if buffer.has_remaining() { None } else { HANDED.take() }
}

/// Makes the first message of each buffer so large that the buffer is no small frame, by bytes in
/// a field that every receiver passes over. What is ready together goes into one buffer, so only
/// what comes alone, or leads others, is filled.
#[derive(Debug)]
pub(crate) struct Filled<E> {
    inner: E,
    /// What a buffer has room for that holds a prefix and nothing else.
    room: Option<usize>,
}

impl<E> Filled<E> {
    fn new(inner: E) -> Self {
        Filled { inner, room: None }
    }
}

impl<E: Encoder<Error = Status>> Encoder for Filled<E> {
    type Item = E::Item;
    type Error = Status;

    fn encode(&mut self, item: E::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // The buffer itself does not tell how much it holds. The first one of a stream holds the
        // first message's prefix, and what goes in takes from the room that is left.
        let room = *self.room.get_or_insert(buffer.remaining_mut());
        self.inner.encode(item, buffer)?;
        let held = PREFIX_BYTES + room.saturating_sub(buffer.remaining_mut());
        if held < FRAME_BYTES {
            frames::fill(FRAME_BYTES - held, buffer);
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.inner.buffer_settings()
    }
}

#[cfg(test)]
mod tests;
