//! How messages cross the wire: stored events as the bytes they are, uploads as the bytes they
//! came in, everything else through prost.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstEncoder;

use super::status;

/// An encoded message.
#[derive(Clone, Debug)]
pub struct Encoded(pub Bytes);

/// A stream waits until this much is ready before it hands a buffer to HTTP/2, unless nothing more
/// is ready now.
const YIELD_BYTES: usize = 64 << 10;
/// First buffer of a stream; most watches are idle.
const FIRST_BUFFER_BYTES: usize = 2 << 10;

/// Requests through prost, answers as they are.
#[derive(Clone, Copy, Debug)]
pub struct Watch<T>(std::marker::PhantomData<T>);

impl<T> Default for Watch<T> {
    fn default() -> Self {
        Watch(std::marker::PhantomData)
    }
}

impl<T: Message + Default + 'static> Codec for Watch<T> {
    type Encode = Encoded;
    type Decode = T;
    type Encoder = CopyEncoder;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> CopyEncoder {
        CopyEncoder { grow_bytes: FIRST_BUFFER_BYTES }
    }

    fn decoder(&mut self) -> ProstDecoder<T> {
        ProstDecoder::default()
    }
}

/// Copies encoded messages.
#[derive(Debug)]
pub struct CopyEncoder {
    grow_bytes: usize,
}

impl Encoder for CopyEncoder {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, item: Encoded, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        if buffer.chunk_mut().len() < item.0.len() {
            // Each buffer is given away when it is full. A busy stream gets larger and larger
            // ones, an idle one never takes more than its first.
            buffer.reserve(item.0.len().max(self.grow_bytes));
            self.grow_bytes = (self.grow_bytes * 2).min(YIELD_BYTES + (YIELD_BYTES >> 3));
        }
        buffer.put_slice(&item.0);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(FIRST_BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Requests as they are, answers through prost.
#[derive(Clone, Copy, Debug)]
pub struct Upload<T>(std::marker::PhantomData<T>);

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

/// Hands over the bytes of each message.
#[derive(Debug)]
pub struct TakeDecoder;

impl Decoder for TakeDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(YIELD_BYTES, YIELD_BYTES)
    }
}

/// Both ways through prost.
#[derive(Clone, Copy, Debug)]
pub struct Prost<T, U>(std::marker::PhantomData<(T, U)>);

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
pub struct ProstDecoder<T>(std::marker::PhantomData<T>);

impl<T> Default for ProstDecoder<T> {
    fn default() -> Self {
        ProstDecoder(std::marker::PhantomData)
    }
}

impl<T: Message + Default> Decoder for ProstDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(buffer).map(Some).map_err(|error| status::malformed_message(&error).into())
    }
}
