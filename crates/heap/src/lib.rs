//! What the system's allocator holds of memory that was given back to it, and how the system gets it.
//!
//! glibc keeps what is freed below the top of its heap: a daemon that has served 50,000 streams for a
//! moment keeps their 200 MB for as long as it lives. `malloc_trim(3)` gives the pages back. With other
//! allocators nothing is known, and nothing done.

/// Bytes that the allocator holds and nobody uses; `None` where it does not say.
///
/// Looks at every arena, a few microseconds each.
pub fn free_bytes() -> Option<usize> {
    imp::free_bytes()
}

/// Gives whole pages that nobody uses back to the system; whether there were any.
///
/// Each arena is locked while its pages are: whoever allocates there meanwhile waits, some
/// milliseconds for hundreds of megabytes.
pub fn give_back() -> bool {
    imp::give_back()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod imp {
    pub(super) fn free_bytes() -> Option<usize> {
        // SAFETY: it takes nothing, and answers numbers; glibc locks each arena that it reads.
        let info = unsafe { libc::mallinfo2() };
        Some(info.fordblks)
    }

    pub(super) fn give_back() -> bool {
        // SAFETY: it takes no pointer; glibc locks each arena, and lets go of free pages alone.
        let given = unsafe { libc::malloc_trim(0) };
        given != 0
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod imp {
    pub(super) fn free_bytes() -> Option<usize> {
        None
    }

    pub(super) fn give_back() -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Of this process, in bytes.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    }

    #[test]
    fn what_is_freed_below_the_top_comes_back() {
        let mut all: Vec<_> = (0..100_000).map(|_| vec![1_u8; 1_000]).collect();
        // What lies on top keeps the rest from going by itself.
        let top = all.pop();
        drop(all);
        let (free, before) = (free_bytes().unwrap(), resident());
        assert!(free > 80_000_000, "the null control: {free} are kept");
        assert!(give_back());
        assert!(resident() + 60_000_000 < before, "{before} before, {} after", resident());
        drop(top);
    }
}
