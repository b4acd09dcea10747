use std::io;

use super::*;

fn encoder(format: Format, topic: &str) -> Encoder {
    Encoder {
        format,
        mappings: Vec::new(),
        delimiter: None,
        ignores_unknown: false,
        topic: topic.to_owned(),
        limits: Limits::default(),
        lines: Arc::default(),
    }
}

/// What comes out, and how it ended; the channel has room for everything.
fn encode(encoder: &Encoder, input: impl Read) -> (Vec<Bytes>, Option<InputError>) {
    let (sender, mut receiver) = mpsc::channel(10_000);
    let summary = encoder.run(input, &sender);
    drop(sender);
    let mut events = Vec::new();
    while let Ok(chunk) = receiver.try_recv() {
        assert!(!chunk.events.is_empty() && chunk.events.len() <= CHUNK_EVENTS);
        events.extend(chunk.events);
    }
    (events, summary.error)
}

fn bad_line(error: Option<InputError>) -> (u64, String) {
    match error {
        Some(InputError::Line { line, message }) => (line, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_handed_over_after_a_bad_line() {
    let good = "{\"topic\":\"a\",\"body\":\"x\"}\n";
    for (bad, part) in [
        ("{\"topik\":\"a\"}", "unknown field `topik`"),
        ("{\"body\":\"no topic\"}", "no topic"),
        ("{\"topic\":\"a..b\"}", "topic: has an empty segment"),
        ("{\"topic\":\"a\",\"body\":\"x\",\"data\":\"eA==\"}", "set body or data, not both"),
        ("{\"topic\":\"a\",\"marker\":{}}", "only a server sends markers"),
        ("{\"topic\":\"a\"", "the JSON ends within an object"),
        ("7", "expected a JSON object"),
    ] {
        let input = format!("{good}\n  \n{good}{bad}\n{good}");
        let (events, error) = encode(&encoder(Format::Jsonl, ""), input.as_bytes());
        let (line, message) = bad_line(error);
        assert_eq!((events.len(), line), (2, 5), "{bad}");
        assert!(message.contains(part), "{bad}: {message}");
    }
}

#[test]
fn every_line_becomes_one_event_in_order() {
    let mut input = String::new();
    for n in 0..3_500 {
        input.push_str(&format!("line {n}\n"));
    }
    let (events, error) = encode(&encoder(Format::Lines, "t"), input.as_bytes());
    assert!(error.is_none());
    assert_eq!(events.len(), 3_500);
    for (n, bytes) in events.iter().enumerate() {
        let event = Event::parse(bytes).unwrap();
        assert_eq!((event.topic, event.body), ("t", format!("line {n}").as_str()));
        assert!(!event.has_client_id);
    }
}

#[test]
fn the_default_topic_is_for_objects_without_one() {
    let input = b"{\"topic\":\"own\"}\n{}";
    let (events, error) = encode(&encoder(Format::Jsonl, "given"), &input[..]);
    assert!(error.is_none());
    let topics: Vec<_> = events.iter().map(|e| Event::parse(e).unwrap().topic).collect();
    assert_eq!(topics, ["own", "given"]);
}

#[test]
fn an_event_over_the_limit_is_refused_here() {
    let mut encoder = encoder(Format::Lines, "t");
    // Topic and body with their tags and lengths.
    encoder.limits.event_bytes = 3 + 12;
    let (events, error) = encode(&encoder, &b"0123456789\n0123456789x\n"[..]);
    let (line, message) = bad_line(error);
    assert_eq!((events.len(), line), (1, 2));
    assert_eq!(message, "16 bytes are over the limit of 15");
}

#[test]
fn a_line_without_an_end_is_not_read_into_memory() {
    let endless = io::repeat(b'x').take(MAX_LINE_BYTES * 3);
    let (events, error) = encode(&encoder(Format::Lines, "t"), endless);
    assert_eq!((events.len(), bad_line(error).0), (0, 1));
}

#[test]
fn an_input_that_fails_keeps_what_was_read() {
    struct Fails(&'static [u8]);
    impl Read for Fails {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::Error::other("gone")),
                len => Ok(len),
            }
        }
    }
    let (events, error) = encode(&encoder(Format::Lines, "t"), Fails(b"one\ntwo\n"));
    assert_eq!(events.len(), 2);
    assert!(matches!(error, Some(InputError::Read(_))));
}

#[test]
fn reading_waits_for_the_network_and_ends_with_it() {
    let encoder = encoder(Format::Lines, "t");
    let lines = encoder.lines.clone();
    let (sender, mut receiver) = mpsc::channel(1);
    let reader = std::thread::spawn(move || encoder.run(io::repeat(b'\n'), &sender));
    // The input never ends: what is read ahead is bounded by the channel alone.
    let taken: usize = (0..5).map(|_| receiver.blocking_recv().unwrap().events.len()).sum();
    assert_eq!(taken, 5 * CHUNK_EVENTS);
    drop(receiver);
    assert!(reader.join().unwrap().error.is_none());
    let read = usize::try_from(lines.load(Ordering::Relaxed)).unwrap();
    assert!(read <= taken + 3 * CHUNK_EVENTS, "{read}");
}

#[test]
fn a_quote_out_of_place_ends_the_rows_and_swallows_none() {
    for (bad, at) in [
        ("5\" disk,1\nb,2\nc,3\n", 3),
        ("5\" disk,1\nb,2\n6\" disk,3\nc,4\n", 3),
        ("b,\"2\nc,3\n", 3),
        ("\"b\"x\"\nc,\"3\n", 3),
        ("b\"\",\"2\nc,3\n", 3),
        ("b,2\rc,3\n", 3),
    ] {
        let input = format!("name,n\na,1\n{bad}");
        let (events, error) = encode(&encoder(Format::Csv, "t"), input.as_bytes());
        let (line, message) = bad_line(error);
        assert_eq!((events.len(), line), (1, at), "{bad}: {message}");
        let words = ["out of place", "a quote that nothing closes", "columns"];
        assert!(words.iter().any(|it| message.contains(it)), "{message}");
    }
    // The null control: quotes where they belong.
    let good = "name,n\r\n\"a \"\"b\"\"\nc\r\nd\",1\r\n\n\"\",\"2\"\nx\"y\",3";
    let (events, error) = encode(&encoder(Format::Csv, "t"), good.as_bytes());
    assert!(error.is_none(), "{error:?}");
    let bodies: Vec<_> = events.iter().map(|e| Event::parse(e).unwrap().body).collect();
    let first = r#"{"name":"a \"b\"\nc\r\nd","n":"1"}"#;
    assert_eq!(bodies, [first, r#"{"name":"","n":"2"}"#, r#"{"name":"x\"y\"","n":"3"}"#]);
}

/// A quote that is never closed holds all lines that follow; each is counted once.
#[test]
fn a_quote_that_stays_open_costs_no_more_than_the_lines_behind_it() {
    let mut input = b"a\n\"".to_vec();
    input.extend_from_slice(&b"\n".repeat(300_000));
    let begun = std::time::Instant::now();
    let (events, error) = encode(&encoder(Format::Csv, "t"), &input[..]);
    let (line, message) = bad_line(error);
    assert_eq!((events.len(), line), (0, 2), "{message}");
    // Counted anew at each line these are 45,000,000,000 bytes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn what_would_be_lost_in_silence_is_refused() {
    let digest = "AAAAAAAAAAAAAAAAAAAAAA==";
    let erased = format!(
        r#"{{"topic":"a","erased":{{"rest_digest":"{digest}","payload_digest":"{digest}","reason":"r",
        "erased_at":"2026-03-01T10:00:00Z","erasure":"0190f5d0-0000-7000-8000-000000000000"}}}}"#
    )
    .replace('\n', "");
    let lenient = Encoder { ignores_unknown: true, ..encoder(Format::Jsonl, "") };
    for (encoder, line, said) in [
        (lenient, &*erased, "erased: only a server says that"),
        (
            encoder(Format::Kcat, ""),
            r#"{"topic":"a","payload":"x","headers":["h","1","h","2"]}"#,
            "headers: `h` is given twice",
        ),
        (
            encoder(Format::Kcat, ""),
            r#"{"topic":"a","partition":-1,"payload":"x"}"#,
            "expected a whole number from 0 on, not `-1`",
        ),
        (encoder(Format::Kcat, ""), "5", "expected a JSON object, not `5`"),
        (encoder(Format::Records, "a"), r#"{"z":1e400}"#, "send it as a string"),
        (encoder(Format::Records, "a"), r#"["\ud800"]"#, "send it as a string"),
        (encoder(Format::Csv, "a"), "", "the input is empty"),
    ] {
        let (events, error) = encode(&encoder, line.as_bytes());
        let (at, message) = bad_line(error);
        assert!(events.is_empty() && at == 1 && message.contains(said), "{line}: {message}");
    }
}

#[test]
fn a_mapping_that_meets_nothing_is_told() {
    let mapped = |format, mappings: &[&str]| {
        let mappings = mappings.iter().map(|it| parse_mapping(it).unwrap()).collect();
        Encoder { mappings, ..encoder(format, "a") }
    };
    // Of rows at the header, where a name may have dots.
    let rows = "user.id,t\n7,x\n";
    let (events, error) = encode(&mapped(Format::Csv, &["key=.user.id"]), rows.as_bytes());
    assert!(error.is_none());
    assert_eq!(Event::parse(&events[0]).unwrap().key, "7");
    let (_, error) = encode(&mapped(Format::Csv, &["key=.user"]), rows.as_bytes());
    let said = "--map key=.user: no column is called so; there are .user.id .t";
    assert_eq!(bad_line(error), (1, said.to_owned()));
    // Of records at the end: some may lack what others have.
    let twice = &br#"{"k":1,"k":2}"#[..];
    let (_, error) = encode(&mapped(Format::Records, &["key=.k"]), twice);
    assert_eq!(bad_line(error), (1, ".k: `k` is given twice".to_owned()));
    assert!(encode(&mapped(Format::Records, &["id=.other"]), twice).1.is_none());
    let encoder = mapped(Format::Records, &["key=.k", "header.a=.b.c"]);
    let (sender, _receiver) = mpsc::channel(10);
    let summary = encoder.run(&b"{\"k\":1}\n{\"b\":{}}\n"[..], &sender);
    assert_eq!((summary.error.is_none(), summary.unmet), (true, vec!["header.a=.b.c".to_owned()]));
}
