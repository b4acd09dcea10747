//! Gzip taken apart as it comes (RFC 1952), around the decompressor of `flate2`.
//!
//! The readers of `flate2` ask for more before they give out what they have, and what a client has sent
//! and flushed would wait for what it sends next.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::Problem;

/// Section 2.3.1 of RFC 1952.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const HEAD_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;
const FIXED_BYTES: usize = 10;
/// Longest head that is taken: nobody has use for its names.
const MOST_HEAD_BYTES: usize = 4 << 10;
const TAIL_BYTES: usize = 8;

/// Members one after the other.
pub(crate) struct Gunzip {
    part: Part,
    inflate: Decompress,
    crc: Crc,
    members: u32,
}

enum Part {
    /// What came of the head of a member; nothing before the first.
    Head(Vec<u8>),
    Body,
    Tail(Vec<u8>),
    /// A member has ended.
    Between,
}

impl Default for Gunzip {
    fn default() -> Self {
        let part = Part::Head(Vec::new());
        Gunzip { part, inflate: Decompress::new(false), crc: Crc::new(), members: 0 }
    }
}

impl Gunzip {
    /// Whether it may end here.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.part, Part::Between)
    }

    /// Members that have begun.
    pub(super) fn members(&self) -> u32 {
        self.members
    }

    /// Takes some of the input and makes some output: how much of each. Neither: more has to come.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Problem> {
        match &mut self.part {
            Part::Between if input.is_empty() => Ok((0, 0)),
            Part::Between => {
                self.part = Part::Head(Vec::new());
                self.step(input, out)
            }
            Part::Head(head) => {
                let before = head.len();
                let room = (MOST_HEAD_BYTES - before).min(input.len());
                head.extend_from_slice(&input[..room]);
                match head_len(head)? {
                    None if head.len() >= MOST_HEAD_BYTES => Err(Problem::LongHead),
                    None => Ok((room, 0)),
                    Some(len) => {
                        self.members = self.members.saturating_add(1);
                        self.part = Part::Body;
                        self.inflate.reset(false);
                        self.crc.reset();
                        // What came before was no whole head, so it ends in this input.
                        Ok((len.saturating_sub(before), 0))
                    }
                }
            }
            Part::Body => {
                let (came, made) = (self.inflate.total_in(), self.inflate.total_out());
                let status = self.inflate.decompress(input, out, FlushDecompress::None);
                let status = status.map_err(|_| Problem::Deflate)?;
                let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
                let taken = count(self.inflate.total_in(), came);
                let made = count(self.inflate.total_out(), made);
                self.crc.update(&out[..made]);
                if status == Status::StreamEnd {
                    self.part = Part::Tail(Vec::new());
                    if (taken, made) == (0, 0) {
                        // That would say that more has to come.
                        return self.step(input, out);
                    }
                }
                Ok((taken, made))
            }
            Part::Tail(tail) => {
                let room = (TAIL_BYTES - tail.len()).min(input.len());
                tail.extend_from_slice(&input[..room]);
                if tail.len() == TAIL_BYTES {
                    let said = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()];
                    if said.concat() != *tail {
                        return Err(Problem::Checksum);
                    }
                    self.part = Part::Between;
                }
                Ok((room, 0))
            }
        }
    }
}

/// Bytes of the head that these begin with; `None` where it is not whole.
fn head_len(bytes: &[u8]) -> Result<Option<usize>, Problem> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(Problem::Head);
    }
    let Some(&flags) = bytes.get(3) else { return Ok(None) };
    if flags & RESERVED != 0 {
        return Err(Problem::Head);
    }
    let mut at = FIXED_BYTES;
    if flags & EXTRA != 0 {
        let Some(len) = bytes.get(at..at + 2) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([len[0], len[1]]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0));
            let Some(end) = end else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & HEAD_CRC != 0 {
        let mut crc = Crc::new();
        let Some(stored) = bytes.get(at..at + 2) else { return Ok(None) };
        crc.update(&bytes[..at]);
        if stored != &crc.sum().to_le_bytes()[..2] {
            return Err(Problem::Head);
        }
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    /// What is made of these pieces, with so much room for output each time; and whether it may end there.
    fn gunzip(pieces: &[&[u8]], room: usize) -> Result<(Vec<u8>, bool), Problem> {
        let (mut gunzip, mut all) = (Gunzip::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let mut out = vec![0; room];
                let (taken, made) = gunzip.step(rest, &mut out)?;
                rest = &rest[taken..];
                all.extend_from_slice(&out[..made]);
                if (taken, made) == (0, 0) {
                    break;
                }
            }
            assert!(rest.is_empty(), "nothing is left behind");
        }
        let is_between = gunzip.is_between();
        Ok((all, is_between))
    }

    fn zip(plain: &[u8], builder: GzBuilder) -> Vec<u8> {
        let mut encoder = builder.write(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn it_is_the_same_however_it_is_cut_and_whatever_its_head_says() {
        let plain: Vec<u8> = (0..3_000_u32).flat_map(|at| (at * at).to_le_bytes()).collect();
        let builders = [
            GzBuilder::new(),
            GzBuilder::new().filename("a name").comment("a comment").mtime(7),
            GzBuilder::new().extra(vec![0; 300]),
        ];
        let members: Vec<_> = builders.into_iter().map(|builder| zip(&plain, builder)).collect();
        let whole = (plain.repeat(3), true);
        let all = members.concat();
        for size in [1, 2, 3, 10, 299, 1_000, all.len()] {
            for room in [1, 100, 16 << 10] {
                let pieces: Vec<_> = all.chunks(size).collect();
                assert!(gunzip(&pieces, room) == Ok(whole.clone()), "{size}, {room}");
            }
        }
        // A head with a checksum of its own.
        let mut head = members[0][..10].to_vec();
        head[3] |= HEAD_CRC;
        let mut crc = Crc::new();
        crc.update(&head);
        let with_crc = [&head[..], &crc.sum().to_le_bytes()[..2], &members[0][10..]].concat();
        assert!(gunzip(&[&with_crc], 1_000) == Ok((plain, true)));
        let wrong = [&head[..], &[0, 0], &members[0][10..]].concat();
        assert_eq!(gunzip(&[&wrong], 1_000), Err(Problem::Head));
    }

    /// Bytes that do not repeat themselves.
    fn varied(size: usize) -> Vec<u8> {
        (0..size).map(|at| ((at * at) >> 7).to_le_bytes()[0]).collect()
    }

    #[test]
    fn it_ends_where_it_ends_however_much_fits() {
        for size in [0, 1, 16 << 10, 32 << 10, (32 << 10) + 1, 48 << 10, 64 << 10, 96 << 10] {
            for plain in [vec![b'x'; size], varied(size)] {
                let all = zip(&plain, GzBuilder::new());
                for room in [1 << 10, 16 << 10, 32 << 10, size.max(1)] {
                    for cut in [all.len(), all.len() - 8, all.len() - 9, all.len() - 10] {
                        let (first, rest) = all.split_at(cut);
                        let found = gunzip(&[first, rest], room);
                        assert!(found == Ok((plain.clone(), true)), "{size}, {room}, {cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_flushed_comes_out_before_more_goes_in() {
        let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
        let mut gunzip = Gunzip::default();
        for size in [1, 100, 40_000, 16 << 10, 32 << 10, 64 << 10, 1 << 20] {
            encoder.write_all(&vec![b'x'; size]).unwrap();
            encoder.flush().unwrap();
            let (coded, mut made) = (std::mem::take(encoder.get_mut()), 0);
            let mut rest = &coded[..];
            loop {
                let (taken, some) = gunzip.step(rest, &mut [0; 16 << 10]).unwrap();
                (rest, made) = (&rest[taken..], made + some);
                if (taken, some) == (0, 0) {
                    break;
                }
            }
            assert_eq!(made, size);
        }
    }

    #[test]
    fn what_is_none_is_told_apart() {
        let good = zip(b"something", GzBuilder::new());
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            gunzip(&[&bytes], 100)
        };
        for at in 0..3 {
            assert_eq!(with(at, 0xff), Err(Problem::Head), "{at}");
        }
        assert_eq!(with(3, 0xff), Err(Problem::Head));
        assert_eq!(with(10, 0xff), Err(Problem::Deflate));
        for (at, byte) in good.iter().enumerate().skip(good.len() - 8) {
            assert_eq!(with(at, byte ^ 1), Err(Problem::Checksum), "{at}");
        }
        for len in 0..good.len() {
            assert_eq!(gunzip(&[&good[..len]], 100).map(|(_, is_between)| is_between), Ok(false));
        }
        let long = zip(b"", GzBuilder::new().filename(vec![b'x'; 5_000]));
        assert_eq!(gunzip(&[&long], 100), Err(Problem::LongHead));
    }
}
