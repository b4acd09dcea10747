//! What the system's allocator holds of memory that was given back to it, and how the system gets it.
//!
//! glibc keeps what is freed below the top of its heap: a daemon that has served 50,000 streams for a
//! moment keeps their 200 MB for as long as it lives. `malloc_trim(3)` gives the pages back. With other
//! allocators nothing is known, and nothing done.

/// Bytes of this process in RAM that are no file's; `None` where the system does not say.
pub fn anonymous_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// Bytes that the program has of the allocator; `None` where it does not say.
///
/// Goes through what is free in every arena, which takes milliseconds where it is in many pieces.
pub fn used_bytes() -> Option<usize> {
    imp::used_bytes()
}

/// Gives whole pages that nobody uses back to the system.
///
/// Each arena is locked while its pages are: whoever allocates there meanwhile waits, some
/// milliseconds for hundreds of megabytes.
pub fn give_back() {
    imp::give_back();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod imp {
    pub(super) fn used_bytes() -> Option<usize> {
        // SAFETY: it takes nothing, and answers numbers; glibc locks each arena that it reads.
        let info = unsafe { libc::mallinfo2() };
        info.uordblks.checked_add(info.hblkhd)
    }

    pub(super) fn give_back() {
        // SAFETY: it takes no pointer; glibc locks each arena, and lets go of free pages alone.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod imp {
    pub(super) fn used_bytes() -> Option<usize> {
        None
    }

    pub(super) fn give_back() {}
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_below_the_top_comes_back_and_is_not_looked_for_again() {
        let kept = || anonymous_bytes().unwrap().saturating_sub(used_bytes().unwrap());
        let mut all: Vec<_> = (0..100_000).map(|_| vec![1_u8; 1_000]).collect();
        assert!(kept() < 30_000_000, "in use: {}", kept());
        // What lies on top keeps the rest from going by itself.
        let top = all.pop();
        drop(all);
        let before = kept();
        assert!(before > 80_000_000, "the null control: {before} are kept");
        give_back();
        assert!(kept() + 60_000_000 < before, "{before} before, {} after", kept());
        drop(top);
    }
}
