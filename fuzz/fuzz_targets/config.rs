//! A file of settings: refused with a reason, or settings whose every value can be shown.
#![no_main]

use std::os::fd::AsRawFd as _;

use libfuzzer_sys::fuzz_target;
use tailmark::config::Sources;

fuzz_target!(|text: &[u8]| {
    let file = rustix::fs::memfd_create("config", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    rustix::io::write(&file, text).expect("room");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let sources = Sources { file: Some(path.into()), ..Sources::default() };
    match sources.load() {
        Ok(loaded) => {
            assert!(!loaded.entries().is_empty());
            let _ = (loaded.config.warnings(), loaded.config.check().expect("it was checked"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
