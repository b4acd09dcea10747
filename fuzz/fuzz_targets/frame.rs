//! A message of a shared journal, as anybody may have put it there: no frame, or one whose bytes are the only
//! ones that say what it says. The chain in it is made to fit: it keeps accidents out, and would keep the
//! fuzzer out of all behind it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tailmark_log::LogId;
use tailmark_log::storage::shared::{Content, Frame, fuzzing};

fuzz_target!(|bytes: &[u8]| {
    let log = LogId::new(uuid::Uuid::nil());
    let _ = Frame::decode(&Bytes::copy_from_slice(bytes), log);
    let bytes: Bytes = fuzzing::with_its_chain(bytes, log).into();
    let Ok(frame) = Frame::decode(&bytes, log) else { return };
    let again = Frame::new(Content::clone(&frame));
    assert_eq!(again.bytes(), &bytes);
    assert_eq!(again.chain(), frame.chain());
});
