//! A streaming decoder for gRPC-Web's text format: base64 in pieces, each of which may be padded.
//!
//! A client encodes whenever it has some bytes, so padding may stand between any two groups of four
//! characters, and the network may cut anywhere. This decoder works group by group, so a cut
//! changes nothing. tonic-web decodes each cut as one piece.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body::{Body, Frame};

const GROUP: usize = 4;

/// Text that is no base64, or a body that broke off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// A body of text, decoded.
#[derive(Debug)]
pub(crate) struct Decoded<B> {
    inner: B,
    decoder: Decoder,
}

impl<B> Decoded<B> {
    pub(crate) fn new(inner: B) -> Self {
        Decoded { inner, decoder: Decoder::default() }
    }
}

impl<B> Body for Decoded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    type Data = Bytes;
    type Error = Malformed;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Malformed>>> {
        let this = self.get_mut();
        loop {
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(Malformed(error.to_string())))),
                None => return Poll::Ready(this.decoder.end().err().map(Err)),
            };
            // gRPC-Web has no trailers in a request.
            let Ok(text) = frame.into_data() else { continue };
            match this.decoder.decode(&text) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.end().is_ok() && self.inner.is_end_stream()
    }
}

/// What is between two cuts.
#[derive(Debug, Default)]
struct Decoder {
    /// The group that has begun.
    group: [u8; GROUP],
    filled: usize,
}

impl Decoder {
    /// All groups that are whole by now.
    fn decode(&mut self, mut text: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity((self.filled + text.len()) / GROUP * 3);
        if self.filled > 0 {
            let (begin, rest) = text.split_at(text.len().min(GROUP - self.filled));
            self.group[self.filled..self.filled + begin.len()].copy_from_slice(begin);
            self.filled += begin.len();
            text = rest;
            if self.filled < GROUP {
                return Ok(out);
            }
            self.filled = 0;
            push(&self.group, &mut out)?;
        }
        let (mut groups, rest) = text.split_at(text.len() / GROUP * GROUP);
        while let Some(padding) = groups.iter().position(|&c| c == b'=') {
            let end = (padding / GROUP + 1) * GROUP;
            let (plain, padded) = groups[..end].split_at(end - GROUP);
            push(plain, &mut out)?;
            push(padded, &mut out)?;
            groups = &groups[end..];
        }
        push(groups, &mut out)?;
        self.group[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
        Ok(out)
    }

    /// Whether the text may end here.
    fn end(&self) -> Result<(), Malformed> {
        if self.filled == 0 {
            return Ok(());
        }
        Err(Malformed("the text ends within a group of four characters".to_owned()))
    }
}

fn push(groups: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    STANDARD.decode_vec(groups, out).map_err(|error| Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All of it, or that it is malformed, when it comes in these pieces.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, ()> {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(decoder.decode(piece).map_err(drop)?);
        }
        decoder.end().map_err(drop)?;
        Ok(out)
    }

    /// The same however it is cut.
    fn however(text: &[u8]) -> Result<Vec<u8>, ()> {
        let whole = decode([text]);
        for at in 0..=text.len() {
            let (begin, end) = text.split_at(at);
            assert_eq!(decode([begin, end]), whole, "{:?} at {at}", text.escape_ascii());
        }
        for size in 1..8 {
            assert_eq!(decode(text.chunks(size)), whole, "{:?} by {size}", text.escape_ascii());
        }
        whole
    }

    #[test]
    fn pieces_are_padded_each_by_itself_wherever_they_are_cut() {
        let message: Vec<u8> = (0..40).collect();
        for size in 1..=message.len() {
            let text: String = message.chunks(size).map(|part| STANDARD.encode(part)).collect();
            assert_eq!(however(text.as_bytes()).as_ref(), Ok(&message), "pieces of {size}");
        }
        assert_eq!(however(b""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_base64_is_none_wherever_it_is_cut() {
        for bad in [
            "A",
            "AA",
            "AAA",
            "AAAAA",
            "AA=",
            "AA==A",
            "AAAA=AAA",
            "=",
            "====",
            "A===",
            "AA=A",
            "not base64!",
            "AAAA AAAA",
            "AAAA\n",
            "AA-_",
            "AB==",
        ] {
            assert_eq!(however(bad.as_bytes()), Err(()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_pieces_in_any_cuts_are_the_message(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8),
            sizes in prop::collection::vec(1usize..12, 1..40),
        ) {
            let text: String = pieces.iter().map(|piece| STANDARD.encode(piece)).collect();
            let mut rest = text.as_bytes();
            let mut cuts = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (begin, end) = rest.split_at(rest.len().min(*size));
                cuts.push(begin);
                rest = end;
            }
            prop_assert_eq!(decode(cuts), Ok(pieces.concat()));
        }
    }
}
