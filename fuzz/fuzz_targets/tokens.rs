//! The file of tokens: refused with a line, or put into force.
#![no_main]

use std::os::fd::AsRawFd as _;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tailmark::tokens::Tokens;

fuzz_target!(|text: &[u8]| {
    let file = rustix::fs::memfd_create("tokens", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    rustix::io::write(&file, text).expect("room");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match Tokens::read(Path::new(&path)) {
        Ok(tokens) => {
            for entry in tokens.tokens.iter().chain(&tokens.certificates) {
                let _ = (entry.rights(), entry.name.len());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
