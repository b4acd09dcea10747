//! Codings of bytes, for bodies of plain HTTP and for messages of gRPC: gzip (RFC 1952), and zstd (RFC 8878)
//! where it is built.
//!
//! Knows neither protocol. A decoder makes as much as there is room for, when it is asked: how much is
//! made in all is its caller's to bound, and [`Swelling`] says what is too much for what came.

mod gunzip;
mod gzip;
#[cfg(feature = "zstd")]
mod zstandard;

use self::gunzip::Gunzip;
use self::gzip::Gzip;
#[cfg(feature = "zstd")]
pub(crate) use self::zstandard::in_zstd;
#[cfg(feature = "zstd")]
use self::zstandard::{Unzstd, Zstd};
use crate::server::permits::StreamKind;

/// What the state of an encoder takes, of the one that takes most.
pub(crate) const ENCODER_BYTES: usize = if IS_ZSTD { 640 << 10 } else { 336 << 10 };
/// What that of a decoder of gzip takes, with what it has made.
pub(crate) const DECODER_BYTES: usize = 64 << 10;
/// What that of a decoder of zstd takes, by the largest window that it lets come.
pub(crate) const ZSTD_DECODER_BYTES: usize = (8 << 20) + (512 << 10);
const IS_ZSTD: bool = cfg!(feature = "zstd");
/// What is known to be shorter gains nothing.
pub(crate) const WORTHWHILE_BYTES: usize = 1 << 10;
/// The names of all, as lists of HTTP have them.
pub(crate) const NAMES: &str = if IS_ZSTD { "gzip, zstd" } else { "gzip" };

/// How bytes are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Coding {
    /// The one of this name, in any case.
    pub(crate) fn named(name: &str) -> Option<Coding> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("gzip") || is("x-gzip") {
            return Some(Coding::Gzip);
        }
        #[cfg(feature = "zstd")]
        if is("zstd") {
            return Some(Coding::Zstd);
        }
        None
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            #[cfg(feature = "zstd")]
            Coding::Zstd => "zstd",
        }
    }

    /// As what its decoders are counted.
    pub(crate) const fn decoders(self) -> StreamKind {
        match self {
            Coding::Gzip => StreamKind::Decoded,
            #[cfg(feature = "zstd")]
            Coding::Zstd => StreamKind::DecodedZstd,
        }
    }
}

/// Why bytes are not what they are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Head,
    LongHead,
    Deflate,
    Checksum,
    Cut,
    ManyParts,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Problem {
    /// What follows "it is said to be gzip, but".
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Problem::Head => "a part of it does not begin as gzip does",
            Problem::LongHead => "the head of a member is longer than 4 KiB",
            Problem::Deflate => "its deflate is damaged",
            Problem::Checksum => "its checksum or length is not that of what it holds",
            Problem::Cut => "it is cut off",
            Problem::ManyParts => "it is put together of too many parts",
            #[cfg(feature = "zstd")]
            Problem::Zstd => "it is damaged, or wants a window of more than 8 MiB",
        }
    }
}

/// Makes of coded bytes what they were.
pub(crate) enum Decoder {
    Gzip(Box<Gunzip>),
    #[cfg(feature = "zstd")]
    Zstd(Unzstd),
}

impl Decoder {
    pub(crate) fn new(coding: Coding) -> Decoder {
        match coding {
            Coding::Gzip => Decoder::Gzip(Box::default()),
            #[cfg(feature = "zstd")]
            Coding::Zstd => Decoder::Zstd(Unzstd::default()),
        }
    }

    /// Takes some of the input and makes some output: how much of each. Neither: more has to come.
    pub(crate) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Problem> {
        match self {
            Decoder::Gzip(gunzip) => gunzip.step(input, out),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(unzstd) => unzstd.step(input, out),
        }
    }

    /// Of what it was put together: members of gzip, frames of zstd, that have begun.
    pub(crate) fn parts(&self) -> u32 {
        match self {
            Decoder::Gzip(gunzip) => gunzip.members(),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(unzstd) => unzstd.frames(),
        }
    }

    /// Whether it may end here.
    pub(crate) fn is_between(&self) -> bool {
        match self {
            Decoder::Gzip(gunzip) => gunzip.is_between(),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(unzstd) => unzstd.is_between(),
        }
    }
}

/// Codes bytes. What one makes is whole where it has [ended](Encoder::finish), and it can begin anew.
pub(crate) enum Encoder {
    Gzip(Box<Gzip>),
    #[cfg(feature = "zstd")]
    Zstd(Zstd),
}

/// What an encoder writes into memory could not be written.
#[derive(Debug)]
pub(crate) struct Unwritten;

impl Encoder {
    pub(crate) fn new(coding: Coding) -> Encoder {
        match coding {
            Coding::Gzip => Encoder::Gzip(Box::default()),
            #[cfg(feature = "zstd")]
            Coding::Zstd => Encoder::Zstd(Zstd::default()),
        }
    }

    pub(crate) fn write(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritten> {
        match self {
            Encoder::Gzip(gzip) => gzip.write(raw, out),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(zstd) => zstd.write(raw, out),
        }
    }

    /// A decoder can give out all that was written.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Unwritten> {
        match self {
            Encoder::Gzip(gzip) => gzip.flush(out),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(zstd) => zstd.flush(out),
        }
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Unwritten> {
        match self {
            Encoder::Gzip(gzip) => gzip.finish(out),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(zstd) => zstd.finish(out),
        }
    }
}

/// How much is made of what came. Deflate gets to a thousand times, for nothing but repeats; real JSON to
/// 5 or 20.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swelling {
    /// So much may be made in any case.
    free: u64,
    came: u64,
    made: u64,
}

/// So many times what came may be made of it, once that is more than is free.
pub(crate) const MOST_TIMES: u64 = 200;
/// So much may be made, whatever came of it.
const FREE_BYTES: usize = 1 << 20;

/// More is made than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Swells {
    pub(crate) limit: u64,
    pub(crate) actual: u64,
}

impl Swelling {
    /// For messages or lines of up to so much.
    pub(crate) fn new(message_bytes: usize) -> Swelling {
        Swelling { free: message_bytes.min(FREE_BYTES) as u64, came: 0, made: 0 }
    }

    pub(crate) fn came(&mut self, bytes: usize) {
        self.came += bytes as u64;
    }

    pub(crate) fn made(&mut self, bytes: usize) -> Result<(), Swells> {
        self.made += bytes as u64;
        let limit = self.free.saturating_add(self.came.saturating_mul(MOST_TIMES));
        if self.made > limit { Err(Swells { limit, actual: self.made }) } else { Ok(()) }
    }
}
