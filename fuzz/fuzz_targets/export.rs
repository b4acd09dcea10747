//! A file that is said to be an export, in either format: read to its end or refused, and never more of
//! it than there is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailmark::export::Reader;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let mut records = 0;
    while let Ok(Some(_)) = reader.read() {
        records += 1;
        assert!(records <= bytes.len(), "records of nothing");
        assert!(reader.bytes() <= bytes.len() as u64);
    }
});
