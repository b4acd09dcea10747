//! Zstandard by its C library (RFC 8878).

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use super::{Problem, Unwritten};

/// Largest window that a decoder holds, as a power of two: what RFC 9659 lets bodies want.
const DECODER_WINDOW_LOG: u32 = 23;
/// That of an encoder. What it takes in all grows with it.
const ENCODER_WINDOW_LOG: u32 = 16;
const LEVEL: i32 = 1;
/// Of those that take no more memory than others.
const BEST: i32 = 19;
/// Room for output is made in steps of at least so much.
const STEP_BYTES: usize = 1 << 10;

/// What is made once and sent often, as small as it gets.
pub(crate) fn in_zstd(content: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::compress(content, BEST).ok()
}

/// Frames one after the other.
#[derive(Default)]
pub(crate) struct Unzstd {
    /// Made when something comes.
    decoder: Option<Decoder<'static>>,
    has_begun: bool,
    /// Inside of a frame, or not all of it is out.
    is_open: bool,
    /// There was no room for all that could be made.
    has_more: bool,
    frames: u32,
}

impl Unzstd {
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Problem> {
        // The library takes calls that can come to nothing for an error, the sixteenth in a row.
        if input.is_empty() && !(self.is_open && self.has_more) {
            return Ok((0, 0));
        }
        let room = out.len();
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => {
                let mut decoder = Decoder::new().map_err(|_| Problem::Zstd)?;
                let window = DParameter::WindowLogMax(DECODER_WINDOW_LOG);
                decoder.set_parameter(window).map_err(|_| Problem::Zstd)?;
                none.insert(decoder)
            }
        };
        let (mut input, mut output) = (InBuffer::around(input), OutBuffer::around(out));
        let hint = decoder.run(&mut input, &mut output).map_err(|_| Problem::Zstd)?;
        let done = (input.pos(), output.pos());
        self.has_more = done.1 == room;
        if done != (0, 0) {
            self.frames += u32::from(!self.is_open);
            self.has_begun = true;
            // Nothing where a frame is over and out.
            self.is_open = hint != 0;
        }
        Ok(done)
    }

    pub(super) fn is_between(&self) -> bool {
        self.has_begun && !self.is_open
    }

    /// Frames that have begun.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }
}

/// Writes frames into memory.
#[derive(Default)]
pub(crate) struct Zstd {
    encoder: Option<Encoder<'static>>,
}

impl Zstd {
    fn encoder(&mut self) -> Result<&mut Encoder<'static>, Unwritten> {
        match &mut self.encoder {
            Some(encoder) => Ok(encoder),
            none => {
                let mut encoder = Encoder::new(LEVEL).map_err(|_| Unwritten)?;
                let window = CParameter::WindowLog(ENCODER_WINDOW_LOG);
                encoder.set_parameter(window).map_err(|_| Unwritten)?;
                Ok(none.insert(encoder))
            }
        }
    }

    pub(super) fn write(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritten> {
        let encoder = self.encoder()?;
        let mut input = InBuffer::around(raw);
        while input.pos() < raw.len() {
            out.reserve((raw.len() / 4).max(STEP_BYTES));
            let at = out.len();
            let mut output = OutBuffer::around_pos(out, at);
            encoder.run(&mut input, &mut output).map_err(|_| Unwritten)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Unwritten> {
        let encoder = self.encoder()?;
        loop {
            out.reserve(STEP_BYTES);
            let at = out.len();
            let mut output = OutBuffer::around_pos(out, at);
            if encoder.flush(&mut output).map_err(|_| Unwritten)? == 0 {
                return Ok(());
            }
        }
    }

    /// Ends the frame. What is written next begins another.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Unwritten> {
        let encoder = self.encoder()?;
        loop {
            out.reserve(STEP_BYTES);
            let at = out.len();
            let mut output = OutBuffer::around_pos(out, at);
            if encoder.finish(&mut output, true).map_err(|_| Unwritten)? == 0 {
                break;
            }
        }
        encoder.reinit().map_err(|_| Unwritten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::coding::{ENCODER_BYTES, ZSTD_DECODER_BYTES};

    fn varied(size: usize) -> Vec<u8> {
        (0..size).map(|at| ((at * at) >> 7).to_le_bytes()[0]).collect()
    }

    /// What is made of these pieces; and whether it may end there.
    fn unzstd(pieces: &[&[u8]], room: usize) -> Result<(Vec<u8>, bool), Problem> {
        let (mut unzstd, mut all) = (Unzstd::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let mut out = vec![0; room];
                let (taken, made) = unzstd.step(rest, &mut out)?;
                rest = &rest[taken..];
                all.extend_from_slice(&out[..made]);
                if (taken, made) == (0, 0) {
                    break;
                }
            }
            assert!(rest.is_empty(), "nothing is left behind");
        }
        let is_between = unzstd.is_between();
        Ok((all, is_between))
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let (mut zstd, mut all, mut raw) = (Zstd::default(), Vec::new(), Vec::new());
        for size in [0, 1, 1_000, 70_000, 3, 300_000] {
            let one = varied(size);
            for piece in one.chunks(10_000) {
                zstd.write(piece, &mut all).unwrap();
            }
            zstd.finish(&mut all).unwrap();
            raw.extend_from_slice(&one);
        }
        for size in [1, 7, 1_000, all.len()] {
            for room in [1, 100, 16 << 10] {
                let pieces: Vec<_> = all.chunks(size).collect();
                assert!(unzstd(&pieces, room) == Ok((raw.clone(), true)), "{size}, {room}");
            }
        }
        for len in [0, 1, all.len() - 1] {
            assert!(!unzstd(&[&all[..len]], 1_000).unwrap().1, "{len}");
        }
        assert_eq!(unzstd(&[b"nothing of it"], 100), Err(Problem::Zstd));
    }

    #[test]
    fn what_is_flushed_can_be_read_at_once() {
        let (mut zstd, mut out, mut unzstd) = (Zstd::default(), Vec::new(), Unzstd::default());
        for size in [1, 100, 40_000, 1 << 20] {
            let raw = varied(size);
            zstd.write(&raw, &mut out).unwrap();
            zstd.flush(&mut out).unwrap();
            let (coded, mut made) = (std::mem::take(&mut out), Vec::new());
            let mut rest = &coded[..];
            loop {
                let mut piece = vec![0; 4_096];
                let (taken, some) = unzstd.step(rest, &mut piece).unwrap();
                rest = &rest[taken..];
                made.extend_from_slice(&piece[..some]);
                if (taken, some) == (0, 0) {
                    break;
                }
            }
            assert!(made == raw, "{size}");
            // Nothing comes for a while, and is asked for again and again.
            for _ in 0..100 {
                assert_eq!(unzstd.step(&[], &mut [0; 100]), Ok((0, 0)));
            }
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_refused_and_others_take_what_is_counted() {
        let coded = |window: u32| {
            let mut encoder = Encoder::new(1).unwrap();
            encoder.set_parameter(CParameter::WindowLog(window)).unwrap();
            let mut out = Vec::with_capacity(1 << 20);
            let raw = varied(100_000);
            let mut input = InBuffer::around(&raw);
            encoder.run(&mut input, &mut OutBuffer::around(&mut out)).unwrap();
            let at = out.len();
            encoder.finish(&mut OutBuffer::around_pos(&mut out, at), true).unwrap();
            out
        };
        assert!(unzstd(&[&coded(23)], 1_000).is_ok());
        assert_eq!(unzstd(&[&coded(24)], 1_000), Err(Problem::Zstd));

        let mut context = zstd::zstd_safe::DCtx::create();
        context.set_parameter(DParameter::WindowLogMax(DECODER_WINDOW_LOG)).unwrap();
        let (bytes, mut out) = (coded(23), vec![0; 10]);
        let mut output = OutBuffer::around(&mut out[..]);
        context.decompress_stream(&mut output, &mut InBuffer::around(&bytes)).unwrap();
        assert!((8 << 20..ZSTD_DECODER_BYTES).contains(&context.sizeof()), "{}", context.sizeof());

        let mut context = zstd::zstd_safe::CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(LEVEL)).unwrap();
        context.set_parameter(CParameter::WindowLog(ENCODER_WINDOW_LOG)).unwrap();
        let (raw, mut out) = (varied(1 << 20), Vec::with_capacity(2 << 20));
        let mut output = OutBuffer::around(&mut out);
        context.compress_stream(&mut output, &mut InBuffer::around(&raw)).unwrap();
        assert!(context.sizeof() < ENCODER_BYTES, "{}", context.sizeof());
    }
}
