//! What a file says that belongs to a backup: refused, or the same after it was written and read again.
//! Its hash is made to fit, or nothing behind it would be reached.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &str| {
    tailmark::backup::fuzz_manifest(body);
});
