//! Gzip written into memory (RFC 1952), around the compressor of `flate2`: unlike its writers this one is
//! used again, and its state is what costs.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::Unwritten;

/// A head that says nothing: no name, no time, the fastest level, no system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];
/// Room for output is made in steps of at least so much.
const STEP_BYTES: usize = 1 << 10;

pub(crate) struct Gzip {
    deflate: Compress,
    crc: Crc,
    /// The head of the member is out.
    is_begun: bool,
}

impl Default for Gzip {
    fn default() -> Self {
        let deflate = Compress::new(Compression::fast(), false);
        Gzip { deflate, crc: Crc::new(), is_begun: false }
    }
}

impl Gzip {
    pub(super) fn write(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritten> {
        self.crc.update(raw);
        self.run(raw, FlushCompress::None, out)
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Unwritten> {
        self.run(&[], FlushCompress::Sync, out)
    }

    /// Ends the member. What is written next begins another.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Unwritten> {
        self.run(&[], FlushCompress::Finish, out)?;
        out.extend_from_slice(&self.crc.sum().to_le_bytes());
        out.extend_from_slice(&self.crc.amount().to_le_bytes());
        self.deflate.reset();
        self.crc.reset();
        self.is_begun = false;
        Ok(())
    }

    fn run(
        &mut self,
        mut raw: &[u8],
        flush: FlushCompress,
        out: &mut Vec<u8>,
    ) -> Result<(), Unwritten> {
        if !std::mem::replace(&mut self.is_begun, true) {
            out.extend_from_slice(&HEAD);
        }
        let is_end = matches!(flush, FlushCompress::Finish);
        while is_end || !raw.is_empty() || matches!(flush, FlushCompress::Sync) {
            out.reserve((raw.len() / 4).max(STEP_BYTES));
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(raw, out, flush).map_err(|_| Unwritten)?;
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(raw.len());
            raw = &raw[taken.min(raw.len())..];
            let is_over = match is_end {
                true => status == Status::StreamEnd,
                // Where room is left, nothing waits for it.
                false => raw.is_empty() && out.len() < out.capacity(),
            };
            if is_over {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::MultiGzDecoder;

    use super::*;

    fn unzip(zipped: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        MultiGzDecoder::new(zipped).read_to_end(&mut raw).unwrap();
        raw
    }

    #[test]
    fn one_encoder_writes_member_after_member() {
        let (mut gzip, mut all, mut zipped) = (Gzip::default(), Vec::new(), Vec::new());
        for size in [0_usize, 1, 1_000, 1_024, 70_000, 3, 300_000] {
            let raw: Vec<u8> = (0..size).map(|at| ((at * at) >> 7).to_le_bytes()[0]).collect();
            let mut out = Vec::new();
            for piece in raw.chunks(10_000) {
                gzip.write(piece, &mut out).unwrap();
            }
            gzip.finish(&mut out).unwrap();
            assert!(unzip(&out) == raw, "{size}");
            all.extend_from_slice(&raw);
            zipped.extend_from_slice(&out);
        }
        assert!(unzip(&zipped) == all);
    }

    #[test]
    fn what_is_flushed_can_be_read_at_once() {
        let (mut gzip, mut out) = (Gzip::default(), Vec::new());
        let mut gunzip = super::super::gunzip::Gunzip::default();
        for size in [1, 100, 1_010, 40_000, 1 << 20] {
            let raw: Vec<u8> =
                (0..size).map(|at: usize| ((at * 7) >> 3).to_le_bytes()[0]).collect();
            gzip.write(&raw, &mut out).unwrap();
            gzip.flush(&mut out).unwrap();
            let (coded, mut made) = (std::mem::take(&mut out), Vec::new());
            let mut rest = &coded[..];
            loop {
                let mut piece = vec![0; 4_096];
                let (taken, some) = gunzip.step(rest, &mut piece).unwrap();
                rest = &rest[taken..];
                made.extend_from_slice(&piece[..some]);
                if (taken, some) == (0, 0) {
                    break;
                }
            }
            assert!(made == raw, "{size}");
        }
    }
}
