//! The footer of a segment and a block: taken apart or refused. Checksums are made to fit, or nothing
//! behind them would be reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailmark_log::storage::segment::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    match choice {
        0 => fuzzing::heads(bytes),
        1 => fuzzing::identity_and_rows(bytes),
        2 => fuzzing::files_and_numbers(bytes),
        3 => fuzzing::topics(bytes),
        _ => fuzzing::block(bytes),
    }
});
