use proptest::prelude::*;

use super::*;

fn log() -> LogId {
    LogId::new(uuid::Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10))
}

fn content(body: Body) -> Content {
    let previous = FrameChain([7; 16]);
    Content { log: log(), previous, term: 2, writer: 3, nonce: 4, body }
}

fn commit() -> Commit {
    Commit {
        first: Seq::new(5),
        count: 1,
        appended_at: Timestamp { seconds: 1, nanos: 6 },
        events: Bytes::from_static(b"\x0a\x03\x12\x01t"),
        delta: Bytes::from_static(b"delta"),
        state: None,
        link: Link::new([9; 16]),
        oldest: Seq::new(2),
        oldest_tag: Some(ChainTag::new(8)),
    }
}

fn table() -> GenerationTable {
    let first = GenerationTable::created(11, Timestamp { seconds: 1, nanos: 0 });
    first.with_next(12, Seq::new(5), Timestamp { seconds: 2, nanos: 0 }, "taken over").unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        next: Seq::new(6),
        link: Link::new([9; 16]),
        oldest: Seq::new(2),
        oldest_tag: None,
        last_at: Timestamp { seconds: 1, nanos: 6 },
        generations: table(),
        state: Bytes::from_static(b"state"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Frozen: a journal outlives the program that wrote it.
#[test]
fn frames_are_the_bytes_that_they_were() {
    let named = "544d4a4601000{kind}0102030405060708090a0b0c0d0e0f10\
                 0200000000000000030000000000000004000000000000000707070707070707\
                 0707070707070707";
    let of = |kind: &str| named.replace("0{kind}", kind);
    let empty =
        ["c23e8801", &of("0000"), &"0".repeat(112), "0cddee070c0365bee680454eb0415b2e"].concat();
    assert_eq!(hex(Frame::new(content(Body::Empty)).bytes()), empty);
    let rows = "01000700 0b000000 0100000000000000 00ca9a3b00000000 63726561746564\
                02000a00 0c000000 0500000000000000 0094357700000000 74616b656e206f766572";
    let length = ["0".repeat(24), "41000000".to_owned(), "0".repeat(80)].concat();
    let term = [
        "c23ec901",
        &of("0100"),
        &length,
        &rows.replace(' ', ""),
        "c3f958a1fc2f6a974a8f739aa1c03588",
    ]
    .concat();
    assert_eq!(hex(Frame::new(content(Body::Term(table()))).bytes()), term);
    let numbers = "0500000000000000 01000000 05000000 0200000000000000 06ca9a3b00000000\
                   08000000 00000000 09090909090909090909090909090909";
    let parts = [
        "c23e8d01",
        &of("0201"),
        &numbers.replace(' ', ""),
        "64656c7461",
        "47128900c6676ba4c464d5f5dcc7a131",
        "0a03120174",
    ];
    assert_eq!(hex(Frame::new(content(Body::Commit(commit()))).bytes()), parts.concat());
}

fn read(bytes: &[u8]) -> Result<Frame, FrameProblem> {
    Frame::decode(&Bytes::copy_from_slice(bytes), log())
}

fn all() -> [Frame; 4] {
    let checkpoint = Body::Checkpoint(Arc::new(checkpoint()));
    [Body::Empty, Body::Term(table()), Body::Commit(commit()), checkpoint]
        .map(|it| Frame::new(content(it)))
}

#[test]
fn what_was_written_is_read() {
    for frame in all() {
        let read = read(frame.bytes()).unwrap();
        assert_eq!(format!("{:?}", read.content), format!("{:?}", frame.content));
        assert_eq!((read.chain(), read.bytes()), (frame.chain(), frame.bytes()));
    }
}

/// By the published types the events are there, and what is beside them is passed over.
#[test]
fn it_is_a_batch_of_events_to_others() {
    let frame = Frame::new(content(Body::Commit(commit())));
    let mut rest = &frame.bytes()[..];
    let mut fields = Vec::new();
    while let Some(tag) = take_varint(&mut rest) {
        let len = to_usize(take_varint(&mut rest).unwrap());
        let (value, behind) = rest.split_at(len);
        fields.push((tag >> 3, tag & 7, value));
        rest = behind;
    }
    assert_eq!(fields.len(), 2);
    assert_eq!((fields[0].0, fields[0].1), (1_000, 2));
    assert_eq!(fields[1], (1, 2, &b"\x12\x01t"[..]));
}

/// Each byte that is another, and each length that is: nothing else is taken for the frame.
#[test]
fn what_is_altered_is_told() {
    for frame in all() {
        let bytes = frame.bytes();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.to_vec();
                other[at] ^= 1 << bit;
                let problem = read(&other).map(|_| ()).unwrap_err();
                match at {
                    // The tag, and the magic behind the two bytes of the length.
                    0..2 | 4..8 => assert_eq!(problem, FrameProblem::Foreign, "{at}"),
                    8..10 => assert!(matches!(problem, FrameProblem::Version(_)), "{at}"),
                    _ => assert_ne!(problem, FrameProblem::Version(FORMAT), "{at}"),
                }
            }
            assert!(read(&bytes[..at]).is_err(), "{at}");
        }
        assert!(read(&[bytes, &b"\0"[..]].concat()).is_err());
    }
}

/// With a chain that fits.
fn sealed(frame: &Frame, alter: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = frame.bytes().to_vec();
    alter(&mut bytes);
    let end = bytes.len() - frame.body.events().len();
    let chain = chain(&bytes[..end - CHAIN], &bytes[end..]);
    bytes[end - CHAIN..end].copy_from_slice(&chain.0);
    bytes
}

/// What no frame of ours says is not read, though its chain fits.
#[test]
fn there_is_one_form() {
    let [empty, term, commit, checkpoint] = all();
    // Behind the tag and the length, which are four bytes.
    let head = |at: usize| at + 4;
    let zeros = (64..76).chain(80..120).chain([7]);
    for at in zeros {
        for frame in [&empty, &term] {
            let other = sealed(frame, |bytes| bytes[head(at)] = 1);
            assert_eq!(read(&other).map(|_| ()), Err(FrameProblem::Damaged("what it carries")));
        }
    }
    for (frame, at, byte) in [
        (&empty, 6, 1),
        (&empty, 6, 3),
        (&term, 6, 0),
        (&commit, 6, 1),
        (&commit, 7, 0),
        (&commit, 7, 2),
        (&commit, 64, 0),
        (&commit, 100, 1),
        // Generations out of order, and one that is cut.
        (&term, 120, 2),
        (&term, 122, 8),
        (&term, 144, 0xff),
        // A checkpoint: its flags, its next seq, where its generations end, one that is cut.
        (&checkpoint, 7, 1 << 1),
        (&checkpoint, 64, 0),
        (&checkpoint, 72, 8),
        (&checkpoint, 80, 7),
        (&checkpoint, 100, 1),
        (&checkpoint, 122, 8),
    ] {
        let other = sealed(frame, |bytes| bytes[head(at)] = byte);
        let problem = read(&other).map(|_| ()).unwrap_err();
        assert_eq!(problem, FrameProblem::Damaged("what it carries"), "{at}");
    }
    let beyond = sealed(&commit, |bytes| bytes[head(64)..head(72)].fill(0xff));
    assert_eq!(read(&beyond).map(|_| ()), Err(FrameProblem::Damaged("what it carries")));
    // A time that would be written as another; found by the fuzzer.
    for (frame, at) in [(&commit, 88), (&term, 120 + 16)] {
        let other = sealed(frame, |bytes| {
            bytes[head(at)..head(at + 8)].copy_from_slice(&(i64::MIN + 5).to_le_bytes());
        });
        assert_eq!(read(&other).map(|_| ()), Err(FrameProblem::Damaged("what it carries")));
    }
    let lengths = sealed(&commit, |bytes| bytes[head(76)] = 4);
    assert!(matches!(read(&lengths), Err(FrameProblem::Damaged(_))));
    let other = sealed(&commit, |bytes| bytes[head(8)] = 0xff);
    assert!(matches!(read(&other), Err(FrameProblem::OtherLog(_))));
}

#[test]
fn what_is_not_ours_is_foreign() {
    for bytes in
        [&b""[..], b"\xc2", b"\xc2\x3e", b"\xc2\x3e\x88\x01", b"hello", b"\x0a\x03\x12\x01t"]
    {
        assert_eq!(read(bytes).map(|_| ()), Err(FrameProblem::Foreign), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn any_commit_is_read(
        first in 1..u64::MAX - 9, count in 0u32..8, at in i64::MIN + 1_000_000_000..i64::MAX, oldest in any::<u64>(),
        events in proptest::collection::vec(any::<u8>(), 0..99), tag in proptest::option::of(any::<u32>()),
        delta in proptest::collection::vec(any::<u8>(), 0..99), link in any::<[u8; 16]>(),
    ) {
        let commit = Commit {
            first: Seq::new(first), count, appended_at: Timestamp::from_nanos(at), events: events.into(),
            delta: delta.into(), state: None, link: Link::new(link), oldest: Seq::new(oldest),
            oldest_tag: tag.map(ChainTag::new),
        };
        let frame = Frame::new(content(Body::Commit(commit)));
        let read = read(frame.bytes()).unwrap();
        prop_assert_eq!(format!("{:?}", read.content), format!("{:?}", frame.content));
        let again = Frame::new(read.content);
        prop_assert_eq!(again.bytes(), frame.bytes());
    }
}
